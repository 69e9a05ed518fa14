//! The commands of QMP, with QEMU's errors.

use super::Done;
use crate::display::picture::{self, PictureFormat};
use crate::display::typist::{self, DEFAULT_HOLD};
use crate::monitor::media::{self, Medium};
use crate::monitor::{self, info, network};
use crate::remote::Remote;
use emu_devices::board::machine::RunState;
use emu_devices::input::Key;
use emu_devices::virtio::balloon::BalloonControl;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Duration;

/// The version of QEMU whose protocol this is.
const VERSION: [u32; 3] = [10, 0, 2];

/// Why a command was not carried out.
#[derive(Debug)]
pub struct Error {
    /// QEMU's class of errors.
    pub class: &'static str,
    /// For people.
    pub text: String,
}

impl Error {
    /// An error of the class that has no class.
    pub fn generic(text: impl Into<String>) -> Error {
        Error { class: "GenericError", text: text.into() }
    }
}

type Arguments = Map<String, Value>;
type Run = fn(&Remote, Arguments) -> Result<Done, Error>;

/// All commands but `qmp_capabilities`, which is about the conversation itself.
pub const COMMANDS: &[(&str, Run)] = &[
    ("balloon", |machine, mut arguments| {
        let value = arguments.remove("value").ok_or_else(|| Error::generic("Parameter 'value' is missing"))?;
        expect_no_more(&arguments)?;
        let target = value.as_u64().filter(|bytes| *bytes > 0);
        let target = target.ok_or_else(|| Error::generic("Parameter 'target' expects a size"))?;
        balloon(machine)?.set_target(target);
        nothing()
    }),
    ("blockdev-change-medium", change_medium),
    ("cont", |machine, arguments| {
        expect_no_more(&arguments)?;
        machine.cont().map_err(Error::generic)?;
        nothing()
    }),
    ("eject", |machine, mut arguments| {
        let device = take_device(&mut arguments)?;
        let force = take_bool(&mut arguments, "force")?.unwrap_or(false);
        expect_no_more(&arguments)?;
        media::take_out(machine, &device, force).map_err(|problem| device_error(&device, problem))?;
        nothing()
    }),
    ("human-monitor-command", human_monitor_command),
    ("query-balloon", |machine, arguments| {
        expect_no_more(&arguments)?;
        Ok(Done::Value(json!({"actual": balloon(machine)?.actual()})))
    }),
    ("query-block", |machine, arguments| {
        expect_no_more(&arguments)?;
        Ok(Done::Value(machine.media.iter().map(|media| block(&media.info())).collect()))
    }),
    ("query-chardev", |machine, arguments| {
        expect_no_more(&arguments)?;
        let show =
            |(label, filename): &(String, String)| json!({"frontend-open": true, "filename": filename, "label": label});
        Ok(Done::Value(machine.identity.chardevs.iter().map(show).collect()))
    }),
    ("query-commands", |_, arguments| {
        expect_no_more(&arguments)?;
        let names = COMMANDS.iter().map(|(name, _)| *name).chain(["qmp_capabilities"]);
        Ok(Done::Value(names.map(|name| json!({ "name": name })).collect()))
    }),
    ("query-cpus-fast", |_, arguments| {
        expect_no_more(&arguments)?;
        Ok(Done::Value(json!([{
            "cpu-index": 0,
            "qom-path": "/machine/unattached/device[0]",
            "thread-id": std::process::id(),
            "props": {"core-id": 0, "thread-id": 0, "socket-id": 0},
            "target": "x86_64",
        }])))
    }),
    ("query-kvm", |_, arguments| {
        expect_no_more(&arguments)?;
        Ok(Done::Value(json!({"enabled": false, "present": false})))
    }),
    ("query-name", |machine, arguments| {
        expect_no_more(&arguments)?;
        Ok(Done::Value(match machine.identity.name.as_str() {
            "" => json!({}),
            name => json!({ "name": name }),
        }))
    }),
    ("query-status", |machine, arguments| {
        expect_no_more(&arguments)?;
        let state = machine.run_state().unwrap_or(RunState::Shutdown);
        let running = state == RunState::Running;
        Ok(Done::Value(json!({"status": state.name(), "singlestep": false, "running": running})))
    }),
    ("query-uuid", |machine, arguments| {
        expect_no_more(&arguments)?;
        Ok(Done::Value(json!({"UUID": info::show_uuid(&machine.identity.uuid)})))
    }),
    ("query-version", |_, arguments| {
        expect_no_more(&arguments)?;
        Ok(Done::Value(version()))
    }),
    ("quit", |_, arguments| {
        expect_no_more(&arguments)?;
        Ok(Done::Quit)
    }),
    ("screendump", screendump),
    ("send-key", send_key),
    ("set_link", |machine, mut arguments| {
        let name = take_text(&mut arguments, "name")?.ok_or_else(|| missing("name"))?;
        let up = take_bool(&mut arguments, "up")?.ok_or_else(|| missing("up"))?;
        expect_no_more(&arguments)?;
        network::plug(machine, &name, up).map_err(|problem| device_error(&name, problem))?;
        nothing()
    }),
    ("stop", |machine, arguments| {
        expect_no_more(&arguments)?;
        machine.stop();
        nothing()
    }),
    ("system_powerdown", |machine, arguments| {
        expect_no_more(&arguments)?;
        machine.power_button();
        nothing()
    }),
    ("system_reset", |machine, arguments| {
        expect_no_more(&arguments)?;
        match machine.reset() {
            Some(problem) => Err(Error::generic(problem)),
            None => nothing(),
        }
    }),
];

fn balloon(machine: &Remote) -> Result<&BalloonControl, Error> {
    let absent = || Error { class: "DeviceNotActive", text: info::NO_BALLOON.into() };
    machine.balloon.as_ref().ok_or_else(absent)
}

fn nothing() -> Result<Done, Error> {
    Ok(Done::Value(json!({})))
}

/// What the greeting and `query-version` tell: the version of QEMU that is followed, and emu's own.
pub fn version() -> Value {
    let [major, minor, micro] = VERSION;
    let package = concat!("emu ", env!("CARGO_PKG_VERSION"));
    json!({"qemu": {"micro": micro, "minor": minor, "major": major}, "package": package})
}

/// `qmp_capabilities`: there are none to enable.
///
/// # Errors
/// The client enables some.
pub fn negotiate(arguments: &mut Arguments) -> Result<(), Error> {
    match arguments.remove("enable") {
        None => Ok(()),
        Some(Value::Array(names)) => match names.first() {
            None => Ok(()),
            Some(name) => Err(Error::generic(format!("Capability {name} not available"))),
        },
        Some(_) => Err(wrong_type("enable", "array")),
    }
}

/// # Errors
/// There is an argument that no command has taken.
pub fn expect_no_more(arguments: &Arguments) -> Result<(), Error> {
    match arguments.keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::generic(format!("Parameter '{name}' is unexpected"))),
    }
}

fn wrong_type(name: &str, expected: &str) -> Error {
    Error::generic(format!("Invalid parameter type for '{name}', expected: {expected}"))
}

fn not_accepted(name: &str, value: &str) -> Error {
    Error::generic(format!("Parameter '{name}' does not accept value '{value}'"))
}

fn missing(name: &str) -> Error {
    Error::generic(format!("Parameter '{name}' is missing"))
}

fn take_text(arguments: &mut Arguments, name: &str) -> Result<Option<String>, Error> {
    match arguments.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong_type(name, "string")),
    }
}

fn take_number(arguments: &mut Arguments, name: &str) -> Result<Option<i64>, Error> {
    match arguments.remove(name) {
        None => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong_type(name, "integer")),
    }
}

fn take_bool(arguments: &mut Arguments, name: &str) -> Result<Option<bool>, Error> {
    match arguments.remove(name) {
        None => Ok(None),
        Some(value) => value.as_bool().map(Some).ok_or_else(|| wrong_type(name, "boolean")),
    }
}

/// A drive by its name, which is its id too.
fn take_device(arguments: &mut Arguments) -> Result<String, Error> {
    match (take_text(arguments, "device")?, take_text(arguments, "id")?) {
        (Some(name), None) | (None, Some(name)) => Ok(name),
        _ => Err(Error::generic("Need exactly one of 'device' and 'id'")),
    }
}

fn device_error(device: &str, problem: String) -> Error {
    let class = if problem == format!("Device '{device}' not found") { "DeviceNotFound" } else { "GenericError" };
    Error { class, text: problem }
}

fn change_medium(machine: &Remote, mut arguments: Arguments) -> Result<Done, Error> {
    let device = take_device(&mut arguments)?;
    let file = take_text(&mut arguments, "filename")?.ok_or_else(|| missing("filename"))?;
    let format = take_text(&mut arguments, "format")?;
    let mode = take_text(&mut arguments, "read-only-mode")?;
    let force = take_bool(&mut arguments, "force")?.unwrap_or(false);
    expect_no_more(&arguments)?;
    let medium = Medium { file: &file, format: format.as_deref(), read_only_mode: mode.as_deref(), force };
    media::insert(machine, &device, &medium).map_err(|problem| device_error(&device, problem))?;
    nothing()
}

fn human_monitor_command(machine: &Remote, mut arguments: Arguments) -> Result<Done, Error> {
    let line = take_text(&mut arguments, "command-line")?.ok_or_else(|| missing("command-line"))?;
    if take_number(&mut arguments, "cpu-index")?.is_some_and(|index| index != 0) {
        return Err(Error::generic("Parameter 'cpu-index' expects a CPU number"));
    }
    expect_no_more(&arguments)?;
    let answer = monitor::execute(&mut monitor::Session::default(), machine, &line);
    Ok(Done::Value(answer.replace('\n', "\r\n").into()))
}

fn block(info: &emu_devices::storage::block::MediaInfo) -> Value {
    let mut device = json!({
        "device": info.name,
        "locked": info.locked,
        "removable": info.removable,
        "type": "unknown",
        "io-status": "ok",
    });
    if info.removable {
        device["tray_open"] = info.tray_open.into();
    }
    if let Some(file) = &info.file {
        device["inserted"] = json!({
            "file": file,
            "drv": info.format,
            "ro": info.read_only,
            "encrypted": false,
            "image": {"filename": file, "format": info.format, "virtual-size": info.len},
        });
    }
    device
}

fn screendump(machine: &Remote, mut arguments: Arguments) -> Result<Done, Error> {
    let name = take_text(&mut arguments, "filename")?.ok_or_else(|| missing("filename"))?;
    // Unlike the human monitor's, QMP's format does not follow the file's ending.
    let format = take_text(&mut arguments, "format")?.unwrap_or_else(|| "ppm".into());
    let format = PictureFormat::from_name(&format).ok_or_else(|| not_accepted("format", &format))?;
    expect_no_more(&arguments)?;
    let Some(frame) = machine.picture() else {
        return Err(Error::generic("There is no console to take a screendump from"));
    };
    match picture::save(&frame, Path::new(&name), format) {
        Ok(()) => nothing(),
        Err(e) => Err(Error::generic(format!("failed to open file '{name}': {}", monitor::reason(&e)))),
    }
}

fn send_key(machine: &Remote, mut arguments: Arguments) -> Result<Done, Error> {
    let keys = match arguments.remove("keys") {
        Some(Value::Array(keys)) => keys.iter().map(key).collect::<Result<Vec<Key>, Error>>()?,
        Some(_) => return Err(wrong_type("keys", "array")),
        None => return Err(missing("keys")),
    };
    let hold = take_number(&mut arguments, "hold-time")?;
    expect_no_more(&arguments)?;
    // A negative time is none, as in the human monitor.
    let hold = hold.map_or(DEFAULT_HOLD, |ms| Duration::from_millis(ms.clamp(0, 60_000) as u64));
    if !keys.is_empty() {
        machine.typist.stroke(keys, hold);
    }
    nothing()
}

/// A `KeyValue`: a name, or QEMU's number for a key.
fn key(value: &Value) -> Result<Key, Error> {
    let Value::Object(members) = value else { return Err(wrong_type("keys", "object")) };
    match (members.get("type").and_then(Value::as_str), members.get("data")) {
        (None, _) => Err(missing("type")),
        (_, None) => Err(missing("data")),
        (Some("qcode"), Some(Value::String(name))) if !name.starts_with("0x") => {
            typist::parse_key(name).ok_or_else(|| not_accepted("data", name))
        }
        (Some("qcode"), Some(_)) => Err(wrong_type("data", "string")),
        (Some("number"), Some(data)) => {
            let number = data.as_i64().ok_or_else(|| wrong_type("data", "integer"))?;
            typist::parse_key(&format!("{number:#04x}")).ok_or_else(|| not_accepted("data", &number.to_string()))
        }
        (Some(other), Some(_)) => Err(not_accepted("type", other)),
    }
}

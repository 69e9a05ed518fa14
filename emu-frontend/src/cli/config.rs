//! From options to a configuration: every value checked, defaults filled in, contradictions refused.

use super::action;
use super::audio::{self, AudioDev};
use super::boot_order;
use super::cards::CardSpec;
use super::chardev::{self, CharKind, CharSpec, CharTarget};
use super::cpu;
use super::devices::{self, Devices};
use super::display::{self, DisplayKind};
use super::drive::{self, Drives};
use super::error::{StartError, nearest};
use super::firmware;
use super::machine::{self, Engine};
use super::net::{self, NetConfig};
use super::objects::{self, EntropyObject};
use super::options::Options;
use super::smbios;
use super::time::{self, Icount, Rtc};
use super::value::{KeyValues, parse_number};
use crate::log::LogItems;
use emu_core::cpu::model::CpuModel;
use emu_devices::audio::sb16::Sb16Config;
use emu_devices::board::firmware::FirmwareConfig;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Serial ports of a PC.
pub const SERIAL_PORTS: usize = 4;

/// Bytes of code under `-accel jit,stress=`: so few that all of it is given up again and again.
const STRESSED_CODE: usize = 1 << 20;

/// A character device and the option that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedChar {
    /// Its description.
    pub spec: CharSpec,
    option: String,
    text: String,
}

impl NamedChar {
    /// An error about this device that names its option.
    pub fn error(&self, problem: String) -> StartError {
        match self.text.as_str() {
            "" => StartError::option(&self.option, problem),
            text => StartError::value(&self.option, text, problem),
        }
    }
}

/// Files to boot from: firmware, a kernel, or both; the built-in firmware if there is neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootFiles {
    /// `-bios`, perhaps a name in one of `data_dirs`.
    pub bios: Option<PathBuf>,
    /// `-L`: folders that are searched for firmware.
    pub data_dirs: Vec<PathBuf>,
    /// `-boot`, and the strings of `-fw_cfg`.
    pub firmware: FirmwareConfig,
    /// The files of `-fw_cfg`, by their names there.
    pub fw_cfg: Vec<(String, PathBuf)>,
    /// `-kernel`.
    pub kernel: Option<PathBuf>,
    /// `-initrd`, still with commas.
    pub initrd: Option<PathBuf>,
    /// `-append`.
    pub append: String,
}

/// Everything that a machine starts with.
#[derive(Debug)]
pub struct Config {
    /// `-name`.
    pub guest_name: Option<String>,
    /// `-name ...,process=`.
    pub process_name: Option<String>,
    /// Bytes of guest RAM.
    pub memory: u64,
    /// Model and features.
    pub cpu: CpuModel,
    /// What executes.
    pub engine: Engine,
    /// Bytes of compiled code at most.
    pub code_size: usize,
    /// Executions of a block before its region is compiled at once, while the guest waits; `None`: compiled in the background.
    pub stress: Option<u32>,
    /// What boots.
    pub boot: BootFiles,
    /// Character devices by id, those of `-serial` and its like among them.
    pub chardevs: BTreeMap<String, NamedChar>,
    /// The character device of each UART; `None`: no UART there.
    pub serial: [Option<String>; SERIAL_PORTS],
    /// The character device of the printer port; `None`: no such port.
    pub parallel: Option<String>,
    /// The monitors.
    pub monitors: Vec<Monitor>,
    /// Audio back ends.
    pub audio: Vec<AudioDev>,
    /// Which of them the speaker plays on.
    pub speaker: Option<usize>,
    /// The sound card and which of them it plays on.
    pub sb16: Option<(Sb16Config, Option<usize>)>,
    /// What shows the screen.
    pub display: DisplayKind,
    /// Test devices, and cards in slots.
    pub devices: Devices,
    /// Sources of entropy.
    pub objects: Vec<EntropyObject>,
    /// Whether there is a graphics card; its memory is with the devices.
    pub vga: bool,
    /// Network back ends.
    pub nets: NetConfig,
    /// Drives, those of `-device` in their places.
    pub drives: Drives,
    /// Guest reset ends the emulator.
    pub no_reboot: bool,
    /// Guest power-off stops the machine.
    pub no_shutdown: bool,
    /// Wait for `cont`.
    pub paused: bool,
    /// Date of the real-time clock.
    pub rtc: Rtc,
    /// Virtual time by instructions.
    pub icount: Option<Icount>,
    /// What to log.
    pub log: LogItems,
    /// Where to.
    pub log_file: Option<PathBuf>,
    /// `-pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `-daemonize`.
    pub daemonize: bool,
    /// The escape character of multiplexed terminals; `None`: no escapes.
    pub escape: Option<u8>,
    /// Print counters at the end.
    pub stats: bool,
    /// One line each, for stderr.
    pub warnings: Vec<String>,
}

/// A monitor and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// The id of its character device.
    pub chardev: String,
    /// How it speaks.
    pub mode: MonitorMode,
}

/// Whom a monitor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorMode {
    /// People.
    Readline,
    /// Programs: QMP. `pretty`: answers extend over several lines.
    Control {
        /// Whether they do.
        pretty: bool,
    },
}

impl Monitor {
    fn human(chardev: impl Into<String>) -> Monitor {
        Monitor { chardev: chardev.into(), mode: MonitorMode::Readline }
    }
}

/// What a command line comes to.
#[derive(Debug)]
pub enum Outcome {
    /// A machine to run.
    Run(Box<Config>),
    /// Text for stdout, then exit status 0.
    Print(String),
}

/// Checks `options`; `bits32`: the command is called qemu-system-i386.
///
/// # Errors
/// The first value that is wrong.
pub fn configure(program: &str, options: &Options, bits32: bool) -> Result<Outcome, StartError> {
    if let Some(text) = asked_help(program, options)? {
        return Ok(Outcome::Print(text));
    }
    let mut warnings = Vec::new();
    let mut machine = machine::parse(options)?;
    let nets = net::parse(options)?;
    let mut devices =
        devices::parse(&[options.device.as_slice(), &nets.devices].concat(), &options.global, &mut warnings)?;
    let (display, by_default) = display::parse(options, display::host_has_screen())?;
    let characters = Characters::collect(options, display, &mut devices)?;
    if by_default && display == DisplayKind::None && characters.is_silent(options) {
        warnings.push("there is no display: -nographic shows the serial console, -display help lists displays".into());
    }
    let drives = drive::parse(options, &devices.ide, &mut warnings)?;
    devices.cards.extend(drives.virtio.iter().map(|drive| CardSpec::of_drive(&drive.name)));
    let objects = objects::parse(&options.object)?;
    let boot_paths = boot_order::paths(&drives, &devices.cards)?;
    let boot = boot_files(options, &boot_paths, &mut machine, &mut warnings)?;
    let audio = audio::parse(&options.audiodev)?;
    let speaker = match &machine.speaker {
        Some((text, id)) => Some(audio::find(&audio, "machine", text, id)?),
        None => None,
    };
    let sb16 = devices.sound_card(&audio)?;
    let actions = action::parse(options)?;
    let (guest_name, process_name) = names(options.name.as_deref())?;
    Ok(Outcome::Run(Box::new(Config {
        guest_name,
        process_name,
        memory: machine::memory_size(&options.m)?,
        cpu: cpu::parse(options.cpu.as_deref(), bits32)?,
        engine: machine.engine,
        code_size: machine.code_size.unwrap_or(match machine.stress {
            Some(_) => STRESSED_CODE,
            None => emu_jit::CAPACITY,
        }),
        stress: machine.stress,
        boot,
        chardevs: characters.chardevs,
        serial: characters.serial,
        parallel: characters.parallel,
        monitors: characters.monitors,
        audio,
        speaker,
        sb16,
        vga: has_vga(options, &devices)?,
        display,
        devices,
        objects,
        nets,
        drives,
        no_reboot: actions.no_reboot,
        no_shutdown: actions.no_shutdown,
        paused: options.paused,
        rtc: time::parse_rtc(&options.rtc)?,
        icount: time::parse_icount(&options.icount)?,
        log: LogItems::parse(&options.d)?,
        log_file: options.log_file.clone(),
        pidfile: options.pidfile.clone(),
        daemonize: options.daemonize,
        escape: escape(options.echr.as_deref())?,
        stats: false,
        warnings,
    })))
}

/// The text for `help` as a value, if there is one.
fn asked_help(program: &str, options: &Options) -> Result<Option<String>, StartError> {
    let asks = |values: &[String]| values.iter().any(|v| KeyValues::parse("", v, "name").asks_for_help());
    let one = |value: &Option<String>| value.as_deref().is_some_and(|v| v == "help" || v == "?");
    Ok(Some(if options.help {
        super::options::help_text(program)
    } else if asks(&options.machine) {
        machine::help().into()
    } else if one(&options.cpu) {
        cpu::help()
    } else if asks(&options.accel) {
        machine::accel_help().into()
    } else if let Some(value) = options.device.iter().find(|v| KeyValues::parse("", v, "name").asks_for_help()) {
        devices::help(value)?
    } else if let Some(text) = net::help(options) {
        text
    } else if asks(&options.object) {
        objects::help()
    } else if asks(&options.chardev) {
        chardev::help()
    } else if asks(&options.audiodev) {
        audio::help()
    } else if one(&options.display) {
        display::help()
    } else if one(&options.vga) {
        "none                 no graphic card\nstd                  standard VGA (default)\n".into()
    } else if options.d.iter().any(|v| v == "help" || v == "?") {
        LogItems::help()
    } else {
        return Ok(None);
    }))
}

/// Whether there is a graphics card: by default, unless `-nodefaults` takes it away.
fn has_vga(options: &Options, devices: &Devices) -> Result<bool, StartError> {
    match options.vga.as_deref() {
        Some("std") if devices.vga => Err(StartError::value("vga", "std", "there is a -device VGA already")),
        Some("std") => Ok(true),
        Some("none") => Ok(devices.vga),
        Some(other) => Err(StartError::value("vga", other, "not implemented; implemented: std, none")),
        None => Ok(devices.vga || !options.nodefaults),
    }
}

/// What boots, `first` before everything else.
fn boot_files(
    options: &Options,
    first: &[String],
    machine: &mut machine::Machine,
    warnings: &mut Vec<String>,
) -> Result<BootFiles, StartError> {
    let mut firmware = firmware::parse_boot(&options.boot)?;
    boot_order::boot_first(&mut firmware, first);
    let fw_cfg = firmware::parse_fw_cfg(&options.fw_cfg, &mut firmware, warnings)?;
    firmware.smbios = smbios::parse(&options.smbios, options.uuid.as_deref())?;
    let kernel = options.kernel.clone().or(machine.kernel.take());
    let initrd = options.initrd.clone().or(machine.initrd.take());
    let append = options.append.clone().or(machine.append.take());
    let (bios, data_dirs) = (options.bios.clone().or(machine.firmware.take()), options.data_dir.clone());
    match kernel {
        None if append.is_some() => Err(StartError::option("append", "only goes with -kernel")),
        None if initrd.is_some() => Err(StartError::option("initrd", "only goes with -kernel")),
        _ => Ok(BootFiles { bios, data_dirs, firmware, fw_cfg, kernel, initrd, append: append.unwrap_or_default() }),
    }
}

fn names(text: Option<&str>) -> Result<(Option<String>, Option<String>), StartError> {
    let Some(text) = text else { return Ok((None, None)) };
    let mut v = KeyValues::parse("name", text, "guest");
    let names = (v.take("guest")?, v.take("process")?);
    // Threads always have names.
    v.take_bool("debug-threads")?;
    v.finish()?;
    Ok(names)
}

fn escape(text: Option<&str>) -> Result<Option<u8>, StartError> {
    let Some(text) = text else { return Ok(Some(1)) };
    match parse_number(text) {
        Some(0) => Ok(None),
        Some(code @ 1..=255) => Ok(Some(code as u8)),
        _ => Err(StartError::value("echr", text, "expected a character code from 1 to 255, or 0 for no escapes")),
    }
}

/// The character devices of the machine and who uses them.
#[derive(Default)]
struct Characters {
    chardevs: BTreeMap<String, NamedChar>,
    serial: [Option<String>; SERIAL_PORTS],
    parallel: Option<String>,
    monitors: Vec<Monitor>,
    users: BTreeMap<String, usize>,
}

impl Characters {
    fn collect(o: &Options, display: DisplayKind, devices: &mut Devices) -> Result<Characters, StartError> {
        let mut c = Characters::default();
        for text in &o.chardev {
            let (id, spec) = chardev::parse_chardev(text)?;
            c.add("chardev", text, id, spec)?;
        }
        c.serial_ports(o)?;
        c.parallel_port(o)?;
        let mut own_monitors = 0;
        for text in &o.monitor {
            if let Some(id) = c.target("monitor", text, &format!("compat_monitor{own_monitors}"))? {
                own_monitors += 1;
                c.monitors.push(Monitor::human(id));
            }
        }
        let control = |texts: &[String], pretty| texts.iter().map(|t| (t.clone(), pretty)).collect::<Vec<_>>();
        for (text, pretty) in control(&o.qmp, false).into_iter().chain(control(&o.qmp_pretty, true)) {
            let option = if pretty { "qmp-pretty" } else { "qmp" };
            if let Some(id) = c.target(option, &text, &format!("compat_monitor{own_monitors}"))? {
                own_monitors += 1;
                c.monitors.push(Monitor { chardev: id, mode: MonitorMode::Control { pretty } });
            }
        }
        for text in &o.mon {
            let mut v = KeyValues::parse("mon", text, "chardev");
            let id = v.take("chardev")?.ok_or_else(|| v.error("needs chardev=ID"))?;
            let pretty = v.take_bool("pretty")?;
            let mode = match (v.take("mode")?.as_deref(), pretty) {
                (None | Some("readline"), None | Some(false)) => MonitorMode::Readline,
                (None | Some("readline"), Some(true)) => return Err(v.error("'pretty' only goes with mode=control")),
                (Some("control"), pretty) => MonitorMode::Control { pretty: pretty.unwrap_or(false) },
                (Some(other), _) => return Err(v.error(format!("no mode '{other}'; expected readline or control"))),
            };
            v.take("id")?;
            v.finish()?;
            c.use_id("mon", text, &id)?;
            c.monitors.push(Monitor { chardev: id, mode });
        }
        for text in &o.debugcon {
            if o.debugcon.len() > 1 {
                return Err(StartError::value("debugcon", text, "given twice; further ones: -device isa-debugcon"));
            }
            if let Some(id) = c.target("debugcon", text, "debugcon")? {
                devices.debugcons.push(devices::Debugcon::at_default_port(Some(id)));
            }
        }
        for (text, id) in devices.chardev_users() {
            c.use_id("device", &text, &id)?;
        }
        c.defaults_of_nographic(o)?;
        c.refuse_conflicts(o, display)?;
        Ok(c)
    }

    fn serial_ports(&mut self, o: &Options) -> Result<(), StartError> {
        for (i, text) in o.serial.iter().enumerate() {
            if i >= SERIAL_PORTS {
                return Err(StartError::value("serial", text, format!("a PC has {SERIAL_PORTS} serial ports")));
            }
            self.serial[i] = self.target("serial", text, &format!("serial{i}"))?;
        }
        if o.serial.is_empty() && !o.nodefaults && !o.nographic {
            self.serial[0] = Some("serial0".into());
            let spec = CharSpec { kind: CharKind::Null, mux: false, log: None };
            self.add("serial", "null", "serial0".into(), spec)?;
        }
        Ok(())
    }

    /// The printer port is there unless `-parallel none` or `-nodefaults` takes it away; by default nobody reads what is printed.
    fn parallel_port(&mut self, o: &Options) -> Result<(), StartError> {
        for text in &o.parallel {
            if self.parallel.is_some() {
                return Err(StartError::value("parallel", text, "a PC has 1 parallel port"));
            }
            self.parallel = self.target("parallel", text, "parallel0")?;
        }
        if o.parallel.is_empty() && !o.nodefaults {
            self.parallel = Some("parallel0".into());
            let spec = CharSpec { kind: CharKind::Null, mux: false, log: None };
            self.add("parallel", "null", "parallel0".into(), spec)?;
        }
        Ok(())
    }

    /// Whether nothing that the guest says reaches the user.
    fn is_silent(&self, o: &Options) -> bool {
        let chosen = o.nographic || o.nodefaults || !o.serial.is_empty() || !o.debugcon.is_empty();
        !chosen && o.device.is_empty() && self.monitors.is_empty()
    }

    /// `-nographic` puts the first serial port and the monitor on the terminal unless they are elsewhere.
    fn defaults_of_nographic(&mut self, o: &Options) -> Result<(), StartError> {
        if !o.nographic || o.nodefaults {
            return Ok(());
        }
        let serial = o.serial.is_empty();
        let monitor = self.monitors.is_empty() && o.monitor.is_empty() && o.mon.is_empty();
        let plain = CharSpec { kind: CharKind::Stdio { signal: true }, mux: false, log: None };
        match (serial, monitor) {
            (true, true) => {
                self.add("nographic", "", "serial0".into(), CharSpec::shared_stdio())?;
                self.serial[0] = Some("serial0".into());
                self.monitors.push(Monitor::human("serial0"));
            }
            (true, false) => {
                self.add("nographic", "", "serial0".into(), plain)?;
                self.serial[0] = Some("serial0".into());
            }
            (false, true) => {
                self.add("nographic", "", "compat_monitor0".into(), plain)?;
                self.monitors.push(Monitor::human("compat_monitor0"));
            }
            (false, false) => {}
        }
        Ok(())
    }

    fn add(&mut self, option: &str, text: &str, id: String, spec: CharSpec) -> Result<(), StartError> {
        let named = NamedChar { spec, option: option.into(), text: text.into() };
        match self.chardevs.insert(id.clone(), named) {
            None => Ok(()),
            Some(_) => Err(StartError::value(option, text, format!("duplicate character device id '{id}'"))),
        }
    }

    /// The id of the character device that `text` leads to; `label` if it is a new one.
    fn target(&mut self, option: &str, text: &str, label: &str) -> Result<Option<String>, StartError> {
        match chardev::parse_target(option, text)? {
            CharTarget::None => Ok(None),
            CharTarget::Id(id) => {
                self.use_id(option, text, &id)?;
                Ok(Some(id))
            }
            CharTarget::Own(spec) => {
                self.add(option, text, label.into(), spec)?;
                Ok(Some(label.into()))
            }
            CharTarget::WithMonitor(spec) => {
                self.add(option, text, label.into(), spec)?;
                if !matches!(option, "monitor" | "qmp" | "qmp-pretty") {
                    self.monitors.push(Monitor::human(label));
                }
                Ok(Some(label.into()))
            }
        }
    }

    fn use_id(&mut self, option: &str, text: &str, id: &str) -> Result<(), StartError> {
        let Some(named) = self.chardevs.get(id) else {
            let hint = match nearest(id, self.chardevs.keys().map(String::as_str)) {
                Some(near) => format!("; nearest is '{near}'"),
                None => String::new(),
            };
            return Err(StartError::value(option, text, format!("no -chardev has the id '{id}'{hint}")));
        };
        let users = self.users.entry(id.into()).or_default();
        *users += 1;
        if *users > 1 && !named.spec.mux {
            return Err(StartError::value(option, text, format!("'{id}' is in use; mux=on lets it be shared")));
        }
        Ok(())
    }

    fn refuse_conflicts(&self, o: &Options, display: DisplayKind) -> Result<(), StartError> {
        let on_stdio = |named: &&NamedChar| matches!(named.spec.kind, CharKind::Stdio { .. });
        let terminals = self.chardevs.values().filter(on_stdio).count();
        if terminals > 1 {
            return Err(StartError::Other("only one character device can use stdio; mon:stdio shares it".into()));
        }
        if display == DisplayKind::Curses {
            let problem = match (terminals, o.daemonize) {
                (0, false) => return Ok(()),
                (0, true) => "cannot be used with -daemonize",
                _ => "cannot be used with a character device on stdio",
            };
            return Err(StartError::value("display", "curses", problem));
        }
        match (o.daemonize, o.nographic, terminals) {
            (true, true, _) => Err(StartError::option("daemonize", "cannot be used with -nographic")),
            (true, _, 1) => Err(StartError::option("daemonize", "cannot be used with a character device on stdio")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;

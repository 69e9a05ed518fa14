//! QMP, the machine protocol of QEMU's monitor (docs/interop/qmp-spec.txt), as far as [`commands`] goes. Deliberately absent:
//! out-of-band execution, `id`s of commands in progress (each is done before the next is read), and introspection.

mod commands;
mod events;
mod json;

use crate::char::{Console, Input};
use crate::cli::error::StartError;
use crate::remote::Remote;
use commands::{COMMANDS, Error};
pub use events::Events;
use json::Splitter;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a request comes to.
struct Request {
    command: String,
    arguments: Map<String, Value>,
}

/// Starts a monitor on `console`; `pretty`: its answers extend over several lines.
///
/// # Errors
/// The host has no more threads.
pub fn start(console: Console, machine: Arc<Remote>, pretty: bool) -> Result<(), StartError> {
    let ready = Arc::new(AtomicBool::new(false));
    machine.events.listen(console.announcer(), pretty, ready.clone());
    let serve = move || serve(&console, &machine, pretty, &ready);
    let thread = std::thread::Builder::new().name("qmp".into()).spawn(serve);
    thread.map(drop).map_err(|e| StartError::Other(format!("cannot start the monitor: {e}")))
}

fn serve(console: &Console, machine: &Remote, pretty: bool, ready: &AtomicBool) {
    let mut splitter = Splitter::default();
    while let Some(input) = console.next() {
        let value = match input {
            Input::Opened => {
                splitter = Splitter::default();
                ready.store(false, Ordering::Relaxed);
                let greeting = json!({"QMP": {"version": commands::version(), "capabilities": []}});
                console.write(&json::show(&greeting, pretty));
                continue;
            }
            Input::Byte(byte) => match splitter.push(byte) {
                Some(value) => value,
                None => continue,
            },
            Input::Focus | Input::Break => continue,
        };
        let (id, result) = answer(value, machine, ready);
        let quit = matches!(&result, Ok(Done::Quit));
        let mut reply = match result {
            Ok(Done::Value(value)) => json!({ "return": value }),
            Ok(Done::Quit) => {
                machine.events.host_shutdown("host-qmp-quit");
                json!({"return": {}})
            }
            Err(Error { class, text }) => json!({"error": {"class": class, "desc": text}}),
        };
        if let Some(id) = id {
            reply["id"] = id;
        }
        console.write(&json::show(&reply, pretty));
        if quit {
            crate::exit::request("host-qmp-quit");
        }
    }
}

/// What a command has done.
pub enum Done {
    /// This is its answer.
    Value(Value),
    /// It wants the emulator to end.
    Quit,
}

/// Carries out what a client has sent; the request's id comes back with the answer.
fn answer(value: Result<Value, String>, machine: &Remote, ready: &AtomicBool) -> (Option<Value>, Result<Done, Error>) {
    let value = match value {
        Ok(value) => value,
        Err(problem) => return (None, Err(Error::generic(problem))),
    };
    let Value::Object(mut members) = value else {
        return (None, Err(Error::generic("QMP input must be a JSON object")));
    };
    let id = members.remove("id");
    let result = Request::read(members).and_then(|request| request.carry_out(machine, ready));
    (id, result)
}

impl Request {
    fn read(mut members: Map<String, Value>) -> Result<Request, Error> {
        let wrong = |name: &str, what: &str| Error::generic(format!("QMP input member '{name}' {what}"));
        let command = members.remove("execute");
        let arguments = members.remove("arguments");
        if let Some(name) = members.keys().next() {
            return Err(wrong(name, "is unexpected"));
        }
        let command = match command {
            Some(Value::String(command)) => command,
            Some(_) => return Err(wrong("execute", "must be a string")),
            None => return Err(Error::generic("QMP input lacks member 'execute'")),
        };
        match arguments {
            None => Ok(Request { command, arguments: Map::new() }),
            Some(Value::Object(arguments)) => Ok(Request { command, arguments }),
            Some(_) => Err(wrong("arguments", "must be an object")),
        }
    }

    fn carry_out(mut self, machine: &Remote, ready: &AtomicBool) -> Result<Done, Error> {
        let missing = |text: String| Error { class: "CommandNotFound", text };
        match (self.command.as_str(), ready.load(Ordering::Relaxed)) {
            ("qmp_capabilities", true) => {
                Err(missing("Capabilities negotiation is already complete, command ignored".into()))
            }
            ("qmp_capabilities", false) => {
                commands::negotiate(&mut self.arguments)?;
                commands::expect_no_more(&self.arguments)?;
                ready.store(true, Ordering::Relaxed);
                Ok(Done::Value(json!({})))
            }
            (_, false) => Err(missing("Expecting capabilities negotiation with 'qmp_capabilities'".into())),
            (name, true) => match COMMANDS.iter().find(|(known, _)| *known == name) {
                Some((_, run)) => run(machine, self.arguments),
                None => Err(missing(format!("The command {name} has not been found"))),
            },
        }
    }
}

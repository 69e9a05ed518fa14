//! The human monitor: QEMU's HMP, so far with the commands that steer a run.

mod line;

use crate::char::{Console, Input};
use crate::cli::error::StartError;
use crate::exit;
use line::{Edit, Line};
use std::sync::Arc;

const PROMPT: &str = "(qemu) ";

/// What the monitor needs of a machine. Every call waits for the machine's thread.
pub trait Remote: Send + Sync {
    /// Stops the guest and its time.
    fn stop(&self);
    /// Lets the guest go on.
    fn cont(&self);
    /// Resets the guest; what went wrong.
    fn reset(&self) -> Option<String>;
    /// Presses the power button.
    fn power_button(&self);
    /// Pulses the NMI line.
    fn nmi(&self);
    /// Whether the guest is stopped; `None` if the machine is gone.
    fn is_paused(&self) -> Option<bool>;
    /// The guest's name, empty without one.
    fn name(&self) -> String;
    /// The registers of the processor as text lines; `None` if the machine is gone.
    fn registers(&self) -> Option<String>;
}

/// One row of `help`.
struct Command {
    names: &'static [&'static str],
    arguments: &'static str,
    about: &'static str,
    run: fn(&dyn Remote, &[&str]) -> String,
}

const COMMANDS: &[Command] = &[
    Command {
        names: &["cont", "c"],
        arguments: "",
        about: "resume emulation",
        run: |m, _| {
            m.cont();
            String::new()
        },
    },
    Command { names: &["help", "?"], arguments: "", about: "show this help", run: |_, _| help() },
    Command { names: &["info"], arguments: "name|registers|status|version", about: "show information", run: info },
    Command {
        names: &["nmi"],
        arguments: "",
        about: "inject an NMI",
        run: |m, _| {
            m.nmi();
            String::new()
        },
    },
    Command { names: &["quit", "q"], arguments: "", about: "quit the emulator", run: |_, _| exit::request() },
    Command {
        names: &["stop", "s"],
        arguments: "",
        about: "stop emulation",
        run: |m, _| {
            m.stop();
            String::new()
        },
    },
    Command {
        names: &["system_powerdown"],
        arguments: "",
        about: "press the power button",
        run: |m, _| {
            m.power_button();
            String::new()
        },
    },
    Command {
        names: &["system_reset"],
        arguments: "",
        about: "reset the system",
        run: |m, _| {
            m.reset()
                .map(|error| {
                    error
                        + "
"
                })
                .unwrap_or_default()
        },
    },
];

fn help() -> String {
    COMMANDS.iter().map(|c| format!("{} {} -- {}\n", c.names.join("|"), c.arguments, c.about)).collect()
}

fn info(machine: &dyn Remote, arguments: &[&str]) -> String {
    match arguments {
        ["name"] => machine.name() + "\n",
        ["registers"] => format!("\nCPU#0\n{}", machine.registers().unwrap_or_default()),
        ["status"] => match machine.is_paused() {
            Some(true) => "VM status: paused\n".into(),
            _ => "VM status: running\n".into(),
        },
        ["version"] => format!("{}\n", env!("CARGO_PKG_VERSION")),
        _ => "info name -- show the guest's name\ninfo registers -- show the CPU registers\n\
              info status -- show whether the guest runs\ninfo version -- show the version of emu\n"
            .into(),
    }
}

/// Carries out one line; the answer, with bare line feeds.
fn execute(machine: &dyn Remote, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((name, arguments)) = words.split_first() else { return String::new() };
    match COMMANDS.iter().find(|c| c.names.contains(name)) {
        Some(command) => (command.run)(machine, arguments),
        None => format!("unknown command: '{name}'\n"),
    }
}

/// Starts a monitor on `console`. `shared`: the user switches to it, so that it shows itself only then.
///
/// # Errors
/// The host has no more threads.
pub fn start(console: Console, machine: Arc<dyn Remote>, shared: bool) -> Result<(), StartError> {
    let serve = move || serve(&console, &*machine, shared);
    let thread = std::thread::Builder::new().name("monitor".into()).spawn(serve);
    thread.map(drop).map_err(|e| StartError::Other(format!("cannot start the monitor: {e}")))
}

fn serve(console: &Console, machine: &dyn Remote, shared: bool) {
    let banner = format!("emu {} monitor - type 'help' for more information\r\n", env!("CARGO_PKG_VERSION"));
    let mut greeted = !shared;
    if !shared {
        console.write(&banner);
        console.write(PROMPT);
    }
    let mut line = Line::default();
    while let Some(input) = console.next() {
        match input {
            Input::Focus => {
                if !std::mem::replace(&mut greeted, true) {
                    console.write(&banner);
                }
                console.write(PROMPT);
                console.write(line.text());
            }
            Input::Break => {}
            Input::Byte(byte) => match line.edit(byte) {
                Edit::Echo(text) => console.write(&text),
                Edit::Done(text) => {
                    console.write("\r\n");
                    console.write(&execute(machine, &text).replace('\n', "\r\n"));
                    console.write(PROMPT);
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Default)]
    struct Fake(AtomicBool);

    impl Remote for Fake {
        fn stop(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
        fn cont(&self) {
            self.0.store(false, Ordering::Relaxed);
        }
        fn reset(&self) -> Option<String> {
            None
        }
        fn power_button(&self) {}
        fn nmi(&self) {}
        fn is_paused(&self) -> Option<bool> {
            Some(self.0.load(Ordering::Relaxed))
        }
        fn name(&self) -> String {
            "guest".into()
        }
        fn registers(&self) -> Option<String> {
            Some("RAX=0\n".into())
        }
    }

    #[test]
    fn stop_and_cont_change_the_status() {
        let machine = Fake::default();
        assert_eq!(execute(&machine, "stop"), "");
        assert_eq!(execute(&machine, " info  status "), "VM status: paused\n");
        execute(&machine, "c");
        assert_eq!(execute(&machine, "info status"), "VM status: running\n");
    }

    #[test]
    fn unknown_command_is_named_and_empty_line_is_silent() {
        assert_eq!(execute(&Fake::default(), "frobnicate 1"), "unknown command: 'frobnicate'\n");
        assert_eq!(execute(&Fake::default(), "  "), "");
        assert!(execute(&Fake::default(), "help").contains("system_reset"));
        assert!(execute(&Fake::default(), "info").contains("info registers"));
    }
}

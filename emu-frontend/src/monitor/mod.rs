//! The human monitor: QEMU's HMP. Deliberately absent: completion and history of the input line, and what belongs to
//! devices that do not exist (snapshots, migration, hot plug).

mod arguments;
mod commands;
mod expression;
mod format;
pub mod info;
mod input;
mod line;
pub mod media;
mod memory;
pub mod network;

use crate::char::{Console, Input};
use crate::cli::error::StartError;
use crate::remote::Remote;
use arguments::Arguments;
use commands::{COMMANDS, Command, INFO};
use format::Format;
use line::{Edit, Line};
use std::sync::Arc;

const PROMPT: &str = "(qemu) ";

/// What one monitor remembers between commands.
#[derive(Default)]
pub struct Session {
    format: Format,
}

/// Carries out one line; the answer, with bare line feeds.
pub fn execute(session: &mut Session, machine: &Remote, line: &str) -> String {
    let (name, rest) = split_name(line);
    match name {
        "" if rest.trim().is_empty() => String::new(),
        "help" | "?" => help(rest),
        "info" => match split_name(rest) {
            ("", _) => INFO.iter().map(|c| help_line("info ", c)).collect(),
            (sub, rest) => match find(INFO, sub) {
                Some(command) => carry_out(session, machine, &format!("info {sub}"), command, rest),
                None => format!("unknown command: 'info {sub}'\n"),
            },
        },
        _ => match find(COMMANDS, name) {
            Some(command) => carry_out(session, machine, name, command, rest),
            None => format!("unknown command: '{name}'\n"),
        },
    }
}

/// A command's name, which ends at a space or at the `/` of a format, and what follows.
fn split_name(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    line.split_at(line.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(line.len()))
}

fn find(commands: &'static [Command], name: &str) -> Option<&'static Command> {
    commands.iter().find(|c| c.names.contains(&name))
}

fn carry_out(session: &mut Session, machine: &Remote, typed: &str, command: &Command, rest: &str) -> String {
    let registers = |name: &str| {
        let name = name.to_string();
        machine.call(move |machine| expression::register(&machine.processor().state, &name)).flatten()
    };
    match Arguments::parse(&command.names.join("|"), command.parameters, rest, session.format, &registers) {
        Ok(arguments) => {
            session.format = arguments.format;
            (command.run)(machine, &arguments)
        }
        Err(problem) => format!("{problem}\nTry \"help {typed}\" for more information\n"),
    }
}

/// What `help` says about the two commands that are about the others.
const HELP_ABOUT: &str = "help|? [cmd] -- show the help\n";
const INFO_ABOUT: &str = "info [subcommand] -- show various information about the system state\n";

fn help(rest: &str) -> String {
    match split_name(rest) {
        ("", _) => {
            let mut lines: Vec<String> = COMMANDS.iter().map(|c| help_line("", c)).collect();
            lines.extend([HELP_ABOUT, INFO_ABOUT].map(Into::into));
            lines.sort();
            lines.concat()
        }
        ("info", rest) => match split_name(rest) {
            ("", _) => INFO.iter().map(|c| help_line("info ", c)).collect(),
            (sub, _) => {
                find(INFO, sub).map_or_else(|| format!("unknown command: 'info {sub}'\n"), |c| help_line("info ", c))
            }
        },
        ("help" | "?", _) => HELP_ABOUT.into(),
        (name, _) => find(COMMANDS, name).map_or_else(|| format!("unknown command: '{name}'\n"), |c| help_line("", c)),
    }
}

fn help_line(prefix: &str, command: &Command) -> String {
    format!("{prefix}{} {} -- {}\n", command.names.join("|"), command.usage, command.about)
}

/// An answer that says what went wrong.
fn error(problem: &str) -> String {
    format!("Error: {problem}\n")
}

/// The host's words for `error`, without its number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}

/// Starts a monitor on `console`. `shared`: the user switches to it, so that it shows itself only then.
///
/// # Errors
/// The host has no more threads.
pub fn start(console: Console, machine: Arc<Remote>, shared: bool) -> Result<(), StartError> {
    let serve = move || serve(&console, &machine, shared);
    let thread = std::thread::Builder::new().name("monitor".into()).spawn(serve);
    thread.map(drop).map_err(|e| StartError::Other(format!("cannot start the monitor: {e}")))
}

fn serve(console: &Console, machine: &Remote, shared: bool) {
    let banner = format!("emu {} monitor - type 'help' for more information\r\n", env!("CARGO_PKG_VERSION"));
    let mut greeted = false;
    let mut line = Line::default();
    let mut session = Session::default();
    while let Some(input) = console.next() {
        match input {
            // Each client is greeted, and finds an empty line. On a shared terminal the user has to come here first.
            Input::Opened if shared => {}
            Input::Opened => {
                line = Line::default();
                console.write(&banner);
                console.write(PROMPT);
            }
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
                    console.write(&execute(&mut session, machine, &text).replace('\n', "\r\n"));
                    console.write(PROMPT);
                }
            },
        }
    }
}

#[cfg(test)]
mod tests;

//! Boot cases: data files that name a guest, and hold a conversation with its serial console.
//!
//! ```text
//! # comment
//! guest: amd64              folder of scripts/guests.sh's cache that holds the files
//! kernel: linux             a file there (default: linux)
//! initrd: busybox.cpio      a file there (default: none)
//! append: console=ttyS0     kernel command line
//! memory: 512               RAM in MiB (default: 512)
//! bios: bios-256k.bin       the firmware that starts the kernel, a file in the cache's firmware (default: none does)
//! arguments: -cpu qemu64    more options, separated by blanks
//! deadline: 60              seconds for all of it
//! exit: 0                   expected exit status (default: the guest is stopped after the last step)
//!
//! < emu-guest: ready        wait until the console shows this text
//! > uname -m                type this line
//! ! Kernel panic            this text never comes, from start to end
//! clock: 3                  the console shows lines until one is a Unix time; it is within 3 s of the host's clock
//! idle: 3                   the machine, after 5 s to settle, uses less than 3 % of a processor for 10 s (on Linux hosts)
//! known: FILE               all lines up to the shell's next prompt match patterns in FILE; kernel time stamps are ignored
//! ```
//!
//! A typed line comes back as echo, so an expectation should not be contained in the line that was typed to cause it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::guest::{Guest, GuestError, Machine, cached};

/// The prompt of tests/boot/init.sh.
const PROMPT: &str = "emu# ";

/// One parsed file.
#[derive(Debug, Default, PartialEq)]
pub struct BootCase {
    pub guest: String,
    pub kernel: String,
    pub initrd: Option<String>,
    pub append: String,
    pub memory_mib: u32,
    pub bios: Option<String>,
    pub arguments: Vec<String>,
    pub deadline: Duration,
    pub exit: Option<i32>,
    pub steps: Vec<Step>,
    pub never: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub enum Step {
    Expect(String),
    Send(String),
    Clock { tolerance_s: u64 },
    Idle { percent: u64 },
    Known { file: String },
}

impl BootCase {
    pub fn read(path: &Path) -> Result<Self, GuestError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| GuestError::new(format!("{}: {error}", path.display())))?;
        Self::parse(&text).map_err(|error| GuestError::new(format!("{}: {error}", path.display())))
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let mut case = Self { kernel: "linux".to_owned(), memory_mib: 512, ..Self::default() };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            case.parse_line(line).map_err(|error| format!("line {}: {error}", index + 1))?;
        }
        if case.guest.is_empty() || case.deadline.is_zero() {
            return Err("the keys guest and deadline are needed".to_owned());
        }
        Ok(case)
    }

    fn parse_line(&mut self, line: &str) -> Result<(), String> {
        if let Some(text) = line.strip_prefix("< ") {
            self.steps.push(Step::Expect(text.to_owned()));
            return Ok(());
        }
        if let Some(text) = line.strip_prefix("> ") {
            self.steps.push(Step::Send(text.to_owned()));
            return Ok(());
        }
        if let Some(text) = line.strip_prefix("! ") {
            self.never.push(text.to_owned());
            return Ok(());
        }
        let (key, value) = line.split_once(": ").ok_or_else(|| format!("neither a step nor 'key: value': {line}"))?;
        let number = || value.parse::<u32>().map_err(|_| format!("{key} wants a number, not '{value}'"));
        match key {
            "guest" => value.clone_into(&mut self.guest),
            "kernel" => value.clone_into(&mut self.kernel),
            "initrd" => self.initrd = Some(value.to_owned()),
            "append" => value.clone_into(&mut self.append),
            "memory" => self.memory_mib = number()?,
            "bios" => self.bios = Some(value.to_owned()),
            "arguments" => self.arguments = value.split_whitespace().map(str::to_owned).collect(),
            "deadline" => self.deadline = Duration::from_secs(number()?.into()),
            "exit" => self.exit = Some(number()?.try_into().map_err(|_| format!("exit status out of range: {value}"))?),
            "clock" => self.steps.push(Step::Clock { tolerance_s: number()?.into() }),
            "idle" => self.steps.push(Step::Idle { percent: number()?.into() }),
            "known" => self.steps.push(Step::Known { file: value.to_owned() }),
            _ => return Err(format!("unknown key '{key}'")),
        }
        Ok(())
    }

    /// The command that boots the case's guest on `machine`.
    pub fn command(&self, machine: &Machine) -> Result<Command, GuestError> {
        let mut command = machine.command();
        command.args(["-m", &self.memory_mib.to_string(), "-append", &self.append]);
        command.arg("-kernel").arg(cached(&self.guest, &self.kernel)?);
        if let Some(initrd) = &self.initrd {
            command.arg("-initrd").arg(cached(&self.guest, initrd)?);
        }
        if let Some(bios) = &self.bios {
            command.arg("-bios").arg(cached("firmware", bios)?);
        }
        command.args(&self.arguments);
        Ok(command)
    }

    /// Boots the guest and holds the conversation. `folder` holds the files that `known:` names. Returns the whole transcript.
    pub fn run(&self, machine: &Machine, folder: &Path) -> Result<Vec<u8>, GuestError> {
        let mut guest = Guest::start(&mut self.command(machine)?, self.deadline)?;
        for step in &self.steps {
            match step {
                Step::Expect(text) => drop(guest.expect(text)?),
                Step::Send(line) => guest.send_line(line)?,
                Step::Clock { tolerance_s } => check_clock(&mut guest, *tolerance_s)?,
                Step::Idle { percent } => check_idle(&guest, *percent)?,
                Step::Known { file } => check_known(&mut guest, &folder.join(file))?,
            }
        }
        if let Some(expected) = self.exit {
            let status = guest.wait()?;
            if status.code() != Some(expected) {
                let errors = guest.errors();
                return Err(GuestError::new(format!("the machine ended with {status}, not {expected}: {errors}")));
            }
        }
        let text = String::from_utf8_lossy(guest.transcript());
        match self.never.iter().find(|never| text.contains(never.as_str())) {
            Some(never) => Err(GuestError::new(format!("the console showed '{never}':\n{text}"))),
            None => Ok(guest.transcript().to_vec()),
        }
    }
}

fn check_clock(guest: &mut Guest, tolerance_s: u64) -> Result<(), GuestError> {
    let in_guest: u64 = loop {
        if let Ok(seconds) = guest.expect_line()?.parse() {
            break seconds;
        }
    };
    let on_host = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if in_guest.abs_diff(on_host) > tolerance_s {
        return Err(GuestError::new(format!("the guest's clock says {in_guest}, the host's {on_host}")));
    }
    Ok(())
}

/// User and system time that a process has used, in clock ticks of 1/100 s: fields 14 and 15 of /proc/PID/stat (proc(5)). `None` where
/// there is no such file.
fn ticks_used(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok()).sum()
}

fn check_idle(guest: &Guest, percent: u64) -> Result<(), GuestError> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let used = || {
        ticks_used(guest.process_id()).ok_or_else(|| GuestError::new("the machine's process is not to be seen".into()))
    };
    // The kernel still works on this and that for a moment.
    std::thread::sleep(Duration::from_secs(5));
    let before = used()?;
    std::thread::sleep(Duration::from_secs(10));
    let used = used()? - before;
    // In 10 s there are 1,000 ticks.
    match used < 10 * percent {
        true => Ok(()),
        false => Err(GuestError::new(format!("the idle machine used {used} ticks of 10 ms within 10 s"))),
    }
}

fn check_known(guest: &mut Guest, patterns: &Path) -> Result<(), GuestError> {
    let patterns = std::fs::read_to_string(patterns)
        .map_err(|error| GuestError::new(format!("{}: {error}", patterns.display())))?;
    // The first line is the rest of the command's echo.
    guest.expect_line()?;
    let shown = guest.expect(PROMPT)?;
    let unknown: Vec<&str> = shown
        .lines()
        .map(|line| without_time_stamp(line.trim_end()))
        .filter(|line| !patterns.lines().any(|pattern| !pattern.starts_with('#') && matches(pattern, line)))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(GuestError::new(format!("lines that no pattern covers:\n{}", unknown.join("\n"))))
}

/// Takes `<4>[    1.234567] ` off the start of a kernel message.
fn without_time_stamp(line: &str) -> &str {
    let rest = if line.starts_with('<') { line.split_once('>').map_or(line, |(_, rest)| rest) } else { line };
    if rest.starts_with('[') { rest.split_once("] ").map_or(rest, |(_, rest)| rest) } else { rest }
}

/// Whether `line` is `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == line,
        Some((start, rest)) => line.strip_prefix(start).is_some_and(|line| {
            line.char_indices().map(|(at, _)| at).chain([line.len()]).any(|at| matches(rest, &line[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_with_keys_and_steps_is_parsed() {
        let case = BootCase::parse(
            "# text\nguest: i386\ndeadline: 5\nexit: 43\nbios: f\narguments: -cpu qemu32 -S\n\n< a: b\n> c\n! d\nclock: 2\nidle: 3\nknown: e\n",
        );
        let expected = BootCase {
            guest: "i386".into(),
            kernel: "linux".into(),
            memory_mib: 512,
            bios: Some("f".into()),
            arguments: vec!["-cpu".into(), "qemu32".into(), "-S".into()],
            deadline: Duration::from_secs(5),
            exit: Some(43),
            steps: vec![
                Step::Expect("a: b".into()),
                Step::Send("c".into()),
                Step::Clock { tolerance_s: 2 },
                Step::Idle { percent: 3 },
                Step::Known { file: "e".into() },
            ],
            never: vec!["d".into()],
            ..BootCase::default()
        };
        assert_eq!(case, Ok(expected));
    }

    #[test]
    fn case_with_a_mistake_is_refused_with_its_line() {
        for (text, line) in
            [("guest: a\nmemoy: 5", "line 2"), ("deadline: soon", "line 1"), ("words", "line 1"), ("", "keys")]
        {
            assert!(BootCase::parse(text).unwrap_err().contains(line), "{text:?}");
        }
    }

    #[test]
    fn pattern_with_stars_matches_any_text_between() {
        assert!(matches("tsc: * MHz*", "tsc: 2100 MHz processor"));
        assert!(matches("exact", "exact") && !matches("exact", "exact and more"));
        assert!(!matches("*end", "end of it"));
    }

    #[test]
    fn kernel_message_loses_its_level_and_time() {
        assert_eq!(without_time_stamp("<4>[    0.867972] acpi: text"), "acpi: text");
        assert_eq!(without_time_stamp("plain"), "plain");
    }
}

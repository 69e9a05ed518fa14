//! A guest that shows its text on a VGA: the test holds the machine's monitor, types with `sendkey` and reads the text of
//! the screen from video memory with `xp`.

use crate::guest::{Guest, GuestError, Machine};
use std::ffi::OsString;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

const PROMPT: &str = "(qemu) ";
/// 80 columns, 25 rows, one 16-bit cell each.
const READ_SCREEN: &str = "xp /2000hx 0xb8000";
const COLUMNS: usize = 80;
/// Guests that poll the keyboard see a key only if the next does not come at once.
const BETWEEN_KEYS: Duration = Duration::from_millis(100);
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// A running guest with a text screen.
pub struct ScreenGuest {
    monitor: Guest,
    deadline: Instant,
}

impl ScreenGuest {
    /// Starts `machine` with `arguments`; all of the conversation has to happen within `limit`.
    pub fn start(machine: &Machine, arguments: &[OsString], limit: Duration) -> Result<Self, GuestError> {
        let mut command = machine.command();
        command.args(["-serial", "null", "-monitor", "stdio"]).args(arguments);
        let deadline = Instant::now() + limit;
        let mut monitor = Guest::start(&mut command, limit)?;
        monitor.expect(PROMPT)?;
        Ok(Self { monitor, deadline })
    }

    /// The text of the screen, one line to the row, without blanks at their ends.
    pub fn text(&mut self) -> Result<String, GuestError> {
        let cells = self.command(READ_SCREEN)?;
        let characters: Vec<u8> = cells
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("0x").filter(|digits| digits.len() == 4))
            .filter_map(|digits| u16::from_str_radix(digits, 16).ok())
            .map(|cell| match cell as u8 {
                printable @ b' '..=b'~' => printable,
                _ => b' ',
            })
            .collect();
        let rows = characters.chunks(COLUMNS).map(|row| String::from_utf8_lossy(row).trim_end().to_owned());
        Ok(rows.collect::<Vec<_>>().join("\n"))
    }

    /// Waits until the screen shows `text`; the whole screen.
    pub fn expect(&mut self, text: &str) -> Result<String, GuestError> {
        loop {
            let shown = self.text()?;
            if shown.contains(text) {
                return Ok(shown);
            }
            if Instant::now() >= self.deadline {
                let shown = shown.trim_end();
                return Err(GuestError::new(format!("the screen never showed {text:?}\n--- screen ---\n{shown}")));
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Types keys, named as `sendkey` names them.
    pub fn keys(&mut self, keys: &[&str]) -> Result<(), GuestError> {
        for key in keys {
            self.command(&format!("sendkey {key}"))?;
            std::thread::sleep(BETWEEN_KEYS);
        }
        Ok(())
    }

    /// Waits for the end of the machine's process.
    pub fn wait(&mut self) -> Result<ExitStatus, GuestError> {
        self.monitor.wait()
    }

    /// Ends the machine's process by its monitor.
    pub fn quit(mut self) -> Result<ExitStatus, GuestError> {
        self.monitor.send_line("quit")?;
        self.monitor.wait()
    }

    /// A line for the monitor; its answer.
    pub fn command(&mut self, line: &str) -> Result<String, GuestError> {
        self.monitor.send_line(line)?;
        self.monitor.expect(PROMPT)
    }
}

//! A guest that runs in another process, seen from its serial console: start it, wait for text, type, wait for the end.
//!
//! The same conversation can be held with emu and, to find out whether a surprise is emu's or the guest's own, with QEMU.
//! Each conversation has one deadline for everything, so that a test never hangs; a guest that is dropped is killed.

use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The program that plays the PC.
#[derive(Clone, Debug)]
pub enum Machine {
    Emu(PathBuf),
    Qemu,
}

impl Machine {
    /// The machine under test: emu, or QEMU where the environment says `EMU_TEST_MACHINE=qemu`.
    ///
    /// emu is the binary that `EMU_TEST_BINARY` names, or else the one cargo built: in the profile folder of the running test
    /// (`target/PROFILE/deps/TEST`), or the release build next to it.
    pub fn under_test() -> Result<Self, String> {
        if std::env::var_os("EMU_TEST_MACHINE").is_some_and(|machine| machine == "qemu") {
            return Ok(Self::Qemu);
        }
        if let Some(binary) = std::env::var_os("EMU_TEST_BINARY") {
            return Ok(Self::Emu(binary.into()));
        }
        let test = std::env::current_exe().map_err(|error| format!("the test's own path: {error}"))?;
        let profile = test.ancestors().find(|folder| folder.ends_with("deps")).and_then(Path::parent).or(test.parent());
        let profile = profile.ok_or("the test executable has no folder")?;
        [profile.join("emu"), profile.with_file_name("release").join("emu")]
            .into_iter()
            .find(|binary| binary.is_file())
            .map(Self::Emu)
            .ok_or_else(|| {
                format!("no emu in {}: run `cargo build --release -p emu-frontend` first", profile.display())
            })
    }

    /// A command with the options that make the machine run without a window and quit at reset, emu with the accelerator that
    /// `EMU_ACCEL` names.
    pub fn command(&self) -> Command {
        let mut command = match self {
            Self::Emu(binary) => Command::new(binary),
            Self::Qemu => Command::new("qemu-system-x86_64"),
        };
        if let Self::Qemu = self {
            // The network card's boot ROM only costs time.
            command.args(["-accel", "tcg", "-cpu", "max", "-nic", "none"]);
        } else {
            command.args(accelerator());
        }
        command.args(["-nographic", "-no-reboot"]);
        command
    }
}

/// Options that have emu run with the accelerator that the environment names: `EMU_ACCEL=jit` or, say, `EMU_ACCEL=jit,stress=20`.
pub fn accelerator() -> Vec<OsString> {
    std::env::var_os("EMU_ACCEL").map_or_else(Vec::new, |name| vec!["-accel".into(), name])
}

/// Modules of net.cpio that Linux needs for a network card, in the order in which they have to be loaded.
///
/// # Panics
/// There are none for `model`.
pub fn network_modules(model: &str) -> &'static str {
    match model {
        "e1000" => "e1000",
        "ne2k_pci" => "8390 ne2k-pci",
        "virtio-net-pci" => {
            "virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net"
        }
        _ => panic!("no test has a {model}"),
    }
}

/// Where the files of a guest are that `scripts/guests.sh` fetched: `ARCH/NAME` under `EMU_CACHE` or the workspace's `cache`.
pub fn cached(arch: &str, name: &str) -> Result<PathBuf, GuestError> {
    let cache = std::env::var_os("EMU_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("cache"), PathBuf::from);
    let path = cache.join(arch).join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(GuestError::new(format!("no {}: run scripts/guests.sh", path.display())))
    }
}

/// A running guest.
pub struct Guest {
    child: Child,
    keyboard: Option<ChildStdin>,
    console: Receiver<(Instant, Vec<u8>)>,
    errors: Option<JoinHandle<String>>,
    transcript: Vec<u8>,
    /// How much of the transcript earlier expectations have used up.
    used: usize,
    deadline: Instant,
    arrival: Instant,
}

impl Guest {
    /// Starts `command`, whose standard input and output are the guest's serial console; all of the conversation has to happen
    /// within `limit`.
    pub fn start(command: &mut Command, limit: Duration) -> Result<Self, GuestError> {
        let started = Instant::now();
        let deadline = started + limit;
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| {
                GuestError::new(format!("cannot start {}: {error}", command.get_program().display()))
            })?;
        let keyboard = child.stdin.take();
        let (mut output, mut errors) = child.stdout.take().zip(child.stderr.take()).expect("both were piped above");
        let (sender, console) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                if sender.send((Instant::now(), buffer[..length].to_vec())).is_err() {
                    break;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            // A read error only shortens what a failure message can show.
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Self {
            child,
            keyboard,
            console,
            errors: Some(errors),
            transcript: Vec::new(),
            used: 0,
            deadline,
            arrival: started,
        })
    }

    /// Waits for `text` on the console and returns what came before it since the last expectation.
    pub fn expect(&mut self, text: &str) -> Result<String, GuestError> {
        loop {
            let fresh = &self.transcript[self.used..];
            if let Some(at) = fresh.windows(text.len()).position(|window| window == text.as_bytes()) {
                let before = String::from_utf8_lossy(&fresh[..at]).into_owned();
                self.used += at + text.len();
                return Ok(before);
            }
            match self.console.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
                Ok((at, bytes)) => self.take(at, &bytes),
                Err(RecvTimeoutError::Timeout) => return Err(self.failure(format!("waited in vain for {text:?}"))),
                Err(RecvTimeoutError::Disconnected) => return Err(self.failure(format!("ended before {text:?} came"))),
            }
        }
    }

    /// Waits until the console has shown one more whole line, and returns it.
    pub fn expect_line(&mut self) -> Result<String, GuestError> {
        Ok(self.expect("\n")?.trim_end().to_owned())
    }

    /// Types `line` and the Enter key.
    pub fn send_line(&mut self, line: &str) -> Result<(), GuestError> {
        let typed = format!("{line}\n");
        let written =
            self.keyboard.as_mut().map(|keyboard| keyboard.write_all(typed.as_bytes()).and_then(|()| keyboard.flush()));
        match written {
            Some(Ok(())) => Ok(()),
            _ => Err(self.failure(format!("does not take the input {line:?}"))),
        }
    }

    /// Waits for the end of the machine's process. The rest of the console's text goes into the transcript.
    pub fn wait(&mut self) -> Result<ExitStatus, GuestError> {
        loop {
            match self.console.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
                Ok((at, bytes)) => self.take(at, &bytes),
                Err(RecvTimeoutError::Timeout) => return Err(self.failure("did not end".to_owned())),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // The console is closed, so the process is ending: no need to poll often.
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < self.deadline => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => return Err(self.failure("closed its console, but did not end".to_owned())),
                Err(error) => return Err(self.failure(format!("cannot be waited for: {error}"))),
            }
        }
    }

    /// All that the console has shown so far.
    pub fn transcript(&self) -> &[u8] {
        &self.transcript
    }

    /// When the text of the last successful expectation came, by the host's clock; when the process was started, before any.
    pub fn arrival(&self) -> Instant {
        self.arrival
    }

    /// The identifier of the machine's process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// What the process wrote to its standard error; waits for the end of the process.
    pub fn errors(&mut self) -> String {
        self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }

    fn take(&mut self, arrival: Instant, bytes: &[u8]) {
        self.arrival = arrival;
        self.transcript.extend_from_slice(bytes);
    }

    /// An error that shows the end of the console's text and what the process said on standard error.
    fn failure(&mut self, what: String) -> GuestError {
        let _ = self.child.kill();
        let text = String::from_utf8_lossy(&self.transcript).replace('\r', "");
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(25)..].join("\n");
        let errors = self.errors();
        GuestError::new(format!(
            "the guest {what}\n--- end of the console ---\n{tail}\n--- standard error ---\n{errors}"
        ))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only where the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why a conversation with a guest failed, with the end of its console.
#[derive(Debug)]
pub struct GuestError(String);

impl GuestError {
    pub fn new(message: String) -> Self {
        Self(message)
    }
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GuestError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Guest {
        Guest::start(Command::new("sh").args(["-c", script]), Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn guest_that_answers_is_understood() {
        let mut guest = shell("echo ready; read name; echo hello $name; exit 3");
        guest.expect("ready\n").unwrap();
        guest.send_line("world").unwrap();
        assert_eq!(guest.expect(" world").unwrap(), "hello");
        assert_eq!(guest.wait().unwrap().code(), Some(3));
        assert_eq!(guest.transcript(), b"ready\nhello world\n");
    }

    #[test]
    fn guest_that_ends_early_is_reported_with_its_last_words() {
        let error = shell("echo last words; echo complaint >&2").expect("login:").unwrap_err().to_string();
        assert!(error.contains("last words") && error.contains("complaint") && error.contains("login:"), "{error}");
    }

    #[test]
    fn guest_that_is_silent_is_given_up_at_the_deadline() {
        let mut guest = Guest::start(Command::new("sleep").arg("600"), Duration::from_millis(50)).unwrap();
        assert!(guest.expect("text").unwrap_err().to_string().contains("waited in vain"));
    }
}

//! A pseudo-terminal whose other side is for the user to open: pty(7).
//!
//! Without anybody on the other side, output is dropped as by a cable that is not plugged in.

use super::descriptor;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, read};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::time::Duration;

/// How often to look whether somebody has opened the other side.
const CONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// Our side of a pseudo-terminal.
pub struct Pty {
    master: OwnedFd,
}

impl Pty {
    /// A new pseudo-terminal in raw mode, and the path of its other side.
    ///
    /// # Errors
    /// The host has no more pseudo-terminals.
    pub fn open() -> Result<(Pty, String), Errno> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
        // The kernel reports "nobody there" only after a first user has come and gone, which is us.
        let slave = rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let mut settings = tcgetattr(&slave)?;
        settings.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &settings)?;
        Ok((Pty { master }, path))
    }

    /// A second handle for the other direction.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn try_clone(&self) -> std::io::Result<Pty> {
        Ok(Pty { master: self.master.try_clone()? })
    }

    fn connected(&self) -> bool {
        let mut fds = [PollFd::new(&self.master, PollFlags::OUT)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        ready.is_ok() && !fds[0].revents().contains(PollFlags::HUP)
    }

    /// Writes to whoever has opened the other side.
    pub fn send(&self, bytes: &[u8]) {
        for chunk in bytes.chunks(256) {
            if !self.connected() || !descriptor::write_all(&self.master, chunk) {
                return;
            }
        }
    }

    /// Reads for ever.
    pub fn receive(&self, mut deliver: impl FnMut(&[u8])) -> ! {
        let mut buffer = [0; 4096];
        loop {
            match read(&self.master, &mut buffer) {
                Ok(n @ 1..) => deliver(&buffer[..n]),
                Err(Errno::INTR) => {}
                // EIO: nobody has opened the other side.
                Ok(0) | Err(_) => std::thread::sleep(CONNECT_INTERVAL),
            }
        }
    }
}

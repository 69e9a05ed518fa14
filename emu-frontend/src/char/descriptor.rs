//! Whole reads and writes on file descriptors that may be non-blocking, interrupted or gone.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::AsFd;
use rustix::io::{Errno, read, write};

/// Writes all of `bytes`; `false` if the other side is gone.
pub fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match write(&fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(&fd, PollFlags::OUT),
            Err(_) => return false,
        }
    }
    true
}

/// Reads at least one byte; 0 at the end or if the other side is gone.
pub fn read_some(fd: impl AsFd, buffer: &mut [u8]) -> usize {
    loop {
        match read(&fd, &mut *buffer) {
            Ok(n) => return n,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(&fd, PollFlags::IN),
            Err(_) => return 0,
        }
    }
}

/// Waits until `fd` is ready for `flags`, closed or broken.
pub fn wait(fd: impl AsFd, flags: PollFlags) {
    // An interrupted wait is retried by the caller's own loop.
    let _ = poll(&mut [PollFd::new(&fd, flags)], None);
}

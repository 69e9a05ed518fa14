//! Who receives the input of a character device, and the escape keys of a shared one.
//!
//! With the escape character Ctrl-A: `x` quits, `c` switches to the next front end, `b` sends a break, `h` shows help, and
//! Ctrl-A once more is a Ctrl-A for the guest.

use super::Arrival;
use super::queue::{Inbox, Input, Outbox};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a client that sends no more may take to receive the last answers.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between looks whether it has.
const LOOK: Duration = Duration::from_millis(2);

/// What an escape key asks of the emulator as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// End the emulator.
    Quit,
}

/// Distributes input.
pub struct Router {
    fronts: Vec<Arc<Inbox>>,
    focus: usize,
    /// The escape character of a shared device; `None` without escapes.
    escape: Option<u8>,
    escaped: bool,
    outbox: Arc<Outbox>,
}

impl Router {
    /// A router without front ends.
    pub fn new(outbox: Arc<Outbox>, escape: Option<u8>) -> Router {
        Router { fronts: Vec::new(), focus: 0, escape, escaped: false, outbox }
    }

    /// Adds a front end; the first one has the focus.
    pub fn add(&mut self, inbox: Arc<Inbox>) {
        self.fronts.push(inbox);
    }

    /// Distributes what has arrived; what it asks of the emulator.
    pub fn deliver(&mut self, arrival: Arrival) -> Option<Escape> {
        match arrival {
            Arrival::Bytes(bytes) => return self.deliver_bytes(bytes),
            Arrival::Break => self.send(&mut vec![Input::Break]),
            Arrival::Left => self.settle(),
            Arrival::Gone => {
                // The next client is to get no answers to what this one asked. As nobody has to read them, they come to an end.
                while self.is_busy() {
                    std::thread::sleep(LOOK);
                }
                self.settle();
            }
            Arrival::Opened => {
                // Half an escape key of the client before is none of this one's.
                self.escaped = false;
                self.fronts.iter().for_each(|front| front.push([Input::Opened]));
            }
        }
        None
    }

    fn deliver_bytes(&mut self, bytes: &[u8]) -> Option<Escape> {
        let mut plain = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if self.escaped {
                self.escaped = false;
                // What was typed before goes to who had the focus then.
                self.send(&mut plain);
                if let Some(request) = self.command(byte) {
                    return Some(request);
                }
            } else if Some(byte) == self.escape {
                self.escaped = true;
            } else {
                plain.push(Input::Byte(byte));
            }
        }
        self.send(&mut plain);
        None
    }

    /// Waits until what has arrived is answered, and the answers are written, though not for ever.
    fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        while (self.is_busy() || !self.outbox.is_drained()) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }

    /// Whether a monitor is at work.
    fn is_busy(&self) -> bool {
        self.fronts.iter().any(|front| front.is_busy())
    }

    /// No more input will come.
    pub fn end(&self) {
        self.fronts.iter().for_each(|f| f.end());
    }

    fn send(&self, input: &mut Vec<Input>) {
        if let Some(front) = self.fronts.get(self.focus) {
            front.push(input.drain(..));
        }
    }

    fn command(&mut self, byte: u8) -> Option<Escape> {
        match byte {
            b'x' => {
                self.outbox.write(b"emu: Terminated\r\n");
                return Some(Escape::Quit);
            }
            b'h' | b'?' => self.outbox.write(self.help().as_bytes()),
            b'b' => self.send(&mut vec![Input::Break]),
            b'c' if self.fronts.len() > 1 => {
                self.focus = (self.focus + 1) % self.fronts.len();
                self.send(&mut vec![Input::Focus]);
            }
            _ if Some(byte) == self.escape => self.send(&mut vec![Input::Byte(byte)]),
            _ => {}
        }
        None
    }

    fn help(&self) -> String {
        let key = match self.escape {
            Some(code @ 1..=26) => format!("C-{}", (code - 1 + b'a') as char),
            Some(code) => format!("{:#04x}", code),
            None => String::new(),
        };
        let switch = match self.fronts.len() {
            0 | 1 => String::new(),
            _ => format!("{key} c    switch between console and monitor\r\n"),
        };
        format!(
            "\r\n{key} h    print this help\r\n{key} x    exit emulator\r\n{key} b    send break (magic sysrq)\r\n\
             {switch}{key} {key}  sends {key}\r\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> (Router, Arc<Inbox>, Arc<Inbox>) {
        let mut router = Router::new(Arc::default(), Some(1));
        let (serial, monitor) = (Arc::new(Inbox::default()), Arc::new(Inbox::default()));
        router.add(serial.clone());
        router.add(monitor.clone());
        (router, serial, monitor)
    }

    fn read(inbox: &Inbox) -> Vec<u8> {
        let mut buffer = [0; 64];
        let n = inbox.read(&mut buffer);
        buffer[..n].to_vec()
    }

    #[test]
    fn switch_moves_later_input_to_the_monitor_and_back() {
        let (mut router, serial, monitor) = router();
        assert_eq!(router.deliver(Arrival::Bytes(b"a\x01cb\x01cc")), None);
        assert_eq!(read(&monitor), b"b");
        assert_eq!(read(&serial), b"ac");
    }

    #[test]
    fn escape_keys_are_split_over_deliveries_and_unknown_ones_vanish() {
        let (mut router, serial, _) = router();
        router.deliver(Arrival::Bytes(b"a\x01"));
        router.deliver(Arrival::Bytes(b"\x01b\x01z"));
        assert_eq!(read(&serial), b"a\x01b");
        router.deliver(Arrival::Bytes(b"\x01b"));
        assert!(serial.take_break());
        assert_eq!(router.deliver(Arrival::Bytes(b"\x01x")), Some(Escape::Quit));
    }

    #[test]
    fn device_without_escape_passes_everything() {
        let mut router = Router::new(Arc::default(), None);
        let inbox = Arc::new(Inbox::default());
        router.add(inbox.clone());
        assert_eq!(router.deliver(Arrival::Bytes(b"\x01x")), None);
        assert_eq!(read(&inbox), b"\x01x");
    }

    #[test]
    fn client_is_gone_only_when_a_slow_monitor_has_answered_all_that_it_asked() {
        let mut router = Router::new(Arc::default(), None);
        let inbox = Arc::new(Inbox::default());
        router.add(inbox.clone());
        let slow = std::thread::spawn(move || {
            let mut taken = 0;
            while let Some(Input::Byte(_)) = inbox.wait() {
                taken += 1;
                // Longer altogether than anybody waits for a client to read.
                std::thread::sleep(PATIENCE / 20);
            }
            taken
        });
        let start = Instant::now();
        router.deliver(Arrival::Bytes(&[b'x'; 25]));
        // The monitor has begun to wait for input, so that it counts.
        while !router.is_busy() {
            std::thread::sleep(LOOK);
        }
        router.deliver(Arrival::Gone);
        assert!(start.elapsed() > PATIENCE && !router.is_busy());
        router.end();
        assert_eq!(slow.join().unwrap(), 25);
    }

    #[test]
    fn help_names_the_escape_key_in_use() {
        let (router, ..) = router();
        assert!(router.help().contains("C-a x    exit emulator"));
        let other = Router::new(Arc::default(), Some(0x14));
        assert!(other.help().contains("C-t x"));
    }
}

//! The console device with its ports, "virtio-serial": VIRTIO 1.2, 5.3.
//!
//! ```text
//!  queues    0 port 0 to the guest   1 port 0 from it   2 control to it   3 control from it   2 n + 2, 2 n + 3: port n
//!  control   0 port (4) | 4 event (2) | 6 value (2) | name
//! ```
//! A driver that does not know several ports has port 0 as its console. What a port's far end does not take waits, and so does the guest.
//! Of what it takes, [`MOST_BYTES`] go at a time: a queue can name more bytes than anybody wants to wait for.
//! Deliberately absent: the size of consoles.

use super::queue::{Chain, QueueError};
use super::{Kind, VirtioContext, VirtioDevice};
use crate::char::CharBackend;
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Ports at most.
pub const MOST_PORTS: usize = 31;
const CONTROL_TO_GUEST: usize = 2;
const CONTROL_FROM_GUEST: usize = 3;
const DATA_QUEUE: u16 = 128;
const CONTROL_QUEUE: u16 = 32;
/// Bytes that are moved at a time.
const PIECE: usize = 4096;
/// Bytes that a port sends before the guest goes on.
const MOST_BYTES: usize = 1 << 20;
/// Nanoseconds until the port goes on.
const PAUSE: u64 = 1_000_000;
/// Control messages that wait for buffers at most; more are lost.
const MOST_MESSAGES: usize = 8 * MOST_PORTS;
/// Offset of `emerg_wr` in the configuration structure.
const EMERGENCY: usize = 8;

mod feature {
    pub const MULTIPORT: u64 = 1 << 1;
    pub const EMERG_WRITE: u64 = 1 << 2;
}

/// Control events, by the specification's names (5.3.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    DeviceReady = 0,
    DeviceAdd = 1,
    PortReady = 3,
    ConsolePort = 4,
    PortOpen = 6,
    PortName = 7,
}

impl Event {
    /// Those that drivers send.
    fn decode(value: u16) -> Option<Event> {
        [Event::DeviceReady, Event::PortReady, Event::PortOpen].into_iter().find(|event| *event as u16 == value)
    }
}

/// A port and what is at its far end.
pub struct Port {
    /// Its number; 0 is for a console.
    pub number: u8,
    /// The guest is to use it as a console.
    pub console: bool,
    /// What the guest calls it.
    pub name: Option<String>,
    /// The far end.
    pub backend: Box<dyn CharBackend>,
}

/// What of a port is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// Somebody in the guest has opened it.
    pub guest_open: bool,
    /// Whether there is a far end, as the driver has been told; `None`: it has not asked for the port yet.
    pub host_open: Option<bool>,
    /// What the far end has not taken yet: the chain, and how much of it has gone.
    pub sending: Option<(Chain, usize)>,
}

/// What of the device is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Ports, in the order of their numbers.
    pub ports: Vec<PortState>,
    /// Control messages that wait for buffers.
    pub messages: VecDeque<Vec<u8>>,
}

/// A console device.
pub struct Console {
    ports: Vec<(Port, PortState)>,
    most: usize,
    messages: VecDeque<Vec<u8>>,
    /// A port goes on sending then.
    resume: Option<Instant>,
}

/// The queue to the guest; the one from it follows.
fn queue_of(port: u8) -> usize {
    if port == 0 { 0 } else { 2 * usize::from(port) + 2 }
}

impl Console {
    /// A device with `ports`, whose numbers differ and are below `most`, at most [`MOST_PORTS`].
    pub fn new(mut ports: Vec<Port>, most: usize) -> Console {
        ports.sort_by_key(|port| port.number);
        let ports = ports.into_iter().map(|port| (port, PortState::default())).collect();
        Console { ports, most: most.clamp(1, MOST_PORTS), messages: VecDeque::new(), resume: None }
    }

    fn say(&mut self, port: u8, event: Event, value: u16, extra: &[u8]) {
        if self.messages.len() < MOST_MESSAGES {
            let head = [&u32::from(port).to_le_bytes()[..], &(event as u16).to_le_bytes(), &value.to_le_bytes()];
            self.messages.push_back([&head.concat()[..], extra].concat());
        }
    }

    /// Sends control messages as far as there are buffers.
    fn flush_messages(&mut self, cx: &mut VirtioContext) {
        while !self.messages.is_empty() {
            let Some(chain) = cx.pop(CONTROL_TO_GUEST) else { return };
            if let Some(message) = self.messages.pop_front() {
                let n = chain.write(cx.memory, 0, &message);
                cx.push(CONTROL_TO_GUEST, chain.head, n);
            }
        }
    }

    fn control(&mut self, cx: &mut VirtioContext) {
        while let Some(chain) = cx.pop(CONTROL_FROM_GUEST) {
            let message = chain.read_array::<8>(cx.memory, 0).map(u64::from_le_bytes);
            cx.push(CONTROL_FROM_GUEST, chain.head, 0);
            let Some(message) = message else {
                return cx.fail(QueueError::Contents("a control message has less than 8 bytes"));
            };
            let (number, event, value) = (message as u32, (message >> 32) as u16, (message >> 48) as u16);
            let index = self.ports.iter().position(|(port, _)| u32::from(port.number) == number);
            match (Event::decode(event), index) {
                (Some(Event::DeviceReady), _) if value != 0 => {
                    for number in self.ports.iter().map(|(port, _)| port.number).collect::<Vec<_>>() {
                        self.say(number, Event::DeviceAdd, 1, &[]);
                    }
                }
                (Some(Event::PortReady), Some(index)) if value != 0 => self.introduce(index),
                (Some(Event::PortOpen), Some(index)) => self.ports[index].1.guest_open = value != 0,
                _ => {}
            }
        }
        self.flush_messages(cx);
    }

    /// Tells the driver about a port.
    fn introduce(&mut self, index: usize) {
        let (port, state) = &mut self.ports[index];
        let (number, console, name) = (port.number, port.console, port.name.clone());
        let open = console || port.backend.modem_inputs().dcd;
        state.host_open = Some(open);
        if console {
            self.say(number, Event::ConsolePort, 1, &[]);
        }
        if let Some(name) = name {
            self.say(number, Event::PortName, 1, &[name.as_bytes(), &[0]].concat());
        }
        if open {
            self.say(number, Event::PortOpen, 1, &[]);
        }
    }

    /// From the guest to the far end.
    fn send(&mut self, cx: &mut VirtioContext, index: usize) {
        let (port, state) = &mut self.ports[index];
        let queue = queue_of(port.number) + 1;
        let mut buffer = [0; PIECE];
        let mut left = MOST_BYTES;
        while let Some((chain, mut sent)) = state.sending.take().or_else(|| cx.pop(queue).map(|chain| (chain, 0))) {
            loop {
                let n = chain.read(cx.memory, sent, &mut buffer);
                if n == 0 {
                    break;
                }
                if left < n {
                    state.sending = Some((chain, sent));
                    self.resume = Some(cx.now.plus_nanos(PAUSE));
                    return;
                }
                let taken = port.backend.write(&buffer[..n]).min(n);
                (sent, left) = (sent + taken, left - taken);
                if taken < n {
                    state.sending = Some((chain, sent));
                    return;
                }
            }
            cx.push(queue, chain.head, 0);
        }
    }

    /// From the far end to the guest, if somebody there listens.
    fn receive(&mut self, cx: &mut VirtioContext, index: usize) {
        let (port, state) = &mut self.ports[index];
        if cx.has(feature::MULTIPORT) && !state.guest_open {
            return;
        }
        let queue = queue_of(port.number);
        let mut buffer = [0; PIECE];
        while let Some(chain) = cx.pop(queue) {
            let room = chain.writable_len().min(PIECE);
            let n = port.backend.read(&mut buffer[..room]).min(room);
            if n == 0 && room > 0 {
                return cx.unpop(queue);
            }
            chain.write(cx.memory, 0, &buffer[..n]);
            cx.push(queue, chain.head, n);
        }
    }
}

impl VirtioDevice for Console {
    const ID: &'static str = "virtio-serial";
    const KIND: Kind = Kind { device: 3, transitional: 0x1003, class: 0x07_8000 };
    type State = ConsoleState;

    fn features(&self) -> u64 {
        feature::EMERG_WRITE | if self.most > 1 { feature::MULTIPORT } else { 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let count = if self.most > 1 { 2 * self.most + 2 } else { 2 };
        let size =
            |queue| if (CONTROL_TO_GUEST..=CONTROL_FROM_GUEST).contains(&queue) { CONTROL_QUEUE } else { DATA_QUEUE };
        (0..count).map(size).collect()
    }

    /// `struct virtio_console_config` (5.3.4): columns and rows, which are not offered, ports, and `emerg_wr`.
    fn config(&self, _features: u64) -> Vec<u8> {
        [[0; 4], (self.most as u32).to_le_bytes(), [0; 4]].concat()
    }

    /// 5.3.5.1: one character, without queues and before the driver is ready.
    fn write_config(&mut self, _cx: &mut VirtioContext, offset: usize, bytes: &[u8]) {
        if offset == EMERGENCY
            && let Some((port, _)) = self.ports.first_mut().filter(|(port, _)| port.console)
        {
            port.backend.write(&bytes[..1]);
        }
    }

    fn notified(&mut self, cx: &mut VirtioContext, queue: usize) {
        match queue {
            CONTROL_TO_GUEST => self.flush_messages(cx),
            CONTROL_FROM_GUEST => {
                self.control(cx);
                // A port that has just been opened may have something to read.
                (0..self.ports.len()).for_each(|index| self.receive(cx, index));
            }
            _ => {
                let number = if queue < 2 { 0 } else { (queue / 2 - 1) as u8 };
                let Some(index) = self.ports.iter().position(|(port, _)| port.number == number) else {
                    // Nobody is there: what the guest sends is lost.
                    while queue % 2 == 1
                        && let Some(chain) = cx.pop(queue)
                    {
                        cx.push(queue, chain.head, 0);
                    }
                    return;
                };
                if queue & 1 == 0 { self.receive(cx, index) } else { self.send(cx, index) }
            }
        }
    }

    fn poll_at(&self) -> Option<Instant> {
        self.resume
    }

    fn poll(&mut self, cx: &mut VirtioContext) {
        self.resume = None;
        for index in 0..self.ports.len() {
            self.send(cx, index);
            self.receive(cx, index);
            let (port, state) = &mut self.ports[index];
            let open = port.console || port.backend.modem_inputs().dcd;
            if cx.is_live() && state.host_open.is_some_and(|told| told != open) {
                state.host_open = Some(open);
                let number = port.number;
                self.say(number, Event::PortOpen, open.into(), &[]);
            }
        }
        self.flush_messages(cx);
    }

    fn reset(&mut self) {
        self.messages.clear();
        self.resume = None;
        self.ports.iter_mut().for_each(|(_, state)| *state = PortState::default());
    }

    fn attached(&mut self, notifier: Notifier) {
        self.ports.iter_mut().for_each(|(port, _)| port.backend.set_notifier(notifier.clone()));
    }

    fn state(&self) -> ConsoleState {
        let ports = self.ports.iter().map(|(_, state)| state.clone()).collect();
        ConsoleState { ports, messages: self.messages.clone() }
    }

    fn set_state(&mut self, state: ConsoleState) {
        self.ports.iter_mut().zip(state.ports).for_each(|((_, mine), saved)| *mine = saved);
        self.resume = self.ports.iter().any(|(_, state)| state.sending.is_some()).then_some(Instant::ZERO);
        self.messages = state.messages;
        self.messages.truncate(MOST_MESSAGES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::char::MemoryBackend;
    use crate::virtio::driver::{Driver, WAYS};
    use crate::virtio::pci::VirtioOptions;
    use crate::virtio::status;

    fn console(most: usize) -> (Console, MemoryBackend, MemoryBackend) {
        let (first, second) = (MemoryBackend::default(), MemoryBackend::default());
        let port = |number, console, name: Option<&str>, backend: &MemoryBackend| Port {
            number,
            console,
            name: name.map(Into::into),
            backend: Box::new(backend.clone()),
        };
        let ports = vec![port(3, false, Some("org.port"), &second), port(0, true, None, &first)];
        (Console::new(ports, most), first, second)
    }

    fn control(port: u32, event: u16, value: u16) -> Vec<u8> {
        [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
    }

    #[test]
    fn driver_of_one_port_has_a_console() {
        for way in WAYS {
            let (device, first, _) = console(MOST_PORTS);
            let mut driver = Driver::new(device, way, VirtioOptions::default());
            driver.start(0);
            assert_eq!(driver.request(1, &[b"hello ", b"host"], &[]), b"");
            assert_eq!(first.take_output(), b"hello host");
            let head = driver.add(0, &[], &[4, 4]);
            driver.kick(0);
            assert!(driver.used(0).is_empty());
            driver.interrupts();
            first.send(b"guest");
            driver.bench.poll();
            assert_eq!((driver.used(0), &driver.room(0, head)[..5]), (vec![(head, 5)], &b"guest"[..]));
            assert_eq!(driver.interrupts(), driver.interrupt_of(0));
            driver.set_config(8, 4, b'!'.into());
            assert_eq!(first.take_output(), b"!");
        }
    }

    #[test]
    fn ports_introduce_themselves_and_carry_bytes_once_they_are_open() {
        for way in WAYS {
            let (device, first, second) = console(4);
            let mut driver = Driver::new(device, way, VirtioOptions::default());
            driver.start(u64::MAX);
            assert_eq!((driver.rings.len(), driver.config(4, 4)), (10, 4));
            let heads: Vec<u16> = (0..8).map(|_| driver.add(2, &[], &[32])).collect();
            for message in [control(0, 0, 1), control(0, 3, 1), control(3, 3, 1), control(9, 3, 1), control(0, 99, 1)] {
                driver.request(3, &[&message], &[]);
            }
            let said: Vec<Vec<u8>> =
                driver.used(2).into_iter().map(|(head, len)| driver.room(2, head)[..len as usize].to_vec()).collect();
            let name = [&control(3, 7, 1)[..], b"org.port\0"].concat();
            let expected =
                [control(0, 1, 1), control(3, 1, 1), control(0, 4, 1), control(0, 6, 1), name, control(3, 6, 1)];
            assert_eq!(said, expected);
            assert_eq!(heads.len() - said.len(), 2);
            // Port 3 has queues 8 and 9.
            let head = driver.add(8, &[], &[16]);
            driver.kick(8);
            second.send(b"early");
            driver.bench.poll();
            assert!(driver.used(8).is_empty(), "nobody has opened it");
            driver.request(3, &[&control(3, 6, 1)], &[]);
            assert_eq!(driver.used(8), [(head, 5)]);
            driver.request(9, &[b"out"], &[]);
            assert_eq!((second.take_output(), first.take_output()), (b"out".to_vec(), vec![]));
            assert_eq!(driver.request(7, &[b"lost"], &[]), b"");
        }
    }

    #[test]
    fn long_output_does_not_keep_the_guest_from_its_work() {
        let (device, first, _) = console(1);
        let mut driver = Driver::new(device, WAYS[0], VirtioOptions::default());
        driver.start(0);
        let text = vec![7; 700_000];
        let head = driver.add(1, &[&text, &text, &text], &[]);
        let last = driver.add(1, &[b"end"], &[]);
        driver.kick(1);
        let at_once = first.take_output().len();
        assert!((1..=MOST_BYTES).contains(&at_once), "{at_once}");
        assert!(driver.used(1).is_empty());
        driver.bench.advance(3 * PAUSE);
        assert_eq!(driver.used(1), [(head, 0), (last, 0)]);
        assert_eq!(at_once + first.take_output().len(), 2_100_003);
        // A reset forgets the rest.
        driver.add(1, &[&text, &text], &[]);
        driver.kick(1);
        driver.start(0);
        first.take_output();
        driver.bench.advance(3 * PAUSE);
        assert!(first.take_output().is_empty());
    }

    #[test]
    fn short_control_message_stops_the_device() {
        let (device, ..) = console(2);
        let mut driver = Driver::new(device, WAYS[0], VirtioOptions::default());
        driver.start(u64::MAX);
        driver.add(3, &[&[0; 7]], &[]);
        driver.kick(3);
        assert_ne!(driver.status() & status::DEVICE_NEEDS_RESET, 0);
    }

    #[test]
    fn guest_waits_for_a_far_end_that_is_slow() {
        let backend = MemoryBackend::default();
        let port = Port { number: 0, console: true, name: None, backend: Box::new(backend.clone()) };
        let mut driver = Driver::new(Console::new(vec![port], 1), WAYS[0], VirtioOptions::default());
        driver.start(u64::MAX);
        backend.set_room(Some(0));
        let head = driver.add(1, &[b"ab", b"cdef"], &[]);
        driver.kick(1);
        for expected in [&b"abc"[..], b"def"] {
            assert!(driver.used(1).is_empty());
            backend.set_room(Some(3));
            driver.bench.poll();
            assert_eq!(backend.take_output(), expected);
        }
        assert_eq!(driver.used(1), [(head, 0)]);
    }
}

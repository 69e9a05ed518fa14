//! A hub (`-netdev hubport`, and several cards or back ends by `-net`): what comes in at one port goes out at all others. One thread for it.

use super::cable::{FarEnd, NearEnd};
use emu_devices::net::NetBackend as _;
use mio::{Events, Poll};
use std::io;
use std::time::Instant;

/// What is plugged into a port.
pub enum Port {
    /// A card, at the other end of a cable.
    Card(Box<FarEnd>),
    /// A back end, for which the hub is the card.
    Backend(NearEnd),
}

impl Port {
    fn receive(&mut self, frame: &mut Vec<u8>) -> bool {
        match self {
            Port::Card(far) => match far.next() {
                Some(next) => {
                    far.recycle(std::mem::replace(frame, next));
                    true
                }
                None => false,
            },
            Port::Backend(near) => near.receive(frame),
        }
    }

    fn send(&mut self, frame: &[u8]) {
        match self {
            Port::Card(far) => {
                let mut buffer = far.buffer();
                buffer.extend_from_slice(frame);
                far.deliver(buffer);
            }
            // A hub loses what has no room.
            Port::Backend(near) => drop(near.send(frame)),
        }
    }
}

/// Frames that one port may send before others have their turn.
const TURN: usize = 64;

/// Serves `ports`, all of which wake `poll`, until all cards are gone.
pub fn run(mut ports: Vec<Port>, mut poll: Poll) {
    let mut events = Events::with_capacity(8);
    let mut frame = Vec::new();
    let gone = |port: &Port| matches!(port, Port::Card(far) if far.near_is_gone());
    while ports.iter().any(|port| matches!(port, Port::Card(_)) && !gone(port)) {
        let mut more = false;
        for from in 0..ports.len() {
            let mut turn = TURN;
            while turn > 0 && ports[from].receive(&mut frame) {
                for (to, port) in ports.iter_mut().enumerate() {
                    if to != from {
                        port.send(&frame);
                    }
                }
                turn -= 1;
            }
            more |= turn == 0;
        }
        let mut until = None;
        for port in &mut ports {
            if let Port::Card(far) = port {
                until = [until, far.sleep_until()].into_iter().flatten().min();
            }
        }
        let until = if more { Some(Instant::now()) } else { until };
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        match poll.poll(&mut events, wait) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => return tracing::warn!("the hub has ended: {e}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::net::tests::{open, wait_for};

    #[test]
    fn what_one_port_says_all_others_hear() {
        let ports = ["a", "b", "c"].map(|id| format!("hubport,id={id},hubid=1"));
        let words: Vec<&str> = ports.iter().flat_map(|port| ["-netdev", port]).collect();
        let mut networks = open(&words).unwrap();
        let mut ends = ["a", "b", "c"].map(|id| networks.take(id, "", "").unwrap());
        for speaker in 0..3 {
            let said = [speaker as u8; 60];
            assert!(ends[speaker].send(&said));
            let mut frame = Vec::new();
            for (listener, end) in ends.iter_mut().enumerate().filter(|(listener, _)| *listener != speaker) {
                let heard = wait_for(|| end.receive(&mut frame).then(|| frame.clone()));
                assert_eq!(heard, said, "{speaker} to {listener}");
            }
            assert!(!ends[speaker].receive(&mut frame));
        }
    }
}

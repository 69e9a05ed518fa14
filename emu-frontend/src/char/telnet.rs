//! Telnet around a socket server's bytes (RFC 854; ECHO: RFC 857, SUPPRESS-GO-AHEAD: RFC 858, TRANSMIT-BINARY: RFC 856).
//!
//! The emulator offers what QEMU offers: to echo, to leave out go-aheads, and binary both ways, so that a telnet client sends
//! each key at once and shows none itself. What the client answers changes one thing only: until it has agreed to send
//! binary, its line ends are CR NUL or CR LF, and the NUL is no key. Deliberately absent: all other options, which are
//! neither asked for nor, as none was offered, refused; terminal types and window sizes.

use super::Arrival;

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
/// Begins the parameters of an option, which end with [`SE`].
const SB: u8 = 250;
/// The break key.
const BRK: u8 = 243;
const SE: u8 = 240;

const BINARY: u8 = 0;
const ECHO: u8 = 1;
const SUPPRESS_GO_AHEAD: u8 = 3;

/// What a client receives first.
pub const GREETING: &[u8] = &[IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD, IAC, WILL, BINARY, IAC, DO, BINARY];

/// Where in a command the bytes from a client are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Data,
    /// Behind a CR that may have a NUL.
    Return,
    /// Behind an IAC.
    Command,
    /// Behind WILL, WONT, DO or DONT.
    Option(u8),
    /// Within the parameters of an option.
    Parameters,
    /// Behind an IAC within them.
    ParametersCommand,
}

/// Takes the commands out of what one client sends.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// The client sends binary.
    binary: bool,
}

impl Decoder {
    /// Hands the data among `bytes` and the break key to `deliver`, in order.
    pub fn decode(&mut self, bytes: &[u8], deliver: &mut dyn FnMut(Arrival)) {
        let mut data = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::Data | State::Return, IAC) => State::Command,
                (State::Return, 0) => State::Data,
                (State::Data | State::Return, _) => {
                    data.push(byte);
                    if byte == b'\r' && !self.binary { State::Return } else { State::Data }
                }
                (State::Command, IAC) => {
                    data.push(IAC);
                    State::Data
                }
                (State::Command, BRK) => {
                    // What was typed before the break arrives before it.
                    deliver(Arrival::Bytes(&std::mem::take(&mut data)));
                    deliver(Arrival::Break);
                    State::Data
                }
                (State::Command, WILL | WONT | DO | DONT) => State::Option(byte),
                (State::Command, SB) => State::Parameters,
                (State::Command, _) => State::Data,
                (State::Option(verb), option) => {
                    if option == BINARY && matches!(verb, WILL | WONT) {
                        self.binary = verb == WILL;
                    }
                    State::Data
                }
                (State::Parameters, IAC) => State::ParametersCommand,
                (State::ParametersCommand, SE) => State::Data,
                (State::Parameters | State::ParametersCommand, _) => State::Parameters,
            };
        }
        if !data.is_empty() {
            deliver(Arrival::Bytes(&data));
        }
    }
}

/// Data as a client takes it: a byte FFh is sent twice.
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        encoded.extend(std::iter::repeat_n(byte, if byte == IAC { 2 } else { 1 }));
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data in `chunks`, a break as `!`.
    fn decoded(chunks: &[&[u8]]) -> Vec<u8> {
        let (mut decoder, mut all) = (Decoder::default(), Vec::new());
        for chunk in chunks {
            decoder.decode(chunk, &mut |arrival| match arrival {
                Arrival::Bytes(bytes) => all.extend_from_slice(bytes),
                Arrival::Break => all.push(b'!'),
                Arrival::Opened | Arrival::Left | Arrival::Gone => panic!("nobody comes or goes"),
            });
        }
        all
    }

    #[test]
    fn commands_are_taken_out_wherever_the_stream_is_cut() {
        let stream = b"a\xff\xfd\x01b\xff\xfa\x18\x00x\xff\xffy\xff\xf0c\xff\xffd\xff\xf1e";
        assert_eq!(decoded(&[stream]), b"abc\xffde");
        for cut in 0..stream.len() {
            assert_eq!(decoded(&[&stream[..cut], &stream[cut..]]), b"abc\xffde", "cut at {cut}");
        }
    }

    #[test]
    fn nul_behind_a_return_is_no_key_until_the_client_sends_binary() {
        assert_eq!(decoded(&[b"a\r\0b\0\r\n\xff\xfb\x00c\r\0d\xff\xfc\x00\r\0"]), b"a\rb\0\r\nc\r\0d\r");
    }

    #[test]
    fn break_arrives_between_the_bytes_around_it() {
        assert_eq!(decoded(&[b"a\xff\xf3b"]), b"a!b");
    }

    #[test]
    fn byte_that_begins_commands_is_sent_twice() {
        assert_eq!(encode(b"a\xffb"), b"a\xff\xffb");
    }
}

//! A PS/2 mouse: standard, with a wheel (IntelliMouse), or with a wheel and five buttons (IntelliMouse Explorer).
//!
//! Follows the IBM PS/2 Hardware Interface Technical Reference, "Mouse"; the two extensions are as Microsoft's mice have
//! them: sample rates set to 200, 100, 80 turn on the wheel (ID 3), then 200, 200, 80 the side buttons (ID 4).
//! Deliberately absent: a change of counts by the resolution, which is only reported.

use super::Button;
use emu_core::clock::Instant;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const SELF_TEST_PASSED: u8 = 0xaa;
/// Bytes that wait for a guest that reads none, at most, before clicks are lost.
const MOST_WAITING: usize = 64;

/// A byte from the host that is not an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    SetScaling { double: bool },
    SetResolution,
    StatusRequest,
    SetStreamMode,
    ReadData,
    ResetWrapMode,
    SetWrapMode,
    SetRemoteMode,
    ReadId,
    SetSampleRate,
    Enable,
    Disable,
    SetDefault,
    Resend,
    Reset,
    Invalid,
}

impl Command {
    fn decode(byte: u8) -> Command {
        match byte {
            0xe6 => Command::SetScaling { double: false },
            0xe7 => Command::SetScaling { double: true },
            0xe8 => Command::SetResolution,
            0xe9 => Command::StatusRequest,
            0xea => Command::SetStreamMode,
            0xeb => Command::ReadData,
            0xec => Command::ResetWrapMode,
            0xee => Command::SetWrapMode,
            0xf0 => Command::SetRemoteMode,
            0xf2 => Command::ReadId,
            0xf3 => Command::SetSampleRate,
            0xf4 => Command::Enable,
            0xf5 => Command::Disable,
            0xf6 => Command::SetDefault,
            0xfe => Command::Resend,
            0xff => Command::Reset,
            _ => Command::Invalid,
        }
    }
}

/// The command whose argument the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Argument {
    /// Set Resolution.
    Resolution,
    /// Set Sampling Rate.
    SampleRate,
}

/// The protocol that the host has switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// Three-byte packets.
    #[default]
    Standard,
    /// A fourth byte for the wheel.
    Wheel,
    /// A fourth byte for the wheel and two more buttons.
    Explorer,
}

impl Protocol {
    fn id(self) -> u8 {
        match self {
            Protocol::Standard => 0,
            Protocol::Wheel => 3,
            Protocol::Explorer => 4,
        }
    }

    /// The buttons that packets tell.
    fn buttons(self) -> u8 {
        match self {
            Protocol::Standard | Protocol::Wheel => 0x07,
            Protocol::Explorer => 0x1f,
        }
    }
}

/// All state of the mouse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MouseState {
    /// Data reporting is on.
    pub enabled: bool,
    /// Remote mode: packets on request only.
    pub remote: bool,
    /// Wrap mode: every byte is echoed.
    pub wrap: bool,
    /// Scaling 2:1.
    pub double: bool,
    /// Resolution, 0 to 3.
    pub resolution: u8,
    /// Samples a second.
    pub rate: u8,
    /// The last sample rates, the latest last.
    pub knocks: [u8; 3],
    /// The protocol.
    pub protocol: Protocol,
    /// An argument is expected.
    pub argument: Option<Argument>,
    /// Bytes for the host.
    pub output: VecDeque<u8>,
    /// Buttons that are down: bit 0 left, 1 right, 2 middle, 3 side, 4 extra.
    pub buttons: u8,
    /// The buttons that the last packet told.
    pub told: u8,
    /// Motion that no packet has told: right, up, and the wheel.
    pub motion: [i32; 3],
    /// When the next packet may be sent.
    pub next_packet: Instant,
    /// The byte sent last, for Resend.
    pub last: u8,
}

impl Default for MouseState {
    fn default() -> MouseState {
        MouseState {
            enabled: false,
            remote: false,
            wrap: false,
            double: false,
            resolution: 2,
            rate: 100,
            knocks: [0; 3],
            protocol: Protocol::Standard,
            argument: None,
            output: VecDeque::new(),
            buttons: 0,
            told: 0,
            motion: [0; 3],
            next_packet: Instant::ZERO,
            last: 0,
        }
    }
}

/// The mouse.
#[derive(Clone, Debug, Default)]
pub struct Ps2Mouse {
    state: MouseState,
}

impl Ps2Mouse {
    /// Its state.
    pub fn state(&self) -> &MouseState {
        &self.state
    }

    /// Replaces its state.
    pub fn set_state(&mut self, mut state: MouseState) {
        state.output.truncate(16);
        state.motion = state.motion.map(|n| n.clamp(-0xffff, 0xffff));
        self.state = state;
    }

    /// Power-on.
    pub fn reset(&mut self) {
        self.state = MouseState { buttons: self.state.buttons, ..MouseState::default() };
    }

    /// Whether a byte waits for the host.
    pub fn has_byte(&self) -> bool {
        !self.state.output.is_empty()
    }

    /// The next byte for the host.
    pub fn next_byte(&mut self) -> Option<u8> {
        let byte = self.state.output.pop_front()?;
        if byte != RESEND {
            self.state.last = byte;
        }
        Some(byte)
    }

    /// A byte from the host.
    pub fn write(&mut self, byte: u8) {
        let s = &mut self.state;
        s.output.clear();
        let command = Command::decode(byte);
        if s.wrap && !matches!(command, Command::ResetWrapMode | Command::Reset) {
            s.output.push_back(byte);
            return;
        }
        match s.argument.take() {
            Some(Argument::Resolution) if byte <= 3 => {
                s.resolution = byte;
                s.output.push_back(ACK);
            }
            Some(Argument::SampleRate) if (1..=200).contains(&byte) => self.set_sample_rate(byte),
            Some(_) => s.output.push_back(RESEND),
            None => self.command(command),
        }
    }

    fn set_sample_rate(&mut self, rate: u8) {
        let s = &mut self.state;
        s.rate = rate;
        s.knocks = [s.knocks[1], s.knocks[2], rate];
        match (s.knocks, s.protocol) {
            ([200, 100, 80], Protocol::Standard) => s.protocol = Protocol::Wheel,
            ([200, 200, 80], _) => s.protocol = Protocol::Explorer,
            _ => {}
        }
        s.output.push_back(ACK);
    }

    fn command(&mut self, command: Command) {
        let s = &mut self.state;
        match command {
            Command::Invalid => {
                s.output.push_back(RESEND);
                return;
            }
            Command::Resend => {
                let last = s.last;
                s.output.push_back(last);
                return;
            }
            _ => s.output.push_back(ACK),
        }
        match command {
            Command::SetScaling { double } => s.double = double,
            Command::SetResolution => s.argument = Some(Argument::Resolution),
            Command::StatusRequest => {
                let left_middle_right = s.buttons << 2 & 4 | s.buttons >> 1 & 3;
                let status = u8::from(s.remote) << 6 | u8::from(s.enabled) << 5 | u8::from(s.double) << 4;
                s.output.extend([status | left_middle_right, s.resolution, s.rate]);
            }
            Command::SetStreamMode => {
                s.remote = false;
                s.motion = [0; 3];
            }
            Command::SetRemoteMode => {
                s.remote = true;
                s.motion = [0; 3];
            }
            Command::ReadData => self.packet(),
            Command::ResetWrapMode => s.wrap = false,
            Command::SetWrapMode => s.wrap = true,
            Command::ReadId => s.output.push_back(s.protocol.id()),
            Command::SetSampleRate => s.argument = Some(Argument::SampleRate),
            Command::Enable => {
                s.enabled = true;
                s.motion = [0; 3];
            }
            Command::Disable => s.enabled = false,
            Command::SetDefault => {
                let protocol = s.protocol;
                let output = std::mem::take(&mut s.output);
                self.reset();
                self.state.protocol = protocol;
                self.state.output = output;
            }
            Command::Reset => {
                self.reset();
                self.state.output.extend([ACK, SELF_TEST_PASSED, 0]);
            }
            Command::Resend | Command::Invalid => {}
        }
    }

    /// The mouse moves: right and down are positive; so is the wheel towards the user.
    pub fn motion(&mut self, dx: i32, dy: i32, wheel: i32) {
        let s = &mut self.state;
        if s.enabled || s.remote {
            // What the counters cannot hold is lost, as the overflow bits tell on a real one.
            for (sum, n) in s.motion.iter_mut().zip([dx, dy.saturating_neg(), wheel]) {
                *sum = sum.saturating_add(n).clamp(-0xffff, 0xffff);
            }
        }
    }

    /// A button goes down or up. What no packet has told of it yet is told now, so that no click is too short.
    pub fn button(&mut self, button: Button, pressed: bool) {
        let bit = match button {
            Button::Left => 1,
            Button::Right => 2,
            Button::Middle => 4,
            Button::Side => 8,
            Button::Extra => 16,
        };
        let s = &self.state;
        let buttons = if pressed { s.buttons | bit } else { s.buttons & !bit };
        let untold = (s.buttons ^ s.told) & s.protocol.buttons();
        if untold & (buttons ^ s.buttons) != 0 && self.streaming() && self.state.output.len() < MOST_WAITING {
            self.packet();
        }
        self.state.buttons = buttons;
    }

    fn streaming(&self) -> bool {
        let s = &self.state;
        s.enabled && !s.remote && !s.wrap
    }

    /// Whether there is something that no packet has told.
    fn has_news(&self) -> bool {
        let s = &self.state;
        let axes = if s.protocol == Protocol::Standard { 2 } else { 3 };
        (s.buttons ^ s.told) & s.protocol.buttons() != 0 || s.motion[..axes].iter().any(|n| *n != 0)
    }

    /// Puts a packet into the output.
    fn packet(&mut self) {
        let s = &mut self.state;
        let mut take = |axis: usize, low: i32, high: i32| {
            let n = s.motion[axis].clamp(low, high);
            s.motion[axis] -= n;
            n
        };
        let (x, y) = (take(0, -255, 255), take(1, -255, 255));
        let z = match s.protocol {
            Protocol::Standard => 0,
            Protocol::Wheel => take(2, -127, 127),
            Protocol::Explorer => take(2, -7, 7),
        };
        let scale = |n: i32| if s.double && !s.remote { double(n) } else { n };
        let (x, y) = (scale(x), scale(y));
        let signs = u8::from(x < 0) << 4 | u8::from(y < 0) << 5;
        s.output.extend([0x08 | s.buttons & 7 | signs, x as u8, y as u8]);
        match s.protocol {
            Protocol::Standard => {}
            Protocol::Wheel => s.output.push_back(z as u8),
            Protocol::Explorer => s.output.push_back(z as u8 & 0x0f | (s.buttons & 0x18) << 1),
        }
        s.told = s.buttons;
    }

    /// When [`Ps2Mouse::poll`] wants to run.
    pub fn poll_at(&self) -> Option<Instant> {
        (self.streaming() && self.has_news() && !self.has_byte()).then_some(self.state.next_packet)
    }

    /// Sends a packet if there is news and the sampling interval has passed.
    pub fn poll(&mut self, now: Instant) {
        if self.poll_at().is_some_and(|at| at <= now) {
            self.packet();
            self.state.next_packet = now.plus_nanos(1_000_000_000 / u64::from(self.state.rate.max(1)));
        }
    }
}

/// Scaling 2:1 of the Technical Reference's table, kept within nine bits.
fn double(n: i32) -> i32 {
    let scaled = match n.abs() {
        small @ 0..=1 => small,
        2 => 1,
        3 => 3,
        4 => 6,
        5 => 9,
        large => (2 * large).min(255),
    };
    scaled * n.signum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(mouse: &mut Ps2Mouse) -> Vec<u8> {
        std::iter::from_fn(|| mouse.next_byte()).collect()
    }

    fn ask(mouse: &mut Ps2Mouse, bytes: &[u8]) -> Vec<u8> {
        bytes
            .iter()
            .flat_map(|byte| {
                mouse.write(*byte);
                drain(mouse)
            })
            .collect()
    }

    fn knock(mouse: &mut Ps2Mouse, rates: [u8; 3]) -> u8 {
        for rate in rates {
            assert_eq!(ask(mouse, &[0xf3, rate]), [ACK, ACK]);
        }
        ask(mouse, &[0xf2])[1]
    }

    #[test]
    fn mouse_commands_answer_as_documented() {
        let mut m = Ps2Mouse::default();
        assert_eq!(ask(&mut m, &[0xff]), [0xfa, 0xaa, 0x00]);
        assert_eq!(ask(&mut m, &[0xf2]), [0xfa, 0x00]);
        assert_eq!(ask(&mut m, &[0xe9]), [0xfa, 0x00, 0x02, 100]);
        assert_eq!(
            ask(&mut m, &[0xf4, 0xe7, 0xe8, 0x03, 0xf3, 40, 0xe9]),
            [0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0x30, 0x03, 40]
        );
        assert_eq!(ask(&mut m, &[0xe8, 0x04]), [0xfa, 0xfe]);
        assert_eq!(ask(&mut m, &[0xf6, 0xe9]), [0xfa, 0xfa, 0x00, 0x02, 100]);
        assert_eq!(ask(&mut m, &[0xee, 0x55, 0xf4, 0xec]), [0xfa, 0x55, 0xf4, 0xfa]);
        assert_eq!(ask(&mut m, &[0x01]), [0xfe]);
    }

    #[test]
    fn mouse_status_shows_the_three_buttons() {
        let mut m = Ps2Mouse::default();
        for (button, bit) in [(Button::Left, 4), (Button::Middle, 2), (Button::Right, 1)] {
            m.button(button, true);
            assert_eq!(ask(&mut m, &[0xe9])[1], bit);
            m.button(button, false);
        }
    }

    #[test]
    fn mouse_motion_is_told_in_nine_bits_with_y_upwards() {
        let mut m = Ps2Mouse::default();
        ask(&mut m, &[0xf4]);
        m.motion(-3, 300, 0);
        m.button(Button::Right, true);
        m.poll(Instant(20_000_000));
        assert_eq!(drain(&mut m), [0x3a, 0xfd, 0x01]);
        assert_eq!(m.poll_at(), Some(Instant(30_000_000)));
        m.poll(Instant(30_000_000));
        assert_eq!(drain(&mut m), [0x2a, 0x00, 0xd3]);
        assert_eq!(m.poll_at(), None);
    }

    #[test]
    fn mouse_tells_clicks_that_are_shorter_than_its_sampling_interval() {
        let mut m = Ps2Mouse::default();
        ask(&mut m, &[0xf4]);
        for _ in 0..2 {
            m.button(Button::Left, true);
            m.button(Button::Left, false);
        }
        assert_eq!(drain(&mut m), [0x09, 0, 0, 0x08, 0, 0, 0x09, 0, 0]);
        m.poll(Instant(20_000_000));
        assert_eq!(drain(&mut m), [0x08, 0, 0]);
        // A button that this protocol does not tell is no news.
        m.button(Button::Side, true);
        m.button(Button::Side, false);
        m.poll(Instant(40_000_000));
        assert!(drain(&mut m).is_empty());
        for _ in 0..1000 {
            m.button(Button::Left, true);
            m.button(Button::Left, false);
        }
        assert!(drain(&mut m).len() <= MOST_WAITING + 3);
    }

    #[test]
    fn mouse_knocks_switch_protocols() {
        let mut m = Ps2Mouse::default();
        assert_eq!(knock(&mut m, [200, 100, 80]), 3);
        ask(&mut m, &[0xf4]);
        m.motion(0, 0, -1);
        m.button(Button::Side, true);
        m.poll(Instant::ZERO);
        assert_eq!(drain(&mut m), [0x08, 0, 0, 0xff]);
        assert_eq!(knock(&mut m, [200, 200, 80]), 4);
        m.poll(Instant(1_000_000_000));
        m.motion(0, 0, 9);
        m.button(Button::Side, false);
        m.button(Button::Extra, true);
        m.poll(Instant(2_000_000_000));
        assert_eq!(drain(&mut m), [0x08, 0, 0, 0x27]);
        assert_eq!(ask(&mut m, &[0xff, 0xf2])[3..], [0xfa, 0]);
    }

    #[test]
    fn mouse_remote_mode_answers_on_request_only() {
        let mut m = Ps2Mouse::default();
        ask(&mut m, &[0xf0]);
        m.motion(5, 0, 0);
        assert_eq!(m.poll_at(), None);
        assert_eq!(ask(&mut m, &[0xeb]), [0xfa, 0x08, 5, 0]);
    }

    #[test]
    fn mouse_scaling_follows_the_table() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6, -4, -200].map(double), [0, 1, 1, 3, 6, 9, 12, -6, -255]);
    }

    #[test]
    fn mouse_disabled_forgets_motion() {
        let mut m = Ps2Mouse::default();
        m.motion(5, 5, 5);
        ask(&mut m, &[0xf4]);
        assert_eq!(m.poll_at(), None);
    }
}

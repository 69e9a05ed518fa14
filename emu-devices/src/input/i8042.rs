//! The 8042 keyboard controller of a PS/2-type PC, with a keyboard and a mouse plugged in.
//!
//! Follows the IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller", and the AT
//! Technical Reference for the output port.
//!
//! ```text
//!  keyboard --translation--+                    +--> IRQ1
//!                          +--> output buffer --+--> IRQ12
//!  mouse ------------------+    (60h, one byte)
//!  60h, 64h --> commands --> output port: A20 gate, reset
//! ```
//! A device's byte takes 100 microseconds to arrive (a tenth of the cable's time), so that a byte can be read again
//! until the next one comes; the controller's own answers are there at once. The reset state is the one that a BIOS
//! leaves: keyboard on, translated, interrupting; mouse off. Deliberately absent: passwords, input port polling,
//! transmission errors.

use super::ps2_keyboard::{KeyboardState, Ps2Keyboard};
use super::ps2_mouse::{MouseState, Ps2Mouse};
use super::{InputEvent, InputQueue, keys::Translator};
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, Region, Request, ResetKind, ports};
use emu_core::irq::IrqLine;
use serde::{Deserialize, Serialize};

/// Nanoseconds from the host's reading (or command) to a device's next byte.
const BYTE_TIME: u64 = 100_000;

/// Status Register, port 64h.
mod status {
    pub const OUTPUT_FULL: u8 = 1 << 0;
    pub const SYSTEM: u8 = 1 << 2;
    pub const COMMAND: u8 = 1 << 3;
    pub const NOT_INHIBITED: u8 = 1 << 4;
    pub const AUXILIARY_FULL: u8 = 1 << 5;
}

/// Controller Command Byte, RAM location 0.
mod command_byte {
    pub const KEYBOARD_INTERRUPT: u8 = 1 << 0;
    pub const AUXILIARY_INTERRUPT: u8 = 1 << 1;
    pub const SYSTEM: u8 = 1 << 2;
    pub const DISABLE_KEYBOARD: u8 = 1 << 4;
    pub const DISABLE_AUXILIARY: u8 = 1 << 5;
    pub const TRANSLATE: u8 = 1 << 6;
    /// As a BIOS leaves it.
    pub const RESET: u8 = KEYBOARD_INTERRUPT | SYSTEM | DISABLE_AUXILIARY | TRANSLATE;
}

/// The controller's output port.
mod output_port {
    pub const NOT_RESET: u8 = 1 << 0;
    pub const A20: u8 = 1 << 1;
    pub const KEYBOARD_FULL: u8 = 1 << 4;
    pub const AUXILIARY_FULL: u8 = 1 << 5;
    /// Clock and data lines idle.
    pub const RESET: u8 = 0xcf;
}

/// The register that an access reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    /// 60h.
    Data,
    /// 64h.
    CommandStatus,
}

impl Register {
    fn decode(access: Access) -> Register {
        if access.region == 0 { Register::Data } else { Register::CommandStatus }
    }
}

/// A byte written to port 64h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    ReadRam(u8),
    WriteRam(u8),
    PasswordInstalled,
    DisableAuxiliary,
    EnableAuxiliary,
    TestAuxiliary,
    SelfTest,
    TestKeyboard,
    DisableKeyboard,
    EnableKeyboard,
    ReadInputPort,
    ReadOutputPort,
    WriteOutputPort,
    WriteKeyboardBuffer,
    WriteAuxiliaryBuffer,
    WriteAuxiliary,
    A20(bool),
    ReadTestInputs,
    /// The low four bits of the output port that are pulsed low.
    Pulse(u8),
    Unknown,
}

impl Command {
    fn decode(byte: u8) -> Command {
        match byte {
            0x20..=0x3f => Command::ReadRam(byte & 0x1f),
            0x60..=0x7f => Command::WriteRam(byte & 0x1f),
            0xa4 => Command::PasswordInstalled,
            0xa7 => Command::DisableAuxiliary,
            0xa8 => Command::EnableAuxiliary,
            0xa9 => Command::TestAuxiliary,
            0xaa => Command::SelfTest,
            0xab => Command::TestKeyboard,
            0xad => Command::DisableKeyboard,
            0xae => Command::EnableKeyboard,
            0xc0 => Command::ReadInputPort,
            0xd0 => Command::ReadOutputPort,
            0xd1 => Command::WriteOutputPort,
            0xd2 => Command::WriteKeyboardBuffer,
            0xd3 => Command::WriteAuxiliaryBuffer,
            0xd4 => Command::WriteAuxiliary,
            0xdd => Command::A20(false),
            0xdf => Command::A20(true),
            0xe0 => Command::ReadTestInputs,
            0xf0.. => Command::Pulse(!byte & 15),
            _ => Command::Unknown,
        }
    }
}

/// What the next byte at port 60h is for, if not for the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// A RAM location.
    Ram(u8),
    /// The output port.
    OutputPort,
    /// The output buffer, as if from the keyboard.
    KeyboardBuffer,
    /// The output buffer, as if from the mouse.
    AuxiliaryBuffer,
    /// The mouse.
    Auxiliary,
}

/// Where a byte in the output buffer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The keyboard, or the controller itself.
    Keyboard,
    /// The auxiliary device.
    Auxiliary,
}

/// All guest-visible state of the controller and its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct I8042State {
    /// Locations 0 to 31; 0 is the command byte.
    pub ram: [u8; 32],
    /// The output port without its buffer-full bits.
    pub output_port: u8,
    /// The last write went to port 64h.
    pub command: bool,
    /// A command waits for its data.
    pub expect: Option<Expect>,
    /// The byte at port 60h, read or not.
    pub data: u8,
    /// The byte has not been read, and whence it is.
    pub full: Option<Origin>,
    /// The translation of what the keyboard sends.
    pub translator: Translator,
    /// A device's next byte can have arrived.
    pub next_byte: Instant,
    /// The keyboard.
    pub keyboard: KeyboardState,
    /// The mouse.
    pub mouse: MouseState,
}

/// The controller.
pub struct I8042 {
    ram: [u8; 32],
    output_port: u8,
    command: bool,
    expect: Option<Expect>,
    data: u8,
    full: Option<Origin>,
    translator: Translator,
    next_byte: Instant,
    keyboard: Ps2Keyboard,
    mouse: Ps2Mouse,
    irq1: IrqLine,
    irq12: IrqLine,
    input: InputQueue,
    /// What the queue has been told: codes of keys wait for the guest.
    unread: bool,
}

impl I8042 {
    /// A controller with its two interrupt lines, whose user types and points by `input`.
    pub fn new(irq1: IrqLine, irq12: IrqLine, input: InputQueue) -> I8042 {
        I8042 {
            ram: reset_ram(),
            output_port: output_port::RESET,
            command: true,
            expect: None,
            data: 0,
            full: None,
            translator: Translator::default(),
            next_byte: Instant::ZERO,
            keyboard: Ps2Keyboard::default(),
            mouse: Ps2Mouse::default(),
            irq1,
            irq12,
            input,
            unread: false,
        }
    }

    /// Tells those who type whether the guest keeps up.
    fn tell_unread(&mut self) {
        let unread = self.full == Some(Origin::Keyboard) || self.keyboard.has_byte();
        if std::mem::replace(&mut self.unread, unread) != unread {
            self.input.set_unread(unread);
        }
    }

    fn has(&self, bit: u8) -> bool {
        self.ram[0] & bit != 0
    }

    fn status(&self) -> u8 {
        let buffer = match self.full {
            None => 0,
            Some(Origin::Keyboard) => status::OUTPUT_FULL,
            Some(Origin::Auxiliary) => status::OUTPUT_FULL | status::AUXILIARY_FULL,
        };
        let system = if self.has(command_byte::SYSTEM) { status::SYSTEM } else { 0 };
        let command = if self.command { status::COMMAND } else { 0 };
        buffer | system | command | status::NOT_INHIBITED
    }

    fn drive_irqs(&self) {
        let keyboard = self.full == Some(Origin::Keyboard) && self.has(command_byte::KEYBOARD_INTERRUPT);
        let auxiliary = self.full == Some(Origin::Auxiliary) && self.has(command_byte::AUXILIARY_INTERRUPT);
        self.irq1.set(keyboard);
        self.irq12.set(auxiliary);
    }

    /// Puts a byte into the output buffer; a byte that was not read is lost.
    fn put(&mut self, byte: u8, origin: Origin) {
        // The interrupt line falls in between, so that the new byte is a new edge.
        self.full = None;
        self.drive_irqs();
        self.data = byte;
        self.full = Some(origin);
        self.drive_irqs();
    }

    fn keyboard_waits(&self) -> bool {
        self.keyboard.has_byte() && !self.has(command_byte::DISABLE_KEYBOARD)
    }

    fn mouse_waits(&self) -> bool {
        self.mouse.has_byte() && !self.has(command_byte::DISABLE_AUXILIARY)
    }

    /// Takes a device's byte into the empty output buffer, if one has arrived.
    fn fetch(&mut self, now: Instant) {
        if self.full.is_some() || now < self.next_byte {
            return;
        }
        while self.keyboard_waits() {
            let Some(byte) = self.keyboard.next_byte() else { break };
            let byte = if self.has(command_byte::TRANSLATE) { self.translator.translate(byte) } else { Some(byte) };
            if let Some(byte) = byte {
                return self.put(byte, Origin::Keyboard);
            }
        }
        if self.mouse_waits()
            && let Some(byte) = self.mouse.next_byte()
        {
            self.put(byte, Origin::Auxiliary);
        }
    }

    fn read_data(&mut self, now: Instant) -> u8 {
        if self.full.take().is_some() {
            self.next_byte = now.plus_nanos(BYTE_TIME);
            self.drive_irqs();
        }
        self.data
    }

    fn write_data(&mut self, cx: &mut DeviceContext, byte: u8) {
        self.command = false;
        match self.expect.take() {
            None => {
                // "Writing to the keyboard enables its interface."
                self.ram[0] &= !command_byte::DISABLE_KEYBOARD;
                self.keyboard.write(byte);
                self.input.set_leds(self.keyboard.leds());
                self.answer_soon(cx.now);
            }
            Some(Expect::Auxiliary) => {
                self.ram[0] &= !command_byte::DISABLE_AUXILIARY;
                self.mouse.write(byte);
                self.answer_soon(cx.now);
            }
            Some(Expect::Ram(location)) => {
                self.ram[usize::from(location) % 32] = byte;
                self.drive_irqs();
            }
            Some(Expect::OutputPort) => self.write_output_port(cx, byte),
            Some(Expect::KeyboardBuffer) => self.put(byte, Origin::Keyboard),
            Some(Expect::AuxiliaryBuffer) => self.put(byte, Origin::Auxiliary),
        }
    }

    fn answer_soon(&mut self, now: Instant) {
        self.next_byte = self.next_byte.max(now.plus_nanos(BYTE_TIME));
    }

    fn write_output_port(&mut self, cx: &mut DeviceContext, value: u8) {
        self.output_port = value & !(output_port::KEYBOARD_FULL | output_port::AUXILIARY_FULL);
        cx.request(Request::A20(value & output_port::A20 != 0));
        if value & output_port::NOT_RESET == 0 {
            cx.request(Request::Reset);
        }
    }

    fn read_output_port(&self) -> u8 {
        let full = match self.full {
            None => 0,
            Some(Origin::Keyboard) => output_port::KEYBOARD_FULL,
            Some(Origin::Auxiliary) => output_port::AUXILIARY_FULL,
        };
        self.output_port | full
    }

    fn command(&mut self, cx: &mut DeviceContext, command: Command) {
        self.command = true;
        self.expect = None;
        match command {
            Command::ReadRam(location) => self.answer(self.ram[usize::from(location)]),
            Command::WriteRam(location) => self.expect = Some(Expect::Ram(location)),
            Command::PasswordInstalled => self.answer(0xf1),
            Command::DisableAuxiliary => self.ram[0] |= command_byte::DISABLE_AUXILIARY,
            Command::EnableAuxiliary => self.ram[0] &= !command_byte::DISABLE_AUXILIARY,
            Command::TestAuxiliary | Command::TestKeyboard => self.answer(0x00),
            Command::SelfTest => {
                self.ram[0] |= command_byte::SYSTEM;
                self.answer(0x55);
            }
            Command::DisableKeyboard => self.ram[0] |= command_byte::DISABLE_KEYBOARD,
            Command::EnableKeyboard => self.ram[0] &= !command_byte::DISABLE_KEYBOARD,
            Command::ReadInputPort => self.answer(0x80),
            Command::ReadOutputPort => self.answer(self.read_output_port()),
            Command::WriteOutputPort => self.expect = Some(Expect::OutputPort),
            Command::WriteKeyboardBuffer => self.expect = Some(Expect::KeyboardBuffer),
            Command::WriteAuxiliaryBuffer => self.expect = Some(Expect::AuxiliaryBuffer),
            Command::WriteAuxiliary => self.expect = Some(Expect::Auxiliary),
            Command::A20(on) => {
                let bit = if on { output_port::A20 } else { 0 };
                self.output_port = self.output_port & !output_port::A20 | bit;
                cx.request(Request::A20(on));
            }
            Command::ReadTestInputs => self.answer(0x00),
            Command::Pulse(low) => {
                if low & output_port::NOT_RESET != 0 {
                    cx.request(Request::Reset);
                }
            }
            Command::Unknown => {}
        }
    }

    fn answer(&mut self, byte: u8) {
        self.put(byte, Origin::Keyboard);
    }

    fn take_input(&mut self, now: Instant) {
        for event in self.input.take() {
            match event {
                InputEvent::Key { key, pressed } => self.keyboard.key(key, pressed, now),
                InputEvent::Motion { dx, dy } => self.mouse.motion(dx, dy, 0),
                InputEvent::Wheel(notches) => self.mouse.motion(0, 0, notches),
                InputEvent::Button { button, pressed } => {
                    // A click that comes and goes between two packets must not be lost.
                    self.mouse.button(button, pressed);
                    self.mouse.poll(now);
                }
            }
        }
    }
}

fn reset_ram() -> [u8; 32] {
    let mut ram = [0; 32];
    ram[0] = command_byte::RESET;
    ram
}

impl Device for I8042 {
    const ID: &'static str = "i8042";
    type State = I8042State;
    const PORTS: &'static [Region] = &[ports(0x60, 1), ports(0x64, 1)];
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        self.fetch(cx.now);
        let value = match Register::decode(access) {
            Register::Data => self.read_data(cx.now),
            Register::CommandStatus => self.status(),
        };
        self.tell_unread();
        value.into()
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        self.fetch(cx.now);
        match Register::decode(access) {
            Register::Data => self.write_data(cx, value as u8),
            Register::CommandStatus => self.command(cx, Command::decode(value as u8)),
        }
        self.fetch(cx.now);
        self.tell_unread();
    }

    fn poll_at(&self) -> Option<Instant> {
        let waits = self.full.is_none() && (self.keyboard_waits() || self.mouse_waits());
        let byte = waits.then_some(self.next_byte);
        byte.into_iter().chain(self.keyboard.poll_at()).chain(self.mouse.poll_at()).min()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        self.take_input(cx.now);
        self.keyboard.poll(cx.now);
        self.mouse.poll(cx.now);
        self.fetch(cx.now);
        self.tell_unread();
    }

    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        self.ram = reset_ram();
        self.output_port = output_port::RESET;
        self.command = true;
        self.expect = None;
        self.data = 0;
        self.full = None;
        self.translator = Translator::default();
        self.next_byte = cx.now;
        self.keyboard.reset();
        self.mouse.reset();
        self.input.set_leds(self.keyboard.leds());
        self.tell_unread();
        self.drive_irqs();
        cx.request(Request::A20(true));
    }

    fn attached(&mut self, notifier: Notifier) {
        self.input.set_notifier(notifier);
    }

    fn state(&self) -> I8042State {
        I8042State {
            ram: self.ram,
            output_port: self.output_port,
            command: self.command,
            expect: self.expect,
            data: self.data,
            full: self.full,
            translator: self.translator,
            next_byte: self.next_byte,
            keyboard: self.keyboard.state().clone(),
            mouse: self.mouse.state().clone(),
        }
    }

    fn set_state(&mut self, state: I8042State) {
        self.ram = state.ram;
        self.output_port = state.output_port;
        self.command = state.command;
        self.expect = state.expect;
        self.data = state.data;
        self.full = state.full;
        self.translator = state.translator;
        self.next_byte = state.next_byte;
        self.keyboard.set_state(state.keyboard);
        self.mouse.set_state(state.mouse);
    }

    fn restored(&mut self, _cx: &mut DeviceContext) {
        self.input.set_leds(self.keyboard.leds());
        self.tell_unread();
        self.drive_irqs();
    }
}

#[cfg(test)]
mod tests;

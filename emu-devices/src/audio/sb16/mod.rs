//! The Sound Blaster 16: DSP 4.05, CT1745 mixer, MPU-401 in UART mode.
//!
//! Follows the Creative "Sound Blaster Series Hardware Programming Guide", chapters 2 to 6.
//!
//! ```text
//!  2x4h 2x5h  mixer index, data        2xAh  DSP read data         2xEh  data available; 8-bit interrupt acknowledge
//!  2x6h       DSP reset                2xCh  DSP command, status   2xFh  16-bit interrupt acknowledge
//!  330h 331h  MPU-401 data, command and status
//! ```
//! Samples are fetched when they are due in virtual time, at the latest a millisecond after; a block's interrupt comes
//! exactly when its last sample ends. A channel that is masked makes the stream wait.
//!
//! Deliberately absent: the FM synthesiser (OPL3) at 2x0h to 2x3h, 2x8h, 2x9h and 388h to 38Bh: those ports read FFh, so
//! that the detection by the synthesiser's timers fails as on a card without one (ARCHITECTURE.md says why); what is behind the MIDI port:
//! bytes that go there, through the DSP or the MPU-401, are played by nobody, and none ever come; the sound that is recorded, which is
//! silence; the tone controls, which are only stored; and the CSP, whose socket is empty, as on most cards: its registers read FFh
//! whatever is written. Speaker on and off (D1h, D3h) only change what D8h tells, as in DSP 4.xx; high-speed commands (90h to 99h) are
//! ordinary ones there too. Commands that the guide does not list, 03h to 0Fh, E2h to E8h, F2h to F9h, follow what drivers expect.

mod mixer;
mod stream;

pub use mixer::Ct1745;
pub use stream::{Format, Stream};

use super::{Frame, Voice};
use crate::dma::i8237::DmaChannel;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, ResetKind};
use emu_core::irq::IrqLine;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Ports from the base address.
pub const PORTS: u16 = 16;
/// Where the MPU-401 is, with 2 ports.
pub const MPU_BASE: u16 = 0x330;
/// The tag under which the board maps the MPU-401; the DSP's ports have 0.
pub const MPU_TAG: u32 = 1;
/// The interrupts that the mixer can choose, by bit.
pub const IRQS: [u8; 4] = [2, 5, 7, 10];

/// Nanoseconds between two looks at a stream.
const LOOK: u64 = 1_000_000;
/// Frames that are made up at most for a machine that was not run in time.
const BACKLOG: u64 = 24_000;
/// E3h: what drivers look for.
const COPYRIGHT: &[u8] = b"COPYRIGHT (C) CREATIVE TECHNOLOGY LTD, 1992.\0";
/// The answer to a reset.
const READY: u8 = 0xaa;
/// MPU-401: acknowledge.
const ACKNOWLEDGE: u8 = 0xfe;

/// Interrupt Status Register of the mixer.
mod status {
    pub const DMA_8: u8 = 0x01;
    pub const DMA_16: u8 = 0x02;
    pub const MPU_401: u8 = 0x04;
}

/// The register that an access reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    MixerIndex,
    MixerData,
    Reset,
    ReadData,
    /// Command and data on writes, write-buffer status on reads.
    Command,
    ReadStatus,
    Acknowledge16,
    MpuData,
    /// Command on writes, status on reads.
    MpuStatus,
    Undecoded,
}

impl Register {
    fn decode(access: Access) -> Register {
        match (access.region, access.offset) {
            (MPU_TAG, 0) => Register::MpuData,
            (MPU_TAG, _) => Register::MpuStatus,
            (_, 0x4) => Register::MixerIndex,
            (_, 0x5) => Register::MixerData,
            (_, 0x6) => Register::Reset,
            (_, 0xa) => Register::ReadData,
            (_, 0xc) => Register::Command,
            (_, 0xe) => Register::ReadStatus,
            (_, 0xf) => Register::Acknowledge16,
            _ => Register::Undecoded,
        }
    }
}

/// How a sample rate was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rate {
    /// Command 40h: 1,000,000 / (256 - constant) samples a second, channels counted apart.
    TimeConstant(u8),
    /// Commands 41h and 42h: frames a second.
    Hertz(u16),
}

impl Rate {
    fn frames(self, stereo: bool) -> u32 {
        let rate = match self {
            Rate::TimeConstant(constant) => 1_000_000 / (256 - u32::from(constant)) / if stereo { 2 } else { 1 },
            Rate::Hertz(hertz) => hertz.into(),
        };
        rate.clamp(4_000, 48_000)
    }
}

/// DMA identification, command E2h: each answer is the last one plus the parameter XOR a key, which rotates. The data sheet of a
/// compatible chip, ALS300 (Avance Logic), gives formulae for the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmaIdentification {
    /// The last answer.
    pub answer: u8,
    /// The key for the next parameter.
    pub key: u8,
    /// When DMA is tried again to take the answer, if it has not taken it.
    pub waiting: Option<Instant>,
}

impl Default for DmaIdentification {
    fn default() -> DmaIdentification {
        DmaIdentification { answer: 0xaa, key: 0x96, waiting: None }
    }
}

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sb16State {
    /// The mixer.
    pub mixer: Ct1745,
    /// A reset is held.
    pub reset: bool,
    /// The command and its parameters so far.
    pub command: Vec<u8>,
    /// What the DSP has to say.
    pub output: VecDeque<u8>,
    /// What a read gives when there is nothing.
    pub last_output: u8,
    /// Sample rate.
    pub rate: Rate,
    /// Command 48h: bytes in a block.
    pub block: u32,
    /// Command D1h.
    pub speaker: bool,
    /// Command E4h.
    pub test: u8,
    /// Command E2h.
    pub dma_identification: DmaIdentification,
    /// Pending interrupts, as the mixer shows them.
    pub pending: u8,
    /// 8-bit and 16-bit stream.
    pub streams: [Stream; 2],
    /// Command 34h: bytes to the DSP are MIDI.
    pub dsp_midi: bool,
    /// The MPU-401 is in UART mode.
    pub mpu_uart: bool,
    /// What the MPU-401 has to say.
    pub mpu_output: VecDeque<u8>,
}

/// How the card's jumpers are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sb16Config {
    /// First port: 220h, 240h, 260h or 280h.
    pub base: u16,
    /// One of [`IRQS`].
    pub irq: u8,
    /// 8-bit DMA channel: 0, 1 or 3.
    pub dma: u8,
    /// 16-bit DMA channel: 5, 6 or 7.
    pub dma16: u8,
}

impl Default for Sb16Config {
    fn default() -> Sb16Config {
        Sb16Config { base: 0x220, irq: 5, dma: 1, dma16: 5 }
    }
}

/// The card.
pub struct Sb16 {
    config: Sb16Config,
    state: Sb16State,
    irqs: [IrqLine; 4],
    dma: [DmaChannel; 8],
    voice: Voice,
}

impl Sb16 {
    /// A card that can reach the lines of [`IRQS`] and all DMA channels, heard as `voice`.
    pub fn new(config: Sb16Config, irqs: [IrqLine; 4], dma: [DmaChannel; 8], voice: Voice) -> Sb16 {
        Sb16 { config, state: Sb16::power_on(config), irqs, dma, voice }
    }

    fn power_on(config: Sb16Config) -> Sb16State {
        let irq = IRQS.iter().position(|irq| *irq == config.irq).map_or(0, |bit| 1 << bit);
        Sb16State {
            mixer: Ct1745::new(irq, 1 << (config.dma & 7) | 1 << (config.dma16 & 7)),
            reset: false,
            command: Vec::new(),
            output: VecDeque::new(),
            last_output: 0xff,
            rate: Rate::Hertz(11_025),
            block: 0x800,
            speaker: false,
            test: 0,
            dma_identification: DmaIdentification::default(),
            pending: 0,
            streams: Default::default(),
            dsp_midi: false,
            mpu_uart: false,
            mpu_output: VecDeque::new(),
        }
    }

    fn drive_irq(&self) {
        for (bit, line) in self.irqs.iter().enumerate() {
            line.set(self.state.pending != 0 && self.state.mixer.irq & 1 << bit != 0);
        }
    }

    /// The DMA channel of stream `index`. A 16-bit stream without a channel of its own uses the 8-bit one.
    fn channel(&self, index: usize) -> Option<&DmaChannel> {
        let among = |mask: u8| {
            let chosen = self.state.mixer.dma & mask;
            (chosen != 0).then(|| &self.dma[chosen.trailing_zeros() as usize])
        };
        let own = if index == 1 { among(0xe0) } else { None };
        own.or_else(|| among(0x0b))
    }

    /// Brings the streams up to `cx.now`.
    fn advance(&mut self, cx: &mut DeviceContext) {
        let now = cx.now.nanos();
        for index in 0..2 {
            // A late machine may have several blocks to go through.
            while self.state.streams[index].active && !self.state.streams[index].paused {
                let stream = &mut self.state.streams[index];
                let due = stream.due(now);
                if due > BACKLOG {
                    let late = stream.time(due - BACKLOG, 0).saturating_sub(stream.time(0, 0));
                    stream.started = stream.started.saturating_add(late);
                }
                let due = stream.due(now).min(BACKLOG);
                let frames = due.min(u64::from(stream.left.div_ceil(stream.units_of_frame())));
                if frames == 0 || !self.pass(cx, index, frames) {
                    break;
                }
            }
        }
        self.identify(cx);
        self.drive_irq();
    }

    /// Moves `frames` frames of stream `index`; `false` if DMA is not ready.
    fn pass(&mut self, cx: &mut DeviceContext, index: usize, frames: u64) -> bool {
        let stream = &self.state.streams[index];
        let units = (frames * u64::from(stream.units_of_frame())).min(u64::from(stream.left)) as usize;
        let width = if matches!(stream.format, Format::Pcm16 { .. }) { 2 } else { 1 };
        let mut bytes = vec![0; units * width];
        let moved = match (stream.format, stream.input, self.channel(index)) {
            (Format::Silence, ..) => bytes.len(),
            (_, _, None) => 0,
            (format, true, Some(channel)) => {
                let unsigned = matches!(format, Format::Pcm8 { signed: false });
                bytes.fill(if unsigned { 0x80 } else { 0 });
                if format == (Format::Pcm16 { signed: false }) {
                    bytes.iter_mut().skip(1).step_by(2).for_each(|high| *high = 0x80);
                }
                fill(bytes.len(), |range| channel.write_memory(cx.memory, &bytes[range]).bytes)
            }
            (_, false, Some(channel)) => {
                fill(bytes.len(), |range| channel.read_memory(cx.memory, &mut bytes[range]).bytes)
            }
        };
        let units = moved / width;
        if units == 0 {
            self.state.streams[index].restart(cx.now.nanos());
            return false;
        }
        if !self.state.streams[index].input {
            self.play(index, &bytes[..units * width]);
        }
        let stream = &mut self.state.streams[index];
        stream.frames += (units as u64).div_ceil(u64::from(stream.units_of_frame()));
        stream.left = stream.left.saturating_sub(units as u32);
        if stream.left == 0 {
            stream.left = stream.block;
            stream.active = stream.auto_init;
            self.state.pending |= if index == 1 { status::DMA_16 } else { status::DMA_8 };
        }
        true
    }

    /// Announces the samples in `bytes` at their times.
    fn play(&mut self, index: usize, bytes: &[u8]) {
        let gain = self.state.mixer.voice_gain();
        let level = |samples: [i32; 2]| -> Frame {
            // Conversion saturates: what is too loud is clipped.
            [0, 1].map(|side| (samples[side] as f32 * gain[side]) as i16)
        };
        let stream = &mut self.state.streams[index];
        let width = if matches!(stream.format, Format::Pcm16 { .. }) { 2 } else { 1 };
        let frame = width * stream.units_of_frame() as usize;
        for (n, chunk) in bytes.chunks(frame).enumerate() {
            let sample = |at: usize| -> i32 {
                let byte = |i: usize| chunk.get(at * width + i).copied().unwrap_or(0);
                match stream.format {
                    Format::Pcm8 { signed: true } => i32::from(byte(0) as i8) << 8,
                    Format::Pcm8 { signed: false } => (i32::from(byte(0)) - 0x80) << 8,
                    Format::Pcm16 { signed: true } => i16::from_le_bytes([byte(0), byte(1)]).into(),
                    Format::Pcm16 { signed: false } => i32::from(u16::from_le_bytes([byte(0), byte(1)])) - 0x8000,
                    _ => 0,
                }
            };
            match stream.format {
                Format::Silence => {}
                Format::Pcm8 { .. } | Format::Pcm16 { .. } => {
                    let left = sample(0);
                    let right = if stream.stereo { sample(1) } else { left };
                    self.voice.set(Instant(stream.time(n as u64, 0)), level([left, right]));
                }
                Format::Adpcm4 | Format::Adpcm26 | Format::Adpcm2 => {
                    let samples = stream.expand(chunk[0]);
                    for (i, sample) in samples.into_iter().enumerate() {
                        let value = (i32::from(sample) - 0x80) << 8;
                        self.voice.set(Instant(stream.time(n as u64, i as u64)), level([value; 2]));
                    }
                }
            }
        }
    }

    /// Hands the answer of DMA identification to memory as soon as the channel takes it.
    fn identify(&mut self, cx: &DeviceContext) {
        if self.state.dma_identification.waiting.is_none_or(|at| at > cx.now) {
            return;
        }
        let answer = [self.state.dma_identification.answer];
        let moved = self.channel(0).map_or(0, |channel| channel.write_memory(cx.memory, &answer).bytes);
        self.state.dma_identification.waiting = (moved == 0).then(|| cx.now.plus_nanos(LOOK));
    }

    /// DSP reset, after which it answers AAh. In MIDI UART mode it ends that mode, and the DSP goes on as before it: guide 5-3.
    fn reset_dsp(&mut self) {
        let s = &mut self.state;
        s.command.clear();
        s.output = VecDeque::from([READY]);
        if std::mem::take(&mut s.dsp_midi) {
            return;
        }
        s.streams = Default::default();
        s.dma_identification = DmaIdentification::default();
        s.pending &= !(status::DMA_8 | status::DMA_16);
        s.speaker = false;
    }

    fn say(&mut self, byte: u8) {
        if self.state.output.len() < 64 {
            self.state.output.push_back(byte);
        }
    }

    fn write_command(&mut self, cx: &DeviceContext, value: u8) {
        if self.state.dsp_midi {
            return;
        }
        self.state.command.push(value);
        let code = self.state.command.first().copied().unwrap_or(value);
        if self.state.command.len() > parameters(code) {
            let command = std::mem::take(&mut self.state.command);
            self.execute(cx, code, &command[1..]);
        }
    }

    /// Carries out DSP command `code`.
    fn execute(&mut self, cx: &DeviceContext, code: u8, parameters: &[u8]) {
        let byte = |i: usize| parameters.get(i).copied().unwrap_or(0);
        let length = u32::from(u16::from_le_bytes([byte(0), byte(1)])) + 1;
        let block = self.state.block;
        const U8: Format = Format::Pcm8 { signed: false };
        match code {
            // CSP status, version and registers.
            0x03 | 0x08 | 0x0f => self.say(0xff),
            // CSP mode, parameters and registers.
            0x04 | 0x05 | 0x0e => {}
            0x10 => {
                let gain = self.state.mixer.voice_gain();
                let sample = f32::from((i16::from(byte(0)) - 0x80) << 8);
                self.voice.set(cx.now, [0, 1].map(|side| (sample * gain[side]) as i16));
            }
            0x14 | 0x15 => self.start_8(cx, U8, length, false, false),
            0x16 | 0x17 => self.start_adpcm(cx, Format::Adpcm2, length, code & 1 != 0, false),
            0x1c | 0x90 => self.start_8(cx, U8, block, true, false),
            0x1f => self.start_adpcm(cx, Format::Adpcm2, block, true, true),
            0x20 => self.say(0x80),
            0x24 => self.start_8(cx, U8, length, false, true),
            0x2c | 0x98 => self.start_8(cx, U8, block, true, true),
            // MIDI input, for which a program waits, and by interrupt, for which it is called; output.
            0x30..=0x33 | 0x38 => {}
            0x34..=0x37 => self.state.dsp_midi = true,
            0x40 => self.state.rate = Rate::TimeConstant(byte(0)),
            0x41 | 0x42 => self.state.rate = Rate::Hertz(u16::from_be_bytes([byte(0), byte(1)])),
            0x45 => self.state.streams[0].auto_init = true,
            0x47 => self.state.streams[1].auto_init = true,
            0x48 => self.state.block = length,
            0x74 | 0x75 => self.start_adpcm(cx, Format::Adpcm4, length, code & 1 != 0, false),
            0x76 | 0x77 => self.start_adpcm(cx, Format::Adpcm26, length, code & 1 != 0, false),
            0x7d => self.start_adpcm(cx, Format::Adpcm4, block, true, true),
            0x7f => self.start_adpcm(cx, Format::Adpcm26, block, true, true),
            0x80 => self.start_8(cx, Format::Silence, length, false, false),
            0x91 => self.start_8(cx, U8, block, false, false),
            0x99 => self.start_8(cx, U8, block, false, true),
            0xb0..=0xcf => {
                let length = u32::from(u16::from_le_bytes([byte(1), byte(2)])) + 1;
                let signed = byte(0) & 0x10 != 0;
                let wide = code < 0xc0;
                let format = if wide { Format::Pcm16 { signed } } else { Format::Pcm8 { signed } };
                let index = usize::from(wide);
                let (input, auto_init) = (code & 0x08 != 0, code & 0x04 != 0);
                self.start(cx, index, format, length, byte(0) & 0x20 != 0, auto_init, input);
            }
            0xd0 => self.state.streams[0].paused = true,
            0xd5 => self.state.streams[1].paused = true,
            0xd4 => self.go_on(cx, 0),
            0xd6 => self.go_on(cx, 1),
            0xd1 => self.state.speaker = true,
            0xd3 => self.state.speaker = false,
            0xd8 => self.say(if self.state.speaker { 0xff } else { 0x00 }),
            0xd9 => self.state.streams[1].auto_init = false,
            0xda => self.state.streams[0].auto_init = false,
            0xe0 => self.say(!byte(0)),
            0xe1 => [4, 5].into_iter().for_each(|byte| self.say(byte)),
            0xe2 => {
                let id = &mut self.state.dma_identification;
                id.answer = id.answer.wrapping_add(byte(0) ^ id.key);
                id.key = id.key.rotate_right(2);
                id.waiting = Some(cx.now);
                self.identify(cx);
            }
            0xe3 => COPYRIGHT.iter().for_each(|byte| self.say(*byte)),
            0xe4 => self.state.test = byte(0),
            0xe8 => self.say(self.state.test),
            0xf2 => self.state.pending |= status::DMA_8,
            0xf3 => self.state.pending |= status::DMA_16,
            0xf8 => self.say(0),
            // The DSP's own memory, of which Creative's programs look at these bytes.
            0xf9 => self.say(match byte(0) {
                0x0e => 0xff,
                0x0f => 0x07,
                0x37 => 0x38,
                _ => 0x00,
            }),
            _ => tracing::debug!(target: "guest_errors", "sb16: command {code:#04x} does nothing"),
        }
    }

    fn start_8(&mut self, cx: &DeviceContext, format: Format, length: u32, auto_init: bool, input: bool) {
        self.start(cx, 0, format, length, false, auto_init, input);
    }

    fn start_adpcm(&mut self, cx: &DeviceContext, format: Format, length: u32, reference: bool, auto_init: bool) {
        let predictor = self.state.streams[0].predictor;
        self.start_8(cx, format, length, auto_init, false);
        let stream = &mut self.state.streams[0];
        stream.reference = reference;
        stream.predictor = predictor;
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one DSP command")]
    fn start(
        &mut self,
        cx: &DeviceContext,
        index: usize,
        format: Format,
        length: u32,
        stereo: bool,
        auto_init: bool,
        input: bool,
    ) {
        let rate = self.state.rate.frames(stereo);
        let started = cx.now.nanos();
        self.state.streams[index] = Stream {
            active: true,
            input,
            format,
            stereo,
            auto_init,
            block: length,
            left: length,
            rate,
            started,
            ..Stream::default()
        };
    }

    fn go_on(&mut self, cx: &DeviceContext, index: usize) {
        let stream = &mut self.state.streams[index];
        if std::mem::take(&mut stream.paused) {
            stream.restart(cx.now.nanos());
        }
    }

    fn write_mpu(&mut self, register: Register, value: u8) {
        let s = &mut self.state;
        match (register, value) {
            (Register::MpuStatus, 0xff) => {
                s.mpu_uart = false;
                s.mpu_output = VecDeque::from([ACKNOWLEDGE]);
                s.pending &= !status::MPU_401;
            }
            (Register::MpuStatus, 0x3f) if !s.mpu_uart => {
                s.mpu_uart = true;
                s.mpu_output.clear();
                s.mpu_output.push_back(ACKNOWLEDGE);
                // Guide 5-9: an interrupt, which a read of the data port ends.
                s.pending |= status::MPU_401;
            }
            // MIDI that nobody plays.
            _ => {}
        }
    }
}

/// Parameter bytes of a DSP command.
fn parameters(code: u8) -> usize {
    match code {
        0x04 | 0x08 | 0x0f | 0x10 | 0x38 | 0x40 | 0xe0 | 0xe2 | 0xe4 | 0xf9 => 1,
        0x05 | 0x0e | 0x14..=0x17 | 0x24 | 0x41 | 0x42 | 0x48 | 0x74..=0x77 | 0x80 => 2,
        0xb0..=0xcf => 3,
        _ => 0,
    }
}

/// Calls `transfer` for what is left of `len` bytes as long as it moves any; what it has moved. A channel stops at its
/// terminal count and, if it reinitialises itself, goes on.
fn fill(len: usize, mut transfer: impl FnMut(std::ops::Range<usize>) -> usize) -> usize {
    let mut done = 0;
    while done < len {
        match transfer(done..len) {
            0 => break,
            moved => done += moved,
        }
    }
    done
}

impl Device for Sb16 {
    const ID: &'static str = "sb16";
    type State = Sb16State;
    const WIDEST_ACCESS: u8 = 1;

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        self.advance(cx);
        let value = match Register::decode(access) {
            Register::MixerIndex => self.state.mixer.index,
            Register::MixerData => self.state.mixer.read(self.state.pending),
            Register::ReadData => {
                let s = &mut self.state;
                s.last_output = s.output.pop_front().unwrap_or(s.last_output);
                s.last_output
            }
            // Bit 7 clear: ready for a command.
            Register::Command => 0x7f,
            Register::ReadStatus => {
                self.state.pending &= !status::DMA_8;
                if self.state.output.is_empty() { 0x7f } else { 0xff }
            }
            Register::Acknowledge16 => {
                self.state.pending &= !status::DMA_16;
                0xff
            }
            Register::MpuData => {
                self.state.pending &= !status::MPU_401;
                self.state.mpu_output.pop_front().unwrap_or(0xff)
            }
            // Bit 7 set: nothing to read; bit 6 clear: ready for data.
            Register::MpuStatus => {
                if self.state.mpu_output.is_empty() {
                    0xbf
                } else {
                    0x3f
                }
            }
            Register::Reset | Register::Undecoded => 0xff,
        };
        self.drive_irq();
        value.into()
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        self.advance(cx);
        let value = value as u8;
        match Register::decode(access) {
            Register::MixerIndex => self.state.mixer.index = value,
            Register::MixerData => self.state.mixer.write(value),
            Register::Reset => {
                let held = std::mem::replace(&mut self.state.reset, value & 1 != 0);
                if held && !self.state.reset {
                    self.reset_dsp();
                }
            }
            Register::Command => self.write_command(cx, value),
            register @ (Register::MpuData | Register::MpuStatus) => self.write_mpu(register, value),
            Register::ReadData | Register::ReadStatus | Register::Acknowledge16 | Register::Undecoded => {}
        }
        self.drive_irq();
    }

    fn poll_at(&self) -> Option<Instant> {
        let running = self.state.streams.iter().filter(|s| s.active && !s.paused);
        let next = running.map(|s| Instant(s.block_end().min(s.time(1, 0).saturating_add(LOOK)))).min();
        next.into_iter().chain(self.state.dma_identification.waiting).min()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        self.advance(cx);
    }

    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        self.state = Sb16::power_on(self.config);
        self.voice.set(cx.now, [0; 2]);
        self.drive_irq();
    }

    fn state(&self) -> Sb16State {
        self.state.clone()
    }

    fn set_state(&mut self, mut state: Sb16State) {
        state.mixer.sanitise();
        state.command.truncate(3);
        state.output.truncate(64);
        state.mpu_output.truncate(1);
        state.block = state.block.clamp(1, 0x1_0000);
        state.pending &= status::DMA_8 | status::DMA_16 | status::MPU_401;
        state.streams.iter_mut().for_each(Stream::sanitise);
        self.state = state;
    }

    fn restored(&mut self, cx: &mut DeviceContext) {
        for stream in &mut self.state.streams {
            if stream.started > cx.now.nanos() {
                stream.restart(cx.now.nanos());
            }
        }
        let waiting = &mut self.state.dma_identification.waiting;
        *waiting = waiting.map(|at| at.min(cx.now.plus_nanos(LOOK)));
        self.drive_irq();
    }
}

#[cfg(test)]
mod tests;

//! Conversations with the card, as drivers hold them.

use super::*;
use crate::audio::{MemoryBackend, Mixer};
use crate::dma::i8237::Dma;
use crate::testbench::{Bench, IrqRecorder, World};
use emu_core::device::{Space, ports};
use std::sync::Arc;

struct Rig {
    card: Bench<Sb16>,
    dma: Bench<Dma>,
    mixer: Bench<Mixer>,
    irq: Arc<IrqRecorder>,
    heard: MemoryBackend,
}

impl Rig {
    fn new() -> Rig {
        let world = World::new(2 << 20);
        let irq = world.irq_recorder();
        let heard = MemoryBackend::default();
        let dma = Bench::in_world(Dma::default(), &world);
        let mixer = Bench::in_world(Mixer::new(Box::new(heard.clone())), &world);
        let channels = std::array::from_fn(|channel| dma.device.channel(channel as u8));
        let lines = IRQS.map(|pin| irq.line(pin.into()));
        let card = Sb16::new(Sb16Config::default(), lines, channels, mixer.device.voice());
        let mut card = Bench::in_world(card, &world);
        card.map(Space::Port, ports(0x220, PORTS), 0);
        card.map(Space::Port, ports(MPU_BASE, 2), MPU_TAG);
        let mut rig = Rig { card, dma, mixer, irq, heard };
        rig.card.out8(0x226, 1);
        rig.card.out8(0x226, 0);
        assert_eq!(rig.say(), Some(0xaa));
        // Full volume.
        for register in 0x30..0x34 {
            rig.card.out8(0x224, register);
            rig.card.out8(0x225, 0xf8);
        }
        rig
    }

    fn say(&mut self) -> Option<u8> {
        (self.card.in8(0x22e) & 0x80 != 0).then(|| self.card.in8(0x22a))
    }

    fn command(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.card.out8(0x22c, *byte));
    }

    /// Channel 1 or 5 repeats `len` transfers from 10000h: page 1, or, as bit 0 of pages is not used for words, word 8000h
    /// of page 0.
    fn program_dma(&mut self, channel: u8, len: usize) {
        let count = (len - 1) as u16;
        let (base, shift, page) = if channel < 4 { (0x00, 0, 0x83) } else { (0xc0, 1, 0x8b) };
        let (start, page_value) = if channel < 4 { (0, 1) } else { (0x8000, 0) };
        let address = base + (u16::from(channel & 3) << (1 + shift));
        self.dma.out8(base + (0x0c << shift), 0);
        self.dma.out8(base + (0x0b << shift), 0x58 | channel & 3);
        for (port, value) in [(address, start), (address + (1 << shift), count)] {
            self.dma.out8(port, value as u8);
            self.dma.out8(port, (value >> 8) as u8);
        }
        self.dma.out8(page, page_value);
        self.dma.out8(base + (0x0a << shift), channel & 3);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.card.world.memory().write(0x1_0000, bytes);
    }

    /// Lets `millis` pass for card and mixer.
    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.card.advance(1_000_000);
            self.mixer.poll();
        }
    }

    /// Rises through zero of one side in what has been heard.
    fn crossings(&self, side: usize) -> usize {
        self.heard.take().windows(2).filter(|w| w[0][side] < 0 && w[1][side] >= 0).count()
    }
}

#[test]
fn dsp_identifies_itself() {
    let mut rig = Rig::new();
    rig.command(&[0xe1]);
    assert_eq!((rig.say(), rig.say(), rig.say()), (Some(4), Some(5), None));
    rig.command(&[0xe0, 0x5a, 0xe4, 0x12, 0xe8, 0xd1, 0xd8]);
    assert_eq!((rig.say(), rig.say(), rig.say()), (Some(0xa5), Some(0x12), Some(0xff)));
    rig.command(&[0xe3]);
    let text: Vec<u8> = std::iter::from_fn(|| rig.say()).collect();
    assert!(text.starts_with(b"COPYRIGHT (C) CREATIVE") && text.ends_with(b"\0"));
}

/// What DMA identification makes of parameters after a reset.
fn identification(rig: &mut Rig, parameters: &[u8]) -> Vec<u8> {
    rig.card.out8(0x226, 1);
    rig.card.out8(0x226, 0);
    assert_eq!(rig.say(), Some(0xaa));
    rig.program_dma(1, parameters.len());
    // From the device to memory, once.
    rig.dma.out8(0x0b, 0x45);
    parameters.iter().for_each(|byte| rig.command(&[0xe2, *byte]));
    let mut answers = vec![0; parameters.len()];
    rig.card.world.memory().read(0x1_0000, &mut answers);
    answers
}

#[test]
fn dma_identification_answers_as_the_chips_data_sheets_say() {
    let mut rig = Rig::new();
    for b in 0..=255u8 {
        // ALS300 data sheet, E2h: the formula for the first answer.
        let bit = |n: u8| b >> n & 1;
        let first = ((b >> 5) + 1).wrapping_mul(0x40).wrapping_add(bit(3) * 0x10 + bit(0) * 2).wrapping_sub(b);
        assert_eq!(identification(&mut rig, &[b]), [first], "{b:#x}");
    }
    assert_eq!(identification(&mut rig, &[0, 0, 0, 0, 0]), [0x40, 0xe5, 0x4e, 0xa8, 0x3e]);
}

#[test]
fn dma_identification_waits_for_its_channel() {
    let mut rig = Rig::new();
    rig.put(&[0x77]);
    rig.command(&[0xe2, 0]);
    rig.run(50);
    rig.program_dma(1, 1);
    rig.dma.out8(0x0b, 0x45);
    rig.run(3);
    let mut byte = [0];
    rig.card.world.memory().read(0x1_0000, &mut byte);
    assert_eq!((byte, rig.card.device.poll_at()), ([0x40], None));
}

#[test]
fn csp_is_not_found_on_an_empty_socket() {
    let mut rig = Rig::new();
    // As drivers look for it: parameter, register 83h as it is, inverted, and as it was; version.
    rig.command(&[0x05, 0x00, 0x00, 0x0f, 0x83, 0x0e, 0x83, 0x00, 0x0f, 0x83]);
    assert_eq!((rig.say(), rig.say(), rig.say()), (Some(0xff), Some(0xff), None));
    rig.command(&[0x04, 0xfc, 0x08, 0x03, 0x03]);
    assert_eq!((rig.say(), rig.say(), rig.say()), (Some(0xff), Some(0xff), None));
    // The bytes after them are commands again.
    rig.command(&[0xf9, 0x0f, 0xe0, 0x0f]);
    assert_eq!((rig.say(), rig.say()), (Some(0x07), Some(0xf0)));
}

#[test]
fn midi_through_the_dsp_goes_nowhere_and_reset_ends_uart_mode_only() {
    let mut rig = Rig::new();
    rig.command(&[0xd1, 0x38, 0xd3, 0x30, 0x31, 0x31, 0xd8]);
    assert_eq!((rig.say(), rig.say()), (Some(0xff), None));
    rig.command(&[0x34, 0xd3, 0xe1, 0x90, 0x40]);
    assert_eq!(rig.say(), None);
    rig.card.out8(0x226, 1);
    rig.card.out8(0x226, 0);
    rig.command(&[0xd8]);
    assert_eq!((rig.say(), rig.say(), rig.say()), (Some(0xaa), Some(0xff), None));
    rig.card.out8(0x226, 1);
    rig.card.out8(0x226, 0);
    rig.command(&[0xd8]);
    assert_eq!((rig.say(), rig.say()), (Some(0xaa), Some(0x00)));
}

#[test]
fn interrupts_are_triggered_shown_and_acknowledged_apart() {
    let mut rig = Rig::new();
    rig.card.out8(0x224, 0x82);
    rig.command(&[0xf2, 0xf3]);
    assert_eq!((rig.card.in8(0x225), rig.irq.take_rises(5)), (3, 1));
    rig.card.in8(0x22e);
    assert_eq!(rig.card.in8(0x225), 2);
    rig.card.in8(0x22f);
    assert_eq!((rig.card.in8(0x225), rig.irq.take_rises(5)), (0, 0));
    rig.card.out8(0x224, 0x80);
    assert_eq!(rig.card.in8(0x225), 0xf2);
    rig.card.out8(0x225, 0x04);
    rig.command(&[0xf2]);
    assert_eq!(rig.irq.take_rises(7), 1);
}

#[test]
fn single_cycle_plays_a_block_at_its_rate_and_interrupts_at_its_end() {
    let mut rig = Rig::new();
    rig.put(&[[0xc0; 5], [0x40; 5]].concat().repeat(200));
    rig.program_dma(1, 2000);
    // 10 kHz: 256 - 100.
    rig.command(&[0xd1, 0x40, 156, 0x14, 0xcf, 0x07]);
    rig.run(199);
    assert_eq!(rig.irq.take_rises(5), 0);
    rig.run(2);
    assert_eq!(rig.irq.take_rises(5), 1);
    rig.run(100);
    assert_eq!(rig.irq.take_rises(5), 0, "one block only");
    let crossings = rig.crossings(0);
    assert!((198..=202).contains(&crossings), "{crossings} periods of a millisecond");
}

#[test]
fn auto_initialised_16_bit_stereo_interrupts_after_each_block() {
    let mut rig = Rig::new();
    // Left: period of 44 frames (about 1 kHz at 44.1 kHz); right: of 22.
    let frames = (0..44u16).flat_map(|n| {
        let left: i16 = if n < 22 { 8000 } else { -8000 };
        let right: i16 = if n % 22 < 11 { 4000 } else { -4000 };
        [left.to_le_bytes(), right.to_le_bytes()].concat()
    });
    let sound: Vec<u8> = frames.collect();
    rig.put(&sound.repeat(20));
    rig.program_dma(5, 20 * 88);
    rig.command(&[0x41, 0xac, 0x44, 0xb6, 0x30, 0x6f, 0x03]);
    rig.run(1000);
    // A block is 440 frames: 100 of them in a second, but nobody has acknowledged.
    assert_eq!(rig.irq.take_rises(5), 1);
    let heard = rig.heard.take();
    let count = |side: usize| heard.windows(2).filter(|w| w[0][side] < 0 && w[1][side] >= 0).count();
    assert!((990..=1005).contains(&count(0)) && (1985..=2008).contains(&count(1)), "{} {}", count(0), count(1));
    assert!(heard[10_000..].iter().any(|f| f[0] > 7500) && heard.iter().all(|f| f[1] < 5000));
    rig.card.in8(0x22f);
    for _ in 0..10 {
        rig.run(10);
        assert_eq!(rig.irq.take_rises(5), 1);
        rig.card.in8(0x22f);
    }
    // D9h ends it with the block.
    rig.command(&[0xd9]);
    rig.run(20);
    assert_eq!((rig.irq.take_rises(5), rig.card.device.poll_at()), (1, None));
}

#[test]
fn pause_stops_and_continue_goes_on() {
    let mut rig = Rig::new();
    rig.put(&[0x80; 2000]);
    rig.program_dma(1, 1000);
    rig.command(&[0x40, 156, 0x48, 0xe7, 0x03, 0x1c]);
    rig.run(50);
    rig.command(&[0xd0]);
    rig.run(500);
    assert_eq!(rig.irq.take_rises(5), 0);
    rig.command(&[0xd4]);
    rig.run(49);
    assert_eq!(rig.irq.take_rises(5), 0);
    rig.run(3);
    assert_eq!(rig.irq.take_rises(5), 1);
}

#[test]
fn masked_channel_makes_the_stream_wait() {
    let mut rig = Rig::new();
    rig.command(&[0x40, 156, 0x14, 0x09, 0x00]);
    rig.run(100);
    assert_eq!(rig.irq.take_rises(5), 0);
    rig.program_dma(1, 10);
    rig.run(5);
    assert_eq!(rig.irq.take_rises(5), 1);
}

#[test]
fn recording_gives_silence() {
    let mut rig = Rig::new();
    rig.put(&[1; 16]);
    rig.program_dma(1, 10);
    rig.dma.out8(0x0b, 0x45);
    rig.command(&[0x24, 0x09, 0x00]);
    rig.run(10);
    let mut bytes = [0; 11];
    rig.card.world.memory().read(0x1_0000, &mut bytes);
    assert_eq!((bytes, rig.irq.take_rises(5)), ([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], 1));
}

#[test]
fn direct_samples_and_adpcm_are_heard() {
    let mut rig = Rig::new();
    for n in 0..200 {
        rig.command(&[0x10, if n % 2 == 0 { 0xf0 } else { 0x10 }]);
        rig.run(1);
    }
    let crossings = rig.crossings(0);
    assert!((95..=100).contains(&crossings), "{crossings}");
    // Up by 7, down by 7, two samples a byte, after the reference.
    rig.put(&[[0x80].as_slice(), &[0x7f; 999]].concat());
    rig.program_dma(1, 1000);
    rig.command(&[0x40, 156, 0x75, 0xe7, 0x03]);
    rig.run(300);
    assert_eq!(rig.irq.take_rises(5), 1);
    assert!(rig.crossings(0) > 500);
}

#[test]
fn silence_command_only_takes_its_time() {
    let mut rig = Rig::new();
    rig.command(&[0x40, 156, 0x80, 0xe7, 0x03]);
    rig.run(99);
    assert_eq!(rig.irq.take_rises(5), 0);
    rig.run(2);
    assert_eq!(rig.irq.take_rises(5), 1);
}

#[test]
fn mixer_keeps_volumes_and_shows_them_the_old_way() {
    let mut rig = Rig::new();
    let mut mixer = |index: u8, value: Option<u8>| {
        rig.card.out8(0x224, index);
        if let Some(value) = value {
            rig.card.out8(0x225, value);
        }
        rig.card.in8(0x225)
    };
    assert_eq!(mixer(0x22, Some(0x5a)), 0x5a);
    assert_eq!((mixer(0x30, None), mixer(0x31, None)), (0x58, 0xa8));
    mixer(0x00, Some(0));
    assert_eq!((mixer(0x30, None), mixer(0x22, None), mixer(0x3d, None)), (0xc0, 0xcc, 0x15));
    assert_eq!((mixer(0x81, None), mixer(0x81, Some(0xff))), (0x22, 0xeb));
}

#[test]
fn mpu_401_acknowledges_uart_mode() {
    let mut rig = Rig::new();
    assert_eq!(rig.card.in8(0x331) & 0x80, 0x80);
    rig.card.out8(0x331, 0x3f);
    rig.card.out8(0x224, 0x82);
    assert_eq!((rig.card.in8(0x331), rig.card.in8(0x225), rig.irq.take_rises(5)), (0x3f, 0x04, 1));
    assert_eq!((rig.card.in8(0x330), rig.card.in8(0x225)), (0xfe, 0x00));
    assert_eq!(rig.irq.take().iter().map(|change| change.high).collect::<Vec<_>>(), [false]);
    rig.card.out8(0x330, 0x90);
    assert_eq!(rig.card.in8(0x331), 0xbf);
    rig.card.out8(0x331, 0xff);
    assert_eq!(rig.card.in8(0x330), 0xfe);
}

//! What a guest plays arrives in a WAV file. The guests are ROMs of a few instructions; time is counted in instructions.

mod guest;

use guest::temporary;
use hound::WavReader;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of a ROM, which ends at 4 GiB.
const ROM: usize = 1 << 16;
/// Where in it the processor starts.
const RESET: usize = 0xfff0;
/// Guest instructions in a millisecond with `-icount shift=7`: 128 ns each.
const INSTRUCTIONS_PER_MS: u32 = 7812;

/// Where in it the interrupt handler is.
const HANDLER: usize = 0x8000;
/// Where in it the sound is.
const SOUND: usize = 0x9000;
/// The word of RAM in which the handler counts.
const BLOCKS: u32 = 0x500;

/// A ROM that runs `program`, in real mode with DS at 0, and then leaves with status 1.
fn rom(name: &str, program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> PathBuf {
    rom_with(name, &[], |a| a.iret(), program)
}

/// A [`rom`] that holds `sound` and an interrupt handler too.
fn rom_with(
    name: &str,
    sound: &[u8],
    handler: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> PathBuf {
    let assemble = || -> Result<[Vec<u8>; 2], IcedError> {
        let mut code = CodeAssembler::new(16)?;
        program(&mut code)?;
        output(&mut code, 0xf4, 0)?;
        let mut interrupt = CodeAssembler::new(16)?;
        handler(&mut interrupt)?;
        Ok([code.assemble(0)?, interrupt.assemble(HANDLER as u64)?])
    };
    let [mut image, handler] = assemble().expect("the program assembles");
    assert!(image.len() <= HANDLER && SOUND + sound.len() <= RESET);
    image.resize(ROM, 0xf4);
    image[HANDLER..HANDLER + handler.len()].copy_from_slice(&handler);
    image[SOUND..SOUND + sound.len()].copy_from_slice(sound);
    // JMP to the first byte, from behind its own three.
    let distance = 0u16.wrapping_sub(RESET as u16 + 3).to_le_bytes();
    image[RESET..RESET + 3].copy_from_slice(&[0xe9, distance[0], distance[1]]);
    let path = temporary(name).with_extension("rom");
    std::fs::write(&path, image).expect("a ROM is written");
    path
}

/// OUT of `value` to `port`.
fn output(a: &mut CodeAssembler, port: u32, value: u32) -> Result<(), IcedError> {
    a.mov(dx, port)?;
    a.mov(al, value)?;
    a.out(dx, al)
}

fn wait(a: &mut CodeAssembler, millis: u32) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(ecx, millis * INSTRUCTIONS_PER_MS / 2)?;
    a.set_label(&mut again)?;
    a.dec(ecx)?;
    a.jne(again)
}

/// Runs `rom` with sound going to a WAV file; its samples, left and right.
fn record(name: &str, rom: &Path, options: &[&str]) -> [Vec<i16>; 2] {
    let wav = temporary(name).with_extension("wav");
    let audiodev = format!("wav,id=snd,path={}", wav.display());
    let status = Command::new(env!("CARGO_BIN_EXE_emu"))
        .args(guest::accelerator())
        .args(["-bios".as_ref(), rom.as_os_str()])
        .args(["-m", "4", "-display", "none", "-vga", "none", "-serial", "none", "-icount", "shift=7"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-audiodev", &audiodev])
        .args(options)
        .status()
        .expect("emu starts");
    assert_eq!(status.code(), Some(1));
    let mut reader = WavReader::open(&wav).expect("a WAV file");
    assert_eq!((reader.spec().channels, reader.spec().sample_rate, reader.spec().bits_per_sample), (2, 48_000, 16));
    let samples: Vec<i16> = reader.samples().map(|sample| sample.expect("a sample")).collect();
    for path in [rom, &wav] {
        std::fs::remove_file(path).expect("the file is removed");
    }
    [0, 1].map(|side| samples.iter().skip(side).step_by(2).copied().collect())
}

/// Hertz between the first and the last rise, and how many milliseconds those are apart. A rise goes from a quarter of the
/// lowest sample to a quarter of the highest: at the end, the mixer's filter swings out.
fn pitch(samples: &[i16]) -> (f64, f64) {
    let low = samples.iter().min().map_or(0, |lowest| lowest / 4);
    let high = samples.iter().max().map_or(0, |highest| highest / 4);
    let mut below = false;
    let rises: Vec<usize> = (0..samples.len())
        .filter(|i| {
            below |= samples[*i] < low;
            samples[*i] > high && std::mem::take(&mut below)
        })
        .collect();
    let (Some(first), Some(last)) = (rises.first(), rises.last()) else { return (0.0, 0.0) };
    let seconds = (last - first) as f64 / 48_000.0;
    ((rises.len() - 1) as f64 / seconds, seconds * 1000.0)
}

fn assert_pitch(samples: &[i16], hertz: f64, millis: f64) {
    let (pitch, duration) = pitch(samples);
    assert!((pitch / hertz - 1.0).abs() < 0.01, "{pitch} Hz instead of {hertz}");
    assert!((duration / millis - 1.0).abs() < 0.05, "{duration} ms instead of {millis}");
}

#[test]
fn tone_of_the_pc_speaker_is_recorded_at_its_pitch_and_length() {
    let rom = rom("speaker", |a| {
        // Counter 2, mode 3, 1193182 / 1193 = 1000 Hz.
        output(a, 0x43, 0xb6)?;
        output(a, 0x42, 1193 & 0xff)?;
        output(a, 0x42, 1193 >> 8)?;
        output(a, 0x61, 3)?;
        wait(a, 300)?;
        output(a, 0x61, 0)?;
        wait(a, 100)
    });
    let [left, right] = record("speaker", &rom, &["-machine", "pcspk-audiodev=snd"]);
    assert_pitch(&left, 1000.0, 300.0);
    assert_eq!(left, right);
    assert!(left.iter().any(|sample| sample.abs() > 1000), "it can be heard");
}

/// A sine wave of `periods` periods in `count` samples.
fn sine(amplitude: f64, periods: u32, count: u32) -> impl Iterator<Item = i16> {
    let turn = f64::from(periods) / f64::from(count) * std::f64::consts::TAU;
    (0..count).map(move |n| (amplitude * (turn * f64::from(n)).sin()).round() as i16)
}

/// The amplitude of a sine wave that fills the middle of `samples`.
fn amplitude(samples: &[i16]) -> f64 {
    let middle = &samples[samples.len() / 4..samples.len() / 2];
    let power: f64 = middle.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (2.0 * power / middle.len() as f64).sqrt()
}

/// OUT of each value to its port.
fn outputs(a: &mut CodeAssembler, pairs: &[(u32, u32)]) -> Result<(), IcedError> {
    pairs.iter().try_for_each(|(port, value)| output(a, *port, *value))
}

/// A stack, interrupts at [`HANDLER`], `sound` at 10000h, and the card at `base` reset and at full volume.
fn prepare(a: &mut CodeAssembler, base: u32, vector: u32, sound: u32) -> Result<(), IcedError> {
    a.xor(ax, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, 0x7000)?;
    a.mov(word_ptr(BLOCKS), ax)?;
    a.mov(word_ptr(vector * 4), HANDLER as u32)?;
    a.mov(word_ptr(vector * 4 + 2), 0xf000)?;
    // Both 8259s: vectors 8 and 70h; IRQ 2, 5 and 10 are on.
    outputs(a, &[(0x20, 0x11), (0x21, 0x08), (0x21, 0x04), (0x21, 0x01), (0x21, !0x24 & 0xff)])?;
    outputs(a, &[(0xa0, 0x11), (0xa1, 0x70), (0xa1, 0x02), (0xa1, 0x01), (0xa1, !0x04 & 0xff)])?;
    a.mov(ax, 0x1000)?;
    a.mov(es, ax)?;
    a.mov(ax, 0xf000)?;
    a.mov(ds, ax)?;
    a.mov(si, SOUND as u32)?;
    a.xor(di, di)?;
    a.cld()?;
    a.mov(cx, sound)?;
    a.rep().movsb()?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    outputs(a, &[(base + 6, 1), (base + 6, 0)])?;
    expect(a, base + 0xa, 0xaa)?;
    (0x30..0x34).try_for_each(|register| outputs(a, &[(base + 4, register), (base + 5, 0xf8)]))?;
    // No FM synthesiser answers.
    [0x388, base, base + 8].into_iter().try_for_each(|port| expect(a, port, 0xff))
}

/// Leaves with status 5 unless IN from `port` gives `value`.
fn expect(a: &mut CodeAssembler, port: u32, value: u32) -> Result<(), IcedError> {
    let mut right = a.create_label();
    a.mov(dx, port)?;
    a.in_(al, dx)?;
    a.cmp(al, value)?;
    a.je(right)?;
    output(a, 0xf4, 2)?;
    a.set_label(&mut right)?;
    a.nop()
}

/// The handler: acknowledges the card's interrupt at `port` and counts.
fn count_blocks(a: &mut CodeAssembler, port: u32) -> Result<(), IcedError> {
    a.push(ax)?;
    a.push(dx)?;
    a.mov(dx, port)?;
    a.in_(al, dx)?;
    a.inc(word_ptr(BLOCKS))?;
    outputs(a, &[(0xa0, 0x20), (0x20, 0x20)])?;
    a.pop(dx)?;
    a.pop(ax)?;
    a.iret()
}

/// Sleeps until `blocks` have been played, then has the card stop after the next one by the DSP command `stop`; leaves
/// with status 7 if more or fewer have been played 200 ms later.
fn play_blocks(a: &mut CodeAssembler, dsp: u32, blocks: u32, stop: u32) -> Result<(), IcedError> {
    let mut again = a.create_label();
    let mut right = a.create_label();
    a.sti()?;
    a.set_label(&mut again)?;
    a.hlt()?;
    a.cmp(word_ptr(BLOCKS), blocks)?;
    a.jb(again)?;
    output(a, dsp, stop)?;
    wait(a, 200)?;
    a.cmp(word_ptr(BLOCKS), blocks + 1)?;
    a.je(right)?;
    output(a, 0xf4, 3)?;
    a.set_label(&mut right)?;
    a.nop()
}

#[test]
fn sound_blaster_plays_8_bit_auto_initialised_dma_by_interrupts() {
    // 2 periods in 101 samples of 22222 Hz: 440 Hz. The buffer holds two blocks.
    let sound: Vec<u8> = sine(96.0, 40, 2020).map(|sample| (sample + 0x80) as u8).collect();
    let handler = |a: &mut CodeAssembler| count_blocks(a, 0x22e);
    let rom = rom_with("sb8", &sound, handler, |a| {
        prepare(a, 0x220, 8 + 5, 2020)?;
        // Channel 1: 2020 bytes from 10000h, again and again.
        outputs(a, &[(0x0a, 5), (0x0c, 0), (0x0b, 0x59), (0x02, 0), (0x02, 0), (0x83, 1)])?;
        outputs(a, &[(0x03, 2019 & 0xff), (0x03, 2019 >> 8), (0x0a, 1)])?;
        // 1000000 / (256 - 211) samples a second, blocks of 1010, high speed.
        outputs(a, &[0xd1, 0x40, 211, 0x48, 1009 & 0xff, 1009 >> 8, 0x90].map(|byte| (0x22c, byte)))?;
        play_blocks(a, 0x22c, 20, 0xda)
    });
    let [left, right] = record("sb8", &rom, &["-device", "sb16,audiodev=snd"]);
    assert_pitch(&left, 440.0, 21.0 * 1010.0 / 22.222);
    assert_eq!(left, right);
    let amplitude = amplitude(&left);
    assert!((amplitude / (96.0 * 256.0) - 1.0).abs() < 0.02, "{amplitude}");
}

#[test]
fn sound_blaster_plays_16_bit_stereo_where_its_jumpers_say() {
    // At 44000 Hz: 440 Hz on the left, 660 Hz on the right.
    let frames = sine(12_000.0, 20, 2000).zip(sine(6_000.0, 30, 2000));
    let sound: Vec<u8> = frames.flat_map(|(left, right)| [left.to_le_bytes(), right.to_le_bytes()].concat()).collect();
    let handler = |a: &mut CodeAssembler| count_blocks(a, 0x24f);
    let rom = rom_with("sb16", &sound, handler, |a| {
        prepare(a, 0x240, 0x70 + 2, 8000)?;
        // Channel 7: 4000 words from 10000h, which is word 8000h of page 0, again and again.
        outputs(a, &[(0xd4, 7), (0xd8, 0), (0xd6, 0x5b), (0xcc, 0), (0xcc, 0x80), (0x8a, 0)])?;
        outputs(a, &[(0xce, 3999 & 0xff), (0xce, 3999 >> 8), (0xd4, 3)])?;
        // 44000 frames a second, signed, stereo, blocks of 4000 words.
        let command = [0x41, 0xab, 0xe0, 0xb6, 0x30, 3999 & 0xff, 3999 >> 8];
        outputs(a, &command.map(|byte| (0x24c, byte)))?;
        play_blocks(a, 0x24c, 20, 0xd9)
    });
    let [left, right] = record("sb16", &rom, &["-device", "sb16,audiodev=snd,iobase=0x240,irq=10,dma=3,dma16=7"]);
    for (samples, hertz, loud) in [(left, 440.0, 12_000.0), (right, 660.0, 6_000.0)] {
        assert_pitch(&samples, hertz, 21.0 * 2000.0 / 44.0);
        let amplitude = amplitude(&samples);
        assert!((amplitude / loud - 1.0).abs() < 0.02, "{amplitude} instead of {loud}");
    }
}

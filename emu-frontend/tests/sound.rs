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

/// A ROM that runs `program`, in real mode with DS at 0, and then leaves with status 1.
fn rom(name: &str, program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> PathBuf {
    let assemble = || -> Result<Vec<u8>, IcedError> {
        let mut a = CodeAssembler::new(16)?;
        program(&mut a)?;
        output(&mut a, 0xf4, 0)?;
        a.assemble(0)
    };
    let code = assemble().expect("the program assembles");
    let mut image = code;
    image.resize(ROM, 0xf4);
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

/// Hertz between the first and the last rise through zero, and how many milliseconds those are apart.
fn pitch(samples: &[i16]) -> (f64, f64) {
    let rises: Vec<usize> = (1..samples.len()).filter(|i| samples[i - 1] < 0 && samples[*i] >= 0).collect();
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

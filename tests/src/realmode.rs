//! A FAT12 boot diskette with a program that carries out a list of steps in real mode: calls of BIOS services, looks at memory and ports.
//! What comes of each step goes to a debug console of its own; where a step wants a picture of the screen, the monitor takes it.
//!
//! ```text
//!  sector 0  boot sector: finds SUITE.COM in the root directory and loads it   1..18 FATs   19..32 root directory   33.. the file
//!  1000:0100 SUITE.COM: the interpreter    1000:0400 steps    1000:F000 registers, scratch
//! ```

use crate::eltorito::{self, Emulation};
use crate::guest::{Guest, GuestError, Machine};
use crate::picture::Picture;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Registers before and after a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub ax: u16,
    pub bx: u16,
    pub cx: u16,
    pub dx: u16,
    pub si: u16,
    pub di: u16,
    pub bp: u16,
    pub es: u16,
    pub ds: u16,
    /// Of the result only.
    pub flags: u16,
    /// The upper halves of EAX, EBX, ECX, EDX.
    pub high: [u16; 4],
}

/// What the program does.
#[derive(Clone, Debug)]
pub enum Step {
    /// Calls an interrupt: the registers afterwards are a result.
    Call { interrupt: u8, registers: Registers },
    /// Bytes of memory are a result.
    Dump { segment: u16, offset: u16, length: u16 },
    /// Writes bytes into memory.
    Poke { segment: u16, offset: u16, bytes: Vec<u8> },
    /// Takes a picture of the screen.
    Screen,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Registers(Registers),
    Bytes(Vec<u8>),
    Nothing,
}

/// What a run brought.
pub struct Outcome {
    /// One to a step.
    pub results: Vec<Value>,
    pub screens: Vec<Picture>,
}

const OP_END: u8 = 0;
const OP_CALL: u8 = 1;
const OP_DUMP: u8 = 2;
const OP_POKE: u8 = 3;
const OP_SCREEN: u8 = 4;
/// The debug console's port.
const REPORT: u32 = 0x505;
/// What the program says when it waits for its picture, and at its end.
const WAITING: u8 = b'S';
const END: u8 = b'E';

const SECTOR: usize = 512;
const DISKETTE: usize = 1440 << 10;
const FAT_SECTORS: usize = 9;
const ROOT: usize = 1 + 2 * FAT_SECTORS;
const DATA: usize = ROOT + 224 * 32 / SECTOR;
const NAME: &[u8; 11] = b"SUITE   COM";
/// Where things are in the program's segment.
const SEGMENT: u32 = 0x1000;
const PROGRAM: u64 = 0x100;
const STEPS: usize = 0x400;
const RESULT: u32 = 0xF000;
const RESUME: u32 = 0xF020;
/// `int n; ret`.
const STUB: u32 = 0xF040;
/// Words of registers of a call; of what comes of it, which are one more, with the flags.
const REGISTERS: u32 = 13;
const RESULTS: u32 = 14;
/// Where the upper halves are in them.
const HIGH: u32 = 9;
const HIGH_RESULTS: u32 = 10;

impl Step {
    fn encode(&self, out: &mut Vec<u8>) {
        let words = |out: &mut Vec<u8>, words: &[u16]| out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        match self {
            Step::Call { interrupt, registers: r } => {
                out.extend([OP_CALL, *interrupt]);
                words(out, &[r.ax, r.bx, r.cx, r.dx, r.si, r.di, r.bp, r.es, r.ds]);
                words(out, &r.high);
            }
            Step::Dump { segment, offset, length } => {
                out.push(OP_DUMP);
                words(out, &[*segment, *offset, *length]);
            }
            Step::Poke { segment, offset, bytes } => {
                out.push(OP_POKE);
                words(out, &[*segment, *offset, bytes.len() as u16]);
                out.extend(bytes);
            }
            Step::Screen => out.push(OP_SCREEN),
        }
    }

    /// Bytes that the step writes to the console.
    fn length(&self) -> usize {
        match self {
            Step::Call { .. } => 2 * RESULTS as usize,
            Step::Dump { length, .. } => usize::from(*length),
            Step::Poke { .. } => 0,
            Step::Screen => 1,
        }
    }

    fn value(&self, bytes: &[u8]) -> Value {
        let word = |index: usize| u16::from_le_bytes([bytes[index * 2], bytes[index * 2 + 1]]);
        match self {
            Step::Call { .. } => Value::Registers(Registers {
                ax: word(0),
                bx: word(1),
                cx: word(2),
                dx: word(3),
                si: word(4),
                di: word(5),
                bp: word(6),
                es: word(7),
                ds: word(8),
                flags: word(9),
                high: [10, 11, 12, 13].map(word),
            }),
            Step::Dump { .. } => Value::Bytes(bytes.to_vec()),
            Step::Poke { .. } | Step::Screen => Value::Nothing,
        }
    }
}

/// The boot sector's code, behind the parameter block.
fn loader(origin: u64, sectors: u32) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let [mut entry, mut found, mut load, mut read, mut fail] = std::array::from_fn(|_| a.create_label());
    a.cli()?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, 0x7C00)?;
    a.sti()?;
    a.cld()?;
    // The first sector of the root directory, to 8000h; BP counts its entries.
    a.mov(si, ROOT as u32)?;
    a.mov(bx, 0x8000)?;
    a.call(read)?;
    a.mov(bp, 16)?;
    a.mov(di, 0x8000)?;
    a.set_label(&mut entry)?;
    a.push(di)?;
    a.mov(si, 0x7C00 + 510 - NAME.len() as u32)?;
    a.mov(cx, NAME.len() as u32)?;
    a.repe().cmpsb()?;
    a.pop(di)?;
    a.je(found)?;
    a.add(di, 32)?;
    a.dec(bp)?;
    a.jnz(entry)?;
    a.set_label(&mut fail)?;
    a.hlt()?;
    a.jmp(fail)?;
    // Its clusters follow each other: sector by sector to the program's segment.
    a.set_label(&mut found)?;
    a.mov(si, word_ptr(di + 26))?;
    a.add(si, DATA as i32 - 2)?;
    a.mov(ax, SEGMENT + (PROGRAM as u32 >> 4))?;
    a.mov(es, ax)?;
    a.mov(bp, sectors)?;
    a.set_label(&mut load)?;
    a.xor(bx, bx)?;
    a.call(read)?;
    a.mov(ax, es)?;
    a.add(ax, SECTOR as i32 >> 4)?;
    a.mov(es, ax)?;
    a.inc(si)?;
    a.dec(bp)?;
    a.jnz(load)?;
    a.mov(ax, SEGMENT)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.cli()?;
    a.mov(ss, ax)?;
    a.mov(sp, 0xFFFE)?;
    a.sti()?;
    a.push(ax)?;
    a.push(PROGRAM as i32)?;
    a.retf()?;
    // Sector SI to ES:BX. Changes AX, CX, DX.
    a.set_label(&mut read)?;
    a.mov(ax, si)?;
    a.mov(cl, 36)?;
    a.div(cl)?;
    a.mov(ch, al)?;
    a.mov(al, ah)?;
    a.mov(ah, 0)?;
    a.mov(cl, 18)?;
    a.div(cl)?;
    a.mov(dh, al)?;
    a.mov(dl, 0)?;
    a.mov(cl, ah)?;
    a.inc(cl)?;
    a.mov(ax, 0x0201)?;
    a.int(0x13)?;
    a.jc(fail)?;
    a.ret()?;
    a.assemble(origin)
}

/// The interpreter.
fn program() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let [mut next, mut not_call, mut not_dump, mut report, mut not_poke, mut end] =
        std::array::from_fn(|_| a.create_label());
    a.mov(word_ptr(STUB), 0x00CD)?;
    a.mov(byte_ptr(STUB + 2), 0xC3)?;
    a.mov(word_ptr(RESUME), STEPS as i32)?;
    a.set_label(&mut next)?;
    a.mov(ax, cs)?;
    a.mov(ds, ax)?;
    a.cld()?;
    a.mov(si, word_ptr(RESUME))?;
    a.lodsb()?;
    a.cmp(al, i32::from(OP_CALL))?;
    a.jne(not_call)?;
    a.lodsb()?;
    a.mov(byte_ptr(STUB + 1), al)?;
    a.lea(ax, word_ptr(si + 2 * REGISTERS))?;
    a.mov(word_ptr(RESUME), ax)?;
    a.push(word_ptr(si + 2 * HIGH))?;
    a.push(word_ptr(si))?;
    a.push(word_ptr(si + 16))?;
    for (index, (wide, low)) in [(ebx, bx), (ecx, cx), (edx, dx)].into_iter().enumerate() {
        let index = index as u32 + 1;
        a.mov(low, word_ptr(si + 2 * (HIGH + index)))?;
        a.shl(wide, 16)?;
        a.mov(low, word_ptr(si + 2 * index))?;
    }
    a.mov(di, word_ptr(si + 10))?;
    a.mov(bp, word_ptr(si + 12))?;
    a.mov(es, word_ptr(si + 14))?;
    a.mov(si, word_ptr(si + 8))?;
    a.pop(ds)?;
    a.pop(eax)?;
    // Flags that are always the same: some services return the caller's.
    a.cmp(ax, ax)?;
    a.call(u64::from(STUB))?;
    for (index, register) in [ax, bx, cx, dx, si, di, bp].into_iter().enumerate() {
        a.mov(word_ptr(RESULT + 2 * index as u32).cs(), register)?;
    }
    a.pushf()?;
    a.pop(word_ptr(RESULT + 18).cs())?;
    for (index, (wide, low)) in [(eax, ax), (ebx, bx), (ecx, cx), (edx, dx)].into_iter().enumerate() {
        a.shr(wide, 16)?;
        a.mov(word_ptr(RESULT + 2 * (HIGH_RESULTS + index as u32)).cs(), low)?;
    }
    a.mov(word_ptr(RESULT + 14).cs(), es)?;
    a.mov(word_ptr(RESULT + 16).cs(), ds)?;
    a.mov(ax, cs)?;
    a.mov(ds, ax)?;
    a.mov(si, RESULT)?;
    a.mov(cx, 2 * RESULTS)?;
    a.set_label(&mut report)?;
    a.cld()?;
    a.mov(dx, REPORT)?;
    a.rep().outsb()?;
    a.jmp(next)?;

    // Segment, offset, length in DX, DI, CX.
    a.set_label(&mut not_call)?;
    a.push(ax)?;
    a.mov(dx, word_ptr(si))?;
    a.mov(di, word_ptr(si + 2))?;
    a.mov(cx, word_ptr(si + 4))?;
    a.pop(ax)?;
    a.cmp(al, i32::from(OP_DUMP))?;
    a.jne(not_dump)?;
    a.add(si, 6)?;
    a.mov(word_ptr(RESUME), si)?;
    a.mov(ds, dx)?;
    a.mov(si, di)?;
    a.jmp(report)?;

    a.set_label(&mut not_dump)?;
    a.cmp(al, i32::from(OP_POKE))?;
    a.jne(not_poke)?;
    a.add(si, 6)?;
    a.mov(es, dx)?;
    a.rep().movsb()?;
    a.mov(word_ptr(RESUME), si)?;
    a.jmp(next)?;

    // A picture is taken while the program waits for a key.
    a.set_label(&mut not_poke)?;
    a.mov(word_ptr(RESUME), si)?;
    a.cmp(al, i32::from(OP_SCREEN))?;
    a.jne(end)?;
    a.mov(al, u32::from(WAITING))?;
    a.mov(dx, REPORT)?;
    a.out(dx, al)?;
    a.mov(ah, 0)?;
    a.int(0x16)?;
    a.jmp(next)?;

    a.set_label(&mut end)?;
    a.mov(al, u32::from(END))?;
    a.mov(dx, REPORT)?;
    a.out(dx, al)?;
    a.cli()?;
    a.hlt()?;
    a.jmp(end)?;
    a.assemble(PROGRAM)
}

/// The diskette: FAT12, with the program as its only file.
///
/// # Panics
/// The steps are too many.
pub fn diskette(steps: &[Step]) -> Vec<u8> {
    let mut file = program().expect("the program can be encoded");
    assert!(file.len() <= STEPS - PROGRAM as usize, "the program has {} bytes", file.len());
    file.resize(STEPS - PROGRAM as usize, 0);
    steps.iter().for_each(|step| step.encode(&mut file));
    file.push(OP_END);
    assert!(PROGRAM as usize + file.len() <= RESULT as usize, "the steps take {} bytes", file.len());
    let sectors = file.len().div_ceil(SECTOR);

    // Jump, name, bytes in a sector, sectors in a cluster, reserved sectors, FATs, root entries, sectors, medium, sectors of a FAT,
    // sectors of a track, heads.
    let mut image =
        b"\xEB\x3C\x90emu test\x00\x02\x01\x01\x00\x02\xE0\x00\x40\x0B\xF0\x09\x00\x12\x00\x02\x00".to_vec();
    // No hidden sectors; drive 0, extended boot signature, serial number, label, file system.
    image.resize(36, 0);
    image.extend(b"\0\0\x29\x01\x02\x03\x04SUITE      FAT12   ");
    assert_eq!(image.len(), 62);
    image.extend(loader(0x7C00 + 62, sectors as u32).expect("the loader can be encoded"));
    assert!(image.len() <= 510 - NAME.len(), "the boot sector has {} bytes", image.len());
    image.resize(510 - NAME.len(), 0);
    image.extend(NAME);
    image.extend([0x55, 0xAA]);

    // A chain from cluster 2 on; three nibbles to the entry.
    let chain = |cluster: usize| if cluster + 1 == sectors + 2 { 0xFFF } else { cluster + 1 };
    let entries: Vec<usize> = [0xFF0, 0xFFF].into_iter().chain((2..sectors + 2).map(chain)).collect();
    let mut fat = Vec::new();
    for pair in entries.chunks(2) {
        let both = pair[0] | pair.get(1).copied().unwrap_or(0) << 12;
        fat.extend(&both.to_le_bytes()[..3]);
    }
    for copy in 0..2 {
        image.resize((1 + copy * FAT_SECTORS) * SECTOR, 0);
        image.extend(&fat);
    }
    image.resize(ROOT * SECTOR, 0);
    image.extend(NAME);
    // Archive; times; the first cluster, the size.
    image.push(0x20);
    image.extend([0; 14]);
    image.extend(2u16.to_le_bytes());
    image.extend((file.len() as u32).to_le_bytes());
    image.resize(DATA * SECTOR, 0);
    image.extend(file);
    image.resize(DISKETTE, 0);
    image
}

/// What the program is booted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Diskette,
    /// A CD whose boot image is the diskette (El Torito, floppy emulation).
    Cd,
}

/// Carries the steps out on `machine`, started with `arguments` besides the medium, within `limit`.
///
/// # Errors
/// The machine ends early, or takes too long.
pub fn run(
    machine: &Machine,
    medium: Medium,
    arguments: &[OsString],
    steps: &[Step],
    limit: Duration,
) -> Result<Outcome, GuestError> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let folder = std::env::temp_dir().join(format!(
        "emu-realmode-{}-{}",
        std::process::id(),
        RUNS.fetch_add(1, Ordering::Relaxed)
    ));
    fs::create_dir_all(&folder).map_err(|error| GuestError::new(format!("{}: {error}", folder.display())))?;
    let outcome = run_in(&folder, machine, medium, arguments, steps, limit);
    // What is left in a temporary folder harms nobody.
    let _ = fs::remove_dir_all(&folder);
    outcome
}

fn run_in(
    folder: &Path,
    machine: &Machine,
    medium: Medium,
    arguments: &[OsString],
    steps: &[Step],
    limit: Duration,
) -> Result<Outcome, GuestError> {
    let (image, console) = (folder.join("suite.img"), folder.join("console"));
    let (contents, order, drive) = match medium {
        Medium::Diskette => (diskette(steps), "a", "floppy"),
        Medium::Cd => (eltorito::disc(Emulation::Floppy1440, &diskette(steps), 1), "d", "ide,media=cdrom"),
    };
    fs::write(&image, contents).map_err(|error| GuestError::new(format!("{}: {error}", image.display())))?;
    let mut command = machine.command();
    command.args(["-serial", "null", "-monitor", "stdio", "-boot", order, "-m", "64"]);
    command.arg("-drive").arg(format!("file={},format=raw,if={drive}", image.display()));
    command.arg("-chardev").arg(format!("file,id=report,path={}", console.display()));
    command.args(["-device", &format!("isa-debugcon,iobase={REPORT:#x},chardev=report")]).args(arguments);
    let deadline = Instant::now() + limit;
    let mut monitor = Guest::start(&mut command, limit)?;
    let reported = |length: usize| loop {
        let bytes = fs::read(&console).unwrap_or_default();
        if bytes.len() >= length {
            return Ok(bytes);
        }
        if Instant::now() >= deadline {
            return Err(GuestError::new(format!("{} of {length} bytes of results in time", bytes.len())));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let (mut at, mut screens) = (0, Vec::new());
    for step in steps {
        at += step.length();
        if matches!(step, Step::Screen) {
            reported(at)?;
            screens.push(screenshot(&mut monitor, &folder.join("screen.ppm"), deadline)?);
            monitor.send_line("sendkey a")?;
        }
    }
    let bytes = reported(at + 1)?;
    monitor.send_line("quit")?;
    monitor.wait()?;
    let mut at = 0;
    let mut results = Vec::new();
    for step in steps {
        results.push(step.value(&bytes[at..at + step.length()]));
        at += step.length();
    }
    match bytes[at] {
        END => Ok(Outcome { results, screens }),
        _ => Err(GuestError::new("the program went on after its last step".into())),
    }
}

fn screenshot(monitor: &mut Guest, file: &PathBuf, deadline: Instant) -> Result<Picture, GuestError> {
    let _ = fs::remove_file(file);
    // The display is drawn now and then; what was written last is to be on it.
    std::thread::sleep(Duration::from_millis(100));
    monitor.send_line(&format!("screendump {}", file.display()))?;
    loop {
        let problem = match Picture::read(file) {
            Ok(picture) => return Ok(picture),
            Err(problem) => problem,
        };
        if Instant::now() >= deadline {
            return Err(GuestError::new(problem));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diskette_is_fat12_with_one_file() {
        let image = diskette(&[Step::Dump { segment: 0, offset: 0, length: 1 }, Step::Screen]);
        assert_eq!(image.len(), DISKETTE);
        assert_eq!(image[510..512], [0x55, 0xAA]);
        let root = ROOT * SECTOR;
        assert_eq!(&image[root..root + 11], NAME);
        let size = u32::from_le_bytes(image[root + 28..root + 32].try_into().unwrap()) as usize;
        assert_eq!(size, STEPS - PROGRAM as usize + 7 + 1 + 1);
        let sectors = size.div_ceil(SECTOR);
        // The first entries say what the medium is; the chain begins behind them and has as many links as the file has sectors.
        let entry = |n: usize| {
            let at = SECTOR + n / 2 * 3;
            let both = u32::from_le_bytes([image[at], image[at + 1], image[at + 2], 0]);
            both >> (12 * (n % 2)) & 0xFFF
        };
        assert_eq!((entry(0), entry(1), entry(1 + sectors)), (0xFF0, 0xFFF, 0xFFF));
        assert_eq!(image[SECTOR..SECTOR + 9 * SECTOR], image[10 * SECTOR..19 * SECTOR]);
    }
}

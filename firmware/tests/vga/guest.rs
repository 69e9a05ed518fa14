//! A machine with a VGA BIOS, driven by a list of steps that a boot sector's little interpreter carries out.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

/// Debian's SeaVGABIOS for the same adapter.
pub const REFERENCE: &str = "/usr/share/seabios/vgabios-stdvga.bin";

/// Registers of a call of INT 10h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    pub ax: u16,
    pub bx: u16,
    pub cx: u16,
    pub dx: u16,
    pub di: u16,
    pub bp: u16,
    pub es: u16,
}

/// What the program does.
#[derive(Clone, Debug)]
#[allow(dead_code)]
pub enum Step {
    /// Calls INT 10h: the registers afterwards are a result.
    Int10(Call),
    /// Bytes of memory are a result.
    Dump { segment: u16, offset: u16, length: u16 },
    /// Writes bytes into memory.
    Poke { segment: u16, offset: u16, bytes: Vec<u8> },
    /// Writes a byte to a port.
    Out { port: u16, value: u8 },
    /// Writes an index, then reads the next port: a result of a byte.
    Indexed { port: u16, index: u8 },
    /// Takes a picture of the screen.
    Screen,
}

/// What came of a step: registers as words, or bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Registers(Call),
    Bytes(Vec<u8>),
    Nothing,
}

/// What a run brought.
pub struct Outcome {
    /// One to a step.
    pub results: Vec<Value>,
    /// PPM files.
    pub screens: Vec<Vec<u8>>,
}

const OP_END: u8 = 0;
const OP_INT10: u8 = 1;
const OP_DUMP: u8 = 2;
const OP_POKE: u8 = 3;
const OP_OUT: u8 = 4;
const OP_INDEXED: u8 = 5;
const OP_SCREEN: u8 = 6;
/// Sectors of steps that the boot sector loads to 0000:7E00.
const SECTORS: u8 = 60;

/// The boot sector: loads the steps, carries them out, writes results to the debug console.
fn boot_sector() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let [mut next, mut not_int10, mut not_dump, mut dump, mut not_poke] = std::array::from_fn(|_| a.create_label());
    let [mut not_out, mut not_indexed, mut not_screen, mut end] = std::array::from_fn(|_| a.create_label());
    a.cli()?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, 0x7C00)?;
    a.sti()?;
    a.cld()?;
    a.mov(ax, 0x0200 + u32::from(SECTORS))?;
    a.mov(bx, 0x7E00)?;
    a.mov(cx, 2)?;
    a.mov(dh, 0)?;
    a.int(0x13)?;
    a.mov(si, 0x7E00)?;
    a.set_label(&mut next)?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.cld()?;
    a.lodsb()?;
    a.cmp(al, i32::from(OP_INT10))?;
    a.jne(not_int10)?;
    // AX, BX, CX, DX, DI, BP, ES from the step, back to 0000:0600 after the call.
    a.push(si)?;
    a.mov(bx, word_ptr(si + 2))?;
    a.mov(cx, word_ptr(si + 4))?;
    a.mov(dx, word_ptr(si + 6))?;
    a.mov(di, word_ptr(si + 8))?;
    a.mov(bp, word_ptr(si + 10))?;
    a.mov(es, word_ptr(si + 12))?;
    a.mov(ax, word_ptr(si))?;
    a.int(0x10)?;
    a.mov(word_ptr(0x600), ax)?;
    a.mov(word_ptr(0x602), bx)?;
    a.mov(word_ptr(0x604), cx)?;
    a.mov(word_ptr(0x606), dx)?;
    a.mov(word_ptr(0x608), di)?;
    a.mov(word_ptr(0x60A), bp)?;
    a.mov(word_ptr(0x60C), es)?;
    a.pop(si)?;
    a.add(si, 14)?;
    a.push(si)?;
    a.mov(si, 0x600)?;
    a.mov(cx, 14)?;
    a.set_label(&mut dump)?;
    a.mov(dx, 0xE9)?;
    a.rep().outsb()?;
    a.pop(si)?;
    a.jmp(next)?;

    a.set_label(&mut not_int10)?;
    a.cmp(al, i32::from(OP_DUMP))?;
    a.jne(not_dump)?;
    a.lodsw()?;
    a.mov(dx, ax)?;
    a.lodsw()?;
    a.mov(bx, ax)?;
    a.lodsw()?;
    a.mov(cx, ax)?;
    a.push(si)?;
    a.mov(ds, dx)?;
    a.mov(si, bx)?;
    a.jmp(dump)?;

    a.set_label(&mut not_dump)?;
    a.cmp(al, i32::from(OP_POKE))?;
    a.jne(not_poke)?;
    a.lodsw()?;
    a.mov(es, ax)?;
    a.lodsw()?;
    a.mov(di, ax)?;
    a.lodsw()?;
    a.mov(cx, ax)?;
    a.rep().movsb()?;
    a.jmp(next)?;

    a.set_label(&mut not_poke)?;
    a.cmp(al, i32::from(OP_OUT))?;
    a.jne(not_out)?;
    a.lodsw()?;
    a.mov(dx, ax)?;
    a.lodsb()?;
    a.out(dx, al)?;
    a.jmp(next)?;

    a.set_label(&mut not_out)?;
    a.cmp(al, i32::from(OP_INDEXED))?;
    a.jne(not_indexed)?;
    a.lodsw()?;
    a.mov(dx, ax)?;
    a.lodsb()?;
    a.out(dx, al)?;
    a.inc(dx)?;
    a.in_(al, dx)?;
    a.mov(dx, 0xE9)?;
    a.out(dx, al)?;
    a.jmp(next)?;

    // A picture is taken while the program waits for a key.
    a.set_label(&mut not_indexed)?;
    a.cmp(al, i32::from(OP_SCREEN))?;
    a.jne(not_screen)?;
    a.mov(al, u32::from(b'S'))?;
    a.mov(dx, 0xE9)?;
    a.out(dx, al)?;
    a.mov(ah, 0)?;
    a.int(0x16)?;
    a.jmp(next)?;

    a.set_label(&mut not_screen)?;
    a.mov(al, u32::from(b'E'))?;
    a.mov(dx, 0xE9)?;
    a.out(dx, al)?;
    a.set_label(&mut end)?;
    a.hlt()?;
    a.jmp(end)?;
    let mut sector = a.assemble(0x7C00)?;
    assert!(sector.len() <= 440, "the interpreter has {} bytes", sector.len());
    sector.resize(510, 0);
    sector.extend([0x55, 0xAA]);
    Ok(sector)
}

impl Step {
    fn encode(&self, out: &mut Vec<u8>) {
        let words = |out: &mut Vec<u8>, words: &[u16]| out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        match self {
            Step::Int10(c) => {
                out.push(OP_INT10);
                words(out, &[c.ax, c.bx, c.cx, c.dx, c.di, c.bp, c.es]);
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
            Step::Out { port, value } => {
                out.push(OP_OUT);
                words(out, &[*port]);
                out.push(*value);
            }
            Step::Indexed { port, index } => {
                out.push(OP_INDEXED);
                words(out, &[*port]);
                out.push(*index);
            }
            Step::Screen => out.push(OP_SCREEN),
        }
    }

    /// Bytes that the step writes to the debug console.
    fn length(&self) -> usize {
        match self {
            Step::Int10(_) => 14,
            Step::Dump { length, .. } => usize::from(*length),
            Step::Poke { .. } | Step::Out { .. } => 0,
            Step::Indexed { .. } | Step::Screen => 1,
        }
    }

    fn value(&self, bytes: &[u8]) -> Value {
        let word = |index: usize| u16::from_le_bytes([bytes[index * 2], bytes[index * 2 + 1]]);
        match self {
            Step::Int10(_) => Value::Registers(Call {
                ax: word(0),
                bx: word(1),
                cx: word(2),
                dx: word(3),
                di: word(4),
                bp: word(5),
                es: word(6),
            }),
            Step::Dump { .. } | Step::Indexed { .. } => Value::Bytes(bytes.to_vec()),
            Step::Poke { .. } | Step::Out { .. } | Step::Screen => Value::Nothing,
        }
    }
}

struct Machine {
    qemu: Child,
    console: std::path::PathBuf,
}

impl Machine {
    /// Waits until the program has written `length` bytes.
    fn wait(&mut self, length: usize) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let written = fs::read(&self.console).unwrap_or_default();
            if written.len() >= length {
                return written;
            }
            let exited = self.qemu.try_wait().expect("the process can be asked");
            assert!(exited.is_none(), "QEMU ended: {exited:?}");
            assert!(Instant::now() < deadline, "{} of {length} bytes of results after two minutes", written.len());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn monitor(&mut self, line: &str) {
        let input = self.qemu.stdin.as_mut().expect("it is piped");
        writeln!(input, "{line}").expect("the monitor reads");
    }
}

/// Carries out the steps with the VGA BIOS `rom`, or returns `None` if there is no QEMU.
pub fn run(rom: &Path, steps: &[Step]) -> Option<Outcome> {
    static RUNS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("emu-vga-test-{}-{number}", process::id()));
    fs::create_dir_all(&folder).expect("the temporary folder takes a folder");
    let mut disk = boot_sector().expect("the program assembles");
    for step in steps {
        step.encode(&mut disk);
    }
    disk.push(OP_END);
    assert!(disk.len() <= 512 * (1 + usize::from(SECTORS)), "the steps take {} bytes", disk.len());
    disk.resize(1 << 20, 0);
    let (image, console) = (folder.join("disk.img"), folder.join("console"));
    fs::write(&image, disk).expect("the folder takes files");
    let qemu = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-m", "32", "-display", "none", "-boot", "c", "-monitor", "stdio", "-vga", "none"])
        .args(["-device", &format!("VGA,romfile={}", rom.display())])
        .args(["-debugcon", &format!("file:{}", console.display())])
        .args(["-drive", &format!("file={},format=raw,if=ide", image.display())])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .ok()?;
    let mut machine = Machine { qemu, console };
    let mut outcome = Outcome { results: Vec::new(), screens: Vec::new() };
    // What SeaBIOS says on the same port comes first: the program's own bytes follow its last line.
    let mut at = 0;
    for step in steps {
        at += step.length();
        if matches!(step, Step::Screen) {
            machine.wait(at);
            let picture = folder.join(format!("{}.ppm", outcome.screens.len()));
            machine.monitor(&format!("screendump {}", picture.display()));
            let deadline = Instant::now() + Duration::from_secs(30);
            let complete = |picture: &Path| fs::read(picture).ok().filter(|ppm| is_complete(ppm));
            outcome.screens.push(loop {
                if let Some(ppm) = complete(&picture) {
                    break ppm;
                }
                assert!(Instant::now() < deadline, "no picture after half a minute");
                thread::sleep(Duration::from_millis(20));
            });
            machine.monitor("sendkey a");
        }
    }
    let written = machine.wait(at + 1);
    machine.monitor("quit");
    machine.qemu.wait().expect("it was asked to quit");
    let mut at = 0;
    for step in steps {
        outcome.results.push(step.value(&written[at..at + step.length()]));
        at += step.length();
    }
    assert_eq!(written[at], b'E', "the program ends after its last step");
    fs::remove_dir_all(&folder).expect("nobody else uses it");
    Some(outcome)
}

/// Whether a PPM file has all the dots that its head promises.
fn is_complete(ppm: &[u8]) -> bool {
    let mut words = ppm.splitn(4, |byte| byte.is_ascii_whitespace());
    let mut number =
        || words.next().and_then(|word| std::str::from_utf8(word).ok()).and_then(|word| word.parse::<usize>().ok());
    let _ = number();
    let (Some(width), Some(height)) = (number(), number()) else { return false };
    ppm.len() >= width * height * 3
}

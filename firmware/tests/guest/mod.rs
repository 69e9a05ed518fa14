//! Programs of tests under QEMU, where it is installed: an option ROM or a boot sector that calls services and reports what they return, as
//! 32-bit words on a debug console of its own; then it leaves by isa-debug-exit.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const QEMU: &str = "qemu-system-x86_64";
/// The console that the ROMs report to, and the port that ends the run.
const REPORT: u16 = 0x402;
pub const EXIT: u32 = 0xF4;
/// Where programs may write (segment 0).
pub const BUFFER: u32 = 0x5000;

/// The program that a test writes.
pub struct Program(pub CodeAssembler);

impl Program {
    /// Reports EAX. Keeps all registers and flags.
    pub fn report_eax(&mut self) -> Result<(), IcedError> {
        let a = &mut self.0;
        a.pushf()?;
        a.push(dx)?;
        a.mov(dx, u32::from(REPORT))?;
        for _ in 0..4 {
            a.out(dx, al)?;
            a.ror(eax, 8)?;
        }
        a.pop(dx)?;
        a.popf()
    }

    /// Reports some registers.
    pub fn report(&mut self, registers: &[AsmRegister32]) -> Result<(), IcedError> {
        for register in registers {
            self.0.push(eax)?;
            self.0.mov(eax, *register)?;
            self.report_eax()?;
            self.0.pop(eax)?;
        }
        Ok(())
    }

    /// Reports whether CF is set. Keeps all registers and flags.
    pub fn report_carry(&mut self) -> Result<(), IcedError> {
        self.0.push(eax)?;
        self.0.sbb(eax, eax)?;
        self.0.neg(eax)?;
        self.report_eax()?;
        self.0.pop(eax)
    }

    /// Loads EAX and calls an interrupt.
    pub fn call(&mut self, vector: u32, value: u32) -> Result<(), IcedError> {
        self.0.mov(eax, value)?;
        self.0.int(vector)
    }
}

/// What the program reports as an option ROM, or `None` where there is no QEMU.
#[allow(dead_code)]
pub fn run_option_rom(write: impl FnOnce(&mut Program) -> Result<(), IcedError>) -> Option<Vec<u32>> {
    let rom = option_rom(write).expect("the program can be encoded");
    run(&[("-option-rom", "test.bin")], &[("test.bin", &rom)])
}

/// What the program reports as the boot sector of a disk with `sectors` behind it; and the disk afterwards.
#[allow(dead_code)]
pub fn run_boot_sector(
    sectors: &[u8],
    write: impl FnOnce(&mut Program) -> Result<(), IcedError>,
) -> Option<(Vec<u32>, Vec<u8>)> {
    run_boot(sectors, "if=ide", write)
}

/// The same with a diskette, in drive A, whose drive has some options, as in QEMU's `-drive`.
#[allow(dead_code)]
pub fn run_boot_floppy(
    sectors: &[u8],
    options: &str,
    write: impl FnOnce(&mut Program) -> Result<(), IcedError>,
) -> Option<(Vec<u32>, Vec<u8>)> {
    run_boot(sectors, &format!("if=floppy{options}"), write)
}

/// The same with a drive of some options, as in QEMU's `-drive`.
#[allow(dead_code)]
pub fn run_boot(
    sectors: &[u8],
    options: &str,
    write: impl FnOnce(&mut Program) -> Result<(), IcedError>,
) -> Option<(Vec<u32>, Vec<u8>)> {
    let mut disk = program(0x7C00, write).expect("the program can be encoded");
    assert!(disk.len() <= 510, "the boot sector has {} bytes", disk.len());
    disk.resize(510, 0);
    disk.extend([0x55, 0xAA]);
    disk.extend(sectors);
    let folder = folder();
    let file = folder.join("disk.img");
    std::fs::write(&file, disk).unwrap();
    let drive = format!("file={},format=raw,{options}", file.display());
    let words = run(&[("-drive", &drive)], &[]);
    let disk = std::fs::read(&file).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    Some((words?, disk))
}

fn folder() -> PathBuf {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("emu-firmware-{}-{run}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs QEMU with some options, in a folder with some files.
pub fn run(options: &[(&str, &str)], files: &[(&str, &[u8])]) -> Option<Vec<u32>> {
    if Command::new(QEMU).arg("-version").output().is_err() {
        eprintln!("{QEMU} is not installed: nothing is tested");
        return None;
    }
    let folder = folder();
    for (name, contents) in files.iter().chain(&[("bios.bin", firmware::BIOS), ("report", &[])]) {
        std::fs::write(folder.join(name), contents).unwrap();
    }
    let mut qemu = Command::new("timeout");
    qemu.current_dir(&folder)
        .args(["60", QEMU, "-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot", "-m", "256"])
        .args(["-bios", "bios.bin", "-chardev", "file,id=report,path=report"])
        .args(["-device", &format!("isa-debugcon,iobase={REPORT:#x},chardev=report")])
        .args(["-device", &format!("isa-debug-exit,iobase={EXIT:#x},iosize=4")]);
    for (option, value) in options {
        qemu.args([option, value]);
    }
    let status = qemu.status().unwrap();
    let bytes = std::fs::read(folder.join("report")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(status.code(), Some(1), "the program reached its end; it reported {bytes:x?}");
    Some(bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
}

/// The program at `origin`: DS and ES are 0 at its start.
pub fn program(origin: u64, write: impl FnOnce(&mut Program) -> Result<(), IcedError>) -> Result<Vec<u8>, IcedError> {
    let mut program = Program(CodeAssembler::new(16)?);
    program.0.xor(ax, ax)?;
    program.0.mov(ds, ax)?;
    program.0.mov(es, ax)?;
    write(&mut program)?;
    program.0.xor(ax, ax)?;
    program.0.out(EXIT as i32, al)?;
    program.0.assemble(origin)
}

fn option_rom(write: impl FnOnce(&mut Program) -> Result<(), IcedError>) -> Result<Vec<u8>, IcedError> {
    let mut rom = vec![0x55, 0xAA, 0];
    rom.extend(program(3, write)?);
    rom.resize((rom.len() + 1).next_multiple_of(512), 0);
    rom[2] = (rom.len() / 512) as u8;
    let sum = rom.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    *rom.last_mut().unwrap() = sum.wrapping_neg();
    Ok(rom)
}

//! Services of the system BIOS under QEMU, where it is installed: each test is an option ROM whose initialisation calls services and reports
//! what they return, as 32-bit words on a debug console of its own; then it leaves by isa-debug-exit.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const QEMU: &str = "qemu-system-x86_64";
/// The console that the ROMs report to, and the port that ends the run.
const REPORT: u16 = 0x402;
const EXIT: u32 = 0xF4;
const RAM: u32 = 256 << 20;
/// Where ROMs may write (segment 0).
const BUFFER: u32 = 0x5000;

/// The program that a test writes.
struct Program(CodeAssembler);

impl Program {
    /// Reports EAX. Keeps all registers and flags.
    fn report_eax(&mut self) -> Result<(), IcedError> {
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
    fn report(&mut self, registers: &[AsmRegister32]) -> Result<(), IcedError> {
        for register in registers {
            self.0.push(eax)?;
            self.0.mov(eax, *register)?;
            self.report_eax()?;
            self.0.pop(eax)?;
        }
        Ok(())
    }

    /// Reports whether CF is set. Keeps all registers and flags.
    fn report_carry(&mut self) -> Result<(), IcedError> {
        self.0.push(eax)?;
        self.0.sbb(eax, eax)?;
        self.0.neg(eax)?;
        self.report_eax()?;
        self.0.pop(eax)
    }

    /// Loads EAX and calls an interrupt.
    fn call(&mut self, vector: u32, value: u32) -> Result<(), IcedError> {
        self.0.mov(eax, value)?;
        self.0.int(vector)
    }
}

/// What the program reports, or `None` where there is no QEMU.
fn run(write: impl FnOnce(&mut Program) -> Result<(), IcedError>) -> Option<Vec<u32>> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    if Command::new(QEMU).arg("-version").output().is_err() {
        eprintln!("{QEMU} is not installed: nothing is tested");
        return None;
    }
    let rom = option_rom(write).expect("the program can be encoded");
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("emu-firmware-{}-{run}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, contents: &[u8]| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, contents).unwrap();
        path
    };
    let (bios, test, report) = (file("bios.bin", firmware::BIOS), file("test.bin", &rom), file("report", &[]));
    let status = Command::new("timeout")
        .args(["60", QEMU, "-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot", "-m", "256"])
        .arg("-bios")
        .arg(bios)
        .arg("-option-rom")
        .arg(test)
        .arg("-chardev")
        .arg(format!("file,id=report,path={}", report.display()))
        .args(["-device", &format!("isa-debugcon,iobase={REPORT:#x},chardev=report")])
        .args(["-device", &format!("isa-debug-exit,iobase={EXIT:#x},iosize=4")])
        .status()
        .unwrap();
    let bytes = std::fs::read(&report).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(status.code(), Some(1), "the program reached its end; it reported {bytes:x?}");
    Some(bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
}

fn option_rom(write: impl FnOnce(&mut Program) -> Result<(), IcedError>) -> Result<Vec<u8>, IcedError> {
    let mut program = Program(CodeAssembler::new(16)?);
    program.0.xor(ax, ax)?;
    program.0.mov(ds, ax)?;
    program.0.mov(es, ax)?;
    write(&mut program)?;
    program.0.xor(ax, ax)?;
    program.0.out(EXIT as i32, al)?;
    let mut rom = vec![0x55, 0xAA, 0];
    rom.extend(program.0.assemble(3)?);
    rom.resize((rom.len() + 1).next_multiple_of(512), 0);
    rom[2] = (rom.len() / 512) as u8;
    let sum = rom.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    *rom.last_mut().unwrap() = sum.wrapping_neg();
    Ok(rom)
}

#[test]
fn int11_and_int12_tell_equipment_and_base_memory() {
    let Some(words) = run(|p| {
        p.call(0x11, 0)?;
        p.report_eax()?;
        p.call(0x12, 0)?;
        p.report_eax()
    }) else {
        return;
    };
    assert_eq!(words[0] & 0x32, 0x22, "a coprocessor, 80x25 in colour");
    assert!((512..640).contains(&words[1]), "{words:?}");
}

#[test]
fn int15_e820_covers_ram_without_overlaps() {
    let Some(words) = run(|p| {
        let mut next = p.0.create_label();
        p.0.xor(ebx, ebx)?;
        p.0.set_label(&mut next)?;
        p.0.mov(edx, 0x534D_4150)?;
        p.0.mov(ecx, 20)?;
        p.0.mov(di, BUFFER)?;
        p.call(0x15, 0xE820)?;
        p.report_carry()?;
        p.report(&[eax, ecx])?;
        for field in 0..5 {
            p.0.mov(eax, dword_ptr(BUFFER + 4 * field))?;
            p.report_eax()?;
        }
        p.0.test(ebx, ebx)?;
        p.0.jnz(next)
    }) else {
        return;
    };
    let mut ranges = Vec::new();
    for entry in words.chunks_exact(8) {
        assert_eq!(entry[..3], [0, 0x534D_4150, 20]);
        let wide = |low: usize| u64::from(entry[low]) | u64::from(entry[low + 1]) << 32;
        ranges.push((wide(3), wide(5), entry[7]));
    }
    ranges.sort();
    for pair in ranges.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
    }
    let ram: u64 = ranges.iter().filter(|range| range.2 == 1).map(|range| range.1).sum();
    assert!(ram > u64::from(RAM) - (1 << 20) && ram < u64::from(RAM), "{ranges:x?}");
    assert!(ranges.iter().any(|&(start, size, kind)| kind == 2 && start <= 0xE_0000 && start + size == 0x10_0000));
}

#[test]
fn int15_sizes_agree_with_each_other() {
    let Some(words) = run(|p| {
        p.call(0x15, 0x8800)?;
        p.report_carry()?;
        p.report_eax()?;
        p.0.xor(ebx, ebx)?;
        p.0.xor(ecx, ecx)?;
        p.0.xor(edx, edx)?;
        p.call(0x15, 0xE801)?;
        p.report_carry()?;
        p.report(&[eax, ebx, ecx, edx])
    }) else {
        return;
    };
    assert_eq!(words[..2], [0, 0xFC00], "88h ends at 64 MiB");
    assert_eq!(words[2..4], [0, 0x3C00]);
    assert!(words[4] > 0xEF0 && words[4] < 0xF00, "{words:x?}");
    assert_eq!(words[5..], words[3..5]);
}

#[test]
fn int15_moves_extended_memory_and_switches_a20() {
    let Some(words) = run(|p| {
        // 2403h, 2401h, 2402h.
        p.call(0x15, 0x2403)?;
        p.report_carry()?;
        p.0.movzx(ebx, bx)?;
        p.report(&[ebx])?;
        p.call(0x15, 0x2401)?;
        p.call(0x15, 0x2402)?;
        p.report_eax()?;
        // Three words, an odd number, from the buffer to 2 MiB and back to elsewhere.
        p.0.mov(dword_ptr(BUFFER), 0x1234_5678)?;
        p.0.mov(dword_ptr(BUFFER + 4), 0xCAFE_BABEu32)?;
        p.0.mov(dword_ptr(BUFFER + 0x14), 0)?;
        for (from, to) in [(BUFFER, 0x20_0000), (0x20_0000, BUFFER + 0x10)] {
            let table = BUFFER + 0x100;
            for offset in 0..12 {
                p.0.mov(dword_ptr(table + 4 * offset), 0)?;
            }
            for (place, address) in [(0x10, from), (0x18, to)] {
                p.0.mov(dword_ptr(table + place), 0xFFFF | address << 16)?;
                p.0.mov(dword_ptr(table + place + 4), 0x9300 | address >> 16)?;
            }
            p.0.mov(si, table)?;
            p.0.mov(cx, 3)?;
            p.call(0x15, 0x8700)?;
            p.report_carry()?;
        }
        p.0.mov(eax, dword_ptr(BUFFER + 0x10))?;
        p.report_eax()?;
        p.0.mov(eax, dword_ptr(BUFFER + 0x14))?;
        p.report_eax()
    }) else {
        return;
    };
    assert_eq!(words, [0, 3, 1, 0, 0, 0x1234_5678, 0xBABE]);
}

#[test]
fn int15_tells_what_it_has_not_got() {
    let Some(words) = run(|p| {
        for function in [0x4100, 0x8900, 0xFF00] {
            p.call(0x15, function)?;
            p.report_carry()?;
            p.report_eax()?;
        }
        // The keyboard intercept gives the scan code back.
        p.0.stc()?;
        p.call(0x15, 0x4F1E)?;
        p.report_carry()?;
        p.report_eax()?;
        // Waiting 20 ms takes about that on the refresh bit; here it only has to end.
        p.0.xor(cx, cx)?;
        p.0.mov(dx, 20_000)?;
        p.call(0x15, 0x8600)?;
        p.report_carry()
    }) else {
        return;
    };
    assert_eq!(words, [1, 0x8600, 1, 0x8600, 1, 0x8600, 1, 0x4F1E, 0]);
}

#[test]
fn int1a_keeps_the_clock() {
    let Some(words) = run(|p| {
        p.0.mov(cx, 0x1259)?;
        p.0.mov(dx, 0x3000)?;
        p.call(0x1A, 0x0300)?;
        p.report_carry()?;
        p.0.mov(cx, 0x2031)?;
        p.0.mov(dx, 0x1224)?;
        p.call(0x1A, 0x0500)?;
        p.report_carry()?;
        p.0.xor(ecx, ecx)?;
        p.0.xor(edx, edx)?;
        p.call(0x1A, 0x0200)?;
        p.report_carry()?;
        p.report(&[ecx, edx])?;
        p.call(0x1A, 0x0400)?;
        p.report(&[ecx, edx])?;
        p.0.mov(cx, 7)?;
        p.0.mov(dx, 0x1234)?;
        p.call(0x1A, 0x0100)?;
        p.call(0x1A, 0x0000)?;
        p.report(&[eax, ecx])
    }) else {
        return;
    };
    assert_eq!(words[..4], [0, 0, 0, 0x1259]);
    assert!(words[4] >> 8 >= 0x30 && words[4] & 0xFF == 0, "{words:x?}");
    assert_eq!(words[5..], [0x2031, 0x1224, 0, 7]);
}

#[test]
fn int1a_pci_bios_finds_and_reads_functions() {
    let Some(words) = run(|p| {
        p.0.xor(ebx, ebx)?;
        p.0.xor(ecx, ecx)?;
        p.call(0x1A, 0xB101)?;
        p.report_carry()?;
        p.report(&[ebx, ecx, edx])?;
        // The IDE function by identity, power management by class, and one that is not there.
        p.0.mov(ecx, 0x7010)?;
        p.0.mov(edx, 0x8086)?;
        p.0.mov(si, 0)?;
        p.call(0x1A, 0xB102)?;
        p.report_carry()?;
        p.report(&[ebx])?;
        p.0.mov(di, 0x20)?;
        p.call(0x1A, 0xB10A)?;
        p.report(&[ecx])?;
        p.0.mov(ecx, 0x06_8000)?;
        p.call(0x1A, 0xB103)?;
        p.report(&[ebx])?;
        p.0.mov(ecx, 0x1111)?;
        p.call(0x1A, 0xB102)?;
        p.report_carry()?;
        p.0.movzx(eax, ah)?;
        p.report_eax()?;
        // A word write, a byte read, a bad register.
        p.0.mov(bx, 0x08)?;
        p.0.mov(di, 0x62)?;
        p.0.mov(cx, 0x800B)?;
        p.call(0x1A, 0xB10C)?;
        p.0.xor(ecx, ecx)?;
        p.0.mov(di, 0x63)?;
        p.call(0x1A, 0xB108)?;
        p.report(&[ecx])?;
        p.call(0x1A, 0xB109)?;
        p.report_carry()?;
        p.0.movzx(eax, ah)?;
        p.report_eax()
    }) else {
        return;
    };
    assert_eq!(words[..4], [0, 0x210, 0, 0x2049_4350]);
    assert_eq!(words[4..6], [0, 0x09]);
    assert_eq!(words[6] & !0xFFF, 0xC000, "the bus master's ports");
    assert_eq!(words[7..], [0x0B, 1, 0x86, 0x80, 1, 0x87]);
}

#[test]
fn tables_are_placed_with_good_checksums() {
    // Reports, for each signature found on a 16-byte boundary of F0000 to FFFFF, its address and the sum of its bytes.
    let Some(words) = run(|p| {
        for (signature, length) in
            [(*b"RSD ", 20), (*b"_SM_", 31), (*b"_32_", 16), (*b"$PIR", 32 + 31 * 16), (*b"$PnP", 33)]
        {
            let a = &mut p.0;
            let (mut next, mut sum, mut found, mut done) =
                (a.create_label(), a.create_label(), a.create_label(), a.create_label());
            a.mov(ax, 0xF000)?;
            a.mov(ds, ax)?;
            a.xor(si, si)?;
            a.set_label(&mut next)?;
            a.cmp(dword_ptr(si), u32::from_le_bytes(signature))?;
            a.je(found)?;
            a.add(si, 16)?;
            a.jnz(next)?;
            a.mov(ebx, u32::MAX)?;
            a.jmp(done)?;
            a.set_label(&mut found)?;
            a.xor(ebx, ebx)?;
            a.mov(cx, length)?;
            a.set_label(&mut sum)?;
            a.add(bl, byte_ptr(si))?;
            a.inc(si)?;
            a.loop_(sum)?;
            a.set_label(&mut done)?;
            p.report(&[ebx])?;
        }
        Ok(())
    }) else {
        return;
    };
    assert_eq!(words, [0; 5]);
}

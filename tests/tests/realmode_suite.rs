//! A program on a FAT12 diskette exercises the BIOS's services in real mode (`emu_tests::realmode`): registers are compared between the
//! built-in BIOS and SeaBIOS, and screens, with the same VGA BIOS of Debian's, pixel by pixel with QEMU's.
//!
//! What is left out of a comparison is said beside it, with the reason.

use emu_tests::guest::{Machine, cached};
use emu_tests::picture::Picture;
use emu_tests::realmode::{Medium, Outcome, Registers, Step, Value, run};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);
/// Where steps may write.
const BUFFER: u16 = 0x3000;
const CARRY: u16 = 0x01;
const ZERO: u16 = 0x40;
/// QEMU makes 8 bits of the DAC's 6 by repeating the lowest bit, emu the highest ones.
const DAC_TOLERANCE: u8 = 3;
/// And leaves the low bits of the 5 that modes of 15 bits have zero, where emu repeats the highest ones.
const HIGH_COLOUR_TOLERANCE: u8 = 7;
const HIGH_COLOUR_MODES: [u16; 2] = [0x10D, 0x110];
/// How wide 40 columns of text are: in emu as on a VGA, in QEMU.
const NINE_DOTS: usize = 720;
const EIGHT_DOTS: usize = 640;
/// Debian's VGA BIOS, which both emu and QEMU find by themselves.
const VGA_BIOS: &str = "/usr/share/seabios/vgabios-stdvga.bin";

fn call(interrupt: u8, ax: u16, bx: u16, cx: u16, dx: u16) -> Step {
    Step::Call { interrupt, registers: Registers { ax, bx, cx, dx, es: BUFFER, ds: BUFFER, ..Registers::default() } }
}

/// The same with SI, DI and the upper halves of EAX, EBX, ECX, EDX.
fn call_wide(interrupt: u8, [ax, bx, cx, dx]: [u16; 4], [si, di]: [u16; 2], high: [u16; 4]) -> Step {
    let registers = Registers { ax, bx, cx, dx, si, di, es: BUFFER, ds: BUFFER, high, ..Registers::default() };
    Step::Call { interrupt, registers }
}

fn dump(segment: u16, offset: u16, length: u16) -> Step {
    Step::Dump { segment, offset, length }
}

fn on(machine: &Machine, medium: Medium, arguments: &[OsString], steps: &[Step]) -> Outcome {
    run(machine, medium, arguments, steps, LIMIT).unwrap_or_else(|error| panic!("{error}"))
}

fn emu() -> Machine {
    match Machine::under_test() {
        Ok(machine @ Machine::Emu(_)) => machine,
        Ok(Machine::Qemu) => panic!("emu is what is compared"),
        Err(error) => panic!("{error}"),
    }
}

fn seabios() -> Vec<OsString> {
    let bios = cached("firmware", "bios-256k.bin").unwrap_or_else(|error| panic!("{error}"));
    vec!["-bios".into(), bios.into()]
}

/// Which of a call's results count.
#[derive(Clone, Copy)]
struct Counting {
    /// AX, BX, CX, DX, SI, DI, BP, ES, DS: a mask for each.
    registers: [u16; 9],
    flags: u16,
    /// Of the upper halves of EAX, EBX, ECX, EDX.
    high: bool,
}

const ALL: Counting = Counting { registers: [0xFFFF; 9], flags: CARRY, high: true };

impl Counting {
    fn without(mut self, registers: &[usize]) -> Counting {
        registers.iter().for_each(|&register| self.registers[register] = 0);
        self
    }

    fn masked(mut self, register: usize, mask: u16) -> Counting {
        self.registers[register] = mask;
        self
    }

    fn apply(self, r: &Registers) -> ([u16; 10], Option<[u16; 4]>) {
        let mut values = [r.ax, r.bx, r.cx, r.dx, r.si, r.di, r.bp, r.es, r.ds, r.flags & self.flags];
        values.iter_mut().zip(self.registers).for_each(|(value, mask)| *value &= mask);
        (values, self.high.then_some(r.high))
    }
}

/// Names in [`Counting::without`].
const AX: usize = 0;
const BX: usize = 1;
const CX: usize = 2;
const DX: usize = 3;
const SI: usize = 4;
const DI: usize = 5;
const BP: usize = 6;
const ES: usize = 7;

/// Runs the steps, each with what of its result counts, under the built-in BIOS and under SeaBIOS, and compares.
fn compare(medium: Medium, arguments: &[OsString], steps: &[(Step, Counting)]) {
    let plain: Vec<Step> = steps.iter().map(|(step, _)| step.clone()).collect();
    let ours = on(&emu(), medium, arguments, &plain);
    let theirs = on(&emu(), medium, &[seabios(), arguments.to_vec()].concat(), &plain);
    let mut differences = Vec::new();
    for ((step, counting), (a, b)) in steps.iter().zip(ours.results.iter().zip(&theirs.results)) {
        let same = match (a, b) {
            (Value::Registers(a), Value::Registers(b)) => counting.apply(a) == counting.apply(b),
            _ => a == b,
        };
        if !same {
            differences.push(format!("{step:X?}\n  ours    {a:X?}\n  SeaBIOS {b:X?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn int15_and_system_services_agree_with_seabios() {
    // Our EBDA is a KiB larger, and so are our tables at the end of memory.
    let mut steps = vec![(call(0x11, 0, 0, 0, 0), ALL), (call(0x12, 0, 0, 0, 0), ALL.without(&[AX]))];
    for ax in [0x2403, 0x2400, 0x2402, 0x2401, 0x2402, 0x2407, 0x4F1E, 0x5200, 0x8300] {
        steps.push((call(0x15, ax, 0, 0, 0), ALL));
    }
    // SeaBIOS leaves AX as it was.
    for ax in [0x9000, 0x9100, 0x8301] {
        steps.push((call(0x15, ax, 0, 0, 0), ALL.without(&[AX])));
    }
    for (ax, counting) in [
        (0x8600, ALL),
        (0xC000, ALL),
        (0xC100, ALL.without(&[ES])),
        (0xE801, ALL),
        (0xFF00, ALL),
        (0x8800, ALL.without(&[AX])),
    ] {
        steps.push((call(0x15, ax, 0, 0, 1000), counting));
    }
    // APM: SeaBIOS leaves AX. Its code for protected mode is elsewhere.
    let apm = ALL.without(&[AX]);
    steps.push((call(0x15, 0x5300, 0, 0, 0), ALL));
    for function in [0x01, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0A, 0x0F, 0x10, 0x11] {
        steps.push((call(0x15, 0x5300 | function, 1, 0x0102, 0), apm));
    }
    for (ax, cx) in [(0x5307, 0), (0x5307, 1), (0x5307, 2), (0x530B, 0), (0x530E, 0x0102)] {
        steps.push((call(0x15, ax, 1, cx, 0), if ax == 0x5307 { apm } else { ALL }));
    }
    steps.push((call(0x15, 0x5302, 0, 0, 0), apm.without(&[BX, SI, DI])));
    steps.push((call(0x15, 0x5303, 0, 0, 0), Counting { high: false, ..apm.without(&[BX, SI, DI]) }));
    // The memory map: no first entry, no signature, too small a buffer, an entry that is not there. Memory from 16 MiB on in units of 64 KiB
    // is the same, as SeaBIOS's tables have as many of them.
    for (ebx, ecx, signature) in [(0u16, 20, 0x534D), (0, 24, 0x534D), (0, 20, 0), (0, 19, 0x534D), (99, 20, 0x534D)] {
        steps.push((call_wide(0x15, [0xE820, ebx, ecx, 0x4150], [0, 0x700], [0, 0, 0, signature]), ALL));
        steps.push((dump(BUFFER, 0x700, 8), ALL));
    }
    // What neither has: user devices' queries, an EISA BIOS, a screen's, a modem's.
    for ax in [
        0x0000, 0x2100, 0x4000, 0x4200, 0x4400, 0x5F00, 0x7F00, 0x8400, 0xC300, 0xC400, 0xC500, 0xC900, 0xD800, 0xE802,
        0x2404,
    ] {
        steps.push((call(0x15, ax, 0, 0, 0), ALL));
    }
    // A serial port and a printer, whose status has three bits that are nobody's.
    for ax in [0x00E3, 0x0141, 0x0300] {
        steps.push((call(0x14, ax, 0, 0, 0), ALL));
    }
    for ax in [0x0041, 0x0100, 0x0200] {
        steps.push((call(0x17, ax, 0, 0, 0), ALL.masked(AX, 0xF8FF)));
    }
    for (ax, bx) in [(0xC205, 0x0300), (0xC203, 0x0200), (0xC202, 0x0400), (0xC206, 0), (0xC204, 0), (0xC201, 0)] {
        steps.push((call(0x15, ax, bx, 0, 0), ALL));
    }
    // 3000:0000 to 2 MiB and back to 3000:0100.
    let mut table = [0u8; 48];
    let pattern: Vec<u8> = (0..16).map(|n| n * 17).collect();
    steps.push((Step::Poke { segment: BUFFER, offset: 0, bytes: pattern }, ALL));
    for (from, to) in [(0x3_0000u32, 0x20_0000u32), (0x20_0000, 0x3_0100)] {
        for (at, address) in [(0x10, from), (0x18, to)] {
            table[at..at + 2].copy_from_slice(&[0xFF, 0xFF]);
            table[at + 2..at + 5].copy_from_slice(&address.to_le_bytes()[..3]);
            table[at + 5] = 0x93;
        }
        steps.push((Step::Poke { segment: BUFFER, offset: 0x200, bytes: table.to_vec() }, ALL));
        let registers = Registers { ax: 0x8700, cx: 8, si: 0x200, es: BUFFER, ..Registers::default() };
        steps.push((Step::Call { interrupt: 0x15, registers }, ALL));
    }
    steps.push((dump(BUFFER, 0x100, 16), ALL));
    compare(Medium::Diskette, &["-parallel".into(), "null".into()], &steps);
}

#[test]
fn int16_agrees_with_seabios() {
    let flags = Counting { flags: CARRY | ZERO, ..ALL };
    let mut steps = vec![(call(0x16, 0x0100, 0, 0, 0), flags), (call(0x16, 0x1100, 0, 0, 0), flags)];
    for ax in [0x0200, 0x1200, 0x0900, 0x0A00, 0x9200, 0xA200, 0x6F00, 0x6F08, 0x2000, 0x5500, 0xFF00] {
        steps.push((call(0x16, ax, 0, 0, 0), ALL));
    }
    steps.push((call(0x16, 0x0305, 0x0104, 0, 0), ALL));
    // A letter, a gray arrow, F11, which only the enhanced functions know, and the keypad's Enter.
    for key in [0x1E61, 0x48E0, 0x8500, 0xE00D] {
        for read in [0x0000, 0x1000] {
            // The old functions drop it, in SeaBIOS they do not.
            if key == 0x8500 && read == 0 {
                continue;
            }
            steps.push((call(0x16, 0x0500, 0, key, 0), ALL));
            steps.push((call(0x16, read | 0x0100, 0, 0, 0), flags));
            steps.push((call(0x16, read, 0, 0, 0), ALL));
        }
    }
    // The buffer holds 15.
    for key in 0..17 {
        steps.push((call(0x16, 0x0500, 0, 0x0231 + key, 0), ALL));
    }
    for _ in 0..15 {
        steps.push((call(0x16, 0x1000, 0, 0, 0), ALL));
    }
    steps.push((call(0x16, 0x1100, 0, 0, 0), flags));
    compare(Medium::Diskette, &[], &steps);
}

#[test]
fn int13_agrees_with_seabios() {
    let file = std::env::temp_dir().join(format!("emu-suite-disk-{}", std::process::id()));
    let sectors: Vec<u8> = (0..20160u32).flat_map(|n| n.to_le_bytes().repeat(128)).collect();
    std::fs::write(&file, sectors).expect("a disk");
    let mut steps = Vec::new();
    for drive in [0, 0x80, 0x81] {
        for (ax, bx, cx, dx) in [
            (0x0000, 0, 0, 0),
            (0x0100, 0, 0, 0),
            (0x0201, 0, 1, 0),
            (0x0202, 0x200, 0x0102, 0x100),
            (0x0401, 0, 1, 0),
            (0x1000, 0, 0, 0),
            (0x0C00, 0, 0x0101, 0),
        ] {
            steps.push((call(0x13, ax, bx, cx, dx | drive), ALL));
        }
        // We tell that diskette drives have a change line. SeaBIOS leaves DX for a disk that is not there.
        steps.push((call(0x13, 0x1500, 0, 0, drive), ALL.without(&[AX, DX])));
        // The table is elsewhere; SeaBIOS keeps a disk's last cylinder to itself.
        steps.push((call(0x13, 0x0800, 0, 0, drive), ALL.without(if drive == 0 { &[DI] } else { &[CX] })));
        steps.push((call(0x13, 0x4100, 0x55AA, 0, drive), ALL));
        // No such sector, which has a status of its own here; no such function.
        steps.push((call(0x13, 0x0201, 0, 0x003F, drive), ALL.without(&[AX])));
        steps.push((call(0x13, 0x0100, 0, 0, drive), ALL.without(&[AX])));
        steps.push((call(0x13, 0x7700, 0, 0, drive), ALL));
    }
    // The diskette past what hooks INT 13h.
    steps.push((call(0x40, 0x0201, 0x400, 0x0203, 0), ALL));
    steps.push((call(0x40, 0x0800, 0, 0, 0), ALL.without(&[DI])));
    steps.push((dump(BUFFER, 0, 0x600), ALL));
    // Extensions: read two sectors, write one elsewhere, read it back, one behind the end.
    let packet = |count: u8, offset: u16, block: u32| {
        let mut bytes = vec![0x10, 0, count, 0];
        bytes.extend([offset, BUFFER].map(u16::to_le_bytes).concat());
        bytes.extend(u64::from(block).to_le_bytes());
        (Step::Poke { segment: BUFFER, offset: 0x2000, bytes }, ALL)
    };
    for (ax, count, offset, block) in [
        (0x4200, 2, 0x800, 1000),
        (0x4300, 1, 0x800, 3000),
        (0x4200, 1, 0xA00, 3000),
        (0x4400, 1, 0xA00, 3000),
        (0x4700, 1, 0xA00, 3000),
        (0x4200, 1, 0xA00, 0x10_0000),
    ] {
        steps.push(packet(count, offset, block));
        let registers = Registers { ax, dx: 0x80, si: 0x2000, ds: BUFFER, es: BUFFER, ..Registers::default() };
        steps.push((Step::Call { interrupt: 0x13, registers }, ALL));
    }
    steps.push((dump(BUFFER, 0x800, 0x400), ALL));
    compare(Medium::Diskette, &["-snapshot".into(), "-hda".into(), file.clone().into()], &steps);
    std::fs::remove_file(&file).expect("it was just written");
}

/// The diskette as the boot image of a CD, with a real diskette drive beside it, which moves on.
#[test]
fn int13_of_an_emulated_diskette_agrees_with_seabios() {
    let packet = Registers { ax: 0x4B01, dx: 0, si: 0x3000, ds: BUFFER, es: BUFFER, ..Registers::default() };
    let status = Step::Call { interrupt: 0x13, registers: packet };
    let steps = [
        (status.clone(), ALL),
        // The geometry behind it is the other way round in SeaBIOS: El Torito 1.0, figure 5, has CH, CL, DH as INT 13h AH=08h.
        (dump(BUFFER, 0x3000, 0x10), ALL),
        (call(0x13, 0x0800, 0, 0, 0), ALL.without(&[BX, DI, ES])),
        (call(0x13, 0x0202, 0, 0x4F11, 0x100), ALL),
        (call(0x13, 0x0201, 0x200, 0x0001, 0), ALL),
        (call(0x13, 0x0301, 0x200, 0x0001, 0), ALL.without(&[AX])),
        (dump(BUFFER, 0x3FE, 2), ALL),
        (call(0x11, 0, 0, 0, 0), ALL.without(&[AX])),
        (status, ALL),
    ];
    compare(Medium::Cd, &[], &steps);
}

#[test]
fn int1a_agrees_with_seabios() {
    // SeaBIOS leaves in AL what it last read of the clock. Seconds and ticks go on.
    let clock = ALL.masked(AX, 0xFF00);
    let mut steps = vec![
        (call(0x1A, 0x0100, 0, 0x0012, 0x3456), ALL),
        (call(0x1A, 0x0000, 0, 0, 0), ALL.without(&[DX])),
        (call(0x1A, 0x0300, 0, 0x1259, 0x3000), clock),
        (call(0x1A, 0x0500, 0, 0x2031, 0x1224), clock),
        (call(0x1A, 0x0400, 0, 0, 0), clock),
        (call(0x1A, 0x0200, 0, 0, 0), clock.masked(DX, 0xF0FF)),
        // An alarm, a second one, none.
        (call(0x1A, 0x0600, 0, 0x1301, 0), ALL.without(&[AX])),
        (call(0x1A, 0x0600, 0, 0x1301, 0), ALL.without(&[AX])),
        (call(0x1A, 0x0700, 0, 0, 0), clock),
        // Functions that there are not; of the PCI BIOS neither.
        (call(0x1A, 0x0B00, 0, 0, 0), ALL),
        (call(0x1A, 0x3500, 0, 0, 0), ALL),
        (call(0x1A, 0xB106, 0, 0, 0), ALL),
        (call(0x1A, 0xB10F, 0, 0, 0), ALL),
        // The entry point for protected mode is elsewhere.
        (call(0x1A, 0xB101, 0, 0, 0), ALL.without(&[DI])),
    ];
    // The IDE function by its identity, a second one, one of nobody, which SeaBIOS does not tell from one that is not there.
    let found = |[ax, cx, dx, si]: [u16; 4], high| call_wide(0x1A, [ax, 0, cx, dx], [si, 0], [0, 0, high, 0]);
    steps.push((found([0xB102, 0x7010, 0x8086, 0], 0), ALL));
    steps.push((found([0xB102, 0x7010, 0x8086, 1], 0), ALL));
    steps.push((found([0xB102, 0x7010, 0xFFFF, 0], 0), ALL.without(&[AX])));
    // By class: IDE, the host bridge, a second one.
    for (cx, si, class) in [(0x0180, 0, 0x0001), (0x0000, 0, 0x0006), (0x0000, 1, 0x0006)] {
        steps.push((found([0xB103, cx, 0, si], class), ALL));
    }
    // Its registers, in bytes, words, dwords; a function that is not there; writes of the interrupt line.
    for (ax, bx, cx, di) in [
        (0xB108, 0x0009, 0, 0x0B),
        (0xB109, 0x0009, 0, 0x0A),
        (0xB10A, 0x0009, 0, 0x00),
        (0xB10A, 0xFFF8, 0, 0x00),
        (0xB10B, 0x0009, 0x05, 0x3C),
        (0xB108, 0x0009, 0, 0x3C),
        (0xB10C, 0x0009, 0x0107, 0x3C),
        (0xB109, 0x0009, 0, 0x3C),
        (0xB10D, 0x0009, 0x0009, 0x3C),
        (0xB10A, 0x0009, 0, 0x3C),
    ] {
        steps.push((call_wide(0x1A, [ax, bx, cx, 0], [0, di], [0; 4]), ALL));
    }
    // Routing options, for which there is no room. Our table has more devices.
    steps.push((Step::Poke { segment: BUFFER, offset: 0x600, bytes: vec![0x10, 0, 0, 7, 0, 0x30] }, ALL));
    steps.push((call_wide(0x1A, [0xB10E, 0, 0, 0], [0, 0x600], [0; 4]), ALL));
    compare(Medium::Diskette, &[], &steps);
}

/// All modes of IBM's, each with text, dots, scrolling and colours on it.
fn modes() -> Vec<(u16, Vec<Step>)> {
    let mode = |mode: u16| {
        let mut steps = vec![call(0x10, mode, 0, 0, 0), call(0x10, 0x0F00, 0, 0, 0), call(0x10, 0x0100, 0, 0x2000, 0)];
        let text = b"Mode with text, \r\nscrolled and coloured";
        steps.extend(text.iter().map(|&c| call(0x10, 0x0E00 | u16::from(c), 0x0007, 0, 0)));
        steps.push(call(0x10, 0x0200, 0, 0, 0x0503));
        steps.push(call(0x10, 0x0900 | u16::from(b'#'), 0x0004, 9, 0));
        steps.push(call(0x10, 0x0200, 0, 0, 0x0704));
        steps.push(call(0x10, 0x0A00 | u16::from(b'\x01'), 0x0002, 5, 0));
        steps.push(call(0x10, 0x0300, 0, 0, 0));
        if (4..7).contains(&mode) || mode > 7 {
            for n in 0..40 {
                steps.push(call(0x10, 0x0C00 | (n & 0xF), 0, 50 + n, 90 + n / 2));
            }
            steps.push(call(0x10, 0x0D00, 0, 53, 91));
        } else {
            steps.push(call(0x10, 0x0800, 0, 0, 0));
        }
        // Attribute 1 of mode 7 is underlined, which QEMU does not draw.
        let fill = if mode == 7 { 0x0700 } else { 0x0100 };
        steps.push(call(0x10, 0x0601, fill, 0x0000, 0x0A14));
        steps.push(call(0x10, 0x0702, 0x0200, 0x0C02, 0x1010));
        // Palette register 4, the border, and a colour of the DAC.
        steps.push(call(0x10, 0x1000, 0x0204, 0, 0));
        steps.push(call(0x10, 0x1010, 0x0007, 0x2010, 0x3F00));
        steps.push(call(0x10, 0x1015, 0x0007, 0, 0));
        steps.push(Step::Screen);
        (mode, steps)
    };
    [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0D, 0x0E, 0x0F, 0x10, 0x11, 0x12, 0x13].map(mode).into()
}

#[test]
fn int10_agrees_with_seavgabios() {
    let steps: Vec<(Step, Counting)> = modes()
        .into_iter()
        .flat_map(|(_, steps)| steps)
        .filter(|step| !matches!(step, Step::Screen))
        .map(|step| (step, ALL))
        .collect();
    compare(Medium::Diskette, &[], &steps);
}

/// What the VGA BIOS tells and switches, without anything to see.
#[test]
fn int10_information_agrees_with_seavgabios() {
    let ten = |ax: u16, bx: u16, cx: u16, dx: u16| call_wide(0x10, [ax, bx, cx, dx], [0, 0x200], [0; 4]);
    let mut steps = vec![(ten(0x0003, 0, 0, 0), ALL)];
    // What there is not changes nothing.
    for ax in [0x0400, 0x1500, 0x1600, 0x1900, 0x1D00, 0x4000, 0x6F00, 0x8000, 0xEF00, 0xFA00, 0xFE00, 0xFF00] {
        steps.push((ten(ax, 0, 0, 0), ALL));
    }
    // Configuration: SeaBIOS has no feature bits (CH). Scan lines, palette, grey scales, cursor, refresh.
    steps.push((ten(0x1200, 0x10, 0, 0), ALL.masked(CX, 0x00FF)));
    for (al, bl) in [
        (2, 0x30),
        (0, 0x31),
        (1, 0x32),
        (0, 0x32),
        (0, 0x33),
        (1, 0x33),
        (0, 0x34),
        (1, 0x36),
        (0, 0x36),
        (0, 0x35),
        (0, 0x55),
    ] {
        steps.push((ten(0x1200 | al, bl, 0, 0), ALL));
    }
    // Palette and DAC.
    for (al, bx, cx, dx) in [
        (0x00, 0x0305, 0, 0),
        (0x07, 0x0005, 0, 0),
        (0x01, 0x0200, 0, 0),
        (0x08, 0, 0, 0),
        (0x03, 0, 0, 0),
        (0x03, 1, 0, 0),
        (0x10, 0x0020, 0x1122, 0x3300),
        (0x15, 0x0020, 0, 0),
        (0x13, 0x0001, 0, 0),
        (0x1A, 0, 0, 0),
        (0x13, 0x0000, 0, 0),
        (0x18, 0x00FF, 0, 0),
        (0x19, 0, 0, 0),
        (0x1B, 0x0020, 1, 0),
        (0x15, 0x0020, 0, 0),
    ] {
        steps.push((ten(0x1000 | al, bx, cx, dx), ALL));
    }
    // Fonts: where they are differs.
    let fonts = ALL.without(&[BP]);
    for bh in 0..8 {
        steps.push((ten(0x1130, bh << 8, 0, 0), fonts));
    }
    // SeaBIOS keeps the cursor's shape as it makes it for a font of more lines.
    for (al, bx) in [(0x01, 0), (0x02, 0), (0x04, 0), (0x11, 0), (0x12, 0), (0x14, 0), (0x22, 2), (0x23, 3), (0x24, 1)]
    {
        steps.push((ten(0x0003, 0, 0, 0), ALL));
        steps.push((ten(0x1100 | al, bx, 0, 0), ALL));
        steps.push((ten(0x1130, 0, 0, 0), fonts));
        steps.push((ten(0x0F00, 0, 0, 0), ALL));
        steps.push((ten(0x0300, 0, 0, 0), ALL.without(&[CX])));
    }
    steps.push((ten(0x0003, 0, 0, 0), ALL));
    for ax in [0x1A00, 0x1A01, 0x1A00, 0x1B00] {
        steps.push((ten(ax, if ax == 0x1A01 { 0x0008 } else { 0 }, 0, 0), ALL));
    }
    // The state: mode, columns, page, cursor's page, CRTC's port; then what SeaBIOS has not got.
    steps.push((dump(BUFFER, 0x204, 7), ALL));
    steps.push((dump(BUFFER, 0x21B, 5), ALL));
    steps.push((dump(BUFFER, 0x223, 6), ALL));
    // Saved state has a size of its own; what is saved is restored.
    for states in [1, 2, 4, 7] {
        for function in [0x1C00, 0x1C01, 0x1C02] {
            steps.push((ten(function, 0x200, states, 0), if function == 0x1C00 { ALL.without(&[BX]) } else { ALL }));
        }
    }
    // VBE without a mode, in one of 256 colours, in one of 16 bits, and with a linear framebuffer.
    let sized = ALL.without(&[BX]);
    for (ax, bx, cx, counting) in [
        (0x4F00, 0, 0, ALL),
        (0x4F01, 0, 0x0101, ALL),
        (0x4F01, 0, 0x9999, ALL),
        (0x4F02, 0x9999, 0, ALL),
        (0x4F03, 0, 0, ALL),
        (0x4F04, 0, 0x0F, sized),
        (0x4F15, 0, 0, sized),
        (0x4F15, 1, 0, ALL),
        (0x4F10, 0, 0, sized),
        (0x4F0C, 0, 0, ALL),
        (0x4FFF, 0, 0, ALL),
    ] {
        steps.push((ten(ax, bx, cx, 0), counting));
    }
    for mode in [0x0101, 0x0111, 0x4101] {
        let mut vbe = |ax: u16, bx: u16, cx: u16, dx: u16, counting| steps.push((ten(ax, bx, cx, dx), counting));
        vbe(0x4F02, mode, 0, 0, ALL);
        vbe(0x4F03, 0, 0, 0, ALL);
        // Banks, the line's length in dots, where the screen begins. SeaBIOS does not tell in which line.
        if mode < 0x4000 {
            vbe(0x4F05, 0, 0, 1, ALL);
            vbe(0x4F05, 0x100, 0, 0, ALL);
            vbe(0x4F05, 0, 0, 0xFFFF, ALL);
            vbe(0x4F05, 2, 0, 0, ALL);
        }
        vbe(0x4F06, 0, 1024, 0, ALL);
        vbe(0x4F06, 1, 0, 0, ALL);
        vbe(0x4F06, 4, 0, 0, ALL);
        vbe(0x4F07, 0, 5, 7, ALL);
        vbe(0x4F07, 1, 0, 0, ALL.without(&[DX]));
        vbe(0x4F07, 2, 0, 0, ALL);
        vbe(0x4F08, 1, 0, 0, if mode == 0x0111 { sized } else { ALL });
        vbe(0x4F08, 0x800, 0, 0, ALL);
        vbe(0x4F08, 1, 0, 0, if mode == 0x0111 { sized } else { ALL });
        // More dots than 16 bits of bytes: SeaBIOS takes fewer, we none. (It was a division by zero.)
        vbe(0x4F06, 0, 0xFFFF, 0, ALL.without(&[AX, BX, CX, DX]));
    }
    steps.push((ten(0x0003, 0, 0, 0), ALL));
    steps.push((ten(0x4F03, 0, 0, 0), ALL));
    compare(Medium::Diskette, &[], &steps);
}

/// Modes of the VBE: 8, 15, 16, 24 and 32 bits to the dot, each with text, with dots in two banks, and seen through a window that does not begin
/// where memory does. Not 4 bits: QEMU 7.2 loses what is written to planes while the VBE is on.
fn vbe_modes() -> Vec<(u16, Vec<Step>)> {
    const TEXT: &[u8] = b"A mode with a frame buffer";
    let mode = |mode: u16| {
        let text =
            Registers { ax: 0x1301, bx: 0x0007, cx: TEXT.len() as u16, dx: 0x0203, es: BUFFER, ..Registers::default() };
        let mut steps = vec![
            call(0x10, 0x4F02, mode, 0, 0),
            call(0x10, 0x4F03, 0, 0, 0),
            Step::Poke { segment: BUFFER, offset: 0, bytes: TEXT.into() },
            Step::Call { interrupt: 0x10, registers: text },
        ];
        for (bank, offset, step) in [(0, 0x2000, 1u16), (0, 0x7FF0, 7), (1, 0x0100, 29)] {
            steps.push(call(0x10, 0x4F05, 0, 0, bank));
            let bytes = (0..700u16).map(|n| (n.wrapping_mul(step) ^ n >> 3) as u8).collect();
            steps.push(Step::Poke { segment: 0xA000, offset, bytes });
        }
        steps.push(call(0x10, 0x4F05, 0, 0, 0));
        // Colours with 8 bits, where there is a palette.
        steps.push(call(0x10, 0x4F08, 0x0800, 0, 0));
        steps.push(call(0x10, 0x1010, 0x0007, 0xC3A5, 0x5A00));
        steps.push(call(0x10, 0x4F06, 0, 1152, 0));
        steps.push(call(0x10, 0x4F07, 0, 16, 3));
        steps.push(Step::Screen);
        (mode, steps)
    };
    [0x100, 0x101, 0x103, 0x10D, 0x10E, 0x10F, 0x110, 0x112, 0x114, 0x118, 0x142, 0x143].map(mode).into()
}

#[test]
fn screens_of_all_modes_are_qemus() {
    screens_are_qemus(&modes());
}

#[test]
fn screens_of_vbe_modes_are_qemus() {
    screens_are_qemus(&vbe_modes());
}

fn screens_are_qemus(modes: &[(u16, Vec<Step>)]) {
    if Command::new("qemu-system-x86_64").arg("-version").output().is_err() || !Path::new(VGA_BIOS).exists() {
        eprintln!("NOT TESTED: screens, as qemu-system-x86_64 or {VGA_BIOS} is not installed");
        return;
    }
    let steps: Vec<Step> = modes.iter().flat_map(|(_, steps)| steps.clone()).collect();
    let ours = on(&emu(), Medium::Diskette, &seabios(), &steps);
    let theirs = on(&Machine::Qemu, Medium::Diskette, &seabios(), &steps);
    let mut differences = Vec::new();
    for (step, (a, b)) in steps.iter().zip(ours.results.iter().zip(&theirs.results)) {
        if a != b {
            differences.push(format!("{step:X?}\n  emu  {a:X?}\n  QEMU {b:X?}"));
        }
    }
    for ((mode, _), (a, b)) in modes.iter().zip(ours.screens.iter().zip(&theirs.screens)) {
        let narrow = (a.width == NINE_DOTS && b.width == EIGHT_DOTS).then(|| without_ninth_dots(a));
        let tolerance = if HIGH_COLOUR_MODES.contains(mode) { HIGH_COLOUR_TOLERANCE } else { DAC_TOLERANCE };
        match narrow.as_ref().unwrap_or(a).compare(b, tolerance) {
            Ok(found) if found.pixels == 0 => {}
            Ok(found) => {
                differences.push(format!("mode {mode:X}h: {} pixels differ in {:?}", found.pixels, found.bounds))
            }
            Err(problem) => differences.push(format!("mode {mode:X}h: {problem}")),
        }
        keep(*mode, a, b);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A picture of 40 columns, whose characters are 9 dots of two pixels wide, with 8 dots instead.
fn without_ninth_dots(picture: &Picture) -> Picture {
    let kept = picture.pixels.chunks(2 * 9).flat_map(|character| &character[..2 * 8]);
    Picture { width: EIGHT_DOTS, height: picture.height, pixels: kept.copied().collect() }
}

/// Leaves both screens where the environment's `EMU_SUITE_PICTURES` says.
fn keep(mode: u16, ours: &Picture, theirs: &Picture) {
    let Some(folder) = std::env::var_os("EMU_SUITE_PICTURES").map(std::path::PathBuf::from) else { return };
    for (name, picture) in [("emu", ours), ("qemu", theirs)] {
        picture.write_ppm(&folder.join(format!("{mode:02x}-{name}.ppm"))).expect("a picture");
    }
}

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
/// How wide 40 columns of text are: in emu as on a VGA, in QEMU.
const NINE_DOTS: usize = 720;
const EIGHT_DOTS: usize = 640;
/// Debian's VGA BIOS, which both emu and QEMU find by themselves.
const VGA_BIOS: &str = "/usr/share/seabios/vgabios-stdvga.bin";

fn call(interrupt: u8, ax: u16, bx: u16, cx: u16, dx: u16) -> Step {
    Step::Call { interrupt, registers: Registers { ax, bx, cx, dx, es: BUFFER, ds: BUFFER, ..Registers::default() } }
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
}

const ALL: Counting = Counting { registers: [0xFFFF; 9], flags: CARRY };

impl Counting {
    fn without(mut self, registers: &[usize]) -> Counting {
        registers.iter().for_each(|&register| self.registers[register] = 0);
        self
    }

    fn apply(self, r: &Registers) -> [u16; 10] {
        let mut values = [r.ax, r.bx, r.cx, r.dx, r.si, r.di, r.bp, r.es, r.ds, r.flags & self.flags];
        values.iter_mut().zip(self.registers).for_each(|(value, mask)| *value &= mask);
        values
    }
}

/// Names in [`Counting::without`].
const AX: usize = 0;
const BX: usize = 1;
const CX: usize = 2;
const DX: usize = 3;
const DI: usize = 5;
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
    // APM: SeaBIOS has a protected-mode interface as well (CX), and leaves AX.
    for (ax, left_out) in [(0x5300, CX), (0x5301, AX), (0x530A, AX), (0x5304, AX)] {
        steps.push((call(0x15, ax, 0, 0, 0), ALL.without(&[left_out])));
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
    compare(Medium::Diskette, &[], &steps);
}

#[test]
fn int16_agrees_with_seabios() {
    let flags = Counting { flags: CARRY | ZERO, ..ALL };
    let mut steps = vec![(call(0x16, 0x0100, 0, 0, 0), flags), (call(0x16, 0x1100, 0, 0, 0), flags)];
    for ax in [0x0200, 0x1200, 0x0900, 0x0A00, 0x9200, 0xA200] {
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

#[test]
fn screens_of_all_modes_are_qemus() {
    if Command::new("qemu-system-x86_64").arg("-version").output().is_err() || !Path::new(VGA_BIOS).exists() {
        eprintln!("NOT TESTED: screens, as qemu-system-x86_64 or {VGA_BIOS} is not installed");
        return;
    }
    let modes = modes();
    let steps: Vec<Step> = modes.iter().flat_map(|(_, steps)| steps.clone()).collect();
    let ours = on(&emu(), Medium::Diskette, &seabios(), &steps);
    let theirs = on(&Machine::Qemu, Medium::Diskette, &seabios(), &steps);
    assert_eq!(ours.results, theirs.results);
    let mut differences = Vec::new();
    for ((mode, _), (a, b)) in modes.iter().zip(ours.screens.iter().zip(&theirs.screens)) {
        let narrow = (a.width == NINE_DOTS && b.width == EIGHT_DOTS).then(|| without_ninth_dots(a));
        match narrow.as_ref().unwrap_or(a).compare(b, DAC_TOLERANCE) {
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

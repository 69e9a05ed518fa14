//! The VGA BIOS under QEMU with SeaBIOS: a real-mode program calls INT 10h, and what it gets back and shows is compared with SeaVGABIOS
//! doing the same. Where QEMU or SeaVGABIOS is not installed, there is nothing to compare with and the tests say so.

#[path = "vga/guest.rs"]
mod guest;

use guest::{Call, Outcome, REFERENCE, Step, Value, run};
use std::path::Path;

/// Runs the steps under both BIOSes: ours, SeaVGABIOS's.
fn both(name: &str, steps: &[Step]) -> Option<(Outcome, Outcome)> {
    if !Path::new(REFERENCE).exists() {
        eprintln!("{REFERENCE} is not installed");
        return None;
    }
    let image = std::env::temp_dir().join(format!("emu-vgabios-{name}-{}.bin", std::process::id()));
    std::fs::write(&image, firmware::VGA_BIOS).expect("the temporary folder takes a file");
    let ours = run(&image, steps);
    std::fs::remove_file(&image).expect("it was just written");
    let Some(ours) = ours else {
        eprintln!("qemu-system-x86_64 is not installed");
        return None;
    };
    Some((ours, run(Path::new(REFERENCE), steps).expect("QEMU ran before")))
}

fn call(ax: u16, bx: u16, cx: u16, dx: u16) -> Step {
    Step::Int10(Call { ax, bx, cx, dx, ..Call::default() })
}

fn assert_same(steps: &[Step], (ours, reference): &(Outcome, Outcome)) {
    let mut differences = Vec::new();
    for ((step, ours), reference) in steps.iter().zip(&ours.results).zip(&reference.results) {
        if ours != reference {
            differences.push(format!("{step:X?}\n  ours      {ours:X?}\n  reference {reference:X?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn assert_same_screens((ours, reference): &(Outcome, Outcome)) {
    assert_eq!(ours.screens.len(), reference.screens.len());
    for (index, (ours, reference)) in ours.screens.iter().zip(&reference.screens).enumerate() {
        let head = |ppm: &[u8]| String::from_utf8_lossy(&ppm[..ppm.len().min(16)]).into_owned();
        assert_eq!(head(ours), head(reference), "size of screen {index}");
        let different = ours.iter().zip(reference).filter(|(a, b)| a != b).count();
        assert_eq!(different, 0, "bytes of screen {index}");
    }
}

/// The video fields of the BIOS data area: 40:49-66 and 84-8A.
const BDA_VIDEO: [Step; 2] =
    [Step::Dump { segment: 0x40, offset: 0x49, length: 0x1E }, Step::Dump { segment: 0x40, offset: 0x84, length: 3 }];

#[test]
fn modes_cursor_and_bios_data() {
    let mut steps = Vec::new();
    for mode in [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0D, 0x0E, 0x0F, 0x10, 0x11, 0x12, 0x13, 0x83, 0x03] {
        steps.push(call(mode, 0, 0, 0));
        steps.push(call(0x0F00, 0, 0, 0));
        steps.push(call(0x0200, 0x0000, 0, 0x0507));
        steps.push(call(0x0300, 0x0000, 0, 0));
        steps.push(call(0x1130, 0x0000, 0, 0));
        steps.extend(BDA_VIDEO);
    }
    if let Some(mut outcomes) = both("modes", &steps) {
        // SeaVGABIOS leaves 40:65 and 40:66 alone, and has mode 0Fh at 3D4h, where IBM has it at 3B4h. Fonts lie elsewhere.
        for outcome in [&mut outcomes.0, &mut outcomes.1] {
            for (step, value) in steps.iter().zip(&mut outcome.results) {
                match (step, value) {
                    (Step::Dump { length: 0x1E, .. }, Value::Bytes(bytes)) if bytes[0] == 0x0F => bytes.truncate(0x1A),
                    (Step::Dump { length: 0x1E, .. }, Value::Bytes(bytes)) => bytes.truncate(0x1C),
                    (Step::Int10(call), Value::Registers(registers)) if call.ax == 0x1130 => registers.bp = 0,
                    _ => {}
                }
            }
        }
        assert_same(&steps, &outcomes);
    }
}

#[test]
fn dots_and_scrolling_of_graphics_look_the_same() {
    let mut steps = Vec::new();
    for mode in [0x04, 0x05, 0x06, 0x0D, 0x0E, 0x0F, 0x10, 0x11, 0x12, 0x13] {
        steps.push(call(mode, 0, 0, 0));
        for index in 0..40 {
            steps.push(call(0x0C01 | (index % 16), 0, index * 7, index * 4));
            // Twice, with exclusive or where that exists.
            steps.push(call(0x0C85, 0, index * 3, 20));
        }
        steps.push(call(0x0D00, 0, 7, 4));
        steps.push(call(0x0D00, 0, 3, 20));
        // Rectangles filled with a colour, then moved up and down.
        steps.push(call(0x0600, 0x0200, 0x0A04, 0x0F14));
        steps.push(call(0x0600, 0x0100, 0x1004, 0x1108));
        steps.push(call(0x0603, 0x0000, 0x0002, 0x1120));
        steps.push(call(0x0702, 0x0300, 0x0402, 0x1218));
        // Not modes 0Fh and 11h, whose palette registers SeaVGABIOS loads otherwise than IBM: colours above 1 look different.
        if ![0x0F, 0x11].contains(&mode) {
            steps.push(Step::Screen);
        }
    }
    if let Some(outcomes) = both("graphics", &steps) {
        assert_same(&steps, &outcomes);
        assert_same_screens(&outcomes);
    }
}

#[test]
fn text_in_all_its_modes_is_the_same_in_memory() {
    let mut steps = Vec::new();
    let string = b"String\r\nwith lines\x08!";
    steps.push(Step::Poke { segment: 0, offset: 0x700, bytes: string.to_vec() });
    steps.push(Step::Poke { segment: 0, offset: 0x740, bytes: b"a\x01b\x02c\x03d\x04".to_vec() });
    for (mode, segment) in [(0x01, 0xB800), (0x03, 0xB800), (0x07, 0xB000)] {
        steps.push(call(mode, 0, 0, 0));
        steps.push(call(0x0941, 0x001F, 50, 0));
        steps.push(call(0x0200, 0, 0, 0x0203));
        steps.push(call(0x0A42, 0x0000, 7, 0));
        steps.push(call(0x0800, 0, 0, 0));
        for character in *b"Tele\r\ntype\x08\x08X" {
            steps.push(call(0x0E00 | u16::from(character), 7, 0, 0));
        }
        for _ in 0..26 {
            steps.push(call(0x0E0A, 7, 0, 0));
        }
        let written = |al: u16, count, bp| {
            Step::Int10(Call { ax: 0x1300 | al, bx: 0x0E, cx: count, dx: 0x0A05, bp, ..Call::default() })
        };
        steps.push(written(1, string.len() as u16, 0x700));
        steps.push(call(0x0300, 0, 0, 0));
        steps.push(written(2, 4, 0x740));
        steps.push(call(0x0300, 0, 0, 0));
        steps.push(call(0x0602, 0x7000, 0x0305, 0x0C20));
        steps.push(call(0x0701, 0x2000, 0x0406, 0x1010));
        steps.push(Step::Dump { segment, offset: 0, length: 4000 });
        // Pages.
        steps.push(call(0x0501, 0, 0, 0));
        steps.push(call(0x0200, 0x0100, 0, 0x0102));
        steps.push(call(0x0E50, 0, 0, 0));
        steps.push(call(0x0F00, 0, 0, 0));
        steps.push(call(0x0300, 0x0100, 0, 0));
        steps.push(Step::Dump { segment: 0x40, offset: 0x4A, length: 0x1B });
        steps.push(Step::Dump { segment, offset: 0x1000, length: 400 });
    }
    if let Some(outcomes) = both("text", &steps) {
        assert_same(&steps, &outcomes);
    }
}

#[test]
fn palettes_answer_and_look_the_same() {
    let mut steps = vec![Step::Poke {
        segment: 0,
        offset: 0x700,
        bytes: (0..96).map(|index: u32| (index * 37 % 64) as u8).collect(),
    }];
    let at = |ax, bx, cx, dx| Step::Int10(Call { ax, bx, cx, dx, ..Call::default() });
    for mode in [0x03, 0x04, 0x0D, 0x12, 0x13] {
        steps.push(call(mode, 0, 0, 0));
        for row in 0..16 {
            for column in 0..8 {
                steps.push(call(0x0C00 | row, 0, row * 8 + column, row * 3 + column));
            }
            steps.push(call(0x0600, row << 8, (row << 8) | 0x08, (row << 8) | 0x0F));
        }
        if mode != 0x03 {
            steps.push(call(0x0B00, 0x0013, 0, 0));
            steps.push(call(0x0B00, 0x0100, 0, 0));
        }
        steps.push(call(0x1000, 0x3602, 0, 0));
        steps.push(call(0x1007, 0x0002, 0, 0));
        steps.push(call(0x1001, 0x0500, 0, 0));
        steps.push(call(0x1008, 0, 0, 0));
        steps.push(Step::Screen);
        steps.push(at(0x1002, 0, 0, 0x700));
        steps.push(at(0x1009, 0, 0, 0x900));
        steps.push(Step::Dump { segment: 0, offset: 0x900, length: 17 });
        steps.push(call(0x1010, 0x0003, 0x1020, 0x3F00));
        steps.push(call(0x1015, 0x0003, 0, 0));
        steps.push(at(0x1012, 8, 16, 0x700));
        steps.push(at(0x1017, 0, 64, 0x900));
        steps.push(Step::Dump { segment: 0, offset: 0x900, length: 192 });
        steps.push(call(0x101B, 0, 64, 0));
        steps.push(at(0x1017, 0, 64, 0x900));
        steps.push(Step::Dump { segment: 0, offset: 0x900, length: 192 });
        steps.push(call(0x1018, 0x000F, 0, 0));
        steps.push(call(0x1019, 0, 0, 0));
        steps.push(call(0x1018, 0x00FF, 0, 0));
        steps.push(call(0x1013, 0x0100, 0, 0));
        steps.push(call(0x101A, 0, 0, 0));
        steps.push(call(0x1013, 0x0301, 0, 0));
        steps.push(call(0x101A, 0, 0, 0));
        steps.push(call(0x1013, 0x0000, 0, 0));
        steps.push(Step::Screen);
        steps.push(call(0x1003, 0x0000, 0, 0));
        steps.push(Step::Dump { segment: 0x40, offset: 0x49, length: 2 });
    }
    if let Some(outcomes) = both("palettes", &steps) {
        assert_same(&steps, &outcomes);
        assert_same_screens(&outcomes);
    }
}

#[test]
fn glyphs_are_read_back_from_graphics() {
    let mut steps = Vec::new();
    for mode in [0x04, 0x06, 0x0D, 0x10, 0x12, 0x13] {
        steps.push(call(mode, 0, 0, 0));
        for character in [b'A', b'z', 0xDB, b'$'] {
            steps.push(call(0x0200, 0, 0, 0x0304));
            steps.push(call(0x0900 | u16::from(character), 0x0003, 3, 0));
            steps.push(call(0x0200, 0, 0, 0x0306));
            steps.push(call(0x0800, 0, 0, 0));
        }
        for character in *b"Graphics\r\nteletype\x08" {
            steps.push(call(0x0E00 | u16::from(character), 2, 0, 0));
        }
        steps.push(call(0x0300, 0, 0, 0));
    }
    if let Some((ours, reference)) = both("glyphs", &steps) {
        let low = |value: &Value| match value {
            Value::Registers(registers) => registers.ax & 0xFF,
            _ => 0,
        };
        for (step, (ours, reference)) in steps.iter().zip(ours.results.iter().zip(&reference.results)) {
            assert_eq!(low(ours), low(reference), "{step:X?}");
        }
    }
}

#[test]
fn fonts_and_selections_change_what_they_should() {
    let mut steps = Vec::new();
    for function in [0x1112, 0x1111, 0x1114, 0x1102, 0x1104] {
        steps.push(call(0x0003, 0, 0, 0));
        steps.push(call(function, 0, 0, 0));
        steps.extend(BDA_VIDEO);
        steps.push(Step::Indexed { port: 0x3D4, index: 0x09 });
        steps.push(Step::Indexed { port: 0x3D4, index: 0x12 });
        // The page can be filled to its last row.
        steps.push(call(0x0200, 0, 0, 0x1810));
        steps.push(call(0x0E0A, 0, 0, 0));
        steps.push(call(0x0300, 0, 0, 0));
    }
    steps.push(call(0x0003, 0, 0, 0));
    steps.push(call(0x1210, 0x0010, 0, 0));
    for (ax, bl) in [(0x1201, 0x34), (0x1200, 0x34), (0x1201, 0x31), (0x1200, 0x31), (0x1200, 0x36), (0x1200, 0x32)] {
        steps.push(call(ax, bl, 0, 0));
        steps.push(Step::Dump { segment: 0x40, offset: 0x87, length: 1 });
    }
    steps.push(call(0x1A00, 0, 0, 0));
    steps.push(call(0x1C00, 7, 7, 0));
    if let Some(mut outcomes) = both("fonts", &steps) {
        // 40:65 and 40:66 as above. SeaVGABIOS rounds pages up to 2 KiB, forgets the cursor's shape when fonts change and does not
        // have feature bits; 40:87 keeps to IBM's bits here. The sizes of saved states are each BIOS's own.
        for outcome in [&mut outcomes.0, &mut outcomes.1] {
            for (step, value) in steps.iter().zip(&mut outcome.results) {
                match (step, value) {
                    (Step::Dump { length: 0x1E, .. }, Value::Bytes(bytes)) => bytes.truncate(3),
                    (Step::Dump { length: 1, .. }, Value::Bytes(bytes)) => bytes[0] &= 0x01,
                    (Step::Int10(call), Value::Registers(registers)) => match call.ax {
                        0x0300 => registers.cx = 0,
                        0x1210 => registers.cx &= 0x00FF,
                        0x1C00 => registers.bx = 0,
                        _ => {}
                    },
                    _ => {}
                }
            }
        }
        assert_same(&steps, &outcomes);
    }
}

#[test]
fn state_comes_back_as_it_was_saved() {
    let bytes = Step::Dump { segment: 0x40, offset: 0x49, length: 0x1E };
    let state = |ax| Step::Int10(Call { ax, bx: 0, cx: 7, es: 0x2000, ..Call::default() });
    let colours = [
        Step::Int10(Call { ax: 0x1017, cx: 64, dx: 0x900, ..Call::default() }),
        Step::Dump { segment: 0, offset: 0x900, length: 192 },
    ];
    let mut steps =
        vec![call(0x0003, 0, 0, 0), call(0x0200, 0, 0, 0x0304), call(0x1010, 5, 0x0102, 0x0300), bytes.clone()];
    steps.extend(colours.clone());
    steps.extend([state(0x1C01), call(0x0013, 0, 0, 0), state(0x1C02), bytes]);
    steps.extend(colours);
    steps.push(Step::Indexed { port: 0x3CE, index: 6 });
    if let Some((ours, _)) = both("state", &steps) {
        assert_eq!(ours.results[3], ours.results[9]);
        assert_eq!(ours.results[5], ours.results[11]);
        assert_eq!(ours.results[12], Value::Bytes(vec![0x0E]));
    }
}

#[test]
fn vbe_modes_are_set_and_told_alike() {
    let at = |ax, bx, cx| Step::Int10(Call { ax, bx, cx, di: 0, es: 0x2000, ..Call::default() });
    let field = |offset, length| Step::Dump { segment: 0x2000, offset, length };
    let mut steps = vec![
        Step::Poke { segment: 0x2000, offset: 0, bytes: b"VBE2".to_vec() },
        at(0x4F00, 0, 0),
        field(0, 6),
        field(0x12, 2),
    ];
    for mode in [0x100, 0x101, 0x103, 0x105, 0x107, 0x110, 0x111, 0x112, 0x115, 0x118, 0x11B, 0x142, 0x144, 0x1FF] {
        steps.push(at(0x4F01, 0, mode));
        if mode != 0x1FF {
            // Windows, without text output in the attributes' low byte; geometry, masks, framebuffer.
            steps.push(field(2, 10));
            steps.push(field(0x10, 6));
            steps.push(field(0x18, 5));
            steps.push(field(0x1F, 13));
        }
        steps.push(at(0x4F02, mode, 0));
        steps.push(at(0x4F03, 0, 0));
    }
    for mode in [0x101, 0x103, 0x112, 0x4144] {
        steps.push(at(0x4F02, mode, 0));
        steps.push(at(0x4F06, 1, 0));
        if mode & 0x4000 == 0 {
            steps.push(call(0x4F05, 0, 0, 3));
            steps.push(call(0x4F05, 0x0100, 0, 0));
        }
        steps.push(Step::Poke { segment: 0xA000, offset: 0x1000, bytes: (0..=255).collect() });
        for index in 0..40 {
            steps.push(Step::Poke {
                segment: 0xA000,
                offset: 0x2000 + index * 641,
                bytes: vec![(index * 5) as u8; 40],
            });
        }
        steps.push(Step::Screen);
        steps.push(call(0x4F07, 0, 8, 40));
        steps.push(call(0x4F07, 1, 0, 0));
        steps.push(Step::Screen);
    }
    steps.push(at(0x4F02, 0x101, 0));
    steps.push(call(0x4F08, 0x0800, 0, 0));
    steps.push(call(0x4F08, 0x0001, 0, 0));
    steps.push(call(0x4F02, 0x0003, 0, 0));
    steps.push(call(0x4F03, 0, 0, 0));
    steps.push(at(0x4F15, 1, 0));
    steps.push(field(0, 128));
    if let Some(outcomes) = both("vbe", &steps) {
        assert_same(&steps, &outcomes);
        assert_same_screens(&outcomes);
    }
}

#[test]
fn vbe_palette_text_and_window_work_where_seavgabios_has_none() {
    let at = |ax, bx, cx, dx, di| Step::Int10(Call { ax, bx, cx, dx, di, es: 0x2000, ..Call::default() });
    let colours: Vec<u8> = (0..64).map(|index| if index % 4 == 3 { 0 } else { index * 3 }).collect();
    let mut steps = vec![
        at(0x4F02, 0x101, 0, 0, 0),
        call(0x4F08, 0x0800, 0, 0),
        Step::Poke { segment: 0x2000, offset: 0, bytes: colours.clone() },
        at(0x4F09, 0, 16, 4, 0),
        at(0x4F09, 1, 16, 4, 0x400),
        Step::Dump { segment: 0x2000, offset: 0x400, length: 64 },
        at(0x4F02, 0x4115, 0, 0, 0),
        call(0x4F05, 0, 0, 0),
        call(0x4F05, 0x0001, 0, 0),
    ];
    let first_text = steps.len();
    // Text in VBE modes is read back from where it has scrolled to. Not in planes: QEMU ignores the sequencer's registers there.
    for mode in [0x101, 0x110, 0x111, 0x112, 0x142] {
        steps.push(at(0x4F02, mode, 0, 0, 0));
        steps.push(call(0x0200, 0, 0, 0x1D00));
        for character in *b"VBE" {
            steps.push(call(0x0E00 | u16::from(character), 0x0A, 0, 0));
        }
        steps.push(call(0x0602, 0, 0, 0x2540));
        steps.push(call(0x0200, 0, 0, 0x1B01));
        steps.push(call(0x0800, 0, 0, 0));
    }
    let Some((ours, _)) = both("vbe-text", &steps) else { return };
    let ax = |index: usize| match &ours.results[index] {
        Value::Registers(registers) => registers.ax,
        _ => panic!("step {index} is a call"),
    };
    assert_eq!((ax(3), ax(4)), (0x004F, 0x004F));
    assert_eq!(ours.results[5], Value::Bytes(colours));
    assert_eq!((ax(7), ax(8)), (0x034F, 0x034F));
    for (index, step) in steps.iter().enumerate().skip(first_text) {
        if matches!(step, Step::Int10(Call { ax: 0x0800, .. })) {
            assert_eq!(ax(index) & 0xFF, u16::from(b'B'), "step {index}");
        }
    }
}

#[test]
fn text_lines_greys_and_functionality_follow_the_selections() {
    let colours = || Step::Int10(Call { ax: 0x1017, cx: 2, bx: 1, dx: 0x900, ..Call::default() });
    let mut steps = Vec::new();
    for lines in [0x1200, 0x1201, 0x1202] {
        steps.push(call(lines, 0x30, 0, 0));
        steps.push(call(0x0003, 0, 0, 0));
        steps.push(Step::Dump { segment: 0x40, offset: 0x84, length: 2 });
        steps.push(Step::Indexed { port: 0x3D4, index: 0x12 });
        steps.push(Step::Indexed { port: 0x3D4, index: 0x09 });
        steps.push(Step::Int10(Call { ax: 0x1B00, di: 0, es: 0x2000, ..Call::default() }));
        steps.push(Step::Dump { segment: 0x2000, offset: 0x22, length: 16 });
    }
    let grey = steps.len();
    steps.extend([
        call(0x1200, 0x33, 0, 0),
        call(0x0003, 0, 0, 0),
        colours(),
        Step::Dump { segment: 0, offset: 0x900, length: 6 },
    ]);
    steps.extend([
        call(0x1201, 0x33, 0, 0),
        call(0x0003, 0, 0, 0),
        colours(),
        Step::Dump { segment: 0, offset: 0x900, length: 6 },
    ]);
    let Some((ours, _)) = both("selections", &steps) else { return };
    let bytes = |index: usize| match &ours.results[index] {
        Value::Bytes(bytes) => bytes.clone(),
        other => panic!("step {index}: {other:X?}"),
    };
    // Rows less one and character height; vertical display end; maximum scan line, with each line twice in 200.
    for (at, height, end, maximum, code) in [(0, 8, 0x8F, 0xC7, 0), (7, 14, 0x5D, 0x4D, 1), (14, 16, 0x8F, 0x4F, 2)] {
        assert_eq!(bytes(at + 2), [24, height]);
        assert_eq!((bytes(at + 3), bytes(at + 4)), (vec![end], vec![maximum]));
        // Rows, height, a colour VGA alone, 16 colours, 8 pages, lines, block 0 twice, ..., 256 KiB.
        let state = bytes(at + 6);
        assert_eq!(state[..11], [25, height, 0, 8, 0, 16, 0, 8, code, 0, 0]);
        assert_eq!(state[15], 3);
    }
    // Blue and green by the eye's measure.
    assert_eq!(bytes(grey + 3), [5, 5, 5, 0x19, 0x19, 0x19]);
    assert_eq!(bytes(grey + 7), [0, 0, 0x2A, 0, 0x2A, 0]);
}

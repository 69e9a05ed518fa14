use super::*;
use crate::board::kernel::Module;
use crate::board::machine::Outcome;
use crate::char::MemoryBackend;
use crate::video::{Damage, Frame};
use emu_core::clock::Instant;
use emu_core::device::ResetKind;

fn config(model: &str, boot: PcBoot) -> PcConfig {
    PcConfig {
        ram: 16 << 20,
        model: Arc::new(CpuModel::parse(model).unwrap()),
        clock: ClockMode::Icount { shift: 0 },
        date: StartTime::default(),
        serials: [const { None }; SERIALS],
        parallel: None,
        debugcon: None,
        debug_exit: None,
        testdev: false,
        audio: Default::default(),
        floppies: Default::default(),
        expansion: Default::default(),
        vga: None,
        ide: Default::default(),
        boot,
        firmware: Default::default(),
        options: MachineOptions { no_reboot: true, icount_sleep: false, ..MachineOptions::default() },
    }
}

/// A PC whose "kernel" is nothing, with the registers that firmware leaves behind.
fn pc(model: &str) -> Pc {
    let mut pc = Pc::new(config(model, PcBoot::ResetVector)).unwrap();
    pc.machine.reset(ResetKind::Cold).unwrap();
    post::initialise(pc.machine.bus(), [true; SERIALS], true);
    pc
}

/// A flat Multiboot kernel of 32-bit `code`, which runs at [`CODE`].
fn kernel(code: &[u8]) -> Kernel {
    let header = CODE - 32;
    let flags = 1u32 << 16;
    let words = [0x1bad_b002, flags, 0u32.wrapping_sub(0x1bad_b002 + flags), header, header, 0, 0, CODE];
    let mut file: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.extend(code);
    Kernel::parse(&file).unwrap()
}

const CODE: u32 = 0x10_0020;
/// JMP to itself.
const SPIN: [u8; 2] = [0xeb, 0xfe];

/// Runs `code` on `model` with `modules`; how it ended, what it wrote to port E9h, and instructions and time used.
fn run(model: &str, code: &[u8], modules: Vec<Module>) -> (Outcome, String, u64, Instant) {
    let console = MemoryBackend::new();
    let options = KernelOptions { name: "k".into(), command_line: b"hello".to_vec(), modules, ..Default::default() };
    let mut config = config(model, PcBoot::Kernel(Box::new(kernel(code)), options));
    config.debugcon = Some((0xe9, Box::new(console.clone())));
    config.debug_exit = Some(DebugExit::DEFAULT);
    let mut pc = Pc::new(config).unwrap();
    let outcome = pc.machine.run().unwrap();
    let (instructions, now) = pc.machine.bus().clock(|clock| (clock.instructions(), clock.now()));
    (outcome, String::from_utf8(console.take_output()).unwrap(), instructions, now)
}

/// MOV DX, port; MOV AL, value; OUT DX, AL.
fn out(port: u16, value: u8) -> [u8; 7] {
    let [low, high] = port.to_le_bytes();
    [0x66, 0xba, low, high, 0xb0, value, 0xee]
}

fn config_read(bus: &Bus, device: u8, function: u8, register: u8) -> u32 {
    bus.port_write(0xcf8, 4, 0x8000_0000 | u32::from(device) << 11 | u32::from(function) << 8 | u32::from(register), 0);
    bus.port_read(0xcfc, 4, 0)
}

/// Lets time pass, polling at each deadline, until INTR rises; the vector.
fn next_interrupt(bus: &Bus) -> Option<u8> {
    for _ in 0..100 {
        let deadline = bus.poll();
        if bus.pins().get() & CpuPins::INTR != 0 {
            return bus.acknowledge_interrupt();
        }
        bus.clock(|clock| clock.skip_to(deadline.unwrap_or(Instant(u64::MAX / 2))));
    }
    None
}

#[test]
fn pci_functions_are_where_qemu_has_them() {
    let pc = pc("max");
    let bus = pc.machine.bus();
    assert_eq!(config_read(bus, 0, 0, 0), 0x1237_8086);
    assert_eq!(config_read(bus, 1, 0, 0), 0x7000_8086);
    assert_eq!(config_read(bus, 1, 3, 0), 0x7113_8086);
    assert_eq!(config_read(bus, 2, 0, 0), u32::MAX);
    assert_eq!(config_read(bus, 1, 0, 0x60), 0x0b0b_0a0a);
    // An EEPROM of the SMBus controller at 700h acknowledges a quick command.
    bus.port_write(0x704, 1, 0xa0, 0);
    bus.port_write(0x702, 1, 0x40, 0);
    bus.clock(|clock| clock.skip_to(Instant(500_000)));
    bus.poll();
    assert_eq!(bus.port_read(0x700, 1, 0), 2);
    // The BIOS data area knows LPT1.
    let mut ports = [0; 2];
    bus.memory().read(0x408, &mut ports);
    assert_eq!(ports, [0x78, 0x03]);
    // The ACPI timer counts at 608h.
    bus.clock(|clock| clock.skip_to(Instant(1_000_000)));
    assert_eq!(bus.port_read(0x608, 4, 0), 3579);
}

#[test]
fn timer_tick_reaches_the_processor_through_8259_and_virtual_wire() {
    for model in ["max", "486"] {
        let pc = pc(model);
        let bus = pc.machine.bus();
        bus.port_write(0x21, 1, 0xfe, 0);
        assert_eq!(next_interrupt(bus), Some(0x08), "{model}");
    }
}

#[test]
fn timer_tick_reaches_the_processor_through_input_2_of_the_io_apic() {
    let pc = pc("max");
    let bus = pc.machine.bus();
    bus.memory_write(lapic::DEFAULT_BASE + 0x350, 4, 0x1_0700, 0);
    bus.memory_write(ioapic::REGION.base, 4, 0x14, 0);
    bus.memory_write(ioapic::REGION.base + 0x10, 4, 0x30, 0);
    assert_eq!(next_interrupt(bus), Some(0x30));
    assert_eq!(next_interrupt(bus), None, "in service");
    bus.memory_write(lapic::DEFAULT_BASE + 0xb0, 4, 0, 0);
    assert_eq!(next_interrupt(bus), Some(0x30));
}

#[test]
fn pci_interrupt_is_level_triggered_through_both_controllers() {
    let pc = pc("max");
    let bus = pc.machine.bus();
    // Slot 3 INTA# is PIRQC#, which is IRQ 11.
    bus.port_write(0x21, 1, 0xfb, 0);
    bus.port_write(0xa1, 1, 0xf7, 0);
    let line = pc.intx.intx(3, 0);
    line.set(true);
    assert_eq!(bus.acknowledge_interrupt(), Some(0x73));
    bus.port_write(0xa0, 1, 0x20, 0);
    bus.port_write(0x20, 1, 0x20, 0);
    assert_eq!(bus.acknowledge_interrupt(), Some(0x73), "still high");
    line.set(false);
    bus.port_write(0xa1, 1, 0xff, 0);

    bus.memory_write(ioapic::REGION.base, 4, 0x10 + 22, 0);
    bus.memory_write(ioapic::REGION.base + 0x10, 4, 0x8061, 0);
    line.set(true);
    assert_eq!(bus.acknowledge_interrupt(), Some(0x61));
    bus.memory_write(lapic::DEFAULT_BASE + 0xb0, 4, 0, 0);
    assert_eq!(bus.acknowledge_interrupt(), Some(0x61), "still high");
    line.set(false);
    bus.memory_write(lapic::DEFAULT_BASE + 0xb0, 4, 0, 0);
    assert_eq!(bus.pins().get() & CpuPins::INTR, 0);
}

#[test]
fn shadow_memory_is_ram_after_the_self_test_and_the_debug_exit_is_absent() {
    let pc = pc("max");
    let bus = pc.machine.bus();
    bus.memory().write(0xe_0000, &[0x12]);
    let mut byte = [0];
    bus.memory().read(0xe_0000, &mut byte);
    assert_eq!(byte, [0x12]);
    assert_eq!(bus.port_read(0x501, 1, 0), 0xff);
}

#[test]
fn too_little_memory_is_refused() {
    let config = PcConfig { ram: MIN_RAM - 1, ..config("max", PcBoot::ResetVector) };
    assert!(matches!(Pc::new(config), Err(PcError::TooLittleRam(_))));
}

#[test]
fn multiboot_kernel_sees_its_command_line_and_leaves_by_the_debug_exit() {
    let code = [
        &[0x3d, 0x02, 0xb0, 0xad, 0x2b][..], // CMP EAX, 2BADB002h
        &[0x75, 0xfe],                       // JNE to itself
        &[0x8b, 0x73, 0x10],                 // MOV ESI, [EBX + 10h]
        &[0xac, 0x84, 0xc0, 0x74, 0x04],     // LODSB; TEST AL, AL; JZ over the next two
        &[0xe6, 0xe9, 0xeb, 0xf7],           // OUT E9h, AL; JMP to LODSB
        &out(0x501, 0x10),
        &SPIN,
    ]
    .concat();
    for model in ["max", "486"] {
        let (outcome, output, ..) = run(model, &code, vec![]);
        assert_eq!((outcome, output.as_str()), (Outcome::Exit(33), "k hello"), "{model}");
    }
}

#[test]
fn multiboot_modules_are_where_the_information_says() {
    let code = [
        &[0x8b, 0x73, 0x18][..], // MOV ESI, [EBX + 18h]: mods_addr
        &[0x8b, 0x36],           // MOV ESI, [ESI]: mod_start
        &[0x8a, 0x46, 0x01],     // MOV AL, [ESI + 1]
        &[0xe6, 0xe9],           // OUT E9h, AL
        &out(0x501, 0),
        &SPIN,
    ]
    .concat();
    let module = Module { contents: b"xYz".to_vec(), command_line: vec![] };
    let (outcome, output, ..) = run("max", &code, vec![module]);
    assert_eq!((outcome, output.as_str()), (Outcome::Exit(1), "Y"));
}

#[test]
fn deterministic_runs_agree_in_instructions_and_time_across_idle_waits() {
    // Unmasks IRQ0, gives it a handler behind the code, and waits for two ticks of 10,000 clocks in HLT.
    let handler_at = CODE + 0x80;
    let [a, b, c, d] = handler_at.to_le_bytes();
    let mut code = [
        &[0xc7, 0x05, 0x40, 0x40, 0x30, 0x00, a, b, 0x10, 0x00][..], // MOV [304040h], offset 15..0 and selector 10h
        &[0xc7, 0x05, 0x44, 0x40, 0x30, 0x00, 0x00, 0x8e, c, d],     // MOV [304044h], interrupt gate, offset 31..16
        &[0xc7, 0x05, 0x00, 0x50, 0x30, 0x00, 0xff, 0x00, 0x00, 0x40], // MOV [305000h], limit FFh, base 15..0
        &[0xc7, 0x05, 0x04, 0x50, 0x30, 0x00, 0x30, 0x00, 0x00, 0x00], // MOV [305004h], base 31..16
        &[0x0f, 0x01, 0x1d, 0x00, 0x50, 0x30, 0x00],                 // LIDT [305000h]
        &[0xbc, 0x00, 0x00, 0x40, 0x00],                             // MOV ESP, 400000h
        &out(0x43, 0x34),
        &out(0x40, 0x10),
        &out(0x40, 0x27),
        &out(0x21, 0xfe),
        &[0xfb, 0xf4, 0xf4], // STI; HLT; HLT
        &out(0x501, 1),
        &SPIN,
    ]
    .concat();
    assert!(code.len() <= 0x80);
    code.resize(0x80, 0x90);
    code.extend(out(0xe9, b't'));
    code.extend(out(0x20, 0x20));
    code.push(0xcf); // IRETD
    let first = run("max", &code, vec![]);
    assert_eq!((first.0, first.1.as_str()), (Outcome::Exit(3), "tt"));
    // Two periods of 10,000 clocks at 1.193182 MHz.
    assert!((16_761_000..16_770_000).contains(&first.3.0), "{:?}", first.3);
    assert_eq!(run("max", &code, vec![]), first);
}

#[test]
fn guest_resets_and_powers_off() {
    let reset = [&out(0xcf9, 0x06)[..], &SPIN].concat();
    assert_eq!(run("max", &reset, vec![]).0, Outcome::Reset);
    let fault = [0x0f, 0x0b]; // UD2 without an IDT
    assert_eq!(run("max", &fault, vec![]).0, Outcome::TripleFault);
    // PMCNTRL: SUS_EN with type 0.
    let power_off = [&[0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef][..], &SPIN].concat();
    assert_eq!(run("max", &power_off, vec![]).0, Outcome::PowerOff);
}

#[test]
fn random_bus_accesses_never_panic() {
    let pc = pc("max");
    let bus = pc.machine.bus();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..200_000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let (port, size) = ((seed >> 16) as u16 & 0xfff, 1 << (seed & 1) << (seed >> 1 & 1));
        bus.port_write(port, size, (seed >> 32) as u32, seed & 0xff);
        bus.port_read(port, size, 0);
        let base = [lapic::DEFAULT_BASE, ioapic::REGION.base, hpet::REGION.base][(seed >> 40) as usize % 3];
        bus.memory_write(base + (seed >> 20 & 0x3ff), 1 << (seed & 3), seed, 0);
        bus.memory_read(base + (seed >> 20 & 0x3ff), 1 << (seed & 3), 0);
        bus.clock(|clock| {
            let now = clock.now();
            clock.skip_to(now.plus_nanos(seed >> 50));
        });
        bus.poll();
        bus.take_outcomes();
        bus.acknowledge_interrupt();
    }
}

/// A VGA whose font is all dots.
fn with_vga(boot: PcBoot) -> PcConfig {
    let vga = VgaConfig { font: vec![0xff; 4096], ..VgaConfig::default() };
    PcConfig { vga: Some(vga), debug_exit: Some(DebugExit::DEFAULT), ..config("max", boot) }
}

#[test]
fn kernel_finds_80_columns_of_text_on_the_vga() {
    let code = [
        &[0x66, 0xc7, 0x05, 0x02, 0x80, 0x0b, 0x00, 0x41, 0x1e][..], // MOV WORD [0B8002h], 1E41h
        &out(0x501, 0),
        &SPIN,
    ]
    .concat();
    let mut pc = Pc::new(with_vga(PcBoot::Kernel(Box::new(kernel(&code)), KernelOptions::default()))).unwrap();
    assert_eq!(pc.machine.run().unwrap(), Outcome::Exit(1));
    let display = pc.display.unwrap();
    let text = display.text().unwrap();
    assert_eq!((text.columns, text.rows, text.cursor), (80, 25, Some((0, 0))));
    let cells: Vec<_> = text.cells.iter().take(3).map(|cell| (cell.character, cell.attribute)).collect();
    assert_eq!(cells, [(0x20, 0x07), (0x41, 0x1e), (0x20, 0x07)]);
    let mut frame = Frame::default();
    assert_eq!(display.refresh(Instant(0), &mut frame), Damage::All);
    assert_eq!((frame.width, frame.height), (720, 400));
    // The ninth dot of "A" is background.
    assert_eq!(frame.pixels[8..19], [[0; 1].as_slice(), &[0xff_ff55; 8], &[0x00_00aa], &[0xaa_aaaa; 1]].concat());
    assert_eq!(display.refresh(Instant(0), &mut frame), Damage::None);
}

#[test]
fn system_bios_of_64_kib_finds_the_vga_bios_without_pci() {
    for (size, found) in [(64 << 10, true), (128 << 10, false)] {
        let boot = PcBoot::Firmware { rom: Rom::new(vec![0xf4; size]).unwrap(), kernel: None };
        let vga = VgaConfig { rom: Some([&[0x55, 0xaa][..], &[0; 40_000]].concat()), ..VgaConfig::default() };
        let pc = Pc::new(PcConfig { vga: Some(vga), ..config("max", boot) }).unwrap();
        let mut start = [0; 2];
        pc.machine.bus().memory().read(0xc_0000, &mut start);
        assert_eq!(start == [0x55, 0xaa], found);
    }
}

#[test]
fn kernel_draws_into_the_linear_frame_buffer() {
    let mut code = Vec::new();
    for (index, value) in [(1u16, 64u16), (2, 32), (3, 32), (4, 0x41)] {
        for (port, value) in [(0x1ceu16, index), (0x1cf, value)] {
            // MOV DX, port; MOV AX, value; OUT DX, AX
            code.extend([0x66, 0xba]);
            code.extend(port.to_le_bytes());
            code.extend([0x66, 0xb8]);
            code.extend(value.to_le_bytes());
            code.extend([0x66, 0xef]);
        }
    }
    code.extend([0xc7, 0x05, 0x04, 0x01, 0x00, 0xfd, 0x33, 0x22, 0x11, 0x00]); // MOV DWORD [0FD000104h], 112233h
    code.extend(out(0x501, 0));
    code.extend(SPIN);
    let mut pc = Pc::new(with_vga(PcBoot::Kernel(Box::new(kernel(&code)), KernelOptions::default()))).unwrap();
    assert_eq!(pc.machine.run().unwrap(), Outcome::Exit(1));
    let bus = pc.machine.bus();
    assert_eq!((config_read(bus, 2, 0, 0), config_read(bus, 2, 0, 0x2c)), (0x1111_1234, 0x1100_1af4));
    let (display, mut frame) = (pc.display.unwrap(), Frame::default());
    display.refresh(Instant(0), &mut frame);
    assert_eq!((frame.width, frame.height, frame.pixels[65], frame.pixels[64]), (64, 32, 0x11_2233, 0));
    assert_eq!(display.text(), None);
}

use super::*;
use emu_core::clock::Instant;
use emu_core::device::ResetKind;

/// A PC in deterministic time whose "kernel" is nothing, with the registers that firmware leaves behind.
fn pc(model: &str) -> Pc {
    let config = PcConfig {
        ram: 16 << 20,
        model: Arc::new(CpuModel::parse(model).unwrap()),
        clock: ClockMode::Icount { shift: 0 },
        date: StartTime::default(),
        serials: [const { None }; SERIALS],
        debugcon: None,
        debug_exit: None,
        testdev: false,
        boot: PcBoot::ResetVector,
        options: MachineOptions::default(),
    };
    let mut pc = Pc::new(config).unwrap();
    pc.machine.reset(ResetKind::Cold).unwrap();
    post::initialise(pc.machine.bus(), [true; SERIALS]);
    pc
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
    let config = PcConfig {
        ram: MIN_RAM - 1,
        model: Arc::new(CpuModel::max()),
        clock: ClockMode::Realtime,
        date: StartTime::default(),
        serials: [const { None }; SERIALS],
        debugcon: None,
        debug_exit: None,
        testdev: false,
        boot: PcBoot::ResetVector,
        options: MachineOptions::default(),
    };
    assert!(matches!(Pc::new(config), Err(PcError::TooLittleRam(_))));
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
        bus.clock(|clock| clock.skip_to(Instant(clock.now().0 + (seed >> 50))));
        bus.poll();
        bus.take_outcomes();
        bus.acknowledge_interrupt();
    }
}

//! `info`: what the machine is and does, in the layouts that QEMU prints and tools parse.

use super::arguments::Arguments;
use crate::remote::Remote;
use emu_core::device::Space;
use emu_core::mmu::walk::entry;
use emu_devices::board::machine::RunState;
use emu_devices::intc::ioapic::IoApicState;
use emu_devices::intc::pic::{ChipState, ReadSelect};
use emu_devices::pci::config::reg;
use std::fmt::Write as _;

/// Lines that `info mem` and `info tlb` show at most.
const MOST_LINES: usize = 100_000;

pub fn name(machine: &Remote, _: &Arguments) -> String {
    match machine.identity.name.as_str() {
        "" => String::new(),
        name => format!("{name}\n"),
    }
}

pub fn uuid(machine: &Remote, _: &Arguments) -> String {
    show_uuid(&machine.identity.uuid) + "\n"
}

/// In the usual groups of digits.
pub fn show_uuid(uuid: &[u8; 16]) -> String {
    let mut text = String::new();
    for (i, byte) in uuid.iter().enumerate() {
        let dash = if [4, 6, 8, 10].contains(&i) { "-" } else { "" };
        let _ = write!(text, "{dash}{byte:02x}");
    }
    text
}

pub fn chardev(machine: &Remote, _: &Arguments) -> String {
    let line = |(id, behind): &(String, String)| format!("{id}: filename={behind}\n");
    machine.identity.chardevs.iter().map(line).collect()
}

pub fn version(_: &Remote, _: &Arguments) -> String {
    format!("{}\n", env!("CARGO_PKG_VERSION"))
}

pub fn status(machine: &Remote, _: &Arguments) -> String {
    match machine.run_state() {
        None | Some(RunState::Running) => "VM status: running\n".into(),
        Some(RunState::Paused) => "VM status: paused\n".into(),
        Some(state) => format!("VM status: paused ({})\n", state.name()),
    }
}

pub fn registers(machine: &Remote, _: &Arguments) -> String {
    let text = machine.call(|machine| machine.processor().registers());
    format!("\nCPU#0\n{}", text.unwrap_or_default())
}

pub fn cpus(_: &Remote, _: &Arguments) -> String {
    format!("* CPU #0: thread_id={}\n", std::process::id())
}

/// What QEMU says where there is no balloon.
pub const NO_BALLOON: &str = "No balloon device has been activated";

/// The guest's memory in MiB, and its statistics as far as it has given any, which are asked for anew.
pub fn balloon(machine: &Remote, _: &Arguments) -> String {
    const STATISTICS: [&str; 10] = [
        "mem_swapped_in",
        "mem_swapped_out",
        "major_page_faults",
        "minor_page_faults",
        "free_mem",
        "total_mem",
        "available_mem",
        "disk_caches",
        "hugetlb_allocations",
        "hugetlb_failures",
    ];
    let Some(balloon) = &machine.balloon else { return super::error(NO_BALLOON) };
    let mut text = format!("balloon: actual={}", balloon.actual() >> 20);
    for (tag, value) in balloon.stats() {
        if let Some(name) = STATISTICS.get(usize::from(tag)) {
            let _ = write!(text, ",{name}={value}");
        }
    }
    balloon.ask_for_stats();
    text + "\n"
}

pub fn jit(machine: &Remote, _: &Arguments) -> String {
    machine.call(crate::dev::stats::tiers).unwrap_or_default()
}

pub fn kvm(_: &Remote, _: &Arguments) -> String {
    "kvm support: disabled\n".into()
}

pub fn mice(_: &Remote, _: &Arguments) -> String {
    "* Mouse #0: PS/2 Mouse\n".into()
}

/// Ranges of linear addresses that are mapped with the same rights.
pub fn mem(machine: &Remote, _: &Arguments) -> String {
    let text = machine.call(|machine| {
        let mut text = String::new();
        let mut lines = 0;
        // Start, end and rights of the range that is being collected.
        let mut range: Option<(u64, u64, (bool, bool))> = None;
        let mut show = |range: Option<(u64, u64, (bool, bool))>| {
            let Some((start, end, (user, write))) = range else { return true };
            let (user, write) = (if user { 'u' } else { '-' }, if write { 'w' } else { '-' });
            let _ = writeln!(text, "{start:016x}-{end:016x} {:016x} {user}r{write}", end.wrapping_sub(start));
            lines += 1;
            lines < MOST_LINES
        };
        let on = machine.processor().mappings(|m| {
            let rights = (m.user, m.write);
            match &mut range {
                Some((_, end, same)) if *end == m.linear && *same == rights => *end = end.wrapping_add(m.size),
                _ => return show(range.replace((m.linear, m.linear.wrapping_add(m.size), rights))),
            }
            true
        });
        show(range);
        on.map(|()| text)
    });
    text.flatten().unwrap_or_else(|| "PG disabled\n".into())
}

/// Each page that is mapped, with the flags of its entry.
pub fn tlb(machine: &Remote, _: &Arguments) -> String {
    const FLAGS: [(u64, char); 9] = [
        (entry::XD, 'X'),
        (entry::G, 'G'),
        (entry::PS, 'P'),
        (entry::D, 'D'),
        (entry::A, 'A'),
        (1 << 4, 'C'),
        (1 << 3, 'T'),
        (entry::US, 'U'),
        (entry::RW, 'W'),
    ];
    let text = machine.call(|machine| {
        let mut text = String::new();
        let mut lines = 0;
        let on = machine.processor().mappings(|m| {
            let flags: String =
                FLAGS.iter().map(|(mask, letter)| if m.entry & mask != 0 { *letter } else { '-' }).collect();
            let _ = writeln!(text, "{:016x}: {:016x} {flags}", m.linear, m.physical);
            lines += 1;
            lines < MOST_LINES
        });
        on.map(|()| text)
    });
    text.flatten().unwrap_or_else(|| "PG disabled\n".into())
}

/// Who answers which ports and addresses, in the layout of QEMU's tree. RAM first, as whatever else there is hides it.
pub fn mtree(machine: &Remote, _: &Arguments) -> String {
    let shown = machine.call(|machine| {
        let (bus, mut text) = (machine.bus(), String::new());
        let ranges = bus.ranges();
        let mut line = |first: u64, last: u64, kind: &str, name: &str| {
            let _ = writeln!(text, "    {first:016x}-{last:016x} (prio 0, {kind}): {name}");
        };
        let (low, high) = (bus.memory().low_ram(), bus.memory().high_ram());
        line(0, low - 1, "ram", "ram-below-4g");
        if high > 0 {
            line(1 << 32, (1 << 32) + high - 1, "ram", "ram-above-4g");
        }
        for range in ranges.iter().filter(|range| range.space == Space::Memory) {
            line(range.region.base, range.region.base + (range.region.len - 1), "i/o", range.device);
        }
        let memory = std::mem::take(&mut text);
        let mut line = |first: u64, last: u64, name: &str| {
            let _ = writeln!(text, "    {first:016x}-{last:016x} (prio 0, i/o): {name}");
        };
        for range in ranges.iter().filter(|range| range.space == Space::Port) {
            line(range.region.base, range.region.base + (range.region.len - 1), range.device);
        }
        (memory, text)
    });
    let (memory, ports) = shown.unwrap_or_default();
    format!(
        "address-space: memory\n  0000000000000000-ffffffffffffffff (prio 0, i/o): system\n{memory}\n\
         address-space: I/O\n  0000000000000000-000000000000ffff (prio 0, i/o): io\n{ports}\n"
    )
}

pub fn pic(machine: &Remote, _: &Arguments) -> String {
    let mut text = machine.controllers.ioapic.as_ref().map(|io| io_apic(&io.inspect())).unwrap_or_default();
    let pair = machine.controllers.pic.inspect();
    for (n, chip) in [(1, &pair.slave), (0, &pair.master)] {
        text += &show_pic(n, chip);
    }
    text
}

fn show_pic(n: u8, chip: &ChipState) -> String {
    format!(
        "pic{n}: irr={:02x} imr={:02x} isr={:02x} hprio={} irq_base={:02x} rr_sel={} elcr={:02x} fnm={}\n",
        chip.irr(),
        chip.imr,
        chip.isr,
        (chip.lowest + 1) & 7,
        chip.vector_base,
        u8::from(chip.read_select == ReadSelect::Isr),
        chip.elcr,
        u8::from(chip.special_fully_nested),
    )
}

fn io_apic(state: &IoApicState) -> String {
    const DELIVERY: [&str; 8] = ["fixed", "lowest", "SMI", "...", "NMI", "INIT", "...", "extINT"];
    let mut text = format!("ioapic0: ver=0x20 id=0x{:02x} sel=0x{:02x}", state.id, state.select);
    if state.select >= 0x10 {
        let _ = write!(text, " (redir[{}])", (state.select - 0x10) >> 1);
    }
    text.push('\n');
    let mut remote_irr = 0u32;
    for (pin, value) in state.redirection.iter().enumerate() {
        let bit = |n: u32| value >> n & 1 != 0;
        let destination = value >> 56 & if bit(11) { 0xff } else { 0xf };
        let _ = writeln!(
            text,
            "  pin {pin:<2} 0x{value:016x} dest={destination:x} vec={:<3} {} {:<5} {:<6} {:<6} {}",
            value & 0xff,
            if bit(13) { "active-lo" } else { "active-hi" },
            if bit(15) { "level" } else { "edge" },
            if bit(16) { "masked" } else { "" },
            DELIVERY[(value >> 8 & 7) as usize],
            if bit(11) { "logical" } else { "physical" },
        );
        remote_irr |= u32::from(bit(14)) << pin;
    }
    for (name, bits) in [("IRR     ", state.requests), ("Remote IRR", remote_irr)] {
        let pins: Vec<String> = (0..32).filter(|n| bits >> n & 1 != 0).map(|n: u32| n.to_string()).collect();
        let _ = writeln!(text, "  {name} {}", if pins.is_empty() { "(none)".into() } else { pins.join(" ") });
    }
    text
}

/// How often each ISA interrupt has been raised.
pub fn irq(machine: &Remote, _: &Arguments) -> String {
    let mut text = String::from("IRQ statistics for isa-i8259:\n");
    for (irq, count) in machine.controllers.pic.raised().iter().enumerate().filter(|(_, count)| **count != 0) {
        let _ = writeln!(text, "{irq:2}: {count}");
    }
    text
}

/// The PCI functions with their registers as the guest has set them.
pub fn pci(machine: &Remote, _: &Arguments) -> String {
    let mut text = String::new();
    for (place, config) in machine.pci.functions() {
        let config = config.lock();
        let _ = writeln!(text, "  Bus  0, device {:3}, function {}:", place.device(), place.function());
        let class = config.read(reg::REVISION, 4) >> 16;
        let name = class_name(class as u16).map_or_else(|| format!("Class {class:04x}"), str::to_owned);
        let _ = writeln!(
            text,
            "    {name}: PCI device {:04x}:{:04x}",
            config.word(reg::VENDOR_ID),
            config.word(reg::DEVICE_ID)
        );
        let subsystem = (config.word(reg::SUBSYSTEM_VENDOR), config.word(reg::SUBSYSTEM));
        let _ = writeln!(text, "      PCI subsystem {:04x}:{:04x}", subsystem.0, subsystem.1);
        if let pin @ 1..=4 = config.byte(reg::INTERRUPT_PIN) {
            let letter = (b'A' + pin - 1) as char;
            let _ = writeln!(text, "      IRQ {}, pin {letter}", config.byte(reg::INTERRUPT_LINE));
        }
        for index in 0..6 {
            let Some((space, size)) = config.bar_kind(index) else { continue };
            // An address that is not decoded is all ones.
            let start = config.bar(index).map_or(u64::MAX, |(_, region)| region.base);
            let end = start.wrapping_add(u64::from(size) - 1);
            let prefetchable = config.read(reg::BAR0 + 4 * index as u8, 4) & 8 != 0;
            let _ = match (space, prefetchable) {
                (Space::Port, _) => writeln!(text, "      BAR{index}: I/O at 0x{start:04x} [0x{end:04x}]."),
                (Space::Memory, true) => {
                    writeln!(text, "      BAR{index}: 32 bit prefetchable memory at 0x{start:08x} [0x{end:08x}].")
                }
                (Space::Memory, false) => {
                    writeln!(text, "      BAR{index}: 32 bit memory at 0x{start:08x} [0x{end:08x}].")
                }
            };
        }
        text += "      id \"\"\n";
    }
    text
}

fn class_name(class: u16) -> Option<&'static str> {
    match class {
        0x0101 => Some("IDE controller"),
        0x0200 => Some("Ethernet controller"),
        0x0300 => Some("VGA controller"),
        0x0600 => Some("Host bridge"),
        0x0601 => Some("ISA bridge"),
        0x0604 => Some("PCI bridge"),
        0x0680 => Some("Bridge"),
        0x0c03 => Some("USB controller"),
        _ => None,
    }
}

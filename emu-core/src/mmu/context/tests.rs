use crate::bus::Bus;
use crate::clock::{Clock, ClockMode};
use crate::cpu::control::*;
use crate::cpu::model::CpuModel;
use crate::exec::Vcpu;
use crate::irq::CpuPins;
use crate::mem::GuestMemory;
use std::sync::Arc;

const PAGE: u64 = 0x40_0000;
const GLOBAL_PAGE: u64 = 0x40_1000;

/// A long-mode vCPU with two address spaces, at 1000h and 2000h. Page 400000h is 1_0000h in the first and 2_0000h in
/// the second; page 401000h is global, 3_0000h in both. Each frame begins with its own number.
fn cpu() -> Vcpu {
    let memory = Arc::new(GuestMemory::new(0x80_0000, 0).unwrap());
    let write = |at: u64, value: u64| memory.write(at, &value.to_le_bytes());
    for (root, frame) in [(0x1000, 0x1_0000), (0x2000, 0x2_0000)] {
        write(root, (root + 0x2000) | 7);
        write(root + 0x2000, (root + 0x4000) | 7);
        write(root + 0x4000 + 16, (root + 0x6000) | 7);
        write(root + 0x6000, frame | 7);
        write(root + 0x6008, 0x3_0000 | 0x107);
    }
    for frame in [0x1_0000, 0x2_0000, 0x3_0000] {
        write(frame, frame);
    }
    let bus = Bus::new(memory, Arc::new(CpuPins::default()), Clock::new(ClockMode::Icount { shift: 0 }));
    let mut cpu = Vcpu::new(Arc::new(CpuModel::max()), Arc::new(bus));
    cpu.state.msrs.efer = EFER_LME;
    cpu.state.cr3 = 0x1000;
    cpu.state.cr4 = CR4_PAE | CR4_PGE;
    cpu.state.cr0 |= CR0_PE;
    cpu.set_cr0(CR0_PE | CR0_PG | CR0_WP).unwrap();
    cpu.state.cpl = 3;
    cpu.mode_changed();
    cpu
}

/// Rewrites the page tables so that both address spaces see frame 3_0000h at 400000h: what is still cached shows.
fn remap(cpu: &Vcpu) {
    for root in [0x1000u64, 0x2000] {
        cpu.memory.write(root + 0x6000, &(0x3_0000u64 | 7).to_le_bytes());
    }
}

#[test]
fn cr3_write_without_pcid_drops_all_but_global() {
    let mut cpu = cpu();
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x1_0000));
    assert_eq!(cpu.load::<u64>(GLOBAL_PAGE), Ok(0x3_0000));
    cpu.memory.write(0x7008, &(0x2_0000u64 | 0x107).to_le_bytes());
    remap(&cpu);
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x1_0000));
    cpu.set_cr3(0x1000).unwrap();
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x3_0000));
    assert_eq!(cpu.load::<u64>(GLOBAL_PAGE), Ok(0x3_0000));
    cpu.set_cr4(CR4_PAE).unwrap();
    assert_eq!(cpu.load::<u64>(GLOBAL_PAGE), Ok(0x2_0000));
}

#[test]
fn pcid_keeps_translations_with_bit_63_and_drops_them_without() {
    let mut cpu = cpu();
    cpu.set_cr4(CR4_PAE | CR4_PGE | CR4_PCIDE).unwrap();
    cpu.set_cr3(0x1001).unwrap();
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x1_0000));
    cpu.set_cr3(0x2002).unwrap();
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x2_0000));
    remap(&cpu);
    cpu.set_cr3(0x1001 | 1 << 63).unwrap();
    assert_eq!(cpu.state.cr3, 0x1001);
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x1_0000));
    cpu.set_cr3(0x2002).unwrap();
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x3_0000));
    cpu.set_cr3(0x1001 | 1 << 63).unwrap();
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x1_0000));
}

#[test]
fn supervisor_bank_does_not_outlive_its_address_space() {
    let mut cpu = cpu();
    cpu.set_cr4(CR4_PAE | CR4_PGE | CR4_PCIDE).unwrap();
    cpu.state.cpl = 0;
    cpu.mode_changed();
    cpu.set_cr3(0x1001).unwrap();
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x1_0000));
    cpu.set_cr3(0x2002 | 1 << 63).unwrap();
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x2_0000));
}

#[test]
fn more_pcids_than_contexts_are_exact() {
    let mut cpu = cpu();
    cpu.set_cr4(CR4_PAE | CR4_PGE | CR4_PCIDE).unwrap();
    for round in 0..3 {
        for pcid in 1..40u64 {
            let (root, frame) = if pcid % 2 == 0 { (0x1000, 0x1_0000) } else { (0x2000, 0x2_0000) };
            cpu.set_cr3(root | pcid | 1 << 63).unwrap();
            assert_eq!(cpu.load::<u64>(PAGE), Ok(frame), "round {round} pcid {pcid}");
        }
    }
}

#[test]
fn user_code_space_returns_with_its_pcid() {
    let mut cpu = cpu();
    cpu.set_cr4(CR4_PAE | CR4_PGE | CR4_PCIDE).unwrap();
    cpu.set_cr3(0x1001).unwrap();
    let first = cpu.jump_tag;
    cpu.set_cr3(0x2002).unwrap();
    assert_ne!(cpu.jump_tag, first);
    cpu.set_cr3(0x1001 | 1 << 63).unwrap();
    assert_eq!(cpu.jump_tag, first);
    cpu.set_cr3(0x1001).unwrap();
    // Nothing was known of code, so nothing had to be forgotten.
    assert_eq!(cpu.jump_tag, first);
}

#[test]
fn invlpg_inside_a_large_page_drops_all_of_it() {
    let mut cpu = cpu();
    cpu.memory.write(0x5000 + 24, &0x60_0087u64.to_le_bytes());
    cpu.memory.write(0x60_0000, &1u64.to_le_bytes());
    cpu.memory.write(0x61_0000, &2u64.to_le_bytes());
    assert_eq!(cpu.load::<u64>(0x60_0000), Ok(1));
    assert_eq!(cpu.load::<u64>(0x61_0000), Ok(2));
    cpu.memory.write(0x5000 + 24, &0u64.to_le_bytes());
    cpu.flush_tlb_page(0x7f_f000);
    assert!(cpu.load::<u64>(0x60_0000).is_err());
    assert!(cpu.load::<u64>(0x61_0000).is_err());
}

#[test]
fn invpcid_of_another_context_leaves_the_current_one() {
    let mut cpu = cpu();
    cpu.set_cr4(CR4_PAE | CR4_PGE | CR4_PCIDE).unwrap();
    cpu.set_cr3(0x1001).unwrap();
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x1_0000));
    cpu.set_cr3(0x2002).unwrap();
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x2_0000));
    remap(&cpu);
    cpu.flush_tlb_context(1);
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x2_0000));
    cpu.set_cr3(0x1001 | 1 << 63).unwrap();
    assert_eq!(cpu.load::<u64>(PAGE), Ok(0x3_0000));
}

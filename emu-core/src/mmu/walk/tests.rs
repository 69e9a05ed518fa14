use super::entry::*;
use super::*;
use crate::bus::Bus;
use crate::clock::{Clock, ClockMode};
use crate::cpu::control::*;
use crate::cpu::model::CpuModel;
use crate::irq::CpuPins;
use crate::mem::GuestMemory;
use std::sync::Arc;

const ROOT: u64 = 0x1000;
const RW_US: u64 = P | RW | US;

fn cpu(model: &str) -> Vcpu {
    let memory = Arc::new(GuestMemory::new(0x80_0000, 0).unwrap());
    let bus = Bus::new(memory, Arc::new(CpuPins::default()), Clock::new(ClockMode::Icount { shift: 0 }));
    let model = CpuModel::parse(model).unwrap();
    let mut cpu = Vcpu::new(Arc::new(model), Arc::new(bus));
    cpu.state.cr0 = CR0_PE | CR0_PG | CR0_WP;
    cpu.state.cr3 = ROOT;
    cpu
}

fn long_cpu(model: &str) -> Vcpu {
    let mut cpu = cpu(model);
    cpu.state.cr4 = CR4_PAE | CR4_PGE;
    cpu.state.msrs.efer = EFER_LME | EFER_LMA | EFER_NXE;
    cpu
}

fn put(cpu: &Vcpu, at: u64, value: u64) {
    cpu.memory.write(at, &value.to_le_bytes());
}

fn put32(cpu: &Vcpu, at: u64, value: u32) {
    cpu.memory.write(at, &value.to_le_bytes());
}

fn get(cpu: &Vcpu, at: u64) -> u64 {
    let mut bytes = [0; 8];
    cpu.memory.read(at, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// PML4 at 1000h, PDPT at 2000h, PD at 3000h, PT at 4000h; page 0 of each maps on, with the last entry `leaf`.
fn four_levels(cpu: &Vcpu, leaf: u64) {
    put(cpu, 0x1000, 0x2000 | RW_US);
    put(cpu, 0x2000, 0x3000 | RW_US);
    put(cpu, 0x3000, 0x4000 | RW_US);
    put(cpu, 0x4000, leaf);
}

fn code_of(result: Result<Translation, Fault>) -> u32 {
    match result {
        Err(Fault::Exception { vector: 14, error: Some(code), .. }) => code,
        other => panic!("expected #PF, got {other:?}"),
    }
}

#[test]
fn paging_off_is_identity() {
    let mut cpu = cpu("max");
    cpu.state.cr0 = CR0_PE;
    assert_eq!(walk(&mut cpu, 0x1234_5678, Access::Write, Privilege::User).unwrap().phys, 0x1234_5678);
}

#[test]
fn four_level_walk_sets_accessed_then_dirty() {
    let mut cpu = long_cpu("max");
    four_levels(&cpu, 0x5000 | RW_US | G);
    let t = walk(&mut cpu, 0x123, Access::Read, Privilege::User).unwrap();
    assert_eq!(t, Translation { phys: 0x5123, readable: true, writable: false, global: true, size: PageSize::Small });
    for table in [0x1000, 0x2000, 0x3000, 0x4000] {
        assert_eq!(get(&cpu, table) & (A | D), A);
    }
    assert!(walk(&mut cpu, 0x123, Access::Write, Privilege::User).unwrap().writable);
    assert_eq!(get(&cpu, 0x4000) & (A | D), A | D);
    assert_eq!(get(&cpu, 0x3000) & D, 0);
}

#[test]
fn fault_leaves_entries_alone() {
    let mut cpu = long_cpu("max");
    four_levels(&cpu, 0x5000 | P | US);
    let code = code_of(walk(&mut cpu, 0x123, Access::Write, Privilege::User));
    assert_eq!(code, error::P | error::WR | error::US);
    assert_eq!(get(&cpu, 0x1000) & A, 0);
}

#[test]
fn not_present_reports_kind_of_access() {
    let mut cpu = long_cpu("max");
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Read, Privilege::Supervisor)), 0);
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Write, Privilege::User)), error::WR | error::US);
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Execute, Privilege::User)), error::ID | error::US);
    cpu.state.msrs.efer &= !EFER_NXE;
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Execute, Privilege::User)), error::US);
    cpu.state.cr4 |= CR4_SMEP;
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Execute, Privilege::User)), error::ID | error::US);
}

#[test]
fn write_protection_binds_supervisor_only_with_wp() {
    let mut cpu = long_cpu("max");
    four_levels(&cpu, 0x5000 | P);
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Write, Privilege::Supervisor)), error::P | error::WR);
    cpu.state.cr0 &= !CR0_WP;
    assert!(walk(&mut cpu, 0, Access::Write, Privilege::Supervisor).unwrap().writable);
}

#[test]
fn user_bit_is_the_and_of_all_levels() {
    let mut cpu = long_cpu("max");
    four_levels(&cpu, 0x5000 | RW_US);
    put(&cpu, 0x2000, 0x3000 | P | RW);
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Read, Privilege::User)), error::P | error::US);
    assert!(walk(&mut cpu, 0, Access::Read, Privilege::Supervisor).is_ok());
}

#[test]
fn no_execute_at_any_level_stops_fetches() {
    let mut cpu = long_cpu("max");
    four_levels(&cpu, 0x5000 | RW_US);
    put(&cpu, 0x3000, 0x4000 | RW_US | XD);
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Execute, Privilege::User)), error::P | error::US | error::ID);
    assert!(walk(&mut cpu, 0, Access::Read, Privilege::User).is_ok());
    cpu.state.msrs.efer &= !EFER_NXE;
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Read, Privilege::User)), error::P | error::RSVD | error::US);
}

#[test]
fn smep_and_smap_keep_supervisor_from_user_pages() {
    let mut cpu = long_cpu("max");
    four_levels(&cpu, 0x5000 | RW_US);
    cpu.state.cr4 |= CR4_SMEP | CR4_SMAP;
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Execute, Privilege::Supervisor)), error::P | error::ID);
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Read, Privilege::Supervisor)), error::P);
    cpu.state.system_flags |= AC;
    assert!(walk(&mut cpu, 0, Access::Read, Privilege::Supervisor).is_ok());
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Write, Privilege::Implicit)), error::P | error::WR);
}

#[test]
fn address_bits_beyond_the_model_are_reserved() {
    let mut cpu = long_cpu("max");
    four_levels(&cpu, 0x5000 | RW_US | 1 << 40);
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Read, Privilege::Supervisor)), error::P | error::RSVD);
    four_levels(&cpu, 0x5000 | RW_US | 1 << 52);
    assert!(walk(&mut cpu, 0, Access::Read, Privilege::Supervisor).is_ok());
    put(&cpu, 0x1000, 0x2000 | RW_US | PS);
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Read, Privilege::Supervisor)), error::P | error::RSVD);
}

#[test]
fn large_pages_of_2_mib_and_1_gib() {
    let mut cpu = long_cpu("max");
    four_levels(&cpu, 0);
    put(&cpu, 0x3008, 0x20_0000 | RW_US | PS);
    let t = walk(&mut cpu, 0x21_2345, Access::Write, Privilege::User).unwrap();
    assert_eq!((t.phys, t.size), (0x21_2345, PageSize::Large));
    put(&cpu, 0x3008, 0x20_2000 | RW_US | PS);
    assert_eq!(code_of(walk(&mut cpu, 0x21_2345, Access::Read, Privilege::Supervisor)), error::P | error::RSVD);
    put(&cpu, 0x2008, 0x4000_0000 | RW_US | PS);
    let t = walk(&mut cpu, 0x4765_4321, Access::Read, Privilege::User).unwrap();
    assert_eq!((t.phys, t.size), (0x4765_4321, PageSize::Huge));
}

#[test]
fn gigabyte_page_without_the_feature_is_reserved() {
    let mut cpu = long_cpu("max,-pdpe1gb");
    four_levels(&cpu, 0);
    put(&cpu, 0x2000, RW_US | PS);
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Read, Privilege::Supervisor)), error::P | error::RSVD);
}

#[test]
fn five_levels_start_at_bit_56() {
    let mut cpu = long_cpu("max,+la57");
    cpu.state.cr4 |= CR4_LA57;
    put(&cpu, 0x1000 + 8, 0x6000 | RW_US);
    put(&cpu, 0x6000, 0x2000 | RW_US);
    put(&cpu, 0x2000, 0x3000 | RW_US);
    put(&cpu, 0x3000, 0x4000 | RW_US);
    put(&cpu, 0x4000, 0x5000 | RW_US);
    assert_eq!(walk(&mut cpu, 1 << 48 | 7, Access::Read, Privilege::User).unwrap().phys, 0x5007);
}

#[test]
fn pae_uses_loaded_pdptes_without_rights() {
    let mut cpu = cpu("max");
    cpu.state.cr4 = CR4_PAE;
    put(&cpu, 0x1018, 0x3000 | P);
    cpu.state.pdptes = cpu.load_pdptes(ROOT).unwrap();
    put(&cpu, 0x1018, 0);
    put(&cpu, 0x3000, 0x4000 | RW_US);
    put(&cpu, 0x4000, 0x5000 | RW_US);
    assert_eq!(walk(&mut cpu, 0xc000_0010, Access::Write, Privilege::User).unwrap().phys, 0x5010);
    put(&cpu, 0x4000, 0x5000 | RW_US | 1 << 52);
    assert_eq!(code_of(walk(&mut cpu, 0xc000_0010, Access::Read, Privilege::Supervisor)), error::P | error::RSVD);
    assert_eq!(code_of(walk(&mut cpu, 0x10, Access::Read, Privilege::Supervisor)), 0);
}

#[test]
fn pdpte_with_reserved_bit_faults_at_load() {
    let mut cpu = cpu("max");
    cpu.state.cr4 = CR4_PAE;
    put(&cpu, 0x1008, 0x3000 | P | RW);
    assert_eq!(cpu.set_cr3(ROOT), Err(Fault::gp0()));
    put(&cpu, 0x1008, 0x3000 | RW);
    assert_eq!(cpu.set_cr3(ROOT), Ok(()));
}

#[test]
fn thirty_two_bit_walk_ignores_ps_without_pse() {
    let mut cpu = cpu("max");
    put32(&cpu, 0x1000 + 4 * 2, 0x4000 | RW_US as u32 | PS as u32);
    put32(&cpu, 0x4004, 0x5000 | RW_US as u32);
    assert_eq!(walk(&mut cpu, 0x80_1abc, Access::Read, Privilege::User).unwrap().phys, 0x5abc);
    cpu.state.cr4 = CR4_PSE;
    put32(&cpu, 0x1000 + 4 * 2, 0x40_0000 | RW_US as u32 | PS as u32);
    let t = walk(&mut cpu, 0x80_1abc, Access::Read, Privilege::User).unwrap();
    assert_eq!((t.phys, t.size), (0x40_1abc, PageSize::Large));
}

#[test]
fn pse36_puts_high_address_bits_at_13() {
    let mut cpu = cpu("max");
    cpu.state.cr4 = CR4_PSE;
    put32(&cpu, 0x1000, 0x40_0000 | 0xff << 13 | RW_US as u32 | PS as u32);
    assert_eq!(walk(&mut cpu, 0x12, Access::Read, Privilege::User).unwrap().phys, 0xff_0040_0012);
    put32(&cpu, 0x1000, 0x40_0000 | 1 << 21 | RW_US as u32 | PS as u32);
    assert_eq!(code_of(walk(&mut cpu, 0x12, Access::Read, Privilege::Supervisor)), error::P | error::RSVD);
    let mut pentium = self::cpu("pentium");
    pentium.state.cr4 = CR4_PSE;
    put32(&pentium, 0x1000, 0x40_0000 | 1 << 13 | RW_US as u32 | PS as u32);
    assert_eq!(code_of(walk(&mut pentium, 0x12, Access::Read, Privilege::Supervisor)), error::P | error::RSVD);
}

#[test]
fn tables_in_no_memory_read_as_all_ones() {
    let mut cpu = long_cpu("max");
    cpu.state.cr3 = 0x1000_0000;
    assert_eq!(code_of(walk(&mut cpu, 0, Access::Read, Privilege::Supervisor)), error::P | error::RSVD);
    let mut cpu = self::cpu("max");
    cpu.state.cr3 = 0x1000_0000;
    // All ones is a present page at the top of memory, here.
    assert_eq!(walk(&mut cpu, 0, Access::Read, Privilege::Supervisor).unwrap().phys, 0xffff_f000);
}

#[test]
fn inspection_changes_nothing() {
    let cpu = long_cpu("max");
    four_levels(&cpu, 0x5000 | P);
    assert_eq!(inspect(&cpu, 0x10), Some(0x5010));
    assert_eq!(inspect(&cpu, 0x1010), None);
    assert_eq!(get(&cpu, 0x1000) & A, 0);
}

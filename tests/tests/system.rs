//! System instructions as small programs: control and debug registers, fast system calls, model-specific registers,
//! identification, and what each refuses.

use emu_core::cpu::control::*;
use emu_core::cpu::fault::{self, DE, GP, PF, UD};
use emu_core::cpu::model::CpuModel;
use emu_core::cpu::regs::{R11, RAX, RBX, RCX, RDX, RSP};
use emu_core::cpu::rflags::{self, IF};
use emu_core::cpu::segment::Seg;
use emu_core::exec::RunExit;
use emu_tests::machine::*;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

const FSGSBASE: u64 = CR4_FSGSBASE;

/// The vector that `program` ends in, in 64-bit mode at level 0.
fn fault_of(setup: impl FnOnce(&mut Machine), program: Program) -> u8 {
    let mut m = Machine::new_long();
    setup(&mut m);
    let bits = m.cpu.state.code_bits();
    m.assemble(bits, CODE, program);
    m.run_to_fault()
}

fn set(register: u8, value: u64) -> impl FnOnce(&mut Machine) {
    move |m| m.set_reg(register, value)
}

#[test]
fn privileged_instructions_fault_at_level_3() {
    let programs: [(&str, u8, Program); 16] = [
        ("hlt", GP, |a| a.hlt()),
        ("mov cr0", GP, |a| a.mov(rax, cr0)),
        ("mov dr7", GP, |a| a.mov(rax, dr7)),
        ("rdmsr", GP, |a| a.rdmsr()),
        ("wrmsr", GP, |a| a.wrmsr()),
        ("lgdt", GP, |a| a.lgdt(ptr(rsp))),
        ("lmsw", GP, |a| a.lmsw(eax)),
        ("clts", GP, |a| a.clts()),
        ("invlpg", GP, |a| a.invlpg(ptr(rsp))),
        ("invpcid", GP, |a| a.invpcid(rax, ptr(rsp))),
        ("wbinvd", GP, |a| a.wbinvd()),
        ("swapgs", GP, |a| a.swapgs()),
        ("sysret", GP, |a| a.sysretq()),
        ("monitor", UD, |a| a.monitor()),
        ("stac", UD, |a| a.stac()),
        ("rsm", UD, |a| a.rsm()),
    ];
    for (name, vector, program) in programs {
        assert_eq!(fault_of(|m| m.user(64), program), vector, "{name}");
    }
}

#[test]
fn umip_hides_system_registers_from_level_3() {
    for program in [|a| a.sgdt(ptr(rsp)), |a| a.sidt(ptr(rsp)), |a| a.smsw(rax)] as [Program; 3] {
        let umip = |m: &mut Machine| {
            m.cpu.set_cr4(CR4_PAE | CR4_UMIP).unwrap();
            m.user(64);
        };
        assert_eq!(fault_of(umip, program), GP);
    }
    let mut m = Machine::new_long();
    m.user(64);
    m.assemble(64, CODE, |a| {
        a.sidt(ptr(FREE))?;
        a.ud2()
    });
    assert_eq!(m.run_to_fault(), UD);
    assert_eq!(m.read16(FREE), 0xfff);
    assert_eq!(m.read64(FREE + 2), IDT);
}

#[test]
fn cr0_refuses_impossible_combinations() {
    let bad: [Program; 3] = [
        // PG without PE.
        |a| {
            a.mov(rax, 0x8000_0010u64)?;
            a.mov(cr0, rax)
        },
        // NW without CD.
        |a| {
            a.mov(rax, 0xa000_0011u64)?;
            a.mov(cr0, rax)
        },
        // Bits above 31.
        |a| {
            a.mov(rax, 0x1_8000_0011u64)?;
            a.mov(cr0, rax)
        },
    ];
    for program in bad {
        assert_eq!(fault_of(|_| {}, program), GP);
    }
    // Paging cannot be switched off in 64-bit mode.
    assert_eq!(
        fault_of(
            |_| {},
            |a| {
                a.mov(eax, 0x11)?;
                a.mov(cr0, rax)
            }
        ),
        GP
    );
}

#[test]
fn cr0_and_dr6_dr7_have_fixed_bits() {
    let mut m = Machine::new_long();
    m.assemble(64, CODE, |a| {
        a.mov(rax, cr0)?;
        a.or(rax, 0x0fff_ffc0)?;
        a.and(rax, !0x10)?;
        a.mov(cr0, rax)?;
        a.mov(rax, cr0)?;
        a.xor(ebx, ebx)?;
        a.mov(dr6, rbx)?;
        a.mov(rbx, dr6)?;
        a.mov(ecx, 0xdc00)?;
        a.mov(dr7, rcx)?;
        a.mov(rcx, dr7)?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.reg(RAX) & 0x0fff_ffd0, CR0_WP | CR0_AM | CR0_ET);
    assert_eq!(m.reg(RBX), 0xffff_0ff0);
    assert_eq!(m.reg(RCX), 0x400);
}

#[test]
fn cr4_refuses_what_the_model_lacks_and_what_is_in_use() {
    fn write_cr4(a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.mov(cr4, rax)
    }
    for bits in [0, CR4_PAE | 1 << 13, CR4_PAE | 1 << 22, CR4_PAE | CR4_LA57, CR4_PAE | 1 << 32] {
        assert_eq!(fault_of(set(RAX, bits), write_cr4), GP, "{bits:#x}");
    }
    // PCIDE needs a CR3 whose low bits are clear.
    let setup = |m: &mut Machine| {
        m.cpu.set_cr3(PAGE_TABLES | 8).unwrap();
        m.set_reg(RAX, CR4_PAE | CR4_PCIDE);
    };
    assert_eq!(fault_of(setup, write_cr4), GP);
}

#[test]
fn cr3_reserved_bits_fault() {
    assert_eq!(fault_of(set(RAX, PAGE_TABLES | 1 << 40), |a| a.mov(cr3, rax)), GP);
    // Bit 63 is one without PCID.
    assert_eq!(fault_of(set(RAX, PAGE_TABLES | 1 << 63), |a| a.mov(cr3, rax)), GP);
}

#[test]
fn paging_on_with_lme_activates_ia32e_mode() {
    let mut m = Machine::new_long();
    m.cpu.state.cr0 &= !CR0_PG;
    m.cpu.state.msrs.efer = 0;
    m.cpu.state.cr4 = 0;
    m.protected();
    m.assemble(32, CODE, |a| {
        a.mov(eax, CR4_PAE as u32)?;
        a.mov(cr4, eax)?;
        a.mov(eax, PAGE_TABLES as u32)?;
        a.mov(cr3, eax)?;
        a.mov(ecx, 0xc000_0080u32)?;
        a.rdmsr()?;
        a.or(eax, EFER_LME as u32)?;
        a.wrmsr()?;
        a.mov(eax, cr0)?;
        a.or(eax, 0x8000_0000u32 as i32)?;
        a.mov(cr0, eax)?;
        a.rdmsr()?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.reg(RAX), EFER_LME | EFER_LMA);
    // And off again, from compatibility mode.
    m.assemble(32, CODE, |a| {
        a.mov(eax, cr0)?;
        a.and(eax, 0x7fff_ffff)?;
        a.mov(cr0, eax)?;
        a.rdmsr()?;
        a.hlt()
    });
    m.cpu.state.rip = CODE;
    m.run();
    assert_eq!(m.reg(RAX), EFER_LME);
}

#[test]
fn lmsw_sets_pe_but_cannot_clear_it() {
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| {
        a.xor(eax, eax)?;
        a.lmsw(eax)?;
        a.smsw(eax)?;
        a.hlt()
    });
    m.cpu.state.cr0 |= CR0_TS;
    m.run();
    assert_eq!(m.reg(RAX) & 15, CR0_PE);
}

#[test]
fn debug_register_access_with_gd_traps_and_clears_gd() {
    let mut m = Machine::new_long();
    m.cpu.state.dr[7] = 0x400 | 1 << 13;
    m.assemble(64, CODE, |a| a.mov(rax, dr0));
    assert_eq!(m.run_to_fault(), fault::DB);
    assert_eq!(m.cpu.state.dr[6] & 1 << 13, 1 << 13);
    assert_eq!(m.cpu.state.dr[7], 0x400);
    assert_eq!(m.pushed(0), CODE);
}

#[test]
fn dr4_is_dr6_unless_cr4_de() {
    let mut m = Machine::new_long();
    // iced-x86's assembler refuses DR4: MOV RAX, DR4 by hand.
    m.write(CODE, &[0x0f, 0x21, 0xe0, 0xf4]);
    m.run();
    assert_eq!(m.reg(RAX), 0xffff_0ff0);
    let mut m = Machine::new_long();
    m.cpu.set_cr4(CR4_PAE | CR4_DE).unwrap();
    m.write(CODE, &[0x0f, 0x21, 0xe0, 0xf4]);
    assert_eq!(m.run_to_fault(), UD);
}

#[test]
fn control_registers_that_do_not_exist_are_undefined() {
    for modrm in [0xc8, 0xe8, 0xf0, 0xf8] {
        let mut m = Machine::new_long();
        m.write(CODE, &[0x0f, 0x20, modrm, 0xf4]);
        assert_eq!(m.run_to_fault(), UD, "{modrm:#x}");
    }
}

#[test]
fn lgdt_takes_24_bits_with_16_bit_operands_and_checks_canonicality() {
    let mut m = Machine::new_protected();
    m.write16(FREE, 0x1ff);
    m.write32(FREE + 2, 0xab12_3456);
    // 66 LIDT [FREE]
    m.write(CODE, &[0x66, 0x0f, 0x01, 0x1d, 0, 0, 4, 0, 0xf4]);
    m.run();
    assert_eq!((m.cpu.state.idtr.base, m.cpu.state.idtr.limit), (0x12_3456, 0x1ff));
    let setup = |m: &mut Machine| m.write64(FREE + 2, 1 << 47);
    assert_eq!(fault_of(setup, |a| a.lgdt(ptr(FREE))), GP);
}

/// LSTAR at FREE, STAR for the kernel at 8h, user at 1Bh.
fn syscall_machine() -> Machine {
    let mut m = Machine::new_long();
    m.cpu.write_msr(0xc000_0081, 0x0023_0010_0000_0000).unwrap();
    m.cpu.write_msr(0xc000_0082, FREE).unwrap();
    m.cpu.write_msr(0xc000_0084, IF | rflags::TF).unwrap();
    m
}

#[test]
fn syscall_and_sysret_round_trip() {
    let mut m = syscall_machine();
    m.user(64);
    m.cpu.state.system_flags |= IF;
    m.assemble(64, CODE, |a| {
        a.stc()?;
        a.syscall()?;
        a.ud2()
    });
    m.assemble(64, FREE, |a| a.hlt());
    m.run();
    let s = &m.cpu.state;
    assert_eq!(s.cpl, 0);
    assert_eq!((s.segment(Seg::Cs).selector, s.segment(Seg::Ss).selector), (0x10, 0x18));
    assert_eq!(m.reg(RCX), CODE + 3);
    assert_eq!(m.reg(R11), IF | rflags::CF | 2);
    assert_eq!(s.rflags(), rflags::CF | 2);
    m.assemble(64, FREE, |a| a.sysretq());
    m.cpu.state.rip = FREE;
    assert_eq!(m.run_to_fault(), UD);
    assert_eq!(m.pushed(0), CODE + 3);
    assert_eq!(m.pushed(1), 0x33);
    assert_eq!(m.pushed(2), IF | rflags::CF | 2 | rflags::RF);
    assert_eq!(m.pushed(4), 0x2b);
}

#[test]
fn syscall_that_masks_tf_is_not_single_stepped() {
    let mut m = syscall_machine();
    m.user(64);
    m.cpu.state.system_flags |= rflags::TF;
    m.assemble(64, CODE, |a| a.syscall());
    m.assemble(64, FREE, |a| a.sysretq());
    // The trap comes when SYSRET brings TF back.
    assert_eq!(m.run_to_fault(), fault::DB);
    assert_eq!(m.pushed(0), CODE + 2);
    assert_eq!(m.cpu.state.dr[6] & 0x4000, 0x4000);
}

#[test]
fn sysret_to_non_canonical_rip_faults_at_level_0() {
    let mut m = syscall_machine();
    m.set_reg(RCX, 1 << 47);
    m.assemble(64, CODE, |a| a.sysretq());
    assert_eq!(m.run_to_fault(), GP);
    assert_eq!(m.pushed(1), CODE);
    assert_eq!(m.pushed(2), u64::from(CODE64));
}

#[test]
fn syscall_needs_sce_and_64_bit_mode() {
    assert_eq!(fault_of(|m| m.cpu.state.msrs.efer &= !EFER_SCE, |a| a.syscall()), UD);
    let mut m = syscall_machine();
    m.user(32);
    m.write(CODE, &[0x0f, 0x05]);
    assert_eq!(m.run_to_fault(), UD);
}

#[test]
fn amd_syscall_from_compatibility_mode_enters_cstar() {
    let mut m = Machine::of_model(2, CpuModel::parse("qemu64").unwrap());
    m.long();
    m.catch_all();
    m.cpu.write_msr(0xc000_0081, 0x0023_0010_0000_0000).unwrap();
    m.cpu.write_msr(0xc000_0083, FREE).unwrap();
    m.user(32);
    m.write(CODE, &[0x0f, 0x05]);
    m.assemble(64, FREE, |a| a.hlt());
    m.run();
    assert_eq!(m.cpu.state.cpl, 0);
    assert_eq!(m.reg(RCX), CODE + 2);
    // SYSENTER is Intel's in IA-32e mode.
    m.user(32);
    m.cpu.state.rip = CODE;
    m.write(CODE, &[0x0f, 0x34]);
    assert_eq!(m.run_to_fault(), UD);
}

#[test]
fn sysenter_and_sysexit_round_trip_in_both_modes() {
    let mut m = Machine::new_protected();
    m.cpu.write_msr(0x174, u64::from(CODE32)).unwrap();
    m.cpu.write_msr(0x175, INNER_STACK0).unwrap();
    m.cpu.write_msr(0x176, FREE).unwrap();
    m.user(32);
    m.cpu.state.system_flags |= IF;
    m.assemble(32, CODE, |a| {
        a.sysenter()?;
        a.ud2()
    });
    m.assemble(32, FREE, |a| {
        a.mov(edx, CODE as u32 + 2)?;
        a.mov(ecx, STACK3 as u32)?;
        a.hlt()
    });
    m.run();
    assert_eq!((m.cpu.state.cpl, m.reg(RSP)), (0, INNER_STACK0));
    assert_eq!(m.cpu.state.rflags() & IF, 0);
    assert_eq!((m.cpu.state.segment(Seg::Cs).selector, m.cpu.state.segment(Seg::Ss).selector), (8, 16));
    m.assemble(32, FREE, |a| a.sysexit());
    m.cpu.state.rip = FREE;
    assert_eq!(m.run_to_fault(), UD);
    assert_eq!((m.pushed(0), m.pushed(1), m.pushed(4)), (CODE + 2, 0x1b, 0x23));

    let mut m = Machine::new_long();
    m.cpu.write_msr(0x174, 0x18).unwrap();
    m.cpu.write_msr(0x175, INNER_STACK0).unwrap();
    m.cpu.write_msr(0x176, FREE).unwrap();
    m.user(32);
    m.assemble(32, CODE, |a| a.sysenter());
    m.assemble(64, FREE, |a| a.hlt());
    m.run();
    assert!(m.cpu.state.code64() && m.cpu.state.cpl == 0);
    m.set_reg(RDX, 1 << 63);
    m.cpu.state.rip = FREE;
    m.assemble(64, FREE, |a| a.sysexitq());
    assert_eq!(m.run_to_fault(), GP);
}

#[test]
fn sysenter_with_null_cs_faults() {
    assert_eq!(fault_of(|m| m.cpu.state.msrs.sysenter_cs = 3, |a| a.sysenter()), GP);
}

#[test]
fn msrs_refuse_reserved_bits_and_non_canonical_addresses() {
    let mut m = Machine::new_long();
    for (register, value) in [
        (0xc000_0082, 1 << 47),
        (0xc000_0100, 1 << 63),
        (0xc000_0102, 0x8000_0000_0000_0000),
        (0x176, 1 << 47),
        (0xc000_0080, 1 << 1),
        (0x277, 0x02),
        (0x2ff, 0x02),
        (0x200, 0x02),
        (0x201, 1 << 40),
        (0xc000_0103, 1 << 32),
        (0x10a, 0),
        (0xfe, 0),
        (0x401, 1),
        (0x1234_5678, 0),
    ] {
        assert!(m.cpu.write_msr(register, value).is_err(), "{register:#x}");
    }
    assert!(m.cpu.read_msr(0x1234_5678).is_err());
    // LME cannot change while paging is on.
    assert!(m.cpu.write_msr(0xc000_0080, EFER_SCE).is_err());
}

#[test]
fn msrs_hold_what_was_written() {
    let mut m = Machine::new_long();
    for (register, value) in [
        (0x277, 0x0007_0406_0007_0406),
        (0x2ff, 0xc06),
        (0x200, 0x8000_0006),
        (0x201, 0xff_8000_0800),
        (0x250, 0x0606_0606_0606_0606),
        (0x259, 0x0101_0101_0101_0101),
        (0x26f, 0x0505_0505_0505_0505),
        (0xc000_0103, 0x1234),
        (0xc000_0102, 0xffff_8000_0000_0000),
        (0x174, 0x10),
        (0x48, 1),
        (0x400, u64::MAX),
    ] {
        m.cpu.write_msr(register, value).unwrap();
        assert_eq!(m.cpu.read_msr(register), Ok(value), "{register:#x}");
    }
}

#[test]
fn tsc_writes_move_tsc_adjust() {
    let mut m = Machine::new_long();
    let before = m.cpu.read_msr(0x10).unwrap();
    m.cpu.write_msr(0x10, before + 1_000_000).unwrap();
    assert_eq!(m.cpu.read_msr(0x3b), Ok(1_000_000));
    m.cpu.write_msr(0x3b, 0).unwrap();
    assert_eq!(m.cpu.read_msr(0x10), Ok(before));
}

#[test]
fn rdtsc_counts_virtual_time_and_obeys_tsd() {
    let mut m = Machine::new_long();
    m.assemble(64, CODE, |a| {
        a.rdtsc()?;
        a.mov(rbx, rax)?;
        a.nop()?;
        a.nop()?;
        a.rdtscp()?;
        a.hlt()
    });
    m.cpu.write_msr(0xc000_0103, 7).unwrap();
    m.run();
    // One nanosecond, which is one tick, for each of four instructions.
    assert_eq!(m.reg(RAX) - m.reg(RBX), 4);
    assert_eq!(m.reg(RCX), 7);
    let tsd = |m: &mut Machine| {
        m.cpu.set_cr4(CR4_PAE | CR4_TSD).unwrap();
        m.user(64);
    };
    assert_eq!(fault_of(tsd, |a| a.rdtsc()), GP);
    assert_eq!(fault_of(tsd, |a| a.rdtscp()), GP);
}

#[test]
fn fs_and_gs_base_instructions_need_cr4_and_canonical_values() {
    assert_eq!(fault_of(|_| {}, |a| a.rdfsbase(rax)), UD);
    let on = |m: &mut Machine| {
        m.cpu.set_cr4(CR4_PAE | FSGSBASE).unwrap();
        m.user(64);
        m.set_reg(RAX, 1 << 47);
    };
    assert_eq!(fault_of(on, |a| a.wrgsbase(rax)), GP);
    let mut m = Machine::new_long();
    on(&mut m);
    m.write64(FREE + 0x10, 99);
    m.assemble(64, CODE, |a| {
        a.mov(eax, FREE as u32)?;
        a.wrfsbase(rax)?;
        a.mov(rbx, qword_ptr(0x10).fs())?;
        a.rdfsbase(rcx)?;
        a.ud2()
    });
    m.run_to_fault();
    assert_eq!((m.reg(RBX), m.reg(RCX)), (99, FREE));
}

#[test]
fn swapgs_exchanges_bases() {
    let mut m = Machine::new_long();
    m.cpu.write_msr(0xc000_0101, 1).unwrap();
    m.cpu.write_msr(0xc000_0102, 2).unwrap();
    m.assemble(64, CODE, |a| {
        a.swapgs()?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.cpu.read_msr(0xc000_0101), Ok(2));
    assert_eq!(m.cpu.read_msr(0xc000_0102), Ok(1));
}

#[test]
fn cpuid_agrees_with_the_model() {
    let query = |model: &str, leaf: u64, subleaf: u64| {
        let mut m = Machine::of_model(2, CpuModel::parse(model).unwrap());
        m.protected();
        m.set_reg(RAX, leaf);
        m.set_reg(RCX, subleaf);
        m.assemble(32, CODE, |a| {
            a.cpuid()?;
            a.hlt()
        });
        m.run();
        [RAX, RBX, RCX, RDX].map(|r| m.reg(r) as u32)
    };
    let [max, b, c, d] = query("max", 0, 0);
    assert_eq!(max, 0x16);
    let vendor: Vec<u8> = [b, d, c].iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!(vendor, b"GenuineIntel");
    assert_eq!(query("486", 1, 0)[3], 0xb, "FPU, VME, PSE");
    assert_eq!(query("max", 7, 0)[1] & 1 << 20, 1 << 20, "SMAP");
    assert_eq!(query("max,-smap", 7, 0)[1] & 1 << 20, 0);
    assert_eq!(query("max", 0x8000_0008, 0)[0], 48 << 8 | 40);
    // No local APIC on this machine.
    assert_eq!(query("max", 1, 0)[3] & 1 << 9, 0);
    // Beyond the end: the last basic leaf on Intel, nothing on AMD.
    assert_eq!(query("max", 0x1234, 0), query("max", 0x16, 0));
    assert_eq!(query("qemu64", 0x1234, 0), [0; 4]);
    // SYSCALL shows only in 64-bit mode on Intel.
    assert_eq!(query("max", 0x8000_0001, 0)[3] & 1 << 11, 0);
}

#[test]
fn instructions_outside_the_model_are_undefined() {
    let programs: [(&str, Program); 6] = [
        ("486", |a| a.rdtsc()),
        ("486", |a| a.rdmsr()),
        ("pentium", |a| a.cmove(eax, ebx)),
        ("pentium3", |a| a.addpd(xmm0, xmm1)),
        ("Nehalem", |a| a.aesenc(xmm0, xmm1)),
        ("max,-bmi1", |a| a.andn(eax, ebx, ecx)),
    ];
    for (model, program) in programs {
        let mut m = Machine::of_model(2, CpuModel::parse(model).unwrap());
        m.protected();
        m.catch_all();
        m.assemble(32, CODE, program);
        assert_eq!(m.run_to_fault(), UD, "{model}");
    }
}

#[test]
fn lzcnt_without_the_feature_is_bsr() {
    for (model, expected) in [("max", 27), ("max,-abm", 4)] {
        let mut m = Machine::of_model(2, CpuModel::parse(model).unwrap());
        m.protected();
        m.catch_all();
        m.set_reg(RBX, 0x1f);
        m.write(CODE, &[0xf3, 0x0f, 0xbd, 0xc3, 0xf4]);
        m.run();
        assert_eq!(m.reg(RAX), expected, "{model}");
    }
}

#[test]
fn rdrand_is_repeatable_and_sets_only_carry() {
    let run = || {
        let mut m = Machine::new_long();
        m.assemble(64, CODE, |a| {
            a.sub(ebx, ebx)?;
            a.rdrand(rax)?;
            a.pushfq()?;
            a.pop(rbx)?;
            a.rdseed(ecx)?;
            a.hlt()
        });
        m.run();
        [RAX, RBX, RCX].map(|r| m.reg(r))
    };
    let first = run();
    assert_eq!(first, run());
    assert_ne!(first[0], 0);
    assert_eq!(first[1] & rflags::ARITH, rflags::CF);
    assert_eq!(first[2] >> 32, 0);
}

#[test]
fn xgetbv_and_xsetbv_guard_xcr0() {
    assert_eq!(fault_of(|_| {}, |a| a.xgetbv()), UD);
    for value in [0, 2, 7, 1 << 63] {
        let setup = |m: &mut Machine| {
            m.cpu.set_cr4(CR4_PAE | CR4_OSXSAVE).unwrap();
            m.set_reg(RCX, 0);
            m.set_reg(RAX, value & 0xffff_ffff);
            m.set_reg(RDX, value >> 32);
        };
        assert_eq!(fault_of(setup, |a| a.xsetbv()), GP, "{value:#x}");
    }
    let mut m = Machine::new_long();
    m.cpu.set_cr4(CR4_PAE | CR4_OSXSAVE).unwrap();
    m.assemble(64, CODE, |a| {
        a.xor(ecx, ecx)?;
        a.xor(edx, edx)?;
        a.mov(eax, 3)?;
        a.xsetbv()?;
        a.xor(eax, eax)?;
        a.xgetbv()?;
        a.hlt()
    });
    m.run();
    assert_eq!(m.reg(RAX), 3);
}

#[test]
fn mwait_sleeps_only_when_armed() {
    let mut m = Machine::new_long();
    m.assemble(64, CODE, |a| {
        a.xor(ecx, ecx)?;
        a.mwait()?;
        a.mov(ebx, 1)?;
        a.mov(eax, FREE as u32)?;
        a.monitor()?;
        a.mwait()?;
        a.mov(ebx, 2)?;
        a.hlt()
    });
    assert_eq!(m.cpu.run(1000), RunExit::Halted);
    assert_eq!(m.reg(RBX), 1);
}

#[test]
fn stac_and_clac_open_and_close_user_pages() {
    for compiles in [false, true] {
        let mut m = Machine::new_long();
        if compiles {
            m.compile();
        }
        m.cpu.set_cr4(CR4_PAE | CR4_SMAP).unwrap();
        // Code, tables and stack must be supervisor pages: the low 2 MiB; the next 2 MiB stay with the user.
        m.write64(PAGE_TABLES + 0x2000, 0x83);
        m.write64(PAGE_TABLES + 0x2000 + 8, 0x87);
        m.cpu.flush_tlb(false);
        m.assemble(64, CODE, |a| {
            a.stac()?;
            a.mov(eax, dword_ptr(0x20_0000))?;
            a.inc(ebx)?;
            a.clac()?;
            a.mov(eax, dword_ptr(0x20_0000))?;
            a.hlt()
        });
        assert_eq!(m.run_to_fault(), PF);
        assert_eq!(m.reg(RBX), 1);
        assert_eq!(m.pushed(0), 1);
        assert_eq!(m.cpu.state.cr2, 0x20_0000);
    }
}

#[test]
fn invlpg_makes_a_changed_page_table_visible() {
    let mut m = Machine::new_long();
    m.write64(FREE, 1);
    m.write64(0x10_0000 + FREE, 2);
    m.cpu.flush_tlb(false);
    // One 4 KiB page at 4000_0000h, whose page-table entry the program changes.
    m.write64(PAGE_TABLES + 0x1000 + 8, 0x5_0007);
    m.write64(0x5_0000, 0x5_1007);
    m.write64(0x5_1000, FREE | 7);
    m.assemble(64, CODE, |a| {
        a.mov(esi, 0x4000_0000)?;
        a.mov(rax, qword_ptr(rsi))?;
        a.add(dword_ptr(0x5_1000), 0x10_0000)?;
        a.mov(rbx, qword_ptr(rsi))?;
        a.invlpg(ptr(rsi))?;
        a.mov(rcx, qword_ptr(rsi))?;
        a.hlt()
    });
    m.run();
    assert_eq!([RAX, RBX, RCX].map(|r| m.reg(r)), [1, 1, 2]);
}

#[test]
fn invpcid_checks_its_descriptor() {
    let cases = [(4u64, 0u64, 0u64), (1, 0x1000, 0), (0, 0, 1 << 47), (1, 5, 0)];
    for (kind, context, address) in cases {
        let setup = |m: &mut Machine| {
            m.write64(FREE, context);
            m.write64(FREE + 8, address);
            m.set_reg(RAX, kind);
        };
        assert_eq!(fault_of(setup, |a| a.invpcid(rax, ptr(FREE))), GP, "{kind} {context:#x} {address:#x}");
    }
}

#[test]
fn decimal_arithmetic_matches_the_manual() {
    // (program, AX and CF|AF before, AX and CF|AF after); the manual's examples and the corners of its pseudo-code.
    const NONE: u64 = 0;
    const BOTH: u64 = rflags::CF | rflags::AF;
    let cases: [(Program, u64, u64, u64, u64); 16] = [
        (|a| a.daa(), 0xae, NONE, 0x14, BOTH),
        (|a| a.daa(), 0x2e, NONE, 0x34, rflags::AF),
        (|a| a.daa(), 0x9a, NONE, 0x00, BOTH),
        (|a| a.daa(), 0x10, rflags::CF, 0x70, rflags::CF),
        (|a| a.das(), 0xee, NONE, 0x88, BOTH),
        (|a| a.das(), 0x05, rflags::AF, 0xff, BOTH),
        (|a| a.das(), 0x47, NONE, 0x47, NONE),
        (|a| a.aaa(), 0x000b, NONE, 0x0101, BOTH),
        (|a| a.aaa(), 0x01fb, NONE, 0x0301, BOTH),
        (|a| a.aaa(), 0x0005, NONE, 0x0005, NONE),
        (|a| a.aas(), 0x0205, rflags::AF, 0x000f, BOTH),
        (|a| a.aas(), 0x0003, rflags::AF, 0xfe0d, BOTH),
        (|a| a.aam(10), 0x00_3f, NONE, 0x0603, NONE),
        (|a| a.aam(16), 0x00_3f, NONE, 0x030f, NONE),
        (|a| a.aad(10), 0x0603, NONE, 0x003f, NONE),
        (|a| a.aad(16), 0x0f0f, NONE, 0x00ff, NONE),
    ];
    for (n, (program, before, flags, after, flags_after)) in cases.into_iter().enumerate() {
        let mut m = Machine::new_protected();
        m.set_reg(RAX, before);
        m.cpu.state.flags.set_bits(flags);
        let end = m.assemble(32, CODE, program);
        m.assemble(32, end, |a| a.hlt());
        m.run();
        assert_eq!(m.reg(RAX), after, "case {n}");
        assert_eq!(m.cpu.state.rflags() & BOTH, flags_after, "flags of case {n}");
    }
    let mut m = Machine::new_protected();
    m.assemble(32, CODE, |a| a.aam(0));
    assert_eq!(m.run_to_fault(), DE);
}

#[test]
fn xlat_wraps_with_its_address_size() {
    let mut m = Machine::new_protected();
    m.write(7, &[0x5a]);
    m.set_reg(RBX, 0xffff);
    m.set_reg(RAX, 8);
    // Address size 16: FFFFh + 8 is 7.
    m.write(CODE, &[0x67, 0xd7, 0xf4]);
    m.run();
    assert_eq!(m.reg(RAX), 0x5a);
}

#[test]
fn cache_line_instructions_fault_like_reads_and_prefetches_do_not() {
    let unmapped = 0x7000_0000u32;
    for program in [|a| a.clflush(ptr(0x7000_0000)), |a| a.clflushopt(ptr(0x7000_0000)), |a| a.clwb(ptr(0x7000_0000))]
        as [Program; 3]
    {
        assert_eq!(fault_of(|_| {}, program), PF);
    }
    let mut m = Machine::new_long();
    m.assemble(64, CODE, |a| {
        a.prefetchnta(ptr(unmapped))?;
        a.prefetchw(ptr(unmapped))?;
        a.lfence()?;
        a.mfence()?;
        a.sfence()?;
        a.serialize()?;
        a.hlt()
    });
    m.run();
}

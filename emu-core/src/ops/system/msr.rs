//! RDMSR and WRMSR (SDM Vol. 4), FS and GS bases, SWAPGS.
//!
//! The local APIC answers its own registers through the bus. A register that the model lacks is #GP(0) and an event of
//! the tracing target `guest_errors`. Deliberately absent: performance counters, last-branch records, thermal control,
//! power limits, VMX.

use super::{canonical, privileged};
use crate::clock::TSC_HZ;
use crate::cpu::control::*;
use crate::cpu::fault::Fault;
use crate::cpu::features::{Feature, Word};
use crate::cpu::model::Vendor;
use crate::cpu::regs::{RCX, RegFile};
use crate::cpu::segment::Seg;
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use iced_x86::Code;

/// Register numbers.
#[allow(missing_docs)]
pub mod index {
    pub const P5_MC_ADDR: u32 = 0x0;
    pub const P5_MC_TYPE: u32 = 0x1;
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const EBL_CR_POWERON: u32 = 0x2a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PRED_CMD: u32 = 0x49;
    pub const BIOS_UPDT_TRIG: u32 = 0x79;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const MTRRCAP: u32 = 0xfe;
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MCG_CTL: u32 = 0x17b;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUGCTL: u32 = 0x1d9;
    pub const LAST_BRANCH_FIRST: u32 = 0x1db;
    pub const LAST_BRANCH_LAST: u32 = 0x1de;
    pub const MTRR_PHYS_FIRST: u32 = 0x200;
    pub const MTRR_PHYS_LAST: u32 = 0x20f;
    pub const MTRR_FIX_64K: u32 = 0x250;
    pub const MTRR_FIX_16K_FIRST: u32 = 0x258;
    pub const MTRR_FIX_16K_LAST: u32 = 0x259;
    pub const MTRR_FIX_4K_FIRST: u32 = 0x268;
    pub const MTRR_FIX_4K_LAST: u32 = 0x26f;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const MC_FIRST: u32 = 0x400;
    pub const MC_LAST: u32 = 0x40f;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const X2APIC_FIRST: u32 = 0x800;
    pub const X2APIC_LAST: u32 = 0x8ff;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const FMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
}

use index::*;

/// AMD's registers that guests read and write without asking; they hold nothing here (BKDG 26094, chapter 14).
const AMD_INERT: [u32; 12] = [
    0xc001_0010,
    0xc001_0015,
    0xc001_001f,
    0xc001_0055,
    0xc001_0112,
    0xc001_0114,
    0xc001_0117,
    0xc001_1020,
    0xc001_1022,
    0xc001_1023,
    0xc001_1029,
    0xc001_102a,
];

/// IA32_MISC_ENABLE: fast strings, limited CPUID leaves, MONITOR: the bits that can be written.
const MISC_ENABLE_BITS: u64 = 1 << 0 | 1 << 18 | MISC_ENABLE_LIMIT_CPUID;
/// CPUID shows no leaf above 2.
pub const MISC_ENABLE_LIMIT_CPUID: u64 = 1 << 22;
/// IA32_SPEC_CTRL: IBRS, STIBP, SSBD.
const SPEC_CTRL_BITS: u64 = 7;
/// IA32_SPEC_CTRL.BHI_DIS_S.
const SPEC_CTRL_BHI_DIS_S: u64 = 1 << 10;
/// The microcode revision that every model reports, in the upper half of IA32_BIOS_SIGN_ID.
pub const MICROCODE_REVISION: u64 = 1 << 32;
/// IA32_MCG_CAP: four banks, IA32_MCG_CTL present.
const MCG_CAP_VALUE: u64 = 4 | 1 << 8;
/// IA32_MTRRCAP: eight variable ranges, fixed ranges, write-combining.
const MTRRCAP_VALUE: u64 = 8 | 1 << 8 | 1 << 10;
/// IA32_MTRR_DEF_TYPE: type, fixed ranges enabled, MTRRs enabled.
const MTRR_DEF_TYPE_BITS: u64 = 0xcff;

/// RDMSR
pub fn rdmsr(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    privileged(cpu)?;
    let register = cpu.state.regs.get32(RegFile::slot(RCX));
    let value = cpu.read_msr(register)?;
    cpu.set_edx_eax(value);
    Ok(())
}

/// WRMSR
pub fn wrmsr(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    privileged(cpu)?;
    let register = cpu.state.regs.get32(RegFile::slot(RCX));
    let value = cpu.edx_eax();
    cpu.write_msr(register, value)
}

/// RDFSBASE, RDGSBASE
pub fn read_base(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let seg = base_register(cpu, insn)?;
    let base = cpu.state.segment(seg).base;
    cpu.state.regs.set(insn.ops[0].reg, insn.width, base);
    Ok(())
}

/// WRFSBASE, WRGSBASE
pub fn write_base(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let seg = base_register(cpu, insn)?;
    let base = cpu.state.regs.get(insn.ops[0].reg, insn.width);
    canonical(cpu, base)?;
    cpu.state.set_segment_base(seg, base);
    Ok(())
}

fn base_register(cpu: &Vcpu, insn: &Insn) -> Result<Seg, Fault> {
    if cpu.state.cr4 & CR4_FSGSBASE == 0 {
        return Err(Fault::ud());
    }
    Ok(match insn.code {
        Code::Rdfsbase_r32 | Code::Rdfsbase_r64 | Code::Wrfsbase_r32 | Code::Wrfsbase_r64 => Seg::Fs,
        _ => Seg::Gs,
    })
}

/// SWAPGS
pub fn swapgs(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    privileged(cpu)?;
    let base = cpu.state.segment(Seg::Gs).base;
    cpu.state.set_segment_base(Seg::Gs, cpu.state.msrs.kernel_gs_base);
    cpu.state.msrs.kernel_gs_base = base;
    Ok(())
}

/// A memory type that MTRRs can have.
fn mtrr_type(value: u64) -> bool {
    matches!(value & 0xff, 0 | 1 | 4 | 5 | 6)
}

/// Every byte of `value` is in order.
fn all_bytes(value: u64, good: impl Fn(u64) -> bool) -> bool {
    value.to_le_bytes().iter().all(|byte| good(u64::from(*byte)))
}

fn require(condition: bool) -> Result<(), Fault> {
    if condition { Ok(()) } else { Err(Fault::gp0()) }
}

fn unknown(cpu: &Vcpu, register: u32, action: &str) -> Fault {
    tracing::debug!(target: "guest_errors", rip = format_args!("{:#x}", cpu.insn_rip),
        "{action} of model-specific register {register:#x}, which this model lacks");
    Fault::gp0()
}

impl Vcpu {
    /// The time-stamp counter.
    pub fn tsc(&self) -> u64 {
        self.now().ticks(TSC_HZ).wrapping_add(self.state.msrs.tsc_offset)
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.state.msrs.tsc_offset = offset;
        let pending = self.pending_instructions();
        self.bus.set_tsc_offset(offset, pending);
        self.after_bus();
    }

    /// Whether the model has `register`. The registers of the local APIC are the bus's business.
    fn has_msr(&self, register: u32) -> bool {
        use Feature::*;
        let needs = match register {
            P5_MC_ADDR | P5_MC_TYPE => Mce,
            TSC => Tsc,
            TSC_ADJUST => TscAdjust,
            SPEC_CTRL | PRED_CMD => SpecCtrl,
            ARCH_CAPABILITIES => ArchCapabilities,
            PLATFORM_ID | EBL_CR_POWERON | BIOS_UPDT_TRIG | BIOS_SIGN_ID | DEBUGCTL => Cmov,
            LAST_BRANCH_FIRST..=LAST_BRANCH_LAST => Cmov,
            MISC_ENABLE => Sse2,
            SYSENTER_CS | SYSENTER_ESP | SYSENTER_EIP => Sep,
            MCG_CAP | MCG_STATUS | MCG_CTL | MC_FIRST..=MC_LAST => Mca,
            MTRRCAP
            | MTRR_DEF_TYPE
            | MTRR_PHYS_FIRST..=MTRR_PHYS_LAST
            | MTRR_FIX_64K
            | MTRR_FIX_16K_FIRST..=MTRR_FIX_16K_LAST
            | MTRR_FIX_4K_FIRST..=MTRR_FIX_4K_LAST => Mtrr,
            PAT => Feature::Pat,
            EFER => return self.efer_bits() != 0,
            STAR => Syscall,
            LSTAR | CSTAR | FMASK | FS_BASE | GS_BASE | KERNEL_GS_BASE => Lm,
            TSC_AUX => return self.model.supports(Rdtscp) || self.model.supports(Rdpid),
            _ => return self.model.vendor == Vendor::Amd && AMD_INERT.contains(&register),
        };
        self.model.supports(needs)
    }

    fn efer_bits(&self) -> u64 {
        let bit = |feature, bit| if self.model.supports(feature) { bit } else { 0 };
        bit(Feature::Syscall, EFER_SCE) | bit(Feature::Lm, EFER_LME) | bit(Feature::Nx, EFER_NXE)
    }

    /// What RDMSR of `register` gives.
    ///
    /// # Errors
    /// #GP(0).
    pub fn read_msr(&mut self, register: u32) -> Result<u64, Fault> {
        if let APIC_BASE | TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST = register {
            let pending = self.pending_instructions();
            let answer = self.bus.read_msr(register, pending);
            self.after_bus();
            return match answer {
                Some(Ok(value)) => Ok(value),
                Some(Err(_)) => Err(Fault::gp0()),
                None => Err(unknown(self, register, "read")),
            };
        }
        if !self.has_msr(register) {
            return Err(unknown(self, register, "read"));
        }
        let m = &self.state.msrs;
        Ok(match register {
            TSC => self.tsc(),
            TSC_ADJUST => m.tsc_adjust,
            SPEC_CTRL => m.spec_ctrl,
            BIOS_SIGN_ID => m.bios_sign_id,
            ARCH_CAPABILITIES => {
                u64::from(self.model.word(Word::ArchHigh)) << 32 | u64::from(self.model.word(Word::ArchLow))
            }
            SYSENTER_CS => m.sysenter_cs,
            SYSENTER_ESP => m.sysenter_esp,
            SYSENTER_EIP => m.sysenter_eip,
            MCG_CAP => MCG_CAP_VALUE,
            MCG_STATUS => m.mcg_status,
            MCG_CTL => m.mcg_ctl,
            MC_FIRST..=MC_LAST => m.mc_banks[(register - MC_FIRST) as usize],
            MISC_ENABLE => m.misc_enable,
            DEBUGCTL => m.debugctl,
            MTRRCAP => MTRRCAP_VALUE,
            MTRR_DEF_TYPE => m.mtrr_def_type,
            MTRR_PHYS_FIRST..=MTRR_PHYS_LAST => m.mtrr_var[(register - MTRR_PHYS_FIRST) as usize],
            MTRR_FIX_64K..=MTRR_FIX_4K_LAST => m.mtrr_fix[fixed_range(register)],
            PAT => m.pat,
            EFER => m.efer,
            STAR => m.star,
            LSTAR => m.lstar,
            CSTAR => m.cstar,
            FMASK => m.sfmask,
            FS_BASE => self.state.segment(Seg::Fs).base,
            GS_BASE => self.state.segment(Seg::Gs).base,
            KERNEL_GS_BASE => m.kernel_gs_base,
            TSC_AUX => m.tsc_aux,
            // Commands cannot be read.
            PRED_CMD | BIOS_UPDT_TRIG => return Err(Fault::gp0()),
            _ => 0,
        })
    }

    /// Does what WRMSR of `value` to `register` does.
    ///
    /// # Errors
    /// #GP(0).
    pub fn write_msr(&mut self, register: u32, value: u64) -> Result<(), Fault> {
        if let APIC_BASE | TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST = register {
            let pending = self.pending_instructions();
            let answer = self.bus.write_msr(register, value, pending);
            self.after_bus();
            return match answer {
                Some(Ok(())) => Ok(()),
                Some(Err(_)) => Err(Fault::gp0()),
                None => Err(unknown(self, register, "write")),
            };
        }
        if !self.has_msr(register) {
            return Err(unknown(self, register, "write"));
        }
        let is_canonical = self.state.canonical(value);
        let physical = (1u64 << self.model.physical_bits()) - 1;
        let m = &mut self.state.msrs;
        match register {
            TSC => {
                let before = self.tsc();
                let moved = value.wrapping_sub(before);
                let m = &mut self.state.msrs;
                m.tsc_adjust = m.tsc_adjust.wrapping_add(moved);
                let offset = m.tsc_offset.wrapping_add(moved);
                self.set_tsc_offset(offset);
            }
            TSC_ADJUST => {
                let offset = m.tsc_offset.wrapping_add(value.wrapping_sub(m.tsc_adjust));
                m.tsc_adjust = value;
                self.set_tsc_offset(offset);
            }
            SPEC_CTRL => {
                let bhi = if self.model.supports(Feature::BhiCtrl) { SPEC_CTRL_BHI_DIS_S } else { 0 };
                require(value & !(SPEC_CTRL_BITS | bhi) == 0)?;
                m.spec_ctrl = value;
            }
            PRED_CMD => require(value & !1 == 0)?,
            // A microcode update is taken and forgotten.
            BIOS_UPDT_TRIG => {}
            BIOS_SIGN_ID => m.bios_sign_id = value,
            SYSENTER_CS => m.sysenter_cs = value & 0xffff_ffff,
            SYSENTER_ESP | SYSENTER_EIP => {
                require(is_canonical)?;
                let target = if register == SYSENTER_ESP { &mut m.sysenter_esp } else { &mut m.sysenter_eip };
                *target = value;
            }
            MCG_STATUS => {
                require(value & !7 == 0)?;
                m.mcg_status = value;
            }
            MCG_CTL => m.mcg_ctl = value,
            MC_FIRST..=MC_LAST => {
                // Only the first register of a bank, its control, takes anything but zero.
                let n = (register - MC_FIRST) as usize;
                require(n.is_multiple_of(4) || value == 0)?;
                m.mc_banks[n] = value;
            }
            MISC_ENABLE => m.misc_enable = (m.misc_enable & !MISC_ENABLE_BITS) | (value & MISC_ENABLE_BITS),
            // Last-branch records and trace messages: kept, without effect.
            DEBUGCTL => {
                require(value & !0x7fc3 == 0)?;
                m.debugctl = value;
            }
            MTRR_DEF_TYPE => {
                require(value & !MTRR_DEF_TYPE_BITS == 0 && mtrr_type(value))?;
                m.mtrr_def_type = value;
            }
            MTRR_PHYS_FIRST..=MTRR_PHYS_LAST => {
                let n = (register - MTRR_PHYS_FIRST) as usize;
                let is_mask = n % 2 == 1;
                let flags = if is_mask { 0x800 } else { 0xff };
                require(value & !(physical & !0xfff | flags) == 0 && (is_mask || mtrr_type(value)))?;
                m.mtrr_var[n] = value;
            }
            MTRR_FIX_64K..=MTRR_FIX_4K_LAST => {
                require(all_bytes(value, mtrr_type))?;
                m.mtrr_fix[fixed_range(register)] = value;
            }
            PAT => {
                require(all_bytes(value, |kind| mtrr_type(kind) || kind == 7))?;
                m.pat = value;
            }
            EFER => self.set_efer(value)?,
            STAR => m.star = value,
            LSTAR | CSTAR | KERNEL_GS_BASE => {
                require(is_canonical)?;
                match register {
                    LSTAR => m.lstar = value,
                    CSTAR => m.cstar = value,
                    _ => m.kernel_gs_base = value,
                }
            }
            FMASK => {
                require(value >> 32 == 0)?;
                m.sfmask = value;
            }
            FS_BASE | GS_BASE => {
                require(is_canonical)?;
                let seg = if register == FS_BASE { Seg::Fs } else { Seg::Gs };
                self.state.set_segment_base(seg, value);
            }
            TSC_AUX => {
                require(value >> 32 == 0)?;
                m.tsc_aux = value;
            }
            MCG_CAP | MTRRCAP | ARCH_CAPABILITIES | PLATFORM_ID => return Err(Fault::gp0()),
            // What is left reads as zero and keeps nothing.
            _ => {}
        }
        Ok(())
    }

    /// Writes IA32_EFER (SDM Vol. 3A 2.2.1). LMA follows CR0.PG and cannot be written.
    fn set_efer(&mut self, value: u64) -> Result<(), Fault> {
        let old = self.state.msrs.efer;
        let value = (value & !EFER_LMA) | (old & EFER_LMA);
        require(value & !(self.efer_bits() | EFER_LMA) == 0)?;
        let changed = old ^ value;
        require(changed & EFER_LME == 0 || !self.state.paging())?;
        self.state.msrs.efer = value;
        if changed & EFER_NXE != 0 {
            self.flush_tlb(false);
        }
        self.mode_changed();
        Ok(())
    }
}

/// The place of a fixed-range MTRR among the eleven.
fn fixed_range(register: u32) -> usize {
    (match register {
        MTRR_FIX_16K_FIRST..=MTRR_FIX_16K_LAST => 1 + register - MTRR_FIX_16K_FIRST,
        MTRR_FIX_4K_FIRST..=MTRR_FIX_4K_LAST => 3 + register - MTRR_FIX_4K_FIRST,
        _ => 0,
    }) as usize
}

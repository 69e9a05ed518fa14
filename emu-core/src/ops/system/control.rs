//! Control registers: MOV CRn, LMSW, SMSW, CLTS, XCR0, STAC and CLAC, and what drops translations (SDM Vol. 3A 2.5, 4.10,
//! 10.8.5; Vol. 2 "MOV--Move to/from Control Registers").

use super::{canonical, privileged};
use crate::cpu::control::*;
use crate::cpu::fault::Fault;
use crate::cpu::features::Feature;
use crate::cpu::rflags::AC;
use crate::cpu::segment::{Seg, Segment};
use crate::cpu::{Width, regs};
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::mmu::walk::Access;

/// Bits of CR0 that exist; the rest read as zero.
const CR0_BITS: u64 = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
/// CR3 bit 63 in a write with CR4.PCIDE set: translations of the new PCID stay.
const CR3_NOFLUSH: u64 = 1 << 63;
/// XCR0 bits that can be set: x87 and SSE. AVX will be bit 2.
pub const XCR0_BITS: u64 = 3;

/// MOV r, CRn
pub fn read(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let number = insn.ops[1].reg;
    check_number(insn, number)?;
    privileged(cpu)?;
    let value = match number {
        0 => cpu.state.cr0,
        2 => cpu.state.cr2,
        3 => cpu.state.cr3,
        4 => cpu.state.cr4,
        _ => u64::from(cpu.bus.cr8().unwrap_or(0)),
    };
    cpu.state.regs.set(insn.ops[0].reg, register_width(insn), value);
    Ok(())
}

/// MOV CRn, r
pub fn write(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let number = insn.ops[0].reg;
    check_number(insn, number)?;
    privileged(cpu)?;
    let value = cpu.state.regs.get(insn.ops[1].reg, register_width(insn));
    match number {
        0 => cpu.set_cr0(value),
        2 => {
            cpu.state.cr2 = value;
            Ok(())
        }
        3 => cpu.set_cr3(value),
        4 => cpu.set_cr4(value),
        _ => {
            if value > 15 {
                return Err(Fault::gp0());
            }
            let pending = cpu.pending_instructions();
            cpu.bus.set_cr8(value as u8, pending);
            cpu.after_bus();
            Ok(())
        }
    }
}

fn check_number(insn: &Insn, number: u8) -> Result<(), Fault> {
    match number {
        0 | 2 | 3 | 4 => Ok(()),
        8 if insn.code_bits == 64 => Ok(()),
        _ => Err(Fault::ud()),
    }
}

/// Moves of control and debug registers ignore operand-size prefixes.
pub(super) fn register_width(insn: &Insn) -> Width {
    if insn.code_bits == 64 { Width::B8 } else { Width::B4 }
}

/// SMSW
pub fn smsw(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    cpu.user_mode_prevented()?;
    let value = cpu.state.cr0;
    if insn.ops[0].kind == Kind::Mem {
        let linear = cpu.linear(insn, 2, Access::Write)?;
        return cpu.store(linear, value as u16);
    }
    cpu.state.regs.set(insn.ops[0].reg, insn.width, value);
    Ok(())
}

/// LMSW: loads PE, MP, EM and TS, but cannot clear PE.
pub fn lmsw(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    privileged(cpu)?;
    let value = if insn.ops[0].kind == Kind::Mem {
        let linear = cpu.linear(insn, 2, Access::Read)?;
        u64::from(cpu.load::<u16>(linear)?)
    } else {
        u64::from(cpu.state.regs.get16(insn.ops[0].reg))
    };
    let loaded = CR0_MP | CR0_EM | CR0_TS;
    let kept = cpu.state.cr0 & !loaded;
    cpu.set_cr0(kept | (value & (loaded | CR0_PE)))
}

/// CLTS
pub fn clts(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    privileged(cpu)?;
    if cpu.state.cr0 & CR0_TS != 0 {
        cpu.state.cr0 &= !CR0_TS;
        cpu.mode_changed();
    }
    Ok(())
}

/// INVLPG
pub fn invlpg(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    privileged(cpu)?;
    // The address is not checked: outside 64-bit mode it wraps, and one that is not canonical does nothing.
    let offset = cpu.effective(&insn.mem, insn.addr);
    let base = match insn.mem.seg {
        Seg::Fs | Seg::Gs => cpu.state.segment(insn.mem.seg).base,
        _ if insn.code_bits == 64 => 0,
        seg => cpu.state.segment(seg).base,
    };
    let linear = cpu.wrap_linear(base.wrapping_add(offset));
    cpu.flush_tlb_page(linear);
    Ok(())
}

/// INVPCID
pub fn invpcid(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    privileged(cpu)?;
    let kind = cpu.state.regs.get(insn.ops[0].reg, register_width(insn));
    let linear = cpu.linear(insn, 16, Access::Read)?;
    let descriptor = cpu.load::<u128>(linear)?;
    let (context, address) = (descriptor as u64, (descriptor >> 64) as u64);
    let pcid_on = cpu.state.cr4 & CR4_PCIDE != 0;
    if kind > 3 || (kind < 2 && (context > 0xfff || (!pcid_on && context != 0))) {
        return Err(Fault::gp0());
    }
    let pcid = context as u16;
    match kind {
        0 => {
            canonical(cpu, address)?;
            cpu.flush_tlb_page_of(pcid, address);
        }
        1 => cpu.flush_tlb_context(pcid),
        2 => cpu.flush_tlb(false),
        _ => cpu.flush_tlb(true),
    }
    Ok(())
}

/// XGETBV
pub fn xgetbv(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    if cpu.state.cr4 & CR4_OSXSAVE == 0 {
        return Err(Fault::ud());
    }
    let value = match cpu.state.regs.gpr(regs::RCX) as u32 {
        0 => cpu.state.xcr0,
        1 if cpu.model.supports(Feature::Xgetbv1) => cpu.state.xcr0,
        _ => return Err(Fault::gp0()),
    };
    cpu.set_edx_eax(value);
    Ok(())
}

/// XSETBV
pub fn xsetbv(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    if cpu.state.cr4 & CR4_OSXSAVE == 0 {
        return Err(Fault::ud());
    }
    privileged(cpu)?;
    let value = cpu.edx_eax();
    let x87 = value & 1 != 0;
    if cpu.state.regs.gpr(regs::RCX) as u32 != 0 || !x87 || value & !XCR0_BITS != 0 {
        return Err(Fault::gp0());
    }
    cpu.state.xcr0 = value;
    cpu.mode_changed();
    Ok(())
}

/// STAC
pub fn stac(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    set_ac(cpu, true)
}

/// CLAC
pub fn clac(cpu: &mut Vcpu, _: &Insn) -> Result<(), Fault> {
    set_ac(cpu, false)
}

fn set_ac(cpu: &mut Vcpu, allow: bool) -> Result<(), Fault> {
    if cpu.allow_user_pages(allow) { Ok(()) } else { Err(Fault::ud()) }
}

impl Vcpu {
    /// Sets or clears RFLAGS.AC as STAC and CLAC do, which has following accesses use other translations of the TLB;
    /// whether it may.
    pub fn allow_user_pages(&mut self, allow: bool) -> bool {
        let may = self.state.cpl == 0;
        if may {
            self.state.system_flags = (self.state.system_flags & !AC) | if allow { AC } else { 0 };
            self.select_bank();
        }
        may
    }

    /// EDX:EAX.
    pub(super) fn edx_eax(&self) -> u64 {
        self.state.regs.gpr(regs::RDX) << 32 | u64::from(self.state.regs.get32(regs::RegFile::slot(regs::RAX)))
    }

    /// Sets EDX:EAX; the upper halves of RDX and RAX are cleared.
    pub(super) fn set_edx_eax(&mut self, value: u64) {
        self.state.regs.set_gpr(regs::RAX, value & 0xffff_ffff);
        self.state.regs.set_gpr(regs::RDX, value >> 32);
    }

    /// #GP(0) if CR4.UMIP keeps this privilege level from SGDT, SIDT, SLDT, SMSW and STR.
    ///
    /// # Errors
    /// #GP(0).
    pub fn user_mode_prevented(&self) -> Result<(), Fault> {
        if self.state.cr4 & CR4_UMIP != 0 && self.state.cpl > 0 { Err(Fault::gp0()) } else { Ok(()) }
    }

    /// Whether PAE paging is in use, which works from loaded PDPTEs.
    fn pae_paging(cr0: u64, cr4: u64, efer: u64) -> bool {
        cr0 & CR0_PG != 0 && cr4 & CR4_PAE != 0 && efer & EFER_LMA == 0
    }

    /// Writes CR0 with all its checks, and switches paging and IA-32e mode on or off.
    ///
    /// # Errors
    /// #GP(0).
    pub fn set_cr0(&mut self, value: u64) -> Result<(), Fault> {
        let old = self.state.cr0;
        let bad_pair = |set, clear| value & set != 0 && value & clear == 0;
        if value >> 32 != 0 || bad_pair(CR0_PG, CR0_PE) || bad_pair(CR0_NW, CR0_CD) {
            return Err(Fault::gp0());
        }
        let value = (value & CR0_BITS) | CR0_ET;
        let changed = old ^ value;
        let cr4 = self.state.cr4;
        let mut efer = self.state.msrs.efer;
        if changed & CR0_PG != 0 {
            if value & CR0_PG != 0 {
                if efer & EFER_LME != 0 {
                    let task_16_bit = self.state.tr.kind() & !2 == 1;
                    if cr4 & CR4_PAE == 0 || self.state.segment(Seg::Cs).is(Segment::L) || task_16_bit {
                        return Err(Fault::gp0());
                    }
                    efer |= EFER_LMA;
                }
            } else {
                if self.state.code64() || cr4 & CR4_PCIDE != 0 {
                    return Err(Fault::gp0());
                }
                efer &= !EFER_LMA;
            }
        }
        if changed & (CR0_PG | CR0_CD | CR0_NW) != 0 && Vcpu::pae_paging(value, cr4, efer) {
            self.state.pdptes = self.load_pdptes(self.state.cr3)?;
        }
        self.state.cr0 = value;
        self.state.msrs.efer = efer;
        // Cached rights depend on WP.
        if changed & (CR0_PG | CR0_WP | CR0_PE) != 0 {
            self.flush_tlb(false);
        }
        self.mode_changed();
        tracing::trace!(target: "mmu", old = format_args!("{old:#x}"), value = format_args!("{value:#x}"), "CR0");
        Ok(())
    }

    /// Writes CR3 with all its checks.
    ///
    /// # Errors
    /// #GP(0).
    pub fn set_cr3(&mut self, value: u64) -> Result<(), Fault> {
        let pcid = self.state.cr4 & CR4_PCIDE != 0;
        let keep = pcid && value & CR3_NOFLUSH != 0;
        let value = if pcid { value & !CR3_NOFLUSH } else { value };
        if self.state.long_mode() && value >> self.model.physical_bits() != 0 {
            return Err(Fault::gp0());
        }
        if Vcpu::pae_paging(self.state.cr0, self.state.cr4, self.state.msrs.efer) {
            self.state.pdptes = self.load_pdptes(value)?;
        }
        self.state.cr3 = value;
        self.switch_context(keep);
        Ok(())
    }

    /// The bits of CR4 that the model lets be set.
    fn cr4_bits(&self) -> u64 {
        use Feature::*;
        [
            (Vme, CR4_VME | CR4_PVI),
            (Tsc, CR4_TSD),
            (De, CR4_DE),
            (Pse, CR4_PSE),
            (Pae, CR4_PAE),
            (Mce, CR4_MCE),
            (Pge, CR4_PGE),
            (Cmov, CR4_PCE),
            (Fxsr, CR4_OSFXSR),
            (Sse, CR4_OSXMMEXCPT),
            (Umip, CR4_UMIP),
            (La57, CR4_LA57),
            (Fsgsbase, CR4_FSGSBASE),
            (Pcid, CR4_PCIDE),
            (Xsave, CR4_OSXSAVE),
            (Smep, CR4_SMEP),
            (Smap, CR4_SMAP),
        ]
        .iter()
        .filter(|(feature, _)| self.model.supports(*feature))
        .fold(0, |all, (_, bits)| all | bits)
    }

    /// Writes CR4 with all its checks.
    ///
    /// # Errors
    /// #GP(0).
    pub fn set_cr4(&mut self, value: u64) -> Result<(), Fault> {
        let old = self.state.cr4;
        let changed = old ^ value;
        let set = value & !old;
        let long = self.state.long_mode();
        let pcid_too_early = set & CR4_PCIDE != 0 && (!long || self.state.cr3 & 0xfff != 0);
        let mode_in_use = long && (changed & CR4_LA57 != 0 || value & CR4_PAE == 0);
        if value & !self.cr4_bits() != 0 || pcid_too_early || mode_in_use {
            return Err(Fault::gp0());
        }
        let reload = CR4_PGE | CR4_PSE | CR4_PAE | CR4_SMEP;
        if changed & reload != 0 && Vcpu::pae_paging(self.state.cr0, value, self.state.msrs.efer) {
            self.state.pdptes = self.load_pdptes(self.state.cr3)?;
        }
        self.state.cr4 = value;
        // Cached rights depend on SMAP and SMEP too.
        if changed & (CR4_PGE | CR4_PSE | CR4_PAE | CR4_SMEP | CR4_SMAP | CR4_PCIDE | CR4_LA57) != 0 {
            self.flush_tlb(false);
        }
        if changed & CR4_PCIDE != 0 {
            self.forget_contexts();
        }
        self.mode_changed();
        tracing::trace!(target: "mmu", old = format_args!("{old:#x}"), value = format_args!("{value:#x}"), "CR4");
        Ok(())
    }
}

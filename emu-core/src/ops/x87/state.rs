//! FXSAVE, FXRSTOR and the XSAVE family for x87 and SSE state (SDM Vol. 1 10.5 and 13.4 to 13.11).
//!
//! ```text
//!    0 FCW, FSW, FTW, FOP    8 FIP   16 FDP   24 MXCSR, MXCSR_MASK
//!   32 ST0..ST7, 16 bytes each      160 XMM0..XMM15      416 reserved, not written
//!  512 XSTATE_BV   520 XCOMP_BV   528 reserved
//! ```
//! The AVX component has its place in XCR0 and behind byte 576; it is absent until AVX is. So are XSAVES and XRSTORS.

use super::Exec;
use crate::cpu::control::{CR0_EM, CR0_TS, CR4_OSFXSR, CR4_OSXSAVE};
use crate::cpu::fault::{self, Fault};
use crate::cpu::xmm::Xmm;
use crate::decode::insn::Insn;
use crate::exec::Vcpu;
use crate::mmu::walk::Access;
use crate::softfloat::F80;
use crate::softfloat::sse::mxcsr;
use crate::softfloat::x87::control;
use iced_x86::{Code, Mnemonic};

/// The rows of this file.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Fxsave | Mnemonic::Fxsave64 => fxsave,
        Mnemonic::Fxrstor | Mnemonic::Fxrstor64 => fxrstor,
        Mnemonic::Xsave | Mnemonic::Xsave64 => |cpu, insn| xsave(cpu, insn, Variant::Plain),
        Mnemonic::Xsaveopt | Mnemonic::Xsaveopt64 => |cpu, insn| xsave(cpu, insn, Variant::Optimised),
        Mnemonic::Xsavec | Mnemonic::Xsavec64 => |cpu, insn| xsave(cpu, insn, Variant::Compacted),
        Mnemonic::Xrstor | Mnemonic::Xrstor64 => xrstor,
        _ => return None,
    })
}

/// State component bits of XCR0 and XSTATE_BV.
const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;

/// Bytes of the legacy region that are written at most.
const LEGACY: usize = 416;
const REGISTERS: usize = 32;
const XMM: usize = 160;
const HEADER: u64 = 512;
const COMPACTED: u64 = 1 << 63;

/// Whether the instruction has REX.W: 64-bit pointers without selectors.
fn is_wide(insn: &Insn) -> bool {
    matches!(
        insn.code,
        Code::Fxsave64_m512byte
            | Code::Fxrstor64_m512byte
            | Code::Xsave64_mem
            | Code::Xsaveopt64_mem
            | Code::Xsavec64_mem
            | Code::Xrstor64_mem
    )
}

impl Vcpu {
    /// XMM registers that an image holds: eight outside 64-bit mode.
    fn saved_xmm(&self) -> usize {
        if self.state.code64() { 16 } else { 8 }
    }

    fn image_x87(&self, image: &mut [u8; LEGACY], wide: bool) {
        let fpu = &self.state.fpu;
        image[0..2].copy_from_slice(&fpu.control.to_le_bytes());
        image[2..4].copy_from_slice(&fpu.status_word().to_le_bytes());
        image[4] = !fpu.empty;
        image[5] = 0;
        image[6..8].copy_from_slice(&(fpu.opcode & 0x7FF).to_le_bytes());
        let pointer = |offset: u64, selector: u16| {
            if wide { offset } else { (offset & 0xFFFF_FFFF) | u64::from(selector) << 32 }
        };
        image[8..16].copy_from_slice(&pointer(fpu.fip, fpu.fcs).to_le_bytes());
        image[16..24].copy_from_slice(&pointer(fpu.fdp, fpu.fds).to_le_bytes());
        for i in 0..8 {
            let at = REGISTERS + 16 * usize::from(i);
            image[at..at + 10].copy_from_slice(&fpu.st(i).to_le_bytes());
            image[at + 10..at + 16].fill(0);
        }
    }

    fn image_mxcsr(&self, image: &mut [u8; LEGACY]) {
        image[24..28].copy_from_slice(&self.state.mxcsr.to_le_bytes());
        image[28..32].copy_from_slice(&mxcsr::VALID.to_le_bytes());
    }

    fn image_xmm(&self, image: &mut [u8; LEGACY]) {
        for (slot, xmm) in image[XMM..].chunks_exact_mut(16).zip(self.state.xmm).take(self.saved_xmm()) {
            slot.copy_from_slice(&xmm.0);
        }
    }

    fn restore_x87(&mut self, image: &[u8; LEGACY], wide: bool) {
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let quad = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&image[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let (fip, fdp) = (quad(8), quad(16));
        let fpu = &mut self.state.fpu;
        fpu.set_control(word(0));
        fpu.set_status_word(word(2));
        fpu.empty = !image[4];
        fpu.opcode = word(6) & 0x7FF;
        if wide {
            (fpu.fip, fpu.fdp) = (fip, fdp);
            (fpu.fcs, fpu.fds) = (0, 0);
        } else {
            (fpu.fip, fpu.fdp) = (fip & 0xFFFF_FFFF, fdp & 0xFFFF_FFFF);
            (fpu.fcs, fpu.fds) = ((fip >> 32) as u16, (fdp >> 32) as u16);
        }
        for (i, bytes) in image[REGISTERS..XMM].chunks_exact(16).enumerate() {
            let mut ten = [0; 10];
            ten.copy_from_slice(&bytes[..10]);
            let n = (usize::from(fpu.top) + i) & 7;
            fpu.r[n] = F80::from_le_bytes(ten);
        }
        self.x87_update_ferr();
    }

    fn restore_xmm(&mut self, image: &[u8; LEGACY]) {
        let count = self.saved_xmm();
        for (xmm, bytes) in self.state.xmm.iter_mut().zip(image[XMM..].chunks_exact(16)).take(count) {
            xmm.0.copy_from_slice(bytes);
        }
    }

    /// The linear address of a save area, which must be aligned.
    fn save_area(&mut self, insn: &Insn, size: u64, alignment: u64, access: Access) -> Result<u64, Fault> {
        let linear = self.linear(insn, size, access)?;
        if !linear.is_multiple_of(alignment) {
            return Err(Fault::gp0());
        }
        Ok(linear)
    }

    /// The MXCSR of an image; #GP(0) for one with reserved bits.
    fn image_checked_mxcsr(image: &[u8; LEGACY]) -> Result<u32, Fault> {
        let value = u32::from_le_bytes([image[24], image[25], image[26], image[27]]);
        if value & !mxcsr::VALID != 0 { Err(Fault::gp0()) } else { Ok(value) }
    }
}

fn fx_available(cpu: &Vcpu) -> Result<(), Fault> {
    if cpu.state.cr0 & (CR0_EM | CR0_TS) != 0 { Err(Fault::plain(fault::NM)) } else { Ok(()) }
}

fn fxsave(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    fx_available(cpu)?;
    let linear = cpu.save_area(insn, 512, 16, Access::Write)?;
    cpu.probe(linear, 512, Access::Write, cpu.privilege())?;
    let mut image = [0; LEGACY];
    cpu.image_x87(&mut image, is_wide(insn));
    cpu.image_mxcsr(&mut image);
    // Without CR4.OSFXSR the XMM registers stay out of it.
    let len = if cpu.state.cr4 & CR4_OSFXSR != 0 {
        cpu.image_xmm(&mut image);
        XMM + 16 * cpu.saved_xmm()
    } else {
        XMM
    };
    cpu.write_bytes(linear, &image[..len], cpu.privilege())?;
    cpu.watch(linear, 512, Access::Write);
    Ok(())
}

fn fxrstor(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    fx_available(cpu)?;
    let linear = cpu.save_area(insn, 512, 16, Access::Read)?;
    // The part that software may use is checked with the rest.
    cpu.probe(linear, 512, Access::Read, cpu.privilege())?;
    let mut image = [0; LEGACY];
    cpu.read_bytes(linear, &mut image, cpu.privilege())?;
    cpu.watch(linear, 512, Access::Read);
    let mxcsr = Vcpu::image_checked_mxcsr(&image)?;
    cpu.restore_x87(&image, is_wide(insn));
    cpu.state.mxcsr = mxcsr;
    if cpu.state.cr4 & CR4_OSFXSR != 0 {
        cpu.restore_xmm(&image);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Plain,
    Optimised,
    Compacted,
}

/// #UD, #NM; else the components that EDX:EAX and XCR0 select.
fn requested(cpu: &Vcpu) -> Result<u64, Fault> {
    if cpu.state.cr4 & CR4_OSXSAVE == 0 {
        return Err(Fault::ud());
    }
    if cpu.state.cr0 & CR0_TS != 0 {
        return Err(Fault::plain(fault::NM));
    }
    let mask = cpu.state.regs.gpr(0) & 0xFFFF_FFFF | cpu.state.regs.gpr(2) << 32;
    Ok(mask & cpu.state.xcr0)
}

/// The components that differ from their initial configuration (XINUSE).
fn in_use(cpu: &Vcpu) -> u64 {
    let fpu = &cpu.state.fpu;
    let x87 = fpu.control != control::INITIAL
        || fpu.status != 0
        || fpu.top != 0
        || fpu.empty != 0xFF
        || fpu.opcode != 0
        || (fpu.fip, fpu.fcs, fpu.fdp, fpu.fds) != (0, 0, 0, 0)
        || fpu.r.iter().any(|value| *value != F80::ZERO);
    let sse = cpu.state.xmm.iter().take(cpu.saved_xmm()).any(|value| *value != Xmm::default());
    (u64::from(x87) * X87) | (u64::from(sse) * SSE)
}

fn xsave(cpu: &mut Vcpu, insn: &Insn, variant: Variant) -> Result<(), Fault> {
    let requested = requested(cpu)?;
    let linear = cpu.save_area(insn, HEADER + 64, 64, Access::Write)?;
    cpu.probe(linear, (HEADER + 64) as usize, Access::Write, cpu.privilege())?;
    let mut in_use = in_use(cpu);
    let compacted = variant == Variant::Compacted;
    if compacted && cpu.state.mxcsr != mxcsr::RESET {
        in_use |= SSE;
    }
    let written = if variant == Variant::Plain { requested } else { requested & in_use };
    let mut image = [0; LEGACY];
    let privilege = cpu.privilege();
    if written & X87 != 0 {
        cpu.image_x87(&mut image, is_wide(insn));
        cpu.write_bytes(linear, &image[..24], privilege)?;
        cpu.write_bytes(linear + REGISTERS as u64, &image[REGISTERS..XMM], privilege)?;
    }
    let with_mxcsr = if compacted { written & SSE } else { requested & (SSE | AVX) };
    if with_mxcsr != 0 {
        cpu.image_mxcsr(&mut image);
        cpu.write_bytes(linear + 24, &image[24..32], privilege)?;
    }
    if written & SSE != 0 {
        cpu.image_xmm(&mut image);
        let len = 16 * cpu.saved_xmm();
        cpu.write_bytes(linear + XMM as u64, &image[XMM..XMM + len], privilege)?;
    }
    if compacted {
        let header = u128::from(requested & in_use) | u128::from(requested | COMPACTED) << 64;
        cpu.write_bytes(linear + HEADER, &header.to_le_bytes(), privilege)?;
    } else {
        let mut old = [0; 8];
        cpu.read_bytes(linear + HEADER, &mut old, privilege)?;
        let header = u64::from_le_bytes(old) & !requested | requested & in_use;
        cpu.write_bytes(linear + HEADER, &header.to_le_bytes(), privilege)?;
    }
    cpu.watch(linear, HEADER + 64, Access::Write);
    Ok(())
}

fn xrstor(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let requested = requested(cpu)?;
    let linear = cpu.save_area(insn, HEADER + 64, 64, Access::Read)?;
    let mut area = [0; HEADER as usize + 64];
    cpu.read_bytes(linear, &mut area, cpu.privilege())?;
    cpu.watch(linear, HEADER + 64, Access::Read);
    let mut image = [0; LEGACY];
    image.copy_from_slice(&area[..LEGACY]);
    let mut header = [0u64; 8];
    for (field, bytes) in header.iter_mut().zip(area[HEADER as usize..].chunks_exact(8)) {
        let mut eight = [0; 8];
        eight.copy_from_slice(bytes);
        *field = u64::from_le_bytes(eight);
    }
    let [present, layout, reserved @ ..] = header;
    let compacted = layout & COMPACTED != 0;
    let valid = if compacted {
        layout & !COMPACTED & !cpu.state.xcr0 == 0 && present & !layout == 0 && reserved == [0; 6]
    } else {
        layout == 0 && reserved[0] == 0 && present & !cpu.state.xcr0 == 0
    };
    if !valid {
        return Err(Fault::gp0());
    }
    // The standard form loads MXCSR whether or not the SSE component is present.
    let mxcsr = if compacted {
        match (requested & SSE != 0, present & SSE != 0) {
            (true, true) => Some(Vcpu::image_checked_mxcsr(&image)?),
            (true, false) => Some(mxcsr::RESET),
            (false, _) => None,
        }
    } else if requested & (SSE | AVX) != 0 {
        Some(Vcpu::image_checked_mxcsr(&image)?)
    } else {
        None
    };
    if requested & X87 != 0 {
        if present & X87 != 0 {
            cpu.restore_x87(&image, is_wide(insn));
        } else {
            cpu.state.fpu.init();
            cpu.state.fpu.r = [F80::ZERO; 8];
        }
    }
    if requested & SSE != 0 {
        if present & SSE == 0 {
            image[XMM..].fill(0);
        }
        cpu.restore_xmm(&image);
    }
    if let Some(value) = mxcsr {
        cpu.state.mxcsr = value;
    }
    Ok(())
}

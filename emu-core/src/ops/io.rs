//! IN, OUT and the permission to use ports (SDM Vol. 1 chapter 19). INS and OUTS are in [`super::string`].

use super::Exec;
use crate::cpu::Width;
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RAX, RDX, RegFile};
use crate::cpu::segment::system;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use iced_x86::Mnemonic;

/// The rows of this group.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::In => input,
        Mnemonic::Out => output,
        _ => return None,
    })
}

impl Vcpu {
    /// Whether the running code may access `size` ports from `port`: by IOPL, else by the I/O permission bitmap of the TSS.
    ///
    /// # Errors
    /// #GP(0) if not; #PF from the bitmap.
    pub fn check_port(&mut self, port: u16, size: u64) -> Result<(), Fault> {
        let s = &self.state;
        if !s.protected() || (!s.v86() && s.cpl <= s.iopl()) {
            return Ok(());
        }
        let tr = s.tr;
        if tr.kind() & !system::BUSY != system::TSS32_AVAILABLE || !tr.covers(0x66, 2) {
            return Err(Fault::gp0());
        }
        let map = self.load_system(self.system_linear(tr.base.wrapping_add(0x66)), Width::B2)?;
        // Two bytes are always read, so that a bit string may cross into the next byte.
        let at = map + u64::from(port / 8);
        if !tr.covers(at, 2) {
            return Err(Fault::gp0());
        }
        let bits = self.load_system(self.system_linear(tr.base.wrapping_add(at)), Width::B2)?;
        let wanted = (1 << size) - 1;
        if bits >> (port % 8) & wanted != 0 { Err(Fault::gp0()) } else { Ok(()) }
    }
}

/// The port that operand `n` names: an immediate byte or DX.
fn port(cpu: &Vcpu, insn: &Insn, n: usize) -> u16 {
    match insn.ops[n].kind {
        Kind::Imm => insn.imm as u8 as u16,
        _ => cpu.state.regs.get16(RegFile::slot(RDX)),
    }
}

fn input(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = Width::from_bytes(usize::from(insn.ops[0].size));
    let port = port(cpu, insn, 1);
    cpu.check_port(port, width.bytes())?;
    let value = cpu.bus.port_read(port, width as u8, cpu.pending_instructions());
    cpu.state.regs.set(RegFile::slot(RAX), width, u64::from(value));
    cpu.after_bus();
    Ok(())
}

fn output(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = Width::from_bytes(usize::from(insn.ops[1].size));
    let port = port(cpu, insn, 0);
    cpu.check_port(port, width.bytes())?;
    let value = cpu.state.regs.get(RegFile::slot(RAX), width);
    cpu.bus.port_write(port, width as u8, value as u32, cpu.pending_instructions());
    cpu.after_bus();
    Ok(())
}

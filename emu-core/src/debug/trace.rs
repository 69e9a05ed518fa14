//! Events of the processor for `-d`: each goes to the tracing target that bears the name of QEMU's log item.
//!
//! All of it is cold: a function here is called where nothing is fast anyway, and first asks whether anybody listens, which
//! costs a load and a compare. Only `exec` slows the guest down, because it makes every instruction a step of its own.

use crate::cpu::fault;
use crate::cpu::regs::{RAX, RSP};
use crate::cpu::segment::Seg;
use crate::exec::Vcpu;
use crate::exec::interrupt::Source;
use crate::mmu::walk::inspect;
use iced_x86::{Decoder, Formatter, Instruction, NasmFormatter};
use std::fmt::Write;
use tracing::{Level, enabled, trace};

/// Whether single instructions are logged.
#[inline]
pub fn wants_steps() -> bool {
    enabled!(target: "exec", Level::TRACE)
}

/// Target `exec`: the instruction at RIP is about to execute.
pub fn step(cpu: &Vcpu) {
    if !wants_steps() {
        return;
    }
    let s = &cpu.state;
    let (cs, mut code) = (s.segment(Seg::Cs), Vec::new());
    let linear = if s.code64() { s.rip } else { cs.base.wrapping_add(s.rip) & 0xffff_ffff };
    for at in (0..15).map(|n| linear.wrapping_add(n)) {
        let Some(phys) = inspect(cpu, at) else { break };
        let mut byte = [0];
        cpu.memory.read(phys, &mut byte);
        code.extend(byte);
    }
    let mut decoder = Decoder::with_ip(s.code_bits(), &code, s.rip, cpu.model.decoder_options());
    let assembly = assembly(&decoder.decode());
    trace!(target: "exec", "exec {:04x}:{:016x} cpl={} {assembly}", cs.selector, s.rip, s.cpl);
}

fn assembly(instruction: &Instruction) -> String {
    let mut text = String::from("(bad)");
    if !instruction.is_invalid() {
        text.clear();
        NasmFormatter::new().format(instruction, &mut text);
    }
    text
}

/// Target `in_asm`: a block has been decoded from `code` at `rip`.
pub fn block(cpu: &Vcpu, rip: u64, code: &[u8]) {
    if enabled!(target: "in_asm", Level::TRACE) {
        trace!(target: "in_asm", "{}", listing(cpu, rip, code).trim_end());
    }
}

fn listing(cpu: &Vcpu, rip: u64, code: &[u8]) -> String {
    let mut text = String::from("----------------\nIN:\n");
    let mut decoder = Decoder::with_ip(cpu.state.code_bits(), code, rip, cpu.model.decoder_options());
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut instruction);
        // Writing to a string cannot fail.
        let _ = write!(text, "{:#010x}:  ", instruction.ip());
        for byte in &code[start..decoder.position()] {
            let _ = write!(text, "{byte:02x}");
        }
        let pad = 32usize.saturating_sub(2 * (decoder.position() - start));
        let _ = writeln!(text, "{:pad$}{}", "", assembly(&instruction));
    }
    text
}

/// Target `int`: `vector` is about to be delivered; one line as QEMU writes it, then the registers.
pub fn interrupt(cpu: &Vcpu, vector: u8, source: Source, error: Option<u32>) {
    if !enabled!(target: "int", Level::DEBUG) {
        return;
    }
    let s = &cpu.state;
    let cs = s.segment(Seg::Cs);
    let (count, error, software) = (cpu.stats.delivered, error.unwrap_or(0), u8::from(source == Source::Software));
    let pc = if s.code64() { s.rip } else { cs.base.wrapping_add(s.rip) };
    let (name, value) = if vector == fault::PF { ("CR2", s.cr2) } else { ("env->regs[R_EAX]", s.regs.gpr(RAX)) };
    if source == Source::External {
        tracing::debug!(target: "int", "Servicing hardware INT={vector:#04x}");
    }
    tracing::debug!(
        target: "int",
        "{count:6}: v={vector:02x} e={error:04x} i={software} cpl={} IP={:04x}:{:016x} pc={pc:016x} SP={:04x}:{:016x} \
         {name}={value:016x}\n{}",
        s.cpl, cs.selector, s.rip, s.segment(Seg::Ss).selector, s.regs.gpr(RSP), cpu.registers().trim_end()
    );
}

/// Target `cpu_reset`: the processor is about to be reset.
pub fn reset(cpu: &Vcpu) {
    if enabled!(target: "cpu_reset", Level::DEBUG) {
        tracing::debug!(target: "cpu_reset", "CPU Reset (CPU 0)\n{}", cpu.registers().trim_end());
    }
}

/// Target `pcall`: a far JMP, CALL or return (`what`) goes to `selector:offset`.
pub fn far_transfer(cpu: &Vcpu, what: &str, selector: u16, offset: u64) {
    if cpu.state.protected() {
        tracing::debug!(target: "pcall", "{what} {selector:04x}:{offset:016x} from {:04x}:{:016x} cpl={}",
            cpu.state.segment(Seg::Cs).selector, cpu.insn_rip, cpu.state.cpl);
    }
}

/// Target `unimp`: an instruction that the model has, but emu has not, raises #UD instead.
pub fn unimplemented(instruction: &Instruction) {
    if !instruction.is_invalid() && enabled!(target: "unimp", Level::DEBUG) {
        tracing::debug!(target: "unimp", "instruction not implemented: {}", assembly(instruction));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;
    use crate::clock::{Clock, ClockMode};
    use crate::cpu::model::CpuModel;
    use crate::irq::CpuPins;
    use crate::mem::GuestMemory;
    use std::sync::Arc;

    #[test]
    fn listing_shows_addresses_bytes_and_nasm_text() {
        let memory = Arc::new(GuestMemory::new(1 << 20, 0).unwrap());
        let bus = Arc::new(Bus::new(memory, Arc::new(CpuPins::default()), Clock::new(ClockMode::Realtime)));
        let cpu = Vcpu::new(Arc::new(CpuModel::max()), bus);
        let text = listing(&cpu, 0x7c00, &[0x31, 0xc0, 0xff, 0xff]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "0x00007c00:  31c0                            xor ax,ax");
        assert!(lines[3].ends_with("(bad)"), "{text}");
    }
}

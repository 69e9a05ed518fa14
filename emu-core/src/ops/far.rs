//! Far transfers of control: JMP, CALL and RET between segments, through call gates and to tasks (SDM Vol. 2, JMP, CALL,
//! RET; Vol. 3A 5.8).
//!
//! IRET is in [`super::interrupt`], near transfers in [`super::integer::control`].

use super::Exec;
use crate::cpu::Width;
use crate::cpu::fault::{self, Fault};
use crate::cpu::regs::RSP;
use crate::cpu::segment::{Gate, Seg, Segment, system};
use crate::debug::trace;
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::exec::descriptor::{is_null, rpl};
use crate::exec::stack::{Frame, Stack, privilege_of};
use crate::exec::task_switch::Cause;
use crate::mmu::walk::Access;
use iced_x86::{Code, Mnemonic};

/// The rows of this group, besides JMP and CALL.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    (m == Mnemonic::Retf).then_some(ret)
}

/// A far pointer and the operand size that came with it.
struct Pointer {
    selector: u16,
    offset: u64,
    width: Width,
}

fn pointer(cpu: &mut Vcpu, insn: &Insn) -> Result<Pointer, Fault> {
    if insn.ops[0].kind == Kind::Far {
        let width = Width::from_bytes(usize::from(insn.ops[0].size));
        return Ok(Pointer { selector: insn.imm2, offset: insn.imm & width.mask(), width });
    }
    let (offset, selector, width) = cpu.load_far_pointer(insn)?;
    Ok(Pointer { selector, offset, width })
}

impl Vcpu {
    /// Reads the memory operand m16:16, m16:32 or m16:64: offset, selector and the size of the offset.
    ///
    /// # Errors
    /// As any read.
    pub fn load_far_pointer(&mut self, insn: &Insn) -> Result<(u64, u16, Width), Fault> {
        let size = insn.mem_size();
        let width = Width::from_bytes(usize::from(size.saturating_sub(2)));
        let linear = self.linear(insn, u64::from(size), Access::Read)?;
        let offset = self.load_width(linear, width)?;
        let selector = self.load::<u16>(self.wrap_linear(linear.wrapping_add(width.bytes())))?;
        Ok((offset, selector, width))
    }
}

/// What the selector of a JMP or CALL leads to.
enum Destination {
    Code(Segment),
    Gate(Gate),
    TaskGate(Gate),
    Tss,
}

/// Reads and classifies the descriptor; privilege and presence of gates and TSSs are checked here.
fn destination(cpu: &mut Vcpu, selector: u16) -> Result<Destination, Fault> {
    if is_null(selector) {
        return Err(Fault::gp0());
    }
    let raw = cpu.descriptor(selector, fault::GP)?;
    let segment = Segment::from_descriptor(selector, raw);
    if segment.is_code() {
        return Ok(Destination::Code(segment));
    }
    let long = cpu.state.long_mode();
    let known = !segment.is(Segment::S)
        && match segment.kind() {
            system::CALL_GATE32 => true,
            system::CALL_GATE16 | system::TASK_GATE | system::TSS16_AVAILABLE | system::TSS32_AVAILABLE => !long,
            _ => false,
        };
    if !known || segment.dpl() < cpu.state.cpl.max(rpl(selector)) {
        return Err(Fault::selector(fault::GP, selector));
    }
    let found = match segment.kind() {
        // Whether a TSS is present is checked by the task switch.
        system::TSS16_AVAILABLE | system::TSS32_AVAILABLE => return Ok(Destination::Tss),
        system::TASK_GATE => Destination::TaskGate(Gate::new(raw, 0)),
        _ => Destination::Gate(cpu.call_gate(selector, raw)?),
    };
    if !segment.is(Segment::P) {
        return Err(Fault::selector(fault::NP, selector));
    }
    Ok(found)
}

/// Checks a code segment that a JMP or CALL names itself; its selector gets the current level as RPL.
fn direct(cpu: &mut Vcpu, mut cs: Segment) -> Result<Segment, Fault> {
    let (selector, cpl) = (cs.selector, cpu.state.cpl);
    let privileged = if cs.is(Segment::CONFORMING) { cs.dpl() > cpl } else { rpl(selector) > cpl || cs.dpl() != cpl };
    let both_sizes = cpu.state.long_mode() && cs.is(Segment::L) && cs.is(Segment::DB);
    if privileged || both_sizes {
        return Err(Fault::selector(fault::GP, selector));
    }
    if !cs.is(Segment::P) {
        return Err(Fault::selector(fault::NP, selector));
    }
    cpu.mark_accessed(&mut cs)?;
    cs.selector = (selector & !3) | u16::from(cpl);
    Ok(cs)
}

/// The code segment behind a call gate. `call`: an inner level may be entered.
fn gated(cpu: &mut Vcpu, gate: &Gate, call: bool) -> Result<Segment, Fault> {
    if is_null(gate.selector) {
        return Err(Fault::gp0());
    }
    let cpl = cpu.state.cpl;
    let mut cs = cpu.segment_descriptor(gate.selector, fault::GP)?;
    let privileged = if call || cs.is(Segment::CONFORMING) { cs.dpl() > cpl } else { cs.dpl() != cpl };
    let wrong_size = cpu.state.long_mode() && cs.attributes & (Segment::L | Segment::DB) != Segment::L;
    if !cs.is_code() || privileged || wrong_size {
        return Err(Fault::selector(fault::GP, gate.selector));
    }
    if !cs.is(Segment::P) {
        return Err(Fault::selector(fault::NP, gate.selector));
    }
    cpu.mark_accessed(&mut cs)?;
    let level = if cs.is(Segment::CONFORMING) { cpl } else { cs.dpl() };
    cs.selector = (gate.selector & !3) | u16::from(level);
    Ok(cs)
}

fn go(cpu: &mut Vcpu, cs: Segment, offset: u64) {
    cpu.state.set_segment(Seg::Cs, cs);
    cpu.state.rip = offset;
    cpu.mode_changed();
}

/// JMP ptr16:16, ptr16:32, m16:16, m16:32, m16:64
pub fn jmp(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let to = pointer(cpu, insn)?;
    trace::far_transfer(cpu, "ljmp", to.selector, to.offset);
    if cpu.state.real_or_v86() {
        let cs = cpu.real_segment(Seg::Cs, to.selector);
        cpu.check_target(&cs, to.offset)?;
        go(cpu, cs, to.offset);
        return Ok(());
    }
    match destination(cpu, to.selector)? {
        Destination::Code(cs) => {
            let cs = direct(cpu, cs)?;
            cpu.check_target(&cs, to.offset)?;
            go(cpu, cs, to.offset);
        }
        Destination::Gate(gate) => {
            let cs = gated(cpu, &gate, false)?;
            cpu.check_target(&cs, gate.offset)?;
            go(cpu, cs, gate.offset);
        }
        Destination::TaskGate(gate) => cpu.switch_task(gate.selector, Cause::Jump)?,
        Destination::Tss => cpu.switch_task(to.selector, Cause::Jump)?,
    }
    Ok(())
}

/// CALL ptr16:16, ptr16:32, m16:16, m16:32, m16:64
pub fn call(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let to = pointer(cpu, insn)?;
    trace::far_transfer(cpu, "lcall", to.selector, to.offset);
    if cpu.state.real_or_v86() {
        let cs = cpu.real_segment(Seg::Cs, to.selector);
        return call_same_level(cpu, cs, to.offset, to.width, cpu.current_stack());
    }
    match destination(cpu, to.selector)? {
        Destination::Code(cs) => {
            let cs = direct(cpu, cs)?;
            call_same_level(cpu, cs, to.offset, to.width, cpu.current_stack())
        }
        Destination::Gate(gate) => call_gate(cpu, &gate),
        Destination::TaskGate(gate) => cpu.switch_task(gate.selector, Cause::Call),
        Destination::Tss => cpu.switch_task(to.selector, Cause::Call),
    }
}

fn call_same_level(cpu: &mut Vcpu, cs: Segment, offset: u64, width: Width, stack: Stack) -> Result<(), Fault> {
    cpu.check_target(&cs, offset)?;
    let mut frame = Frame::new(width);
    frame.push(u64::from(cpu.state.segment(Seg::Cs).selector));
    frame.push(cpu.state.rip);
    let sp = cpu.push_frame(&stack, &frame)?;
    cpu.state.regs.set_gpr(RSP, sp);
    go(cpu, cs, offset);
    Ok(())
}

fn call_gate(cpu: &mut Vcpu, gate: &Gate) -> Result<(), Fault> {
    let cs = gated(cpu, gate, true)?;
    let long = cpu.state.long_mode();
    let width = match gate.kind {
        _ if long => Width::B8,
        system::CALL_GATE32 => Width::B4,
        _ => Width::B2,
    };
    let level = rpl(cs.selector);
    if level == cpu.state.cpl {
        let mut stack = cpu.current_stack();
        if long {
            stack.width = Width::B8;
        }
        return call_same_level(cpu, cs, gate.offset, width, stack);
    }
    let stack = if long {
        let sp = cpu.stack_pointer_from_tss(4 + 8 * u64::from(level))?;
        let ss = Segment::null(u16::from(level));
        Stack { ss, sp, width, privilege: privilege_of(level), error: 0 }
    } else {
        cpu.inner_stack(level)?
    };
    let mut frame = Frame::new(width);
    frame.push(u64::from(cpu.state.segment(Seg::Ss).selector));
    frame.push(cpu.state.regs.gpr(RSP));
    let parameters = if long { 0 } else { i64::from(gate.count) };
    for n in (0..parameters).rev() {
        let value = cpu.stack_read(n * width.bytes() as i64, width)?;
        frame.push(value);
    }
    frame.push(u64::from(cpu.state.segment(Seg::Cs).selector));
    frame.push(cpu.state.rip);
    cpu.check_target(&cs, gate.offset)?;
    let sp = cpu.push_frame(&stack, &frame)?;
    cpu.state.regs.set_gpr(RSP, sp);
    cpu.state.set_segment(Seg::Ss, stack.ss);
    cpu.state.cpl = level;
    go(cpu, cs, gate.offset);
    Ok(())
}

/// RET far, with or without releasing parameters
fn ret(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = match insn.code {
        Code::Retfw | Code::Retfw_imm16 => Width::B2,
        Code::Retfd | Code::Retfd_imm16 => Width::B4,
        _ => Width::B8,
    };
    let w = width.bytes() as i64;
    let parameters = if insn.ops[0].kind == Kind::Imm { (insn.imm & 0xffff) as i64 } else { 0 };
    let offset = cpu.stack_read(0, width)?;
    let selector = cpu.stack_read(w, width)? as u16;
    trace::far_transfer(cpu, "lret", selector, offset);
    if cpu.state.real_or_v86() {
        let cs = cpu.real_segment(Seg::Cs, selector);
        cpu.check_target(&cs, offset)?;
        cpu.adjust_sp(2 * w + parameters);
        go(cpu, cs, offset);
        return Ok(());
    }
    let cs = cpu.return_segment(selector)?;
    let level = rpl(selector);
    if level == cpu.state.cpl {
        cpu.check_target(&cs, offset)?;
        cpu.adjust_sp(2 * w + parameters);
        go(cpu, cs, offset);
        return Ok(());
    }
    let sp = cpu.stack_read(2 * w + parameters, width)?;
    let ss = cpu.stack_read(3 * w + parameters, width)? as u16;
    let to_64 = cpu.state.long_mode() && cs.is(Segment::L);
    let ss = cpu.return_stack_segment(ss, level, to_64)?;
    cpu.check_target(&cs, offset)?;
    cpu.state.set_segment(Seg::Cs, cs);
    cpu.state.set_segment(Seg::Ss, ss);
    cpu.set_sp(sp.wrapping_add(parameters as u64));
    cpu.state.cpl = level;
    cpu.drop_inner_segments();
    go(cpu, cs, offset);
    Ok(())
}

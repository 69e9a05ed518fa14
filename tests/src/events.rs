//! Faults that are handled, and interrupts, for the processors of [`crate::lockstep`].
//!
//! A fault counts and begins the program again with a fresh stack; an interrupt counts and returns.

use crate::lockstep::{CODE, STACK};
use emu_core::cpu::fault;
use emu_core::cpu::segment::Seg;
use emu_core::exec::Vcpu;
use emu_core::irq::{CpuPins, InterruptSource};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::sync::Arc;

const IDT: u64 = 0x9_0000;
const GDT: u64 = 0x9_1000;
const HANDLERS: u64 = 0x9_2000;
/// Bytes of each handler.
const HANDLER: u64 = 64;
/// Doublewords that count, one for each vector.
const COUNTS: u64 = 0x9_8000;
/// The vector of INTR.
const VECTOR: u8 = 0x30;
const CODE_SELECTOR: u16 = 8;
const DATA_SELECTOR: u16 = 16;

/// An interrupt controller with one interrupt.
struct Controller(Arc<CpuPins>);

impl InterruptSource for Controller {
    fn acknowledge(&self) -> Option<u8> {
        self.0.take(CpuPins::INTR);
        Some(VECTOR)
    }
}

/// Gives `cpu`, whose code has 32 or 64 `bits`, tables and handlers.
///
/// # Panics
/// The assembler does not know a handler.
pub fn install(cpu: &mut Vcpu, bits: u32) {
    let code = if bits == 64 { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff_u64 };
    for (selector, descriptor) in [(CODE_SELECTOR, code), (DATA_SELECTOR, 0x00cf_9300_0000_ffff)] {
        cpu.memory.write(GDT + u64::from(selector), &descriptor.to_le_bytes());
    }
    for vector in 0..=VECTOR {
        let at = HANDLERS + u64::from(vector) * HANDLER;
        let handler = handler(vector, bits, at).expect("handlers can be assembled");
        assert!(handler.len() as u64 <= HANDLER, "a handler has {} bytes", handler.len());
        cpu.memory.write(at, &handler);
        let gate = (at & 0xffff) | u64::from(CODE_SELECTOR) << 16 | 0x8e00 << 32 | (at >> 16) << 48;
        let size = if bits == 64 { 16 } else { 8 };
        cpu.memory.write(IDT + u64::from(vector) * size, &gate.to_le_bytes());
    }
    let s = &mut cpu.state;
    (s.idtr.base, s.idtr.limit) = (IDT, 0xfff);
    (s.gdtr.base, s.gdtr.limit) = (GDT, 0xff);
    let mut stack = *s.segment(Seg::Ss);
    stack.selector = DATA_SELECTOR;
    s.set_segment(Seg::Ss, stack);
    cpu.bus.set_interrupt_source(Arc::new(Controller(cpu.pins.clone())));
    cpu.mode_changed();
}

/// What happens at `vector`.
fn handler(vector: u8, bits: u32, at: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(bits)?;
    let count = COUNTS + 4 * u64::from(vector);
    if [fault::NMI, VECTOR].contains(&vector) {
        a.inc(dword_ptr(count))?;
        if bits == 64 {
            a.iretq()?
        } else {
            a.iretd()?
        };
        return a.assemble(at);
    }
    let flags = 0x202;
    if bits == 64 {
        a.mov(rsp, STACK)?;
        a.inc(dword_ptr(count))?;
        a.push(i32::from(DATA_SELECTOR))?;
        a.push(STACK as i32)?;
        a.push(flags)?;
        a.push(i32::from(CODE_SELECTOR))?;
        a.push(CODE as i32)?;
        a.iretq()?;
    } else {
        a.mov(esp, STACK as i32)?;
        a.inc(dword_ptr(count))?;
        a.push(flags)?;
        a.push(i32::from(CODE_SELECTOR))?;
        a.push(CODE as i32)?;
        a.iretd()?;
    }
    a.assemble(at)
}

/// How many faults, and interrupts, `cpu` has handled.
pub fn counts(cpu: &Vcpu) -> [u64; 2] {
    let mut counts = [0; 2];
    for vector in 0..=VECTOR {
        let mut bytes = [0; 4];
        cpu.memory.read(COUNTS + 4 * u64::from(vector), &mut bytes);
        counts[usize::from([fault::NMI, VECTOR].contains(&vector))] += u64::from(u32::from_le_bytes(bytes));
    }
    counts
}

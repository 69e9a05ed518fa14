//! Faults that are handled, and interrupts, for the processors of [`crate::lockstep`].
//!
//! A fault counts, and the program goes on at another place each time, with a fresh stack and with some registers that are good
//! for addresses; an interrupt counts and returns.

use crate::lockstep::{DATA, STACK, TABLES};
use emu_core::cpu::control::CR4_SMAP;
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
const HANDLER: u64 = 128;
/// Doublewords that count, one for each vector.
const COUNTS: u64 = 0x9_8000;
/// How often a fault was handled, and where it goes on each time: a table of quadwords.
const TURN: u64 = 0x9_8800;
const PLACES: u64 = 0x9_9000;
/// How many of these there are, a power of two.
const TURNS: u64 = 16;
/// The vector of INTR.
pub const VECTOR: u8 = 0x30;
const CODE_SELECTOR: u16 = 8;
/// A page among the data that is the user's in 64-bit code: supervisors need STAC to touch it.
pub const USER_PAGE: u64 = DATA + 0x3000;
/// Flat data.
pub const DATA_SELECTOR: u16 = 16;

/// An interrupt controller with one interrupt.
struct Controller(Arc<CpuPins>);

impl InterruptSource for Controller {
    fn acknowledge(&self) -> Option<u8> {
        self.0.take(CpuPins::INTR);
        Some(VECTOR)
    }
}

/// Gives `cpu`, whose code has 32 or 64 `bits`, tables and handlers; behind faults it goes on at `places`.
///
/// # Panics
/// The assembler does not know a handler; or there are no places.
pub fn install(cpu: &mut Vcpu, bits: u32, places: &[u64]) {
    for (turn, place) in (0..TURNS).zip(places.iter().cycle()) {
        cpu.memory.write(PLACES + 8 * turn, &place.to_le_bytes());
    }
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
    if bits == 64 {
        user_page(cpu);
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

/// Gives [`USER_PAGE`] to the user.
fn user_page(cpu: &mut Vcpu) {
    for at in [TABLES, TABLES + 0x1000, TABLES + 0x2000, TABLES + 0x3000 + (USER_PAGE >> 12) * 8] {
        let mut entry = [0; 8];
        cpu.memory.read(at, &mut entry);
        cpu.memory.write(at, &(u64::from_le_bytes(entry) | 4).to_le_bytes());
    }
    cpu.state.cr4 |= CR4_SMAP;
    cpu.flush_tlb(false);
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
    let (flags, places) = (0x202, PLACES as i32);
    if bits == 64 {
        a.mov(rsp, STACK)?;
        for word in [i32::from(DATA_SELECTOR), STACK as i32, flags, i32::from(CODE_SELECTOR), 0] {
            a.push(word)?;
        }
        a.push(rax)?;
    } else {
        a.mov(esp, STACK as i32)?;
        for word in [flags, i32::from(CODE_SELECTOR), 0] {
            a.push(word)?;
        }
        a.push(eax)?;
    }
    a.inc(dword_ptr(count))?;
    a.inc(dword_ptr(TURN))?;
    // What addresses are made of: else most of what comes would fault again.
    a.mov(ecx, 0x20)?;
    a.mov(esi, DATA as i32 + 0x800)?;
    a.mov(edi, DATA as i32 + 0x1800)?;
    a.mov(eax, dword_ptr(TURN))?;
    a.and(eax, TURNS as i32 - 1)?;
    if bits == 64 {
        a.mov(rax, qword_ptr(rax * 8 + places))?;
        a.mov(qword_ptr(rsp + 8), rax)?;
        a.pop(rax)?;
        a.iretq()?;
    } else {
        a.mov(eax, dword_ptr(eax * 8 + places))?;
        a.mov(dword_ptr(esp + 4), eax)?;
        a.pop(eax)?;
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

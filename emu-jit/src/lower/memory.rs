//! Accesses to guest memory: the address, the TLB's answer, the load or store.

use super::{Lower, V};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I16, I32, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value};
use emu_core::cpu::Width;
use emu_core::cpu::regs::{BLOCK_RIP, RSP, SEG_BASE, ZERO};
use emu_core::cpu::segment::Seg;
use emu_core::exec::region::layout;

/// The integer type of a width.
pub fn int(width: Width) -> Type {
    match width {
        Width::B1 => I8,
        Width::B2 => I16,
        Width::B4 => I32,
        Width::B8 => I64,
    }
}

/// Guest memory may be unaligned and is the guest's alone.
pub fn guest() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

impl Lower<'_> {
    /// The effective address of the memory operand, cut to the address size.
    pub fn effective(&mut self) -> Value {
        let mem = self.insn.mem;
        let mut sum = None;
        let mut disp = mem.disp;
        if mem.base == BLOCK_RIP {
            disp = disp.wrapping_add(self.block.delta);
            sum = Some(self.start);
        } else if mem.base != ZERO {
            sum = Some(self.register64(mem.base));
        }
        if mem.index != ZERO {
            let index = self.register64(mem.index);
            let scaled = if mem.shift == 0 { index } else { self.b.ins().ishl_imm_s(index, i64::from(mem.shift)) };
            sum = Some(sum.map_or(scaled, |sum| self.b.ins().iadd(sum, scaled)));
        }
        let address = match sum {
            Some(sum) if disp == 0 => sum,
            Some(sum) => self.b.ins().iadd_imm_s(sum, disp),
            None => return self.b.ins().iconst(I64, (disp as u64 & self.insn.addr.mask()) as i64),
        };
        if self.insn.addr == Width::B8 { address } else { self.b.ins().band_imm_s(address, 0xffff_ffff) }
    }

    /// The linear address of the memory operand, in a mode in which segments are flat besides FS and GS.
    pub fn linear(&mut self) -> Value {
        let address = self.effective();
        let seg = self.insn.mem.seg;
        if !matches!(seg, Seg::Fs | Seg::Gs) {
            return address;
        }
        let base = self.load(I64, layout::REGS + usize::from(SEG_BASE) + 8 * seg as usize);
        let linear = self.b.ins().iadd(address, base);
        self.cut(linear)
    }

    /// The host address of `size` bytes at `linear`, if the TLB has it; else the interpreter executes the instruction.
    pub fn host(&mut self, linear: Value, size: u64, write: bool) -> Value {
        self.store_registers();
        let shift = 12 - layout::TLB_ENTRY.trailing_zeros();
        let mask = ((layout::TLB_BANK - 1) * layout::TLB_ENTRY) as i64;
        let at = self.b.ins().ushr_imm_s(linear, i64::from(shift));
        let at = self.b.ins().band_imm_s(at, mask);
        let entry = self.b.ins().iadd(self.bank, at);
        let tag = if write { layout::WRITE_TAG } else { layout::READ_TAG };
        let tag = self.b.ins().load(I64, MemFlagsData::trusted(), entry, tag as i32);
        let last = if size == 1 { linear } else { self.b.ins().iadd_imm_s(linear, size as i64 - 1) };
        let page = self.b.ins().band_imm_s(last, !0xfff);
        let hit = self.b.ins().icmp(IntCC::Equal, page, tag);
        self.step_unless(hit);
        let addend = self.b.ins().load(I64, MemFlagsData::trusted(), entry, layout::ADDEND as i32);
        self.b.ins().iadd(linear, addend)
    }

    /// Loads `width` from a host address.
    pub fn load_host(&mut self, width: Width, host: Value) -> Value {
        self.b.ins().load(int(width), guest(), host, 0)
    }

    /// Stores to a host address.
    pub fn store_host(&mut self, value: Value, host: Value) {
        self.b.ins().store(guest(), value, host, 0);
    }

    /// The stack pointer, which has the size of the code.
    pub fn stack_pointer(&mut self) -> Value {
        let sp = self.b.use_var(self.registers[usize::from(RSP)]);
        self.cut(sp)
    }

    /// Sets the stack pointer, which has the size of the code.
    pub fn set_stack_pointer(&mut self, value: Value) {
        let value = self.cut(value);
        self.define(RSP, value);
    }

    /// Pushes a value of the size of the code.
    pub fn push_value(&mut self, value: Value) {
        let width = self.code_width();
        let sp = self.stack_pointer();
        let sp = self.b.ins().iadd_imm_s(sp, -(width.bytes() as i64));
        let sp = self.cut(sp);
        let host = self.host(sp, width.bytes(), true);
        let value = self.narrow(V::Wide(value), width);
        self.store_host(value, host);
        self.set_stack_pointer(sp);
    }
}

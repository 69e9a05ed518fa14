//! Accesses to guest memory: the address, the TLB's answer, the load or store.

use super::{Lower, V};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I16, I32, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value};
use cranelift_frontend::Variable;
use emu_core::cpu::Width;
use emu_core::cpu::regs::{BLOCK_RIP, RSP, RegFile, SEG_BASE, Slot, ZERO};
use emu_core::cpu::segment::Seg;
use emu_core::decode::insn::Kind;
use emu_core::exec::region::layout;
use iced_x86::Mnemonic;

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

/// What an address is relative to. Two addresses with the same root differ by the difference of their offsets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Root {
    base: Option<Value>,
    index: Option<(Value, u8)>,
    /// The sum is cut to less than the size of the code: an address-size prefix.
    narrow: bool,
}

/// An address as far as it is known while translating: its root, and how far behind that it is.
pub type Place = (Root, i64);

/// An access whose page the TLB is known to have.
#[derive(Clone, Copy)]
pub struct Checked {
    place: Place,
    size: i64,
    write: bool,
    /// The linear address of the page, and what makes a linear address in it a host address.
    page: Value,
    addend: Value,
}

/// What an address is made of, as far as the instruction tells: registers by their slots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Via {
    base: Slot,
    index: Slot,
    shift: u8,
    seg: Option<Seg>,
    /// Displacements that are near each other share one.
    group: i64,
}

/// A page that accesses in a loop expect to be in, because what their addresses are made of stays or moves by small steps:
/// where that is so, neither the TLB nor what it says has to be waited for.
pub struct Guess {
    /// The accesses that share it: their loop, their address, and whether they write.
    owner: Option<(usize, Via, bool)>,
    /// The page's linear address, or [`NO_PAGE`].
    page: Variable,
    /// What makes a linear address in it a host address.
    addend: Variable,
}

/// Like no page's address with any of the four lowest bits set.
const NO_PAGE: i64 = 0x800;
/// Pages that are expected in a region at most: each keeps two registers busy.
const GUESSES: usize = 6;

/// Addresses this far apart are taken to be in the same page often enough.
const NEAR: i64 = 2048;

impl Lower<'_> {
    /// Where `address` is.
    pub fn place(&self, address: Value) -> Place {
        self.places.get(&address).copied().unwrap_or((Root { base: Some(address), index: None, narrow: false }, 0))
    }

    /// Notes that `sum` is `address` plus `distance`.
    pub fn note_sum(&mut self, sum: Value, address: Value, distance: i64) {
        let (root, offset) = self.place(address);
        if !root.narrow {
            self.places.insert(sum, (root, offset.wrapping_add(distance)));
        }
    }

    /// Makes room for guesses, all of them wrong.
    pub fn declare_guesses(&mut self) {
        if self.flow.loops.is_empty() {
            return;
        }
        for _ in 0..GUESSES {
            let (page, addend) = (self.b.declare_var(I64), self.b.declare_var(I64));
            self.guesses.push(Guess { owner: None, page, addend });
            let none = self.b.ins().iconst(I64, 0);
            self.b.def_var(addend, none);
        }
        self.forget_pages();
    }

    /// Forgets which pages the TLB has, and makes all guesses wrong.
    pub fn forget_pages(&mut self) {
        self.checked.clear();
        for n in 0..self.guesses.len() {
            let none = self.b.ins().iconst(I64, NO_PAGE);
            self.b.def_var(self.guesses[n].page, none);
        }
    }

    /// The guess for an access to the address that was made last.
    fn guess_page(&mut self, write: bool) -> Option<(Variable, Variable)> {
        let via = self.via?;
        let number = self.flow.blocks[self.number].innermost?;
        let jumps = self.flow.loops[number].jumps;
        let stays = |slot: Slot| matches!(slot, ZERO | BLOCK_RIP) || jumps >> (slot >> 3 & 15) & 1 == 0;
        let index = self.register64(via.index);
        if !stays(via.base) || !(stays(via.index) || self.bits_of(index) <= 8) {
            return None;
        }
        let owner = Some((number, via, write));
        let guess = self.guesses.iter_mut().find(|guess| guess.owner.is_none() || guess.owner == owner)?;
        guess.owner = owner;
        Some((guess.page, guess.addend))
    }

    /// The effective address of the memory operand, cut to the address size.
    pub fn effective(&mut self) -> Value {
        let mem = self.insn.mem;
        self.via = Some(Via {
            base: mem.base,
            index: mem.index,
            shift: mem.shift,
            seg: matches!(mem.seg, Seg::Fs | Seg::Gs).then_some(mem.seg),
            group: mem.disp.div_euclid(NEAR),
        });
        let mut sum = None;
        let mut disp = mem.disp;
        let mut root = Root { base: None, index: None, narrow: false };
        let mut offset = 0;
        if mem.base == BLOCK_RIP {
            disp = disp.wrapping_add(self.block.delta);
            sum = Some(self.start);
            root.base = sum;
        } else if mem.base != ZERO {
            let base = self.register64(mem.base);
            let place = self.place(base);
            // What is added to a sum that has been cut is not cut with it.
            (root, offset) = if place.0.narrow { (Root { base: Some(base), ..root }, 0) } else { place };
            sum = Some(base);
        }
        if mem.index != ZERO {
            let index = self.register64(mem.index);
            let scaled = if mem.shift == 0 { index } else { self.b.ins().ishl_imm_s(index, i64::from(mem.shift)) };
            if root.index.is_some() {
                // Two of them: the base itself is what it is relative to.
                (root, offset) = (Root { base: sum, index: None, narrow: false }, 0);
            }
            root.index = Some((index, mem.shift));
            sum = Some(sum.map_or(scaled, |sum| self.b.ins().iadd(sum, scaled)));
        }
        let address = match sum {
            Some(sum) if disp == 0 => sum,
            Some(sum) => self.b.ins().iadd_imm_s(sum, disp),
            None => self.b.ins().iconst(I64, (disp as u64 & self.insn.addr.mask()) as i64),
        };
        let address = match sum {
            Some(_) if self.insn.addr != Width::B8 => self.low_half(address),
            _ => address,
        };
        root.narrow = self.insn.addr != self.code_width();
        self.places.insert(address, (root, offset.wrapping_add(disp)));
        address
    }

    /// The linear address of the memory operand, in a mode in which segments are flat besides FS and GS.
    pub fn linear(&mut self) -> Value {
        let address = self.effective();
        self.linear_of(address)
    }

    /// The linear address of the memory operand, whose effective address is `address`.
    pub fn linear_of(&mut self, address: Value) -> Value {
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
        self.prepare_to_leave();
        let place = self.place(linear);
        let size = size as i64;
        let near = self.checked.iter().rev().find(|known| {
            let distance = place.1.wrapping_sub(known.place.1);
            known.place.0 == place.0
                && (known.write || !write)
                && distance.unsigned_abs() < NEAR as u64
                // Which of its ends has to be looked at is decided below.
                && (distance >= 0 || distance + size <= known.size)
        });
        if let Some(known) = near.copied() {
            let distance = place.1.wrapping_sub(known.place.1);
            if distance >= 0 && distance + size <= known.size {
                return self.b.ins().iadd(linear, known.addend);
            }
            // One end is in the page; the other is looked at.
            let end = if distance >= 0 { self.b.ins().iadd_imm_s(linear, size - 1) } else { linear };
            let page = self.b.ins().band_imm_s(end, !0xfff);
            let same = self.b.ins().icmp(IntCC::Equal, page, known.page);
            let (full, joined) = (self.b.create_block(), self.b.create_block());
            self.b.set_cold_block(full);
            self.b.append_block_param(joined, I64);
            self.b.ins().brif(same, joined, &[known.addend.into()], full, &[]);
            self.begin(full);
            let (_, addend) = self.look_up(linear, size, write);
            self.b.set_cold_block(self.b.current_block().unwrap_or(full));
            self.b.ins().jump(joined, &[addend.into()]);
            self.begin(joined);
            let addend = self.b.block_params(joined)[0];
            return self.b.ins().iadd(linear, addend);
        }
        let guess = self.guess_page(write);
        let (page, addend) = match guess {
            Some((page, addend)) => {
                // An access that is not aligned is looked up: it might reach into the next page.
                let aligned = self.b.ins().band_imm_s(linear, !0xfff | (size - 1));
                let expected = self.b.use_var(page);
                let right = self.b.ins().icmp(IntCC::Equal, aligned, expected);
                let (wrong, joined) = (self.b.create_block(), self.b.create_block());
                self.b.set_cold_block(wrong);
                self.b.ins().brif(right, joined, &[], wrong, &[]);
                self.begin(wrong);
                let (found, at) = self.look_up(linear, size, write);
                self.b.set_cold_block(self.b.current_block().unwrap_or(wrong));
                self.b.def_var(page, found);
                self.b.def_var(addend, at);
                self.b.ins().jump(joined, &[]);
                self.begin(joined);
                (self.b.use_var(page), self.b.use_var(addend))
            }
            None => self.look_up(linear, size, write),
        };
        self.checked.push(Checked { place, size, write, page, addend });
        self.b.ins().iadd(linear, addend)
    }

    /// Asks the TLB for `size` bytes at `linear`: the page, and what makes a linear address in it a host address.
    fn look_up(&mut self, linear: Value, size: i64, write: bool) -> (Value, Value) {
        let shift = 12 - layout::TLB_ENTRY.trailing_zeros();
        let mask = ((layout::TLB_BANK - 1) * layout::TLB_ENTRY) as i64;
        let at = self.b.ins().ushr_imm_s(linear, i64::from(shift));
        let at = self.b.ins().band_imm_s(at, mask);
        let bank = self.b.use_var(self.bank);
        let entry = self.b.ins().iadd(bank, at);
        let tag = if write { layout::WRITE_TAG } else { layout::READ_TAG };
        let tag = self.b.ins().load(I64, MemFlagsData::trusted(), entry, tag as i32);
        let last = if size == 1 { linear } else { self.b.ins().iadd_imm_s(linear, size - 1) };
        let page = self.b.ins().band_imm_s(last, !0xfff);
        let hit = self.b.ins().icmp(IntCC::Equal, page, tag);
        self.step_unless(hit);
        let addend = self.b.ins().load(I64, MemFlagsData::trusted(), entry, layout::ADDEND as i32);
        (page, addend)
    }

    /// Loads `width` from a host address.
    pub fn load_host(&mut self, width: Width, host: Value) -> Value {
        self.b.ins().load(int(width), guest(), host, 0)
    }

    /// Whether the current instruction is MOVZX, MOVSX, MOVSXD, or MOV of 32 bits, from memory to all of a register.
    pub fn extends_memory(&self) -> bool {
        let insn = self.insn;
        let extends = match insn.code.mnemonic() {
            Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => insn.width >= Width::B4,
            Mnemonic::Mov => insn.width == Width::B4 && insn.ops[0].kind == Kind::Gpr,
            _ => false,
        };
        extends && insn.ops[1].kind == Kind::Mem
    }

    /// Translates the current instruction, which [`Lower::extends_memory`]: as one load.
    pub fn extend_memory(&mut self) {
        let width = self.insn.operand_width(1);
        let linear = self.linear();
        let host = self.host(linear, width.bytes(), false);
        let signed = matches!(self.insn.code.mnemonic(), Mnemonic::Movsx | Mnemonic::Movsxd);
        let to = if signed { int(self.insn.width) } else { I64 };
        let extended = match (width, signed) {
            (Width::B1, true) => self.b.ins().sload8(to, guest(), host, 0),
            (Width::B1, false) => self.b.ins().uload8(to, guest(), host, 0),
            (Width::B2, true) => self.b.ins().sload16(to, guest(), host, 0),
            (Width::B2, false) => self.b.ins().uload16(to, guest(), host, 0),
            (Width::B4, false) => self.b.ins().uload32(guest(), host, 0),
            _ => self.load_host(width, host),
        };
        let value = match width {
            _ if !signed => V::Wide(extended),
            Width::B1 | Width::B2 => V::of(extended, self.insn.width),
            _ => V::of(extended, width),
        };
        self.set_register(self.insn.ops[0].reg, self.insn.width, value);
    }

    /// Stores to a host address.
    pub fn store_host(&mut self, value: Value, host: Value) {
        self.b.ins().store(guest(), value, host, 0);
    }

    /// The stack pointer, which has the size of the code.
    pub fn stack_pointer(&mut self) -> Value {
        let via = Via { base: RegFile::slot(RSP), index: ZERO, shift: 0, seg: None, group: 0 };
        self.via = Some(via);
        let sp = self.b.use_var(self.registers[usize::from(RSP)]);
        self.cut_sum(sp, sp, 0)
    }

    /// `sum`, which is `address` plus `distance`, cut to the size of the code.
    pub fn cut_sum(&mut self, sum: Value, address: Value, distance: i64) -> Value {
        let cut = self.cut(sum);
        if cut != address {
            self.note_sum(cut, address, distance);
        }
        cut
    }

    /// Sets the stack pointer, which has the size of the code.
    pub fn set_stack_pointer(&mut self, value: Value) {
        let value = self.cut_sum(value, value, 0);
        self.define(RSP, value);
    }

    /// Pushes a value of the size of the code.
    pub fn push_value(&mut self, value: Value) {
        let width = self.code_width();
        let before = self.stack_pointer();
        let sp = self.b.ins().iadd_imm_s(before, -(width.bytes() as i64));
        let sp = self.cut_sum(sp, before, -(width.bytes() as i64));
        let host = self.host(sp, width.bytes(), true);
        let value = self.narrow(V::Wide(value), width);
        self.store_host(value, host);
        self.set_stack_pointer(sp);
    }
}

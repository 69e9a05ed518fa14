//! What happened before a triple fault, in words: the chain of faults, registers, descriptors, page walk, recent blocks.

use super::Vcpu;
use crate::cpu::control::{CR4_LA57, CR4_PAE, CR4_PSE};
use crate::cpu::fault::{self, Fault};
use crate::debug::registers;
use std::fmt::Write;

/// One fault as it was raised.
#[derive(Clone, Copy, Debug)]
pub struct Raised {
    /// Vector, error code and address, before they were turned into a double fault.
    pub fault: Fault,
    /// CS and RIP of the instruction.
    pub at: (u16, u64),
    /// RSP then.
    pub rsp: u64,
}

/// A ring of the addresses that the dispatcher has looked up last.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    ring: [u64; 16],
    next: usize,
}

impl Recent {
    /// Notes an address.
    #[inline]
    pub fn note(&mut self, rip: u64) {
        self.ring[self.next % 16] = rip;
        self.next = self.next.wrapping_add(1);
    }

    /// The addresses, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let count = self.next.min(16);
        (self.next - count..self.next).map(|n| self.ring[n % 16])
    }
}

/// The SDM's mnemonic of an exception vector.
pub fn vector_name(vector: u8) -> &'static str {
    const NAMES: [&str; 22] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "?", "#TS", "#NP", "#SS", "#GP", "#PF", "?",
        "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
    ];
    NAMES.get(usize::from(vector)).copied().unwrap_or("interrupt")
}

impl Vcpu {
    /// Explains a triple fault.
    pub fn explain_shutdown(&self) -> String {
        let mut text = String::from("triple fault: the processor has shut down\n");
        // Writing to a String cannot fail.
        let _ = self.explain(&mut text);
        text
    }

    fn explain(&self, out: &mut String) -> std::fmt::Result {
        for (n, raised) in self.chain.iter().enumerate() {
            let what = if n == 0 { "raised" } else { "then, while delivering it," };
            if let Fault::Exception { vector, error, address } = raised.fault {
                write!(out, "  {what} {} (vector {vector})", vector_name(vector))?;
                if let Some(code) = error {
                    write!(out, " error {code:#06x}")?;
                }
                if vector == fault::PF {
                    write!(out, " address {address:#018x}")?;
                }
                writeln!(out, " at {:04x}:{:016x} rsp {:016x}", raised.at.0, raised.at.1, raised.rsp)?;
            }
        }
        out.push_str(&self.registers());
        if let Some(Raised { fault: Fault::Exception { vector: fault::PF, address, .. }, .. }) = self.chain.first() {
            self.write_page_walk(out, *address)?;
        }
        write!(out, "  blocks looked up last:")?;
        for rip in self.recent.iter() {
            write!(out, " {rip:x}")?;
        }
        writeln!(out)
    }

    /// All registers, in the layout of QEMU's `info registers`.
    pub fn registers(&self) -> String {
        registers::show(&self.state, self.memory.a20_mask() == u64::MAX)
    }

    /// The page-table entries that lead to `linear`, as they are in memory.
    fn write_page_walk(&self, out: &mut String, linear: u64) -> std::fmt::Result {
        let s = &self.state;
        if !s.paging() {
            return writeln!(out, "  paging is off");
        }
        let wide = s.cr4 & CR4_PAE != 0;
        let (levels, bits, size): (u32, u32, usize) = match (s.long_mode(), wide) {
            (true, _) if s.cr4 & CR4_LA57 != 0 => (5, 9, 8),
            (true, _) => (4, 9, 8),
            (false, true) => (3, 9, 8),
            (false, false) => (2, 10, 4),
        };
        let mut table = s.cr3 & if s.long_mode() || !wide { !0xfff } else { !0x1f };
        write!(out, "  page walk:")?;
        for level in (0..levels).rev() {
            let index = linear >> (12 + bits * level) & ((1 << bits) - 1);
            let mut bytes = [0; 8];
            self.memory.read(table + index * size as u64, &mut bytes[..size]);
            let entry = u64::from_le_bytes(bytes);
            write!(out, " L{}[{index:#x}]={entry:016x}", level + 1)?;
            let leaf = level == 0 || (entry & 0x80 != 0 && (wide || s.cr4 & CR4_PSE != 0) && level < 3);
            if entry & 1 == 0 || leaf {
                break;
            }
            table = entry & 0x000f_ffff_ffff_f000;
        }
        writeln!(out)
    }
}

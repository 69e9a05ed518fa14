//! Segment registers with their hidden parts, and descriptors as the tables hold them (SDM Vol. 3A 3.4).

use serde::{Deserialize, Serialize};

/// The segment registers, numbered as in encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Seg {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

impl Seg {
    /// All six, in order.
    pub const ALL: [Seg; 6] = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs];
}

/// A segment register: selector and cached descriptor. `attributes` are bits 8 to 23 of the descriptor's second
/// doubleword, moved down by 8; the limit nibble in the middle is zero.
///
/// ```text
///  15  14  13   12   11..8  7  6..5  4  3..0
///  G   D/B L    AVL  0      P  DPL   S  type
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The visible part.
    pub selector: u16,
    /// Linear address of the first byte.
    pub base: u64,
    /// Last valid offset (expand-up) or last invalid one (expand-down), in bytes.
    pub limit: u32,
    /// See the type's documentation.
    pub attributes: u16,
    /// Loaded with a null selector in protected mode, or never made valid: any use faults.
    pub unusable: bool,
}

impl Segment {
    /// Accessed bit of code and data segments.
    pub const ACCESSED: u16 = 1;
    /// Writable data or readable code.
    pub const RW: u16 = 2;
    /// Expand-down data or conforming code.
    pub const EXPAND_DOWN: u16 = 4;
    /// Conforming code.
    pub const CONFORMING: u16 = 4;
    /// Code segment.
    pub const CODE: u16 = 8;
    /// Code or data, not a system descriptor.
    pub const S: u16 = 0x10;
    /// Present.
    pub const P: u16 = 0x80;
    /// 64-bit code.
    pub const L: u16 = 0x2000;
    /// Default size 32 bits, big.
    pub const DB: u16 = 0x4000;
    /// Limit counts 4 KiB pages.
    pub const G: u16 = 0x8000;

    /// The descriptor `raw` cached for `selector`.
    pub fn from_descriptor(selector: u16, raw: u64) -> Segment {
        let attributes = ((raw >> 40) & 0xf0ff) as u16;
        let limit = ((raw & 0xffff) | (raw >> 32 & 0xf_0000)) as u32;
        Segment {
            selector,
            base: (raw >> 16 & 0xff_ffff) | (raw >> 32 & 0xff00_0000),
            limit: if attributes & Segment::G != 0 { limit << 12 | 0xfff } else { limit },
            attributes,
            unusable: false,
        }
    }

    /// A real-mode segment.
    pub fn real(selector: u16) -> Segment {
        Segment {
            selector,
            base: u64::from(selector) << 4,
            limit: 0xffff,
            attributes: Segment::P | Segment::S | Segment::RW | Segment::ACCESSED,
            unusable: false,
        }
    }

    /// A segment register loaded with a null selector.
    pub fn null(selector: u16) -> Segment {
        Segment { selector, base: 0, limit: 0, attributes: 0, unusable: true }
    }

    /// Whether all of `size` (0 counts as 1) bytes at `offset` are inside the limit (SDM Vol. 3A 5.3).
    #[inline]
    pub fn covers(&self, offset: u64, size: u64) -> bool {
        let last = offset.wrapping_add(size.max(1) - 1);
        let expand_down =
            self.attributes & (Segment::CODE | Segment::EXPAND_DOWN | Segment::S) == Segment::EXPAND_DOWN | Segment::S;
        if expand_down {
            let top = if self.is(Segment::DB) { 0xffff_ffff } else { 0xffff };
            offset > u64::from(self.limit) && last <= top
        } else {
            last <= u64::from(self.limit)
        }
    }

    /// Data that can be written.
    pub fn is_writable_data(&self) -> bool {
        self.attributes & (Segment::S | Segment::CODE | Segment::RW) == Segment::S | Segment::RW
    }

    /// Conforming code.
    pub fn is_conforming_code(&self) -> bool {
        self.is_code() && self.is(Segment::CONFORMING)
    }

    /// Descriptor privilege level.
    pub fn dpl(&self) -> u8 {
        (self.attributes >> 5 & 3) as u8
    }

    /// The four type bits.
    pub fn kind(&self) -> u8 {
        (self.attributes & 15) as u8
    }

    /// Whether `flag` (one of the constants) is set.
    pub fn is(&self, flag: u16) -> bool {
        self.attributes & flag != 0
    }

    /// A code segment.
    pub fn is_code(&self) -> bool {
        self.attributes & (Segment::S | Segment::CODE) == Segment::S | Segment::CODE
    }

    /// A data segment with base 0 that covers all 4 GiB and can be read and written.
    pub fn is_flat_data(&self) -> bool {
        self.base == 0 && self.covers_all()
    }

    /// A data segment that covers all 4 GiB from its base on, and can be read and written.
    pub fn covers_all(&self) -> bool {
        !self.unusable
            && self.limit == u32::MAX
            && self.attributes & (Segment::S | Segment::CODE | Segment::RW | Segment::EXPAND_DOWN | Segment::P)
                == Segment::S | Segment::RW | Segment::P
    }
}

/// Types of system descriptors (SDM Vol. 3A table 3-2).
#[allow(missing_docs)]
pub mod system {
    pub const TSS16_AVAILABLE: u8 = 1;
    pub const LDT: u8 = 2;
    pub const TSS16_BUSY: u8 = 3;
    pub const CALL_GATE16: u8 = 4;
    pub const TASK_GATE: u8 = 5;
    pub const INTERRUPT_GATE16: u8 = 6;
    pub const TRAP_GATE16: u8 = 7;
    pub const TSS32_AVAILABLE: u8 = 9;
    pub const TSS32_BUSY: u8 = 11;
    pub const CALL_GATE32: u8 = 12;
    pub const INTERRUPT_GATE32: u8 = 14;
    pub const TRAP_GATE32: u8 = 15;
    /// What makes an available TSS busy.
    pub const BUSY: u8 = 2;
}

/// A gate descriptor (SDM Vol. 3A figures 5-8 and 6-2). The upper half of 64-bit gates is given separately.
///
/// ```text
///  63      48 47 46..45 44 43..40 39..37 36..32      31      16 15       0
///  offset hi  P  DPL    0  type   0      count / IST  selector   offset lo
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The destination: code segment or TSS.
    pub selector: u16,
    /// Entry point.
    pub offset: u64,
    /// One of [`system`]; 16 and above for code and data descriptors.
    pub kind: u8,
    /// Descriptor privilege level.
    pub dpl: u8,
    /// Present.
    pub present: bool,
    /// Call gates: parameters to copy; 64-bit interrupt gates: the IST index.
    pub count: u8,
}

impl Gate {
    /// The gate `low`, with `high` as offset bits 32 to 63 of a 64-bit gate.
    pub fn new(low: u64, high: u32) -> Gate {
        let kind = (low >> 40 & 0x1f) as u8;
        let offset = (low & 0xffff) | u64::from(high) << 32;
        // 16-bit gates have no upper offset.
        let upper = if kind & 8 != 0 { low >> 32 & 0xffff_0000 } else { 0 };
        Gate {
            selector: (low >> 16) as u16,
            offset: offset | upper,
            kind,
            dpl: (low >> 45 & 3) as u8,
            present: low >> 47 & 1 != 0,
            count: (low >> 32 & 0x1f) as u8,
        }
    }
}

/// GDTR and IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRegister {
    /// Linear address of the table.
    pub base: u64,
    /// Offset of its last byte.
    pub limit: u16,
}

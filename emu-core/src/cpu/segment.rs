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
        !self.unusable
            && self.base == 0
            && self.limit == u32::MAX
            && self.attributes & (Segment::S | Segment::CODE | Segment::RW | Segment::EXPAND_DOWN | Segment::P)
                == Segment::S | Segment::RW | Segment::P
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

//! Packed shifts. The count is the low 64 bits of the source, or an immediate; counts beyond the lane clear it, or fill
//! it with its sign.

use super::packed::packed_rows;
use crate::cpu::xmm::Xmm;

packed_rows! { shift:
    Psllw => |p| p.shift::<u16, 8>(|a, n| if n > 15 { 0 } else { a << n });
    Pslld => |p| p.shift::<u32, 4>(|a, n| if n > 31 { 0 } else { a << n });
    Psllq => |p| p.shift::<u64, 2>(|a, n| if n > 63 { 0 } else { a << n });
    Psrlw => |p| p.shift::<u16, 8>(|a, n| if n > 15 { 0 } else { a >> n });
    Psrld => |p| p.shift::<u32, 4>(|a, n| if n > 31 { 0 } else { a >> n });
    Psrlq => |p| p.shift::<u64, 2>(|a, n| if n > 63 { 0 } else { a >> n });
    Psraw => |p| p.shift::<i16, 8>(|a, n| a >> n.min(15));
    Psrad => |p| p.shift::<i32, 4>(|a, n| a >> n.min(31));
    // These two count bytes, and only as an immediate.
    Pslldq => |p| Xmm::from(u128::from(p.dst).checked_shl(8 * p.src.get32(0)).unwrap_or(0));
    Psrldq => |p| Xmm::from(u128::from(p.dst).checked_shr(8 * p.src.get32(0)).unwrap_or(0));
}

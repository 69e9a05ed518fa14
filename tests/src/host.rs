//! The host as an oracle of what instructions do.

use iced_x86::Mnemonic;

/// Who made the host's processor. The models that emu offers are Intel's; AMD's answer the same but where the two
/// companies' manuals leave the answer open or differ, which each comparison lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// GenuineIntel.
    Intel,
    /// AuthenticAMD, and HygonGenuine, which has AMD's cores.
    Amd,
    /// Any other.
    Other,
}

/// The vendor that CPUID leaf 0 names.
pub fn vendor() -> Vendor {
    #[cfg(target_arch = "x86_64")]
    {
        let leaf = std::arch::x86_64::__cpuid(0);
        match [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat().as_slice() {
            b"GenuineIntel" => Vendor::Intel,
            b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
            _ => Vendor::Other,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vendor::Other
}

/// Whether two results of RCPxS, RSQRTxS, DPPS or DPPD (`mnemonic`) may both be right: the approximations differ by at
/// most the 1.5 * 2^-12 that each is allowed (SDM Vol. 2B RCPPS), and which of several NaNs a dot product hands on
/// depends on the order of its additions.
pub fn equally_right(mnemonic: Mnemonic, a: [u8; 16], b: [u8; 16]) -> bool {
    let singles = |v: [u8; 16]| v.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect::<Vec<_>>();
    let doubles = |v: [u8; 16]| v.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b)).collect::<Vec<_>>();
    let mut lanes = singles(a).into_iter().zip(singles(b));
    let same = |x: f32, y: f32| x.to_bits() == y.to_bits();
    match mnemonic {
        Mnemonic::Rcpps | Mnemonic::Rcpss | Mnemonic::Rsqrtps | Mnemonic::Rsqrtss => {
            lanes.all(|(x, y)| same(x, y) || ((x - y) / x).abs() <= 2.0 * 1.5 / 4096.0)
        }
        Mnemonic::Dpps => lanes.all(|(x, y)| same(x, y) || (x.is_nan() && y.is_nan())),
        Mnemonic::Dppd => {
            let mut lanes = doubles(a).into_iter().zip(doubles(b));
            lanes.all(|(x, y)| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan()))
        }
        _ => false,
    }
}

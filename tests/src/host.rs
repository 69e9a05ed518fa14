//! The host as an oracle of what instructions do.

/// Whether the host's processor can tell what the models that emu offers do: they are Intel's, and processors of other
/// vendors answer differently, within their own manuals, in what Intel's define or do alike: the stored last-instruction
/// pointers and mask of FXSAVE, approximations, which NaN wins, denormal x87 results that underflow unmasked, alignment and
/// fault order of some operands, undefined flags, reserved NOPs. A host that cannot says so on stderr.
pub fn is_reference() -> bool {
    #[cfg(target_arch = "x86_64")]
    let intel = std::arch::x86_64::__cpuid(0).ebx == u32::from_le_bytes(*b"Genu");
    #[cfg(not(target_arch = "x86_64"))]
    let intel = false;
    if !intel {
        eprintln!("the host's processor is not Intel's: its answers are no reference and were not compared");
    }
    intel
}

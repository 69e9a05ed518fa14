//! What CPUID answers (SDM Vol. 2A CPUID; APM Vol. 3 appendix E; hypervisor leaves as hypervisors agree on them).
//!
//! One processor with one core and one thread. Caches are those of a plausible part of the time; nothing depends on
//! them. Deliberately absent: performance monitoring (leaf 0Ah), SGX, PT, the processor serial number.

use super::CpuState;
use super::control::CR4_OSXSAVE;
use super::features::{Feature, Word};
use super::model::{CpuModel, Vendor};
use super::segment::{Seg, Segment};
use crate::clock::TSC_HZ;
use crate::ops::system::msr::MISC_ENABLE_LIMIT_CPUID;

/// IA32_APIC_BASE bit 11: the local APIC is there.
const APIC_ENABLED: u64 = 1 << 11;
/// Bits of the x87 and SSE area of XSAVE, legacy region and header.
const XSAVE_BYTES: u32 = 512 + 64;
/// What the hypervisor leaf calls itself.
const HYPERVISOR: [u8; 12] = *b"EmuEmuEmuEmu";
/// The highest hypervisor leaf.
const HYPERVISOR_LEAVES: u32 = 0x4000_0010;
/// Frequency of the crystal that TSC and APIC timer count, in hertz.
const CRYSTAL_HZ: u32 = 1_000_000_000;

/// EAX, EBX, ECX, EDX.
pub type Answer = [u32; 4];

/// Answers CPUID `leaf`, `subleaf`. `apic_base` is IA32_APIC_BASE, `None` without a local APIC.
pub fn query(model: &CpuModel, state: &CpuState, apic_base: Option<u64>, leaf: u32, subleaf: u32) -> Answer {
    let limited = state.msrs.misc_enable & MISC_ENABLE_LIMIT_CPUID != 0;
    let highest = if limited { model.leaves.min(2) } else { model.leaves };
    let hypervisor = model.supports(Feature::Hypervisor);
    match leaf {
        0x4000_0000..=HYPERVISOR_LEAVES if hypervisor => hypervisor_leaf(leaf),
        0x8000_0000.. if leaf <= model.extended_leaves => extended(model, state, leaf),
        _ if leaf <= highest => basic(model, state, apic_base, leaf, subleaf, highest),
        // Beyond the end Intel repeats the highest basic leaf, AMD answers zeros.
        _ if model.vendor == Vendor::Intel => basic(model, state, apic_base, highest, subleaf, highest),
        _ => [0; 4],
    }
}

fn basic(model: &CpuModel, state: &CpuState, apic_base: Option<u64>, leaf: u32, subleaf: u32, highest: u32) -> Answer {
    match leaf {
        0 => {
            let [ebx, edx, ecx] = vendor(model);
            [highest, ebx, ecx, edx]
        }
        1 => {
            let mut ecx = model.word(Word::L1Ecx);
            let mut edx = model.word(Word::L1Edx);
            if state.cr4 & CR4_OSXSAVE != 0 {
                ecx |= 1 << 27;
            }
            if apic_base.is_none_or(|base| base & APIC_ENABLED == 0) {
                edx &= !Feature::Apic.mask();
                ecx &= !(Feature::X2apic.mask() | Feature::TscDeadline.mask());
            }
            let clflush = if model.supports(Feature::Clflush) { 8 << 8 } else { 0 };
            [signature(model), clflush, ecx, edx]
        }
        // Descriptors: 64-byte prefetch, TLBs, 32 KiB L1 caches, 2 MiB L2.
        2 if model.vendor == Vendor::Intel => [0x0000_0001, 0, 0, 0x002c_307d],
        4 if model.vendor == Vendor::Intel => cache(subleaf),
        5 if model.supports(Feature::Monitor) => [64, 64, 0, 0],
        6 => [model.word(Word::L6Eax), 0, 0, 0],
        7 if subleaf == 0 => [
            if model.word(Word::L72Edx) != 0 { 2 } else { u32::from(model.word(Word::L71Eax) != 0) },
            model.word(Word::L7Ebx),
            model.word(Word::L7Ecx),
            model.word(Word::L7Edx),
        ],
        7 if subleaf == 1 => [model.word(Word::L71Eax), 0, 0, 0],
        7 if subleaf == 2 => [0, 0, 0, model.word(Word::L72Edx)],
        // Topology: one thread in one core.
        0xb => match subleaf {
            0 => [0, 1, 1 << 8, 0],
            1 => [0, 1, 2 << 8 | 1, 0],
            _ => [0, 0, subleaf & 0xff, 0],
        },
        0xd if model.supports(Feature::Xsave) => match subleaf {
            0 => [3, XSAVE_BYTES, XSAVE_BYTES, 0],
            1 => {
                let eax = model.word(Word::L13Eax);
                [eax, if model.supports(Feature::Xsavec) { XSAVE_BYTES } else { 0 }, 0, 0]
            }
            // AVX's component will be subleaf 2.
            _ => [0; 4],
        },
        0x15 => [1, (TSC_HZ / u64::from(CRYSTAL_HZ)) as u32, CRYSTAL_HZ, 0],
        0x16 => {
            let mhz = (TSC_HZ / 1_000_000) as u32;
            [mhz, mhz, CRYSTAL_HZ / 1_000_000, 0]
        }
        _ => [0; 4],
    }
}

/// Type, extended type, family, model and stepping.
///
/// ```text
///  27      20 19    16 13 12 11   8 7    4 3     0
///  ext family ext model type family model  stepping
/// ```
pub fn signature(model: &CpuModel) -> u32 {
    let family = model.family.min(15);
    let extended = model.family - family;
    extended << 20 | (model.model >> 4) << 16 | family << 8 | (model.model & 15) << 4 | model.stepping
}

/// EBX, EDX and ECX of leaf 0.
fn vendor(model: &CpuModel) -> [u32; 3] {
    words(match model.vendor {
        Vendor::Intel => *b"GenuineIntel",
        Vendor::Amd => *b"AuthenticAMD",
    })
}

fn words(text: [u8; 12]) -> [u32; 3] {
    std::array::from_fn(|n| u32::from_le_bytes([text[4 * n], text[4 * n + 1], text[4 * n + 2], text[4 * n + 3]]))
}

/// Leaf 4: data and instruction caches of 32 KiB, 4 MiB of second level.
///
/// ```text
///  EAX  4..0 type (1 data, 2 instruction, 3 unified)   7..5 level   8 self-initialising
///  EBX  31..22 ways - 1   21..12 partitions - 1   11..0 line size - 1
///  ECX  sets - 1
/// ```
fn cache(subleaf: u32) -> Answer {
    const WAYS_8: u32 = 7 << 22 | 63;
    const WAYS_16: u32 = 15 << 22 | 63;
    const SELF_INITIALISING: u32 = 1 << 8;
    match subleaf {
        0 => [1 | 1 << 5 | SELF_INITIALISING, WAYS_8, 63, 0],
        1 => [2 | 1 << 5 | SELF_INITIALISING, WAYS_8, 63, 0],
        2 => [3 | 2 << 5 | SELF_INITIALISING, WAYS_16, 4095, 0],
        _ => [0; 4],
    }
}

fn hypervisor_leaf(leaf: u32) -> Answer {
    match leaf {
        0x4000_0000 => {
            let [ebx, ecx, edx] = words(HYPERVISOR);
            [HYPERVISOR_LEAVES, ebx, ecx, edx]
        }
        // Frequencies of the TSC and of the APIC's bus in kHz.
        0x4000_0010 => [(TSC_HZ / 1000) as u32, CRYSTAL_HZ / 1000, 0, 0],
        _ => [0; 4],
    }
}

fn extended(model: &CpuModel, state: &CpuState, leaf: u32) -> Answer {
    let amd = model.vendor == Vendor::Amd;
    match leaf {
        0x8000_0000 => {
            let [ebx, edx, ecx] = if amd { vendor(model) } else { [0; 3] };
            [model.extended_leaves, ebx, ecx, edx]
        }
        0x8000_0001 => {
            let mut edx = model.word(Word::Ext1Edx);
            let long_code = state.long_mode() && state.segment(Seg::Cs).is(Segment::L);
            if amd {
                // AMD repeats what leaf 1 says.
                edx |= model.word(Word::L1Edx) & 0x0183_f3ff;
            } else if !long_code {
                edx &= !Feature::Syscall.mask();
            }
            [if amd { signature(model) } else { 0 }, 0, model.word(Word::Ext1Ecx), edx]
        }
        0x8000_0002..=0x8000_0004 => {
            let mut brand = [0u8; 48];
            for (to, from) in brand.iter_mut().zip(model.brand.bytes()) {
                *to = from;
            }
            let start = (leaf - 0x8000_0002) as usize * 16;
            std::array::from_fn(|n| {
                let at = start + 4 * n;
                u32::from_le_bytes([brand[at], brand[at + 1], brand[at + 2], brand[at + 3]])
            })
        }
        // L1 caches: size in KiB, ways, lines per tag, line size.
        0x8000_0005 if amd => [0x01ff_01ff, 0x01ff_01ff, 0x4002_0140, 0x4002_0140],
        // L2: size in KiB, ways (8: sixteen), line size.
        0x8000_0006 => [0, 0, 512 << 16 | 8 << 12 | 64, 0],
        0x8000_0007 => [0, 0, 0, model.word(Word::Ext7Edx)],
        0x8000_0008 => {
            let linear = if model.supports(Feature::Lm) { model.linear_bits() } else { 32 };
            [linear << 8 | model.physical_bits(), model.word(Word::Ext8Ebx), 0, 0]
        }
        _ => [0; 4],
    }
}

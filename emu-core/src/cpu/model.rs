//! Processor models: what `-cpu` names, and which instructions, CPUID leaves and registers they have.
//!
//! A model is a family, a few widths and a set of [`Feature`]s; `NAME,+feature,-feature` changes the set. Everything
//! else that depends on the model asks it: the decoder ([`CpuModel::has`]), CPUID ([`super::cpuid`]), reserved bits of
//! control registers, model-specific registers.
//!
//! `max` presents itself as a Westmere (family 6, model 2Ch) that is immune to every speculative-execution flaw that
//! IA32_ARCH_CAPABILITIES can name, because an emulator has no such flaws and the mitigations would cost time. Linux
//! takes enhanced IBRS to need help against branch-history injection whatever BHI_NO says; BHI_CTRL lets it believe that
//! one write to IA32_SPEC_CTRL provides that, instead of a loop in every system call. The model number makes C libraries choose unaligned and REP-string copies, which suit emu.

use super::features::{Feature, WORDS};
use iced_x86::{CpuidFeature, DecoderOptions};
use thiserror::Error;

/// The makers whose processors differ in details (SYSCALL and SYSENTER, non-canonical addresses in SYSRET).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// GenuineIntel.
    Intel,
    /// AuthenticAMD.
    Amd,
}

/// A processor model.
#[derive(Clone, Debug)]
pub struct CpuModel {
    /// The name as given to `-cpu`.
    pub name: &'static str,
    /// One line for `-cpu help`.
    pub summary: &'static str,
    /// Whose processor it is.
    pub vendor: Vendor,
    /// Family, model and stepping as CPUID counts them, extended fields added in.
    pub family: u32,
    /// See [`CpuModel::family`].
    pub model: u32,
    /// See [`CpuModel::family`].
    pub stepping: u32,
    /// The highest basic CPUID leaf.
    pub leaves: u32,
    /// The highest extended CPUID leaf, 0 for none.
    pub extended_leaves: u32,
    /// The 48 characters of the processor brand string, padded with zeros.
    pub brand: &'static str,
    physical_bits: u8,
    words: [u32; WORDS],
}

/// Why a `-cpu` value was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ModelError {
    /// No such model.
    #[error("CPU model '{0}' does not exist; available are {names}", names = names())]
    Model(String),
    /// No such feature.
    #[error("CPU feature '{0}' is not implemented; `-cpu help` lists what is")]
    Feature(String),
    /// Something else than `+feature`, `-feature`, `feature=on|off` or `feature`.
    #[error("CPU option '{0}' is not understood; write +FEATURE or -FEATURE")]
    Syntax(String),
}

fn names() -> String {
    MODELS.iter().map(|m| m.name).collect::<Vec<_>>().join(", ")
}

use Feature::*;

const I486: &[Feature] = &[Fpu, Vme, Pse];
const PENTIUM: &[Feature] = &[De, Tsc, Msr, Mce, Cx8, Mmx, Apic];
const PENTIUM2: &[Feature] = &[Pae, Sep, Mtrr, Pge, Mca, Cmov, Pat, Pse36, Fxsr];
/// QEMU's common ground of the processors since the Pentium 4.
const BASIC: &[Feature] =
    &[Fpu, De, Pse, Tsc, Msr, Mce, Cx8, Pge, Cmov, Pat, Fxsr, Mmx, Sse, Sse2, Pae, Sep, Apic, Sse3, Hypervisor];
const LONG: &[Feature] = &[Lm, Syscall, Nx, LahfLm, Cx16];
const NEHALEM: &[Feature] = &[Vme, Clflush, Pse36, Mca, Mtrr, Ssse3, Sse41, Sse42, Popcnt];
const MAX: &[Feature] = &[
    Ss,
    Monitor,
    Aes,
    Pclmulqdq,
    Movbe,
    Pcid,
    X2apic,
    TscDeadline,
    Xsave,
    Rdrand,
    Arat,
    Fsgsbase,
    TscAdjust,
    Bmi1,
    Smep,
    Bmi2,
    Erms,
    Invpcid,
    Rdseed,
    Adx,
    Smap,
    Clflushopt,
    Clwb,
    ShaNi,
    Umip,
    Rdpid,
    Fsrm,
    MdClear,
    Serialize,
    SpecCtrl,
    ArchCapabilities,
    Fzrm,
    Fsrs,
    Fsrc,
    Xsaveopt,
    Xsavec,
    Xgetbv1,
    Pdpe1gb,
    Rdtscp,
    Abm,
    Prefetchw,
    InvTsc,
    Wbnoinvd,
    RdclNo,
    IbrsAll,
    SkipL1dflVmentry,
    SsbNo,
    MdsNo,
    PschangeMcNo,
    TaaNo,
    SbdrSsdpNo,
    FbsdpNo,
    PsdpNo,
    BhiNo,
    PbrsbNo,
    GdsNo,
    RfdsNo,
    ItsNo,
    BhiCtrl,
    McdtNo,
];

/// A model as the table below has it.
struct Definition {
    name: &'static str,
    summary: &'static str,
    vendor: Vendor,
    /// Family, model, stepping.
    signature: (u32, u32, u32),
    /// Highest basic and extended leaf.
    leaves: (u32, u32),
    brand: &'static str,
    physical_bits: u8,
    features: &'static [&'static [Feature]],
}

const MODELS: &[Definition] = &[
    Definition {
        name: "486",
        summary: "Intel 486 DX4, with CPUID",
        vendor: Vendor::Intel,
        signature: (4, 8, 0),
        leaves: (1, 0),
        brand: "",
        physical_bits: 32,
        features: &[I486],
    },
    Definition {
        name: "pentium",
        summary: "Intel Pentium with MMX",
        vendor: Vendor::Intel,
        signature: (5, 4, 3),
        leaves: (1, 0),
        brand: "",
        physical_bits: 32,
        features: &[I486, PENTIUM],
    },
    Definition {
        name: "pentium3",
        summary: "Intel Pentium III",
        vendor: Vendor::Intel,
        signature: (6, 8, 3),
        leaves: (3, 0),
        brand: "",
        physical_bits: 36,
        features: &[I486, PENTIUM, PENTIUM2, &[Sse]],
    },
    Definition {
        name: "qemu32",
        summary: "32-bit processor with SSE3",
        vendor: Vendor::Intel,
        signature: (6, 6, 3),
        leaves: (4, 0x8000_0004),
        brand: "emu 32-bit virtual CPU",
        physical_bits: 36,
        features: &[BASIC],
    },
    Definition {
        name: "qemu64",
        summary: "64-bit processor with SSE3",
        vendor: Vendor::Amd,
        signature: (15, 107, 1),
        leaves: (13, 0x8000_0008),
        brand: "emu 64-bit virtual CPU",
        physical_bits: 40,
        features: &[BASIC, LONG, &[Mtrr, Clflush, Mca, Pse36]],
    },
    Definition {
        name: "Nehalem",
        summary: "Intel Core i7 9xx: x86-64-v2",
        vendor: Vendor::Intel,
        signature: (6, 26, 3),
        leaves: (11, 0x8000_0008),
        brand: "Intel Core i7 9xx (Nehalem Class Core i7)",
        physical_bits: 40,
        features: &[BASIC, LONG, NEHALEM],
    },
    Definition {
        name: "max",
        summary: "everything that emu implements",
        vendor: Vendor::Intel,
        signature: (6, 0x2c, 2),
        leaves: (0x16, 0x8000_0008),
        brand: "emu virtual CPU",
        physical_bits: 40,
        features: &[BASIC, LONG, NEHALEM, MAX],
    },
];

impl CpuModel {
    /// Everything that emu implements.
    pub fn max() -> CpuModel {
        MODELS.last().map(CpuModel::of).unwrap_or_else(|| unreachable!("the table of models is not empty"))
    }

    /// The names and summaries of all models, for `-cpu help`.
    pub fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
        MODELS.iter().map(|m| (m.name, m.summary))
    }

    /// The model and features that `text` (`NAME[,+feature][,-feature]`, also `feature=on|off`) describes. Later words
    /// win. A feature takes away with it what cannot be without it.
    ///
    /// # Errors
    /// An unknown name, or a word that is none.
    pub fn parse(text: &str) -> Result<CpuModel, ModelError> {
        let mut words = text.split(',');
        let name = words.next().unwrap_or_default();
        let name = if name == "host" || name == "base" { "" } else { name };
        let mut model = MODELS
            .iter()
            .find(|m| m.name.eq_ignore_ascii_case(name))
            .map(CpuModel::of)
            .ok_or_else(|| ModelError::Model(text.split(',').next().unwrap_or_default().to_owned()))?;
        for word in words {
            let (name, on) = if let Some(name) = word.strip_prefix('+') {
                (name, true)
            } else if let Some(name) = word.strip_prefix('-') {
                (name, false)
            } else {
                match word.split_once('=') {
                    Some((name, "on" | "true" | "yes")) => (name, true),
                    Some((name, "off" | "false" | "no")) => (name, false),
                    Some(_) => return Err(ModelError::Syntax(word.to_owned())),
                    None => (word, true),
                }
            };
            if name.is_empty() {
                return Err(ModelError::Syntax(word.to_owned()));
            }
            let feature = Feature::named(name).ok_or_else(|| ModelError::Feature(name.to_owned()))?;
            model.set(feature, on);
        }
        model.settle();
        Ok(model)
    }

    fn of(definition: &Definition) -> CpuModel {
        let mut model = CpuModel {
            name: definition.name,
            summary: definition.summary,
            vendor: definition.vendor,
            family: definition.signature.0,
            model: definition.signature.1,
            stepping: definition.signature.2,
            leaves: definition.leaves.0,
            extended_leaves: definition.leaves.1,
            brand: definition.brand,
            physical_bits: definition.physical_bits,
            words: [0; WORDS],
        };
        for feature in definition.features.iter().copied().flatten() {
            model.set(*feature, true);
        }
        model
    }

    fn set(&mut self, feature: Feature, on: bool) {
        let word = &mut self.words[feature.word()];
        *word = if on { *word | feature.mask() } else { *word & !feature.mask() };
    }

    /// Takes away features whose ground is missing, and shows the leaves that the others need.
    fn settle(&mut self) {
        let mut changed = true;
        while changed {
            changed = false;
            for (feature, _) in Feature::ALL {
                if self.supports(*feature) && feature.needs().is_some_and(|ground| !self.supports(ground)) {
                    self.set(*feature, false);
                    changed = true;
                }
            }
        }
        let extended = [Lm, Nx, Syscall, Pdpe1gb, Rdtscp, LahfLm, Abm, Prefetchw, InvTsc, Wbnoinvd];
        if extended.iter().any(|f| self.supports(*f)) {
            self.extended_leaves = self.extended_leaves.max(0x8000_0008);
        }
        if self.words[super::features::Word::L7Ebx as usize] != 0 {
            self.leaves = self.leaves.max(7);
        }
        if self.supports(Xsave) {
            self.leaves = self.leaves.max(13);
        }
    }

    /// Whether the model has `feature`.
    #[inline]
    pub fn supports(&self, feature: Feature) -> bool {
        self.words[feature.word()] & feature.mask() != 0
    }

    /// A word of feature bits as CPUID shows it.
    pub fn word(&self, word: super::features::Word) -> u32 {
        self.words[word as usize]
    }

    /// The features that the model has, by name.
    pub fn features(&self) -> impl Iterator<Item = &'static str> + '_ {
        Feature::ALL.iter().filter(|(f, _)| self.supports(*f)).map(|(_, names)| names[0])
    }

    /// Bits of a physical address, 32 to 52.
    pub fn physical_bits(&self) -> u32 {
        u32::from(self.physical_bits)
    }

    /// Bits of a linear address.
    pub fn linear_bits(&self) -> u32 {
        match (self.supports(Lm), self.supports(La57)) {
            (false, _) => 32,
            (true, false) => 48,
            (true, true) => 57,
        }
    }

    /// Whether instructions of `feature` exist on this model.
    pub fn has(&self, feature: CpuidFeature) -> bool {
        match Feature::of_instruction(feature) {
            Ok(feature) => self.supports(feature),
            Err(always) => always,
        }
    }

    /// How iced-x86 is to read encodings that mean something else where a feature is missing: TZCNT and LZCNT are BSF
    /// and BSR, WBNOINVD is WBINVD.
    pub fn decoder_options(&self) -> u32 {
        let without = |feature, option| if self.supports(feature) { 0 } else { option };
        without(Bmi1, DecoderOptions::NO_MPFX_0FBC)
            | without(Abm, DecoderOptions::NO_MPFX_0FBD)
            | without(Wbnoinvd, DecoderOptions::NO_WBNOINVD)
            | without(LahfLm, DecoderOptions::NO_LAHF_SAHF_64)
            | if self.vendor == Vendor::Amd { DecoderOptions::AMD } else { DecoderOptions::NONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_accepts_qemu_spellings_and_order() {
        let model = CpuModel::parse("Nehalem,+aes,-sse4_2,pcid=on").unwrap();
        assert!(model.supports(Aes) && model.supports(Pcid) && !model.supports(Sse42));
        assert!(model.supports(Sse41));
        assert!(CpuModel::parse("max,-sse4.2,+SSE4_2").unwrap().supports(Sse42));
    }

    #[test]
    fn feature_without_its_ground_goes_away() {
        let model = CpuModel::parse("max,-sse2").unwrap();
        assert!(!model.supports(Aes) && !model.supports(Sse42) && model.supports(Sse));
        assert!(!CpuModel::parse("max,-lm").unwrap().supports(Pcid));
    }

    #[test]
    fn parse_names_what_it_refuses() {
        assert_eq!(CpuModel::parse("z80").unwrap_err(), ModelError::Model("z80".into()));
        assert_eq!(CpuModel::parse("max,+avx512f").unwrap_err(), ModelError::Feature("avx512f".into()));
        assert_eq!(CpuModel::parse("max,pmu=3").unwrap_err(), ModelError::Syntax("pmu=3".into()));
        assert_eq!(CpuModel::parse("max,+").unwrap_err(), ModelError::Syntax("+".into()));
        assert!(CpuModel::parse("").is_err());
    }

    #[test]
    fn every_model_settles_as_defined() {
        for (name, _) in CpuModel::list() {
            let parsed = CpuModel::parse(name).unwrap();
            let defined = MODELS.iter().find(|m| m.name == name).map(CpuModel::of).unwrap();
            assert_eq!(parsed.words, defined.words, "{name}");
            assert_eq!((parsed.leaves, parsed.extended_leaves), (defined.leaves, defined.extended_leaves), "{name}");
        }
    }

    #[test]
    fn instructions_follow_the_model() {
        let i486 = CpuModel::parse("486").unwrap();
        assert!(i486.has(CpuidFeature::INTEL486) && i486.has(CpuidFeature::CPUID) && !i486.has(CpuidFeature::TSC));
        assert!(!CpuModel::max().has(CpuidFeature::AVX) && CpuModel::max().has(CpuidFeature::BMI2));
        let qemu64 = CpuModel::parse("qemu64").unwrap();
        assert!(qemu64.has(CpuidFeature::X64) && qemu64.has(CpuidFeature::PREFETCHW));
    }
}

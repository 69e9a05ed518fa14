//! CPUID feature bits by the names that `-cpu` takes (SDM Vol. 2A CPUID; APM Vol. 3 appendix E).
//!
//! One table: the variant, the word and bit where CPUID or IA32_ARCH_CAPABILITIES shows it, and its names, the first
//! of which is the one that is printed. Only features that emu implements, or that mean nothing but a promise about
//! the hardware (RDCL_NO and its kind), are in it.

use iced_x86::CpuidFeature;

/// The words of feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    /// CPUID 1, EDX.
    L1Edx,
    /// CPUID 1, ECX.
    L1Ecx,
    /// CPUID 6, EAX.
    L6Eax,
    /// CPUID 7.0, EBX.
    L7Ebx,
    /// CPUID 7.0, ECX.
    L7Ecx,
    /// CPUID 7.0, EDX.
    L7Edx,
    /// CPUID 7.1, EAX.
    L71Eax,
    /// CPUID 7.2, EDX.
    L72Edx,
    /// CPUID 13.1, EAX.
    L13Eax,
    /// CPUID 8000_0001h, EDX.
    Ext1Edx,
    /// CPUID 8000_0001h, ECX.
    Ext1Ecx,
    /// CPUID 8000_0007h, EDX.
    Ext7Edx,
    /// CPUID 8000_0008h, EBX.
    Ext8Ebx,
    /// IA32_ARCH_CAPABILITIES, bits 31:0.
    ArchLow,
    /// IA32_ARCH_CAPABILITIES, bits 63:32.
    ArchHigh,
}

/// How many [`Word`]s there are.
pub const WORDS: usize = Word::ArchHigh as usize + 1;

macro_rules! features {
    ($($word:ident { $($variant:ident = $bit:literal [$($name:literal),+]),* $(,)? })*) => {
        /// A feature that a model has or lacks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        #[repr(u16)]
        pub enum Feature {
            $($($variant = (Word::$word as u16) << 5 | $bit,)*)*
        }

        impl Feature {
            /// All features with their names.
            pub const ALL: &'static [(Feature, &'static [&'static str])] =
                &[$($((Feature::$variant, &[$($name),+]),)*)*];
        }
    };
}

features! {
    L1Edx {
        Fpu = 0 ["fpu"], Vme = 1 ["vme"], De = 2 ["de"], Pse = 3 ["pse"], Tsc = 4 ["tsc"], Msr = 5 ["msr"],
        Pae = 6 ["pae"], Mce = 7 ["mce"], Cx8 = 8 ["cx8"], Apic = 9 ["apic"], Sep = 11 ["sep"], Mtrr = 12 ["mtrr"],
        Pge = 13 ["pge"], Mca = 14 ["mca"], Cmov = 15 ["cmov"], Pat = 16 ["pat"], Pse36 = 17 ["pse36"],
        Clflush = 19 ["clflush"], Mmx = 23 ["mmx"], Fxsr = 24 ["fxsr"], Sse = 25 ["sse"], Sse2 = 26 ["sse2"],
        Ss = 27 ["ss"],
    }
    L1Ecx {
        Sse3 = 0 ["sse3", "pni"], Pclmulqdq = 1 ["pclmulqdq"], Monitor = 3 ["monitor"], Ssse3 = 9 ["ssse3"],
        Cx16 = 13 ["cx16"], Pcid = 17 ["pcid"], Sse41 = 19 ["sse4.1", "sse4_1"], Sse42 = 20 ["sse4.2", "sse4_2"],
        X2apic = 21 ["x2apic"], Movbe = 22 ["movbe"], Popcnt = 23 ["popcnt"], TscDeadline = 24 ["tsc-deadline"],
        Aes = 25 ["aes"], Xsave = 26 ["xsave"], Rdrand = 30 ["rdrand"], Hypervisor = 31 ["hypervisor"],
    }
    L6Eax {
        Arat = 2 ["arat"],
    }
    L7Ebx {
        Fsgsbase = 0 ["fsgsbase"], TscAdjust = 1 ["tsc_adjust"], Bmi1 = 3 ["bmi1"], Smep = 7 ["smep"],
        Bmi2 = 8 ["bmi2"], Erms = 9 ["erms"], Invpcid = 10 ["invpcid"], FpuSelectorsDeprecated = 13 ["zero-fcs-fds"],
        Rdseed = 18 ["rdseed"], Adx = 19 ["adx"], Smap = 20 ["smap"], Clflushopt = 23 ["clflushopt"],
        Clwb = 24 ["clwb"], ShaNi = 29 ["sha-ni"],
    }
    L7Ecx {
        Umip = 2 ["umip"], La57 = 16 ["la57"], Rdpid = 22 ["rdpid"],
    }
    L7Edx {
        Fsrm = 4 ["fsrm"], MdClear = 10 ["md-clear"], Serialize = 14 ["serialize"], SpecCtrl = 26 ["spec-ctrl"],
        Stibp = 27 ["stibp"], ArchCapabilities = 29 ["arch-capabilities"], Ssbd = 31 ["ssbd"],
    }
    L71Eax {
        Fzrm = 10 ["fzrm"], Fsrs = 11 ["fsrs"], Fsrc = 12 ["fsrc"],
    }
    L72Edx {
        BhiCtrl = 4 ["bhi-ctrl"], McdtNo = 5 ["mcdt-no"],
    }
    L13Eax {
        Xsaveopt = 0 ["xsaveopt"], Xsavec = 1 ["xsavec"], Xgetbv1 = 2 ["xgetbv1"],
    }
    Ext1Edx {
        Syscall = 11 ["syscall"], Nx = 20 ["nx", "xd"], Pdpe1gb = 26 ["pdpe1gb"], Rdtscp = 27 ["rdtscp"],
        Lm = 29 ["lm"],
    }
    Ext1Ecx {
        LahfLm = 0 ["lahf_lm"], Abm = 5 ["abm", "lzcnt"], Prefetchw = 8 ["3dnowprefetch"],
    }
    Ext7Edx {
        InvTsc = 8 ["invtsc"],
    }
    Ext8Ebx {
        Wbnoinvd = 9 ["wbnoinvd"],
    }
    ArchLow {
        RdclNo = 0 ["rdctl-no"], IbrsAll = 1 ["ibrs-all"], SkipL1dflVmentry = 3 ["skip-l1dfl-vmentry"],
        SsbNo = 4 ["ssb-no"], MdsNo = 5 ["mds-no"], PschangeMcNo = 6 ["pschange-mc-no"], TaaNo = 8 ["taa-no"],
        SbdrSsdpNo = 13 ["sbdr-ssdp-no"], FbsdpNo = 14 ["fbsdp-no"], PsdpNo = 15 ["psdp-no"], BhiNo = 20 ["bhi-no"],
        PbrsbNo = 24 ["pbrsb-no"], GdsNo = 26 ["gds-no"], RfdsNo = 27 ["rfds-no"],
    }
    ArchHigh {
        ItsNo = 30 ["its-no"],
    }
}

impl Feature {
    /// The word that the feature's bit is in.
    pub const fn word(self) -> usize {
        (self as u16 >> 5) as usize
    }

    /// The feature's bit in its word.
    pub const fn mask(self) -> u32 {
        1 << (self as u16 & 31)
    }

    /// The feature called `name` on a command line; `_` and `-` are alike, as are upper and lower case.
    pub fn named(name: &str) -> Option<Feature> {
        let plain = |s: &str| s.to_ascii_lowercase().replace('_', "-");
        let wanted = plain(name);
        Feature::ALL.iter().find(|(_, names)| names.iter().any(|n| plain(n) == wanted)).map(|(feature, _)| *feature)
    }

    /// What the feature cannot be without (SDM Vol. 1 chapter 5 and Vol. 3A): a model that lacks that lacks this too.
    pub fn needs(self) -> Option<Feature> {
        use Feature::*;
        Some(match self {
            Sse => Fxsr,
            Sse2 => Sse,
            Sse3 => Sse2,
            Ssse3 => Sse3,
            Sse41 => Ssse3,
            Sse42 => Sse41,
            Aes | Pclmulqdq | ShaNi => Sse2,
            Fxsr | Mmx => Fpu,
            Xsaveopt | Xsavec | Xgetbv1 => Xsave,
            Xsave => Fxsr,
            Lm => Pae,
            Nx => Pae,
            Pse36 => Pse,
            Pdpe1gb | La57 | Pcid | LahfLm | Cx16 => Lm,
            Invpcid => Pcid,
            X2apic | TscDeadline => Apic,
            TscAdjust | Rdtscp | InvTsc => Tsc,
            _ => return None,
        })
    }

    /// What a model must have for iced-x86's `feature`; `Err` holds the answer where no feature bit decides.
    ///
    /// # Errors
    /// `Err(true)`: every model executes these, if only as no-operations. `Err(false)`: no model has them.
    pub fn of_instruction(feature: CpuidFeature) -> Result<Feature, bool> {
        use CpuidFeature as I;
        use Feature::*;
        Ok(match feature {
            I::INTEL8086 | I::INTEL186 | I::INTEL286 | I::INTEL386 | I::INTEL486 | I::CPUID | I::PAUSE | I::SMM => {
                return Err(true);
            }
            // Processors without these execute their encodings, which lie in the reserved no-operation space.
            I::CET_IBT | I::CET_SS | I::CLDEMOTE => return Err(true),
            // Hints on every 64-bit processor, whether it prefetches or not; Linux takes AMD's to have them.
            I::PREFETCHW | I::PREFETCHWT1 => Lm,
            // P6 and later have hints and long no-operations; CMOV came with them.
            I::MULTIBYTENOP | I::RDPMC => Cmov,
            I::X64 => Lm,
            I::FPU | I::FPU287 | I::FPU387 => Fpu,
            I::TSC => Tsc,
            I::MSR => Msr,
            I::CX8 => Cx8,
            I::SEP => Sep,
            I::CMOV => Cmov,
            I::CLFSH => Clflush,
            I::MMX => Mmx,
            I::FXSR => Fxsr,
            I::SSE => Sse,
            I::SSE2 => Sse2,
            I::SSE3 => Sse3,
            I::SSSE3 => Ssse3,
            I::SSE4_1 => Sse41,
            I::SSE4_2 => Sse42,
            I::PCLMULQDQ => Pclmulqdq,
            I::MONITOR => Monitor,
            I::CMPXCHG16B => Cx16,
            I::MOVBE => Movbe,
            I::POPCNT => Popcnt,
            I::AES => Aes,
            I::XSAVE => Xsave,
            I::XSAVEOPT => Xsaveopt,
            I::XSAVEC => Xsavec,
            I::RDRAND => Rdrand,
            I::RDSEED => Rdseed,
            I::FSGSBASE => Fsgsbase,
            I::BMI1 => Bmi1,
            I::BMI2 => Bmi2,
            I::INVPCID => Invpcid,
            I::ADX => Adx,
            I::SMAP => Smap,
            I::CLFLUSHOPT => Clflushopt,
            I::CLWB => Clwb,
            I::SHA => ShaNi,
            I::RDPID => Rdpid,
            I::SERIALIZE => Serialize,
            I::SYSCALL => Syscall,
            I::RDTSCP => Rdtscp,
            I::LZCNT => Abm,
            I::WBNOINVD => Wbnoinvd,
            // AVX, AVX2 and FMA will have their rows here.
            _ => return Err(false),
        })
    }
}

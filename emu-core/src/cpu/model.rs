//! Processor models: what `-cpu` names, and which instructions and CPUID leaves they have.

use iced_x86::CpuidFeature;

/// A processor model.
#[derive(Clone, Debug)]
pub struct CpuModel {
    /// The name as given to `-cpu`.
    pub name: &'static str,
}

impl CpuModel {
    /// Everything that emu implements.
    pub fn max() -> CpuModel {
        CpuModel { name: "max" }
    }

    /// Whether instructions of `feature` exist on this model.
    pub fn has(&self, feature: CpuidFeature) -> bool {
        !matches!(feature, CpuidFeature::AVX | CpuidFeature::AVX2)
    }
}

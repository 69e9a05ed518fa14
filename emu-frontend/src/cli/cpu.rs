//! `-cpu model[,+feature][,-feature][,feature=on|off]`.

use super::error::{StartError, nearest};
use emu_core::cpu::model::{CpuModel, ModelError};

/// What an i386 emulator has without `-cpu`.
const DEFAULT_32: &str = "max,-lm";

/// The processor that `-cpu` describes; `bits32`: without `-cpu`, one that has no long mode.
///
/// # Errors
/// An unknown model or feature.
pub fn parse(text: Option<&str>, bits32: bool) -> Result<CpuModel, StartError> {
    let text = text.unwrap_or(if bits32 { DEFAULT_32 } else { "max" });
    CpuModel::parse(text).map_err(|error| {
        let (wrong, near) = match &error {
            ModelError::Model(name) => (name, nearest(name, CpuModel::list().map(|m| m.0))),
            ModelError::Feature(name) | ModelError::Syntax(name) => (name, nearest(name, CpuModel::max().features())),
        };
        let hint = near.filter(|n| n != wrong).map(|n| format!("; nearest is '{n}'")).unwrap_or_default();
        StartError::value("cpu", text, format!("{error}{hint}"))
    })
}

/// What `-cpu help` prints.
pub fn help() -> String {
    let mut text = String::from("Available CPUs:\n");
    for (name, summary) in CpuModel::list() {
        text += &format!("x86 {name:<22}{summary}\n");
    }
    text += "\nRecognized CPUID flags:\n";
    let max = CpuModel::max();
    let mut line = String::from(" ");
    for feature in max.features() {
        if line.len() + feature.len() > 75 {
            text += &format!("{line}\n");
            line = String::from(" ");
        }
        line += &format!(" {feature}");
    }
    text + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use emu_core::cpu::features::Feature;

    #[test]
    fn default_model_loses_long_mode_only_for_the_i386_name() {
        let long = |text, bits32| parse(text, bits32).unwrap().supports(Feature::Lm);
        assert!(long(None, false));
        assert!(!long(None, true));
        assert!(long(Some("max"), true));
    }

    #[test]
    fn unknown_models_and_features_are_named_with_the_nearest() {
        assert!(parse(Some("nehalm"), false).unwrap_err().line().ends_with("nearest is 'Nehalem'"));
        assert!(parse(Some("max,+avx"), false).unwrap_err().line().starts_with("-cpu max,+avx: "));
        assert!(help().contains("x86 486 "));
    }
}

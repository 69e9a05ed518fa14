//! `-cpu model[,+feature][,-feature][,feature=on|off]`.

use super::error::{StartError, nearest};
use super::value::{parse_bool, split_commas};

/// Models and what they are.
const MODELS: &[(&str, &str)] = &[("max", "every feature that emu implements")];

/// The processor that the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuChoice {
    /// One of the models that `-cpu help` lists.
    pub model: &'static str,
    /// Features to add (`true`) or remove, in order.
    pub features: Vec<(String, bool)>,
    /// Without long mode, because the emulator is called qemu-system-i386 and no model was named.
    pub without_long_mode: bool,
}

/// Checks the value of `-cpu`; `bits32`: the default model has no long mode.
///
/// # Errors
/// An unknown model or feature.
pub fn parse(text: Option<&str>, bits32: bool) -> Result<CpuChoice, StartError> {
    let Some(text) = text else {
        return Ok(CpuChoice { model: "max", features: Vec::new(), without_long_mode: bits32 });
    };
    let mut elements = split_commas(text).into_iter();
    let name = elements.next().unwrap_or_default();
    let Some((model, _)) = MODELS.iter().find(|(m, _)| *m == name) else {
        let near = nearest(&name, MODELS.iter().map(|m| m.0)).unwrap_or("max");
        return Err(StartError::value("cpu", text, format!("no CPU model '{name}'; nearest is {near}")));
    };
    let mut features = Vec::new();
    for element in elements {
        features.push(parse_feature(text, &element)?);
    }
    if let Some((feature, _)) = features.first() {
        return Err(StartError::value(
            "cpu",
            text,
            format!("feature '{feature}' cannot be switched; nearest is -cpu max"),
        ));
    }
    Ok(CpuChoice { model, features, without_long_mode: false })
}

fn parse_feature(text: &str, element: &str) -> Result<(String, bool), StartError> {
    if let Some(name) = element.strip_prefix('+') {
        return Ok((name.into(), true));
    }
    if let Some(name) = element.strip_prefix('-') {
        return Ok((name.into(), false));
    }
    match element.split_once('=').map(|(name, value)| (name, parse_bool(value))) {
        Some((name, Some(on))) => Ok((name.into(), on)),
        _ => Err(StartError::value("cpu", text, format!("'{element}': expected +FEATURE, -FEATURE or FEATURE=on|off"))),
    }
}

/// What `-cpu help` prints.
pub fn help() -> String {
    let mut text = String::from("Available CPUs:\n");
    for (name, what) in MODELS {
        text += &format!("x86 {name:<22}{what}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_model_loses_long_mode_only_for_the_i386_name() {
        assert!(!parse(None, false).unwrap().without_long_mode);
        assert!(parse(None, true).unwrap().without_long_mode);
        assert!(!parse(Some("max"), true).unwrap().without_long_mode);
    }

    #[test]
    fn unknown_model_is_named_with_the_nearest() {
        let line = parse(Some("mx"), false).unwrap_err().line();
        assert_eq!(line, "-cpu mx: no CPU model 'mx'; nearest is max");
    }

    #[test]
    fn features_are_read_in_three_spellings() {
        assert_eq!(parse_feature("", "+sse"), Ok(("sse".into(), true)));
        assert_eq!(parse_feature("", "-sse"), Ok(("sse".into(), false)));
        assert_eq!(parse_feature("", "sse=off"), Ok(("sse".into(), false)));
        assert!(parse_feature("", "sse").is_err());
    }
}

//! `-object`: sources of entropy, and passphrases. Captures of networks are [`super::net`]'s.

use super::error::{StartError, nearest};
use super::value::KeyValues;
use std::path::PathBuf;

/// Where random bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entropy {
    /// rng-builtin.
    Builtin,
    /// rng-random: a file.
    File(PathBuf),
}

/// A source and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntropyObject {
    /// `id=`.
    pub id: String,
    /// What it is.
    pub entropy: Entropy,
    text: String,
}

impl EntropyObject {
    /// An error about this object that names its option.
    pub fn error(&self, problem: impl Into<String>) -> StartError {
        StartError::value("object", self.text.as_str(), problem)
    }
}

const TYPES: &[&str] = &[CAPTURE, "rng-builtin", "rng-random", "secret"];

/// A passphrase and its id.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// `id=`.
    pub id: String,
    /// The passphrase.
    pub data: Vec<u8>,
}

/// Reads a `secret` object, and its file.
///
/// # Errors
/// It is none, lacks its data, or the file cannot be read.
pub fn parse_secret(text: &str) -> Result<Secret, StartError> {
    let mut v = KeyValues::parse("object", text, "qom-type");
    if v.take("qom-type")?.as_deref() != Some("secret") {
        return Err(v.error("expected secret,id=ID,data=TEXT or file=FILE"));
    }
    let id = v.take("id")?.ok_or_else(|| v.error("'id' is needed"))?;
    let data = match (v.take("data")?, v.take("file")?) {
        (Some(data), None) => data.into_bytes(),
        (None, Some(file)) => std::fs::read(&file).map_err(|e| v.error(format!("Unable to read {file}: {e}")))?,
        _ => return Err(v.error("a secret has either data=TEXT or file=FILE")),
    };
    if let Some(format) = v.take("format")?.filter(|format| format != "raw") {
        return Err(v.error(format!("'format={format}' is not implemented; implemented: raw")));
    }
    v.finish()?;
    Ok(Secret { id, data })
}

/// The secret called `id` among all `-object` values.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn find_secret(values: &[String], id: &str) -> Result<Option<Secret>, StartError> {
    for text in values.iter().filter(|text| text.starts_with("secret,") || text.starts_with("qom-type=secret,")) {
        let secret = parse_secret(text)?;
        if secret.id == id {
            return Ok(Some(secret));
        }
    }
    Ok(None)
}
/// What [`super::net`] checks.
const CAPTURE: &str = "filter-dump";

/// What `-object help` prints.
pub fn help() -> String {
    TYPES.iter().fold("List of user creatable objects:\n".into(), |text, name| format!("{text}  {name}\n"))
}

/// Checks all `-object` values.
///
/// # Errors
/// An object that does not exist, a wrong property, or an id twice.
pub fn parse(values: &[String]) -> Result<Vec<EntropyObject>, StartError> {
    let mut objects: Vec<EntropyObject> = Vec::new();
    for text in values {
        let mut v = KeyValues::parse("object", text, "qom-type");
        let name = v.take("qom-type")?.unwrap_or_default();
        let entropy = match name.as_str() {
            CAPTURE => continue,
            // Drives look for it.
            "secret" => {
                parse_secret(text)?;
                continue;
            }
            "rng-builtin" => Entropy::Builtin,
            "rng-random" => Entropy::File(v.take("filename")?.unwrap_or_else(|| "/dev/urandom".into()).into()),
            _ => {
                let hint = nearest(&name, TYPES.iter().copied()).map(|near| format!("; nearest is '{near}'"));
                let known = hint.unwrap_or_else(|| format!("; implemented: {}", TYPES.join(", ")));
                return Err(v.error(format!("'{name}' is not implemented{known}")));
            }
        };
        let Some(id) = v.take("id")? else { return Err(v.error("'id' is needed")) };
        v.finish()?;
        if objects.iter().any(|other| other.id == id) {
            return Err(v.error(format!("duplicate object id '{id}'")));
        }
        objects.push(EntropyObject { id, entropy, text: text.clone() });
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(values: &[&str]) -> Result<Vec<EntropyObject>, String> {
        parse(&values.iter().map(|s| s.to_string()).collect::<Vec<_>>()).map_err(|e| e.line())
    }

    #[test]
    fn entropy_has_an_id_and_perhaps_a_file() {
        let given = objects(&["rng-builtin,id=a", "rng-random,id=b", "rng-random,filename=/x,id=c"]).unwrap();
        let all: Vec<_> = given.into_iter().map(|o| (o.id, o.entropy)).collect();
        let file = |path: &str| Entropy::File(path.into());
        let expected = [("a", Entropy::Builtin), ("b", file("/dev/urandom")), ("c", file("/x"))];
        assert_eq!(all, expected.map(|(id, entropy)| (id.to_string(), entropy)));
        for (wrong, part) in [
            (&["rng-builtin"][..], "'id' is needed"),
            (&["rng-egd,id=a"], "not implemented"),
            (&["rng-builtin,id=a,filename=x"], "unknown property"),
            (&["rng-builtin,id=a", "rng-random,id=a"], "duplicate"),
        ] {
            assert!(objects(wrong).unwrap_err().contains(part), "{wrong:?}");
        }
    }
}

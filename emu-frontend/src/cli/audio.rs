//! `-audiodev`: where sound goes.

use super::error::{StartError, nearest};
use super::value::KeyValues;
use std::path::PathBuf;

/// A kind of audio back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AudioKind {
    /// Nobody hears it.
    None,
    /// A WAV file.
    Wav(PathBuf),
    /// The host's sound card.
    #[cfg(feature = "cpal")]
    Cpal,
}

/// One `-audiodev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioDev {
    /// By which devices name it.
    pub id: String,
    /// What it is.
    pub kind: AudioKind,
    text: String,
}

impl AudioDev {
    /// An error about this back end that names its option.
    pub fn error(&self, problem: impl Into<String>) -> StartError {
        StartError::value("audiodev", self.text.as_str(), problem)
    }
}

/// Why there is no cpal, and how to have it.
#[cfg(not(feature = "cpal"))]
const WITHOUT_CPAL: &str = "this emu is built without sound cards; 'cargo build --release -p emu-frontend --features cpal' \
    makes one with them (on Linux it needs ALSA's headers: libasound2-dev)";

/// Checks all `-audiodev` values.
///
/// # Errors
/// A back end or property that does not exist, or an id that is missing or given twice.
pub fn parse(values: &[String]) -> Result<Vec<AudioDev>, StartError> {
    let mut devices: Vec<AudioDev> = Vec::new();
    for text in values {
        let mut v = KeyValues::parse("audiodev", text, "driver");
        let id = v.take("id")?.ok_or_else(|| v.error("needs id=ID"))?;
        let kind = match v.take("driver")?.as_deref() {
            Some("none") => AudioKind::None,
            Some("wav") => match v.take("path")? {
                Some(path) if !path.is_empty() => AudioKind::Wav(path.into()),
                _ => return Err(v.error("needs path=FILE")),
            },
            #[cfg(feature = "cpal")]
            Some("cpal") => AudioKind::Cpal,
            #[cfg(not(feature = "cpal"))]
            Some("cpal") => return Err(v.error(WITHOUT_CPAL)),
            Some(other) => {
                let near = match other {
                    "alsa" | "coreaudio" | "dsound" | "jack" | "oss" | "pa" | "pipewire" | "sdl" | "sndio" => "cpal",
                    _ => nearest(other, ["none", "wav", "cpal"]).unwrap_or("none"),
                };
                return Err(v.error(format!("'{other}' is not an audio back end here; nearest is {near}")));
            }
            None => return Err(v.error("needs a back end: none, wav or cpal")),
        };
        v.finish()?;
        if devices.iter().any(|device| device.id == id) {
            return Err(v.error(format!("duplicate audiodev id '{id}'")));
        }
        devices.push(AudioDev { id, kind, text: text.clone() });
    }
    Ok(devices)
}

/// The number of the back end that `-OPTION TEXT` calls `id`.
///
/// # Errors
/// There is none.
pub fn find(devices: &[AudioDev], option: &str, text: &str, id: &str) -> Result<usize, StartError> {
    devices.iter().position(|device| device.id == id).ok_or_else(|| {
        let hint = match nearest(id, devices.iter().map(|device| device.id.as_str())) {
            Some(near) => format!("; nearest is '{near}'"),
            None => String::new(),
        };
        StartError::value(option, text, format!("no -audiodev has the id '{id}'{hint}"))
    })
}

/// What `-audiodev help` prints.
pub fn help() -> String {
    let cpal = if cfg!(feature = "cpal") { "cpal\n" } else { "" };
    format!("Available audio drivers:\nnone\n{cpal}wav\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audio(values: &[&str]) -> Result<Vec<AudioDev>, String> {
        parse(&values.iter().map(|v| v.to_string()).collect::<Vec<_>>()).map_err(|e| e.line())
    }

    #[test]
    fn back_ends_are_told_apart() {
        let devices = audio(&["none,id=a", "wav,id=b,path=x.wav"]).unwrap();
        assert_eq!((&devices[0].kind, &devices[1].kind), (&AudioKind::None, &AudioKind::Wav("x.wav".into())));
        assert_eq!(find(&devices, "machine", "", "b").unwrap(), 1);
        let error = find(&devices, "device", "sb16,audiodev=c", "c").unwrap_err().line();
        assert_eq!(error, "-device sb16,audiodev=c: no -audiodev has the id 'c'");
    }

    #[test]
    fn wrong_back_ends_are_one_line_that_names_the_value() {
        for text in ["none", "wav,id=a", "wave,id=a", "id=a", "none,id=a,path=x", ""] {
            assert!(audio(&[text]).unwrap_err().starts_with(&format!("-audiodev {text}: ")), "{text}");
        }
        assert!(audio(&["alsa,id=a"]).unwrap_err().ends_with("'alsa' is not an audio back end here; nearest is cpal"));
        assert_eq!(audio(&["none,id=a", "none,id=a"]).unwrap_err(), "-audiodev none,id=a: duplicate audiodev id 'a'");
    }

    #[test]
    fn sound_cards_are_there_or_the_message_says_how_to_have_them() {
        match audio(&["cpal,id=a"]) {
            #[cfg(feature = "cpal")]
            Ok(devices) => assert_eq!(devices[0].kind, AudioKind::Cpal),
            #[cfg(not(feature = "cpal"))]
            Err(line) => {
                assert!(line.starts_with("-audiodev cpal,id=a: ") && line.contains("--features cpal"), "{line}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(help().contains("cpal"), cfg!(feature = "cpal"));
    }
}

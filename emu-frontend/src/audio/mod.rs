//! Where sound goes on the host: nowhere, into a WAV file, or to the sound card.

#[cfg(feature = "cpal")]
mod playback;
#[cfg(feature = "cpal")]
mod sound_card;
mod wav;

use crate::cli::audio::{AudioDev, AudioKind};
use crate::cli::error::StartError;
use emu_devices::audio::AudioBackend;

/// The back end that `device` describes; `None`: nobody hears it.
///
/// # Errors
/// The file cannot be written, or there is no sound card.
pub fn open(device: &AudioDev) -> Result<Option<Box<dyn AudioBackend>>, StartError> {
    match &device.kind {
        AudioKind::None => Ok(None),
        AudioKind::Wav(path) => {
            let file = wav::WavFile::create(path).map_err(|e| device.error(format!("cannot write: {e}")))?;
            Ok(Some(Box::new(file)))
        }
        #[cfg(feature = "cpal")]
        AudioKind::Cpal => {
            let card = sound_card::SoundCard::open().map_err(|problem| device.error(problem))?;
            Ok(Some(Box::new(card)))
        }
    }
}

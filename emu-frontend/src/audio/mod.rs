//! Where sound goes on the host: nowhere, or into a WAV file.

mod wav;

use crate::cli::audio::{AudioDev, AudioKind};
use crate::cli::error::StartError;
use emu_devices::audio::AudioBackend;

/// The back end that `device` describes; `None`: nobody hears it.
///
/// # Errors
/// The file cannot be written.
pub fn open(device: &AudioDev) -> Result<Option<Box<dyn AudioBackend>>, StartError> {
    match &device.kind {
        AudioKind::None => Ok(None),
        AudioKind::Wav(path) => {
            let file = wav::WavFile::create(path).map_err(|e| device.error(format!("cannot write: {e}")))?;
            Ok(Some(Box::new(file)))
        }
    }
}

//! The host's default sound card, by way of cpal.

use super::playback::{Player, Ring};
use crate::report;
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{Device, Error, ErrorKind, FromSample, SampleFormat, SizedSample, Stream, SupportedStreamConfig};
use emu_devices::audio::{AudioBackend, Frame, RATE};
use std::sync::Arc;

/// A sound card that plays.
pub struct SoundCard {
    ring: Arc<Ring>,
    /// It plays as long as this exists.
    _stream: Stream,
}

impl SoundCard {
    /// Opens the default sound card and has it play what comes.
    ///
    /// # Errors
    /// There is none, or it does not do what is needed: what the user is told.
    pub fn open() -> Result<SoundCard, String> {
        // ALSA itself would write several lines to stderr, and the error says it all.
        #[cfg(target_os = "linux")]
        let _quiet = alsa::Output::local_error_handler();
        SoundCard::open_default().map_err(|error| match error.kind() {
            ErrorKind::DeviceNotAvailable | ErrorKind::HostUnavailable => "the host has no sound card".into(),
            _ => format!("the sound card cannot be used: {error}"),
        })
    }

    fn open_default() -> Result<SoundCard, Error> {
        let missing = || Error::from(ErrorKind::DeviceNotAvailable);
        let device = cpal::default_host().default_output_device().ok_or_else(missing)?;
        let format = choose(&device)?;
        let ring = Ring::new();
        let stream = match format.sample_format() {
            SampleFormat::F32 => start::<f32>(&device, format, &ring),
            SampleFormat::I16 => start::<i16>(&device, format, &ring),
            SampleFormat::U16 => start::<u16>(&device, format, &ring),
            SampleFormat::I32 => start::<i32>(&device, format, &ring),
            SampleFormat::U8 => start::<u8>(&device, format, &ring),
            other => {
                let problem = format!("it only plays samples of the kind {other}");
                return Err(Error::with_message(ErrorKind::UnsupportedConfig, problem));
            }
        }?;
        stream.play()?;
        Ok(SoundCard { ring, _stream: stream })
    }
}

impl AudioBackend for SoundCard {
    fn write(&mut self, frames: &[Frame]) {
        self.ring.push(frames);
    }

    /// Time passes at the card too: it is silent by itself.
    fn silence(&mut self, _frames: u64) {}
}

/// Our own rate in stereo if the card has that, else what it likes best.
fn choose(device: &Device) -> Result<SupportedStreamConfig, Error> {
    let ours = device.supported_output_configs().ok().and_then(|configs| {
        let simple = |format| matches!(format, SampleFormat::F32 | SampleFormat::I16);
        let fits = |c: &cpal::SupportedStreamConfigRange| c.channels() == 2 && simple(c.sample_format());
        configs.filter(fits).find_map(|c| c.try_with_sample_rate(RATE))
    });
    ours.map_or_else(|| device.default_output_config(), Ok)
}

/// A stream of samples of type `T` that takes its frames from `ring`.
fn start<T: SizedSample + FromSample<f32>>(
    device: &Device,
    format: SupportedStreamConfig,
    ring: &Arc<Ring>,
) -> Result<Stream, Error> {
    let channels = usize::from(format.channels()).max(1);
    let mut player = Player::new(ring.clone(), format.sample_rate());
    let fill = move |samples: &mut [T], _: &cpal::OutputCallbackInfo| {
        player.prepare(samples.len() / channels);
        for frame in samples.chunks_mut(channels) {
            let [left, right] = player.next();
            match frame {
                [mono] => *mono = T::from_sample((left + right) / 2.0),
                [first, second, others @ ..] => {
                    (*first, *second) = (T::from_sample(left), T::from_sample(right));
                    others.fill(T::EQUILIBRIUM);
                }
                [] => {}
            }
        }
    };
    let mut told = false;
    let complain = move |error: Error| {
        // A gap, or another card in its place, is heard or not; the stream goes on.
        let minor = matches!(error.kind(), ErrorKind::Xrun | ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied);
        if !minor && !std::mem::replace(&mut told, true) {
            report::complain(&format!("sound card: {error}"));
        }
    };
    device.build_output_stream(format.config(), fill, complain, None)
}

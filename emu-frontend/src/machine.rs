//! The machine behind a configuration: board, processor, monitor, and what its end means for the exit status.

use crate::char::Characters;
use crate::cli::config::Config;
use crate::cli::error::StartError;
use crate::run::BootImages;

pub fn run(_config: &Config, _images: BootImages, _characters: Characters) -> Result<String, StartError> {
    Err(StartError::Other("the board is not wired yet".into()))
}

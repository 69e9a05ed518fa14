//! Compares two pictures, PPM or PNG: `compare-pictures A B [--tolerance N] [--diff FILE.ppm]`. Channels that differ by N (3 unless
//! told) or less are equal. Says how many pixels differ and where; the status is 0 where none does, 1 otherwise.

use emu_tests::picture::Picture;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: compare-pictures A B [--tolerance N] [--diff FILE.ppm]";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("compare-pictures: {message}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let (mut files, mut tolerance, mut diff) = (Vec::new(), 3, None);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument:?} needs a value; {USAGE}"));
        match argument.to_str() {
            Some("--tolerance") => {
                let text = value()?;
                tolerance = text.to_str().and_then(|text| text.parse().ok()).ok_or(format!("--tolerance {text:?}"))?;
            }
            Some("--diff") => diff = Some(PathBuf::from(value()?)),
            _ => files.push(PathBuf::from(argument)),
        }
    }
    let [a, b] = &files[..] else { return Err(USAGE.to_owned()) };
    let found = Picture::read(a)?.compare(&Picture::read(b)?, tolerance)?;
    if let Some(path) = diff {
        found.picture.write_ppm(&path)?;
    }
    match found.bounds {
        None => println!("equal within {tolerance}; the largest difference is {}", found.largest),
        Some([(left, top), (right, bottom)]) => println!(
            "{} pixels of {} differ by up to {}, between ({left}, {top}) and ({right}, {bottom})",
            found.pixels,
            found.picture.pixels.len(),
            found.largest
        ),
    }
    Ok(found.pixels == 0)
}

//! Sizes, progress, and where text goes.

use super::Failure;
use crate::cli::value::parse_size;
use std::io::Write as _;

/// A size as QEMU shows it: three digits and a binary unit.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    // The unit is one of which there are fewer than 1000.
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        v if v >= 99.95 || v == 0.0 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {}B", UNITS[unit])
}

/// A size on the command line, rounded up to a sector.
pub fn size(text: &str) -> Result<u64, Failure> {
    let bytes = parse_size(text, 1).filter(|bytes| bytes >> 62 == 0);
    let wrong = || {
        Failure::new(format!(
            "Invalid image size specified: '{text}'. You may use k, M, G, T, P or E suffixes for kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."
        ))
    };
    bytes.map(|bytes| bytes.next_multiple_of(512)).ok_or_else(wrong)
}

/// The progress of long work, on a line of its own on stdout, if it is wanted.
pub struct Progress {
    wanted: bool,
    total: u64,
    shown: Option<u64>,
}

impl Progress {
    /// Of `total` units.
    pub fn new(wanted: bool, total: u64) -> Progress {
        let mut progress = Progress { wanted, total, shown: None };
        progress.at(0);
        progress
    }

    /// `done` of them are done.
    pub fn at(&mut self, done: u64) {
        let hundredths =
            if self.total == 0 { 10_000 } else { (u128::from(done) * 10_000 / u128::from(self.total)) as u64 };
        if self.wanted && self.shown != Some(hundredths) {
            self.shown = Some(hundredths);
            let mut out = std::io::stdout().lock();
            // Nobody is left to tell if stdout is closed.
            let _ = write!(out, "    ({}.{:02}/100%)\r", hundredths / 100, hundredths % 100).and_then(|()| out.flush());
        }
    }

    /// All is done.
    pub fn end(mut self) {
        self.at(self.total);
        if self.wanted {
            crate::report::print("\n");
        }
    }
}

/// JSON as QEMU shows it: four spaces a level.
pub fn json(value: &serde_json::Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    // Writing to memory does not fail.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    String::from_utf8_lossy(&bytes).into_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_as_qemu_shows_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1000, "0.977 KiB"),
            (1024, "1 KiB"),
            (200_704, "196 KiB"),
            (1 << 20, "1 MiB"),
            (1_079_296, "1.03 MiB"),
            (10 << 20, "10 MiB"),
            (1023 << 20, "0.999 GiB"),
            (1536 << 20, "1.5 GiB"),
            (12_345_678_901, "11.5 GiB"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
    }
}

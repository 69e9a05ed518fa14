//! `-rtc` and `-icount`.

use super::error::StartError;
use super::value::{KeyValues, parse_number};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// What `-icount shift=auto` selects: 2 ns an instruction, about what the interpreter does in real time.
const AUTO_SHIFT: u8 = 1;
/// The largest shift: 1024 ns an instruction.
const MAX_SHIFT: u64 = 10;

/// The date with which the real-time clock starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rtc {
    /// The host's date in UTC.
    #[default]
    Utc,
    /// The host's date in its own time zone.
    LocalTime,
    /// A fixed date: seconds since 1970-01-01 as the clock's registers will show them.
    Date(i64),
}

impl Rtc {
    /// Seconds since 1970-01-01 00:00 that the clock shows now, and nanoseconds on top.
    pub fn now(self) -> (i64, u32) {
        let now = Timestamp::now();
        let nanos = now.subsec_nanosecond().unsigned_abs();
        match self {
            Rtc::Utc => (now.as_second(), nanos),
            Rtc::LocalTime => {
                let local: Zoned = now.to_zoned(TimeZone::system());
                (now.as_second() + i64::from(local.offset().seconds()), nanos)
            }
            Rtc::Date(seconds) => (seconds, 0),
        }
    }
}

/// Virtual time by instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icount {
    /// log2 of nanoseconds for each instruction.
    pub shift: u8,
    /// A halted guest waits in real time for its next deadline.
    pub sleep: bool,
}

/// Checks `-rtc [base=utc|localtime|DATE][,clock=...][,driftfix=none]`.
///
/// # Errors
/// A date that is none, or a clock that is not implemented.
pub fn parse_rtc(values: &[String]) -> Result<Rtc, StartError> {
    let mut rtc = Rtc::default();
    for text in values {
        let mut v = KeyValues::parse("rtc", text, "base");
        match v.take("base")?.as_deref() {
            None => {}
            Some("utc") => rtc = Rtc::Utc,
            Some("localtime") => rtc = Rtc::LocalTime,
            Some(date) => {
                let seconds = parse_date(date);
                let expected = "expected base=utc, localtime, 2006-06-17T16:01:21 or 2006-06-17";
                rtc = Rtc::Date(seconds.ok_or_else(|| v.error(expected))?);
            }
        }
        // The clock counts virtual time from its base, which is the host's time as long as the machine is not stopped.
        match v.take("clock")?.as_deref() {
            None | Some("host" | "vm") => {}
            Some(other) => return Err(v.error(format!("'clock={other}' is not implemented; implemented: host, vm"))),
        }
        match v.take("driftfix")?.as_deref() {
            None | Some("none") => {}
            Some(other) => return Err(v.error(format!("'driftfix={other}' is not implemented; implemented: none"))),
        }
        v.finish()?;
    }
    Ok(rtc)
}

fn parse_date(text: &str) -> Option<i64> {
    let date: DateTime = text.parse().ok()?;
    // The clock has four decimal digits for the year.
    if !(1970..=9999).contains(&date.year()) {
        return None;
    }
    date.to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp().as_second())
}

/// Checks `-icount [shift=]N|auto[,align=off][,sleep=on|off]`.
///
/// # Errors
/// A shift out of range, or a feature that is not implemented.
pub fn parse_icount(values: &[String]) -> Result<Option<Icount>, StartError> {
    let mut icount = None;
    for text in values {
        let mut v = KeyValues::parse("icount", text, "shift");
        let shift = match v.take("shift")?.as_deref() {
            None | Some("auto") => AUTO_SHIFT,
            Some(word) => match parse_number(word) {
                Some(n @ 0..=MAX_SHIFT) => n as u8,
                _ => return Err(v.error(format!("the shift must be auto or from 0 to {MAX_SHIFT}"))),
            },
        };
        if v.take_bool("align")? == Some(true) {
            return Err(v.error("'align=on' is not implemented; nearest is align=off"));
        }
        let sleep = v.take_bool("sleep")?.unwrap_or(true);
        if v.take("rr")?.is_some() || v.take("rrfile")?.is_some() {
            return Err(v.error("record and replay are not implemented; nearest is shift=N"));
        }
        v.finish()?;
        icount = Some(Icount { shift, sleep });
    }
    Ok(icount)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtc(text: &str) -> Result<Rtc, String> {
        parse_rtc(&[text.to_string()]).map_err(|e| e.line())
    }

    fn icount(text: &str) -> Result<Option<Icount>, String> {
        parse_icount(&[text.to_string()]).map_err(|e| e.line())
    }

    #[test]
    fn rtc_bases_are_read_and_nonsense_is_refused() {
        assert_eq!(rtc("base=utc"), Ok(Rtc::Utc));
        assert_eq!(rtc("base=localtime,clock=vm"), Ok(Rtc::LocalTime));
        assert_eq!(rtc("base=2006-06-17T16:01:21"), Ok(Rtc::Date(1_150_560_081)));
        assert_eq!(rtc("base=2006-06-17"), Ok(Rtc::Date(1_150_502_400)));
        for text in ["base=foo", "base=2006-13-01", "base=", "clock=rt", "driftfix=slew", "foo=1", "base=1800-01-01"] {
            assert!(rtc(text).unwrap_err().starts_with("-rtc "), "{text}");
        }
    }

    #[test]
    fn icount_shifts_are_read_and_what_is_missing_is_refused() {
        assert_eq!(icount("7"), Ok(Some(Icount { shift: 7, sleep: true })));
        assert_eq!(icount("shift=0,sleep=off,align=off"), Ok(Some(Icount { shift: 0, sleep: false })));
        assert_eq!(icount("shift=auto"), Ok(Some(Icount { shift: AUTO_SHIFT, sleep: true })));
        assert_eq!(parse_icount(&[]), Ok(None));
        for text in ["11", "foo", "shift=-1", "1,align=on", "1,rr=record"] {
            assert!(icount(text).is_err(), "{text}");
        }
    }
}

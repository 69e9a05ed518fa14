//! The calendar of the MC146818: a date and time from seconds and back, in the encodings of Register B.
//!
//! Follows the Motorola MC146818 data sheet, "Time, Calendar and Alarm Locations". Dates are of the proleptic Gregorian
//! calendar; seconds are counted from 1970-01-01 00:00:00 on the guest's clock, whatever its time zone.

/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// Register B: how numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// DM: binary instead of BCD.
    pub binary: bool,
    /// 24/12: hours 0 to 23 instead of 1 to 12 with PM in bit 7.
    pub hours_24: bool,
}

const PM: u8 = 0x80;

impl Encoding {
    /// A number of 0 to 99.
    pub fn encode(self, n: u8) -> u8 {
        if self.binary { n } else { ((n / 10 % 10) << 4) | (n % 10) }
    }

    /// The number that a register holds. Digits beyond 9 count for what they are.
    pub fn decode(self, value: u8) -> u8 {
        if self.binary { value } else { (value >> 4) * 10 + (value & 15) }
    }

    /// An hour of 0 to 23.
    pub fn encode_hour(self, hour: u8) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let twelve = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(twelve) | if hour >= 12 { PM } else { 0 }
    }

    /// The hour that a register holds.
    pub fn decode_hour(self, value: u8) -> u8 {
        if self.hours_24 {
            return self.decode(value);
        }
        self.decode(value & !PM) % 12 + if value & PM != 0 { 12 } else { 0 }
    }
}

/// A date and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// 0 to 9999.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl Calendar {
    /// The calendar at `seconds` from 1970.
    pub fn from_seconds(seconds: i64) -> Calendar {
        let (days, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Years begin in March here, so that the leap day is the last; day 0 is 0000-03-01.
        let z = days + 719_468;
        let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Calendar {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: month as u8,
            day: (of_year - (153 * shifted + 2) / 5 + 1) as u8,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
        }
    }

    /// Seconds from 1970. Fields out of range carry into the next.
    pub fn to_seconds(self) -> i64 {
        let month = i64::from(self.month.clamp(1, 12));
        let year = self.year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(self.day) - 1;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        let days = era * 146_097 + of_era - 719_468;
        days * DAY + i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }
}

/// The day of the week at `seconds` from 1970: 0 for Sunday to 6.
pub fn weekday(seconds: i64) -> u8 {
    (seconds.div_euclid(DAY) + 4).rem_euclid(7) as u8
}

/// An alarm time; `None` for "don't care".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// 0 to 23.
    pub hour: Option<u8>,
    /// 0 to 59.
    pub minute: Option<u8>,
    /// 0 to 59.
    pub second: Option<u8>,
}

impl Alarm {
    /// Seconds from `seconds` to the next match after it, at most a day; `None` if the alarm names no time of day.
    pub fn next_after(self, seconds: i64) -> Option<i64> {
        let matches = |field: Option<u8>, n: i64| field.is_none_or(|f| i64::from(f) == n);
        let start = seconds.rem_euclid(DAY);
        let mut delta = 1;
        while delta <= DAY {
            let at = (start + delta) % DAY;
            if !matches(self.hour, at / 3600) {
                delta += 3600 - at % 3600;
            } else if !matches(self.minute, at / 60 % 60) {
                delta += 60 - at % 60;
            } else if !matches(self.second, at % 60) {
                delta += 1;
            } else {
                return Some(delta);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_known_dates_convert_both_ways() {
        for (seconds, year, month, day) in [
            (0, 1970, 1, 1),
            (951_782_400, 2000, 2, 29),
            (4_107_542_400, 2100, 3, 1),
            (-86_400, 1969, 12, 31),
            (1_795_392_000, 2026, 11, 23),
        ] {
            let c = Calendar::from_seconds(seconds);
            assert_eq!((c.year, c.month, c.day), (year, month, day));
            assert_eq!(c.to_seconds(), seconds);
        }
        assert_eq!(weekday(0), 4);
        assert_eq!(weekday(1_795_392_000), 1);
    }

    #[test]
    fn calendar_every_day_of_four_centuries_round_trips() {
        for day in -10_957..135_140 {
            let seconds = day * DAY + 86_399;
            assert_eq!(Calendar::from_seconds(seconds).to_seconds(), seconds);
        }
    }

    #[test]
    fn encoding_hours_in_12_and_24() {
        let (bcd12, bcd24) = (Encoding { binary: false, hours_24: false }, Encoding { binary: false, hours_24: true });
        let bin12 = Encoding { binary: true, hours_24: false };
        assert_eq!(bcd12.encode_hour(0), 0x12);
        assert_eq!(bcd12.encode_hour(12), 0x92);
        assert_eq!(bcd12.encode_hour(23), 0x91);
        assert_eq!(bin12.encode_hour(13), 0x81);
        assert_eq!(bcd24.encode_hour(23), 0x23);
        for e in [bcd12, bcd24, bin12] {
            for h in 0..24 {
                assert_eq!(e.decode_hour(e.encode_hour(h)), h);
            }
        }
    }

    #[test]
    fn alarm_next_match_agrees_with_a_search() {
        let mut random = fastrand::Rng::with_seed(146_818);
        for _ in 0..300 {
            let mut field = |end: u8| random.bool().then(|| random.u8(0..end));
            let alarm = Alarm { hour: field(25), minute: field(60), second: field(60) };
            let from = random.i64(0..DAY);
            let hit = |at: i64| {
                let c = Calendar::from_seconds(at);
                alarm.hour.is_none_or(|h| h == c.hour)
                    && alarm.minute.is_none_or(|m| m == c.minute)
                    && alarm.second.is_none_or(|s| s == c.second)
            };
            assert_eq!(alarm.next_after(from), (1..=DAY).find(|d| hit(from + d)));
        }
    }
}

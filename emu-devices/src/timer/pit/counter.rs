//! One counter of the 8254, advanced by any number of clocks at once.
//!
//! Follows the Intel 8254 data sheet (231164-005), Mode Definitions. Time is counted in CLK pulses; what a write or a
//! GATE edge causes "on the next CLK pulse" happens in the first clock advanced after it.
//!
//! ```text
//!  CPU --> count register (CR) --load--> counting element (CE) --> OUT
//!                                 ^ next CLK after a write (modes 0, 2, 3, 4), a trigger (1, 2, 3, 5),
//!                                   or the end of a cycle (2, 3)
//! ```

use serde::{Deserialize, Serialize};

/// The counter modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Mode 0.
    InterruptOnTerminalCount,
    /// Mode 1.
    HardwareRetriggerableOneShot,
    /// Mode 2.
    RateGenerator,
    /// Mode 3.
    SquareWave,
    /// Mode 4.
    SoftwareTriggeredStrobe,
    /// Mode 5.
    HardwareTriggeredStrobe,
}

/// Which bytes of a count are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadWrite {
    LeastSignificant,
    MostSignificant,
    Both,
}

/// One counter. Its default is a counter that has not been programmed: it stands still with OUT low.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The low six bits of the control word: RW1, RW0, M2, M1, M0, BCD.
    control: u8,
    /// The GATE input.
    gate: bool,
    /// The OUT output.
    out: bool,
    /// Count register as written; in BCD if the control word says so.
    count_register: u16,
    /// The least significant byte of a count whose other byte has not come yet.
    low_byte: Option<u8>,
    /// A whole count has been written since the control word.
    programmed: bool,
    /// CE has been loaded since the control word.
    loaded: bool,
    /// CE is loaded at the next CLK: a count was written.
    load: bool,
    /// CE is loaded at the next CLK: GATE has risen.
    trigger: bool,
    /// The terminal count is still ahead (modes 0, 1, 4, 5).
    armed: bool,
    /// Counting element as a plain binary number below the modulus; in mode 3 the clocks left in this half-cycle.
    count: u32,
    /// Mode 3: the count in effect is odd.
    odd: bool,
    /// CR holds what CE has not got.
    null_count: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// The next read of a two-byte count is its most significant byte.
    read_high: bool,
}

impl Default for Counter {
    fn default() -> Counter {
        Counter {
            control: 0x30,
            gate: true,
            out: false,
            count_register: 0,
            low_byte: None,
            programmed: false,
            loaded: false,
            load: false,
            trigger: false,
            armed: false,
            count: 0,
            odd: false,
            null_count: true,
            latched_count: None,
            latched_status: None,
            read_high: false,
        }
    }
}

impl Counter {
    /// An unprogrammed counter with GATE at `gate`.
    pub fn with_gate(gate: bool) -> Counter {
        Counter { gate, ..Counter::default() }
    }

    /// The OUT output.
    pub fn out(&self) -> bool {
        self.out
    }

    /// Brings a deserialised counter within its bounds.
    pub fn sanitise(&mut self) {
        self.control &= 0x3f;
        self.count %= 0x1_0001;
    }

    /// The mode of the last control word.
    pub fn mode(&self) -> Mode {
        match (self.control >> 1) & 7 {
            0 => Mode::InterruptOnTerminalCount,
            1 => Mode::HardwareRetriggerableOneShot,
            2 | 6 => Mode::RateGenerator,
            3 | 7 => Mode::SquareWave,
            4 => Mode::SoftwareTriggeredStrobe,
            _ => Mode::HardwareTriggeredStrobe,
        }
    }

    fn read_write(&self) -> ReadWrite {
        match self.control >> 4 {
            1 => ReadWrite::LeastSignificant,
            2 => ReadWrite::MostSignificant,
            _ => ReadWrite::Both,
        }
    }

    fn modulus(&self) -> u32 {
        if self.control & 1 != 0 { 10_000 } else { 0x1_0000 }
    }

    /// The initial count, 1 to the modulus. A count of 1 is illegal in modes 2 and 3 and taken as 2.
    fn initial(&self) -> u32 {
        let raw = u32::from(self.count_register);
        let n = if self.control & 1 != 0 {
            (raw >> 12) * 1000 + (raw >> 8 & 15) * 100 + (raw >> 4 & 15) * 10 + (raw & 15)
        } else {
            raw
        };
        match (n, self.mode()) {
            (0, _) => self.modulus(),
            (1, Mode::RateGenerator | Mode::SquareWave) => 2,
            _ => n.min(self.modulus()),
        }
    }

    /// Clocks until CE reaches zero.
    fn clocks_to_zero(&self) -> u32 {
        if self.count == 0 { self.modulus() } else { self.count }
    }

    /// A control word for this counter, RW bits not 00.
    pub fn write_control(&mut self, control: u8) {
        *self = Counter { control: control & 0x3f, gate: self.gate, count: self.count, ..Counter::default() };
        self.out = self.mode() != Mode::InterruptOnTerminalCount;
    }

    /// A byte written to the counter's port.
    pub fn write_count(&mut self, value: u8) {
        let count = match self.read_write() {
            ReadWrite::LeastSignificant => u16::from(value),
            ReadWrite::MostSignificant => u16::from(value) << 8,
            ReadWrite::Both => match self.low_byte.take() {
                Some(low) => u16::from_le_bytes([low, value]),
                None => {
                    self.low_byte = Some(value);
                    if self.mode() == Mode::InterruptOnTerminalCount {
                        // "Writing the first byte disables counting. OUT is set low immediately."
                        self.loaded = false;
                        self.load = false;
                        self.out = false;
                    }
                    return;
                }
            },
        };
        self.count_register = count;
        self.programmed = true;
        self.null_count = true;
        match self.mode() {
            Mode::InterruptOnTerminalCount => {
                self.out = false;
                self.load = true;
            }
            Mode::SoftwareTriggeredStrobe => self.load = true,
            Mode::RateGenerator | Mode::SquareWave => self.load |= !self.loaded,
            Mode::HardwareRetriggerableOneShot | Mode::HardwareTriggeredStrobe => {}
        }
    }

    /// Drives GATE.
    pub fn set_gate(&mut self, gate: bool) {
        let rose = gate && !self.gate;
        self.gate = gate;
        match self.mode() {
            Mode::InterruptOnTerminalCount | Mode::SoftwareTriggeredStrobe => {}
            Mode::HardwareRetriggerableOneShot | Mode::HardwareTriggeredStrobe => {
                self.trigger |= rose && self.programmed;
            }
            Mode::RateGenerator | Mode::SquareWave => {
                if !gate {
                    self.out = true;
                    self.trigger = false;
                }
                self.trigger |= rose && self.programmed;
            }
        }
    }

    /// Counter Latch Command, or Read-Back with COUNT.
    pub fn latch_count(&mut self) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.displayed());
            self.read_high = false;
        }
    }

    /// Read-Back with STATUS.
    pub fn latch_status(&mut self) {
        if self.latched_status.is_none() {
            self.latched_status = Some(u8::from(self.out) << 7 | u8::from(self.null_count) << 6 | self.control);
        }
    }

    /// A byte read from the counter's port.
    pub fn read(&mut self) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let count = self.latched_count.unwrap_or_else(|| self.displayed());
        let [low, high] = count.to_le_bytes();
        let (value, last) = match self.read_write() {
            ReadWrite::LeastSignificant => (low, true),
            ReadWrite::MostSignificant => (high, true),
            ReadWrite::Both => {
                let was_high = self.read_high;
                self.read_high = !was_high;
                (if was_high { high } else { low }, was_high)
            }
        };
        if last {
            self.latched_count = None;
        }
        value
    }

    /// CE as the CPU sees it.
    fn displayed(&self) -> u16 {
        let n = match self.mode() {
            // CE counts down by two; an odd count's high half ends with one clock at zero.
            Mode::SquareWave if self.loaded => 2 * self.count.saturating_sub(u32::from(self.odd && self.out)),
            _ => self.count,
        } % self.modulus();
        if self.control & 1 == 0 {
            return n as u16;
        }
        ((n / 1000 % 10) << 12 | (n / 100 % 10) << 8 | (n / 10 % 10) << 4 | (n % 10)) as u16
    }

    /// Clocks in the half-cycle of mode 3 that has OUT at `out`.
    fn half(&self, out: bool) -> u32 {
        self.initial().div_ceil(2) - if out { 0 } else { self.initial() % 2 }
    }

    fn load_half(&mut self) {
        self.count = self.half(self.out);
        self.odd = !self.initial().is_multiple_of(2);
        self.null_count = false;
    }

    /// The CLK pulse that loads CE. Whether OUT rose.
    fn load_element(&mut self) -> bool {
        let was = self.out;
        self.load = false;
        self.trigger = false;
        self.loaded = true;
        self.armed = true;
        self.null_count = false;
        self.count = self.initial() % self.modulus();
        match self.mode() {
            Mode::InterruptOnTerminalCount | Mode::HardwareRetriggerableOneShot => self.out = false,
            Mode::RateGenerator | Mode::SoftwareTriggeredStrobe | Mode::HardwareTriggeredStrobe => self.out = true,
            Mode::SquareWave => {
                self.out = true;
                self.load_half();
            }
        }
        self.out && !was
    }

    fn counts(&self) -> bool {
        self.loaded
            && match self.mode() {
                Mode::HardwareRetriggerableOneShot | Mode::HardwareTriggeredStrobe => true,
                _ => self.gate,
            }
    }

    /// Clocks until OUT changes or CE is loaded, while counting; `None` for never.
    fn clocks_to_event(&self) -> Option<u32> {
        match self.mode() {
            Mode::InterruptOnTerminalCount | Mode::HardwareRetriggerableOneShot => {
                self.armed.then(|| self.clocks_to_zero())
            }
            Mode::RateGenerator => Some(if self.out { self.clocks_to_zero() - 1 } else { 1 }.max(1)),
            Mode::SquareWave => Some(self.count.max(1)),
            Mode::SoftwareTriggeredStrobe | Mode::HardwareTriggeredStrobe => {
                if !self.out {
                    Some(1)
                } else {
                    self.armed.then(|| self.clocks_to_zero())
                }
            }
        }
    }

    /// The event of [`Counter::clocks_to_event`]. Whether OUT rose.
    fn event(&mut self) -> bool {
        match self.mode() {
            Mode::InterruptOnTerminalCount | Mode::HardwareRetriggerableOneShot => {
                self.count = 0;
                self.armed = false;
                self.out = true;
            }
            Mode::RateGenerator => {
                self.out = !self.out;
                if self.out {
                    self.count = self.initial() % self.modulus();
                    self.null_count = false;
                } else {
                    self.count = 1;
                }
            }
            Mode::SquareWave => {
                self.out = !self.out;
                self.load_half();
            }
            Mode::SoftwareTriggeredStrobe | Mode::HardwareTriggeredStrobe => {
                self.out = !self.out;
                self.count = if self.out { self.modulus() - 1 } else { 0 };
                self.armed = false;
            }
        }
        self.out
    }

    /// Lets `clocks` CLK pulses pass; how often OUT rose.
    pub fn advance(&mut self, mut clocks: u64) -> u64 {
        let mut rises = 0;
        while clocks > 0 {
            if self.load || self.trigger {
                clocks -= 1;
                rises += u64::from(self.load_element());
                continue;
            }
            if !self.counts() {
                break;
            }
            match self.clocks_to_event() {
                Some(n) if u64::from(n) <= clocks => {
                    clocks -= u64::from(n);
                    rises += u64::from(self.event());
                    if matches!(self.mode(), Mode::RateGenerator | Mode::SquareWave) {
                        // Whole periods end where they began.
                        let period = u64::from(self.initial());
                        rises += clocks / period;
                        clocks %= period;
                    }
                }
                _ => {
                    self.count_down(clocks);
                    break;
                }
            }
        }
        rises
    }

    fn count_down(&mut self, clocks: u64) {
        let modulus = self.modulus();
        let count = u64::from(self.count) + u64::from(modulus) - clocks % u64::from(modulus);
        self.count = (count % u64::from(modulus)) as u32;
    }

    /// Clocks after which OUT may have changed, at least 1; `None` for never, if nobody touches the counter.
    pub fn clocks_to_change(&self) -> Option<u64> {
        if self.load || self.trigger {
            return Some(1);
        }
        self.counts().then(|| self.clocks_to_event().map(|n| u64::from(n.max(1)))).flatten()
    }

    /// The clocks of a period of OUT in the modes that repeat, while counting.
    pub fn period(&self) -> Option<u32> {
        let repeats = matches!(self.mode(), Mode::RateGenerator | Mode::SquareWave);
        (repeats && self.counts()).then(|| self.initial())
    }

    /// Clocks until OUT rises next if nobody touches the counter; `None` for never.
    pub fn clocks_to_rise(&self) -> Option<u64> {
        if self.load || self.trigger {
            let mut loaded = *self;
            return if loaded.load_element() { Some(1) } else { loaded.clocks_to_rise().map(|n| n + 1) };
        }
        if !self.counts() {
            return None;
        }
        let event = u64::from(self.clocks_to_event()?);
        Some(match self.mode() {
            Mode::InterruptOnTerminalCount | Mode::HardwareRetriggerableOneShot => event,
            Mode::RateGenerator | Mode::SoftwareTriggeredStrobe | Mode::HardwareTriggeredStrobe if self.out => {
                event + 1
            }
            Mode::SquareWave if self.out => event + u64::from(self.half(false)),
            _ => event,
        })
    }
}

//! `emu dev lockstep`: the fast interpreter against itself in single steps, from the same start, in deterministic time.
//!
//! Both machines are compared at checkpoints, register by register; at the first difference both start anew, and a binary
//! search finds after how many instructions they part. Only the fast machine's whole blocks run fast, so that the search
//! ends at the end of the block that is to blame. Deliberately absent: comparison of memory, whose differences show in
//! registers sooner or later.

use super::{configuration, number};
use crate::char::Characters;
use crate::cli::cards::CardSpec;
use crate::cli::chardev::CharKind;
use crate::cli::config::Config;
use crate::cli::error::StartError;
use crate::cli::time::Icount;
use crate::machine;
use crate::net::Networks;
use crate::run::{BootImages, read_images};
use clap::Args;
use emu_core::clock::ClockMode;
use emu_core::cpu::segment::Seg;
use emu_core::device::{Request, ResetKind};
use emu_core::exec::Vcpu;
use emu_devices::board::machine::{Machine, Pause, Processor};
use emu_devices::board::pc::PcError;
use std::ffi::OsString;
use std::fmt::Write;

/// What to run and how far.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Stop after this many instructions
    #[arg(long, default_value = "10000000", value_parser = number)]
    instructions: u64,
    /// Compare each time that this many have run
    #[arg(long, default_value = "10000", value_parser = number)]
    every: u64,
    /// The emulator's ordinary options; character devices are replaced by null
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "OPTIONS")]
    options: Vec<OsString>,
}

/// Both machines of a comparison.
struct Pair<'a> {
    config: &'a Config,
    fast: Machine<Vcpu, PcError>,
    slow: Machine<Vcpu, PcError>,
}

/// The first difference, or how far both agree.
///
/// # Errors
/// The machine cannot be built. A difference, too, so that scripts see it.
pub fn run(arguments: &Arguments) -> Result<String, StartError> {
    let config = repeatable(&arguments.options)?;
    let images = read_images(&config.boot, config.memory)?;
    let every = arguments.every.max(1);
    let mut pair = Pair::new(&config, &images)?;
    let mut agreed = 0;
    while agreed < arguments.instructions {
        let target = (agreed + every).min(arguments.instructions);
        let running = pair.advance(target)?;
        if pair.difference().is_some() {
            let apart = bisect(&config, &images, agreed, target)?;
            return Err(StartError::Other(apart));
        }
        agreed = target;
        if !running {
            return Ok(format!("both machines end alike before {agreed} instructions\n"));
        }
    }
    Ok(format!("both machines agree for {agreed} instructions\n"))
}

/// The machine that the emulator's ordinary options describe, so that it runs alike each time.
pub fn repeatable(options: &[OsString]) -> Result<Config, StartError> {
    let mut config = configuration(options)?;
    config.icount.get_or_insert(Icount { shift: 0, sleep: false });
    config.chardevs.values_mut().for_each(|named| named.spec.kind = CharKind::Null);
    // What comes from a network comes when it comes.
    config.devices.cards.iter_mut().for_each(CardSpec::unplug);
    // All machines must see the same date.
    config.rtc = crate::cli::time::Rtc::Date(config.rtc.now().0);
    Ok(config)
}

/// A machine just powered on.
pub fn power_on(config: &Config, images: &BootImages) -> Result<Machine<Vcpu, PcError>, StartError> {
    let mut characters = Characters::open(&config.chardevs, None)?;
    let mut machine = machine::build(config, images.clone(), &mut characters, &mut Networks::default())?.machine;
    machine.reset(ResetKind::Cold).map_err(|e| machine::refusal(config, e))?;
    Ok(machine)
}

/// The least number of instructions after which fresh machines differ, which agree at `low` and differ at `high`.
fn bisect(config: &Config, images: &BootImages, mut low: u64, mut high: u64) -> Result<String, StartError> {
    let mut report = String::new();
    while high - low > 1 || report.is_empty() {
        let middle = if high - low > 1 { low + (high - low) / 2 } else { high };
        let mut pair = Pair::new(config, images)?;
        pair.advance(low)?;
        let rip = pair.slow.processor().state.rip;
        pair.advance(middle)?;
        match pair.difference() {
            Some(text) => {
                high = middle;
                report = format!("the machines part between instructions {low} (RIP {rip:#x}) and {high}; {text}");
            }
            None if middle == high => {
                return Ok(format!("the machines part before instruction {high}, not reproducibly"));
            }
            None => low = middle,
        }
    }
    Ok(report)
}

impl<'a> Pair<'a> {
    fn new(config: &'a Config, images: &BootImages) -> Result<Pair<'a>, StartError> {
        let mut pair = Pair { config, fast: power_on(config, images)?, slow: power_on(config, images)? };
        pair.slow.processor().single_steps = true;
        Ok(pair)
    }

    /// Runs both until `target` instructions have retired; `false` if the guest has ended before.
    fn advance(&mut self, target: u64) -> Result<bool, StartError> {
        let fast = advance(&mut self.fast, target).map_err(|e| machine::refusal(self.config, e))?;
        let slow = advance(&mut self.slow, target).map_err(|e| machine::refusal(self.config, e))?;
        Ok(fast && slow)
    }

    /// What differs between the processors.
    fn difference(&mut self) -> Option<String> {
        let fast = portrait(self.fast.processor());
        let slow = portrait(self.slow.processor());
        let mut text = String::new();
        for (fast, slow) in fast.iter().zip(&slow).filter(|(fast, slow)| fast != slow) {
            // Writing to a string cannot fail.
            let _ = write!(text, "fast {fast} | slow {slow}; ");
        }
        let (mut fast, mut slow) = (0, 0);
        self.fast.bus().clock(|clock| fast = clock.instructions());
        self.slow.bus().clock(|clock| slow = clock.instructions());
        if fast != slow {
            let _ = write!(text, "instructions: fast {fast} | slow {slow}; ");
        }
        (!text.is_empty()).then(|| text.trim_end_matches("; ").to_string())
    }
}

/// Everything of a processor that is compared, as text.
pub fn portrait(cpu: &Vcpu) -> Vec<String> {
    let s = &cpu.state;
    let mut all: Vec<String> = (0..16).map(|n| format!("R{n}={:x}", s.regs.gpr(n))).collect();
    all.push(format!("RIP={:x}", s.rip));
    all.push(format!("RFLAGS={:x}", s.rflags()));
    all.extend(Seg::ALL.iter().map(|seg| format!("{:?}", s.segment(*seg))));
    all.push(format!("CR0={:x} CR2={:x} CR3={:x} CR4={:x} CPL={}", s.cr0, s.cr2, s.cr3, s.cr4, s.cpl));
    all.push(format!("{:?}", s.msrs));
    all.push(format!("{:?}", s.fpu));
    all.push(format!("MXCSR={:x}", s.mxcsr));
    all.extend(s.xmm.iter().enumerate().map(|(n, xmm)| format!("XMM{n}={:032x}", u128::from(*xmm))));
    all
}

/// As the machine's own loop in deterministic time, but up to an exact number of instructions; `false` if the guest has
/// ended before.
pub fn advance(machine: &mut Machine<Vcpu, PcError>, target: u64) -> Result<bool, PcError> {
    let bus = machine.bus().clone();
    loop {
        for request in bus.take_outcomes() {
            match request {
                Request::Reset => machine.reset(ResetKind::Warm)?,
                Request::PowerOff | Request::Exit(_) => return Ok(false),
                _ => {}
            }
        }
        let deadline = bus.poll();
        let (done, now, mode) = bus.clock(|clock| (clock.instructions(), clock.now(), clock.mode()));
        if done >= target {
            return Ok(true);
        }
        let shift = if let ClockMode::Icount { shift } = mode { shift } else { 0 };
        let left = deadline.map_or(u64::MAX, |at| at.nanos_since(now)).div_ceil(1 << shift);
        let budget = left.clamp(1, target - done);
        bus.set_horizon(Some(now.plus_nanos(budget << shift)));
        let pause = Processor::run(machine.processor(), budget);
        let executed = Processor::executed(machine.processor());
        bus.clock(|clock| clock.retire(executed));
        match pause {
            Pause::Budget | Pause::Requested => {}
            Pause::Halted => match bus.next_deadline() {
                Some(at) => bus.clock(|clock| clock.skip_to(at)),
                None => return Ok(false),
            },
            Pause::TripleFault => return Ok(false),
        }
    }
}

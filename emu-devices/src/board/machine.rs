//! The loop that runs a machine: devices at their deadlines, the vCPU in between, sleep when there is nothing to do.
//!
//! ```text
//!   commands -> poll devices -> vCPU until the next deadline -> resets, power-off, exit -+
//!      ^                              | halted: sleep until deadline or input            |
//!      +---------------------------------------------------------------------------------+
//! ```
//! In real time the vCPU runs a bounded number of instructions between looks at the clock. In deterministic time
//! (`-icount`) it runs exactly up to the next deadline, so that two runs with the same input are the same bit for bit.

use super::boot_state::BootState;
use emu_core::bus::{Bus, Notifier};
use emu_core::clock::{ClockMode, Instant};
use emu_core::device::{Request, ResetKind};
use emu_core::irq::CpuPins;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Instructions between looks at the host's clock: a fraction of a millisecond.
const REAL_TIME_QUANTUM: u64 = 32_768;
/// Instructions after which commands are looked at in deterministic time.
const ICOUNT_QUANTUM: u64 = 1 << 20;
/// The longest sleep. Nothing depends on it.
const FOREVER: Duration = Duration::from_secs(3600);
/// The end of virtual time.
const NEVER: Instant = Instant(u64::MAX);

/// Why a processor has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// The budget is used up.
    Budget,
    /// [`CpuPins::EXIT`] was raised.
    Requested,
    /// HLT or its like, and nothing pending that would wake it.
    Halted,
    /// A fault while a double fault was delivered.
    TripleFault,
}

/// A processor as the machine drives it.
pub trait Processor {
    /// Executes at most `budget` instructions, at least one unless halted or asked to come back.
    fn run(&mut self, budget: u64) -> Pause;
    /// How many instructions the last [`Processor::run`] has executed.
    fn executed(&self) -> u64;
    /// Power-on or RESET#.
    fn reset(&mut self);
    /// Takes on a loader's state after a reset.
    fn start(&mut self, state: &BootState);
}

/// What a machine does after each reset: runs firmware from the reset vector, or loads a kernel.
pub trait Boot<E>: Send {
    /// Prepares memory and devices; the state to start in, or `None` for the reset vector.
    ///
    /// # Errors
    /// What is to be booted cannot be.
    fn boot(&mut self, bus: &Bus) -> Result<Option<BootState>, E>;
}

impl<E, F: FnMut(&Bus) -> Result<Option<BootState>, E> + Send> Boot<E> for F {
    fn boot(&mut self, bus: &Bus) -> Result<Option<BootState>, E> {
        self(bus)
    }
}

/// How a machine reacts to its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineOptions {
    /// A guest reset ends the run.
    pub no_reboot: bool,
    /// A guest power-off pauses instead of ending the run.
    pub no_shutdown: bool,
    /// Start paused.
    pub paused: bool,
    /// Deterministic time: a halted guest also waits in real time for its next deadline.
    pub icount_sleep: bool,
}

impl Default for MachineOptions {
    fn default() -> MachineOptions {
        MachineOptions { no_reboot: false, no_shutdown: false, paused: false, icount_sleep: true }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered off.
    PowerOff,
    /// The guest reset the machine, which was not to be.
    Reset,
    /// The guest's processor shut down, and the machine was not to be reset.
    TripleFault,
    /// The guest chose this exit status.
    Exit(i32),
    /// Somebody outside said so.
    Quit,
}

/// Whether the guest runs and, if not, why; QEMU's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It runs.
    Running,
    /// It was stopped.
    Paused,
    /// It has not begun to run since the machine was switched on or reset.
    Prelaunch,
    /// It has powered off, and the machine is to stay.
    Shutdown,
    /// A drive's request has failed, and waits to be tried again.
    IoError,
}

impl RunState {
    /// QEMU's word for it.
    pub fn name(self) -> &'static str {
        match self {
            RunState::Running => "running",
            RunState::Paused => "paused",
            RunState::Prelaunch => "prelaunch",
            RunState::Shutdown => "shutdown",
            RunState::IoError => "io-error",
        }
    }
}

/// What happens to a machine, for those who watch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineEvent {
    /// The guest does not run any more.
    Stop,
    /// The guest runs again.
    Resume,
    /// The guest has reset the machine.
    Reset,
    /// The guest has powered off.
    PowerOff,
    /// The guest asked for a reset, which ends the run.
    LastReset,
}

/// Who is told of [`MachineEvent`]s, on the machine's thread.
type Observer = Box<dyn FnMut(MachineEvent) + Send>;

/// What outsiders have the machine's thread do between two instructions.
type Command<P, E> = Box<dyn FnOnce(&mut Machine<P, E>) + Send>;

/// The handle by which other threads steer a machine.
pub struct Control<P, E> {
    commands: Sender<Command<P, E>>,
    notifier: Notifier,
    pins: Arc<CpuPins>,
}

impl<P, E> Clone for Control<P, E> {
    fn clone(&self) -> Control<P, E> {
        Control { commands: self.commands.clone(), notifier: self.notifier.clone(), pins: self.pins.clone() }
    }
}

impl<P: 'static, E: 'static> Control<P, E> {
    /// Has the machine's thread run `f` soon; `false` if the machine is gone.
    pub fn post(&self, f: impl FnOnce(&mut Machine<P, E>) + Send + 'static) -> bool {
        let sent = self.commands.send(Box::new(f)).is_ok();
        self.pins.raise(CpuPins::EXIT);
        self.notifier.notify();
        sent
    }

    /// Has the machine's thread run `f` and waits for its result; `None` if the machine is gone.
    pub fn call<R: Send + 'static>(&self, f: impl FnOnce(&mut Machine<P, E>) -> R + Send + 'static) -> Option<R> {
        let (sender, receiver) = channel();
        self.post(move |machine| {
            // Whoever asked may have gone.
            let _ = sender.send(f(machine));
        });
        receiver.recv().ok()
    }
}

/// One machine: a processor on a bus of devices.
pub struct Machine<P, E> {
    bus: Arc<Bus>,
    processor: P,
    boot: Box<dyn Boot<E>>,
    options: MachineOptions,
    commands: Receiver<Command<P, E>>,
    sender: Sender<Command<P, E>>,
    state: RunState,
    observer: Option<Observer>,
    outcome: Option<Outcome>,
}

impl<P: Processor, E> Machine<P, E> {
    /// A machine that is switched off.
    pub fn new(bus: Arc<Bus>, processor: P, boot: Box<dyn Boot<E>>, options: MachineOptions) -> Machine<P, E> {
        let (sender, commands) = channel();
        let state = if options.paused { RunState::Prelaunch } else { RunState::Running };
        Machine { bus, processor, boot, options, commands, sender, state, observer: None, outcome: None }
    }

    /// Has `observer` told of what happens from now on, on the machine's thread.
    pub fn observe(&mut self, observer: impl FnMut(MachineEvent) + Send + 'static) {
        self.observer = Some(Box::new(observer));
    }

    fn tell(&mut self, event: MachineEvent) {
        if let Some(observer) = &mut self.observer {
            observer(event);
        }
    }

    /// A handle for other threads.
    pub fn control(&self) -> Control<P, E> {
        Control { commands: self.sender.clone(), notifier: Notifier::machine(&self.bus), pins: self.bus.pins().clone() }
    }

    /// The bus.
    pub fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }

    /// The processor.
    pub fn processor(&mut self) -> &mut P {
        &mut self.processor
    }

    /// Whether the guest is stopped.
    pub fn is_paused(&self) -> bool {
        self.state != RunState::Running
    }

    /// Whether the guest runs and, if not, why.
    pub fn run_state(&self) -> RunState {
        self.state
    }

    /// Stops the guest and its time, unless it is stopped already.
    pub fn pause(&mut self) {
        self.stop_in(RunState::Paused);
    }

    /// Stops the guest and its time, because a drive's request has failed.
    pub fn stop_for_io_error(&mut self) {
        self.stop_in(RunState::IoError);
    }

    fn stop_in(&mut self, state: RunState) {
        if !self.is_paused() {
            self.state = state;
            self.bus.clock(|clock| clock.pause());
            self.tell(MachineEvent::Stop);
        }
    }

    /// Lets the guest go on.
    pub fn resume(&mut self) {
        if self.is_paused() {
            self.state = RunState::Running;
            self.bus.clock(|clock| clock.resume());
            self.tell(MachineEvent::Resume);
        }
    }

    /// Ends the run.
    pub fn quit(&mut self) {
        self.outcome = Some(Outcome::Quit);
    }

    /// Pulls RESET#, whatever the options say.
    ///
    /// # Errors
    /// What is to be booted cannot be.
    pub fn reset(&mut self, kind: ResetKind) -> Result<(), E> {
        self.bus.reset(kind);
        // What devices asked for before or during their reset is void.
        self.bus.take_outcomes();
        self.bus.pins().take(CpuPins::NMI | CpuPins::INIT | CpuPins::EXIT);
        self.bus.pins().raise(CpuPins::FLUSH);
        self.processor.reset();
        if let Some(state) = self.boot.boot(&self.bus)? {
            self.processor.start(&state);
        }
        if self.is_paused() {
            self.state = RunState::Prelaunch;
        }
        Ok(())
    }

    /// Switches on and runs until something ends the run.
    ///
    /// # Errors
    /// What is to be booted cannot be.
    pub fn run(&mut self) -> Result<Outcome, E> {
        self.reset(ResetKind::Cold)?;
        if !self.is_paused() {
            self.bus.clock(|clock| clock.resume());
        }
        loop {
            while let Ok(command) = self.commands.try_recv() {
                command(self);
            }
            for request in self.bus.take_outcomes() {
                self.act_on(request)?;
            }
            if let Some(outcome) = self.outcome.take() {
                self.bus.clock(|clock| clock.pause());
                return Ok(outcome);
            }
            if self.is_paused() {
                self.bus.sleep(FOREVER);
            } else {
                self.turn()?;
            }
        }
    }

    /// Polls, runs the processor once, and sleeps if it has halted.
    fn turn(&mut self) -> Result<(), E> {
        let deadline = self.bus.poll();
        let budget = self.budget(deadline);
        let pause = self.processor.run(budget);
        let executed = self.processor.executed();
        self.bus.clock(|clock| clock.retire(executed));
        match pause {
            Pause::Budget | Pause::Requested => {}
            Pause::Halted => self.idle(),
            Pause::TripleFault if self.options.no_reboot => self.end(MachineEvent::LastReset, Outcome::TripleFault),
            Pause::TripleFault => self.guest_reset()?,
        }
        Ok(())
    }

    /// How many instructions the processor may run before somebody must look at the clock.
    fn budget(&self, deadline: Option<Instant>) -> u64 {
        let (mode, now) = self.bus.clock(|clock| (clock.mode(), clock.now()));
        let ClockMode::Icount { shift } = mode else { return REAL_TIME_QUANTUM };
        let left = deadline.map_or(u64::MAX, |at| at.nanos_since(now));
        let budget = left.div_ceil(1 << shift).clamp(1, ICOUNT_QUANTUM);
        self.bus.set_horizon(Some(now.plus_nanos(budget << shift)));
        budget
    }

    /// The processor has halted, and everything that was announced before its last look has been seen: only a deadline
    /// or a notification can wake it.
    fn idle(&mut self) {
        let deadline = self.bus.next_deadline();
        match (self.bus.clock(|clock| clock.mode()), deadline) {
            (ClockMode::Realtime, _) => {
                let wait = self.bus.clock(|clock| clock.sleep(deadline.unwrap_or(NEVER)));
                self.bus.sleep(wait.min(FOREVER));
                self.bus.clock(|clock| clock.wake());
            }
            (ClockMode::Icount { .. }, None) => {
                self.bus.sleep(FOREVER);
            }
            (ClockMode::Icount { .. }, Some(at)) if !self.options.icount_sleep => {
                self.bus.clock(|clock| clock.skip_to(at));
            }
            (ClockMode::Icount { .. }, Some(at)) => {
                let start = std::time::Instant::now();
                let wait = self.bus.clock(|clock| Duration::from_nanos(at.nanos_since(clock.now())));
                let notified = self.bus.sleep(wait);
                self.bus.clock(|clock| {
                    let slept = clock.now().plus_nanos(start.elapsed().as_nanos() as u64);
                    clock.skip_to(if notified { slept.min(at) } else { at });
                });
            }
        }
    }

    /// The guest ends the run.
    fn end(&mut self, event: MachineEvent, outcome: Outcome) {
        self.tell(event);
        self.outcome = Some(outcome);
    }

    fn guest_reset(&mut self) -> Result<(), E> {
        self.reset(ResetKind::Warm)?;
        self.tell(MachineEvent::Reset);
        Ok(())
    }

    fn act_on(&mut self, request: Request) -> Result<(), E> {
        match request {
            Request::PowerOff if self.options.no_shutdown => {
                self.tell(MachineEvent::PowerOff);
                self.stop_in(RunState::Shutdown);
            }
            Request::PowerOff => self.end(MachineEvent::PowerOff, Outcome::PowerOff),
            Request::Exit(status) => self.outcome = Some(Outcome::Exit(status)),
            Request::Reset if self.options.no_reboot => self.end(MachineEvent::LastReset, Outcome::Reset),
            Request::Reset => self.guest_reset()?,
            // The bus carries out all others itself.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

use super::*;
use emu_core::clock::Clock;
use emu_core::device::{Access, Device, DeviceContext, Region, ports};
use emu_core::mem::GuestMemory;
use std::convert::Infallible;
use std::sync::Mutex;

/// Runs a script: each entry is a number of instructions and what then happens.
#[derive(Default)]
struct Script {
    steps: Vec<(u64, Step)>,
    executed: u64,
    total: u64,
    resets: usize,
    bus: Option<Arc<Bus>>,
}

#[derive(Clone, Copy)]
enum Step {
    Out(u16, u8),
    Halt,
    TripleFault,
}

impl Processor for Script {
    fn run(&mut self, budget: u64) -> Pause {
        self.executed = 0;
        let bus = self.bus.clone().expect("a bus");
        loop {
            if bus.pins().take(CpuPins::EXIT) != 0 {
                return Pause::Requested;
            }
            let Some((left, step)) = self.steps.first_mut() else { return Pause::Halted };
            let n = (*left).min(budget - self.executed);
            *left -= n;
            self.executed += n;
            self.total += n;
            if *left > 0 {
                return Pause::Budget;
            }
            let step = *step;
            self.steps.remove(0);
            match step {
                Step::Out(port, value) => bus.port_write(port, 1, value.into(), self.executed),
                Step::Halt => return Pause::Halted,
                Step::TripleFault => return Pause::TripleFault,
            }
        }
    }

    fn executed(&self) -> u64 {
        self.executed
    }

    fn reset(&mut self) {
        self.resets += 1;
    }

    fn start(&mut self, _state: &BootState) {}
}

/// Port 1: deadline in that many microseconds. Port 2: a request. Notes when it is polled.
#[derive(Default)]
struct Probe {
    deadline: Option<Instant>,
    polls: Arc<Mutex<Vec<Instant>>>,
}

impl Device for Probe {
    const ID: &'static str = "probe";
    type State = ();
    const PORTS: &'static [Region] = &[ports(1, 2)];

    fn read(&mut self, _cx: &mut DeviceContext, _access: Access) -> u64 {
        0
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        match (access.address, value) {
            (1, us) => self.deadline = Some(cx.now.plus_nanos(us * 1000)),
            (_, 0) => cx.request(Request::Reset),
            (_, 1) => cx.request(Request::PowerOff),
            (_, status) => cx.request(Request::Exit(status as i32)),
        }
    }

    fn poll_at(&self) -> Option<Instant> {
        self.deadline
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        self.polls.lock().unwrap().push(cx.now);
        self.deadline = None;
    }

    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {}

    fn state(&self) {}

    fn set_state(&mut self, _state: ()) {}
}

type TestMachine = Machine<Script, Infallible>;

fn machine(mode: ClockMode, steps: &[(u64, Step)], options: MachineOptions) -> (TestMachine, Arc<Mutex<Vec<Instant>>>) {
    let memory = Arc::new(GuestMemory::new(0x10_0000, 0).unwrap());
    let bus = Arc::new(Bus::new(memory, Arc::default(), Clock::new(mode)));
    let probe = Probe::default();
    let polls = probe.polls.clone();
    bus.attach(Box::new(probe));
    let script = Script { steps: steps.to_vec(), bus: Some(bus.clone()), ..Script::default() };
    let boot = |_: &Bus| Ok(None);
    (Machine::new(bus, script, Box::new(boot), options), polls)
}

const ICOUNT: ClockMode = ClockMode::Icount { shift: 3 };

#[test]
fn icount_meets_deadlines_exactly_even_if_they_are_set_while_running() {
    let steps = [(100, Step::Out(1, 50)), (3_000_000, Step::Out(2, 1))];
    let (mut machine, polls) = machine(ICOUNT, &steps, MachineOptions::default());
    assert_eq!(machine.run(), Ok(Outcome::PowerOff));
    assert_eq!(*polls.lock().unwrap(), [Instant(100 * 8 + 50_000)]);
    assert_eq!(machine.processor().total, 3_000_100);
    assert_eq!(machine.bus().clock(|c| c.instructions()), 3_000_100);
}

#[test]
fn icount_idle_skips_to_the_deadline() {
    let steps = [(10, Step::Out(1, 200)), (0, Step::Halt), (5, Step::Out(2, 7))];
    for icount_sleep in [false, true] {
        let (mut machine, polls) = machine(ICOUNT, &steps, MachineOptions { icount_sleep, ..Default::default() });
        let start = std::time::Instant::now();
        assert_eq!(machine.run(), Ok(Outcome::Exit(7)));
        assert_eq!(*polls.lock().unwrap(), [Instant(80 + 200_000)]);
        assert_eq!(machine.bus().clock(|c| c.now()), Instant(80 + 200_000 + 40));
        assert!(!icount_sleep || start.elapsed() >= Duration::from_micros(199));
    }
}

#[test]
fn real_time_idle_sleeps_until_the_deadline() {
    let steps = [(10, Step::Out(1, 250)), (0, Step::Halt), (5, Step::Out(2, 1))];
    let (mut machine, polls) = machine(ClockMode::Realtime, &steps, MachineOptions::default());
    assert_eq!(machine.run(), Ok(Outcome::PowerOff));
    let polls = polls.lock().unwrap();
    assert_eq!(polls.len(), 1);
    assert!(polls[0] >= Instant(250_000));
}

#[test]
fn guest_reset_restarts_the_machine_unless_it_may_not() {
    let steps = [(10, Step::Out(2, 0)), (10, Step::TripleFault), (10, Step::Out(2, 1))];
    let (mut machine, _) = self::machine(ICOUNT, &steps, MachineOptions::default());
    assert_eq!(machine.run(), Ok(Outcome::PowerOff));
    assert_eq!(machine.processor().resets, 3);

    let no_reboot = MachineOptions { no_reboot: true, ..Default::default() };
    let (mut machine, _) = self::machine(ICOUNT, &steps, no_reboot);
    assert_eq!(machine.run(), Ok(Outcome::Reset));
    let (mut machine, _) = self::machine(ICOUNT, &steps[1..], no_reboot);
    assert_eq!(machine.run(), Ok(Outcome::TripleFault));
}

#[test]
fn control_pauses_resumes_and_quits_a_halted_machine_from_another_thread() {
    let paused = MachineOptions { paused: true, ..Default::default() };
    let (mut machine, _) = machine(ClockMode::Realtime, &[(50, Step::Halt)], paused);
    let control = machine.control();
    let steering = std::thread::spawn(move || {
        assert_eq!(control.call(|m| (m.is_paused(), m.processor().total)), Some((true, 0)));
        control.post(|m| m.resume());
        while control.call(|m| m.processor().total) != Some(50) {
            std::thread::yield_now();
        }
        control.post(|m| m.pause());
        assert_eq!(control.call(|m| m.is_paused()), Some(true));
        control.post(|m| m.quit());
    });
    assert_eq!(machine.run(), Ok(Outcome::Quit));
    steering.join().unwrap();
}

#[test]
fn power_off_pauses_where_no_shutdown_is_wanted() {
    let options = MachineOptions { no_shutdown: true, ..Default::default() };
    let (mut machine, _) = machine(ICOUNT, &[(1, Step::Out(2, 1)), (1, Step::Out(2, 9))], options);
    let control = machine.control();
    let steering = std::thread::spawn(move || {
        while control.call(|m| m.is_paused()) != Some(true) {
            std::thread::yield_now();
        }
        control.post(|m| m.resume());
    });
    assert_eq!(machine.run(), Ok(Outcome::Exit(9)));
    steering.join().unwrap();
}

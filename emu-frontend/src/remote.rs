//! The handle by which monitors and displays steer and read a PC.

use crate::display::typist::Typist;
use crate::net::Link;
use crate::qmp::Events;
use emu_core::bus::Bus;
use emu_core::clock::Instant;
use emu_core::device::ResetKind;
use emu_core::exec::Vcpu;
use emu_core::irq::IrqLine;
use emu_devices::board::machine::{Control, Machine, RunState};
use emu_devices::board::pc::{Controllers, Pc, PcError};
use emu_devices::input::InputQueue;
use emu_devices::pci::PciBus;
use emu_devices::pci::piix4::FrontPanel;
use emu_devices::rtc::CmosPatch;
use emu_devices::storage::block::Media;
use emu_devices::video::{Display, Frame};
use emu_devices::virtio::balloon::BalloonControl;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};

/// What its user knows a PC by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The guest's name, empty without one.
    pub name: String,
    /// The UUID in its SMBIOS tables.
    pub uuid: [u8; 16],
    /// Its character devices: ids, and what is behind them.
    pub chardevs: Vec<(String, String)>,
}

/// A PC as others than its own thread see it. Calls that return something of the machine wait for its thread.
pub struct Remote {
    control: Control<Vcpu, PcError>,
    bus: Arc<Bus>,
    front_panel: FrontPanel,
    nmi: Mutex<IrqLine>,
    /// Who is told of what happens.
    pub events: Arc<Events>,
    /// What its user knows it by.
    pub identity: Identity,
    /// Where keyboard and mouse events go.
    pub input: InputQueue,
    /// Types keys that are held for some time.
    pub typist: Typist,
    /// The mouse buttons that monitors hold down, as `mouse_button` counts them.
    pub buttons: AtomicU32,
    /// What the graphics card shows.
    pub display: Option<Arc<dyn Display>>,
    /// The drives.
    pub media: Vec<Media>,
    /// The PCI functions.
    pub pci: PciBus,
    /// The interrupt controllers.
    pub controllers: Controllers,
    /// The network back ends.
    pub networks: Vec<Arc<Link>>,
    /// By which CMOS RAM is set.
    pub cmos: CmosPatch,
    /// The memory balloon, if there is one.
    pub balloon: Option<BalloonControl>,
}

impl Remote {
    /// A handle on `pc`, which is about to run.
    pub fn new(pc: &Pc, identity: Identity, networks: Vec<Arc<Link>>) -> Remote {
        Remote {
            control: pc.machine.control(),
            bus: pc.machine.bus().clone(),
            front_panel: pc.front_panel.clone(),
            nmi: Mutex::new(pc.nmi.clone()),
            events: Arc::default(),
            identity,
            input: pc.input.clone(),
            typist: Typist::new(pc.input.clone()),
            buttons: AtomicU32::new(0),
            display: pc.display.clone(),
            media: pc.media.clone(),
            pci: pc.pci.clone(),
            controllers: pc.controllers.clone(),
            networks,
            cmos: pc.cmos.clone(),
            balloon: pc.balloon.clone(),
        }
    }

    /// Has the machine's thread run `f` between two instructions; its result, or `None` if the machine is gone.
    pub fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Machine<Vcpu, PcError>) -> R + Send + 'static,
    ) -> Option<R> {
        self.control.call(f)
    }

    /// Stops the guest and its time.
    pub fn stop(&self) {
        self.call(|machine| machine.pause());
    }

    /// Lets the guest go on.
    ///
    /// # Errors
    /// It has powered off: in QEMU's words.
    pub fn cont(&self) -> Result<(), String> {
        let state = self.call(|machine| {
            let state = machine.run_state();
            if state != RunState::Shutdown {
                machine.resume();
            }
            state
        });
        self.media.iter().for_each(Media::retry);
        match state {
            Some(RunState::Shutdown) => Err("Resetting the Virtual Machine is required".into()),
            _ => Ok(()),
        }
    }

    /// Whether the guest is stopped; `None` if the machine is gone.
    #[cfg(feature = "window")]
    pub fn is_paused(&self) -> Option<bool> {
        self.call(|machine| machine.is_paused())
    }

    /// Whether the guest runs and, if not, why; `None` if the machine is gone.
    pub fn run_state(&self) -> Option<RunState> {
        self.call(|machine| machine.run_state())
    }

    /// Resets the guest; what went wrong.
    pub fn reset(&self) -> Option<String> {
        let problem = self.call(|machine| machine.reset(ResetKind::Warm).map_err(|e| e.to_string()))?.err();
        self.events.host_reset();
        problem
    }

    /// Presses the power button.
    pub fn power_button(&self) {
        self.front_panel.press_power_button();
        self.events.power_button();
        // The machine looks at its interrupts when it wakes.
        self.control.post(|_| ());
    }

    /// Pulses the NMI line.
    pub fn nmi(&self) {
        self.nmi.lock().unwrap_or_else(PoisonError::into_inner).pulse();
        self.control.post(|_| ());
    }

    /// Virtual time, and instructions retired. Does not wait for the machine's thread.
    pub fn time(&self) -> (Instant, u64) {
        self.bus.clock(|clock| (clock.now(), clock.instructions()))
    }

    /// The picture as it is now; `None` without a graphics card.
    pub fn picture(&self) -> Option<Frame> {
        let display = self.display.as_ref()?;
        let (now, _) = self.time();
        let mut frame = Frame::default();
        display.refresh(now, &mut frame);
        Some(frame)
    }
}

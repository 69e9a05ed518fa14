//! The NE2000 for the ISA bus: a [`Dp8390`] at 32 ports and one IRQ, which jumpers set.

use super::NicConfig;
use super::dp8390::{Dp8390, Dp8390State};
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, ResetKind};
use emu_core::irq::IrqLine;

/// The card. The board maps its ports.
pub struct Ne2kIsa(Dp8390<()>);

impl Ne2kIsa {
    /// A card that drives `irq`. It has no place for a ROM.
    pub fn new(nic: NicConfig, irq: IrqLine) -> Ne2kIsa {
        Ne2kIsa(Dp8390::new(nic.mac, nic.backend, irq, ()))
    }
}

impl Device for Ne2kIsa {
    const ID: &'static str = "ne2k_isa";
    type State = Dp8390State;
    const WIDEST_ACCESS: u8 = 4;

    fn read(&mut self, _cx: &mut DeviceContext, access: Access) -> u64 {
        self.0.read(access)
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        self.0.write(cx, access, value);
    }

    fn poll_at(&self) -> Option<Instant> {
        self.0.poll_at()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        self.0.poll(cx.now);
    }

    fn reset(&mut self, _cx: &mut DeviceContext, kind: ResetKind) {
        self.0.reset(kind);
    }

    fn attached(&mut self, notifier: Notifier) {
        self.0.attached(notifier);
    }

    fn state(&self) -> Dp8390State {
        self.0.state()
    }

    fn set_state(&mut self, state: Dp8390State) {
        self.0.set_state(state);
    }
}

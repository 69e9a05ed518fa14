//! Interrupt lines that several devices share: high while any of them is.

use crate::shared::Shared;
use emu_core::irq::{IrqInput, IrqLine};
use std::sync::Arc;

/// A wired-OR of up to 64 sources.
pub struct WiredOr {
    output: IrqLine,
    sources: Shared<Sources>,
}

#[derive(Default)]
struct Sources {
    count: u32,
    high: u64,
}

impl WiredOr {
    /// A gate that drives `output`.
    pub fn new(output: IrqLine) -> Arc<WiredOr> {
        Arc::new(WiredOr { output, sources: Shared::default() })
    }

    /// A further input: itself and a pin number.
    ///
    /// # Panics
    /// It would be the 65th: an error of the board's.
    pub fn input(self: &Arc<Self>) -> (Arc<dyn IrqInput>, u32) {
        let mut sources = self.sources.lock();
        let pin = sources.count;
        assert!(pin < 64, "an interrupt line has at most 64 sources");
        sources.count += 1;
        (self.clone(), pin)
    }

    /// A wire to a further input. Panics as [`WiredOr::input`].
    pub fn source(self: &Arc<Self>) -> IrqLine {
        IrqLine::new(vec![self.input()])
    }
}

impl IrqInput for WiredOr {
    fn set_level(&self, pin: u32, high: bool) {
        let mut sources = self.sources.lock();
        let bit = 1 << (pin & 63);
        sources.high = if high { sources.high | bit } else { sources.high & !bit };
        // Driven under the lock, so that changes arrive in order.
        self.output.set(sources.high != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wired_or_stays_high_until_the_last_source_falls() {
        let gate = WiredOr::new(IrqLine::unconnected());
        let (a, b) = (gate.source(), gate.source());
        a.set(true);
        b.set(true);
        a.set(false);
        assert!(gate.output.is_high());
        b.set(false);
        assert!(!gate.output.is_high());
    }
}

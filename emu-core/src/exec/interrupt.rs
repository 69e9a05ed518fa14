//! Delivery of exceptions and interrupts (SDM Vol. 3A chapter 6).

use crate::cpu::fault::Fault;
use crate::exec::Vcpu;

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// INT n, INT3, INTO: the gate's DPL is checked, RIP is the next instruction's.
    Software,
    /// A fault or trap of the processor.
    Exception,
    /// INTR or NMI.
    External,
}

impl Vcpu {
    /// Delivers `vector` through the IDT or IVT. `state.rip` is what is pushed.
    ///
    /// # Errors
    /// The fault that delivery itself raises.
    pub fn interrupt(&mut self, vector: u8, _source: Source, _error: Option<u32>) -> Result<(), Fault> {
        Err(Fault::gp(u16::from(vector)))
    }
}

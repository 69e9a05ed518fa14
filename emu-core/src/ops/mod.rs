//! What instructions do.
//!
//! [`table`] maps a mnemonic to its row; the row's function, an [`Exec`], executes any form of the instruction. Straight
//! integer instructions are written once against [`backend::Backend`] and serve as `Exec`, as specialised handlers
//! ([`fast`]) and for compiled tiers. Everything else is a plain function of the vCPU and the instruction.

pub mod backend;
pub mod bmi;
pub mod crypto;
pub mod far;
pub mod fast;
pub mod flags;
pub mod integer;
pub mod interrupt;
pub mod io;
pub mod mmx;
pub mod protection;
pub mod segment;
pub mod simd_int;
pub mod sse_fp;
pub mod stack;
pub mod string;
pub mod system;
pub mod table;
pub mod x87;

use crate::cpu::fault::Fault;
use crate::decode::insn::Insn;
use crate::exec::Vcpu;

/// Executes one instruction. On entry `cpu.state.rip` is the next instruction's address, which transfers of control
/// replace. On an error nothing architectural may have changed (`rip` is put back by the caller). Functions that change
/// segments, CPL, control registers or VM/AC call [`Vcpu::mode_changed`]; those that may unmask or raise an event set
/// `cpu.leave` so that the dispatcher looks.
pub type Exec = fn(&mut Vcpu, &Insn) -> Result<(), Fault>;

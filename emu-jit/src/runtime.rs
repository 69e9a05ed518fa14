//! What compiled code needs while it runs: memory that is executable, and the functions that it calls.
//!
//! `unsafe` is allowed here: code and the addresses in it are raw by nature.

#![allow(unsafe_code)]

pub mod x87;

use emu_core::cpu::rflags::{CF, ZF};
use emu_core::decode::insn::Insn;
use emu_core::exec::Vcpu;
use emu_core::exec::region::{Code, Compiled};
use emu_core::softfloat::sse::mxcsr;
use memmap2::{Mmap, MmapMut};
use std::sync::Arc;
use std::time::Duration;

/// Executes one instruction by the interpreter; see [`Vcpu::execute_for_region`].
pub extern "C" fn execute(cpu: &mut Vcpu, insn: *const Insn) -> u64 {
    // SAFETY: compiled code passes only addresses that `Foreign::keep` returned (`Lower::execute` puts them there), of
    // the `Foreign` that its own `Region` holds, and it runs only while that region lives.
    let insn = unsafe { &*insn };
    cpu.execute_for_region(insn)
}

/// Executes one instruction that accesses nothing but XMM registers and MXCSR, and raises nothing.
pub extern "C" fn compute(cpu: &mut Vcpu, insn: *const Insn) -> u64 {
    // SAFETY: as in `execute`.
    let insn = unsafe { &*insn };
    let result = (insn.exec)(cpu, insn);
    debug_assert!(result.is_ok(), "{:?} of {:?}", result, insn.code);
    0
}

/// As [`compute`], between [`enter_float`] and [`leave_float`].
pub extern "C" fn compute_in_float(cpu: &mut Vcpu, insn: *const Insn) -> u64 {
    out_of_float(cpu, insn, compute)
}

/// Condition `cc` of the flags in the vCPU, as 0 or 1.
pub extern "C" fn condition(cpu: &mut Vcpu, cc: u64) -> u64 {
    u64::from(cpu.state.flags.condition(cc as u8 & 15))
}

/// Replaces CF and OF of the flags in the vCPU.
pub extern "C" fn set_cf_of(cpu: &mut Vcpu, bits: u64) -> u64 {
    cpu.state.flags.set_cf_of(bits);
    0
}

/// Replaces CF and ZF of the flags in the vCPU.
pub extern "C" fn set_cf_zf(cpu: &mut Vcpu, bits: u64) -> u64 {
    cpu.state.flags.replace(CF | ZF, bits);
    0
}

/// Replaces ZF of the flags in the vCPU.
pub extern "C" fn set_zero(cpu: &mut Vcpu, zero: u64) -> u64 {
    cpu.state.flags.replace(ZF, if zero != 0 { ZF } else { 0 });
    0
}

/// All flags in the vCPU.
pub extern "C" fn flags(cpu: &mut Vcpu, _: u64) -> u64 {
    cpu.state.rflags()
}

/// POPF of a value; whether to go on.
pub extern "C" fn pop_flags(cpu: &mut Vcpu, value: u64) -> u64 {
    u64::from(cpu.pop_flags(value))
}

/// CLI; whether it has been done.
pub extern "C" fn clear_interrupt_flag(cpu: &mut Vcpu, _: u64) -> u64 {
    u64::from(cpu.clear_interrupt_flag())
}

/// STI; whether it has been done.
pub extern "C" fn set_interrupt_flag(cpu: &mut Vcpu, _: u64) -> u64 {
    u64::from(cpu.set_interrupt_flag())
}

/// STAC, or CLAC if `allow` is 0; whether it has been done.
pub extern "C" fn allow_user_pages(cpu: &mut Vcpu, allow: u64) -> u64 {
    u64::from(cpu.allow_user_pages(allow != 0))
}

/// Replaces CF of the flags in the vCPU.
pub extern "C" fn set_carry(cpu: &mut Vcpu, carry: u64) -> u64 {
    cpu.state.flags.set_cf(carry != 0);
    0
}

/// The host's FPU as the guest's: MXCSR, and operations that CLIF does not have. All exceptions are masked.
#[cfg(target_arch = "x86_64")]
mod host {
    use emu_core::cpu::xmm::Xmm;
    use std::arch::asm;
    use std::arch::x86_64::__m128i;

    pub fn control() -> u32 {
        let mut value = 0u32;
        // SAFETY: it writes the four bytes that it is given.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    /// Sets MXCSR. What runs until it is set back computes with floats in assembly only.
    pub fn set_control(value: u32) {
        // SAFETY: only values that MXCSR had, in this process or in a guest whose reserved bits are the host's, come
        // here; and see above.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }

    macro_rules! to_integer {
        ($($name:ident $convert:literal;)*) => {$(
            pub fn $name(bits: u64) -> u64 {
                let result: u64;
                // SAFETY: it touches nothing but its operands, and MXCSR's flags.
                unsafe {
                    asm!(
                        "movq {x}, {bits}",
                        $convert,
                        x = out(xmm_reg) _,
                        bits = in(reg) bits,
                        r = out(reg) result,
                        options(nomem, nostack, preserves_flags)
                    );
                }
                result
            }
        )*};
    }
    to_integer! {
        single_to_dword "cvtss2si {r:e}, {x}";
        single_to_qword "cvtss2si {r}, {x}";
        double_to_dword "cvtsd2si {r:e}, {x}";
        double_to_qword "cvtsd2si {r}, {x}";
        truncate_single "cvttss2si {r}, {x}";
        truncate_double "cvttsd2si {r}, {x}";
    }

    /// An instruction with the same register as source and destination.
    macro_rules! in_place {
        ($value:ident, $instruction:expr) => {{
            let mut x = $value.0.as_ptr().cast::<__m128i>().read_unaligned();
            asm!($instruction, x = inout(xmm_reg) x, options(nomem, nostack, preserves_flags));
            $value.0.as_mut_ptr().cast::<__m128i>().write_unaligned(x);
        }};
    }

    /// Does what `lower::sse::float` asks for by number, with the immediate `control` of a rounding.
    pub fn packed(value: &mut Xmm, what: u64, control: u64) {
        macro_rules! round {
            ($name:literal: $($control:literal)*) => {
                match control {
                    $($control => in_place!(value, concat!($name, " {x}, {x}, ", $control)),)*
                    _ => {}
                }
            };
        }
        // SAFETY: they touch nothing but `value`, and MXCSR's flags; the translator has seen that the host has SSE4.1.
        unsafe {
            match what {
                0 => round!("roundss": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
                1 => round!("roundsd": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
                2 => round!("roundps": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
                3 => round!("roundpd": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
                4 => in_place!(value, "cvtps2dq {x}, {x}"),
                _ => in_place!(value, "cvtpd2dq {x}, {x}"),
            }
        }
    }
}

/// Nothing computes with floats in regions on other hosts: `lower::sse::float` finds nothing there.
#[cfg(not(target_arch = "x86_64"))]
mod host {
    use emu_core::cpu::xmm::Xmm;
    use emu_core::softfloat::sse::mxcsr;

    pub fn control() -> u32 {
        mxcsr::RESET
    }
    pub fn set_control(_: u32) {}
    pub fn single_to_dword(bits: u64) -> u64 {
        bits
    }
    pub fn single_to_qword(bits: u64) -> u64 {
        bits
    }
    pub fn double_to_dword(bits: u64) -> u64 {
        bits
    }
    pub fn double_to_qword(bits: u64) -> u64 {
        bits
    }
    pub fn truncate_single(bits: u64) -> u64 {
        bits
    }
    pub fn truncate_double(bits: u64) -> u64 {
        bits
    }
    pub fn packed(_: &mut Xmm, _: u64, _: u64) {}
}

/// Gives the host's FPU the guest's MXCSR, all of whose exceptions are masked: from here on its flags stick there.
pub extern "C" fn enter_float(cpu: &mut Vcpu, _: u64) -> u64 {
    // A debugger or a damaged snapshot may have set what a guest cannot, and what would fault here.
    host::set_control(cpu.state.mxcsr & mxcsr::VALID);
    0
}

/// Takes the guest's MXCSR back from the host's FPU.
pub extern "C" fn leave_float(cpu: &mut Vcpu, _: u64) -> u64 {
    cpu.state.mxcsr = host::control();
    host::set_control(mxcsr::RESET);
    0
}

/// As [`execute`], between [`enter_float`] and [`leave_float`]; with another result than 0 the latter has been done.
pub extern "C" fn execute_in_float(cpu: &mut Vcpu, insn: *const Insn) -> u64 {
    out_of_float(cpu, insn, execute)
}

/// Has `executes` execute `insn` with the host's FPU given back meanwhile; for good if its result is not 0.
fn out_of_float(cpu: &mut Vcpu, insn: *const Insn, executes: extern "C" fn(&mut Vcpu, *const Insn) -> u64) -> u64 {
    leave_float(cpu, 0);
    let result = executes(cpu, insn);
    if result == 0 {
        enter_float(cpu, 0);
    }
    result
}

/// CVTSS2SI of 32 bits.
pub extern "C" fn single_to_dword(_: &mut Vcpu, bits: u64) -> u64 {
    host::single_to_dword(bits)
}

/// CVTSS2SI of 64 bits.
pub extern "C" fn single_to_qword(_: &mut Vcpu, bits: u64) -> u64 {
    host::single_to_qword(bits)
}

/// CVTSD2SI of 32 bits.
pub extern "C" fn double_to_dword(_: &mut Vcpu, bits: u64) -> u64 {
    host::double_to_dword(bits)
}

/// CVTSD2SI of 64 bits.
pub extern "C" fn double_to_qword(_: &mut Vcpu, bits: u64) -> u64 {
    host::double_to_qword(bits)
}

/// CVTTSS2SI of 64 bits.
pub extern "C" fn truncate_single(_: &mut Vcpu, bits: u64) -> u64 {
    host::truncate_single(bits)
}

/// CVTTSD2SI of 64 bits.
pub extern "C" fn truncate_double(_: &mut Vcpu, bits: u64) -> u64 {
    host::truncate_double(bits)
}

/// Replaces the XMM register that the low four bits of `what` name by what the higher bits say: of the immediate of a
/// rounding four, then the number of the operation.
pub extern "C" fn packed_float(cpu: &mut Vcpu, what: u64) -> u64 {
    host::packed(&mut cpu.state.xmm[(what & 15) as usize], what >> 8, what >> 4 & 15);
    0
}

/// Instructions that stay where they are, for code that has their addresses.
#[derive(Default)]
#[allow(clippy::vec_box)] // They must not move.
pub struct Foreign(Vec<Box<Insn>>);

impl Foreign {
    /// Keeps `insn`; its address as long as this lives.
    pub fn keep(&mut self, insn: &Insn) -> *const Insn {
        let kept = Box::new(*insn);
        let address = std::ptr::from_ref(&*kept);
        self.0.push(kept);
        address
    }
}

/// Code in memory of its own.
struct Executable(Mmap);

impl Executable {
    /// Puts `code` into memory that is writable first and executable then, never both.
    fn new(code: &[u8]) -> std::io::Result<Executable> {
        let mut memory = MmapMut::map_anon(code.len().max(1))?;
        memory[..code.len()].copy_from_slice(code);
        Ok(Executable(memory.make_exec()?))
    }
}

/// What calls regions: a function of the host's convention that calls the address in its second parameter, with the
/// first, by that of regions.
#[derive(Clone)]
pub struct Gate(Arc<Executable>);

impl Gate {
    /// Of `code`, which is such a function.
    ///
    /// # Errors
    /// The host has no memory left.
    pub fn new(code: &[u8]) -> std::io::Result<Gate> {
        Ok(Gate(Arc::new(Executable::new(code)?)))
    }
}

/// A region's code, and what the code refers to.
pub struct Region {
    code: Executable,
    gate: Gate,
    /// What the code passes to [`execute`].
    _foreign: Foreign,
    instructions: usize,
    effort: Duration,
}

impl Region {
    /// Of `code`, which is entered through `gate`.
    ///
    /// # Errors
    /// The host has no memory left.
    pub fn new(
        code: &[u8],
        gate: &Gate,
        foreign: Foreign,
        instructions: usize,
        effort: Duration,
    ) -> std::io::Result<Region> {
        let code = Executable::new(code)?;
        Ok(Region { code, gate: gate.clone(), _foreign: foreign, instructions, effort })
    }
}

impl Compiled for Region {
    fn code(&self) -> Code {
        let gate = self.gate.0.0.as_ptr();
        // SAFETY: the gate's memory begins with a function that Cranelift made for this signature (`lower::gate`), and is
        // executable as long as `self` lives; the vCPU calls it no longer than that, and with nothing but the addresses
        // that came from here.
        let enter = unsafe { std::mem::transmute::<*const u8, extern "C" fn(&mut Vcpu, usize) -> u64>(gate) };
        Code { enter, at: self.code.0.as_ptr() as usize }
    }

    fn size(&self) -> usize {
        self.code.0.len().next_multiple_of(4096)
    }

    fn instructions(&self) -> usize {
        self.instructions
    }

    fn effort(&self) -> Duration {
        self.effort
    }
}

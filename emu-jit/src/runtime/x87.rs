//! The host's x87 unit as the guest's, on x86-64 hosts.
//!
//! ```text
//!  enter: registers, tags, TOP, control --> host      a region's x87 instructions: one stub each
//!  leave: registers, tags, TOP, flags, codes --> vCPU
//! ```
//! Regions with x87 instructions do so where they are entered and left. Between, an instruction of the guest is the same
//! instruction of the host, in a stub of its own: results, tags, flags and codes are exact by construction. All
//! exceptions are masked, and pointers are the translator's. What the host's registers hold where the guest's are
//! empty is the guest's too, since FXSAVE and MMX show it. TOP need not be the same: the two differ by
//! [`emu_core::exec::region::X87OnHost::turn`], so that the usual state is entered and left without FRSTOR and FNSAVE,
//! which take several times as long.

use super::execute;
use emu_core::cpu::fpu::{FpuState, St};
use emu_core::decode::insn::Insn;
use emu_core::exec::Vcpu;
use emu_core::softfloat::x87::control;
use std::mem::offset_of;
use std::sync::LazyLock;

// A register in the vCPU is what FLD and FSTP m80fp access.
const _: () = assert!(offset_of!(St, significand) == 0 && offset_of!(St, sign_exp) == 8);

/// Exception flags of the status word.
const FLAGS: u16 = 0x3f;
/// Stack fault.
const SF: u16 = 1 << 6;
/// An exception that is not masked is pending.
pub const ES: u16 = 1 << 7;
const C1: u16 = 1 << 9;
/// C0, C2 and C3.
const CODES: u16 = 1 << 8 | 1 << 10 | 1 << 14;
const TOP: u16 = 7 << 11;

/// TOP of a status word.
fn top(status: u16) -> u8 {
    ((status & TOP) >> TOP.trailing_zeros()) as u8
}

/// FNSAVE's image in 64-bit mode: control, status and tag words at 0, 4 and 8, ST(0) at 28.
type Image = [u8; 108];
const REGISTERS: usize = 28;

#[cfg(target_arch = "x86_64")]
mod host {
    use super::{Image, St};
    use std::arch::asm;

    // SAFETY, for all of these: they access nothing but their operands and the x87 unit. Rust has no use for the latter
    // on x86-64: its floats are in XMM registers. What a caller finds there is what `enter` and the stubs have left
    // there, on the same thread; and `leave` leaves it empty before anything else runs than this file and functions
    // of the vCPU that compute with integers.

    macro_rules! control {
        ($($name:ident $instruction:literal;)*) => {$(
            pub fn $name() {
                // SAFETY: see above.
                unsafe { asm!($instruction, options(nomem, nostack, preserves_flags)) };
            }
        )*};
    }
    control! {
        reset "fninit";
        step_back "fdecstp";
        empty_all "emms";
    }

    /// Makes TOP 0 and all registers valid, whatever they hold.
    pub fn fill_all() {
        // SAFETY: see above. Any access to an MMX register does it.
        unsafe { asm!("movd {x:e}, mm0", x = out(reg) _, options(nomem, nostack, preserves_flags)) };
    }

    pub fn status() -> u16 {
        let status;
        // SAFETY: see above.
        unsafe { asm!("fnstsw ax", out("ax") status, options(nomem, nostack, preserves_flags)) };
        status
    }

    /// Whether ST(0) is empty; changes the codes.
    pub fn is_empty() -> bool {
        let status: u16;
        // SAFETY: see above.
        unsafe { asm!("fxam", "fnstsw ax", out("ax") status, options(nomem, nostack, preserves_flags)) };
        status & super::CODES == 1 << 14 | 1 << 8
    }

    pub fn set_control(value: u16) {
        // SAFETY: see above; it reads its operand.
        unsafe { asm!("fldcw [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }

    pub fn push(value: &St) {
        // SAFETY: see above; it reads ten bytes, as the assertion in this file says.
        unsafe { asm!("fld tbyte ptr [{}]", in(reg) &raw const *value, options(nostack, preserves_flags)) };
    }

    pub fn pop(value: &mut St) {
        // SAFETY: see above; it writes ten bytes, as the assertion in this file says.
        unsafe { asm!("fstp tbyte ptr [{}]", in(reg) &raw mut *value, options(nostack, preserves_flags)) };
    }

    pub fn save(image: &mut Image) {
        // SAFETY: see above; it writes the image.
        unsafe { asm!("fnsave [{}]", in(reg) image.as_mut_ptr(), options(nostack, preserves_flags)) };
    }

    pub fn restore(image: &Image) {
        // SAFETY: see above; it reads the image.
        unsafe { asm!("frstor [{}]", in(reg) image.as_ptr(), options(nostack, preserves_flags)) };
    }
}

/// No region enters on other hosts: `lower::x87` translates nothing there.
#[cfg(not(target_arch = "x86_64"))]
mod host {
    use super::{Image, St};

    pub fn reset() {}
    pub fn step_back() {}
    pub fn empty_all() {}
    pub fn fill_all() {}
    pub fn status() -> u16 {
        0
    }
    pub fn is_empty() -> bool {
        true
    }
    pub fn set_control(_: u16) {}
    pub fn push(_: &St) {}
    pub fn pop(_: &mut St) {}
    pub fn save(_: &mut Image) {}
    pub fn restore(_: &Image) {}
}

/// Bytes of a stub.
const STUB: usize = 8;

/// For each 11-bit opcode of an x87 instruction code that executes it: register forms as they are, memory forms with the
/// address in the first argument. The instructions that set RFLAGS return bits 7 to 0 of those; the conditional moves
/// move if their argument is not zero.
static STUBS: LazyLock<Option<memmap2::Mmap>> = LazyLock::new(|| {
    let mut memory = memmap2::MmapMut::map_anon(STUB << 11).ok()?;
    for (opcode, stub) in memory.chunks_exact_mut(STUB).enumerate() {
        let code = stub_for(opcode as u16);
        stub[..code.len()].copy_from_slice(&code);
    }
    memory.make_exec().ok()
});

fn stub_for(opcode: u16) -> Vec<u8> {
    let (escape, modrm) = (0xd8 | (opcode >> 8) as u8, opcode as u8);
    const RET: u8 = 0xc3;
    match (escape, modrm) {
        // TEST EDI, EDI; FCMOVNE ST, ST(i)
        (0xda | 0xdb, 0xc0..=0xdf) => vec![0x85, 0xff, 0xdb, 0xc8 | modrm & 7, RET],
        // FCOMI and its relatives; LAHF; MOVZX EAX, AH
        (0xdb | 0xdf, 0xe8..=0xf7) => vec![escape, modrm, 0x9f, 0x0f, 0xb6, 0xc4, RET],
        (_, 0xc0..) => vec![escape, modrm, RET],
        // [RDI]
        _ => vec![escape, modrm & 0x38 | 7, RET],
    }
}

/// Address of the stub for an 11-bit opcode, if the host can have stubs.
pub fn stub(opcode: u16) -> Option<usize> {
    let stubs = STUBS.as_ref()?;
    Some(stubs.as_ptr() as usize + STUB * usize::from(opcode & 0x7ff))
}

/// Whether the host's unit can be the guest's: nothing is pending, and nothing will be.
fn fits(fpu: &FpuState) -> bool {
    fpu.status & ES == 0 && fpu.control & FLAGS == FLAGS
}

/// Gives the host's x87 unit the guest's state, in which all exceptions are masked and none is pending.
pub extern "C" fn enter(cpu: &mut Vcpu, _: u64) -> u64 {
    let fpu = &cpu.state.fpu;
    debug_assert!(fits(fpu), "regions look before they enter");
    let old = host::status();
    // Flags that the guest has set already may stay.
    if old & (TOP | SF | FLAGS & !fpu.status) != 0 {
        host::reset();
    }
    let empty = fpu.empty.rotate_right(u32::from(fpu.top));
    let valid = empty.trailing_zeros().min(8) as u8;
    let scattered = u16::from(empty) + (1 << valid) != 0x100;
    let at = |i: u8| &fpu.r[usize::from(fpu.top.wrapping_add(i) & 7)];
    let turn = if scattered {
        host::restore(&image_of(fpu));
        0
    } else {
        // What empty registers hold, and are emptied again; TOP is 0 there.
        for _ in 0..valid {
            host::step_back();
        }
        for i in (valid..8).rev() {
            host::push(at(i));
        }
        host::empty_all();
        for i in (0..valid).rev() {
            host::push(at(i));
        }
        fpu.top.wrapping_add(valid) & 7
    };
    host::set_control(fpu.control);
    cpu.x87_on_host = emu_core::exec::region::X87OnHost { turn, scattered, c1: false, codes: false };
    0
}

/// The guest's registers for FRSTOR, without any flags.
fn image_of(fpu: &FpuState) -> Image {
    let mut image = [0; 108];
    let tags = (0..8).fold(0u16, |tags, n| tags | (u16::from(fpu.empty >> n & 1) * 3) << (2 * n));
    image[0..2].copy_from_slice(&fpu.control.to_le_bytes());
    image[4..6].copy_from_slice(&(u16::from(fpu.top) << TOP.trailing_zeros()).to_le_bytes());
    image[8..10].copy_from_slice(&tags.to_le_bytes());
    for (i, bytes) in image[REGISTERS..].chunks_exact_mut(10).enumerate() {
        bytes.copy_from_slice(&fpu.r[(usize::from(fpu.top) + i) & 7].to_le_bytes());
    }
    image
}

/// The guest's status word without TOP, where the host's is `status`.
fn merged(cpu: &Vcpu, status: u16) -> u16 {
    let on_host = &cpu.x87_on_host;
    let theirs = if on_host.c1 { C1 } else { 0 } | if on_host.codes { CODES } else { 0 };
    let word = (cpu.state.fpu.status | status & (FLAGS | SF)) & !theirs | status & theirs;
    // An instruction that leaves C1 alone clears it where it finds an empty register.
    if !on_host.c1 && status & SF != 0 { word & !C1 } else { word }
}

/// The guest's status word, with TOP.
pub extern "C" fn status_word(cpu: &mut Vcpu, _: u64) -> u64 {
    let status = host::status();
    let top = top(status).wrapping_add(cpu.x87_on_host.turn) & 7;
    u64::from(merged(cpu, status) | u16::from(top) << TOP.trailing_zeros())
}

/// Takes the guest's state back from the host's x87 unit, which is empty then.
pub extern "C" fn leave(cpu: &mut Vcpu, _: u64) -> u64 {
    let status = host::status();
    let turn = cpu.x87_on_host.turn;
    let fpu_top = top(status).wrapping_add(turn) & 7;
    if status & SF != 0 || cpu.x87_on_host.scattered {
        let mut image = [0; 108];
        host::save(&mut image);
        let fpu = &mut cpu.state.fpu;
        let tags = u16::from_le_bytes([image[8], image[9]]);
        fpu.empty = (0..8).fold(0, |empty, n| empty | u8::from(tags >> (2 * n) & 3 == 3) << n).rotate_left(turn.into());
        for (i, bytes) in image[REGISTERS..].chunks_exact(10).enumerate() {
            let mut ten = [0; 10];
            ten.copy_from_slice(bytes);
            fpu.r[(usize::from(fpu_top) + i) & 7] = St::from_le_bytes(ten);
        }
    } else {
        let valid = match 8 - top(status) {
            8 if host::is_empty() => 0,
            valid => valid,
        };
        host::fill_all();
        let fpu = &mut cpu.state.fpu;
        for n in 0..8 {
            host::pop(&mut fpu.r[usize::from(turn.wrapping_add(n) & 7)]);
        }
        let empty = if valid == 8 { 0 } else { 0xff << valid };
        fpu.empty = u8::rotate_left(empty, u32::from(fpu_top));
    }
    cpu.state.fpu.status = merged(cpu, status);
    cpu.state.fpu.top = fpu_top;
    host::set_control(control::INITIAL);
    0
}

/// As [`execute`], between [`enter`] and [`leave`]; with another result than 0 the latter has been done.
pub extern "C" fn execute_in_x87(cpu: &mut Vcpu, insn: *const Insn) -> u64 {
    leave(cpu, 0);
    let result = execute(cpu, insn);
    if result != 0 {
        return result;
    }
    if !fits(&cpu.state.fpu) {
        // SAFETY: as in `execute`.
        return cpu.leave_region_behind(unsafe { &*insn });
    }
    enter(cpu, 0)
}

/// As [`execute_in_x87`], where the FPU that MXCSR controls is the guest's too.
pub extern "C" fn execute_in_both(cpu: &mut Vcpu, insn: *const Insn) -> u64 {
    super::out_of_float(cpu, insn, execute_in_x87)
}

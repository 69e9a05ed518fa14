//! What must agree, and what is let pass.

use crate::Way;
use crate::generate::Case;
use crate::native::{Fault, NO_FAULT, State};
use emu_tests::host::{Vendor, equally_right, vendor};
use iced_x86::{
    Code, CodeSize, CpuidFeature, Formatter, Instruction, Mnemonic as M, NasmFormatter, OpKind, RflagsBits,
};

/// The flags that are compared: arithmetic, TF, DF, NT, AC, ID.
const FLAGS: u64 = 0x0024_4dd5;
const REGISTERS: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// Whether the result itself is undefined: that of a double shift by more than its width (SDM Vol. 2B SHLD).
pub fn pointless(insn: &Instruction, input: &State) -> bool {
    let double = matches!(insn.mnemonic(), M::Shld | M::Shrd);
    let count = if insn.op2_kind() == OpKind::Register { input.gpr[1] as u8 } else { insn.immediate8() };
    double && insn.op1_register().size() == 2 && count & 31 > 16
}

/// The differences, a line each.
pub fn compare(
    insn: &Instruction,
    input: &State,
    (expected, expected_fault): (&State, Fault),
    (actual, actual_fault): (&State, Fault),
    differences: &mut Vec<String>,
) {
    // Whether bytes that are not selected fault is the processor's own (SDM Vol. 2B MASKMOVDQU).
    if expected_fault != NO_FAULT && matches!(insn.mnemonic(), M::Maskmovq | M::Maskmovdqu) {
        return;
    }
    // An x87 store whose exception is unmasked stores nothing, and need not look whether its segment could be written.
    if expected_fault == NO_FAULT && actual_fault.vector == 13 && word(expected, 2) & 0x80 != 0 {
        return;
    }
    // The host's single-step trap: the instruction set TF. The interpreter's comes one instruction later.
    if expected_fault.vector == 1 {
        return;
    }
    let foreign_host = vendor() != Vendor::Intel;
    if foreign_host
        && (foreign(insn)
            || foreign_underflow(insn, input)
            || foreign_fault(insn, expected_fault, actual_fault, word(actual, 2)))
    {
        return;
    }
    fault(insn, expected_fault, actual_fault, differences);
    // The upper halves are out of reach of 32-bit code, and what it leaves there is undefined.
    let seen = if insn.code_size() == CodeSize::Code32 { 0xffff_ffff } else { u64::MAX };
    if (expected.rip ^ actual.rip) & seen != 0 {
        differences.push(format!("rip: host {:x}, emu {:x}", expected.rip, actual.rip));
    }
    for (name, (host, emu)) in REGISTERS.iter().zip(expected.gpr.iter().zip(&actual.gpr)) {
        if (host ^ emu) & seen != 0 {
            differences.push(format!("{name}: host {host:x}, emu {emu:x}"));
        }
    }
    let compared = match expected_fault.vector {
        255 => FLAGS & !undefined(insn),
        // The interpreter may have been interrupted between two elements, for its budget.
        14 | 17 if insn.is_string_instruction() => FLAGS & !0x8d5,
        _ => FLAGS,
    };
    if (expected.flags ^ actual.flags) & compared != 0 {
        differences.push(format!(
            "flags: host {:x}, emu {:x}, before {:x}, compared {compared:x}",
            expected.flags & FLAGS,
            actual.flags & FLAGS,
            input.flags
        ));
    }
    fx(insn, expected_fault != NO_FAULT, expected, actual, differences);
}

fn undefined(insn: &Instruction) -> u64 {
    let mut bits = insn.rflags_undefined();
    // A count that is a multiple of the width and the carry rotates nothing; whether OF stays is the processor's own.
    if vendor() != Vendor::Intel && matches!(insn.mnemonic(), M::Rcl | M::Rcr) {
        bits |= RflagsBits::OF;
    }
    [
        (RflagsBits::OF, 0x800),
        (RflagsBits::SF, 0x80),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::AF, 0x10),
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 4),
    ]
    .iter()
    .filter(|(flag, _)| bits & flag != 0)
    .fold(0, |mask, (_, bit)| mask | bit)
}

fn fault(insn: &Instruction, mut expected: Fault, mut actual: Fault, differences: &mut Vec<String>) {
    if expected.vector == 14 {
        if (expected.address as i64) < 0 {
            // Linux reports every address of its own as present.
            expected.error &= !1;
            actual.error &= !1;
        }
    } else {
        expected.address = 0;
        actual.address = 0;
    }
    // Microcode reads and writes long images in an order of its own, so that the first fault may be another.
    if expected.vector == 14 && actual.vector == 14 && insn.memory_size().size() > 10 {
        return;
    }
    // Which of its two operands a string instruction looks at first is its own.
    if insn.is_string_instruction() && expected.vector == 17 && actual.vector == 14 {
        return;
    }
    // Where neither operand is there, most processors name the destination, and those with a fast short REPE CMPSB the source.
    let short = insn.mnemonic() == M::Cmpsb && insn.has_repe_prefix();
    if short && expected.vector == 14 && actual.vector == 14 && expected.error == actual.error {
        return;
    }
    // BOUND may compare with the lower bound before it reads the upper one.
    if insn.mnemonic() == M::Bound && expected.vector == 5 && actual.vector == 14 {
        return;
    }
    // A call to an address that is not canonical may fail at the stack first.
    if insn.mnemonic() == M::Call && actual.vector == 13 && matches!(expected.vector, 12 | 14) {
        return;
    }
    // The SDM leaves open which of the two a misaligned image or mask raises.
    let image = matches!(insn.mnemonic(), M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64);
    if image && expected.vector == 17 && actual.vector == 13 {
        return;
    }
    if !matches!(expected.vector, 10..=14 | 17) {
        expected.error = 0;
    }
    if expected != actual {
        differences.push(format!("fault: host {expected:x?}, emu {actual:x?}"));
    }
}

fn word(state: &State, at: usize) -> u16 {
    u16::from_le_bytes([state.fx.0[at], state.fx.0[at + 1]])
}

fn bytes<const N: usize>(state: &State, at: usize) -> [u8; N] {
    let mut r = [0; N];
    r.copy_from_slice(&state.fx.0[at..at + N]);
    r
}

fn fx(insn: &Instruction, faulted: bool, expected: &State, actual: &State, differences: &mut Vec<String>) {
    if expected.fx.0[..416] == actual.fx.0[..416] {
        return;
    }
    // An MMX instruction that faults may already have made TOP zero and the tags valid.
    let mmx = (0..insn.op_count()).any(|n| insn.op_register(n).is_mm());
    let x87 = !(mmx && faulted);
    let unimportant = if transcendental(insn) { 0x200 } else { 0 };
    let mut field = |name: &str, at: usize, mask: u16| {
        let (host, emu) = (word(expected, at) & mask, word(actual, at) & mask);
        if host != emu {
            differences.push(format!("{name}: host {host:x}, emu {emu:x}"));
        }
    };
    field("fcw", 0, 0xffff);
    if x87 {
        field("fsw", 2, !unimportant);
        field("ftw", 4, 0xff);
    }
    field("mxcsr", 24, 0xffff);
    for n in 0..8 {
        let (host, emu) = (bytes::<10>(expected, 32 + 16 * n), bytes::<10>(actual, 32 + 16 * n));
        if x87 && host != emu && !(transcendental(insn) && neighbours(host, emu)) {
            let show = |b: [u8; 10]| format!("{:x?}", b.iter().rev().collect::<Vec<_>>());
            differences.push(format!("st{n}: host {}, emu {}", show(host), show(emu)));
        }
    }
    for n in 0..16 {
        let (host, emu) = (bytes::<16>(expected, 160 + 16 * n), bytes::<16>(actual, 160 + 16 * n));
        if host != emu && !approximately(insn, host, emu) {
            let show = |b: [u8; 16]| format!("{:032x}", u128::from_le_bytes(b));
            differences.push(format!("xmm{n}: host {}, emu {}", show(host), show(emu)));
        }
    }
}

/// Instructions whose last bit, and so the direction of rounding in C1, is the processor's own.
fn transcendental(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fsin | M::Fcos | M::Fsincos | M::Fptan | M::Fpatan)
}

/// Whether two 80-bit values differ by one unit in the last place.
fn neighbours(host: [u8; 10], emu: [u8; 10]) -> bool {
    let ordered = |b: [u8; 10]| {
        let mut wide = [0; 16];
        wide[..10].copy_from_slice(&b);
        // Exponent and fraction as one number; the integer bit would leave a gap.
        let value = u128::from_le_bytes(wide);
        (value >> 64) << 63 | value & (u64::MAX >> 1) as u128
    };
    ordered(host).abs_diff(ordered(emu)) <= 1
}

/// Reciprocals are specified only to a relative error, from either's side; which NaN a dot product hands on, only
/// Intel's manuals say.
fn approximately(insn: &Instruction, host: [u8; 16], emu: [u8; 16]) -> bool {
    let dot = matches!(insn.mnemonic(), M::Dpps | M::Dppd);
    (!dot || vendor() != Vendor::Intel) && equally_right(insn.mnemonic(), host, emu)
}

/// Instructions that processors of other vendors than Intel do otherwise: some have no SERIALIZE, let 32-bit code try
/// SYSRET, leave out no opcode among the prefetches of 0F 0D (APM Vol. 3 PREFETCHlevel), read 32 bits for MOVSXD r16, and
/// take F3 with REX.B and 90h for an exchange.
fn foreign(insn: &Instruction) -> bool {
    let code = match insn.code() {
        Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D | Code::Reservednop_rm64_r64_0F0D => true,
        Code::Movsxd_r16_rm16 => insn.op1_kind() == OpKind::Memory,
        _ => false,
    };
    code || matches!(insn.mnemonic(), M::Serialize | M::Sysret | M::Sysretq | M::Pause)
}

/// FSCALE, FPREM and FPREM1 of a denormal operand with underflow unmasked: AMD's report an underflow, and wrap the
/// exponent, where Intel's hand the operand through.
fn foreign_underflow(insn: &Instruction, input: &State) -> bool {
    let denormal = |at: usize| word(input, at + 8) & 0x7fff == 0 && bytes::<8>(input, at) != [0; 8];
    let unmasked = word(input, 0) & 0x10 == 0;
    matches!(insn.mnemonic(), M::Fscale | M::Fprem | M::Fprem1) && unmasked && (denormal(32) || denormal(48))
}

/// Faults in which processors of other vendors than Intel differ.
fn foreign_fault(insn: &Instruction, expected: Fault, actual: Fault, status: u16) -> bool {
    let wide = insn.memory_size().size() == 16;
    // With AC set, unaligned operands of 16 bytes raise #AC too (APM Vol. 2 8.2.18).
    let aligned = wide && expected.vector == 17;
    // SHA instructions need no alignment.
    let sha = wide && actual.vector == 13 && insn.cpuid_features().contains(&CpuidFeature::SHA);
    // A store of the x87 looks at its destination before it finds that it has an unmasked exception to report.
    let store = expected != NO_FAULT && actual == NO_FAULT && status & 0x80 != 0;
    // A segment register is pushed in the whole width of the operand, where Intel's write its 16 bits.
    aligned || sha || store || segment_push(insn) || (misaligned_mask(insn) && actual.vector == 13)
}

/// Whether what is in memory may differ on a processor of another vendor than Intel.
fn foreign_memory(insn: &Instruction, fault: Fault) -> bool {
    foreign(insn) || segment_push(insn) || (insn.memory_size().size() == 16 && fault.vector == 17)
}

/// Instructions that load MXCSR, of which AMD's have bit 17, the mask for misaligned operands (APM Vol. 1 4.2.2).
fn misaligned_mask(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), M::Ldmxcsr | M::Fxrstor | M::Fxrstor64)
}

fn segment_push(insn: &Instruction) -> bool {
    insn.mnemonic() == M::Push && insn.op0_register().is_segment_register()
}

/// Compares the writable data pages.
pub fn memory(insn: &Instruction, fault: Fault, host: &[u8], emu: &[u8], differences: &mut Vec<String>) {
    // Operands of more than 8 bytes may be written in parts, of which the first can stay when the second faults.
    // A call to an address that is not canonical may have written its return address.
    let masked = fault != NO_FAULT && matches!(insn.mnemonic(), M::Maskmovq | M::Maskmovdqu);
    let partial = match fault.vector {
        _ if masked => true,
        14 => insn.memory_size().size() > 8 || matches!(insn.mnemonic(), M::Enter | M::Pusha | M::Pushad),
        13 => insn.mnemonic() == M::Call,
        _ => false,
    } || (vendor() != Vendor::Intel && foreign_memory(insn, fault));
    if host == emu || partial {
        return;
    }
    let first = host.iter().zip(emu).position(|(h, e)| h != e).unwrap_or(0);
    let last = host.iter().zip(emu).rposition(|(h, e)| h != e).unwrap_or(0);
    // The last instruction and operand, and the mask of MXCSR, at +6 to +31 of the image (APM Vol. 5 FXSAVE).
    if vendor() != Vendor::Intel && matches!(insn.mnemonic(), M::Fxsave | M::Fxsave64) && last - first < 26 {
        return;
    }
    let end = (first + 16).min(host.len());
    differences.push(format!("memory at +{first:x}: host {:x?}, emu {:x?}", &host[first..end], &emu[first..end]));
}

/// Prints a difference so that it can be repeated.
pub fn explain(n: u64, round: u64, way: Way, case: &Case, input: &State, fault: Fault, differences: &[String]) {
    let mut text = String::new();
    NasmFormatter::new().format(&case.insn, &mut text);
    println!("ORACLE_ONLY={n} state {round} ({way:?}): {:02x?} {text}", case.bytes);
    if fault != NO_FAULT {
        println!("    the host raises {fault:x?}");
    }
    for difference in differences {
        println!("    {difference}");
    }
    let named = |n: usize| format!("{}={:x}", REGISTERS[n], input.gpr[n]);
    println!("    in: {} flags={:x}", (0..16).map(named).collect::<Vec<_>>().join(" "), input.flags);
    println!(
        "    in: fcw={:x} fsw={:x} ftw={:x} mxcsr={:x}",
        word(input, 0),
        word(input, 2),
        input.fx.0[4],
        word(input, 24)
    );
    for operand in 0..case.insn.op_count() {
        let register = case.insn.op_register(operand);
        if register.is_xmm() {
            let value = u128::from_le_bytes(bytes::<16>(input, 160 + 16 * register.number()));
            println!("    in: xmm{}={value:032x}", register.number());
        } else if register.is_st() || register.is_mm() {
            // Registers are stored relative to TOP.
            let at = if register.is_st() {
                register.number()
            } else {
                (register.number() + 8 - usize::from(word(input, 2) >> 11 & 7)) % 8
            };
            println!("    in: {register:?}={:02x?}", bytes::<10>(input, 32 + 16 * at));
        }
    }
    if case.insn.mnemonic() as u32 >= M::F2xm1 as u32 && case.insn.mnemonic() as u32 <= M::Fyl2xp1 as u32 {
        println!("    in: st0={:02x?} st1={:02x?}", bytes::<10>(input, 32), bytes::<10>(input, 48));
    }
}

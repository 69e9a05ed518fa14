//! Random instructions and random states to run them in.
//!
//! An instruction is made from its table entry: prefixes, opcode and group as iced-x86 lists them, everything else
//! random bytes. What decodes to the wanted code is kept. Registers are then chosen so that its memory operand lies in
//! the data pages most of the time.

use crate::native::{Fx, State};
use crate::{DATA, DATA_BYTES, DATA_WRITABLE, LEAD, SLOT, SLOTS, TAKEN};
use emu_core::cpu::model::CpuModel;
use fastrand::Rng;
use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, EncodingKind, FlowControl, Instruction, MandatoryPrefix, Mnemonic,
    OpCodeOperandKind, OpCodeTableKind, OpKind, Register,
};

/// An instruction in its slot.
#[derive(Clone)]
pub struct Case {
    pub bytes: Vec<u8>,
    pub insn: Instruction,
    /// 32 or 64.
    pub bits: u32,
}

/// Bytes to put into the data pages before an instruction runs.
pub type Patches = Vec<(usize, [u8; 16])>;

/// The codes that can be compared: those of 64-bit or 32-bit code that the model and the host have, without those that depend on
/// the operating system, on time, or on descriptor tables.
pub fn codes(bits: u32) -> Vec<Code> {
    let model = CpuModel::max();
    Code::values().filter(|code| eligible(*code, bits, &model)).collect()
}

fn eligible(code: Code, bits: u32, model: &CpuModel) -> bool {
    use Mnemonic as M;
    let info = code.op_code();
    if !info.is_instruction()
        || !(if bits == 64 { info.intel_decoder64() } else { info.intel_decoder32() })
        || code == Code::Ud0
    {
        return false;
    }
    let features = code.cpuid_features();
    if !features.iter().all(|f| model.has(*f) && host_has(*f)) {
        return false;
    }
    match info.encoding() {
        EncodingKind::Legacy => {}
        EncodingKind::VEX if features.iter().any(|f| matches!(f, CpuidFeature::BMI1 | CpuidFeature::BMI2)) => {}
        _ => return false,
    }
    let excluded = matches!(
        code.mnemonic(),
        // They leave for the operating system, or for a debugger.
        M::Syscall | M::Sysenter | M::Int | M::Into | M::Int1 | M::Int3
        // They depend on time, on the processor's name, or on chance.
        | M::Rdtsc | M::Rdtscp | M::Rdpmc | M::Cpuid | M::Rdrand | M::Rdseed | M::Rdpid | M::Xgetbv
        // The host's state components are others.
        | M::Xsave | M::Xsave64 | M::Xsaveopt | M::Xsaveopt64 | M::Xsavec | M::Xsavec64 | M::Xrstor | M::Xrstor64
        | M::Xsaves | M::Xsaves64 | M::Xrstors | M::Xrstors64
        // Segments and descriptor tables are the host's.
        | M::Iret | M::Iretd | M::Iretq | M::Retf | M::Lsl | M::Lar | M::Verr | M::Verw | M::Sgdt | M::Sidt | M::Sldt
        | M::Str | M::Smsw | M::Rdfsbase | M::Wrfsbase | M::Wrgsbase | M::Rdgsbase | M::Lfs | M::Lgs | M::Lss | M::Lds | M::Les
        // Transactions and monitors.
        | M::Xbegin | M::Xend | M::Xabort | M::Xtest | M::Umonitor | M::Umwait | M::Tpause | M::Monitor | M::Mwait
        // Not an instruction of its own: WAIT and what follows.
        | M::Fclex | M::Finit | M::Fsave | M::Fstenv | M::Fstcw | M::Fstsw | M::Fstdw | M::Fstsg | M::Fdisi | M::Feni
        | M::Fsetpm | M::Frstpm
    ) || matches!(
        code,
        Code::Mov_Sreg_rm16
            | Code::Mov_Sreg_r32m16
            | Code::Mov_Sreg_r64m16
            | Code::Popw_FS
            | Code::Popw_GS
            | Code::Popq_FS
            | Code::Popq_GS
            | Code::Popd_FS
            | Code::Popd_GS
            | Code::Popw_ES
            | Code::Popd_ES
            | Code::Popw_SS
            | Code::Popd_SS
            | Code::Popw_DS
            | Code::Popd_DS
            | Code::Jmp_ptr1616
            | Code::Jmp_ptr1632
            | Code::Call_ptr1616
            | Code::Call_ptr1632
            | Code::Jmp_m1616
            | Code::Jmp_m1632
            | Code::Jmp_m1664
            | Code::Call_m1616
            | Code::Call_m1632
            | Code::Call_m1664
    );
    !excluded
}

fn host_has(feature: CpuidFeature) -> bool {
    match feature {
        CpuidFeature::SSSE3 => is_x86_feature_detected!("ssse3"),
        CpuidFeature::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        CpuidFeature::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        CpuidFeature::AES => is_x86_feature_detected!("aes"),
        CpuidFeature::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        CpuidFeature::SHA => is_x86_feature_detected!("sha"),
        CpuidFeature::BMI1 => is_x86_feature_detected!("bmi1"),
        CpuidFeature::BMI2 => is_x86_feature_detected!("bmi2"),
        CpuidFeature::ADX => is_x86_feature_detected!("adx"),
        CpuidFeature::POPCNT => is_x86_feature_detected!("popcnt"),
        CpuidFeature::LZCNT => is_x86_feature_detected!("lzcnt"),
        CpuidFeature::MOVBE => is_x86_feature_detected!("movbe"),
        _ => true,
    }
}

/// A random encoding of `code` at `address`; `None` if none was found.
pub fn encode(code: Code, bits: u32, address: u64, rng: &mut Rng) -> Option<Case> {
    (0..1000).find_map(|_| attempt(code, bits, address, rng))
}

fn attempt(code: Code, bits: u32, address: u64, rng: &mut Rng) -> Option<Case> {
    let info = code.op_code();
    let mut bytes = Vec::with_capacity(40);
    if rng.u8(..16) == 0 {
        bytes.push([0x26, 0x2e, 0x36, 0x3e, 0x65, 0x65][rng.usize(..if bits == 64 { 6 } else { 4 })]);
    }
    if info.address_size() == bits / 2 || rng.u8(..12) == 0 {
        bytes.push(0x67);
    }
    let wide = info.operand_size() == 64 || info.w() == 1;
    if info.encoding() == EncodingKind::VEX {
        let map = match info.table() {
            OpCodeTableKind::T0F => 1,
            OpCodeTableKind::T0F38 => 2,
            _ => 3,
        };
        let pp = match info.mandatory_prefix() {
            MandatoryPrefix::P66 => 1,
            MandatoryPrefix::PF3 => 2,
            MandatoryPrefix::PF2 => 3,
            _ => 0,
        };
        bytes.extend_from_slice(&[
            0xc4,
            (if bits == 64 { rng.u8(..) & 0xe0 } else { 0xe0 }) | map,
            u8::from(wide) << 7 | ((if bits == 64 { rng.u8(..16) } else { rng.u8(8..16) }) << 3) | pp,
        ]);
        bytes.push(info.op_code() as u8);
    } else {
        if info.operand_size() == 16 {
            bytes.push(0x66);
        }
        match info.mandatory_prefix() {
            MandatoryPrefix::P66 => bytes.push(0x66),
            MandatoryPrefix::PF3 => bytes.push(0xf3),
            MandatoryPrefix::PF2 => bytes.push(0xf2),
            _ => match rng.u8(..4) {
                0 | 1 if info.can_use_rep_prefix() => bytes.push(0xf3),
                2 if info.can_use_repne_prefix() => bytes.push(0xf2),
                _ => {}
            },
        }
        if info.can_use_lock_prefix() && rng.u8(..3) == 0 {
            bytes.push(0xf0);
        }
        if bits == 64 && (wide || rng.bool()) {
            bytes.push(0x40 | u8::from(wide) << 3 | rng.u8(..8));
        }
        match info.table() {
            OpCodeTableKind::T0F => bytes.push(0x0f),
            OpCodeTableKind::T0F38 => bytes.extend_from_slice(&[0x0f, 0x38]),
            OpCodeTableKind::T0F3A => bytes.extend_from_slice(&[0x0f, 0x3a]),
            _ => {}
        }
        let opcode = info.op_code();
        let in_opcode = info.op_kinds().iter().any(|kind| {
            use OpCodeOperandKind as K;
            matches!(kind, K::r8_opcode | K::r16_opcode | K::r32_opcode | K::r64_opcode | K::sti_opcode)
        });
        let number = if in_opcode { rng.u32(..8) } else { 0 };
        if info.op_code_len() == 2 {
            bytes.push((opcode >> 8) as u8);
        }
        bytes.push((opcode + number) as u8);
    }
    let mut modrm = rng.u8(..);
    if rng.u8(..3) == 0 {
        modrm |= 0xc0;
    }
    if info.is_group() {
        modrm = modrm & 0xc7 | (info.group_index() as u8) << 3;
    }
    if info.is_rm_group() {
        modrm = modrm & 0xf8 | info.rm_group_index() as u8;
    }
    bytes.push(modrm);
    for _ in 0..16 {
        bytes.push(rng.u8(..));
    }
    let mut decoder = Decoder::with_ip(bits, &bytes, address, DecoderOptions::NONE);
    let mut insn = decoder.decode();
    if insn.code() != code
        || insn.segment_prefix() == Register::FS
        || (bits == 32 && insn.segment_prefix() == Register::GS)
    {
        return None;
    }
    let offsets = decoder.get_constant_offsets(&insn);
    // Relative jumps go to the slot's other way out, RIP-relative operands and absolute addresses to the data pages.
    let branch = (0..insn.op_count())
        .any(|n| matches!(insn.op_kind(n), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64));
    if branch {
        let distance = (address + TAKEN).wrapping_sub(insn.next_ip());
        let size = offsets.immediate_size();
        bytes[offsets.immediate_offset()..][..size].copy_from_slice(&distance.to_le_bytes()[..size]);
    }
    let absolute = insn.memory_base() == Register::None && insn.memory_index() == Register::None;
    if offsets.displacement_size() >= 4 && (insn.is_ip_rel_memory_operand() || absolute) {
        let target = target(&insn, rng);
        let value = if insn.is_ip_rel_memory_operand() { target.wrapping_sub(insn.next_ip()) } else { target };
        let size = offsets.displacement_size();
        bytes[offsets.displacement_offset()..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
    }
    bytes.truncate(insn.len());
    insn = Decoder::with_ip(bits, &bytes, address, DecoderOptions::NONE).decode();
    (insn.code() == code).then_some(Case { bytes, insn, bits })
}

/// Where a memory operand should lie: anywhere in the data pages, mostly aligned, sometimes across their borders.
fn target(insn: &Instruction, rng: &mut Rng) -> u64 {
    let size = insn.memory_size().size().max(1) as u64;
    let align = if rng.u8(..5) == 0 { 1 } else { size.next_power_of_two().min(64) };
    match rng.u8(..24) {
        // Across the two writable pages.
        0 | 1 => DATA + 0x1000 - rng.u64(0..=size),
        // Around the border to the page that is only readable.
        2 => DATA + DATA_WRITABLE as u64 - rng.u64(0..=size),
        // Around the end.
        3 => DATA + DATA_BYTES as u64 - rng.u64(0..=size),
        _ => (DATA + rng.u64(512..DATA_WRITABLE as u64 - 1024)) & !(align - 1),
    }
}

/// Values that arithmetic treats specially, and any others.
pub fn integer(rng: &mut Rng) -> u64 {
    match rng.u8(..12) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << rng.u32(..64),
        3 => (1 << rng.u32(..64)) - 1,
        4 => rng.u64(..256),
        5 => (rng.u64(..256) as i64 - 128) as u64,
        6 => u64::from(rng.u32(..)),
        7 => [0x7f, 0x80, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000, 1 << 63, u64::MAX >> 1][rng.usize(..8)],
        8 => rng.u64(..) & rng.u64(..) & rng.u64(..),
        _ => rng.u64(..),
    }
}

fn single(rng: &mut Rng) -> u32 {
    let sign = rng.u32(..2) << 31;
    sign | match rng.u8(..10) {
        0 => 0,
        1 => 0x3f80_0000,
        2 => 0x7f80_0000,
        3 => 0x7fc0_0000 | rng.u32(..1 << 22),
        4 => 0x7f80_0001 | rng.u32(..1 << 21),
        5 => rng.u32(..1 << 23),
        6 => 0x7f7f_ffff,
        7 => (rng.i32(-1000..1000) as f32 / 4.0).abs().to_bits(),
        8 => 0x4b00_0000 + rng.u32(..0x0500_0000),
        _ => rng.u32(..1 << 31),
    }
}

fn double(rng: &mut Rng) -> u64 {
    let sign = rng.u64(..2) << 63;
    sign | match rng.u8(..10) {
        0 => 0,
        1 => 0x3ff << 52,
        2 => 0x7ff << 52,
        3 => 0x7ff8 << 48 | rng.u64(..1 << 51),
        4 => 0x7ff << 52 | 1 | rng.u64(..1 << 50),
        5 => rng.u64(..1 << 52),
        6 => 0x7fef_ffff_ffff_ffff,
        7 => (f64::from(rng.i32(-1000..1000)) / 4.0).abs().to_bits(),
        8 => (0x41c + rng.u64(..40)) << 52 | rng.u64(..1 << 52),
        _ => rng.u64(..1 << 63),
    }
}

fn extended(rng: &mut Rng) -> (u16, u64) {
    let sign = rng.u16(..2) << 15;
    let one = 1u64 << 63;
    let (exponent, significand) = match rng.u8(..14) {
        0 => (0, 0),
        1 => (0x3fff, one),
        2 => (0x7fff, one),
        3 => (0x7fff, 3 << 62 | rng.u64(..)),
        4 => (0x7fff, one | 1 | rng.u64(..1 << 61)),
        5 => (0, rng.u64(..1 << 63)),
        6 => (0, one | rng.u64(..)),
        7 => (rng.u16(1..0x7fff), rng.u64(..1 << 63)),
        8 => (0x7ffe, u64::MAX),
        9 => (0x3fff + rng.u16(..64), one | rng.u64(..)),
        10 => (0x3fff + rng.u16(..16), one | rng.u64(..256) << 55),
        11 => (0x3fff - rng.u16(..32), one | rng.u64(..)),
        _ => (rng.u16(..0x8000), one | rng.u64(..)),
    };
    (sign | exponent, significand)
}

/// Sixteen bytes of one kind of value.
pub fn vector(rng: &mut Rng) -> [u8; 16] {
    let value = match rng.u8(..6) {
        0 | 1 => (0..4).fold(0, |v, _| v << 32 | u128::from(single(rng))),
        2 | 3 => (0..2).fold(0, |v, _| v << 64 | u128::from(double(rng))),
        4 => (0..2).fold(0, |v, _| v << 64 | u128::from(integer(rng))),
        _ => rng.u128(..),
    };
    value.to_le_bytes()
}

/// A random FXSAVE image.
pub fn fx(rng: &mut Rng) -> Fx {
    let mut fx = Fx([0; 512]);
    let b = &mut fx.0;
    let masks = if rng.u8(..4) != 0 { 0x3f } else { rng.u16(..0x40) };
    let control = 0x40 | masks | [0u16, 2, 3, 3, 3][rng.usize(..5)] << 8 | rng.u16(..4) << 10;
    let top = rng.u16(..8);
    let mut status = rng.u16(..8) << 8 | rng.u16(..2) << 14 | top << 11;
    if rng.u8(..3) == 0 {
        status |= rng.u16(..0x80);
    }
    if status & !control & 0x3f != 0 {
        // An exception is pending. That is a test of its own, and a slow one.
        if rng.u8(..8) == 0 {
            status |= 0x8080;
        } else {
            status &= !0x7f;
        }
    }
    b[0..2].copy_from_slice(&control.to_le_bytes());
    b[2..4].copy_from_slice(&status.to_le_bytes());
    b[4] = if rng.u8(..3) == 0 { rng.u8(..) } else { 0xff };
    for n in 0..8 {
        let (sign_exp, significand) = extended(rng);
        b[32 + 16 * n..][..8].copy_from_slice(&significand.to_le_bytes());
        b[40 + 16 * n..][..2].copy_from_slice(&sign_exp.to_le_bytes());
    }
    let masks = if rng.u8(..6) != 0 { 0x1f80 } else { rng.u32(..0x40) << 7 };
    let mxcsr = masks | rng.u32(..4) << 13 | (rng.u32(..0x40) * u32::from(rng.bool()));
    let modes = [0, 0, 0x40, 0x8000, 0x8040][rng.usize(..5)];
    b[24..28].copy_from_slice(&(mxcsr | modes).to_le_bytes());
    for n in 0..16 {
        b[160 + 16 * n..][..16].copy_from_slice(&vector(rng));
    }
    fx
}

/// A state for `case`, and what the data pages must hold for it. `pool` holds FXSAVE images.
pub fn state(case: &Case, pool: &[Fx], gs_base: u64, rng: &mut Rng) -> (State, Patches) {
    let insn = &case.insn;
    let address = insn.ip();
    let mut s = State { fx: pool[rng.usize(..pool.len())], gpr: [0; 16], rip: address, flags: 0 };
    for value in &mut s.gpr {
        *value = integer(rng);
    }
    let mut patches = Patches::new();
    // CF, PF, AF, ZF, SF, OF at random; rarely DF, AC.
    s.flags = 0x202 | rng.u64(..) & 0x8d5;
    if rng.u8(..8) == 0 {
        s.flags |= 0x400;
    }
    if rng.u8(..64) == 0 {
        s.flags |= 0x4_0000;
    }
    let taken = address + TAKEN;
    s.gpr[4] = target_stack(rng);
    let mut jump = [0; 16];
    jump[..8].copy_from_slice(&taken.to_le_bytes());

    implied(insn, &mut s, rng);
    let operand = aim(insn, &mut s, gs_base, rng);
    if let Some(at) = operand {
        let bytes = if insn.flow_control() != FlowControl::Next { jump } else { vector(rng) };
        patch(&mut patches, at, bytes);
    }
    match insn.flow_control() {
        FlowControl::IndirectBranch | FlowControl::IndirectCall if insn.op0_kind() == OpKind::Register => {
            s.gpr[insn.op0_register().number()] = taken;
        }
        FlowControl::Return => patch(&mut patches, s.gpr[4], jump),
        _ => {}
    }
    if case.bits == 32 {
        s.gpr.iter_mut().for_each(|value| *value &= 0xffff_ffff);
        s.gpr[8..].fill(0);
    }
    (s, patches)
}

fn patch(patches: &mut Patches, at: u64, bytes: [u8; 16]) {
    let offset = at.wrapping_sub(DATA);
    if offset <= (DATA_WRITABLE - 16) as u64 {
        patches.push((offset as usize, bytes));
    }
}

fn target_stack(rng: &mut Rng) -> u64 {
    match rng.u8(..32) {
        0 => DATA + 0x1000 - rng.u64(..16),
        1 => DATA + rng.u64(..16),
        2 => DATA + DATA_WRITABLE as u64 - rng.u64(..16),
        n => (DATA + rng.u64(0x400..0x1c00)) & if n < 8 { u64::MAX } else { !7 },
    }
}

/// Registers that instructions use without naming them.
fn implied(insn: &Instruction, s: &mut State, rng: &mut Rng) {
    use Mnemonic as M;
    let area = |rng: &mut Rng| (DATA + rng.u64(0x400..0x1c00)) & if rng.bool() { u64::MAX } else { !7 };
    let string = insn.is_string_instruction();
    if string || matches!(insn.mnemonic(), M::Maskmovq | M::Maskmovdqu) {
        s.gpr[6] = area(rng);
        s.gpr[7] = area(rng);
        if insn.has_rep_prefix() || insn.has_repne_prefix() {
            s.gpr[1] = if rng.u8(..40) == 0 { rng.u64(..5000) } else { rng.u64(..20) };
            if rng.bool() {
                // Something to find.
                s.gpr[0] &= 3;
            }
        }
    }
    match insn.mnemonic() {
        M::Leave | M::Enter => s.gpr[5] = area(rng),
        M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz | M::Jrcxz => {
            s.gpr[1] = [0, 1, 2, 1 << 32, 0x1_0001_0000, rng.u64(..)][rng.usize(..6)];
        }
        M::Div | M::Idiv if rng.u8(..4) != 0 => {
            // Quotients that fit.
            s.gpr[2] = if rng.bool() { 0 } else { rng.u64(..16) };
        }
        M::Pcmpestri | M::Pcmpestrm | M::Pcmpestri64 | M::Pcmpestrm64 => {
            s.gpr[0] = (rng.u64(..40) as i64 - 20) as u64;
            s.gpr[2] = (rng.u64(..40) as i64 - 20) as u64;
        }
        M::Bt | M::Bts | M::Btr | M::Btc => {
            // The bit offset moves the operand.
            for n in (0..16).filter(|n| *n != 4) {
                if insn.op1_kind() == OpKind::Register && insn.op1_register().number() == n {
                    s.gpr[n] = (rng.u64(..4000) as i64 - 2000) as u64;
                }
            }
        }
        M::Cmpxchg if insn.op0_kind() == OpKind::Register && rng.bool() => {
            s.gpr[0] = s.gpr[insn.op0_register().number() & 15];
        }
        _ => {}
    }
}

/// Sets base and index so that the memory operand lies at a [`target`], which is returned.
fn aim(insn: &Instruction, s: &mut State, gs_base: u64, rng: &mut Rng) -> Option<u64> {
    if !(0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory) {
        return None;
    }
    let (base, index) = (insn.memory_base(), insn.memory_index());
    if insn.is_ip_rel_memory_operand() || (base == Register::None && index == Register::None) {
        return Some(insn.memory_displacement64());
    }
    let at = target(insn, rng);
    let mut sum = at.wrapping_sub(insn.memory_displacement64());
    if insn.memory_segment() == Register::GS {
        sum = sum.wrapping_sub(gs_base);
    }
    let scale = u64::from(insn.memory_index_scale());
    let narrow = base.size() == 4 || index.size() == 4;
    let mut set = |register: Register, value: u64, rng: &mut Rng| {
        // With 32-bit addresses the upper half is ignored.
        let high = if narrow && rng.bool() { rng.u64(..) << 32 } else { 0 };
        s.gpr[register.number() & 15] = if narrow { value & 0xffff_ffff | high } else { value };
    };
    match (base != Register::None, index != Register::None) {
        (true, true) if base.full_register() == index.full_register() => {
            let value = sum / (scale + 1);
            set(base, value, rng);
            return Some(value.wrapping_mul(scale + 1).wrapping_add(at.wrapping_sub(sum)));
        }
        (true, true) => {
            let value = match rng.u8(..3) {
                0 => rng.u64(..64),
                1 => (rng.u64(..64) as i64 - 32) as u64,
                _ => u64::from(rng.u32(..)),
            };
            // XLAT's.
            let value = if index.size() == 1 { value & 0xff } else { value };
            set(index, value, rng);
            set(base, sum.wrapping_sub(value.wrapping_mul(scale)), rng);
        }
        (true, false) => set(base, sum, rng),
        _ => {
            set(index, sum / scale, rng);
            return Some((sum / scale).wrapping_mul(scale).wrapping_add(at.wrapping_sub(sum)));
        }
    }
    Some(at)
}

/// Where instruction `n` lies in its slot.
pub fn slot(n: u64) -> u64 {
    crate::CODE + n % SLOTS * SLOT + LEAD
}

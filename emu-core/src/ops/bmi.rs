//! Bit manipulation: BMI1, BMI2, ADX, POPCNT, LZCNT, TZCNT, CRC32, MOVBE; and MOVNTI (SDM Vol. 2, one page each).

use super::Exec;
use crate::cpu::Width;
use crate::cpu::fault::Fault;
use crate::cpu::regs::{RDX, RegFile};
use crate::cpu::rflags::{CF, FlagOp, OF, ZF};
use crate::decode::insn::{Insn, Kind};
use crate::exec::Vcpu;
use crate::mmu::walk::Access;
use iced_x86::Mnemonic;

/// The rows of this group.
pub fn exec(m: Mnemonic) -> Option<Exec> {
    Some(match m {
        Mnemonic::Andn => andn,
        Mnemonic::Bextr => bextr,
        Mnemonic::Blsi => blsi,
        Mnemonic::Blsmsk => blsmsk,
        Mnemonic::Blsr => blsr,
        Mnemonic::Bzhi => bzhi,
        Mnemonic::Mulx => mulx,
        Mnemonic::Pdep => pdep,
        Mnemonic::Pext => pext,
        Mnemonic::Rorx => rorx,
        Mnemonic::Sarx => sarx,
        Mnemonic::Shlx => shlx,
        Mnemonic::Shrx => shrx,
        Mnemonic::Adcx => adcx,
        Mnemonic::Adox => adox,
        Mnemonic::Popcnt => popcnt,
        Mnemonic::Lzcnt => lzcnt,
        Mnemonic::Tzcnt => tzcnt,
        Mnemonic::Crc32 => crc32,
        Mnemonic::Movbe => movbe,
        Mnemonic::Movnti => movnti,
        _ => return None,
    })
}

/// Reads operand `n`, zero-extended from `width`.
fn read(cpu: &mut Vcpu, insn: &Insn, n: usize, width: Width) -> Result<u64, Fault> {
    let operand = insn.ops[n];
    if operand.kind == Kind::Gpr {
        return Ok(cpu.state.regs.get(operand.reg, width));
    }
    let linear = cpu.linear(insn, width.bytes(), Access::Read)?;
    cpu.load_width(linear, width)
}

fn write(cpu: &mut Vcpu, insn: &Insn, n: usize, value: u64) {
    cpu.state.regs.set(insn.ops[n].reg, insn.width, value);
}

/// VEX encodings do not exist in real-address and virtual-8086 mode (SDM Vol. 2A 2.9, exception type 13).
fn vex(cpu: &Vcpu) -> Result<(), Fault> {
    if cpu.state.real_or_v86() { Err(Fault::ud()) } else { Ok(()) }
}

/// SF and ZF of `result`, CF as given, OF clear.
fn set_flags(cpu: &mut Vcpu, width: Width, result: u64, carry: bool) {
    cpu.state.flags.set(FlagOp::Parts, 0, if carry { CF } else { 0 }, width.sext(result));
}

fn andn(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    vex(cpu)?;
    let y = read(cpu, insn, 2, insn.width)?;
    let result = !read(cpu, insn, 1, insn.width)? & y;
    write(cpu, insn, 0, result);
    set_flags(cpu, insn.width, result, false);
    Ok(())
}

/// BLSI, BLSMSK, BLSR: a function of the source, and the carry.
fn lowest_bit(cpu: &mut Vcpu, insn: &Insn, f: impl Fn(u64) -> (u64, bool)) -> Result<(), Fault> {
    vex(cpu)?;
    let x = read(cpu, insn, 1, insn.width)?;
    let (result, carry) = f(x);
    write(cpu, insn, 0, result & insn.width.mask());
    set_flags(cpu, insn.width, result, carry);
    Ok(())
}

fn blsi(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    lowest_bit(cpu, insn, |x| (x & x.wrapping_neg(), x != 0))
}

fn blsmsk(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    lowest_bit(cpu, insn, |x| (x ^ x.wrapping_sub(1), x == 0))
}

fn blsr(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    lowest_bit(cpu, insn, |x| (x & x.wrapping_sub(1), x == 0))
}

/// Start in bits 7:0 of operand 2, length in 15:8.
fn bextr(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    vex(cpu)?;
    let x = read(cpu, insn, 1, insn.width)?;
    let control = read(cpu, insn, 2, insn.width)?;
    let (start, length) = (control as u8, (control >> 8) as u8);
    let shifted = x.checked_shr(u32::from(start)).unwrap_or(0);
    let result = shifted & low_bits(u32::from(length));
    write(cpu, insn, 0, result);
    // SF is undefined, and clear on known processors.
    cpu.state.flags.set_bits(if result == 0 { ZF } else { 0 });
    Ok(())
}

fn low_bits(count: u32) -> u64 {
    1u64.checked_shl(count).map_or(u64::MAX, |bit| bit - 1)
}

fn bzhi(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    vex(cpu)?;
    let x = read(cpu, insn, 1, insn.width)?;
    let index = u32::from(read(cpu, insn, 2, insn.width)? as u8);
    let result = x & low_bits(index);
    write(cpu, insn, 0, result);
    set_flags(cpu, insn.width, result, index > insn.width.bits() - 1);
    Ok(())
}

fn mulx(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    vex(cpu)?;
    let y = read(cpu, insn, 2, insn.width)?;
    let x = cpu.state.regs.get(RegFile::slot(RDX), insn.width);
    let product = u128::from(x) * u128::from(y);
    // If both destinations are the same register, it gets the high half.
    write(cpu, insn, 1, product as u64 & insn.width.mask());
    write(cpu, insn, 0, (product >> insn.width.bits()) as u64);
    Ok(())
}

/// Bits of the source, in order, to the places where the mask has ones.
fn pdep(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    vex(cpu)?;
    let mut mask = read(cpu, insn, 2, insn.width)?;
    let mut x = read(cpu, insn, 1, insn.width)?;
    let mut result = 0;
    while mask != 0 {
        let place = mask & mask.wrapping_neg();
        result |= place * (x & 1);
        x >>= 1;
        mask ^= place;
    }
    write(cpu, insn, 0, result);
    Ok(())
}

/// Bits of the source where the mask has ones, packed together.
fn pext(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    vex(cpu)?;
    let mut mask = read(cpu, insn, 2, insn.width)?;
    let x = read(cpu, insn, 1, insn.width)?;
    let mut result = 0;
    let mut place = 0;
    while mask != 0 {
        result |= (x >> mask.trailing_zeros() & 1) << place;
        place += 1;
        mask &= mask - 1;
    }
    write(cpu, insn, 0, result);
    Ok(())
}

fn rorx(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    vex(cpu)?;
    let x = read(cpu, insn, 1, insn.width)?;
    let result = match insn.width {
        Width::B8 => x.rotate_right(insn.imm as u32 & 63),
        _ => u64::from((x as u32).rotate_right(insn.imm as u32 & 31)),
    };
    write(cpu, insn, 0, result);
    Ok(())
}

fn shift(cpu: &mut Vcpu, insn: &Insn, f: impl Fn(u64, u32) -> u64) -> Result<(), Fault> {
    vex(cpu)?;
    let x = read(cpu, insn, 1, insn.width)?;
    let count = read(cpu, insn, 2, insn.width)? as u32 & (insn.width.bits() - 1);
    write(cpu, insn, 0, f(x, count) & insn.width.mask());
    Ok(())
}

fn sarx(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    shift(cpu, insn, |x, count| (insn.width.sext(x) as i64 >> count) as u64)
}

fn shlx(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    shift(cpu, insn, |x, count| x << count)
}

fn shrx(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    shift(cpu, insn, |x, count| x >> count)
}

/// ADCX and ADOX: an addition whose carry in and out is the flag of `mask`.
fn add_with(cpu: &mut Vcpu, insn: &Insn, mask: u64, carry: bool) -> Result<(), Fault> {
    let y = read(cpu, insn, 1, insn.width)?;
    let x = read(cpu, insn, 0, insn.width)?;
    let sum = u128::from(x) + u128::from(y) + u128::from(carry);
    write(cpu, insn, 0, sum as u64 & insn.width.mask());
    let out = sum >> insn.width.bits() != 0;
    cpu.state.flags.replace(mask, if out { mask } else { 0 });
    Ok(())
}

fn adcx(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let carry = cpu.state.flags.cf();
    add_with(cpu, insn, CF, carry)
}

fn adox(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let carry = cpu.state.flags.of();
    add_with(cpu, insn, OF, carry)
}

fn popcnt(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let x = read(cpu, insn, 1, insn.width)?;
    write(cpu, insn, 0, u64::from(x.count_ones()));
    cpu.state.flags.set_bits(if x == 0 { ZF } else { 0 });
    Ok(())
}

/// LZCNT and TZCNT: CF for a zero source, ZF for a zero result.
fn zeros(cpu: &mut Vcpu, insn: &Insn, f: impl Fn(u64) -> u32) -> Result<(), Fault> {
    let x = read(cpu, insn, 1, insn.width)?;
    let result = f(x);
    write(cpu, insn, 0, u64::from(result));
    let cf = if x == 0 { CF } else { 0 };
    let zf = if result == 0 { ZF } else { 0 };
    cpu.state.flags.replace(CF | ZF, cf | zf);
    Ok(())
}

fn lzcnt(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    zeros(cpu, insn, |x| x.leading_zeros() - (64 - insn.width.bits()))
}

fn tzcnt(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    zeros(cpu, insn, |x| x.trailing_zeros().min(insn.width.bits()))
}

/// For each byte, what it does to a reflected CRC with the polynomial 0x11edc6f41.
static CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

fn crc32(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let width = Width::from_bytes(usize::from(insn.ops[1].size));
    let x = read(cpu, insn, 1, width)?;
    let mut crc = cpu.state.regs.get32(insn.ops[0].reg);
    for byte in &x.to_le_bytes()[..width as usize] {
        crc = crc >> 8 ^ CRC32C[usize::from(crc as u8 ^ byte)];
    }
    cpu.state.regs.set64(insn.ops[0].reg, u64::from(crc));
    Ok(())
}

fn movbe(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let swap = |x: u64| x.swap_bytes() >> (64 - insn.width.bits());
    if insn.ops[0].kind == Kind::Gpr {
        let x = read(cpu, insn, 1, insn.width)?;
        write(cpu, insn, 0, swap(x));
        return Ok(());
    }
    let x = read(cpu, insn, 1, insn.width)?;
    let linear = cpu.linear(insn, insn.width.bytes(), Access::Write)?;
    cpu.store_width(linear, insn.width, swap(x))
}

fn movnti(cpu: &mut Vcpu, insn: &Insn) -> Result<(), Fault> {
    let x = read(cpu, insn, 1, insn.width)?;
    let linear = cpu.linear(insn, insn.width.bytes(), Access::Write)?;
    cpu.store_width(linear, insn.width, x)
}

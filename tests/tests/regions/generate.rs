//! Random programs: blocks of random instructions, with jumps and calls among them.

use emu_tests::events;
use emu_tests::lockstep::{CODE, DATA};
use fastrand::Rng;
use iced_x86::BlockEncoderOptions;
use iced_x86::code_asm::*;

/// A random program, and where its blocks begin; `handles` if its faults are handled and it may do what only systems do.
pub fn program(rng: &mut Rng, bits: u32, handles: bool) -> Result<(Vec<u8>, Vec<u64>), iced_x86::IcedError> {
    let mut a = CodeAssembler::new(bits)?;
    let wide = bits == 64;
    let g32 = [eax, ecx, edx, ebx, esi, edi, if wide { r9d } else { eax }, if wide { r14d } else { edx }];
    let g64 = [rax, rcx, rdx, rbx, rsi, rdi, r9, r14];
    let g16 = [ax, cx, dx, bx, si, di, if wide { r9w } else { ax }, bx];
    let g8 = [al, ah, cl, ch, dl, bh, if wide { r14b } else { bl }, dh];
    let blocks = rng.usize(3..9);
    let mut labels: Vec<_> = (0..blocks).map(|_| a.create_label()).collect();
    let functions = rng.usize(0..3);
    // Many have instructions that cross into another page.
    if rng.bool() {
        a.jmp(labels[0])?;
        a.db(&vec![0x90; 0xf40 + rng.usize(..0xc0)])?;
    }
    let mut function_labels: Vec<_> = (0..functions).map(|_| a.create_label()).collect();
    for n in 0..blocks + functions {
        if n < blocks {
            a.set_label(&mut labels[n])?
        } else {
            a.set_label(&mut function_labels[n - blocks])?
        };
        for _ in 0..rng.usize(1..14) {
            if handles && rng.u8(..12) == 0 {
                system(&mut a, rng, wide)?;
            } else {
                one(&mut a, rng, wide, &g8, &g16, &g32, &g64)?;
            }
        }
        if n >= blocks {
            if rng.u8(..4) == 0 {
                a.ret_1(8u32 * u32::from(rng.bool()))?
            } else {
                a.ret()?
            };
            continue;
        }
        let to = labels[rng.usize(..blocks)];
        match rng.u8(..14) {
            9 => a.loop_(to)?,
            10 => a.loope(to)?,
            11 => a.loopne(to)?,
            12 if wide => a.jrcxz(to)?,
            12 => a.jecxz(to)?,
            0 => a.jmp(to)?,
            1 => a.jb(to)?,
            2 => a.jne(to)?,
            3 => a.jle(to)?,
            4 => a.jp(to)?,
            5 => a.jo(to)?,
            6 => a.ja(to)?,
            7 if functions > 0 => a.call(function_labels[rng.usize(..functions)])?,
            8 => {
                a.dec(ecx)?;
                a.jns(to)?;
            }
            _ => {}
        }
    }
    a.jmp(labels[0])?;
    let assembled = a.assemble_options(CODE, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    let blocks = labels.iter().map(|label| assembled.label_ip(label)).collect::<Result<_, _>>()?;
    Ok((assembled.inner.code_buffer, blocks))
}

/// One random instruction.
fn one(
    a: &mut CodeAssembler,
    rng: &mut Rng,
    wide: bool,
    g8: &[AsmRegister8; 8],
    g16: &[AsmRegister16; 8],
    g32: &[AsmRegister32; 8],
    g64: &[AsmRegister64; 8],
) -> Result<(), iced_x86::IcedError> {
    let n = |rng: &mut Rng| rng.usize(..8);
    let disp = rng.i32(0..0x5ff0);
    let (x8, y8, x16, x32, y32) = (g8[n(rng)], g8[n(rng)], g16[n(rng)], g32[n(rng)], g32[n(rng)]);
    let (x64, y64) = (g64[n(rng)], g64[n(rng)]);
    // Around the end of a page, close together, are places where one check of a page does not serve for two accesses.
    let close = 0xff0 + (disp & 0x1f);
    let mem = |rng: &mut Rng| match (wide, rng.u8(..8)) {
        (true, 0) => rbp + rcx * 2 + disp,
        (false, 0) => ebp + ecx * 4 + disp,
        (true, 1) => rsp + (disp & 0xff),
        (true, 2 | 3) => rbp + close,
        (true, 4) => ebp + close,
        (false, 2 | 3) => ebp + close,
        (true, _) => rbp + disp,
        (false, 1) => esp + (disp & 0xff),
        (false, _) => ebp + disp,
    };
    let m = mem(rng);
    let imm = match rng.u8(..4) {
        0 => 0,
        1 => rng.i32(-128..128),
        _ => rng.i32(..),
    };
    macro_rules! alu {
        ($op:ident) => {
            match rng.u8(..9) {
                0 => a.$op(x8, y8)?,
                1 => a.$op(x16, imm & 0x7fff)?,
                2 => a.$op(dword_ptr(m), y32)?,
                3 => a.$op(x32, dword_ptr(m))?,
                4 => a.$op(byte_ptr(m), imm & 0x7f)?,
                5 if wide => a.$op(x64, y64)?,
                6 if wide => a.$op(x64, qword_ptr(m))?,
                7 => a.$op(x32, imm)?,
                _ => a.$op(x32, y32)?,
            }
        };
    }
    macro_rules! shift {
        ($op:ident) => {
            match rng.u8(..6) {
                0 => a.$op(x32, cl)?,
                1 => a.$op(x8, rng.u32(..32))?,
                2 => a.$op(dword_ptr(m), rng.u32(..32))?,
                3 if wide => a.$op(x64, rng.u32(..64))?,
                4 => a.$op(x16, cl)?,
                _ => a.$op(x32, rng.u32(..32))?,
            }
        };
    }
    match rng.u8(..63) {
        46 => bits(a, rng, wide, m, [x32, y32], [x64, y64])?,
        47 | 48 => exchange(a, rng, wide, m, [x8, y8], [x32, y32], x64)?,
        49..52 => string(a, rng, wide)?,
        52 => {
            if wide {
                a.lea(rsi, m)?
            } else {
                a.lea(esi, m)?
            }
        }
        53 => {
            if wide {
                a.lea(rdi, m)?
            } else {
                a.lea(edi, m)?
            }
        }
        57 | 58 => narrow(a, rng, m, [x8, y8], x16)?,
        59 => moves(a, rng, wide, m, [x8, y8], [x32, y32], x64)?,
        60 => bit_fields(a, rng, wide, m, [x32, y32], [x64, y64])?,
        61 => carries(a, rng, wide, [x32, y32])?,
        62 => system_flags(a, rng, wide)?,
        54 => a.sahf()?,
        55 if rng.u8(..4) == 0 => a.std()?,
        55 => a.cld()?,
        56 => match rng.u8(..3) {
            0 => a.cbw()?,
            1 => a.cwd()?,
            _ => a.pushfd_or_q(wide)?,
        },
        0 | 1 => alu!(add),
        2 => alu!(adc),
        3 | 4 => alu!(sub),
        5 => alu!(sbb),
        6 | 7 => alu!(cmp),
        8 => alu!(and),
        9 => alu!(or),
        10 => alu!(xor),
        11 => alu!(mov),
        12 => a.test(x32, y32)?,
        13 => a.test(x8, imm & 0x7f)?,
        14 => a.inc(x32)?,
        15 => a.dec(x16)?,
        16 => a.inc(byte_ptr(m))?,
        17 => a.neg(x32)?,
        18 => a.not(x8)?,
        19 => shift!(shl),
        20 => shift!(shr),
        21 => shift!(sar),
        22 => shift!(rol),
        23 => shift!(ror),
        24 => a.rcl(x32, rng.u32(..32))?,
        25 => a.shld(x32, y32, rng.u32(..32))?,
        26 => a.movzx(x32, y8_or_low(y8, wide))?,
        27 => a.movsx(x32, word_ptr(m))?,
        28 => a.lea(x32, m)?,
        29 => a.imul_2(x32, y32)?,
        30 => a.imul_3(x32, dword_ptr(m), imm)?,
        31 => a.mul(x32)?,
        32 => a.imul(y32)?,
        33 => {
            a.mov(edx, imm & 3)?;
            a.div(x32)?;
        }
        34 => {
            a.cdq()?;
            a.idiv(dword_ptr(m))?;
        }
        35 => {
            if wide {
                a.push(x64)?
            } else {
                a.push(x32)?
            }
            if wide { a.pop(y64)? } else { a.pop(y32)? }
        }
        36 => a.setl(x8)?,
        37 => a.cmovbe(x32, y32)?,
        38 => a.bt(x32, y32)?,
        39 => a.btc(x32, rng.u32(..32))?,
        40 => a.bswap(x32)?,
        41 => a.xchg(x32, y32)?,
        42 => a.xadd(x32, y32)?,
        43 if wide => a.mul(x64)?,
        44 => match rng.u8(..5) {
            0 => a.bsf(x32, y32)?,
            1 => a.lock().add(dword_ptr(m), y32)?,
            2 => a.paddd(xmm1, xmm2)?,
            3 => a.movd(x32, xmm1)?,
            _ => a.cpuid()?,
        },
        // A byte of the program itself.
        45 if rng.u8(..8) == 0 => {
            let at = CODE as i32 + rng.i32(0..200);
            if wide {
                a.mov(byte_ptr(rbp + (at - DATA as i32)), dl)?
            } else {
                a.mov(byte_ptr(ebp + (at - DATA as i32)), x8)?
            }
        }
        _ => a.nop()?,
    }
    Ok(())
}

/// Bit tests of memory, and scans.
fn bits(
    a: &mut CodeAssembler,
    rng: &mut Rng,
    wide: bool,
    m: AsmMemoryOperand,
    [x32, y32]: [AsmRegister32; 2],
    [x64, y64]: [AsmRegister64; 2],
) -> Result<(), iced_x86::IcedError> {
    match rng.u8(..14) {
        0 => a.bt(dword_ptr(m), rng.u32(..64)),
        1 => a.lock().bts(word_ptr(m), rng.u32(..64)),
        2 => a.btr(dword_ptr(m), ecx),
        3 => a.lock().btc(dword_ptr(m), edx),
        4 if wide => a.bts(qword_ptr(m), rcx),
        5 => {
            a.and(ecx, 0xfff)?;
            a.bt(word_ptr(m), cx)
        }
        6 => a.bsr(x32, y32),
        7 => a.bsf(x32, dword_ptr(m)),
        8 if wide => a.bsr(x64, y64),
        9 => a.tzcnt(x32, y32),
        10 => a.lzcnt(x32, dword_ptr(m)),
        11 if wide => a.tzcnt(x64, y64),
        12 => a.popcnt(x32, y32),
        _ => a.bsf(bx, word_ptr(m)),
    }
}

/// Exchanges and what is locked.
fn exchange(
    a: &mut CodeAssembler,
    rng: &mut Rng,
    wide: bool,
    m: AsmMemoryOperand,
    [x8, y8]: [AsmRegister8; 2],
    [x32, y32]: [AsmRegister32; 2],
    x64: AsmRegister64,
) -> Result<(), iced_x86::IcedError> {
    match rng.u8(..14) {
        0 => a.xchg(dword_ptr(m), x32),
        1 if wide => a.xchg(byte_ptr(m), bl),
        1 => a.xchg(byte_ptr(m), x8),
        2 if wide => a.xchg(qword_ptr(m), x64),
        3 => a.cmpxchg(x32, y32),
        4 => a.lock().cmpxchg(dword_ptr(m), x32),
        5 => {
            a.mov(eax, dword_ptr(m))?;
            a.lock().cmpxchg(dword_ptr(m), x32)
        }
        6 if wide => a.cmpxchg(qword_ptr(m), x64),
        7 if !wide => a.cmpxchg(x8, y8),
        8 => a.lock().xadd(dword_ptr(m), x32),
        9 => a.lock().inc(word_ptr(m)),
        10 => a.lock().or(byte_ptr(m), rng.i32(0..0x7f)),
        11 => a.lock().sub(dword_ptr(m), x32),
        12 => a.cmpxchg(word_ptr(m), cx),
        _ => a.lock().neg(dword_ptr(m)),
    }
}

/// Multiplications and divisions of less than 32 bits.
fn narrow(
    a: &mut CodeAssembler,
    rng: &mut Rng,
    m: AsmMemoryOperand,
    [x8, y8]: [AsmRegister8; 2],
    x16: AsmRegister16,
) -> Result<(), iced_x86::IcedError> {
    match rng.u8(..12) {
        0 => a.mul(x8),
        1 => a.mul(x16),
        2 => a.mul(byte_ptr(m)),
        3 => a.imul(y8),
        4 => a.imul(x16),
        5 => a.imul(word_ptr(m)),
        // Most quotients fit.
        6 => {
            a.movzx(ax, x8)?;
            a.or(cl, 1)?;
            a.div(cl)
        }
        7 => {
            a.cwd()?;
            a.or(bx, 1)?;
            a.idiv(bx)
        }
        8 => {
            a.cbw()?;
            a.or(bl, 3)?;
            a.idiv(bl)
        }
        9 => {
            a.mov(dx, 0)?;
            a.or(word_ptr(m), 1)?;
            a.div(word_ptr(m))
        }
        10 => {
            a.cbw()?;
            a.or(byte_ptr(m), 1)?;
            a.idiv(byte_ptr(m))
        }
        _ => {
            a.mov(ah, 0)?;
            a.or(dh, 1)?;
            a.div(dh)
        }
    }
}

/// Moves that are rare.
fn moves(
    a: &mut CodeAssembler,
    rng: &mut Rng,
    wide: bool,
    m: AsmMemoryOperand,
    [x8, y8]: [AsmRegister8; 2],
    [x32, y32]: [AsmRegister32; 2],
    x64: AsmRegister64,
) -> Result<(), iced_x86::IcedError> {
    match rng.u8(..12) {
        0 => a.movbe(x32, dword_ptr(m)),
        1 => a.movbe(word_ptr(m), cx),
        2 if wide => a.movbe(qword_ptr(m), x64),
        3 => a.movnti(dword_ptr(m), y32),
        4 => a.lahf(),
        5 => a.mov(x32, ds),
        6 => a.mov(word_ptr(m), ss),
        7 => a.cmpxchg8b(qword_ptr(m)),
        8 => {
            a.mov(eax, dword_ptr(m))?;
            a.mov(edx, dword_ptr(m + 4))?;
            a.lock().cmpxchg8b(qword_ptr(m))
        }
        // Where memory is aligned.
        9 if wide => a.cmpxchg16b(xmmword_ptr(rbp + (rng.i32(0..0x500) << 4))),
        10 => {
            if wide {
                a.lea(rbx, m)?
            } else {
                a.lea(ebx, m)?
            }
            a.xlatb()
        }
        11 => a.prefetcht0(byte_ptr(m)),
        _ if wide => a.xchg(cl, dl),
        _ => a.xchg(x8, y8),
    }
}

/// Bit fields, and shifts that leave the flags alone.
fn bit_fields(
    a: &mut CodeAssembler,
    rng: &mut Rng,
    wide: bool,
    m: AsmMemoryOperand,
    [x32, y32]: [AsmRegister32; 2],
    [x64, y64]: [AsmRegister64; 2],
) -> Result<(), iced_x86::IcedError> {
    match rng.u8(..16) {
        0 => a.andn(x32, y32, dword_ptr(m)),
        1 if wide => a.andn(x64, y64, x64),
        2 => a.bextr(x32, y32, ecx),
        3 if wide => a.bextr(x64, qword_ptr(m), y64),
        4 => a.blsi(x32, y32),
        5 => a.blsmsk(x32, dword_ptr(m)),
        6 if wide => a.blsr(x64, y64),
        7 => a.bzhi(x32, dword_ptr(m), ecx),
        8 if wide => a.bzhi(x64, y64, rcx),
        9 => a.mulx(x32, y32, dword_ptr(m)),
        10 if wide => a.mulx(x64, y64, x64),
        11 => a.rorx(x32, y32, rng.u32(..32)),
        12 => a.sarx(x32, y32, ecx),
        13 if wide => a.shlx(x64, y64, rcx),
        14 => a.shrx(x32, dword_ptr(m), edx),
        _ => a.bts(cx, dx),
    }
}

/// What changes or keeps one flag.
fn carries(
    a: &mut CodeAssembler,
    rng: &mut Rng,
    wide: bool,
    [x32, y32]: [AsmRegister32; 2],
) -> Result<(), iced_x86::IcedError> {
    match rng.u8(..8) {
        0 => a.stc(),
        1 => a.clc(),
        2 | 3 => a.cmc(),
        4 => a.adcx(x32, y32),
        5 => a.adox(x32, y32),
        6 if wide => a.adcx(rax, rdx),
        _ => a.adc(x32, y32),
    }
}

/// What changes all flags, or those that only the system looks at.
fn system_flags(a: &mut CodeAssembler, rng: &mut Rng, wide: bool) -> Result<(), iced_x86::IcedError> {
    // CF, PF, AF, ZF, SF, IF, DF, OF, NT, AC, ID; rarely TF, which ends the program.
    let flags = rng.u32(..) as i32 & if rng.u8(..64) == 0 { 0x24_4fd5 } else { 0x24_4ed5 };
    match rng.u8(..4) {
        0 => a.cli(),
        1 => a.sti(),
        _ if wide => {
            a.push(flags)?;
            a.popfq()
        }
        _ => {
            a.push(flags)?;
            a.popfd()
        }
    }
}

/// What only systems do.
fn system(a: &mut CodeAssembler, rng: &mut Rng, wide: bool) -> Result<(), iced_x86::IcedError> {
    let at = DATA as i32 + (rng.i32(0..0x5ff0) & !7);
    match rng.u8(..20) {
        0 => a.rdtsc(),
        1 => a.int(i32::from(events::VECTOR)),
        2 => a.int3(),
        3 if wide => {
            a.mov(rax, cr3)?;
            a.mov(cr3, rax)
        }
        3 => {
            a.mov(eax, cr0)?;
            a.mov(cr0, eax)
        }
        4 | 5 => a.invlpg(byte_ptr(at)),
        6..=10 if wide => {
            let user = (events::USER_PAGE as i32 + rng.i32(0..0x400)..).step_by(256);
            for at in user.take(rng.usize(1..4)) {
                match rng.u8(..3) {
                    0 => a.clac()?,
                    _ => a.stac()?,
                }
                a.add(dword_ptr(at), ebx)?;
            }
            Ok(())
        }
        6..=10 => {
            a.push(i32::from(events::DATA_SELECTOR))?;
            a.pop(es)
        }
        11 => {
            a.mov(eax, i32::from(events::DATA_SELECTOR))?;
            a.mov(ds, eax)
        }
        12 => {
            a.mov(eax, i32::from(events::DATA_SELECTOR))?;
            a.mov(ss, eax)
        }
        13 => a.sgdt(ptr(at)),
        14 => a.lsl(eax, ecx),
        15 => a.clts(),
        16 => a.sldt(ax),
        17 => a.in_(al, 0x80),
        18 => a.out(0x80, al),
        _ => a.smsw(eax),
    }
}

/// A string instruction.
fn string(a: &mut CodeAssembler, rng: &mut Rng, wide: bool) -> Result<(), iced_x86::IcedError> {
    if rng.u8(..6) == 0 {
        // Not too long.
        a.and(ecx, 0x3f)?;
        return match rng.u8(..4) {
            0 => a.rep().movsb(),
            1 => a.rep().stosd(),
            2 => a.repe().cmpsb(),
            _ => a.repne().scasb(),
        };
    }
    match rng.u8(..18) {
        0 | 1 => a.movsb(),
        2 => a.movsw(),
        3 => a.movsd(),
        4 if wide => a.movsq(),
        5 | 6 => a.stosb(),
        7 => a.stosd(),
        8 if wide => a.stosq(),
        9 | 10 => a.lodsb(),
        11 => a.lodsw(),
        12 => a.lodsd(),
        13 if wide => a.lodsq(),
        14 => a.scasb(),
        15 => a.scasd(),
        16 => a.cmpsb(),
        _ => a.cmpsd(),
    }
}

/// MOVZX to a register that may need REX has no high byte.
fn y8_or_low(y: AsmRegister8, wide: bool) -> AsmRegister8 {
    if wide { cl } else { y }
}

/// Pushes the flags and takes them off again as a number.
trait PushFlags {
    fn pushfd_or_q(&mut self, wide: bool) -> Result<(), iced_x86::IcedError>;
}

impl PushFlags for CodeAssembler {
    fn pushfd_or_q(&mut self, wide: bool) -> Result<(), iced_x86::IcedError> {
        if wide {
            self.pushfq()?;
            self.pop(rdx)
        } else {
            self.pushfd()?;
            self.pop(edx)
        }
    }
}

//! All registers as text, in the layout of QEMU's `info registers`, which people and scripts know.

use crate::cpu::CpuState;
use crate::cpu::segment::{Seg, Segment};
use std::fmt::Write;

/// The registers in `state`, one group a line, each line ended by a line feed. `a20`: the state of the A20 gate.
pub fn show(state: &CpuState, a20: bool) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut text, state, a20);
    text
}

fn write_all(out: &mut String, s: &CpuState, a20: bool) -> std::fmt::Result {
    let wide = s.long_mode();
    general(out, s, wide)?;
    let flags = s.rflags();
    let letters: String = [(10, 'D'), (11, 'O'), (7, 'S'), (6, 'Z'), (4, 'A'), (2, 'P'), (0, 'C')]
        .map(|(bit, letter)| if flags >> bit & 1 != 0 { letter } else { '-' })
        .iter()
        .collect();
    let halted = u8::from(s.activity != crate::cpu::Activity::Running);
    let (shadow, a20) = (u8::from(s.interrupt_shadow), u8::from(a20));
    let tail = format!("[{letters}] CPL={} II={shadow} A20={a20} SMM=0 HLT={halted}", s.cpl);
    match wide {
        true => writeln!(out, "RIP={:016x} RFL={flags:08x} {tail}", s.rip)?,
        false => writeln!(out, "EIP={:08x} EFL={flags:08x} {tail}", s.rip as u32)?,
    }
    for (name, seg) in
        [("ES", Seg::Es), ("CS", Seg::Cs), ("SS", Seg::Ss), ("DS", Seg::Ds), ("FS", Seg::Fs), ("GS", Seg::Gs)]
    {
        segment(out, s, name, s.segment(seg))?;
    }
    segment(out, s, "LDT", &s.ldtr)?;
    segment(out, s, "TR", &s.tr)?;
    for (name, table) in [("GDT", &s.gdtr), ("IDT", &s.idtr)] {
        match wide {
            true => writeln!(out, "{name}=     {:016x} {:08x}", table.base, table.limit)?,
            false => writeln!(out, "{name}=     {:08x} {:08x}", table.base as u32, table.limit)?,
        }
    }
    match wide {
        true => writeln!(out, "CR0={:08x} CR2={:016x} CR3={:016x} CR4={:08x}", s.cr0, s.cr2, s.cr3, s.cr4)?,
        false => writeln!(out, "CR0={:08x} CR2={:08x} CR3={:08x} CR4={:08x}", s.cr0, s.cr2, s.cr3, s.cr4)?,
    }
    for n in 0..4 {
        write!(out, "DR{n}={:016x} ", s.dr[n])?;
    }
    writeln!(out, "\nDR6={:016x} DR7={:016x}", s.dr[6], s.dr[7])?;
    writeln!(out, "EFER={:016x}", s.msrs.efer)?;
    floating_point(out, s)
}

fn general(out: &mut String, s: &CpuState, wide: bool) -> std::fmt::Result {
    const NAMES: [&str; 8] = ["AX", "BX", "CX", "DX", "SI", "DI", "BP", "SP"];
    const NUMBERS: [u8; 8] = [0, 3, 1, 2, 6, 7, 5, 4];
    for (i, (name, number)) in NAMES.iter().zip(NUMBERS).enumerate() {
        let end = if i % 4 == 3 { '\n' } else { ' ' };
        match wide {
            true => write!(out, "R{name}={:016x}{end}", s.regs.gpr(number))?,
            false => write!(out, "E{name}={:08x}{end}", s.regs.gpr(number) as u32)?,
        }
    }
    if wide {
        for number in 8..16u8 {
            let end = if number % 4 == 3 { '\n' } else { ' ' };
            write!(out, "{:<3}={:016x}{end}", format!("R{number}"), s.regs.gpr(number))?;
        }
    }
    Ok(())
}

/// One segment register. The third number is the descriptor's second doubleword without its base bits.
fn segment(out: &mut String, s: &CpuState, name: &str, segment: &Segment) -> std::fmt::Result {
    let limit = if segment.is(Segment::G) { segment.limit >> 12 } else { segment.limit };
    let rights = u32::from(segment.attributes) << 8 | (limit & 0xf_0000);
    let Segment { selector, base, limit, .. } = *segment;
    match s.long_mode() {
        true => write!(out, "{name:<3}={selector:04x} {base:016x} {limit:08x} {rights:08x}")?,
        false => write!(out, "{name:<3}={selector:04x} {:08x} {limit:08x} {rights:08x}", base as u32)?,
    }
    if !s.protected() || s.v86() {
        return writeln!(out);
    }
    write!(out, " DPL={} ", segment.dpl())?;
    let flag = |mask, letter| if segment.is(mask) { letter } else { '-' };
    if segment.is_code() {
        let size = match (segment.is(Segment::L), segment.is(Segment::DB)) {
            (true, _) => "CS64",
            (false, true) => "CS32",
            (false, false) => "CS16",
        };
        write!(out, "{size} [{}{}", flag(Segment::CONFORMING, 'C'), flag(Segment::RW, 'R'))?;
        writeln!(out, "{}]", flag(Segment::ACCESSED, 'A'))
    } else if segment.is(Segment::S) {
        let size = if segment.is(Segment::DB) || s.long_mode() { "DS  " } else { "DS16" };
        write!(out, "{size} [{}{}", flag(Segment::EXPAND_DOWN, 'E'), flag(Segment::RW, 'W'))?;
        writeln!(out, "{}]", flag(Segment::ACCESSED, 'A'))
    } else {
        writeln!(out, "{}", system_name(segment.kind(), s.long_mode()))
    }
}

/// System descriptor types (SDM Vol. 3A table 3-2).
fn system_name(kind: u8, long: bool) -> &'static str {
    match (kind, long) {
        (2, _) => "LDT",
        (1, false) => "TSS16-avl",
        (3, false) => "TSS16-busy",
        (9, false) => "TSS32-avl",
        (11, false) => "TSS32-busy",
        (9, true) => "TSS64-avl",
        (11, true) => "TSS64-busy",
        _ => "Reserved",
    }
}

fn floating_point(out: &mut String, s: &CpuState) -> std::fmt::Result {
    let fpu = &s.fpu;
    let status = fpu.status & !0x3800 | u16::from(fpu.top) << 11;
    let (control, top, tags, mxcsr) = (fpu.control, fpu.top, !fpu.empty, s.mxcsr);
    writeln!(out, "FCW={control:04x} FSW={status:04x} [ST={top}] FTW={tags:02x} MXCSR={mxcsr:08x}")?;
    for (i, st) in fpu.r.iter().enumerate() {
        let end = if i % 2 == 1 { '\n' } else { ' ' };
        write!(out, "FPR{i}={:016x} {:04x}{end}", st.significand, st.sign_exp)?;
    }
    let count = if s.long_mode() { 16 } else { 8 };
    for (i, xmm) in s.xmm.iter().take(count).enumerate() {
        let [low, high] = xmm.lanes::<u64, 2>();
        let end = if i % 2 == 1 { '\n' } else { ' ' };
        write!(out, "XMM{i:02}={high:016x} {low:016x}{end}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_state_reads_as_qemu_prints_it() {
        let text = show(&CpuState::reset(), true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "EAX=00000000 EBX=00000000 ECX=00000000 EDX=00000000");
        assert_eq!(lines[2], "EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0");
        assert_eq!(lines[3], "ES =0000 00000000 0000ffff 00009300");
        assert_eq!(lines[4], "CS =f000 ffff0000 0000ffff 00009b00");
        assert_eq!(lines[13], "CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000");
        assert_eq!(lines[15], "DR6=00000000ffff0ff0 DR7=0000000000000400");
        assert_eq!(lines.len(), 26);
    }

    #[test]
    fn protected_mode_segments_show_type_and_privilege() {
        let mut state = CpuState::reset();
        state.cr0 |= 1;
        state.set_segment(Seg::Cs, Segment::from_descriptor(0x10, 0x00cf_9b00_0000_ffff));
        state.set_segment(Seg::Ss, Segment::from_descriptor(0x18, 0x00cf_9300_0000_ffff));
        let text = show(&state, true);
        assert!(text.contains("CS =0010 00000000 ffffffff 00cf9b00 DPL=0 CS32 [-RA]\n"), "{text}");
        assert!(text.contains("SS =0018 00000000 ffffffff 00cf9300 DPL=0 DS   [-WA]\n"), "{text}");
    }
}

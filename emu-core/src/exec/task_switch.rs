//! Hardware task switching (SDM Vol. 3A chapter 7).
//!
//! ```text
//!            16-bit TSS                                   32-bit TSS
//!  00 link   02..0C SP/SS of levels 0 to 2      00 link   04..18 ESP/SS of levels 0 to 2
//!  0E IP     10 FLAGS                           1C CR3    20 EIP    24 EFLAGS
//!  12..20 AX CX DX BX SP BP SI DI               28..44 EAX ECX EDX EBX ESP EBP ESI EDI
//!  22..28 ES CS SS DS                           48..5C ES CS SS DS FS GS
//!  2A LDT                                       60 LDT    64 T      66 I/O map base
//! ```
//! What is wrong with the new TSS itself faults in the old task, with nothing changed. Once the old state is saved the
//! switch is committed: a bad selector or stack in the new TSS faults in the new task, at its first instruction, with
//! all selectors loaded but not all descriptors (SDM Vol. 3A 7.3, steps 11 and after).

use super::Vcpu;
use super::descriptor::{is_null, rpl};
use super::run::DR6_BT;
use super::stack::Frame;
use crate::cpu::Width;
use crate::cpu::control::CR0_TS;
use crate::cpu::fault::{self, Fault};
use crate::cpu::regs::{RSP, RegFile};
use crate::cpu::rflags::{NT, VM};
use crate::cpu::segment::{Seg, Segment, system};
use crate::mmu::walk::{Access, Privilege};

/// Why a task is switched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// JMP to a TSS or task gate.
    Jump,
    /// CALL of one: the new task is nested.
    Call,
    /// IRET with NT set, to the task in the link field.
    Return,
    /// An interrupt through a task gate: nested, as by CALL.
    Interrupt {
        /// EFLAGS to save for the old task.
        flags: u64,
        /// The error code to push on the new task's stack.
        error: Option<u32>,
    },
}

/// Local enables of breakpoints and LE in DR7, which a task switch clears.
const DR7_LOCAL: u64 = 0x155;

/// Where things lie in a TSS.
struct Layout {
    width: Width,
    /// The last byte that the limit must cover.
    minimum_limit: u32,
    eip: u64,
    registers: u64,
    segments: u64,
    /// Segment registers present: 4 or 6.
    segment_count: usize,
    /// Distance of segment selectors.
    stride: u64,
    ldt: u64,
}

const TSS16: Layout = Layout {
    width: Width::B2,
    minimum_limit: 0x2b,
    eip: 0x0e,
    registers: 0x12,
    segments: 0x22,
    segment_count: 4,
    stride: 2,
    ldt: 0x2a,
};

const TSS32: Layout = Layout {
    width: Width::B4,
    minimum_limit: 0x67,
    eip: 0x20,
    registers: 0x28,
    segments: 0x48,
    segment_count: 6,
    stride: 4,
    ldt: 0x60,
};

fn layout(tss: &Segment) -> &'static Layout {
    if tss.kind() & 8 != 0 { &TSS32 } else { &TSS16 }
}

/// What the new TSS holds.
struct Image {
    cr3: Option<u64>,
    eip: u64,
    flags: u64,
    registers: [u64; 8],
    selectors: [u16; 6],
    ldt: u16,
    trap: bool,
}

impl Vcpu {
    /// Switches to the task of TSS `selector`.
    ///
    /// # Errors
    /// #GP, #TS, #NP, #PF. After a fault in the new task, `insn_rip` is the new task's instruction.
    pub fn switch_task(&mut self, selector: u16, cause: Cause) -> Result<(), Fault> {
        let tss = self.new_tss(selector, cause)?;
        let old = self.state.tr;
        let nested = matches!(cause, Cause::Call | Cause::Interrupt { .. });

        // Everything that the switch itself reads and writes must be there before anything changes.
        let (from, to) = (layout(&old), layout(&tss));
        self.probe(self.system_linear(old.base), from.minimum_limit as usize + 1, Access::Write, Privilege::Implicit)?;
        self.probe(self.system_linear(tss.base), to.minimum_limit as usize + 1, Access::Read, Privilege::Implicit)?;
        if nested {
            self.probe(self.system_linear(tss.base), 2, Access::Write, Privilege::Implicit)?;
        }
        for selector in [old.selector, selector] {
            if let Some(linear) = self.descriptor_address(selector, 8) {
                self.probe(linear, 8, Access::Write, Privilege::Implicit)?;
            }
        }

        if !nested {
            self.set_busy(old.selector, false)?;
        }
        self.save_task(&old, cause)?;
        if nested {
            self.store_system(self.system_linear(tss.base), Width::B2, u64::from(old.selector))?;
        }
        if cause != Cause::Return {
            self.set_busy(selector, true)?;
        }
        let mut image = self.read_task(&tss)?;
        if nested {
            image.flags |= NT;
        }
        self.state.tr = Segment { attributes: tss.attributes | u16::from(system::BUSY), ..tss };
        self.state.cr0 |= CR0_TS;
        self.state.dr[7] &= !DR7_LOCAL;
        let entered = self.enter_task(&image, to, cause);
        if image.trap && entered.is_ok() {
            self.state.pending_debug |= DR6_BT;
        }
        self.mode_changed();
        entered
    }

    /// IRET with NT set.
    ///
    /// # Errors
    /// As [`Vcpu::switch_task`].
    pub fn return_to_previous_task(&mut self) -> Result<(), Fault> {
        let link = self.load_system(self.system_linear(self.state.tr.base), Width::B2)?;
        self.switch_task(link as u16, Cause::Return)
    }

    /// The TSS that `selector` names, checked: available, or busy for a return.
    fn new_tss(&mut self, selector: u16, cause: Cause) -> Result<Segment, Fault> {
        let returns = cause == Cause::Return;
        let vector = if returns { fault::TS } else { fault::GP };
        if is_null(selector) || selector & 4 != 0 {
            return Err(Fault::selector(vector, selector));
        }
        let tss = self.segment_descriptor(selector, vector)?;
        let wanted = if returns {
            [system::TSS16_BUSY, system::TSS32_BUSY]
        } else {
            [system::TSS16_AVAILABLE, system::TSS32_AVAILABLE]
        };
        if tss.is(Segment::S) || !wanted.contains(&tss.kind()) {
            return Err(Fault::selector(vector, selector));
        }
        if !tss.is(Segment::P) {
            return Err(Fault::selector(fault::NP, selector));
        }
        if tss.limit < layout(&tss).minimum_limit {
            return Err(Fault::selector(fault::TS, selector));
        }
        Ok(tss)
    }

    fn save_task(&mut self, tss: &Segment, cause: Cause) -> Result<(), Fault> {
        let to = layout(tss);
        let flags = match cause {
            Cause::Return => self.state.rflags() & !NT,
            Cause::Interrupt { flags, .. } => flags,
            _ => self.state.rflags(),
        };
        let field = |at: u64| (tss.base + at) & 0xffff_ffff;
        self.store_system(field(to.eip), to.width, self.state.rip)?;
        self.store_system(field(to.eip + to.width.bytes()), to.width, flags)?;
        for n in 0..8u8 {
            let value = self.state.regs.gpr(n);
            self.store_system(field(to.registers + u64::from(n) * to.width.bytes()), to.width, value)?;
        }
        for (n, seg) in Seg::ALL.into_iter().enumerate().take(to.segment_count) {
            let value = self.state.segment(seg).selector;
            self.store_system(field(to.segments + n as u64 * to.stride), Width::B2, u64::from(value))?;
        }
        Ok(())
    }

    fn read_task(&mut self, tss: &Segment) -> Result<Image, Fault> {
        let from = layout(tss);
        let field = |at: u64| (tss.base + at) & 0xffff_ffff;
        let mut image = Image {
            cr3: None,
            eip: self.load_system(field(from.eip), from.width)?,
            flags: self.load_system(field(from.eip + from.width.bytes()), from.width)?,
            registers: [0; 8],
            selectors: [0; 6],
            ldt: self.load_system(field(from.ldt), Width::B2)? as u16,
            trap: false,
        };
        for (n, value) in image.registers.iter_mut().enumerate() {
            *value = self.load_system(field(from.registers + n as u64 * from.width.bytes()), from.width)?;
        }
        for (n, value) in image.selectors.iter_mut().enumerate().take(from.segment_count) {
            *value = self.load_system(field(from.segments + n as u64 * from.stride), Width::B2)? as u16;
        }
        if from.width == Width::B4 {
            image.cr3 = Some(self.load_system(field(0x1c), Width::B4)?);
            image.trap = self.load_system(field(0x64), Width::B2)? & 1 != 0;
        }
        Ok(image)
    }

    /// Loads the new task's registers. Faults from here on are the new task's.
    fn enter_task(&mut self, image: &Image, layout: &Layout, cause: Cause) -> Result<(), Fault> {
        self.state.rip = image.eip;
        self.insn_rip = image.eip;
        self.state.set_rflags(image.flags);
        for (n, value) in image.registers.iter().enumerate() {
            self.state.regs.set_gpr(n as u8, *value);
        }
        self.state.ldtr = Segment::null(image.ldt);
        let v86 = image.flags & VM != 0;
        self.state.cpl = if v86 { 3 } else { rpl(image.selectors[Seg::Cs as usize]) };
        for (seg, selector) in Seg::ALL.into_iter().zip(image.selectors) {
            let value = if v86 { self.real_segment(seg, selector) } else { Segment::null(selector) };
            self.state.set_segment(seg, value);
        }
        if let Some(cr3) = image.cr3
            && self.state.paging()
        {
            self.set_cr3(cr3)?;
        }
        self.load_task_ldt(image.ldt)?;
        if !v86 {
            self.load_task_segments(&image.selectors)?;
        }
        if !self.state.segment(Seg::Cs).covers(image.eip, 1) {
            return Err(Fault::gp0());
        }
        if let Cause::Interrupt { error: Some(error), .. } = cause {
            let mut frame = Frame::new(layout.width);
            frame.push(u64::from(error));
            let sp = self.push_frame(&self.current_stack(), &frame)?;
            self.state.regs.set(RegFile::slot(RSP), Width::B8, sp);
        }
        Ok(())
    }

    fn load_task_ldt(&mut self, selector: u16) -> Result<(), Fault> {
        if is_null(selector) {
            return Ok(());
        }
        if selector & 4 != 0 {
            return Err(Fault::selector(fault::TS, selector));
        }
        let ldt = self.segment_descriptor(selector, fault::TS)?;
        if ldt.is(Segment::S) || ldt.kind() != system::LDT || !ldt.is(Segment::P) {
            return Err(Fault::selector(fault::TS, selector));
        }
        self.state.ldtr = ldt;
        Ok(())
    }

    /// CS, SS and the data segments, with the checks that a transfer of control to them would make.
    fn load_task_segments(&mut self, selectors: &[u16; 6]) -> Result<(), Fault> {
        let selector = selectors[Seg::Cs as usize];
        let mut cs = self.segment_descriptor(selector, fault::TS)?;
        let level = rpl(selector);
        let privileged = if cs.is(Segment::CONFORMING) { cs.dpl() > level } else { cs.dpl() != level };
        if is_null(selector) || !cs.is_code() || privileged {
            return Err(Fault::selector(fault::TS, selector));
        }
        if !cs.is(Segment::P) {
            return Err(Fault::selector(fault::NP, selector));
        }
        self.mark_accessed(&mut cs)?;
        self.state.set_segment(Seg::Cs, cs);
        let ss = self.stack_segment(selectors[Seg::Ss as usize], level, fault::TS)?;
        self.state.set_segment(Seg::Ss, ss);
        for seg in [Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs] {
            let value = self.data_segment(selectors[seg as usize], fault::TS)?;
            self.state.set_segment(seg, value);
        }
        Ok(())
    }
}

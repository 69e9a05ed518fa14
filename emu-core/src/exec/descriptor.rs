//! Descriptor tables and the loading of segment registers (SDM Vol. 3A 3.4, 3.5 and 5.5 to 5.8).
//!
//! Functions here check and compute; they change no register, so that a caller can commit once nothing can fault any
//! more. The one side effect before that is the accessed bit in a descriptor, as on real processors.

use super::Vcpu;
use crate::cpu::Width;
use crate::cpu::fault::{self, Fault};
use crate::cpu::segment::{Gate, Seg, Segment};

/// The table-indicator bit of a selector: LDT.
const TI: u16 = 4;

/// Whether `selector` is one of the four null selectors.
pub fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// The requested privilege level of a selector.
pub fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

impl Vcpu {
    /// Linear address of the `bytes` (8 or 16) of the descriptor that `selector` names; `None` beyond the table's limit.
    pub fn descriptor_address(&self, selector: u16, bytes: u64) -> Option<u64> {
        let offset = u64::from(selector & !7);
        let last = offset + bytes - 1;
        let s = &self.state;
        let (base, within) = if selector & TI != 0 {
            (s.ldtr.base, !s.ldtr.unusable && last <= u64::from(s.ldtr.limit))
        } else {
            (s.gdtr.base, last <= u64::from(s.gdtr.limit))
        };
        within.then(|| self.system_linear(base.wrapping_add(offset)))
    }

    /// A linear address of a system structure: 32 bits outside IA-32e mode.
    pub fn system_linear(&self, linear: u64) -> u64 {
        if self.state.long_mode() { linear } else { linear & 0xffff_ffff }
    }

    /// The 8 bytes of the descriptor that `selector` names.
    ///
    /// # Errors
    /// `vector` with the selector as error code if the selector is beyond its table's limit; #PF.
    pub fn descriptor(&mut self, selector: u16, vector: u8) -> Result<u64, Fault> {
        match self.descriptor_address(selector, 8) {
            Some(linear) => self.load_system(linear, Width::B8),
            None => Err(Fault::selector(vector, selector)),
        }
    }

    /// The code, data or 8-byte system segment that `selector` names, as [`Vcpu::descriptor`].
    ///
    /// # Errors
    /// As [`Vcpu::descriptor`].
    pub fn segment_descriptor(&mut self, selector: u16, vector: u8) -> Result<Segment, Fault> {
        Ok(Segment::from_descriptor(selector, self.descriptor(selector, vector)?))
    }

    /// A system segment (TSS, LDT), whose descriptor has 16 bytes in IA-32e mode.
    ///
    /// # Errors
    /// As [`Vcpu::descriptor`]; there also if the upper half is not of type 0.
    pub fn system_segment(&mut self, selector: u16, vector: u8) -> Result<Segment, Fault> {
        let mut segment = self.segment_descriptor(selector, vector)?;
        if self.state.long_mode() {
            let high = self.descriptor_upper_half(selector, vector)?;
            segment.base |= high << 32;
        }
        Ok(segment)
    }

    /// Bits 64 to 127 of a 16-byte descriptor: its low doubleword extends an address.
    ///
    /// # Errors
    /// As [`Vcpu::descriptor`]; there also if its type field is not 0.
    pub fn descriptor_upper_half(&mut self, selector: u16, vector: u8) -> Result<u64, Fault> {
        let linear = self.descriptor_address(selector, 16).ok_or(Fault::selector(vector, selector))?;
        let high = self.load_system(linear.wrapping_add(8), Width::B8)?;
        if high >> 40 & 0x1f != 0 {
            return Err(Fault::selector(vector, selector));
        }
        Ok(high & 0xffff_ffff)
    }

    /// The gate whose low half is `low`, read through `selector`.
    ///
    /// # Errors
    /// As [`Vcpu::descriptor_upper_half`].
    pub fn call_gate(&mut self, selector: u16, low: u64) -> Result<Gate, Fault> {
        let high = if self.state.long_mode() { self.descriptor_upper_half(selector, fault::GP)? } else { 0 };
        Ok(Gate::new(low, high as u32))
    }

    /// Sets the accessed bit of a code or data segment, in the table and in `segment`.
    ///
    /// # Errors
    /// #PF.
    pub fn mark_accessed(&mut self, segment: &mut Segment) -> Result<(), Fault> {
        if segment.is(Segment::ACCESSED) {
            return Ok(());
        }
        segment.attributes |= Segment::ACCESSED;
        let Some(linear) = self.descriptor_address(segment.selector, 8) else { return Ok(()) };
        self.store_system(linear.wrapping_add(5), Width::B1, u64::from(segment.attributes & 0xff))
    }

    /// Sets or clears the busy bit of the TSS that `selector` names (which has been read before).
    ///
    /// # Errors
    /// #PF.
    pub fn set_busy(&mut self, selector: u16, busy: bool) -> Result<(), Fault> {
        let Some(linear) = self.descriptor_address(selector, 8) else { return Ok(()) };
        let at = linear.wrapping_add(5);
        let old = self.load_system(at, Width::B1)?;
        let new = if busy { old | 2 } else { old & !2 };
        self.store_system(at, Width::B1, new)
    }

    /// What `seg` (not CS in protected mode) becomes when `selector` is moved into it (SDM Vol. 2, MOV).
    ///
    /// # Errors
    /// #GP, #NP, #SS with the selector; #GP(0) for a null SS; #PF.
    pub fn checked_segment(&mut self, seg: Seg, selector: u16) -> Result<Segment, Fault> {
        if self.state.real_or_v86() {
            return Ok(self.real_segment(seg, selector));
        }
        if seg == Seg::Ss {
            return self.stack_segment(selector, self.state.cpl, fault::GP);
        }
        self.data_segment(selector, fault::GP)
    }

    /// The data or readable code segment `selector`, or null; violations raise `vector`, #TS in a task switch.
    ///
    /// # Errors
    /// `vector` or #NP with the selector, #PF.
    pub fn data_segment(&mut self, selector: u16, vector: u8) -> Result<Segment, Fault> {
        if is_null(selector) {
            return Ok(Segment::null(selector));
        }
        let mut s = self.segment_descriptor(selector, vector)?;
        let readable = s.is(Segment::S) && (!s.is(Segment::CODE) || s.is(Segment::RW));
        let guarded = !s.is_conforming_code();
        if !readable || (guarded && s.dpl() < self.state.cpl.max(rpl(selector))) {
            return Err(Fault::selector(vector, selector));
        }
        if !s.is(Segment::P) {
            return Err(Fault::selector(fault::NP, selector));
        }
        self.mark_accessed(&mut s)?;
        Ok(s)
    }

    /// The stack segment `selector` for code at privilege `cpl`; violations raise `vector`, #TS for stacks that come
    /// from a TSS. A null selector is valid for 64-bit code below level 3.
    ///
    /// # Errors
    /// `vector` or #SS with the selector, #PF.
    pub fn stack_segment(&mut self, selector: u16, cpl: u8, vector: u8) -> Result<Segment, Fault> {
        if is_null(selector) {
            let allowed = self.state.code64() && cpl < 3 && rpl(selector) == cpl;
            return if allowed { Ok(Segment::null(selector)) } else { Err(Fault::with_code(vector, 0)) };
        }
        let mut s = self.segment_descriptor(selector, vector)?;
        if rpl(selector) != cpl || !s.is_writable_data() || s.dpl() != cpl {
            return Err(Fault::selector(vector, selector));
        }
        if !s.is(Segment::P) {
            return Err(Fault::selector(fault::SS, selector));
        }
        self.mark_accessed(&mut s)?;
        Ok(s)
    }

    /// `seg` loaded in real-address or virtual-8086 mode. In real-address mode limit and size stay as they are ("big
    /// real mode"); virtual-8086 mode sets all attributes (SDM Vol. 3A 20.1.1, 20.2.1).
    pub fn real_segment(&self, seg: Seg, selector: u16) -> Segment {
        let mut s = Segment::real(selector);
        if self.state.v86() {
            s.attributes |= 3 << 5;
        } else {
            let old = self.state.segment(seg);
            if !old.unusable {
                s.limit = old.limit;
                s.attributes |= old.attributes & (Segment::G | Segment::DB);
            }
        }
        s
    }

    /// Loads a segment register other than CS with what [`Vcpu::checked_segment`] gave. The mode is recomputed only if
    /// something that blocks depend on has changed.
    pub fn load_segment(&mut self, seg: Seg, value: Segment) {
        let old = *self.state.segment(seg);
        self.state.set_segment(seg, value);
        let mode_depends = match seg {
            Seg::Fs | Seg::Gs => old.covers_all() != value.covers_all(),
            Seg::Ss => {
                old.is_flat_data() != value.is_flat_data() || (old.attributes ^ value.attributes) & Segment::DB != 0
            }
            _ => old.is_flat_data() != value.is_flat_data(),
        };
        if mode_depends {
            self.mode_changed();
        }
    }

    /// After a return to an outer level: data segments that the new level may not use become null (SDM Vol. 3A 5.8.6).
    pub fn drop_inner_segments(&mut self) {
        for seg in [Seg::Es, Seg::Fs, Seg::Gs, Seg::Ds] {
            let s = *self.state.segment(seg);
            if !s.unusable && !s.is_conforming_code() && s.dpl() < self.state.cpl {
                self.state.set_segment(seg, Segment::null(0));
            }
        }
    }
}

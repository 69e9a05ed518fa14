//! Memory accesses of instructions: effective address, segment checks, TLB, and the slow path behind it.
//!
//! ```text
//!  effective address --segment limit and type--> linear --TLB hit--> host bytes
//!                                                    \--miss: walk, page by page--> RAM | ROM | bus
//! ```
//! One of the few modules where `unsafe` is allowed: [`HostPtr`] is the address that a TLB hit gives.

#![allow(unsafe_code)]

use crate::cpu::Width;
use crate::cpu::fault::{self, Fault};
use crate::cpu::rflags::{self};
use crate::cpu::segment::{Seg, Segment};
use crate::cpu::xmm::Xmm;
use crate::decode::insn::{Insn, Mem};
use crate::exec::Vcpu;
use crate::mem::{Backing, Offset, PhysAddr};
use crate::mmu::tlb::{CODE, EMPTY, Entry, GLOBAL, NO_TAG};
use crate::mmu::walk::{Access, Privilege, Translation, walk};

/// A host address inside guest RAM that a TLB hit gave, good for the size that was asked for, until the next access
/// that may change the TLB. Handlers use it at once and never keep it.
#[derive(Clone, Copy)]
pub struct HostPtr(usize);

impl HostPtr {
    /// The address itself.
    pub fn address(self) -> usize {
        self.0
    }

    /// Reads `T`, little-endian.
    #[inline(always)]
    pub fn read<T: Scalar>(self) -> T {
        // SAFETY: a `HostPtr` comes only from `Vcpu::host_read`, `host_read_system` or `host_write`, whose TLB tag compare
        // proved that the whole access lies in one page of the RAM mapping, which outlives the vCPU. The TLB is not
        // changed between that and this.
        T::from_le(unsafe { std::ptr::read_unaligned(self.0 as *const T) })
    }

    /// Writes `T`, little-endian. Only on a pointer for writing.
    #[inline(always)]
    pub fn write<T: Scalar>(self, value: T) {
        // SAFETY: as in `read`.
        unsafe { std::ptr::write_unaligned(self.0 as *mut T, value.to_le()) }
    }
}

/// Integers and vectors as guest memory holds them.
pub trait Scalar: Copy {
    /// Bytes.
    const SIZE: u64;
    /// From little-endian.
    fn from_le(value: Self) -> Self;
    /// To little-endian.
    fn to_le(self) -> Self;
    /// Zero-extends.
    fn to_u128(self) -> u128;
    /// Truncates.
    fn from_u128(value: u128) -> Self;
}

macro_rules! scalar {
    ($($t:ty),*) => {$(
        impl Scalar for $t {
            const SIZE: u64 = size_of::<$t>() as u64;
            #[inline(always)]
            fn from_le(value: $t) -> $t { <$t>::from_le(value) }
            #[inline(always)]
            fn to_le(self) -> $t { <$t>::to_le(self) }
            #[inline(always)]
            fn to_u128(self) -> u128 { self as u128 }
            #[inline(always)]
            fn from_u128(value: u128) -> $t { value as $t }
        }
    )*};
}
scalar!(u8, u16, u32, u64, u128);

impl Scalar for Xmm {
    const SIZE: u64 = 16;
    #[inline(always)]
    fn from_le(value: Xmm) -> Xmm {
        value
    }
    #[inline(always)]
    fn to_le(self) -> Xmm {
        self
    }
    #[inline(always)]
    fn to_u128(self) -> u128 {
        self.into()
    }
    #[inline(always)]
    fn from_u128(value: u128) -> Xmm {
        value.into()
    }
}

impl Vcpu {
    /// The effective address of a memory operand, cut to the address size.
    #[inline(always)]
    pub fn effective(&self, mem: &Mem, addr: Width) -> u64 {
        let regs = &self.state.regs;
        let sum = regs.get64(mem.base).wrapping_add(regs.get64(mem.index) << mem.shift).wrapping_add(mem.disp as u64);
        sum & addr.mask()
    }

    /// The linear address of `insn`'s memory operand for an access of `size` bytes, after segment checks.
    ///
    /// # Errors
    /// #GP(0) or #SS(0) on a limit, type or canonicality violation.
    #[inline]
    pub fn linear(&mut self, insn: &Insn, size: u64, access: Access) -> Result<u64, Fault> {
        let offset = self.effective(&insn.mem, insn.addr);
        self.seg_linear(insn.mem.seg, offset, size, access)
    }

    /// The linear address of `size` bytes at `seg:offset`, after segment checks (SDM Vol. 3A 5.3 and 5.4).
    ///
    /// # Errors
    /// As [`Vcpu::linear`].
    #[inline]
    pub fn seg_linear(&mut self, seg: Seg, offset: u64, size: u64, access: Access) -> Result<u64, Fault> {
        if self.state.code64() {
            let linear = if matches!(seg, Seg::Fs | Seg::Gs) {
                self.state.segment(seg).base.wrapping_add(offset)
            } else {
                offset
            };
            let last = linear.wrapping_add(size.max(1) - 1);
            if !self.state.canonical(linear) || !self.state.canonical(last) {
                return Err(segment_fault(seg));
            }
            return Ok(linear);
        }
        let s = self.state.segment(seg);
        let within = s.covers(offset, size);
        let allowed = self.state.real_or_v86()
            || match access {
                _ if s.unusable => false,
                Access::Read => !s.is(Segment::CODE) || s.is(Segment::RW),
                Access::Write => !s.is(Segment::CODE) && s.is(Segment::RW),
                Access::Execute => true,
            };
        if !within || !allowed {
            return Err(segment_fault(seg));
        }
        Ok(s.base.wrapping_add(offset) & 0xffff_ffff)
    }

    /// The privilege of an explicit access by the running code.
    #[inline(always)]
    pub fn privilege(&self) -> Privilege {
        if self.state.cpl == 3 { Privilege::User } else { Privilege::Supervisor }
    }

    /// The host address of `size` bytes at `linear`, if the TLB has it for reading.
    #[inline(always)]
    pub fn host_read(&self, linear: u64, size: u64) -> Option<HostPtr> {
        let entry = self.tlb.entry(linear);
        (linear.wrapping_add(size - 1) & !0xfff == entry.read_tag)
            .then(|| HostPtr(linear.wrapping_add(entry.addend) as usize))
    }

    /// As [`Vcpu::host_read`], for an implicit supervisor access.
    #[inline(always)]
    fn host_read_system(&self, linear: u64, size: u64) -> Option<HostPtr> {
        let entry = self.tlb.system_entry(linear);
        (linear.wrapping_add(size - 1) & !0xfff == entry.read_tag)
            .then(|| HostPtr(linear.wrapping_add(entry.addend) as usize))
    }

    /// The host address of `size` bytes at `linear`, if the TLB has it for plain writing.
    #[inline(always)]
    pub fn host_write(&self, linear: u64, size: u64) -> Option<HostPtr> {
        let entry = self.tlb.entry(linear);
        (linear.wrapping_add(size - 1) & !0xfff == entry.write_tag)
            .then(|| HostPtr(linear.wrapping_add(entry.addend) as usize))
    }

    /// Copies `len` bytes from `from` to `to` as ascending moves of `element` (1 to 8) bytes each would, if the TLB has
    /// both sides, each within a page. Whether it did.
    pub fn copy_ascending(&self, from: u64, to: u64, len: u64, element: u64) -> bool {
        debug_assert!(len > 0 && len.is_multiple_of(element));
        let (Some(from), Some(to)) = (self.host_read(from, len), self.host_write(to, len)) else { return false };
        let (from, to, len, element) = (from.0 as *const u8, to.0 as *mut u8, len as usize, element as usize);
        let distance = (to as usize).wrapping_sub(from as usize);
        if distance >= len || distance == 0 {
            // SAFETY: the two tag compares proved that `len` bytes at both addresses lie within the RAM mapping, which
            // outlives the vCPU; `to` is writable. The ranges may overlap only with `to` below `from`, where an
            // ascending copy is what `copy` does.
            unsafe { std::ptr::copy(from, to, len) };
        } else if distance >= element {
            // Moves read what earlier ones wrote: what lies between the two addresses repeats, at a period that is a
            // whole number of elements as long as each copy is.
            let period = distance - distance % element;
            let mut done = 0;
            while done < len {
                let n = if distance == period { (distance + done).min(len - done) } else { period.min(len - done) };
                let source = if distance == period { 0 } else { done };
                // SAFETY: as above. `n` is at most the distance of the two ranges, `distance + done - source`, so that
                // they do not overlap.
                unsafe { std::ptr::copy_nonoverlapping(from.add(source), to.add(done), n) };
                done += n;
            }
        } else {
            for at in (0..len).step_by(element) {
                // SAFETY: as above; `at + element` is at most `len`.
                unsafe { std::ptr::copy(from.add(at), to.add(at), element) };
            }
        }
        true
    }

    /// Writes `count` copies of the low `width` bytes of `value` at `to`, if the TLB has all of it, within a page.
    /// Whether it did.
    pub fn fill_ascending(&self, to: u64, value: u64, width: Width, count: u64) -> bool {
        let Some(to) = self.host_write(to, count * width.bytes()) else { return false };
        let (to, count) = (to.0 as *mut u8, count as usize);
        let bytes = value.to_le_bytes();
        let bytes = &bytes[..width as usize];
        // SAFETY: the tag compare proved that `count * width` bytes at `to` are writable and lie within the RAM
        // mapping, which outlives the vCPU.
        unsafe {
            if bytes.iter().all(|b| *b == bytes[0]) {
                std::ptr::write_bytes(to, bytes[0], count * bytes.len());
                return true;
            }
            for n in 0..count {
                match width {
                    Width::B1 => to.add(n).write(value as u8),
                    Width::B2 => to.cast::<u16>().add(n).write_unaligned((value as u16).to_le()),
                    Width::B4 => to.cast::<u32>().add(n).write_unaligned((value as u32).to_le()),
                    Width::B8 => to.cast::<u64>().add(n).write_unaligned(value.to_le()),
                }
            }
        }
        true
    }

    /// As [`Vcpu::fill_ascending`] where the TLB does not have the page, or that holds decoded code. Whether it did, as in
    /// [`Vcpu::copy_through_buffer`].
    pub fn fill_through_buffer(&mut self, to: u64, value: u64, width: Width, count: u64) -> bool {
        let len = (count * width.bytes()) as usize;
        let Some(offset) = self.ram_at(to, Access::Write).filter(|_| len <= 0x1000) else { return false };
        // The TLB has the page now, unless it holds decoded code.
        if self.fill_ascending(to, value, width, count) {
            return true;
        }
        let mut buffer = [0; 0x1000];
        for element in buffer[..len].chunks_exact_mut(width as usize) {
            element.copy_from_slice(&value.to_le_bytes()[..width as usize]);
        }
        self.write_ram(offset, &buffer[..len]);
        true
    }

    /// Copies as many bytes as `bytes` has from `linear`, within a page. Whether it did, as in
    /// [`Vcpu::copy_through_buffer`].
    pub fn copy_out(&mut self, linear: u64, bytes: &mut [u8]) -> bool {
        let Some(at) = self.host_read(linear, bytes.len() as u64) else {
            let Some(offset) = self.ram_at(linear, Access::Read) else { return false };
            self.memory.ram().read(offset, bytes);
            return true;
        };
        // SAFETY: the tag compare proved that the bytes lie within the RAM mapping, which outlives the vCPU and to which
        // no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(at.0 as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        true
    }

    /// As [`Vcpu::copy_ascending`] where the TLB does not have both pages, because they compete for one of its entries for example, or
    /// the destination holds decoded code. Whether it did; faults, device memory, breakpoints, and overlaps in such pages are left to
    /// element-wise moves.
    pub fn copy_through_buffer(&mut self, from: u64, to: u64, len: u64, element: u64) -> bool {
        let Some(from_offset) = self.ram_at(from, Access::Read) else { return false };
        let Some(to_offset) = self.ram_at(to, Access::Write) else { return false };
        // The TLB has them now, as a rule.
        if self.copy_ascending(from, to, len, element) {
            return true;
        }
        let (from, to, len) = (from_offset, to_offset, len as usize);
        if to.wrapping_sub(from) < len || len > 0x1000 {
            return false;
        }
        let mut buffer = [0; 0x1000];
        self.memory.ram().read(from, &mut buffer[..len]);
        self.write_ram(to, &buffer[..len]);
        true
    }

    /// Where `linear` lies in RAM, if the running code may access it so, and that need not be looked at by itself.
    fn ram_at(&mut self, linear: u64, access: Access) -> Option<Offset> {
        if self.must_access_slowly() {
            return None;
        }
        let (_, backing) = self.translate(linear, access, self.privilege()).ok()?;
        if access == Access::Write { backing.write } else { backing.read }
    }

    /// Whether every access must be looked at by itself: data breakpoints or alignment checks are on.
    fn must_access_slowly(&self) -> bool {
        let aligned = self.state.cpl == 3 && self.state.cr0 & crate::cpu::control::CR0_AM != 0;
        self.watching || (aligned && self.state.has(rflags::AC))
    }

    /// Reads a value at a linear address with the running code's privilege.
    ///
    /// # Errors
    /// #PF, #AC.
    #[inline(always)]
    pub fn load<T: Scalar>(&mut self, linear: u64) -> Result<T, Fault> {
        match self.host_read(linear, T::SIZE) {
            Some(at) => Ok(at.read()),
            None => self.load_slow(linear),
        }
    }

    /// Writes a value at a linear address with the running code's privilege. Either all bytes are written or none.
    ///
    /// # Errors
    /// #PF, #AC.
    #[inline(always)]
    pub fn store<T: Scalar>(&mut self, linear: u64, value: T) -> Result<(), Fault> {
        match self.host_write(linear, T::SIZE) {
            Some(at) => {
                at.write(value);
                Ok(())
            }
            None => self.store_slow(linear, value),
        }
    }

    #[cold]
    #[inline(never)]
    fn load_slow<T: Scalar>(&mut self, linear: u64) -> Result<T, Fault> {
        self.check_alignment(linear, T::SIZE)?;
        let mut bytes = [0; 16];
        self.read_bytes(linear, &mut bytes[..T::SIZE as usize], self.privilege())?;
        self.watch(linear, T::SIZE, Access::Read);
        Ok(T::from_u128(u128::from_le_bytes(bytes)))
    }

    #[cold]
    #[inline(never)]
    fn store_slow<T: Scalar>(&mut self, linear: u64, value: T) -> Result<(), Fault> {
        self.check_alignment(linear, T::SIZE)?;
        self.write_bytes(linear, &value.to_u128().to_le_bytes()[..T::SIZE as usize], self.privilege())?;
        self.watch(linear, T::SIZE, Access::Write);
        Ok(())
    }

    /// Reads `width` bytes, zero-extended.
    ///
    /// # Errors
    /// #PF, #AC.
    #[inline]
    pub fn load_width(&mut self, linear: u64, width: Width) -> Result<u64, Fault> {
        Ok(match width {
            Width::B1 => u64::from(self.load::<u8>(linear)?),
            Width::B2 => u64::from(self.load::<u16>(linear)?),
            Width::B4 => u64::from(self.load::<u32>(linear)?),
            Width::B8 => self.load::<u64>(linear)?,
        })
    }

    /// Writes the low `width` bytes.
    ///
    /// # Errors
    /// #PF, #AC.
    #[inline]
    pub fn store_width(&mut self, linear: u64, width: Width, value: u64) -> Result<(), Fault> {
        match width {
            Width::B1 => self.store(linear, value as u8),
            Width::B2 => self.store(linear, value as u16),
            Width::B4 => self.store(linear, value as u32),
            Width::B8 => self.store(linear, value),
        }
    }

    /// Reads `width` bytes of a system structure (descriptor table, TSS) as an implicit supervisor access.
    ///
    /// # Errors
    /// #PF.
    pub fn load_system(&mut self, linear: u64, width: Width) -> Result<u64, Fault> {
        if let Some(host) = self.host_read_system(linear, width.bytes()) {
            return Ok(match width {
                Width::B1 => u64::from(host.read::<u8>()),
                Width::B2 => u64::from(host.read::<u16>()),
                Width::B4 => u64::from(host.read::<u32>()),
                Width::B8 => host.read::<u64>(),
            });
        }
        let mut bytes = [0; 8];
        self.read_bytes(linear, &mut bytes[..width as usize], Privilege::Implicit)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes `width` bytes of a system structure as an implicit supervisor access.
    ///
    /// # Errors
    /// #PF.
    pub fn store_system(&mut self, linear: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.write_bytes(linear, &value.to_le_bytes()[..width as usize], Privilege::Implicit)
    }

    /// Reads any number of bytes; pages are checked in ascending order before the first byte is read.
    ///
    /// # Errors
    /// #PF.
    pub fn read_bytes(&mut self, linear: u64, bytes: &mut [u8], privilege: Privilege) -> Result<(), Fault> {
        if self.crosses(linear, bytes.len()) {
            let split = (0x1000 - (linear & 0xfff)) as usize;
            let next = self.following(linear, split as u64);
            self.translate(linear, Access::Read, privilege)?;
            self.probe(next, bytes.len() - split, Access::Read, privilege)?;
            let (head, tail) = bytes.split_at_mut(split);
            self.read_bytes(linear, head, privilege)?;
            return self.read_bytes(next, tail, privilege);
        }
        let (phys, backing) = self.translate(linear, Access::Read, privilege)?;
        match backing.read {
            Some(offset) => self.memory.ram().read(offset, bytes),
            None => self.bus_read(phys, bytes),
        }
        Ok(())
    }

    /// Writes any number of bytes, all or none: every page is checked before the first byte is written.
    ///
    /// # Errors
    /// #PF.
    pub fn write_bytes(&mut self, linear: u64, bytes: &[u8], privilege: Privilege) -> Result<(), Fault> {
        if self.crosses(linear, bytes.len()) {
            let split = (0x1000 - (linear & 0xfff)) as usize;
            let next = self.following(linear, split as u64);
            self.translate(linear, Access::Write, privilege)?;
            self.probe(next, bytes.len() - split, Access::Write, privilege)?;
            let (head, tail) = bytes.split_at(split);
            self.write_bytes(linear, head, privilege)?;
            return self.write_bytes(next, tail, privilege);
        }
        let (phys, backing) = self.translate(linear, Access::Write, privilege)?;
        match backing.write {
            Some(offset) => self.write_ram(offset, bytes),
            None => self.bus_write(phys, bytes),
        }
        Ok(())
    }

    /// Checks that `len` bytes at `linear` can be accessed, without accessing them.
    ///
    /// # Errors
    /// #PF.
    pub fn probe(&mut self, linear: u64, len: usize, access: Access, privilege: Privilege) -> Result<(), Fault> {
        let mut at = linear;
        let mut left = len;
        while left > 0 {
            self.translate(at, access, privilege)?;
            let n = ((0x1000 - (at & 0xfff)) as usize).min(left);
            at = self.following(at, n as u64);
            left -= n;
        }
        Ok(())
    }

    /// Checks that `size` bytes at `linear` can be written, before they are read to be changed.
    ///
    /// # Errors
    /// #AC, #PF.
    #[inline]
    pub fn open(&mut self, linear: u64, size: u64) -> Result<(), Fault> {
        if self.host_write(linear, size).is_some() {
            return Ok(());
        }
        self.check_alignment(linear, size)?;
        self.probe(linear, size as usize, Access::Write, self.privilege())
    }

    /// Linear addresses have 32 bits outside 64-bit mode.
    #[inline]
    pub fn wrap_linear(&self, linear: u64) -> u64 {
        if self.state.code64() { linear } else { linear & 0xffff_ffff }
    }

    /// `n` bytes behind `linear`, which is itself a linear address already: system structures and the stacks of
    /// interrupt handlers lie above 4 GiB even while compatibility-mode code runs.
    fn following(&self, linear: u64, n: u64) -> u64 {
        let next = linear.wrapping_add(n);
        if linear >> 32 == 0 { self.wrap_linear(next) } else { next }
    }

    fn crosses(&self, linear: u64, len: usize) -> bool {
        (linear & 0xfff) + len as u64 > 0x1000
    }

    /// Translates for a data access, fills the TLB, and tells what is there. The physical address counts only where the
    /// bus is to be asked.
    fn translate(&mut self, linear: u64, access: Access, privilege: Privilege) -> Result<(PhysAddr, Backing), Fault> {
        let entry = if privilege == Privilege::Implicit {
            self.tlb.system_entry(linear)
        } else if privilege == self.privilege() {
            self.tlb.entry(linear)
        } else {
            &EMPTY
        };
        let page = linear & !0xfff;
        let known = match access {
            Access::Read => entry.read_tag == page,
            Access::Write => {
                let guarded = entry.read_tag == page && entry.offset_flags & CODE != 0;
                entry.write_tag == page || (guarded && self.memory.is_guarded(entry.offset_flags as Offset))
            }
            Access::Execute => false,
        };
        if known {
            let offset = (entry.offset_flags & !0xfff | linear & 0xfff) as Offset;
            return Ok((0, Backing { read: Some(offset), write: Some(offset) }));
        }
        self.stats.tlb_misses += 1;
        let t = walk(self, linear, access, privilege)?;
        let phys = t.phys & self.memory.a20_mask();
        let backing = self.memory.resolve(phys);
        if privilege == Privilege::Implicit || privilege == self.privilege() {
            self.fill(linear, &t, &backing, privilege == Privilege::Implicit);
        }
        Ok((phys, backing))
    }

    fn fill(&mut self, linear: u64, t: &Translation, backing: &Backing, implicit: bool) {
        let Some(offset) = backing.read.or(backing.write) else { return };
        let page = linear & !0xfff;
        let frame = offset & !0xfff;
        let readable = t.readable && backing.read.is_some();
        let writable = t.writable && backing.write == Some(offset);
        let code = self.memory.is_guarded(frame);
        let entry = Entry {
            read_tag: if readable { page } else { NO_TAG },
            write_tag: if writable && !code { page } else { NO_TAG },
            addend: (self.memory.ram().host_base() as u64).wrapping_add(frame as u64).wrapping_sub(page),
            offset_flags: frame as u64 | if t.global { GLOBAL } else { 0 } | if writable && code { CODE } else { 0 },
        };
        self.tlb.fill(linear, entry, t.size, implicit);
    }

    /// Writes RAM within one page and invalidates decoded code that it overlaps.
    pub fn write_ram(&mut self, offset: Offset, bytes: &[u8]) {
        self.memory.ram().write(offset, bytes);
        if self.memory.holds_code(offset, bytes.len()) {
            self.code_written(offset, bytes.len());
        } else if self.memory.is_guarded(offset) {
            self.memory.missed_code(offset);
        }
    }

    fn bus_read(&mut self, phys: PhysAddr, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let n = bus_chunk(phys + done as u64, bytes.len() - done);
            let value = self.bus.memory_read(phys + done as u64, n as u8, self.pending_instructions());
            bytes[done..done + n].copy_from_slice(&value.to_le_bytes()[..n]);
            done += n;
        }
        self.after_bus();
    }

    fn bus_write(&mut self, phys: PhysAddr, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let n = bus_chunk(phys + done as u64, bytes.len() - done);
            let mut value = [0; 8];
            value[..n].copy_from_slice(&bytes[done..done + n]);
            let value = u64::from_le_bytes(value);
            self.bus.memory_write(phys + done as u64, n as u8, value, self.pending_instructions());
            done += n;
        }
        self.after_bus();
    }

    /// Atomically replaces the value at `linear` by `new` if it is still `old`, as LOCK-prefixed instructions do.
    ///
    /// # Errors
    /// #PF, #AC; [`Fault::Retry`] if it was no longer `old`.
    pub fn store_locked(&mut self, linear: u64, width: Width, old: u64, new: u64) -> Result<(), Fault> {
        let size = width.bytes();
        self.check_alignment(linear, size)?;
        if !linear.is_multiple_of(size) || self.crosses(linear, size as usize) {
            // A split lock: with one vCPU a plain store is atomic.
            return self.store_width(linear, width, new);
        }
        let (_, backing) = self.translate(linear, Access::Write, self.privilege())?;
        match backing.write {
            Some(offset) => {
                if !self.memory.ram().compare_exchange(offset, size as u8, old & width.mask(), new & width.mask()) {
                    return Err(Fault::Retry);
                }
                if self.memory.holds_code(offset, size as usize) {
                    self.code_written(offset, size as usize);
                }
                self.watch(linear, size, Access::Write);
                Ok(())
            }
            None => self.store_width(linear, width, new),
        }
    }

    /// #AC if alignment checks are on and `linear` is not a multiple of `size` (SDM Vol. 3A 6.15, interrupt 17).
    #[inline]
    pub fn check_alignment(&self, linear: u64, size: u64) -> Result<(), Fault> {
        let on = self.state.cpl == 3 && self.state.has(rflags::AC) && self.state.cr0 & crate::cpu::control::CR0_AM != 0;
        // 16-byte operands either check their own alignment or may lie anywhere.
        if on && size <= 8 && !linear.is_multiple_of(size) {
            return Err(Fault::with_code(fault::AC, 0));
        }
        Ok(())
    }
}

/// Bytes of the next bus access: naturally aligned, at most 8.
fn bus_chunk(phys: PhysAddr, left: usize) -> usize {
    let align = 1usize << phys.trailing_zeros().min(3);
    let mut n = align;
    while n > left {
        n /= 2;
    }
    n
}

/// #SS(0) for the stack segment, #GP(0) for the others.
#[cold]
pub fn segment_fault(seg: Seg) -> Fault {
    Fault::with_code(if seg == Seg::Ss { fault::SS } else { fault::GP }, 0)
}

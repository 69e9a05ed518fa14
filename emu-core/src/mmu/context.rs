//! Which cached translations are in reach, and what drops them (SDM Vol. 3A 4.10).
//!
//! Two kinds of things are derived from translations: entries of the data TLB, and knowledge of where code lies (the
//! fetch cache and the jump cache). The latter is valid under the number of a [`CodeSpace`], of which there is one for
//! CPL 0 to 2 and one for each of the last few PCIDs at CPL 3; a new number makes all of it stale at once.
//!
//! ```text
//!              CR3 := PCID a ------------------ b ------------------ a, bit 63 set
//!  CPL 3       space of a                       space of b           space of a again, still warm
//!  CPL 0..2    one space throughout, as long as supervisor code runs from global pages only
//! ```

use super::tlb::{Bank, CONTEXTS, PageSize};
use super::walk::Translation;
use crate::cpu::control::{CR0_AM, CR4_PCIDE};
use crate::cpu::rflags::AC;
use crate::exec::Vcpu;

/// The number under which code of one address space is known, and a summary of what that code covers.
struct CodeSpace {
    number: u64,
    /// Bit `n % 1024` is set if code in page `n` may be known.
    pages: [u64; 16],
    /// The same for 4 MiB regions, where code lies in large pages.
    regions: [u64; 16],
    /// Code in a 1 GiB page may be known.
    huge: bool,
    /// Code in pages that are not global may be known.
    private: bool,
    /// Code in global pages may be known.
    global: bool,
}

fn bit(n: u64) -> (usize, u64) {
    ((n / 64 % 16) as usize, 1 << (n % 64))
}

impl CodeSpace {
    fn new(number: u64) -> CodeSpace {
        CodeSpace { number, pages: [0; 16], regions: [0; 16], huge: false, private: false, global: false }
    }

    fn note(&mut self, linear: u64, t: &Translation) {
        let (word, mask) = bit(linear >> 12);
        self.pages[word] |= mask;
        if t.size != PageSize::Small {
            let (word, mask) = bit(linear >> 22);
            self.regions[word] |= mask;
            self.huge |= t.size == PageSize::Huge;
        }
        self.global |= t.global;
        self.private |= !t.global;
    }

    fn is_empty(&self) -> bool {
        !self.private && !self.global
    }

    /// Whether code in the page of `linear` may be known.
    fn may_cover(&self, linear: u64) -> bool {
        let (page, page_mask) = bit(linear >> 12);
        let (region, region_mask) = bit(linear >> 22);
        self.huge || self.pages[page] & page_mask != 0 || self.regions[region] & region_mask != 0
    }
}

/// An address space whose translations are kept.
struct Context {
    /// `None` if nothing is kept.
    pcid: Option<u16>,
    /// When it was last switched to.
    used: u64,
    code: CodeSpace,
}

/// The address spaces of one vCPU.
pub(crate) struct Contexts {
    contexts: [Context; CONTEXTS],
    current: usize,
    supervisor: CodeSpace,
    /// Switches so far.
    switches: u64,
    /// The last code-space number given out.
    number: u64,
}

impl Default for Contexts {
    fn default() -> Contexts {
        let contexts = std::array::from_fn(|n| Context {
            pcid: (n == 0).then_some(0),
            used: 0,
            code: CodeSpace::new(n as u64 + 1),
        });
        let number = CONTEXTS as u64 + 1;
        Contexts { contexts, current: 0, supervisor: CodeSpace::new(number), switches: 0, number }
    }
}

impl Contexts {
    /// The number under which code is known that runs at CPL 3 (`user`) or below.
    pub fn space(&self, user: bool) -> u64 {
        if user { self.contexts[self.current].code.number } else { self.supervisor.number }
    }

    /// A number below 4096 that tells apart what the fetch cache holds of different address spaces.
    pub fn fetch_tag(&self, user: bool) -> u64 {
        if user { self.current as u64 + 1 } else { 0 }
    }

    /// Code at `linear` has been translated.
    pub fn note_code(&mut self, user: bool, linear: u64, t: &Translation) {
        let space = if user { &mut self.contexts[self.current].code } else { &mut self.supervisor };
        space.note(linear, t);
    }

    fn find(&self, pcid: u16) -> Option<usize> {
        self.contexts.iter().position(|c| c.pcid == Some(pcid))
    }

    fn next_number(&mut self) -> u64 {
        // The tag of the jump cache has 48 bits for it.
        self.number = self.number.wrapping_add(1) & 0xffff_ffff_ffff;
        self.number
    }
}

impl Vcpu {
    /// Chooses the translations that the current privilege, RFLAGS.AC and debug registers allow to use. Part of
    /// [`Vcpu::mode_changed`]; enough by itself where only RFLAGS.AC has changed at CPL 0.
    pub(crate) fn select_bank(&mut self) {
        let s = &self.state;
        let aligned = s.cpl == 3 && s.cr0 & CR0_AM != 0 && s.has(AC);
        let bank = if self.watching || aligned {
            Bank::Slow
        } else if s.cpl == 3 {
            Bank::User
        } else if s.has(AC) {
            Bank::SupervisorAc
        } else {
            Bank::Supervisor
        };
        self.tlb.select(bank);
    }

    /// Recomputes the tag under which the jump cache is used: code space in the low 48 bits, mode and CPL 3 above.
    pub(crate) fn retag(&mut self) {
        let user = self.state.cpl == 3;
        let mode = u64::from(self.mode) | if user { 1 << 15 } else { 0 };
        self.jump_tag = mode << 48 | self.contexts.space(user);
    }

    /// Drops cached translations; with `keep_global` those of global pages stay.
    pub fn flush_tlb(&mut self, keep_global: bool) {
        self.tlb.flush(keep_global);
        for n in 0..CONTEXTS {
            self.forget_user_code(n);
        }
        if !keep_global || self.contexts.supervisor.private {
            self.forget_supervisor_code();
        }
    }

    /// Drops the translation of the page of `linear`: INVLPG.
    pub fn flush_tlb_page(&mut self, linear: u64) {
        self.tlb.flush_page(linear);
        if self.contexts.supervisor.may_cover(linear) {
            self.forget_supervisor_code();
        }
        for n in 0..CONTEXTS {
            // Elsewhere than in the current context, only global translations go.
            let code = &self.contexts.contexts[n].code;
            if code.may_cover(linear) && (n == self.contexts.current || code.global) {
                self.forget_user_code(n);
            }
        }
    }

    /// Drops the translation of the page of `linear` under `pcid`: INVPCID type 0.
    pub fn flush_tlb_page_of(&mut self, pcid: u16, linear: u64) {
        let Some(n) = self.contexts.find(pcid) else { return };
        if n == self.contexts.current {
            return self.flush_tlb_page(linear);
        }
        self.tlb.flush_page(linear);
        if self.contexts.contexts[n].code.may_cover(linear) {
            self.forget_user_code(n);
        }
    }

    /// Drops translations under `pcid` except global ones: INVPCID type 1.
    pub fn flush_tlb_context(&mut self, pcid: u16) {
        let Some(n) = self.contexts.find(pcid) else { return };
        self.tlb.flush_context(n);
        self.forget_user_code(n);
        if n == self.contexts.current {
            self.leave_supervisor_private();
        }
    }

    /// CR3 has been written; with `keep`, translations cached for its PCID stay.
    pub(crate) fn switch_context(&mut self, keep: bool) {
        let pcid = if self.state.cr4 & CR4_PCIDE != 0 { (self.state.cr3 & 0xfff) as u16 } else { 0 };
        let known = self.contexts.find(pcid);
        let c = &mut self.contexts;
        let oldest = || c.contexts.iter().enumerate().min_by_key(|(_, c)| c.used).map_or(0, |(n, _)| n);
        let n = known.unwrap_or_else(oldest);
        let same = n == c.current;
        c.switches += 1;
        c.contexts[n].used = c.switches;
        c.contexts[n].pcid = Some(pcid);
        c.current = n;
        self.tlb.set_context(n);
        let warm = known.is_some() && keep;
        if !warm {
            self.tlb.flush_context(n);
            self.forget_user_code(n);
        }
        if !(warm && same) {
            self.leave_supervisor_private();
        }
        self.retag();
    }

    /// CR4.PCIDE has changed, or the processor was reset: nothing is known of any PCID. Translations must have been dropped.
    pub(crate) fn forget_contexts(&mut self) {
        let pcid = if self.state.cr4 & CR4_PCIDE != 0 { (self.state.cr3 & 0xfff) as u16 } else { 0 };
        for (n, context) in self.contexts.contexts.iter_mut().enumerate() {
            context.pcid = (n == self.contexts.current).then_some(pcid);
        }
    }

    fn leave_supervisor_private(&mut self) {
        self.tlb.flush_private();
        if self.contexts.supervisor.private {
            self.forget_supervisor_code();
        }
    }

    fn forget_user_code(&mut self, n: usize) {
        if self.contexts.contexts[n].code.is_empty() {
            return;
        }
        let number = self.contexts.next_number();
        self.contexts.contexts[n].code = CodeSpace::new(number);
        self.forget_code(n as u64 + 1);
    }

    fn forget_supervisor_code(&mut self) {
        let number = self.contexts.next_number();
        self.contexts.supervisor = CodeSpace::new(number);
        self.forget_code(0);
    }

    fn forget_code(&mut self, fetch_tag: u64) {
        self.fetch.clear(fetch_tag);
        if fetch_tag == self.contexts.fetch_tag(self.state.cpl == 3) {
            self.retag();
            self.leave = true;
        }
    }
}

#[cfg(test)]
mod tests;

//! Which cached translations are in reach, and what drops them (SDM Vol. 3A 4.10).

use super::tlb::Bank;
use crate::cpu::control::CR0_AM;
use crate::cpu::rflags::AC;
use crate::exec::Vcpu;

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

    /// Drops cached translations; with `keep_global` those of global pages stay.
    pub fn flush_tlb(&mut self, keep_global: bool) {
        self.tlb.flush(keep_global);
        self.flush_fetch();
    }

    /// Drops the translation of the page of `linear`: INVLPG.
    pub fn flush_tlb_page(&mut self, linear: u64) {
        self.tlb.flush_page(linear);
        self.flush_fetch();
    }

    /// Drops the translation of the page of `linear` under `pcid`: INVPCID type 0.
    pub fn flush_tlb_page_of(&mut self, _pcid: u16, linear: u64) {
        self.flush_tlb_page(linear);
    }

    /// Drops translations under `pcid` except global ones: INVPCID type 1.
    pub fn flush_tlb_context(&mut self, _pcid: u16) {
        self.flush_tlb(true);
    }

    /// CR3 has been written; with `keep`, translations cached for its PCID stay.
    pub(crate) fn switch_context(&mut self, _keep: bool) {
        self.flush_tlb(true);
    }

    fn flush_fetch(&mut self) {
        self.fetch.clear();
        self.space = self.space.wrapping_add(1) & 0xffff_ffff_ffff;
        self.jump_tag = self.space << 16 | (self.jump_tag & 0xffff);
        self.leave = true;
    }
}

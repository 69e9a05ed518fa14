//! The vCPU as the machine's processor: run loop, reset, and a loader's state put into its registers.

use super::boot_state::{BootSegment, BootState};
use super::machine::{Pause, Processor};
use emu_core::cpu::segment::{Seg, Segment, TableRegister};
use emu_core::exec::{RunExit, Vcpu};

impl Processor for Vcpu {
    fn run(&mut self, budget: u64) -> Pause {
        match Vcpu::run(self, budget) {
            RunExit::Budget => Pause::Budget,
            RunExit::Halted => Pause::Halted,
            RunExit::Requested => Pause::Requested,
            RunExit::TripleFault => Pause::TripleFault,
        }
    }

    fn executed(&self) -> u64 {
        Vcpu::executed(self)
    }

    fn reset(&mut self) {
        Vcpu::reset(self);
    }

    fn start(&mut self, boot: &BootState) {
        let state = &mut self.state;
        for (n, value) in boot.gpr.iter().enumerate() {
            state.regs.set_gpr(n as u8, *value);
        }
        for (seg, value) in Seg::ALL.into_iter().zip(&boot.segments) {
            state.set_segment(seg, segment(value));
        }
        state.ldtr = segment(&boot.ldtr);
        state.tr = segment(&boot.tr);
        state.gdtr = TableRegister { base: boot.gdtr.base, limit: boot.gdtr.limit };
        state.idtr = TableRegister { base: boot.idtr.base, limit: boot.idtr.limit };
        state.rip = boot.rip;
        state.set_rflags(boot.rflags);
        (state.cr0, state.cr3, state.cr4) = (boot.cr0, boot.cr3, boot.cr4);
        state.msrs.efer = boot.efer;
        for (msr, value) in &boot.msrs {
            let msrs = &mut state.msrs;
            match *msr {
                0x200..=0x20f => msrs.mtrr_var[(msr - 0x200) as usize] = *value,
                0x250 => msrs.mtrr_fix[0] = *value,
                0x258..=0x259 => msrs.mtrr_fix[(msr - 0x257) as usize] = *value,
                0x268..=0x26f => msrs.mtrr_fix[(msr - 0x265) as usize] = *value,
                0x2ff => msrs.mtrr_def_type = *value,
                _ => {}
            }
        }
        state.restored();
        self.flush_tlb(false);
        self.mode_changed();
    }
}

fn segment(value: &BootSegment) -> Segment {
    Segment {
        selector: value.selector,
        base: value.base,
        limit: value.limit,
        attributes: value.attributes,
        unusable: false,
    }
}

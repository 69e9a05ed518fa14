//! A processor with memory and an empty bus, for benches that measure the engine alone.

use emu_core::cpu::control::{CR0_MP, CR0_NE, CR4_OSFXSR, CR4_OSXMMEXCPT};
use emu_core::exec::{RunExit, Vcpu};
use emu_tests::machine::{Machine, STACK3};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;

pub use emu_tests::machine::CODE;

/// Where the code may read and write, up to [`RAM`].
pub const DATA: u64 = 0x20_0000;
/// Bytes of memory.
pub const RAM: u64 = 32 << 20;

/// A processor in 64-bit mode at privilege level 0, about to execute `program` at [`CODE`]. The program never ends.
///
/// # Panics
/// The program cannot be assembled: a mistake in the bench.
pub fn cpu(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vcpu {
    let mut machine = Machine::new(RAM >> 20);
    machine.long();
    machine.catch_all();
    machine.assemble(64, CODE, program);
    let s = &mut machine.cpu.state;
    s.cr0 |= CR0_MP | CR0_NE;
    s.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    s.regs.set_gpr(emu_core::cpu::regs::RSP, STACK3);
    machine.cpu.mode_changed();
    machine.cpu
}

/// Executes `instructions` instructions of an endless program.
///
/// # Panics
/// The program ended, so it faulted.
pub fn run(cpu: &mut Vcpu, instructions: u64) {
    assert_eq!(cpu.run(instructions), RunExit::Budget, "{}", cpu.registers());
    assert_eq!(cpu.executed(), instructions);
}

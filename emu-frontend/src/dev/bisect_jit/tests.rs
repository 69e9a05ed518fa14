//! The search, with compilers that are wrong on purpose.

use super::search::{Culprit, Guest, Search, Verdict};
use super::{instruction, listing, summary};
use crate::cli::error::StartError;
use crate::dev::bare_machine;
use emu_core::decode::insn::Insn;
use emu_core::exec::region::{Answer, Compiler, Source};
use emu_core::exec::{RunExit, Vcpu};
use emu_jit::Immediate;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

const START: u64 = 0x8000;
/// An immediate and a displacement that are in the program once.
const MAGIC: u64 = 0x0123_4567;
const PLACE: u64 = 0x2_0040;

/// A loop that calls a function with a loop of its own, and one that adds [`MAGIC`] or stores to [`PLACE`] at times.
fn program() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let (mut top, mut sum, mut rare) = (a.create_label(), a.create_label(), a.create_label());
    let (mut again, mut never) = (a.create_label(), a.create_label());
    a.mov(esp, 0x7000)?;
    a.set_label(&mut top)?;
    a.inc(ecx)?;
    a.call(sum)?;
    a.call(rare)?;
    a.jmp(top)?;
    a.set_label(&mut sum)?;
    a.mov(edx, 5)?;
    a.set_label(&mut again)?;
    a.add(eax, edx)?;
    a.dec(edx)?;
    a.jne(again)?;
    a.ret()?;
    a.set_label(&mut rare)?;
    a.test(ecx, 7)?;
    a.jne(never)?;
    a.mov(esi, eax)?;
    a.add(esi, MAGIC as i32)?;
    a.xor(esi, ecx)?;
    a.mov(dword_ptr(PLACE), esi)?;
    a.mov(esi, 0)?;
    a.set_label(&mut never)?;
    a.ret()?;
    a.assemble(START)
}

struct Bare {
    cpu: Vcpu,
    retired: u64,
}

impl Guest for Bare {
    fn cpu(&mut self) -> &mut Vcpu {
        &mut self.cpu
    }

    fn retired(&mut self) -> u64 {
        self.retired
    }

    fn advance(&mut self, target: u64) -> Result<bool, StartError> {
        while self.retired < target {
            let exit = self.cpu.run(target - self.retired);
            self.retired += self.cpu.executed();
            if exit != RunExit::Budget {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn guest<'a>() -> Result<Box<dyn Guest + 'a>, StartError> {
    let cpu = bare_machine(32, START)?;
    cpu.memory.write(START, &program().unwrap());
    Ok(Box::new(Bare { cpu, retired: 0 }))
}

/// Takes instructions for what `change` makes of them.
struct Wrong {
    inner: Immediate,
    change: fn(&mut Insn),
}

impl Compiler for Wrong {
    fn threshold(&self) -> u32 {
        self.inner.threshold()
    }

    fn capacity(&self) -> usize {
        self.inner.capacity()
    }

    fn request(&mut self, mut source: Source) -> bool {
        source.blocks.iter_mut().flat_map(|block| &mut block.insns).for_each(self.change);
        self.inner.request(source)
    }

    fn ready(&self) -> bool {
        self.inner.ready()
    }

    fn take(&mut self) -> Option<(u64, Answer)> {
        self.inner.take()
    }
}

fn search(change: fn(&mut Insn)) -> Verdict {
    let compiler = || -> Result<Box<dyn Compiler>, StartError> {
        Ok(Box::new(Wrong { inner: Immediate::new(20).unwrap(), change }))
    };
    let search = Search { guest: &guest, compiler: &compiler, every: 1000, progress: &|_| {} };
    search.run(20_000).unwrap_or_else(|error| panic!("{}", error.line()))
}

fn culprit(change: fn(&mut Insn)) -> Box<Culprit> {
    match search(change) {
        Verdict::Parted(culprit) => culprit,
        Verdict::Agree { instructions, .. } => panic!("they agree for {instructions}"),
        Verdict::Unclear(problem) => panic!("{problem}"),
    }
}

#[test]
fn right_code_agrees() {
    assert!(matches!(search(|_| {}), Verdict::Agree { instructions: 20_000, regions: 1.. }));
}

#[test]
fn wrong_immediate_is_found() {
    let culprit = culprit(|insn| {
        if insn.imm == MAGIC {
            insn.imm += 1;
        }
    });
    let (block, insn) = culprit.place.expect("an instruction");
    assert_eq!(instruction(&culprit, block, insn).1, "add esi,1234567h");
    assert!(culprit.difference.contains("; RAM from byte 0x20040"), "{}", culprit.difference);
    let line = summary(&culprit);
    assert!(line.contains("'add esi,1234567h'") && line.contains("RAM from byte"), "{line}");
    let marked = listing(&culprit).lines().filter(|line| line.starts_with('>')).count();
    assert_eq!(marked, 1);
}

#[test]
fn store_to_the_wrong_place_is_found() {
    let culprit = culprit(|insn| {
        if insn.mem.disp as u64 == PLACE {
            insn.mem.disp += 4;
        }
    });
    let (block, insn) = culprit.place.expect("an instruction");
    assert_eq!(instruction(&culprit, block, insn).1, "mov [20040h],esi");
}

#[test]
fn wrong_loop_counter_is_found_at_its_load() {
    let culprit = culprit(|insn| {
        if insn.imm == 5 {
            insn.imm = 6;
        }
    });
    let (block, insn) = culprit.place.expect("an instruction");
    assert_eq!(instruction(&culprit, block, insn).1, "mov edx,5");
    assert!(culprit.difference.contains("compiled R2="), "{}", culprit.difference);
}

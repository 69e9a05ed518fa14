//! Threaded code stays flat: every handler of an optimised build ends in a jump to the next, and a long run needs no
//! more stack than a short one.

use emu_core::bus::Bus;
use emu_core::clock::{Clock, ClockMode};
use emu_core::cpu::control::{CR0_PE, CR4_OSFXSR};
use emu_core::cpu::model::CpuModel;
use emu_core::cpu::segment::{Seg, Segment};
use emu_core::exec::{RunExit, Vcpu};
use emu_core::irq::CpuPins;
use emu_core::mem::GuestMemory;
use iced_x86::code_asm::*;
use std::sync::Arc;

fn flat32(code: &[u8]) -> Vcpu {
    let memory = Arc::new(GuestMemory::new(1 << 20, 0).unwrap());
    memory.write(0x1000, code);
    let clock = Clock::new(ClockMode::Icount { shift: 0 });
    let mut cpu = Vcpu::new(Arc::new(CpuModel::max()), Arc::new(Bus::new(memory, Arc::new(CpuPins::default()), clock)));
    cpu.state.cr0 |= CR0_PE;
    cpu.state.cr4 |= CR4_OSFXSR;
    for seg in Seg::ALL {
        let attributes = if seg == Seg::Cs { 0xc09b } else { 0xc093 };
        cpu.state.set_segment(seg, Segment { selector: 8, base: 0, limit: u32::MAX, attributes, unusable: false });
    }
    cpu.state.rip = 0x1000;
    cpu.mode_changed();
    cpu
}

/// Arithmetic, memory hits and misses, calls, vector and x87 code, instructions without handlers, over and over.
fn endless() -> Result<Vec<u8>, iced_x86::IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let (mut top, mut function, mut over) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(esp, 0x9000)?;
    a.mov(esi, 0x10000)?;
    a.set_label(&mut top)?;
    a.add(eax, ecx)?;
    a.adc(dword_ptr(esi + ecx * 4), eax)?;
    a.mov(edx, dword_ptr(esi + 0xffe))?;
    a.inc(byte_ptr(esi + 0x3000))?;
    a.shld(edx, eax, 5)?;
    a.call(function)?;
    a.movdqu(xmm0, xmmword_ptr(esi + 0xff8))?;
    a.paddd(xmm1, xmm0)?;
    a.pshufb(xmm1, xmm0)?;
    a.movaps(xmmword_ptr(esi + 0x40), xmm1)?;
    a.addps(xmm2, xmm1)?;
    a.mulsd(xmm3, xmm0)?;
    a.fld1()?;
    a.fadd_2(st0, st0)?;
    a.fstp(dword_ptr(esi + 0x80))?;
    a.bsf(edi, edx)?;
    a.inc(ecx)?;
    a.and(ecx, 0xff)?;
    a.je(over)?;
    a.jmp(top)?;
    a.set_label(&mut over)?;
    a.cmp(eax, edx)?;
    a.cmovb(eax, edx)?;
    a.jmp(top)?;
    a.set_label(&mut function)?;
    a.push(eax)?;
    a.pop(ebx)?;
    a.ret()?;
    a.assemble(0x1000)
}

#[test]
fn threaded_code_long_run_fits_a_small_stack() {
    let code = endless().unwrap();
    let run = move || {
        let mut cpu = flat32(&code);
        for budget in [1_000, 3_000_000] {
            assert_eq!(cpu.run(budget), RunExit::Budget, "rip {:#x}", cpu.state.rip);
            assert_eq!(cpu.executed(), budget);
        }
    };
    // If a handler did not end in a jump, this stack would last for some thousand of them.
    std::thread::Builder::new().stack_size(512 << 10).spawn(run).unwrap().join().unwrap();
}

/// Modules that hold handlers.
#[cfg(all(target_arch = "x86_64", not(debug_assertions)))]
const MODULES: [&str; 5] = [
    "emu_core::exec::handlers::",
    "emu_core::ops::fast::",
    "emu_core::ops::sse_fp::fast::",
    "emu_core::ops::x87::fast::",
    "emu_core::ops::simd_int::fast::",
];

/// Functions there that choose handlers, and the frame in which unspecialised instructions run.
#[cfg(all(target_arch = "x86_64", not(debug_assertions)))]
const OTHERS: [&str; 5] = ["select", "handler", "pick", "perform", "specialise"];

#[cfg(all(target_arch = "x86_64", not(debug_assertions)))]
#[test]
fn threaded_code_every_handler_ends_in_an_indirect_jump() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let mut objdump = Command::new("objdump")
        .args(["--disassemble", "--demangle", "--no-show-raw-insn"])
        .arg(std::env::current_exe().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .expect("objdump, of the package binutils, is needed");
    let (mut flat, mut nested) = (0, Vec::new());
    let mut name = String::new();
    let (mut jumps, mut calls) = (0, 0);
    let mut finish = |name: &str, jumps: u32, calls: u32| {
        let function = name.rsplit("::").find(|part| !is_hash(part)).unwrap_or("");
        let ours = MODULES.iter().any(|module| name.contains(module));
        if !ours || OTHERS.iter().any(|other| function.starts_with(other)) {
            return;
        }
        flat += u32::from(jumps > 0 && calls == 0);
        if calls > 0 {
            nested.push(name.to_owned());
        }
    };
    for line in BufReader::new(objdump.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(symbol) = line.strip_suffix(">:") {
            finish(&name, jumps, calls);
            name = symbol.split_once('<').map_or("", |(_, name)| name).to_owned();
            (jumps, calls) = (0, 0);
        } else if line.contains('*') && !line.contains("(%rip)") {
            // An indirect transfer; those through %rip only reach other objects.
            jumps += u32::from(line.contains("jmp"));
            calls += u32::from(line.contains("call"));
        }
    }
    finish(&name, jumps, calls);
    assert!(objdump.wait().unwrap().success());
    assert!(nested.is_empty(), "{} handlers call the next one: {nested:#?}", nested.len());
    assert!(flat > 1000, "only {flat} handlers found");
    println!("{flat} handlers");
}

/// The last part of a mangled name.
#[cfg(all(target_arch = "x86_64", not(debug_assertions)))]
fn is_hash(part: &str) -> bool {
    part.len() == 17 && part.starts_with('h') && part[1..].bytes().all(|b| b.is_ascii_hexdigit())
}

//! Branches to symbols by name, port accesses and far transfers: what `CodeAssembler` has not got, or words for labels only.

use super::{AsmMemoryOperand, AsmRegister16, AsmRegister32, Emitted, Rom, al, ax, ds, dx, eax, ecx, es};

/// Where a near jump or call can go: a symbol of the same section, a register, a word in memory.
pub trait Target {
    /// Emits `jmp`.
    fn jump(self, rom: &mut Rom) -> Emitted;
    /// Emits `call`.
    fn call(self, rom: &mut Rom) -> Emitted;
}

impl Target for &str {
    fn jump(self, rom: &mut Rom) -> Emitted {
        let label = rom.branch_label(self);
        rom.code().jmp(label)
    }

    fn call(self, rom: &mut Rom) -> Emitted {
        let label = rom.branch_label(self);
        rom.code().call(label)
    }
}

macro_rules! operand_targets {
    ($($operand:ty)*) => {
        $(impl Target for $operand {
            fn jump(self, rom: &mut Rom) -> Emitted {
                rom.code().jmp(self)
            }

            fn call(self, rom: &mut Rom) -> Emitted {
                rom.code().call(self)
            }
        })*
    };
}
operand_targets!(AsmRegister16 AsmRegister32 AsmMemoryOperand);

macro_rules! branches {
    ($($mnemonic:ident)*) => {
        $(#[allow(missing_docs)]
        pub fn $mnemonic(&mut self, symbol: &str) -> Emitted {
            let label = self.branch_label(symbol);
            self.code().$mnemonic(label)
        })*
    };
}

/// Branches.
impl Rom {
    branches!(jo jno jb jae je jne jbe ja js jns jp jnp jl jge jle jg jc jnc jz jnz jna jnbe jcxz jecxz loop_ loope loopne);

    /// A near jump.
    pub fn jmp(&mut self, target: impl Target) -> Emitted {
        target.jump(self)
    }

    /// A near call.
    pub fn call(&mut self, target: impl Target) -> Emitted {
        target.call(self)
    }

    /// A far jump from 16-bit code to a symbol of any 16-bit section.
    pub fn jmp_far(&mut self, symbol: &str) -> Emitted {
        self.far(0xEA, symbol)
    }

    /// A far call from 16-bit code to a symbol of any 16-bit section, which returns with `retf`.
    pub fn call_far(&mut self, symbol: &str) -> Emitted {
        self.far(0x9A, symbol)
    }

    /// Calls a far routine with DS = ES = 0, if the image has it.
    pub fn hook(&mut self, symbol: &str) {
        if self.known.contains_key(symbol) {
            asm! { self;
                call_far(symbol);
                cli();
                cld();
                push(0);
                pop(ds);
                push(0);
                pop(es);
            }
        }
    }

    /// A far jump from 16-bit code to a 32-bit offset in the segment that `selector` names.
    pub fn jmp_far32(&mut self, selector: u16, offset: u32) -> Emitted {
        let code = [&[0x66, 0xEA][..], &offset.to_le_bytes(), &selector.to_le_bytes()].concat();
        self.code().db(&code)
    }

    /// A far jump to `segment:offset` with the section's own offset size.
    pub fn jmp_far_to(&mut self, segment: u16, offset: u32) -> Emitted {
        let wide = if self.bits() == 32 { 4 } else { 2 };
        let code = [&[0xEA][..], &offset.to_le_bytes()[..wide], &segment.to_le_bytes()].concat();
        self.code().db(&code)
    }

    fn far(&mut self, opcode: u8, symbol: &str) -> Emitted {
        let [low, high] = self.offset(symbol).to_le_bytes();
        let [segment_low, segment_high] = self.segment(symbol).to_le_bytes();
        self.code().db(&[opcode, low, high, segment_low, segment_high])
    }
}

/// Ports. All but the first two leave the port in DX.
impl Rom {
    /// Writes a constant to a port below 100h, through AL.
    pub fn out_byte(&mut self, port: u8, value: u8) -> Emitted {
        self.code().mov(al, u32::from(value))?;
        self.code().out(i32::from(port), al)
    }

    /// Reads a port below 100h into AL.
    pub fn in_byte(&mut self, port: u8) -> Emitted {
        self.code().in_(al, i32::from(port))
    }

    /// Writes AL to any port.
    pub fn out_al(&mut self, port: u16) -> Emitted {
        self.code().mov(dx, u32::from(port))?;
        self.code().out(dx, al)
    }

    /// Writes AX to any port.
    pub fn out_ax(&mut self, port: u16) -> Emitted {
        self.code().mov(dx, u32::from(port))?;
        self.code().out(dx, ax)
    }

    /// Writes EAX to any port.
    pub fn out_eax(&mut self, port: u16) -> Emitted {
        self.code().mov(dx, u32::from(port))?;
        self.code().out(dx, eax)
    }

    /// Reads AL from any port.
    pub fn in_al(&mut self, port: u16) -> Emitted {
        self.code().mov(dx, u32::from(port))?;
        self.code().in_(al, dx)
    }

    /// Reads AX from any port.
    pub fn in_ax(&mut self, port: u16) -> Emitted {
        self.code().mov(dx, u32::from(port))?;
        self.code().in_(ax, dx)
    }

    /// Reads EAX from any port.
    pub fn in_eax(&mut self, port: u16) -> Emitted {
        self.code().mov(dx, u32::from(port))?;
        self.code().in_(eax, dx)
    }

    /// Reads a CMOS register into AL. NMI stays enabled.
    pub fn cmos_read(&mut self, register: u8) -> Emitted {
        self.out_byte(0x70, register)?;
        self.in_byte(0x71)
    }
}

impl Rom {
    /// Leaves ZF set if the processor has no CPUID, which is if EFLAGS.ID cannot be changed. Changes EAX and ECX.
    pub fn probe_cpuid(&mut self) -> Emitted {
        const ID: i32 = 1 << 21;
        let code = self.code();
        code.pushfd()?;
        code.pop(eax)?;
        code.mov(ecx, eax)?;
        code.xor(eax, ID)?;
        code.push(eax)?;
        code.popfd()?;
        code.pushfd()?;
        code.pop(eax)?;
        code.xor(eax, ecx)?;
        code.test(eax, ID)
    }
}

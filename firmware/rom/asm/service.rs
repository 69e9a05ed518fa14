//! Software interrupts: the stub that saves the caller's registers, dispatch by function number, and returns.
//!
//! After [`Rom::service`] the stack holds the caller's registers as [`frame`] names them, relative to BP, while the
//! registers themselves still have the caller's values, except BP, and DS, which is the BIOS data area's segment. What a
//! function writes into the frame is what the caller gets. A function ends by jumping to one of
//!
//! | symbol | does |
//! |---|---|
//! | `service.done` | returns, flags as in the frame (the caller's own) |
//! | `service.ok` | returns with CF clear |
//! | `service.ok_ah0` | returns with CF clear and AH = 0 |
//! | `service.fail` | returns with CF set |
//! | `service.fail_ah` | returns with CF set and AH as it is now |
//! | `service.zero`, `service.nonzero` | returns with ZF set, clear |
//!
//! or, where several flags are wanted, `carry(true)` and `jmp("service.done")`.

use super::{Emitted, Rom, ah, al, ax, bp, byte_ptr, ds, es, sp};
use crate::rom::layout::BDA_SEGMENT;

/// The caller's registers on a service's stack. Sizes as in the names; operands address SS through BP.
pub mod frame {
    use crate::rom::asm::{AsmMemoryOperand, bp, byte_ptr, dword_ptr, word_ptr};

    macro_rules! fields {
        ($($name:ident $size:ident $offset:literal;)*) => {
            $(#[allow(missing_docs)]
            pub fn $name() -> AsmMemoryOperand {
                $size(bp + $offset)
            })*
        };
    }
    fields! {
        edi dword_ptr 0; di word_ptr 0;
        esi dword_ptr 4; si word_ptr 4;
        ebp dword_ptr 8; bp_ word_ptr 8;
        ebx dword_ptr 16; bx word_ptr 16; bl byte_ptr 16; bh byte_ptr 17;
        edx dword_ptr 20; dx word_ptr 20; dl byte_ptr 20; dh byte_ptr 21;
        ecx dword_ptr 24; cx word_ptr 24; cl byte_ptr 24; ch byte_ptr 25;
        eax dword_ptr 28; ax word_ptr 28; al byte_ptr 28; ah byte_ptr 29;
        es word_ptr 32; ds word_ptr 34; ip word_ptr 36; cs word_ptr 38; flags word_ptr 40; flags_low byte_ptr 40;
    }
}

const CARRY: u32 = 0x01;
const ZERO: u32 = 0x40;

/// Services.
impl Rom {
    /// The start of a software interrupt's handler, and its symbol: see the module.
    pub fn service(&mut self, name: &str) -> Emitted {
        self.label(name)?;
        let code = self.code();
        code.push(ds)?;
        code.push(es)?;
        code.pushad()?;
        code.cld()?;
        code.mov(bp, sp)?;
        // AX is restored from the frame: the only register that loading DS needs.
        code.push(BDA_SEGMENT as i32)?;
        code.pop(ds)
    }

    /// Registers a symbol of any 16-bit section as the handler of an interrupt: POST puts it into the vector table.
    pub fn vector(&mut self, number: u8, symbol: &str) -> Emitted {
        self.vectors.push((number, symbol.to_owned()));
        Ok(())
    }

    /// The handlers registered so far in this pass.
    pub fn vectors(&self) -> Vec<(u8, String)> {
        self.vectors.clone()
    }

    /// Jumps to the symbol beside AH's value, and goes on with what follows for any other value.
    pub fn dispatch_ah(&mut self, functions: &[(u8, &str)]) -> Emitted {
        for &(function, symbol) in functions {
            self.code().cmp(ah, u32::from(function))?;
            self.je(symbol)?;
        }
        Ok(())
    }

    /// Jumps to the symbol beside AL's value, and goes on with what follows for any other value.
    pub fn dispatch_al(&mut self, functions: &[(u8, &str)]) -> Emitted {
        for &(function, symbol) in functions {
            self.code().cmp(al, u32::from(function))?;
            self.je(symbol)?;
        }
        Ok(())
    }

    /// Jumps to the symbol beside AX's value, and goes on with what follows for any other value.
    pub fn dispatch_ax(&mut self, functions: &[(u16, &str)]) -> Emitted {
        for &(function, symbol) in functions {
            self.code().cmp(ax, u32::from(function))?;
            self.je(symbol)?;
        }
        Ok(())
    }

    /// Sets or clears the caller's CF.
    pub fn carry(&mut self, on: bool) -> Emitted {
        self.caller_flag(CARRY, on)
    }

    /// Sets or clears the caller's ZF.
    pub fn zero(&mut self, on: bool) -> Emitted {
        self.caller_flag(ZERO, on)
    }

    /// The shared ends of services, which each 16-bit section with services needs once; see the module.
    pub fn service_ends(&mut self) {
        asm! { self;
            label("service.fail_ah");
            mov(frame::ah(), ah);
            label("service.fail");
            carry(true);
            jmp("service.done");
            label("service.zero");
            zero(true);
            jmp("service.done");
            label("service.nonzero");
            zero(false);
            jmp("service.done");
            label("service.ok_ah0");
            mov(frame::ah(), 0);
            label("service.ok");
            carry(false);
            label("service.done");
            mov(sp, bp);
            popad();
            pop(es);
            pop(ds);
            iret();
        }
    }

    fn caller_flag(&mut self, flag: u32, on: bool) -> Emitted {
        if on { self.code().or(byte_ptr(bp + 40), flag) } else { self.code().and(byte_ptr(bp + 40), !flag & 0xFF) }
    }
}

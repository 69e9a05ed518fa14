//! Faults as values: what an instruction raises instead of completing (SDM Vol. 3A 6.15).

#![allow(missing_docs)]

pub const DE: u8 = 0;
pub const DB: u8 = 1;
pub const NMI: u8 = 2;
pub const BP: u8 = 3;
pub const OF: u8 = 4;
pub const BR: u8 = 5;
pub const UD: u8 = 6;
pub const NM: u8 = 7;
pub const DF: u8 = 8;
pub const TS: u8 = 10;
pub const NP: u8 = 11;
pub const SS: u8 = 12;
pub const GP: u8 = 13;
pub const PF: u8 = 14;
pub const MF: u8 = 16;
pub const AC: u8 = 17;
pub const MC: u8 = 18;
pub const XM: u8 = 19;

/// Why an instruction did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An exception; RIP stays at the instruction (traps set their own RIP first).
    Exception {
        /// The vector, one of this module's constants.
        vector: u8,
        /// The error code, where the vector has one.
        error: Option<u32>,
        /// #PF only: the linear address for CR2.
        address: u64,
    },
    /// Execute the instruction again: an atomic update lost a race, or a REP instruction gave way to events.
    Retry,
    /// The processor shuts down: a fault while delivering a double fault.
    Shutdown,
}

impl Fault {
    /// An exception without error code.
    #[cold]
    pub fn plain(vector: u8) -> Fault {
        Fault::Exception { vector, error: None, address: 0 }
    }

    /// An exception with an error code.
    #[cold]
    pub fn with_code(vector: u8, error: u32) -> Fault {
        Fault::Exception { vector, error: Some(error), address: 0 }
    }

    /// #PF at `address`.
    #[cold]
    pub fn page(address: u64, error: u32) -> Fault {
        Fault::Exception { vector: PF, error: Some(error), address }
    }

    /// #GP(0).
    #[cold]
    pub fn gp0() -> Fault {
        Fault::with_code(GP, 0)
    }

    /// #GP(selector), RPL masked off.
    #[cold]
    pub fn gp(selector: u16) -> Fault {
        Fault::with_code(GP, u32::from(selector & !3))
    }

    /// `vector` with the error code of `selector`: RPL masked off.
    #[cold]
    pub fn selector(vector: u8, selector: u16) -> Fault {
        Fault::with_code(vector, u32::from(selector & !3))
    }

    /// The same fault, met while delivering an event external to the program: error codes have EXT set (SDM Vol. 3A
    /// 6.13). The error codes of #PF and #AC have another format.
    #[cold]
    pub fn external(self) -> Fault {
        match self {
            Fault::Exception { vector: vector @ (TS | NP | SS | GP), error: Some(error), address } => {
                Fault::Exception { vector, error: Some(error | 1), address }
            }
            other => other,
        }
    }

    /// #UD.
    #[cold]
    pub fn ud() -> Fault {
        Fault::plain(UD)
    }
}

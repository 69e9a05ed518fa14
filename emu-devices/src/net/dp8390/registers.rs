//! Which register is where: DP8390D data sheet 10.2, "Register Address Assignments". The same offset of the same page is often one register to
//! read and another to write.

/// What a read reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRegister {
    Cr,
    Clda0,
    Clda1,
    Bnry,
    Tsr,
    Ncr,
    Fifo,
    Isr,
    Crda0,
    Crda1,
    Rsr,
    Cntr(u8),
    Par(u8),
    Curr,
    Mar(u8),
    Pstart,
    Pstop,
    RemoteNextPacket,
    LocalNextPacket,
    Tpsr,
    AddressCounterHigh,
    AddressCounterLow,
    Rcr,
    Tcr,
    Dcr,
    Imr,
    /// A register that cards add where the DP8390 has none.
    Extension {
        page: u8,
        offset: u8,
    },
    Reserved,
}

impl ReadRegister {
    /// Register `offset` (0 to Fh) of `page` (0 to 3).
    pub fn decode(page: u8, offset: u8) -> ReadRegister {
        use ReadRegister::*;
        match (page & 3, offset & 0xf) {
            (_, 0x0) => Cr,
            (0, 0x1) => Clda0,
            (0, 0x2) => Clda1,
            (0, 0x3) => Bnry,
            (0, 0x4) => Tsr,
            (0, 0x5) => Ncr,
            (0, 0x6) => Fifo,
            (0, 0x7) => Isr,
            (0, 0x8) => Crda0,
            (0, 0x9) => Crda1,
            (0, 0xc) => Rsr,
            (0, offset @ 0xd..=0xf) => Cntr(offset - 0xd),
            (1, offset @ 0x1..=0x6) => Par(offset - 1),
            (1, 0x7) => Curr,
            (1, offset @ 0x8..=0xf) => Mar(offset - 8),
            (2, 0x1) => Pstart,
            (2, 0x2) => Pstop,
            (2, 0x3) => RemoteNextPacket,
            (2, 0x4) => Tpsr,
            (2, 0x5) => LocalNextPacket,
            (2, 0x6) => AddressCounterHigh,
            (2, 0x7) => AddressCounterLow,
            (2, 0xc) => Rcr,
            (2, 0xd) => Tcr,
            (2, 0xe) => Dcr,
            (2, 0xf) => Imr,
            (page @ (0 | 3), offset) => Extension { page, offset },
            _ => Reserved,
        }
    }
}

/// What a write reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteRegister {
    Cr,
    Pstart,
    Pstop,
    Bnry,
    Tpsr,
    Tbcr0,
    Tbcr1,
    Isr,
    Rsar0,
    Rsar1,
    Rbcr0,
    Rbcr1,
    Rcr,
    Tcr,
    Dcr,
    Imr,
    Par(u8),
    Curr,
    Mar(u8),
    Clda0,
    Clda1,
    RemoteNextPacket,
    LocalNextPacket,
    AddressCounterHigh,
    AddressCounterLow,
    /// A register of page 3, which cards add.
    Extension(u8),
    Reserved,
}

impl WriteRegister {
    /// Register `offset` (0 to Fh) of `page` (0 to 3).
    pub fn decode(page: u8, offset: u8) -> WriteRegister {
        use WriteRegister::*;
        match (page & 3, offset & 0xf) {
            (_, 0x0) => Cr,
            (0, 0x1) => Pstart,
            (0, 0x2) => Pstop,
            (0, 0x3) => Bnry,
            (0, 0x4) => Tpsr,
            (0, 0x5) => Tbcr0,
            (0, 0x6) => Tbcr1,
            (0, 0x7) => Isr,
            (0, 0x8) => Rsar0,
            (0, 0x9) => Rsar1,
            (0, 0xa) => Rbcr0,
            (0, 0xb) => Rbcr1,
            (0, 0xc) => Rcr,
            (0, 0xd) => Tcr,
            (0, 0xe) => Dcr,
            (0, 0xf) => Imr,
            (1, offset @ 0x1..=0x6) => Par(offset - 1),
            (1, 0x7) => Curr,
            (1, offset @ 0x8..=0xf) => Mar(offset - 8),
            (2, 0x1) => Clda0,
            (2, 0x2) => Clda1,
            (2, 0x3) => RemoteNextPacket,
            (2, 0x5) => LocalNextPacket,
            (2, 0x6) => AddressCounterHigh,
            (2, 0x7) => AddressCounterLow,
            (3, offset) => Extension(offset),
            _ => Reserved,
        }
    }
}

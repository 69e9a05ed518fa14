//! Which register is where: manual 13.2, "Register Summary".

/// A register of BAR 0, by its name in the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    Ctrl,
    Status,
    Eecd,
    Eerd,
    CtrlExt,
    Mdic,
    Fcal,
    Fcah,
    Fct,
    Vet,
    Icr,
    Itr,
    Ics,
    Ims,
    Imc,
    Rctl,
    Fcttv,
    Txcw,
    Rxcw,
    Tctl,
    Tipg,
    Ait,
    Ledctl,
    Pba,
    Fcrtl,
    Fcrth,
    Rdbal,
    Rdbah,
    Rdlen,
    Rdh,
    Rdt,
    Rdtr,
    Rxdctl,
    Radv,
    Rsrpd,
    Tdbal,
    Tdbah,
    Tdlen,
    Tdh,
    Tdt,
    Tidv,
    Txdctl,
    Tadv,
    Tspmt,
    /// A statistics register: its number from 4000h on.
    Statistic(u8),
    Rxcsum,
    /// A word of the multicast table array.
    Mta(u8),
    /// Receive address: two words for each of 16.
    Ra(u8),
    /// A word of the VLAN filter table array.
    Vfta(u8),
    Wuc,
    Wufc,
    Wus,
    Manc,
    Absent,
}

impl Register {
    /// The register of 32 bits at `offset`, whose lowest two bits do not matter.
    pub fn decode(offset: u32) -> Register {
        use Register::*;
        match offset & !3 {
            0x0000 | 0x0004 => Ctrl,
            0x0008 => Status,
            0x0010 => Eecd,
            0x0014 => Eerd,
            0x0018 => CtrlExt,
            0x0020 => Mdic,
            0x0028 => Fcal,
            0x002c => Fcah,
            0x0030 => Fct,
            0x0038 => Vet,
            0x00c0 => Icr,
            0x00c4 => Itr,
            0x00c8 => Ics,
            0x00d0 => Ims,
            0x00d8 => Imc,
            0x0100 => Rctl,
            0x0170 => Fcttv,
            0x0178 => Txcw,
            0x0180 => Rxcw,
            0x0400 => Tctl,
            0x0410 => Tipg,
            0x0458 => Ait,
            0x0e00 => Ledctl,
            0x1000 => Pba,
            0x2160 => Fcrtl,
            0x2168 => Fcrth,
            // The second address of each is that of the 82542, which the 82540 decodes as well.
            0x2800 | 0x0110 => Rdbal,
            0x2804 | 0x0114 => Rdbah,
            0x2808 | 0x0118 => Rdlen,
            0x2810 | 0x0120 => Rdh,
            0x2818 | 0x0128 => Rdt,
            0x2820 | 0x0108 => Rdtr,
            0x2828 => Rxdctl,
            0x282c => Radv,
            0x2c00 => Rsrpd,
            0x3800 | 0x0420 => Tdbal,
            0x3804 | 0x0424 => Tdbah,
            0x3808 | 0x0428 => Tdlen,
            0x3810 | 0x0430 => Tdh,
            0x3818 | 0x0438 => Tdt,
            0x3820 | 0x0440 => Tidv,
            0x3828 => Txdctl,
            0x382c => Tadv,
            0x3830 => Tspmt,
            offset @ 0x4000..0x4100 => Statistic((offset >> 2 & 63) as u8),
            0x5000 => Rxcsum,
            offset @ (0x5200..0x5400 | 0x0200..0x0400) => Mta((offset >> 2 & 127) as u8),
            offset @ 0x5400..0x5480 => Ra((offset >> 2 & 31) as u8),
            offset @ 0x0040..0x00c0 => Ra(((offset - 0x40) >> 2) as u8),
            offset @ (0x5600..0x5800 | 0x0600..0x0800) => Vfta((offset >> 2 & 127) as u8),
            0x5800 => Wuc,
            0x5808 => Wufc,
            0x5810 => Wus,
            0x5820 => Manc,
            _ => Absent,
        }
    }
}

/// CTRL bits.
pub mod ctrl {
    /// Full duplex.
    pub const FD: u32 = 1 << 0;
    /// Set link up.
    pub const SLU: u32 = 1 << 6;
    /// Device reset.
    pub const RST: u32 = 1 << 26;
    /// VLAN mode: tags are put in and taken out.
    pub const VME: u32 = 1 << 30;
    /// Reset of the PHY.
    pub const PHY_RST: u32 = 1 << 31;
}

/// STATUS bits.
pub mod status {
    pub const FD: u32 = 1 << 0;
    pub const LU: u32 = 1 << 1;
    /// 1000 Mbit/s, as set and as auto-detected.
    pub const SPEED_1000: u32 = 1 << 7 | 1 << 9;
}

/// Interrupt causes: ICR, ICS, IMS and IMC.
pub mod cause {
    /// Transmit descriptor written back.
    pub const TXDW: u32 = 1 << 0;
    /// Transmit queue empty.
    pub const TXQE: u32 = 1 << 1;
    /// Link status change.
    pub const LSC: u32 = 1 << 2;
    /// Receive descriptor minimum threshold reached.
    pub const RXDMT0: u32 = 1 << 4;
    /// Receiver overrun.
    pub const RXO: u32 = 1 << 6;
    /// Receiver timer.
    pub const RXT0: u32 = 1 << 7;
    /// MDIO access complete.
    pub const MDAC: u32 = 1 << 9;
    /// Transmit descriptors are low.
    pub const TXD_LOW: u32 = 1 << 15;
    /// Small receive packet detected.
    pub const SRPD: u32 = 1 << 16;
    /// All that the 82540EM has.
    pub const ALL: u32 = 0x1_f6df;
}

/// RCTL bits.
pub mod rctl {
    pub const EN: u32 = 1 << 1;
    /// Unicast promiscuous.
    pub const UPE: u32 = 1 << 3;
    /// Multicast promiscuous.
    pub const MPE: u32 = 1 << 4;
    /// Long packets.
    pub const LPE: u32 = 1 << 5;
    /// Loopback mode.
    pub const LBM: u32 = 3 << 6;
    /// Receive descriptor minimum threshold size, and its place.
    pub const RDMTS_SHIFT: u32 = 8;
    /// Multicast offset, and its place.
    pub const MO_SHIFT: u32 = 12;
    /// Broadcasts.
    pub const BAM: u32 = 1 << 15;
    pub const BSIZE_SHIFT: u32 = 16;
    /// VLAN filter.
    pub const VFE: u32 = 1 << 18;
    /// Buffer sizes are 16 times as large.
    pub const BSEX: u32 = 1 << 25;
    /// Strip the CRC.
    pub const SECRC: u32 = 1 << 26;
}

/// TCTL bits.
pub mod tctl {
    pub const EN: u32 = 1 << 1;
    /// Pad short packets.
    pub const PSP: u32 = 1 << 3;
}

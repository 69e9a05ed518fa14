//! The names of the local APIC's registers and bits: SDM Vol. 3A table 11-1 and figures 11-8 to 11-12.

pub(super) const BASE_BSP: u64 = 1 << 8;
pub(super) const BASE_EXTD: u64 = 1 << 10;
pub(super) const BASE_EN: u64 = 1 << 11;
pub(super) const BASE_ADDRESS: u64 = 0xf_ffff_f000;

/// Integrated APIC, six LVT entries.
pub(super) const VERSION: u32 = 0x0005_0014;
pub(super) const SVR_ENABLE: u32 = 1 << 8;
pub(super) const SVR_WRITABLE: u32 = 0x1ff;
pub(super) const LVT_MASKED: u32 = 1 << 16;
pub(super) const LVT_REMOTE_IRR: u32 = 1 << 14;
pub(super) const LVT_LEVEL: u32 = 1 << 15;
pub(super) const LINT0_AFTER_RESET: u32 = 0x700;

/// Error status register bits.
pub(super) mod esr {
    pub const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// An entry of the local vector table, in the order of [`LapicState::lvt`] and of their addresses from 320h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lvt {
    Timer,
    Thermal,
    Performance,
    Lint0,
    Lint1,
    Error,
}

impl Lvt {
    const ALL: [Lvt; 6] = [Lvt::Timer, Lvt::Thermal, Lvt::Performance, Lvt::Lint0, Lvt::Lint1, Lvt::Error];

    pub(super) fn writable(self) -> u32 {
        match self {
            Lvt::Timer => 0x7_00ff,
            Lvt::Thermal | Lvt::Performance => 0x1_07ff,
            Lvt::Lint0 | Lvt::Lint1 => 0x1_a7ff,
            Lvt::Error => 0x1_00ff,
        }
    }
}

/// What a register offset (in doublewords: xAPIC offset / 16, x2APIC MSR - 800h) names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Id,
    Version,
    TaskPriority,
    /// Read as zero on all processors since the Pentium 4.
    ArbitrationPriority,
    ProcessorPriority,
    EndOfInterrupt,
    /// Remote read data, likewise obsolete.
    RemoteRead,
    LogicalDestination,
    DestinationFormat,
    SpuriousVector,
    InService(usize),
    TriggerMode(usize),
    InterruptRequest(usize),
    ErrorStatus,
    CommandLow,
    CommandHigh,
    Vector(Lvt),
    InitialCount,
    CurrentCount,
    DivideConfiguration,
    /// x2APIC only.
    SelfIpi,
}

impl Register {
    pub(super) fn decode(index: u32) -> Option<Register> {
        Some(match index {
            0x02 => Register::Id,
            0x03 => Register::Version,
            0x08 => Register::TaskPriority,
            0x09 => Register::ArbitrationPriority,
            0x0a => Register::ProcessorPriority,
            0x0b => Register::EndOfInterrupt,
            0x0c => Register::RemoteRead,
            0x0d => Register::LogicalDestination,
            0x0e => Register::DestinationFormat,
            0x0f => Register::SpuriousVector,
            0x10..=0x17 => Register::InService(index as usize - 0x10),
            0x18..=0x1f => Register::TriggerMode(index as usize - 0x18),
            0x20..=0x27 => Register::InterruptRequest(index as usize - 0x20),
            0x28 => Register::ErrorStatus,
            0x30 => Register::CommandLow,
            0x31 => Register::CommandHigh,
            0x32..=0x37 => Register::Vector(Lvt::ALL[index as usize - 0x32]),
            0x38 => Register::InitialCount,
            0x39 => Register::CurrentCount,
            0x3e => Register::DivideConfiguration,
            0x3f => Register::SelfIpi,
            _ => return None,
        })
    }

    /// SDM table 11-6: which of them x2APIC mode has, for reading and for writing.
    pub(super) fn in_x2apic(self) -> (bool, bool) {
        match self {
            Register::ArbitrationPriority
            | Register::RemoteRead
            | Register::DestinationFormat
            | Register::CommandHigh => (false, false),
            Register::Id
            | Register::Version
            | Register::ProcessorPriority
            | Register::LogicalDestination
            | Register::InService(_)
            | Register::TriggerMode(_)
            | Register::InterruptRequest(_)
            | Register::CurrentCount => (true, false),
            Register::EndOfInterrupt | Register::SelfIpi => (false, true),
            _ => (true, true),
        }
    }
}

/// Delivery modes of messages and LVT entries (SDM 11.5.1, 11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeliveryMode {
    Fixed,
    LowestPriority,
    Smi,
    Nmi,
    Init,
    StartUp,
    ExtInt,
    Reserved,
}

impl DeliveryMode {
    pub(super) fn decode(bits: u32) -> DeliveryMode {
        match bits & 7 {
            0 => DeliveryMode::Fixed,
            1 => DeliveryMode::LowestPriority,
            2 => DeliveryMode::Smi,
            4 => DeliveryMode::Nmi,
            5 => DeliveryMode::Init,
            6 => DeliveryMode::StartUp,
            7 => DeliveryMode::ExtInt,
            _ => DeliveryMode::Reserved,
        }
    }
}

//! The 82540EM of Intel's PCI/PCI-X Family of Gigabit Ethernet Controllers: Software Developer's Manual 317453 (8254x).
//!
//! Chapter 3 (receive and transmit descriptors, offloads, interrupts), 5 (EEPROM), 8 (PHY), 13 (registers). IDs are those of QEMU's `e1000`.
//!
//! ```text
//!  TDT --> descriptors in guest memory --> frames (segments, checksums, VLAN tags) --> cable
//!  cable --> filters --> buffers and descriptors up to RDT --> RDTR/RADV --+
//!                                          TIDV/TADV <-- descriptors sent -+--> ICR & IMS --> ITR --> INTA#
//! ```
//! A doorbell processes all descriptors that it announces, up to [`transmit::WORK`] bytes; the rest follows in later polls. Frames wait on the
//! cable while there are no descriptors, for [`PATIENCE`], and are lost only then. Link negotiation takes [`NEGOTIATION`]. Deliberately absent: wake-up, flow control frames,
//! management, flash, and what only fibre, PCI-X or other members of the family have; their registers read as zero.

mod eeprom;
mod phy;
mod receive;
mod registers;
mod statistics;
mod transmit;

use super::{NetBackend, NicConfig};
use crate::pci::PciFunction;
use crate::pci::config::{BAR_TAG, BarMap, ConfigSpace, ConfigState, Identity, command, reg};
use crate::pci::option_rom::{Host, OptionRom};
use crate::shared::Shared;
use eeprom::Eeprom;
use emu_core::bus::Notifier;
use emu_core::clock::Instant;
use emu_core::device::{Access, Device, DeviceContext, ResetKind, Space};
use emu_core::irq::IrqLine;
use phy::{Effect, Phy};
use registers::{Register, cause, ctrl, rctl, status, tctl};
use serde::{Deserialize, Serialize};
use statistics::Statistics;
use transmit::Sending;

/// Bytes of the register BAR.
pub const REGISTERS: u32 = 0x2_0000;
/// Ports of the BAR with IOADDR and IODATA.
const PORTS: u32 = 0x40;
/// The tag of the port BAR.
const PORT_TAG: u32 = BAR_TAG + 1;
/// How long a frame waits for a descriptor before it is lost, in nanoseconds.
pub const PATIENCE: u64 = 100_000_000;
/// How long auto-negotiation takes, in nanoseconds: less than with real cables.
pub const NEGOTIATION: u64 = 50_000_000;
/// The unit of RDTR, RADV, TIDV and TADV, in nanoseconds.
const DELAY_UNIT: u64 = 1024;
/// The unit of ITR, in nanoseconds.
const ITR_UNIT: u64 = 256;
/// Flush partial descriptor block: RDTR and TIDV bit 31.
const FPD: u32 = 1 << 31;

/// A ring of descriptors of 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Base address.
    pub base: u64,
    /// Bytes: bits 19 to 7.
    pub len: u32,
    /// The next descriptor that hardware takes.
    pub head: u16,
    /// One behind the last that software gives.
    pub tail: u16,
}

impl Ring {
    fn descriptors(self) -> u32 {
        self.len / 16
    }

    /// How many descriptors are hardware's. A head or tail beyond the ring gives it none.
    fn available(self) -> u32 {
        let (n, head, tail) = (self.descriptors(), u32::from(self.head), u32::from(self.tail));
        if head >= n || tail >= n { 0 } else { (tail + n - head) % n }
    }

    /// The address of the descriptor at the head.
    fn address(self) -> u64 {
        self.base.wrapping_add(16 * u64::from(self.head))
    }

    fn advance(&mut self) {
        self.head = if u32::from(self.head) + 1 >= self.descriptors() { 0 } else { self.head + 1 };
    }

    fn set_low(&mut self, value: u32) {
        self.base = self.base & !0xffff_ffff | u64::from(value & !15);
    }

    fn set_high(&mut self, value: u32) {
        self.base = self.base & 0xffff_ffff | u64::from(value) << 32;
    }
}

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct E1000State {
    /// PCI configuration space.
    pub config: ConfigState,
    /// Registers.
    pub registers: Registers,
}

/// All registers behind the BARs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names are the manual's")]
pub struct Registers {
    pub ctrl: u32,
    pub ctrl_ext: u32,
    pub fcal: u32,
    pub fcah: u32,
    pub fct: u32,
    pub vet: u32,
    pub icr: u32,
    pub itr: u32,
    pub ims: u32,
    pub rctl: u32,
    pub fcttv: u32,
    pub txcw: u32,
    pub tctl: u32,
    pub tipg: u32,
    pub ait: u32,
    pub ledctl: u32,
    pub pba: u32,
    pub fcrtl: u32,
    pub fcrth: u32,
    pub rx: Ring,
    pub rdtr: u32,
    pub rxdctl: u32,
    pub radv: u32,
    pub rsrpd: u32,
    pub tx: Ring,
    pub tidv: u32,
    pub txdctl: u32,
    pub tadv: u32,
    pub tspmt: u32,
    pub rxcsum: u32,
    pub mta: Vec<u32>,
    pub ra: [u32; 32],
    pub vfta: Vec<u32>,
    pub wuc: u32,
    pub wufc: u32,
    pub manc: u32,
    pub mdic: u32,
    /// IOADDR of the port BAR.
    pub io_address: u32,
    pub phy: Phy,
    pub eeprom: Eeprom,
    pub statistics: Statistics,
    /// When auto-negotiation ends, if it is going on.
    pub negotiating: Option<Instant>,
    /// Whether there is a link.
    pub link: bool,
    /// What has been sent of a packet so far, and how.
    pub sending: Sending,
    /// When the timers of RDTR and RADV, TIDV and TADV expire.
    pub rx_timers: [Option<Instant>; 2],
    pub tx_timers: [Option<Instant>; 2],
    /// Before this, ITR does not let a new interrupt through.
    pub throttled_until: Instant,
}

impl Default for Registers {
    fn default() -> Registers {
        Registers {
            ctrl: ctrl::FD | ctrl::SLU,
            ctrl_ext: 0,
            fcal: 0x00c2_8001,
            fcah: 0x0100,
            fct: 0x8808,
            vet: 0x8100,
            icr: 0,
            itr: 0,
            ims: 0,
            rctl: 0,
            fcttv: 0,
            txcw: 0,
            tctl: 0,
            tipg: 0x0060_2008,
            ait: 0,
            ledctl: 0x0706_8302,
            pba: 0x0010_0030,
            fcrtl: 0,
            fcrth: 0,
            rx: Ring::default(),
            rdtr: 0,
            rxdctl: 0x0101_0000,
            radv: 0,
            rsrpd: 0,
            tx: Ring::default(),
            tidv: 0,
            txdctl: 0,
            tadv: 0,
            tspmt: 0x0100_0400,
            rxcsum: 0,
            mta: vec![0; 128],
            ra: [0; 32],
            vfta: vec![0; 128],
            wuc: 0,
            wufc: 0,
            manc: 0,
            mdic: 1 << 28,
            io_address: 0,
            phy: Phy::default(),
            eeprom: Eeprom::default(),
            statistics: Statistics::default(),
            negotiating: None,
            link: false,
            sending: Sending::default(),
            rx_timers: [None; 2],
            tx_timers: [None; 2],
            throttled_until: Instant::ZERO,
        }
    }
}

/// The card.
pub struct E1000 {
    config: Shared<ConfigSpace>,
    bars: BarMap,
    rom: OptionRom,
    words: [u16; eeprom::WORDS],
    mac: [u8; 6],
    registers: Registers,
    backend: Box<dyn NetBackend>,
    inta: IrqLine,
    /// The frame that is being received; if `waiting_until` is set, it waits for descriptors.
    frame: Vec<u8>,
    waiting_until: Option<Instant>,
    /// Frames or descriptors are left over from the last burst.
    more_received: bool,
    more_to_send: bool,
    /// The packet that is being sent, and one segment of it.
    packet: Vec<u8>,
    segment: Vec<u8>,
}

impl E1000 {
    /// A card that drives `inta`.
    pub fn new(nic: NicConfig, inta: IrqLine, host: Host) -> E1000 {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x100e,
            revision: 3,
            class: 0x02_0000,
            interrupt_pin: 1,
            ..Identity::default()
        });
        config.add_bar(0, Space::Memory, REGISTERS);
        config.add_bar(1, Space::Port, PORTS);
        let rom = OptionRom::new(&nic.rom, &mut config, host);
        E1000 {
            config: Shared::new(config),
            bars: BarMap::default(),
            rom,
            words: eeprom::image(nic.mac.0),
            mac: nic.mac.0,
            registers: Registers::default(),
            backend: nic.backend,
            inta,
            frame: Vec::new(),
            waiting_until: None,
            more_received: false,
            more_to_send: false,
            packet: Vec::new(),
            segment: Vec::new(),
        }
    }

    fn follow_config(&mut self, cx: &mut DeviceContext) {
        self.bars.update(cx, &self.config);
        self.rom.follow(&self.config.lock());
    }

    /// Whether it may reach guest memory.
    fn is_master(&self) -> bool {
        self.config.lock().word(reg::COMMAND) & command::MASTER != 0
    }

    /// CTRL.RST (manual 13.4.1): everything but the PHY and the PCI registers.
    fn device_reset(&mut self) {
        let Registers { phy, negotiating, link, io_address, .. } = std::mem::take(&mut self.registers);
        self.registers = Registers { phy, negotiating, link, io_address, ..Registers::default() };
        // The EEPROM's address goes into the first receive address register.
        let [a, b, c, d, e, f] = self.mac;
        self.registers.ra[0] = u32::from_le_bytes([a, b, c, d]);
        self.registers.ra[1] = u32::from_le_bytes([e, f, 0, 0x80]);
        self.waiting_until = None;
        self.more_to_send = false;
    }

    /// Auto-negotiation starts: no link for a moment.
    fn negotiate(&mut self, now: Instant) {
        self.set_link(false);
        self.registers.negotiating = Some(now.plus_nanos(NEGOTIATION));
    }

    /// Follows the cable and auto-negotiation.
    fn follow_link(&mut self, now: Instant) {
        if self.registers.negotiating.is_some_and(|end| end <= now) {
            self.registers.negotiating = None;
        }
        let up = self.backend.link_up();
        if !up {
            self.registers.negotiating = None;
            self.set_link(false);
        } else if !self.registers.link && self.registers.negotiating.is_none() {
            self.set_link(true);
        }
    }

    fn set_link(&mut self, up: bool) {
        if self.registers.link != up {
            self.registers.link = up;
            if !up {
                self.registers.phy.link_lost();
            }
            self.raise(cause::LSC);
        }
    }

    fn raise(&mut self, causes: u32) {
        self.registers.icr |= causes & cause::ALL;
    }

    /// Drives INTA#. Manual 13.4.18: ITR keeps new interrupts apart.
    fn drive(&mut self, now: Instant) {
        let r = &mut self.registers;
        let wanted = r.icr & r.ims != 0;
        if !wanted {
            self.inta.set(false);
        } else if !self.inta.is_high() && now >= r.throttled_until {
            r.throttled_until = now.plus_nanos(u64::from(r.itr & 0xffff) * ITR_UNIT);
            self.inta.set(true);
        }
    }

    /// Starts the timers of a receive or transmit interrupt: `delay` anew, `absolute` unless it runs. Whether there is nothing to wait for.
    fn start_timers(timers: &mut [Option<Instant>; 2], delay: u32, absolute: u32, now: Instant) -> bool {
        if delay & 0xffff == 0 {
            *timers = [None; 2];
            return true;
        }
        timers[0] = Some(now.plus_nanos(u64::from(delay & 0xffff) * DELAY_UNIT));
        if absolute & 0xffff != 0 && timers[1].is_none() {
            timers[1] = Some(now.plus_nanos(u64::from(absolute & 0xffff) * DELAY_UNIT));
        }
        false
    }

    /// Lets timers that are due expire.
    fn expire(&mut self, now: Instant) {
        let due = |timers: &[Option<Instant>; 2]| timers.iter().flatten().any(|at| *at <= now);
        if due(&self.registers.rx_timers) {
            self.registers.rx_timers = [None; 2];
            self.raise(cause::RXT0);
        }
        if due(&self.registers.tx_timers) {
            self.registers.tx_timers = [None; 2];
            self.raise(cause::TXDW);
        }
    }

    fn read_register(&mut self, offset: u32) -> u32 {
        let r = &mut self.registers;
        match Register::decode(offset) {
            Register::Ctrl => r.ctrl,
            Register::Status => status::FD | status::SPEED_1000 | if r.link { status::LU } else { 0 },
            Register::Eecd => r.eeprom.eecd(),
            Register::Eerd => r.eeprom.eerd(),
            Register::CtrlExt => r.ctrl_ext,
            Register::Mdic => r.mdic,
            Register::Fcal => r.fcal,
            Register::Fcah => r.fcah,
            Register::Fct => r.fct,
            Register::Vet => r.vet,
            Register::Icr => std::mem::take(&mut r.icr),
            Register::Itr => r.itr,
            Register::Ims => r.ims,
            Register::Rctl => r.rctl,
            Register::Fcttv => r.fcttv,
            Register::Txcw => r.txcw,
            Register::Tctl => r.tctl,
            Register::Tipg => r.tipg,
            Register::Ait => r.ait,
            Register::Ledctl => r.ledctl,
            Register::Pba => r.pba,
            Register::Fcrtl => r.fcrtl,
            Register::Fcrth => r.fcrth,
            Register::Rdbal => r.rx.base as u32,
            Register::Rdbah => (r.rx.base >> 32) as u32,
            Register::Rdlen => r.rx.len,
            Register::Rdh => r.rx.head.into(),
            Register::Rdt => r.rx.tail.into(),
            Register::Rdtr => r.rdtr,
            Register::Rxdctl => r.rxdctl,
            Register::Radv => r.radv,
            Register::Rsrpd => r.rsrpd,
            Register::Tdbal => r.tx.base as u32,
            Register::Tdbah => (r.tx.base >> 32) as u32,
            Register::Tdlen => r.tx.len,
            Register::Tdh => r.tx.head.into(),
            Register::Tdt => r.tx.tail.into(),
            Register::Tidv => r.tidv,
            Register::Txdctl => r.txdctl,
            Register::Tadv => r.tadv,
            Register::Tspmt => r.tspmt,
            Register::Statistic(number) => r.statistics.read(number),
            Register::Rxcsum => r.rxcsum,
            Register::Mta(i) => r.mta[usize::from(i & 127)],
            Register::Ra(i) => r.ra[usize::from(i & 31)],
            Register::Vfta(i) => r.vfta[usize::from(i & 127)],
            Register::Wuc => r.wuc,
            Register::Wufc => r.wufc,
            Register::Manc => r.manc,
            Register::Ics | Register::Imc | Register::Rxcw | Register::Wus | Register::Absent => 0,
        }
    }

    fn write_register(&mut self, cx: &mut DeviceContext, offset: u32, value: u32) {
        let r = &mut self.registers;
        match Register::decode(offset) {
            Register::Ctrl => self.set_ctrl(value, cx.now),
            Register::Eecd => r.eeprom.set_eecd(value, &self.words),
            Register::Eerd => r.eeprom.set_eerd(value, &self.words),
            Register::CtrlExt => r.ctrl_ext = value,
            Register::Mdic => self.set_mdic(value, cx.now),
            Register::Fcal => r.fcal = value,
            Register::Fcah => r.fcah = value & 0xffff,
            Register::Fct => r.fct = value & 0xffff,
            Register::Vet => r.vet = value & 0xffff,
            // Bits written as ones are cleared.
            Register::Icr => r.icr &= !value,
            Register::Itr => r.itr = value & 0xffff,
            Register::Ics => self.raise(value),
            Register::Ims => r.ims |= value & cause::ALL,
            Register::Imc => r.ims &= !value,
            Register::Rctl => {
                r.rctl = value;
                self.receive(cx);
            }
            Register::Fcttv => r.fcttv = value & 0xffff,
            Register::Txcw => r.txcw = value,
            Register::Tctl => {
                r.tctl = value;
                self.transmit(cx);
            }
            Register::Tipg => r.tipg = value,
            Register::Ait => r.ait = value & 0xffff,
            Register::Ledctl => r.ledctl = value,
            Register::Pba => r.pba = value & 0xffff,
            Register::Fcrtl => r.fcrtl = value,
            Register::Fcrth => r.fcrth = value,
            Register::Rdbal => r.rx.set_low(value),
            Register::Rdbah => r.rx.set_high(value),
            Register::Rdlen => r.rx.len = value & 0xf_ff80,
            Register::Rdh => r.rx.head = value as u16,
            Register::Rdt => {
                r.rx.tail = value as u16;
                self.receive(cx);
            }
            Register::Rdtr => {
                r.rdtr = value & 0xffff;
                if ends_timers(value, &mut r.rx_timers) {
                    self.raise(cause::RXT0);
                }
            }
            Register::Rxdctl => r.rxdctl = value,
            Register::Radv => r.radv = value & 0xffff,
            Register::Rsrpd => r.rsrpd = value & 0xfff,
            Register::Tdbal => r.tx.set_low(value),
            Register::Tdbah => r.tx.set_high(value),
            Register::Tdlen => r.tx.len = value & 0xf_ff80,
            Register::Tdh => r.tx.head = value as u16,
            Register::Tdt => {
                r.tx.tail = value as u16;
                self.transmit(cx);
            }
            Register::Tidv => {
                r.tidv = value & 0xffff;
                if ends_timers(value, &mut r.tx_timers) {
                    self.raise(cause::TXDW);
                }
            }
            Register::Txdctl => r.txdctl = value,
            Register::Tadv => r.tadv = value & 0xffff,
            Register::Tspmt => r.tspmt = value,
            Register::Rxcsum => r.rxcsum = value & 0x3ff,
            Register::Mta(i) => r.mta[usize::from(i & 127)] = value,
            Register::Ra(i) => r.ra[usize::from(i & 31)] = if i & 1 == 0 { value } else { value & 0x8003_ffff },
            Register::Vfta(i) => r.vfta[usize::from(i & 127)] = value,
            Register::Wuc => r.wuc = value & 0xf,
            Register::Wufc => r.wufc = value,
            Register::Manc => r.manc = value,
            Register::Status | Register::Rxcw | Register::Wus | Register::Statistic(_) | Register::Absent => {}
        }
    }

    fn set_ctrl(&mut self, value: u32, now: Instant) {
        if value & ctrl::RST != 0 {
            self.device_reset();
            return;
        }
        self.registers.ctrl = value & !ctrl::PHY_RST;
        if value & ctrl::PHY_RST != 0 {
            self.registers.phy = Phy::default();
            self.negotiate(now);
        }
    }

    fn set_mdic(&mut self, value: u32, now: Instant) {
        let (result, effect) = self.registers.phy.mdic(value, self.registers.link);
        self.registers.mdic = result;
        // Bit 29: an interrupt at the end of the access.
        if value & 1 << 29 != 0 {
            self.raise(cause::MDAC);
        }
        match effect {
            Effect::None => {}
            Effect::Negotiate => self.negotiate(now),
        }
    }
}

impl PciFunction for E1000 {
    fn config(&self) -> Shared<ConfigSpace> {
        self.config.clone()
    }
}

impl Device for E1000 {
    const ID: &'static str = "e1000";
    type State = E1000State;
    const WIDEST_ACCESS: u8 = 4;

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        let shift = 8 * (access.offset & 3);
        let value = if access.region != PORT_TAG {
            self.read_register(access.offset as u32)
        } else {
            // Manual 13.2.2: IOADDR and IODATA.
            match access.offset & !3 {
                0 => self.registers.io_address,
                4 => self.read_register(self.registers.io_address),
                _ => 0,
            }
        };
        self.drive(cx.now);
        u64::from(value) >> shift
    }

    /// Registers take whole words of 32 bits only: manual 13.2.1.
    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        if access.size != 4 || access.offset & 3 != 0 {
            return;
        }
        let value = value as u32;
        if access.region != PORT_TAG {
            self.write_register(cx, access.offset as u32, value);
        } else {
            match access.offset {
                0 => self.registers.io_address = value & (REGISTERS - 1),
                4 => self.write_register(cx, self.registers.io_address, value),
                _ => {}
            }
        }
        self.drive(cx.now);
    }

    fn poll_at(&self) -> Option<Instant> {
        if self.more_received || self.more_to_send {
            return Some(Instant::ZERO);
        }
        let r = &self.registers;
        let throttled = (r.icr & r.ims != 0 && !self.inta.is_high()).then_some(r.throttled_until);
        let timers = r.rx_timers.iter().chain(&r.tx_timers).copied();
        timers.chain([r.negotiating, self.waiting_until, throttled]).flatten().min()
    }

    fn poll(&mut self, cx: &mut DeviceContext) {
        self.follow_config(cx);
        self.follow_link(cx.now);
        if self.more_to_send {
            self.transmit(cx);
        }
        self.receive(cx);
        self.expire(cx.now);
        self.drive(cx.now);
    }

    /// Both kinds are PCIRST#, and reach the PHY.
    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        self.config.lock().reset();
        self.follow_config(cx);
        self.registers = Registers::default();
        self.device_reset();
        self.registers.link = self.backend.link_up();
        self.drive(cx.now);
    }

    fn attached(&mut self, notifier: Notifier) {
        self.backend.set_notifier(notifier);
    }

    fn state(&self) -> E1000State {
        E1000State { config: self.config.lock().state(), registers: self.registers.clone() }
    }

    fn set_state(&mut self, state: E1000State) {
        self.config.lock().set_state(&state.config);
        self.registers = state.registers;
        let r = &mut self.registers;
        r.mta.resize(128, 0);
        r.vfta.resize(128, 0);
        r.statistics.restored();
        r.sending.restored();
        self.waiting_until = None;
        (self.more_received, self.more_to_send) = (true, true);
    }

    fn restored(&mut self, cx: &mut DeviceContext) {
        self.follow_config(cx);
        self.drive(cx.now);
    }
}

/// Whether a write to RDTR or TIDV ends timers that run.
fn ends_timers(value: u32, timers: &mut [Option<Instant>; 2]) -> bool {
    value & FPD != 0 && std::mem::take(timers) != [None; 2]
}

#[cfg(test)]
mod tests;

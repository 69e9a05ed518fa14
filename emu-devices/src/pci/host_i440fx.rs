//! The i440FX host bridge: Intel 82441FX data sheet (290549-001), configuration mechanism 1, PAM and SMRAM routing.
//!
//! ```text
//!  CF8h CONFADD: 31 enable | 23..16 bus | 15..11 device | 10..8 function | 7..2 register     CFCh CONFDATA
//! ```
//! Deliberately absent: DRAM timing and row boundaries (they read back what is written), error reporting, AGP.

use super::config::{ConfigSpace, ConfigState, Identity, command, reg};
use super::{DevFn, PciBus, PciFunction};
use crate::shared::Shared;
use emu_core::device::{Access, Device, DeviceContext, Region, Request, ResetKind, ports};
use serde::{Deserialize, Serialize};

const PAM0: u8 = 0x59;
const PAM_REGISTERS: u8 = 7;
const SMRAM: u8 = 0x72;
const SMRAM_D_OPEN: u8 = 1 << 6;
const SMRAM_D_CLS: u8 = 1 << 5;
const SMRAM_D_LCK: u8 = 1 << 4;
const SMRAM_G_SMRAME: u8 = 1 << 3;
const CONFADD_ENABLE: u32 = 1 << 31;

/// All guest-visible state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostBridgeState {
    /// CONFADD.
    pub address: u32,
    /// Configuration space.
    pub config: ConfigState,
}

/// The host bridge.
pub struct HostBridge {
    address: u32,
    config: Shared<ConfigSpace>,
    bus: PciBus,
    /// PAM and SMRAM registers as last acted on.
    routed: [u8; 8],
}

impl HostBridge {
    /// The bridge to `bus`, into which it is plugged by [`PciBus::plug_bridge`].
    pub fn new(bus: PciBus) -> HostBridge {
        let identity =
            Identity { vendor: 0x8086, device: 0x1237, revision: 2, class: 0x06_0000, ..Identity::default() };
        let mut config = ConfigSpace::new(identity);
        config.preset(reg::COMMAND, &(command::MEMORY | command::MASTER).to_le_bytes());
        config.store(reg::COMMAND, &[0, (command::SERR >> 8) as u8]);
        config.preset(reg::STATUS, &0x0280u16.to_le_bytes());
        config.clear_on_one(reg::STATUS, &[0, 0xf9]);
        config.store(reg::LATENCY, &[0xf8]);
        // PMCCFG, DETURBO, DBC, AXC, DRT, DRAMC and DRAMT.
        config.store(0x50, &[0xff; 9]);
        config.store(PAM0, &[0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        // DRB0 to DRB7, FDHC, MTT, CLT.
        config.store(0x60, &[0xff; 9]);
        config.store(0x70, &[0xff; 2]);
        config.store(SMRAM, &[SMRAM_D_OPEN | SMRAM_D_CLS | SMRAM_D_LCK | SMRAM_G_SMRAME]);
        config.preset(SMRAM, &[0x02]);
        // ERRCMD, ERRSTS, TRC.
        config.store(0x90, &[0xff]);
        config.store(0x93, &[0xff]);
        HostBridge { address: 0, config: Shared::new(config), bus, routed: [0; 8] }
    }

    fn target(&self, access: Access) -> Option<(DevFn, u8)> {
        let bus = self.address >> 16 & 0xff;
        let enabled = self.address & CONFADD_ENABLE != 0 && bus == 0;
        let offset = (self.address & 0xfc) as u8 | access.offset as u8 & 3;
        enabled.then_some((DevFn((self.address >> 8) as u8), offset))
    }

    /// Routes legacy memory as PAM and SMRAM say: what has changed, or all of it.
    fn route(&mut self, cx: &mut DeviceContext, all: bool) {
        let mut config = self.config.lock();
        let mut smram = config.byte(SMRAM);
        let locked = self.routed[7] & SMRAM_D_LCK != 0 && !all;
        if locked {
            // Everything but D_CLS is read-only until a reset.
            smram = self.routed[7] & !SMRAM_D_CLS | smram & SMRAM_D_CLS;
        }
        if smram & SMRAM_D_LCK != 0 {
            smram &= !SMRAM_D_OPEN;
        }
        config.set(SMRAM, smram);
        for register in 0..PAM_REGISTERS {
            let (old, new) = (self.routed[usize::from(register)], config.byte(PAM0 + register));
            for (half, start, end) in pam_ranges(register) {
                let (old, new) = (old >> (4 * half) & 3, new >> (4 * half) & 3);
                if all || old != new {
                    let (read_ram, write_ram) = (new & 1 != 0, new & 2 != 0);
                    cx.request(Request::Shadow { start, end, read_ram, write_ram });
                }
            }
            self.routed[usize::from(register)] = new;
        }
        let open = |smram: u8| smram & (SMRAM_D_OPEN | SMRAM_G_SMRAME) == SMRAM_D_OPEN | SMRAM_G_SMRAME;
        if all || open(smram) != open(self.routed[7]) {
            let open = open(smram);
            cx.request(Request::Shadow { start: 0xa_0000, end: 0xc_0000, read_ram: open, write_ram: open });
        }
        self.routed[7] = smram;
    }
}

/// The halves of PAM register `register`: low (0) or high (1) nibble, first address, one past the last (data sheet 3.2.19).
fn pam_ranges(register: u8) -> Vec<(u8, u64, u64)> {
    if register == 0 {
        return vec![(1, 0xf_0000, 0x10_0000)];
    }
    let start = 0xc_0000 + u64::from(register - 1) * 0x8000;
    vec![(0, start, start + 0x4000), (1, start + 0x4000, start + 0x8000)]
}

impl PciFunction for HostBridge {
    fn config(&self) -> Shared<ConfigSpace> {
        self.config.clone()
    }
}

impl Device for HostBridge {
    const ID: &'static str = "i440fx";
    type State = HostBridgeState;
    const PORTS: &'static [Region] = &[ports(0xcf8, 4), ports(0xcfc, 4)];
    const WIDEST_ACCESS: u8 = 4;

    fn read(&mut self, cx: &mut DeviceContext, access: Access) -> u64 {
        match (access.region, access.size) {
            (0, 4) => self.address.into(),
            (0, _) => u64::MAX,
            _ => match self.target(access) {
                Some((place, offset)) => self.bus.read(cx, place, offset, access.size).into(),
                None => u64::MAX,
            },
        }
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        match (access.region, access.size) {
            (0, 4) => self.address = value as u32 & 0x80ff_fffc,
            (0, _) => {}
            _ => {
                let Some((place, offset)) = self.target(access) else { return };
                match self.bus.write(cx, place, offset, access.size, value as u32) {
                    Some(device) => cx.request(Request::Poll(device)),
                    None => self.route(cx, false),
                }
            }
        }
    }

    /// Both kinds are PCI reset.
    fn reset(&mut self, cx: &mut DeviceContext, _kind: ResetKind) {
        self.address = 0;
        self.config.lock().reset();
        self.route(cx, true);
    }

    fn state(&self) -> HostBridgeState {
        HostBridgeState { address: self.address, config: self.config.lock().state() }
    }

    fn set_state(&mut self, state: HostBridgeState) {
        self.address = state.address;
        self.config.lock().set_state(&state.config);
    }

    fn restored(&mut self, cx: &mut DeviceContext) {
        self.route(cx, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbench::Bench;

    fn bench() -> Bench<HostBridge> {
        let bus = PciBus::new();
        let bridge = HostBridge::new(bus.clone());
        bus.insert_bridge(DevFn::new(0, 0), bridge.config());
        Bench::new(bridge)
    }

    fn select(bench: &mut Bench<HostBridge>, register: u8) {
        bench.out32(0xcf8, CONFADD_ENABLE | u32::from(register & 0xfc));
        bench.take_requests();
    }

    #[test]
    fn mechanism_1_reaches_the_bridge_and_nothing_else() {
        let mut bench = bench();
        assert_eq!(bench.in32(0xcfc), u32::MAX, "disabled");
        select(&mut bench, 0);
        assert_eq!(bench.in32(0xcf8), CONFADD_ENABLE);
        assert_eq!(bench.in32(0xcfc), 0x1237_8086);
        assert_eq!((bench.in16(0xcfe), bench.in8(0xcfd)), (0x1237, 0x80));
        bench.out8(0xcf8, 0xff);
        assert_eq!(bench.in32(0xcf8), CONFADD_ENABLE, "bytes do not reach CONFADD");
        bench.out32(0xcf8, CONFADD_ENABLE | 0x0800);
        assert_eq!(bench.in32(0xcfc), u32::MAX);
        bench.out32(0xcf8, CONFADD_ENABLE | 0x1_0000);
        assert_eq!(bench.in32(0xcfc), u32::MAX, "bus 1");
    }

    #[test]
    fn pam_routes_shadow_memory_in_halves() {
        let mut bench = bench();
        select(&mut bench, PAM0);
        bench.out8(0xcfd, 0x30);
        let shadow = |start, end, read_ram, write_ram| Request::Shadow { start, end, read_ram, write_ram };
        assert_eq!(bench.take_requests(), [shadow(0xf_0000, 0x10_0000, true, true)]);
        bench.out8(0xcfd, 0x10);
        assert_eq!(bench.take_requests(), [shadow(0xf_0000, 0x10_0000, true, false)]);
        bench.out8(0xcfe, 0x32);
        assert_eq!(
            bench.take_requests(),
            [shadow(0xc_0000, 0xc_4000, false, true), shadow(0xc_4000, 0xc_8000, true, true)]
        );
        bench.reset(ResetKind::Warm);
        assert!(bench.take_requests().contains(&shadow(0xc_4000, 0xc_8000, false, false)));
        select(&mut bench, PAM0);
        assert_eq!(bench.in8(0xcfd), 0);
    }

    #[test]
    fn smram_opens_until_it_is_locked() {
        let mut bench = bench();
        select(&mut bench, SMRAM);
        bench.out8(0xcfe, 0x4a);
        let open = |open| Request::Shadow { start: 0xa_0000, end: 0xc_0000, read_ram: open, write_ram: open };
        assert_eq!(bench.take_requests(), [open(true)]);
        bench.out8(0xcfe, 0x5a);
        assert_eq!((bench.take_requests(), bench.in8(0xcfe)), (vec![open(false)], 0x1a));
        bench.out8(0xcfe, 0x6a);
        assert_eq!((bench.take_requests(), bench.in8(0xcfe)), (vec![], 0x3a));
    }
}

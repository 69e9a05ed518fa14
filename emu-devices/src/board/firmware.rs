//! What the user tells firmware: boot devices in CMOS RAM, and files and items of fw_cfg as QEMU's `-boot` and `-fw_cfg` make them.

use super::fw_cfg::{FwCfg, key};
use super::smbios::SmbiosConfig;
use emu_core::bus::Bus;

/// Where CMOS RAM has the boot order: the first device in the low nibble, then the second; the third in the high nibble.
const CMOS_BOOT: [u8; 2] = [0x3d, 0x38];
const CMOS_INDEX: u16 = 0x70;

/// Boot devices in order: 1 diskette, 2 disk, 3 CD-ROM, 4 network, 0 for none.
pub type BootOrder = [u8; 3];

/// Settings for firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareConfig {
    /// What is tried, in this order.
    pub order: BootOrder,
    /// What is tried instead after power-on, until the first reset.
    pub once: Option<BootOrder>,
    /// Whether firmware offers a choice.
    pub menu: bool,
    /// How long it waits for that, in milliseconds; `None`: as it likes.
    pub menu_wait: Option<u16>,
    /// How long it waits before it starts anew when nothing can be booted, in milliseconds; `None`: for ever.
    pub fail_wait: Option<u16>,
    /// Further files: name and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// What the SMBIOS tables say.
    pub smbios: SmbiosConfig,
}

/// A boot order as the bytes of CMOS RAM that have it: index and value.
pub fn boot_order_bytes([a, b, c]: BootOrder) -> [(u8, u8); 2] {
    [(CMOS_BOOT[0], b << 4 | a), (CMOS_BOOT[1], c << 4)]
}

impl Default for FirmwareConfig {
    /// Disk, diskette, CD-ROM; no menu.
    fn default() -> FirmwareConfig {
        let order = [2, 1, 3];
        let smbios = SmbiosConfig::default();
        FirmwareConfig { order, once: None, menu: false, menu_wait: None, fail_wait: None, files: Vec::new(), smbios }
    }
}

impl FirmwareConfig {
    /// The order for the first boot.
    pub fn first_order(&self) -> BootOrder {
        self.once.unwrap_or(self.order)
    }

    /// Puts the settings that are not in CMOS RAM into fw_cfg.
    pub fn describe(&self, device: &mut FwCfg) {
        device.set_item(key::BOOT_MENU, u16::from(self.menu).to_le_bytes().to_vec());
        if let Some(wait) = self.menu_wait {
            device.add_file("etc/boot-menu-wait", wait.to_le_bytes().to_vec());
        }
        let fail_wait = self.fail_wait.map_or(u32::MAX, u32::from);
        device.add_file("etc/boot-fail-wait", fail_wait.to_le_bytes().to_vec());
        for (name, contents) in &self.files {
            device.add_file(name, contents.clone());
        }
    }

    /// Puts the lasting order into CMOS RAM, as is due at the first reset after one with another order.
    pub fn restore_order(&self, bus: &Bus) {
        for (index, value) in boot_order_bytes(self.order) {
            bus.port_write(CMOS_INDEX, 1, index.into(), 0);
            bus.port_write(CMOS_INDEX + 1, 1, value.into(), 0);
        }
    }
}

//! What a PC's firmware expects in the CMOS RAM: memory size, equipment, drives and boot order.
//!
//! Follows the IBM PC/AT Technical Reference, "CMOS RAM", and for what is beyond it the layout that QEMU's `pc` machine
//! hands to its firmware.

use super::Rtc;
use crate::storage::ide::Geometry;

/// Diskette drive types, two nibbles.
const FLOPPY_TYPES: u8 = 0x10;
/// Hard disk types, two nibbles: 15 for an extended type.
const DISK_TYPES: u8 = 0x12;
/// Extended types of the two disks; 47 for the user's parameters.
const EXTENDED_DISK_TYPES: [u8; 2] = [0x19, 0x1a];
/// Parameters of disks of type 47, nine bytes each.
const DISK_PARAMETERS: [u8; 2] = [0x1b, 0x24];
/// How firmware translates each disk's geometry, two bits each: 0 not at all, 1 by LBA.
const TRANSLATION: u8 = 0x39;
const EQUIPMENT: u8 = 0x14;
const BASE_MEMORY: u8 = 0x15;
const EXTENDED_MEMORY: [u8; 2] = [0x17, 0x30];
const CHECKSUM: u8 = 0x2e;
const MEMORY_ABOVE_16M: u8 = 0x34;
const BOOT_ORDER_HIGH: u8 = 0x38;
const BOOT_ORDER_LOW: u8 = 0x3d;
const MEMORY_ABOVE_4G: u8 = 0x5b;
const FURTHER_CPUS: u8 = 0x5f;

const EQUIPMENT_FLOPPY: u8 = 0x01;
const EQUIPMENT_FPU: u8 = 0x02;
const EQUIPMENT_MOUSE: u8 = 0x04;
const EQUIPMENT_SECOND_FLOPPY: u8 = 0x40;

/// What is written into CMOS RAM before power-on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmosLayout {
    /// Bytes of RAM below 4 GiB.
    pub low_ram: u64,
    /// Bytes of RAM from 4 GiB up.
    pub high_ram: u64,
    /// Number of processors, 1 to 256.
    pub cpus: u16,
    /// The vCPU has an FPU.
    pub fpu: bool,
    /// A PS/2 mouse is present.
    pub mouse: bool,
    /// CMOS types of the two diskette drives: 0 for none, 4 for 1.44 MB.
    pub floppies: [u8; 2],
    /// Hard disks on the IDE channels.
    pub disks: [Option<Geometry>; 4],
    /// Boot devices in order: 1 diskette, 2 disk, 3 CD-ROM, 4 network, 0 for none.
    pub boot_order: [u8; 3],
}

impl Rtc {
    /// Fills in `layout`, and the checksum of the standard area.
    pub fn set_layout(&mut self, layout: &CmosLayout) {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        let CmosLayout { low_ram, high_ram, .. } = *layout;
        self.set_number(BASE_MEMORY, 2, (low_ram / KIB).min(640));
        for index in EXTENDED_MEMORY {
            self.set_number(index, 2, (low_ram.saturating_sub(MIB) / KIB).min(0xffff));
        }
        self.set_number(MEMORY_ABOVE_16M, 2, (low_ram.saturating_sub(16 * MIB) >> 16).min(0xffff));
        self.set_number(MEMORY_ABOVE_4G, 3, (high_ram >> 16).min(0xff_ffff));
        self.set_number(FURTHER_CPUS, 1, u64::from(layout.cpus.saturating_sub(1).min(255)));
        let [first, second] = layout.floppies;
        self.set_byte(FLOPPY_TYPES, first << 4 | second & 15);
        self.set_disks(&layout.disks);
        let on = |present: bool, bit: u8| if present { bit } else { 0 };
        let equipment = on(layout.fpu, EQUIPMENT_FPU)
            | on(layout.mouse, EQUIPMENT_MOUSE)
            | on(first != 0 || second != 0, EQUIPMENT_FLOPPY)
            | on(first != 0 && second != 0, EQUIPMENT_SECOND_FLOPPY);
        self.set_byte(EQUIPMENT, equipment);
        let [a, b, c] = layout.boot_order;
        self.set_byte(BOOT_ORDER_LOW, b << 4 | a & 15);
        self.set_byte(BOOT_ORDER_HIGH, c << 4);
        let sum = (0x10..=0x2d).map(|i| u64::from(self.byte(i))).sum::<u64>();
        self.set_byte(CHECKSUM, (sum >> 8) as u8);
        self.set_byte(CHECKSUM + 1, sum as u8);
    }

    fn set_disks(&mut self, disks: &[Option<Geometry>; 4]) {
        let mut types = 0;
        for (i, geometry) in disks.iter().take(2).enumerate() {
            let Some(geometry) = geometry else { continue };
            types |= if i == 0 { 0xf0 } else { 0x0f };
            self.set_byte(EXTENDED_DISK_TYPES[i], 47);
            let [low, high] = geometry.cylinders.to_le_bytes();
            // More than eight heads show in the control byte; no write precompensation; landing zone at the end.
            let control = 0xc0 | if geometry.heads > 8 { 8 } else { 0 };
            let parameters = [low, high, geometry.heads, 0xff, 0xff, control, low, high, geometry.sectors];
            parameters.into_iter().zip(DISK_PARAMETERS[i]..).for_each(|(byte, at)| self.set_byte(at, byte));
        }
        self.set_byte(DISK_TYPES, types);
        let translation = |geometry: &Option<Geometry>| u8::from(geometry.is_some_and(|g| g.cylinders > 1024));
        let bits = disks.iter().enumerate().map(|(i, geometry)| translation(geometry) << (2 * i));
        self.set_byte(TRANSLATION, bits.sum());
    }

    fn set_number(&mut self, index: u8, bytes: u8, value: u64) {
        for i in 0..bytes {
            self.set_byte(index + i, (value >> (8 * i)) as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtc::StartTime;
    use emu_core::irq::IrqLine;

    const PC: CmosLayout = CmosLayout {
        low_ram: 512 << 20,
        high_ram: 0,
        cpus: 1,
        fpu: true,
        mouse: true,
        floppies: [4, 0],
        disks: [None; 4],
        boot_order: [2, 1, 3],
    };

    fn number(rtc: &Rtc, index: u8, bytes: u8) -> u64 {
        (0..bytes).map(|i| u64::from(rtc.byte(index + i)) << (8 * i)).sum()
    }

    #[test]
    fn cmos_memory_bytes_of_512_mib() {
        let mut rtc = Rtc::new(IrqLine::unconnected(), StartTime::default());
        rtc.set_layout(&PC);
        assert_eq!(number(&rtc, 0x15, 2), 640);
        assert_eq!((number(&rtc, 0x17, 2), number(&rtc, 0x30, 2)), (0xffff, 0xffff));
        assert_eq!(number(&rtc, 0x34, 2), (512 - 16) * 16);
        assert_eq!(number(&rtc, 0x5b, 3), 0);
        assert_eq!((rtc.byte(0x10), rtc.byte(0x14)), (0x40, 0x07));
        assert_eq!((rtc.byte(0x3d), rtc.byte(0x38)), (0x12, 0x30));
    }

    #[test]
    fn cmos_memory_bytes_at_the_extremes() {
        let mut rtc = Rtc::new(IrqLine::unconnected(), StartTime::default());
        rtc.set_layout(&CmosLayout { low_ram: 1 << 20, ..PC });
        assert_eq!((number(&rtc, 0x15, 2), number(&rtc, 0x17, 2), number(&rtc, 0x34, 2)), (640, 0, 0));
        rtc.set_layout(&CmosLayout { low_ram: 3 << 30, high_ram: 5 << 30, floppies: [0, 0], ..PC });
        assert_eq!(number(&rtc, 0x34, 2), (3072 - 16) * 16);
        assert_eq!(number(&rtc, 0x5b, 3), 5 << 14);
        assert_eq!(rtc.byte(0x14), 0x06);
    }

    #[test]
    fn cmos_disks_have_type_47_with_their_geometry() {
        let mut rtc = Rtc::new(IrqLine::unconnected(), StartTime::default());
        let small = Geometry { cylinders: 20, heads: 16, sectors: 63 };
        let large = Geometry { cylinders: 16_383, heads: 16, sectors: 63 };
        rtc.set_layout(&CmosLayout { disks: [Some(small), None, Some(large), None], ..PC });
        assert_eq!((rtc.byte(0x12), rtc.byte(0x19), rtc.byte(0x1a), rtc.byte(0x39)), (0xf0, 47, 0, 0x10));
        assert_eq!((0x1b..0x24).map(|i| rtc.byte(i)).collect::<Vec<_>>(), [20, 0, 16, 255, 255, 0xc8, 20, 0, 63]);
    }

    #[test]
    fn cmos_checksum_covers_the_standard_area() {
        let mut rtc = Rtc::new(IrqLine::unconnected(), StartTime::default());
        rtc.set_layout(&PC);
        let sum: u64 = (0x10..=0x2d).map(|i| u64::from(rtc.byte(i))).sum();
        assert_eq!(u64::from(rtc.byte(0x2e)) << 8 | u64::from(rtc.byte(0x2f)), sum);
    }
}

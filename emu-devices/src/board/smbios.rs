//! SMBIOS tables of the PC: DMTF DSP0134 (SMBIOS Reference Specification) 2.8, with the structures of QEMU's `pc` machine.
//!
//! ```text
//!  0 BIOS   1 system   2 baseboard (if asked for)   3 chassis   4 processor
//!  16 memory array --+-- 17 memory device (one for each 16 GiB)   19 mapped range (one for each range of RAM)
//!  32 boot status   127 end
//! ```
//! Firmware gets them by fw_cfg, `etc/smbios/smbios-anchor` and `etc/smbios/smbios-tables`, and adds a structure 0 about
//! itself unless the user gave one; kernels that the board boots itself find them in the F-segment.
//! Deliberately absent: the 64-bit entry point of SMBIOS 3, structures 8, 9, 11, 20 and 41.

use emu_core::mem::GuestMemory;

/// Size of the entry point.
const ANCHOR: usize = 0x1f;
/// Where the F-segment has the tables of kernels that are booted without firmware: the entry point, then the structures.
const PLACE: u64 = 0xf_0000;
const TABLES: u64 = PLACE + 0x20;
/// The most that a memory device describes, in bytes.
const DEVICE_SIZE: u64 = 16 << 30;
/// The most memory devices: more RAM than 4 TiB is described in part.
const MOST_DEVICES: u64 = 256;
const HANDLE_BIOS: u16 = 0x0000;
const HANDLE_SYSTEM: u16 = 0x0100;
const HANDLE_BOARD: u16 = 0x0200;
const HANDLE_CHASSIS: u16 = 0x0300;
const HANDLE_PROCESSOR: u16 = 0x0400;
const HANDLE_ARRAY: u16 = 0x1000;
const HANDLE_DEVICE: u16 = 0x1100;
const HANDLE_RANGE: u16 = 0x1300;
const HANDLE_BOOT: u16 = 0x2000;
const HANDLE_END: u16 = 0x7f00;
/// "Unknown" in most enumerations.
const UNKNOWN: u8 = 2;

/// Structure 0, which `-smbios type=0` replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bios {
    /// Vendor.
    pub vendor: String,
    /// Version.
    pub version: String,
    /// Release date, mm/dd/yyyy.
    pub date: String,
    /// Major and minor release.
    pub release: (u8, u8),
    /// Whether it claims to be UEFI.
    pub uefi: bool,
}

/// Structure 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Manufacturer.
    pub manufacturer: String,
    /// Product name.
    pub product: String,
    /// Version.
    pub version: String,
    /// Serial number.
    pub serial: String,
    /// SKU number.
    pub sku: String,
    /// Family.
    pub family: String,
    /// UUID, most significant byte first as it is written; zero: none.
    pub uuid: [u8; 16],
}

/// Structure 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// Manufacturer.
    pub manufacturer: String,
    /// Product.
    pub product: String,
    /// Version.
    pub version: String,
    /// Serial number.
    pub serial: String,
    /// Asset tag.
    pub asset: String,
    /// Location in the chassis.
    pub location: String,
}

/// Structure 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chassis {
    /// Manufacturer.
    pub manufacturer: String,
    /// Version.
    pub version: String,
    /// Serial number.
    pub serial: String,
    /// Asset tag.
    pub asset: String,
    /// SKU number.
    pub sku: String,
}

/// Structure 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// What the socket's number follows in its designation.
    pub socket: String,
    /// Manufacturer.
    pub manufacturer: String,
    /// Version.
    pub version: String,
    /// Serial number.
    pub serial: String,
    /// Asset tag.
    pub asset: String,
    /// Part number.
    pub part: String,
    /// Maximum speed, in MHz.
    pub max_speed: u16,
    /// Current speed, in MHz.
    pub current_speed: u16,
}

/// What the user can say about the machine: `-smbios` and `-uuid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmbiosConfig {
    /// `None`: firmware tells about itself.
    pub bios: Option<Bios>,
    /// Structure 1.
    pub system: System,
    /// `None`: there is no structure 2.
    pub board: Option<Board>,
    /// Structure 3.
    pub chassis: Chassis,
    /// Structure 4.
    pub processor: Processor,
}

const MANUFACTURER: &str = "emu";
/// The machine's version, as QEMU's guests know it without the release.
const MACHINE: &str = "pc-i440fx";

impl Default for SmbiosConfig {
    fn default() -> SmbiosConfig {
        let (maker, version) = (|| MANUFACTURER.to_owned(), || MACHINE.to_owned());
        SmbiosConfig {
            bios: None,
            system: System {
                manufacturer: maker(),
                product: "Standard PC (i440FX + PIIX, 1996)".to_owned(),
                version: version(),
                serial: String::new(),
                sku: String::new(),
                family: String::new(),
                uuid: [0; 16],
            },
            board: None,
            chassis: Chassis {
                manufacturer: maker(),
                version: version(),
                serial: String::new(),
                asset: String::new(),
                sku: String::new(),
            },
            processor: Processor {
                socket: "CPU".to_owned(),
                manufacturer: maker(),
                version: version(),
                serial: String::new(),
                asset: String::new(),
                part: String::new(),
                max_speed: 2000,
                current_speed: 2000,
            },
        }
    }
}

/// What the board knows about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmbiosMachine {
    /// Bytes of RAM from 0.
    pub low_ram: u64,
    /// Bytes of RAM from 4 GiB.
    pub high_ram: u64,
    /// EAX and EDX of CPUID leaf 1.
    pub processor_id: [u32; 2],
}

/// The entry point and the structures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmbiosTables {
    /// The entry point for structures at the address that it was built for.
    pub anchor: Vec<u8>,
    /// The structures, one behind the other.
    pub tables: Vec<u8>,
}

impl SmbiosTables {
    /// The tables for firmware, which places them.
    pub fn for_firmware(config: &SmbiosConfig, machine: &SmbiosMachine) -> SmbiosTables {
        build(config, config.bios.as_ref(), machine, 0)
    }

    /// Puts the tables into the F-segment, with a structure 0 in any case.
    pub fn place(config: &SmbiosConfig, machine: &SmbiosMachine, memory: &GuestMemory) {
        let own = Bios {
            vendor: MANUFACTURER.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            date: "01/01/2026".to_owned(),
            release: (0, 1),
            uefi: false,
        };
        let tables = build(config, Some(config.bios.as_ref().unwrap_or(&own)), machine, TABLES as u32);
        memory.write(PLACE, &tables.anchor);
        memory.write(TABLES, &tables.tables);
    }
}

fn build(config: &SmbiosConfig, bios: Option<&Bios>, machine: &SmbiosMachine, address: u32) -> SmbiosTables {
    let mut list = List::default();
    if let Some(bios) = bios {
        list.add(bios_information(bios));
    }
    list.add(system_information(&config.system));
    if let Some(board) = &config.board {
        list.add(board_information(board));
    }
    list.add(chassis_information(&config.chassis));
    list.add(processor_information(&config.processor, machine.processor_id));
    memory(&mut list, machine);
    list.add(Structure::new(32, HANDLE_BOOT).bytes(&[0; 6]).byte(0));
    list.add(Structure::new(127, HANDLE_END));
    let anchor = list.anchor(address);
    SmbiosTables { anchor, tables: list.bytes }
}

/// DSP0134 7.1.
fn bios_information(bios: &Bios) -> Structure {
    const CHARACTERISTICS_NOT_SUPPORTED: u64 = 1 << 3;
    const TARGETED_CONTENT: u8 = 1 << 2;
    const UEFI: u8 = 1 << 3;
    const VIRTUAL_MACHINE: u8 = 1 << 4;
    let extended = TARGETED_CONTENT | VIRTUAL_MACHINE | if bios.uefi { UEFI } else { 0 };
    let mut structure = Structure::new(0, HANDLE_BIOS);
    structure = structure.text(&bios.vendor).text(&bios.version).word(0xe800).text(&bios.date);
    // Size in 64 KiB, less one; embedded controller: none.
    structure = structure.byte(0).bytes(&CHARACTERISTICS_NOT_SUPPORTED.to_le_bytes()).byte(0).byte(extended);
    structure.byte(bios.release.0).byte(bios.release.1).byte(0xff).byte(0xff)
}

/// 7.2.
fn system_information(system: &System) -> Structure {
    const POWER_SWITCH: u8 = 6;
    // Fields that are numbers in a UUID have their least significant byte first.
    let [a, b, c, d, e, f, g, h, rest @ ..] = system.uuid;
    let uuid = [&[d, c, b, a, f, e, h, g][..], &rest].concat();
    let structure = Structure::new(1, HANDLE_SYSTEM).text(&system.manufacturer).text(&system.product);
    let structure = structure.text(&system.version).text(&system.serial).bytes(&uuid).byte(POWER_SWITCH);
    structure.text(&system.sku).text(&system.family)
}

/// 7.3.
fn board_information(board: &Board) -> Structure {
    const HOSTING: u8 = 1 << 0;
    const MOTHERBOARD: u8 = 0x0a;
    let structure = Structure::new(2, HANDLE_BOARD).text(&board.manufacturer).text(&board.product);
    let structure = structure.text(&board.version).text(&board.serial).text(&board.asset).byte(HOSTING);
    structure.text(&board.location).word(HANDLE_CHASSIS).byte(MOTHERBOARD).byte(0)
}

/// 7.4.
fn chassis_information(chassis: &Chassis) -> Structure {
    const OTHER: u8 = 1;
    const SAFE: u8 = 3;
    let structure = Structure::new(3, HANDLE_CHASSIS).text(&chassis.manufacturer).byte(OTHER).text(&chassis.version);
    let structure = structure.text(&chassis.serial).text(&chassis.asset).bytes(&[SAFE, SAFE, SAFE, UNKNOWN]);
    // OEM-defined; height, power cords: unspecified; no contained elements.
    structure.bytes(&[0; 4]).bytes(&[0; 4]).text(&chassis.sku)
}

/// 7.5.
fn processor_information(processor: &Processor, id: [u32; 2]) -> Structure {
    const CENTRAL: u8 = 3;
    const OTHER: u8 = 1;
    const POPULATED_ENABLED: u8 = 0x41;
    const NO_CACHE_INFORMATION: u16 = 0xffff;
    let structure = Structure::new(4, HANDLE_PROCESSOR).text(&format!("{} 0", processor.socket)).byte(CENTRAL);
    let structure = structure.byte(OTHER).text(&processor.manufacturer).bytes(&id.map(u32::to_le_bytes).concat());
    let structure = structure.text(&processor.version).byte(0).word(0).word(processor.max_speed);
    let structure = structure.word(processor.current_speed).byte(POPULATED_ENABLED).byte(OTHER);
    let structure = structure.word(NO_CACHE_INFORMATION).word(NO_CACHE_INFORMATION).word(NO_CACHE_INFORMATION);
    let structure = structure.text(&processor.serial).text(&processor.asset).text(&processor.part);
    // One core, enabled, with one thread; characteristics unknown; family "other".
    structure.bytes(&[1, 1, 1]).word(2).word(OTHER.into())
}

/// 7.17, 7.18 and 7.20.
fn memory(list: &mut List, machine: &SmbiosMachine) {
    const OTHER: u8 = 1;
    const SYSTEM_MEMORY: u8 = 3;
    const MULTI_BIT_ECC: u8 = 6;
    const NO_ERROR_INFORMATION: u16 = 0xfffe;
    const RAM: u8 = 7;
    const DIMM: u8 = 9;
    const IN_EXTENDED_FIELD: u32 = 0x8000_0000;
    let total = machine.low_ram + machine.high_ram;
    let devices = total.div_ceil(DEVICE_SIZE).clamp(1, MOST_DEVICES);
    let kib = total >> 10;
    let (capacity, extended) = match u32::try_from(kib) {
        Ok(kib) if kib < IN_EXTENDED_FIELD => (kib, 0),
        _ => (IN_EXTENDED_FIELD, total),
    };
    let array = Structure::new(16, HANDLE_ARRAY).byte(OTHER).byte(SYSTEM_MEMORY).byte(MULTI_BIT_ECC);
    let array = array.double(capacity).word(NO_ERROR_INFORMATION).word(devices as u16);
    list.add(array.bytes(&extended.to_le_bytes()));
    for n in 0..devices {
        let mib = ((total - n * DEVICE_SIZE).min(DEVICE_SIZE) >> 20) as u16;
        let device = Structure::new(17, HANDLE_DEVICE + n as u16).word(HANDLE_ARRAY).word(NO_ERROR_INFORMATION);
        // Widths unknown; size; no set.
        let device = device.word(0xffff).word(0xffff).word(mib).byte(DIMM).byte(0).text(&format!("DIMM {n}"));
        // No bank; "other" as its only detail; speed unknown.
        let device = device.byte(0).byte(RAM).word(2).word(0).text(MANUFACTURER);
        // Serial, asset, part: none; attributes, extended size, speed, voltages unknown.
        list.add(device.bytes(&[0; 3]).byte(0).double(0).word(0).bytes(&[0; 6]));
    }
    let ranges = [(0, machine.low_ram), (1u64 << 32, machine.high_ram)];
    for (n, (start, len)) in ranges.into_iter().filter(|range| range.1 > 0).enumerate() {
        let end = start + len - 1;
        let range = Structure::new(19, HANDLE_RANGE + n as u16);
        let (first, last) = (start >> 10, end >> 10);
        // Addresses in KiB where they fit, in bytes otherwise.
        let range = match u32::try_from(last) {
            Ok(last) if last != u32::MAX => {
                range.double(first as u32).double(last).word(HANDLE_ARRAY).byte(1).bytes(&[0; 16])
            }
            _ => {
                let range = range.double(u32::MAX).double(u32::MAX).word(HANDLE_ARRAY).byte(1);
                range.bytes(&start.to_le_bytes()).bytes(&end.to_le_bytes())
            }
        };
        list.add(range);
    }
}

/// A structure as it is written: the formatted area and the strings.
struct Structure {
    formatted: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
}

impl Structure {
    /// Its header, 6.1.2, without the length.
    fn new(kind: u8, handle: u16) -> Structure {
        let [low, high] = handle.to_le_bytes();
        Structure { formatted: vec![kind, 0, low, high], strings: Vec::new(), count: 0 }
    }

    fn bytes(mut self, bytes: &[u8]) -> Structure {
        self.formatted.extend(bytes);
        self
    }

    fn byte(self, value: u8) -> Structure {
        self.bytes(&[value])
    }

    fn word(self, value: u16) -> Structure {
        self.bytes(&value.to_le_bytes())
    }

    fn double(self, value: u32) -> Structure {
        self.bytes(&value.to_le_bytes())
    }

    /// The number of a string, 6.1.3; 0 for an empty one. Zero bytes would end it and are left out.
    fn text(mut self, text: &str) -> Structure {
        if text.is_empty() {
            return self.byte(0);
        }
        self.strings.extend(text.bytes().filter(|byte| *byte != 0));
        self.strings.push(0);
        self.count += 1;
        let number = self.count;
        self.byte(number)
    }
}

/// Structures, one behind the other.
#[derive(Default)]
struct List {
    bytes: Vec<u8>,
    count: u16,
    largest: usize,
}

impl List {
    fn add(&mut self, structure: Structure) {
        let start = self.bytes.len();
        self.bytes.extend(&structure.formatted);
        self.bytes[start + 1] = structure.formatted.len() as u8;
        self.bytes.extend(&structure.strings);
        // Without strings there are two zeros, with strings one more.
        self.bytes.extend(if structure.strings.is_empty() { &[0, 0][..] } else { &[0] });
        self.count += 1;
        self.largest = self.largest.max(self.bytes.len() - start);
    }

    /// The entry point, 5.2.1, for structures at `address`.
    fn anchor(&self, address: u32) -> Vec<u8> {
        const VERSION: [u8; 2] = [2, 8];
        let mut anchor = b"_SM_\0".to_vec();
        anchor.push(ANCHOR as u8);
        anchor.extend(VERSION);
        anchor.extend((self.largest as u16).to_le_bytes());
        anchor.extend([0; 6]);
        anchor.extend(b"_DMI_\0");
        anchor.extend((self.bytes.len() as u16).to_le_bytes());
        anchor.extend(address.to_le_bytes());
        anchor.extend(self.count.to_le_bytes());
        anchor.push(VERSION[0] << 4 | VERSION[1]);
        let checksum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        anchor[0x15] = checksum(&anchor[0x10..]);
        anchor[4] = checksum(&anchor);
        anchor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: SmbiosMachine =
        SmbiosMachine { low_ram: 3 << 30, high_ram: 30 << 30, processor_id: [0x663, 0x0783_fbff] };

    /// Type, formatted area and strings of each structure.
    fn walk(tables: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
        let (mut at, mut list) = (0, Vec::new());
        while at < tables.len() {
            let formatted = tables[at..at + usize::from(tables[at + 1])].to_vec();
            let rest = &tables[at + formatted.len()..];
            let len = rest.windows(2).position(|pair| pair == [0, 0]).unwrap();
            let strings = String::from_utf8(rest[..len].to_vec()).unwrap();
            list.push((
                formatted[0],
                formatted.clone(),
                strings.split('\0').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
            ));
            at += formatted.len() + len + 2;
        }
        list
    }

    #[test]
    fn structures_have_the_lengths_of_version_2_8_and_one_handle_each() {
        let config = SmbiosConfig {
            bios: Some(Bios { vendor: "v".into(), ..Bios::default() }),
            board: Some(Board::default()),
            ..SmbiosConfig::default()
        };
        let list = walk(&SmbiosTables::for_firmware(&config, &MACHINE).tables);
        let lengths: Vec<(u8, usize)> = list.iter().map(|s| (s.0, s.1.len())).collect();
        let (dimm, range) = ((17, 0x28), (19, 0x1f));
        assert_eq!(
            lengths,
            [
                (0, 0x18),
                (1, 0x1b),
                (2, 0x0f),
                (3, 0x16),
                (4, 0x2a),
                (16, 0x17),
                dimm,
                dimm,
                dimm,
                range,
                range,
                (32, 0x0b),
                (127, 4)
            ]
        );
        let mut handles: Vec<&[u8]> = list.iter().map(|s| &s.1[2..4]).collect();
        handles.sort();
        handles.dedup();
        assert_eq!(handles.len(), list.len());
    }

    #[test]
    fn entry_point_sums_up_to_zero_and_counts_structures() {
        let built = SmbiosTables::for_firmware(&SmbiosConfig::default(), &MACHINE);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((sum(&built.anchor), sum(&built.anchor[0x10..]), built.anchor.len()), (0, 0, ANCHOR));
        assert_eq!(usize::from(built.anchor[0x16]) | usize::from(built.anchor[0x17]) << 8, built.tables.len());
        assert_eq!(usize::from(built.anchor[0x1c]), walk(&built.tables).len());
    }

    #[test]
    fn uuid_and_strings_are_where_the_system_structure_has_them() {
        let mut config = SmbiosConfig::default();
        config.system.uuid = std::array::from_fn(|i| i as u8);
        config.system.serial = "S\x001".into();
        let list = walk(&SmbiosTables::for_firmware(&config, &MACHINE).tables);
        let (kind, system, strings) = &list[0];
        assert_eq!((*kind, system[7], strings[3].as_str()), (1, 4, "S1"));
        assert_eq!(system[8..24], [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(list[2].1[8..12], [0x63, 6, 0, 0]);
    }

    #[test]
    fn kernels_without_firmware_find_the_entry_point_in_the_f_segment() {
        let memory = GuestMemory::new(1 << 20, 0).unwrap();
        SmbiosTables::place(&SmbiosConfig::default(), &MACHINE, &memory);
        let mut bytes = [0; 0x40];
        memory.read(PLACE, &mut bytes);
        assert_eq!((&bytes[..4], &bytes[0x18..0x1c]), (&b"_SM_"[..], &(TABLES as u32).to_le_bytes()[..]));
        assert_eq!(bytes[0x20..0x22], [0, 0x18]);
    }
}

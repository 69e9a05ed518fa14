//! The firmware configuration device: QEMU's docs/specs/fw_cfg.rst, with its port and DMA interfaces.
//!
//! ```text
//!  510h selector (16 bits)   511h data (8 bits)   514h..51Bh DMA address (big-endian; a write of its low half starts)
//! ```
//! Items are given when the machine is built. Deliberately absent: writable items (DMA writes report an error).

use emu_core::device::{Access, Device, DeviceContext, Region, ResetKind, ports};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Selector keys.
pub mod key {
    /// "QEMU".
    pub const SIGNATURE: u16 = 0x0000;
    /// Interface: bit 0 ports, bit 1 DMA.
    pub const ID: u16 = 0x0001;
    /// RAM size, 64 bits.
    pub const RAM_SIZE: u16 = 0x0003;
    /// Processors at power-on, 16 bits.
    pub const NB_CPUS: u16 = 0x0005;
    /// The parts of the kernel of `-kernel`, for firmware that boots it: address, size (32 bits each) and data of the kernel proper,
    pub const KERNEL: [u16; 3] = [0x0007, 0x0008, 0x0011];
    /// of the initial RAM disk,
    pub const INITRD: [u16; 3] = [0x000a, 0x000b, 0x0012];
    /// of the command line with its final zero,
    pub const COMMAND_LINE: [u16; 3] = [0x0013, 0x0014, 0x0015];
    /// of the setup code with its header filled in.
    pub const SETUP: [u16; 3] = [0x0016, 0x0017, 0x0018];
    /// Whether firmware offers a boot menu, 16 bits.
    pub const BOOT_MENU: u16 = 0x000e;
    /// Processors at most, 16 bits.
    pub const MAX_CPUS: u16 = 0x000f;
    /// Whether IRQ 0 is input 2 of the I/O APIC, 32 bits.
    pub const IRQ0_OVERRIDE: u16 = 0x8002;
    /// The directory of files.
    pub const FILE_DIR: u16 = 0x0019;
    /// The first file.
    pub const FILE_FIRST: u16 = 0x0020;
}

const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647;
const NAME_LEN: usize = 56;
/// Bytes that one DMA command moves at a time.
const CHUNK: usize = 4096;

/// Bits of a DMA command's control field.
mod control {
    pub const ERROR: u32 = 1 << 0;
    pub const READ: u32 = 1 << 1;
    pub const SKIP: u32 = 1 << 2;
    pub const SELECT: u32 = 1 << 3;
    pub const WRITE: u32 = 1 << 4;
}

/// All guest-visible state but the items, which the command line determines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfgState {
    /// The selected item.
    pub selector: u16,
    /// The next byte of it.
    pub offset: u32,
    /// The DMA address as written so far.
    pub dma_address: u64,
}

/// The device.
#[derive(Debug)]
pub struct FwCfg {
    state: FwCfgState,
    items: BTreeMap<u16, Vec<u8>>,
    files: BTreeMap<String, Vec<u8>>,
}

impl FwCfg {
    /// A device that tells `ram` bytes of memory and `cpus` processors.
    pub fn new(ram: u64, cpus: u16) -> FwCfg {
        let mut device = FwCfg { state: FwCfgState::default(), items: BTreeMap::new(), files: BTreeMap::new() };
        device.items.insert(key::SIGNATURE, b"QEMU".to_vec());
        device.items.insert(key::ID, 3u32.to_le_bytes().to_vec());
        device.items.insert(key::RAM_SIZE, ram.to_le_bytes().to_vec());
        device.items.insert(key::NB_CPUS, cpus.to_le_bytes().to_vec());
        device.items.insert(key::MAX_CPUS, cpus.to_le_bytes().to_vec());
        device.items.insert(key::IRQ0_OVERRIDE, 1u32.to_le_bytes().to_vec());
        device.publish();
        device
    }

    /// The files by which firmware learns of RAM and sleep states: `low` bytes from 0, `high` bytes from 4 GiB.
    pub fn describe_memory(&mut self, low: u64, high: u64) {
        const RAM: u32 = 1;
        let ranges = [(0, low), (1u64 << 32, high)];
        let entries = ranges.iter().filter(|(_, len)| *len > 0);
        let file = entries
            .flat_map(|(start, len)| [&start.to_le_bytes()[..], &len.to_le_bytes(), &RAM.to_le_bytes()].concat());
        self.add_file("etc/e820", file.collect());
        // S0 and S5 exist; S3 and S4 have types but are disabled.
        self.add_file("etc/system-states", vec![0x80, 0, 0, 0x01, 0x02, 0x80]);
    }

    /// Adds or replaces the item of a key that is not a file's.
    pub fn set_item(&mut self, key: u16, contents: Vec<u8>) {
        self.items.insert(key, contents);
    }

    /// What an item holds.
    #[cfg(test)]
    pub(super) fn item(&self, key: u16) -> &[u8] {
        &self.items[&key]
    }

    /// Adds or replaces the items of something to be loaded: the keys of its address, size and data.
    pub fn set_part(&mut self, [address_key, size_key, data_key]: [u16; 3], address: u32, data: Vec<u8>) {
        self.set_item(address_key, address.to_le_bytes().to_vec());
        self.set_item(size_key, (data.len() as u32).to_le_bytes().to_vec());
        self.set_item(data_key, data);
    }

    /// Adds or replaces a file. Names longer than 55 bytes are cut.
    pub fn add_file(&mut self, name: &str, contents: Vec<u8>) {
        self.files.insert(name.to_owned(), contents);
        self.publish();
    }

    /// Gives every file a key and makes the directory: files are sorted by name.
    fn publish(&mut self) {
        let mut directory = (self.files.len() as u32).to_be_bytes().to_vec();
        self.items.retain(|key, _| *key < key::FILE_FIRST || *key >= key::IRQ0_OVERRIDE);
        for (selector, (name, contents)) in (key::FILE_FIRST..).zip(&self.files) {
            let mut field = [0; NAME_LEN];
            field.iter_mut().zip(name.bytes().take(NAME_LEN - 1)).for_each(|(to, from)| *to = from);
            directory.extend((contents.len() as u32).to_be_bytes());
            directory.extend(selector.to_be_bytes());
            directory.extend([0; 2]);
            directory.extend(field);
            self.items.insert(selector, contents.clone());
        }
        self.items.insert(key::FILE_DIR, directory);
    }

    fn select(&mut self, selector: u16) {
        (self.state.selector, self.state.offset) = (selector, 0);
    }

    /// The next bytes of the selected item; zeros behind its end.
    fn take(&mut self, bytes: &mut [u8]) {
        let item = self.items.get(&self.state.selector).map_or(&[][..], |item| item);
        let rest = item.get(self.state.offset as usize..).unwrap_or_default();
        let n = rest.len().min(bytes.len());
        bytes[..n].copy_from_slice(&rest[..n]);
        bytes[n..].fill(0);
        self.state.offset = self.state.offset.saturating_add(bytes.len() as u32);
    }

    /// Carries out the command at the DMA address: control, length and address, all big-endian.
    fn dma(&mut self, cx: &mut DeviceContext) {
        let at = std::mem::take(&mut self.state.dma_address);
        let mut command = [0; 16];
        cx.memory.read(at, &mut command);
        let field = |i: usize| u32::from_be_bytes([command[i], command[i + 1], command[i + 2], command[i + 3]]);
        let (control, length) = (field(0), field(4));
        let address = u64::from(field(8)) << 32 | u64::from(field(12));
        if control & control::SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let mut result = 0;
        if control & control::READ != 0 {
            self.dma_read(cx, address, length);
        } else if control & control::WRITE != 0 {
            result = control::ERROR;
        } else if control & control::SKIP != 0 {
            self.state.offset = self.state.offset.saturating_add(length);
        }
        cx.memory.write(at, &result.to_be_bytes());
    }

    fn dma_read(&mut self, cx: &mut DeviceContext, address: u64, length: u32) {
        // No more than RAM is ever written, whatever the guest asks for.
        let length = u64::from(length).min(cx.memory.ram_size());
        let mut buffer = [0; CHUNK];
        let mut done = 0;
        while done < length {
            let n = (length - done).min(CHUNK as u64);
            self.take(&mut buffer[..n as usize]);
            cx.memory.write(address.wrapping_add(done), &buffer[..n as usize]);
            done += n;
        }
    }
}

impl Device for FwCfg {
    const ID: &'static str = "fw_cfg";
    type State = FwCfgState;
    const PORTS: &'static [Region] = &[ports(0x510, 2), ports(0x514, 8)];

    fn read(&mut self, _cx: &mut DeviceContext, access: Access) -> u64 {
        if access.region == 1 {
            let bytes = DMA_SIGNATURE.to_be_bytes();
            let at = access.offset as usize;
            return (0..usize::from(access.size)).fold(0, |value, i| value | u64::from(bytes[at + i]) << (8 * i));
        }
        match (access.offset, access.size) {
            (1, 1) => {
                let mut byte = [0];
                self.take(&mut byte);
                byte[0].into()
            }
            _ => 0,
        }
    }

    fn write(&mut self, cx: &mut DeviceContext, access: Access, value: u64) {
        match (access.region, access.offset, access.size) {
            (0, 0, 2) => self.select(value as u16),
            (1, 0, 4) => self.state.dma_address = u64::from((value as u32).swap_bytes()) << 32,
            (1, 4, 4) => {
                self.state.dma_address |= u64::from((value as u32).swap_bytes());
                self.dma(cx);
            }
            _ => {}
        }
    }

    fn reset(&mut self, _cx: &mut DeviceContext, _kind: ResetKind) {
        self.state = FwCfgState::default();
    }

    fn state(&self) -> FwCfgState {
        self.state
    }

    fn set_state(&mut self, state: FwCfgState) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbench::Bench;

    fn bench() -> Bench<FwCfg> {
        let mut device = FwCfg::new(64 << 20, 1);
        device.add_file("opt/test", b"hello".to_vec());
        device.add_file("etc/other", vec![1; 3]);
        Bench::new(device)
    }

    fn item(bench: &mut Bench<FwCfg>, selector: u16, len: usize) -> Vec<u8> {
        bench.out16(0x510, selector);
        (0..len).map(|_| bench.in8(0x511)).collect()
    }

    #[test]
    fn items_and_directory_read_byte_by_byte() {
        let mut bench = bench();
        assert_eq!(item(&mut bench, key::SIGNATURE, 6), b"QEMU\0\0");
        assert_eq!(item(&mut bench, key::RAM_SIZE, 4), [0, 0, 0, 4]);
        let directory = item(&mut bench, key::FILE_DIR, 4 + 2 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        assert_eq!(directory[68..76], [0, 0, 0, 5, 0, 0x21, 0, 0]);
        assert_eq!(&directory[76..85], b"opt/test\0");
        assert_eq!(item(&mut bench, 0x21, 6), b"hello\0");
        assert_eq!(item(&mut bench, 0x7777, 2), [0, 0]);
    }

    #[test]
    fn memory_is_told_in_ranges_as_e820_has_them() {
        let mut device = FwCfg::new(5 << 30, 1);
        device.describe_memory(3 << 30, 2 << 30);
        let mut bench = Bench::new(device);
        let file = item(&mut bench, key::FILE_FIRST, 41);
        assert_eq!(file[..20], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(file[20..], [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(item(&mut bench, key::IRQ0_OVERRIDE, 4), [1, 0, 0, 0]);
    }

    #[test]
    fn dma_selects_skips_reads_and_refuses_writes() {
        let mut bench = bench();
        assert_eq!(bench.in32(0x514).to_le_bytes(), *b"QEMU");
        let mut run = |control: u32, length: u32| {
            let command =
                [control.to_be_bytes(), length.to_be_bytes(), 0u32.to_be_bytes(), 0x2000u32.to_be_bytes()].concat();
            bench.world.memory().write(0x1000, &command);
            bench.out32(0x514, 0);
            bench.out32(0x518, 0x1000u32.swap_bytes());
            let (mut result, mut data) = ([0; 4], [0; 4]);
            bench.world.memory().read(0x1000, &mut result);
            bench.world.memory().read(0x2000, &mut data);
            (u32::from_be_bytes(result), data)
        };
        assert_eq!(run(0x21 << 16 | control::SELECT | control::SKIP, 2), (0, [0; 4]));
        assert_eq!(run(control::READ, 4), (0, *b"llo\0"));
        assert_eq!(run(control::WRITE, 4).0, control::ERROR);
        assert_eq!(run(control::READ, u32::MAX), (0, [0; 4]));
    }
}

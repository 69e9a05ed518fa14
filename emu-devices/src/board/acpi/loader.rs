//! The tables as files of fw_cfg with a script for firmware, which chooses where they go: QEMU's table loader, as the
//! comments of its `hw/acpi/bios-linker-loader.c` describe the format.
//!
//! ```text
//!  etc/acpi/rsdp     the RSDP            etc/acpi/tables   all others, their links as offsets into this file
//!  etc/table-loader  commands of 128 bytes, little-endian:
//!    1 ALLOCATE      file[56]  alignment:32  zone:8 (1 high memory, 2 F segment)
//!    2 ADD_POINTER   file[56]  file[56]  offset:32  size:8      adds the second file's address to a link in the first
//!    3 ADD_CHECKSUM  file[56]  offset:32  start:32  length:32
//! ```

use super::{AcpiConfig, AcpiTables, RSDP_ROOM, RSDP_SIZE};

const RSDP: &str = "etc/acpi/rsdp";
const TABLES: &str = "etc/acpi/tables";
const LOADER: &str = "etc/table-loader";

const ENTRY: usize = 128;
const NAME: usize = 56;
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
const ZONE_HIGH: u8 = 1;
const ZONE_FSEG: u8 = 2;

/// Files of fw_cfg: name and contents.
pub struct LoaderFiles(pub Vec<(&'static str, Vec<u8>)>);

impl LoaderFiles {
    /// The files for `config`.
    pub fn build(config: &AcpiConfig) -> LoaderFiles {
        // With this base the address of a table is its offset in the second file.
        let tables = AcpiTables::build(config, 0u32.wrapping_sub(RSDP_ROOM as u32));
        let mut image = tables.image;
        let place = |at: usize| if at < RSDP_ROOM { (RSDP, at) } else { (TABLES, at - RSDP_ROOM) };
        let mut script = [command(ALLOCATE, &[RSDP], &[&16u32.to_le_bytes(), &[ZONE_FSEG]])].concat();
        script.extend(command(ALLOCATE, &[TABLES], &[&64u32.to_le_bytes(), &[ZONE_HIGH]]));
        for link in &tables.links {
            let (file, at) = place(link.at);
            script.extend(command(ADD_POINTER, &[file, TABLES], &[&(at as u32).to_le_bytes(), &[link.size]]));
        }
        for sum in &tables.sums {
            image[sum.at] = 0;
            let ((file, at), (_, start)) = (place(sum.at), place(sum.start));
            let numbers = [at as u32, start as u32, sum.len as u32].map(u32::to_le_bytes).concat();
            script.extend(command(ADD_CHECKSUM, &[file], &[&numbers]));
        }
        let rest = image.split_off(RSDP_ROOM);
        image.truncate(RSDP_SIZE);
        LoaderFiles(vec![(RSDP, image), (TABLES, rest), (LOADER, script)])
    }
}

fn command(code: u32, files: &[&str], fields: &[&[u8]]) -> Vec<u8> {
    let mut entry = code.to_le_bytes().to_vec();
    for (i, file) in files.iter().enumerate() {
        entry.extend(file.bytes());
        entry.resize(4 + NAME * (i + 1), 0);
    }
    fields.iter().for_each(|field| entry.extend(*field));
    entry.resize(ENTRY, 0);
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Carries out the script as firmware does, with the files where the image built for `base` has them.
    #[test]
    fn script_makes_the_image_that_is_built_for_an_address() {
        let config = AcpiConfig {
            low_ram: 512 << 20,
            serials: [true; 4],
            parallel: true,
            i8042: true,
            apic: true,
            vga: true,
            floppies: [4, 0],
        };
        let base = 0x7fe_0000u32;
        let LoaderFiles(files) = LoaderFiles::build(&config);
        let mut memory = files[0].1.clone();
        memory.resize(RSDP_ROOM, 0);
        memory.extend(&files[1].1);
        let place = |entry: &[u8], at: usize| match &entry[at..at + 14] {
            b"etc/acpi/rsdp\0" => 0,
            b"etc/acpi/table" => RSDP_ROOM,
            other => panic!("{other:?}"),
        };
        for entry in files[2].1.chunks(ENTRY) {
            let file = place(entry, 4);
            match word(entry, 0) {
                ALLOCATE => assert!([16, 64].contains(&word(entry, 60))),
                ADD_POINTER => {
                    let at = file + word(entry, 116) as usize;
                    let address = word(&memory, at) + base + place(entry, 60) as u32;
                    memory[at..at + 4].copy_from_slice(&address.to_le_bytes());
                }
                ADD_CHECKSUM => {
                    let (at, start) = (file + word(entry, 60) as usize, file + word(entry, 64) as usize);
                    let covered = &memory[start..start + word(entry, 68) as usize];
                    memory[at] = covered.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
                }
                code => panic!("{code}"),
            }
        }
        assert!(memory == AcpiTables::build(&config, base).image);
    }
}

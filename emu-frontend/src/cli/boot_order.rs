//! `bootindex=` of `-device`: what firmware is to boot before all that `-boot` says, as fw_cfg's file `bootorder` has it.
//!
//! That file holds OpenFirmware device paths as QEMU writes them, one to a line, with a NUL at its end: the firmware's part is in SeaBIOS'
//! `src/boot.c` and in `firmware/rom/boot/order.rs`.

use super::cards::CardSpec;
use super::devices::Property;
use super::drive::Drives;
use super::error::StartError;
use super::value::{KeyValues, parse_number};
use emu_devices::board::expansion;
use emu_devices::board::firmware::FirmwareConfig;

/// The file's name.
const FILE: &str = "bootorder";
/// The line behind which nothing else is tried.
pub const HALT: &str = "HALT";

/// `bootindex=`, as help has it.
pub const BOOTINDEX: Property = ("bootindex", "<int32>   - place in the boot order, -1 for none (default: -1)");

/// Takes `bootindex` out of a device's properties; `None`: it has no place in the order.
///
/// # Errors
/// It is not a number of 32 bits.
pub fn take_bootindex(v: &mut KeyValues) -> Result<Option<u32>, StartError> {
    let Some(text) = v.take("bootindex")? else { return Ok(None) };
    let most = i32::MAX as u64;
    match (parse_number(&text), text.strip_prefix('-').and_then(parse_number)) {
        (Some(index), _) if index <= most => Ok(Some(index as u32)),
        (_, Some(below)) if below <= most + 1 => Ok(None),
        _ => Err(v.error(format!("'bootindex={text}' is not a number from 0 to {most:#x}, or -1 for none"))),
    }
}

/// The paths of all devices with a place in the boot order, in that order.
///
/// # Errors
/// The cards do not fit into the slots.
pub fn paths(drives: &Drives, cards: &[CardSpec]) -> Result<Vec<String>, StartError> {
    let slots = expansion::allocate(cards.iter().map(CardSpec::slot));
    let slots = slots.map_err(|error| cards[error.card()].error(error.to_string()))?;
    let ide = drives.ide.iter().enumerate().filter_map(|(unit, drive)| {
        let path = format!("/pci@i0cf8/ide@1,1/drive@{}/disk@{}", unit / 2, unit % 2);
        Some((drive.as_ref()?.bootindex?, path))
    });
    let cards = cards.iter().zip(slots).filter_map(|(card, slot)| {
        let slot = slot?;
        let path = match card.nic() {
            Some(_) => format!("/pci@i0cf8/ethernet@{slot:x}/ethernet-phy@0"),
            None => format!("/pci@i0cf8/scsi@{slot:x}/disk@0,0"),
        };
        Some((card.bootindex?, path))
    });
    let mut paths: Vec<(u32, String)> = ide.chain(cards).collect();
    paths.sort();
    Ok(paths.into_iter().map(|(_, path)| path).collect())
}

/// Has firmware try `paths` before everything else that it has been told to boot.
pub fn boot_first(firmware: &mut FirmwareConfig, paths: &[String]) {
    if paths.is_empty() {
        return;
    }
    let mut order = paths.join("\n").into_bytes();
    match firmware.files.iter_mut().find(|(name, _)| name == FILE) {
        Some((_, rest)) => {
            order.push(b'\n');
            rest.splice(..0, order);
        }
        None => {
            order.push(0);
            firmware.files.push((FILE.into(), order));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_index_is_a_signed_number_and_none_when_negative() {
        let take =
            |text: &str| take_bootindex(&mut KeyValues::parse("device", &format!("x,bootindex={text}"), "driver"));
        assert_eq!(take_bootindex(&mut KeyValues::parse("device", "x", "driver")), Ok(None));
        assert_eq!(
            (take("0"), take("0x10"), take("2147483647")),
            (Ok(Some(0)), Ok(Some(16)), Ok(Some(i32::MAX as u32)))
        );
        assert_eq!((take("-1"), take("-2147483648")), (Ok(None), Ok(None)));
        for wrong in ["", "-", "x", "--1", "2147483648", "-2147483649", "1.5"] {
            let line = take(wrong).unwrap_err().line();
            assert!(line.contains(&format!("'bootindex={wrong}' is not a number from 0 to 0x7fffffff")), "{line}");
        }
    }

    #[test]
    fn what_comes_first_leaves_the_rest_of_the_order_behind_it() {
        let order =
            |firmware: &FirmwareConfig| firmware.files.iter().find(|file| file.0 == FILE).map(|file| file.1.clone());
        let mut firmware = FirmwareConfig::default();
        boot_first(&mut firmware, &[]);
        assert_eq!(order(&firmware), None);
        boot_first(&mut firmware, &[HALT.into()]);
        assert_eq!(order(&firmware).unwrap(), b"HALT\0");
        boot_first(&mut firmware, &["/a".into(), "/b".into()]);
        boot_first(&mut firmware, &["/c".into()]);
        assert_eq!(order(&firmware).unwrap(), b"/c\n/a\n/b\nHALT\0");
    }
}

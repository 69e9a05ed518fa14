//! `-smbios` and `-uuid`: what the SMBIOS tables say.

use super::error::StartError;
use super::value::KeyValues;
use emu_devices::board::smbios::{Bios, Board, SmbiosConfig};

/// The longest text, in bytes: so all tables fit below 64 KiB whatever is asked for.
const TEXT_LIMIT: usize = 255;

/// Checks all `-smbios` values and `-uuid`, in the order of the command line; `-uuid` comes first.
///
/// # Errors
/// A type or field that does not exist, a text that is too long, a number or UUID that is none.
pub fn parse(values: &[String], uuid: Option<&str>) -> Result<SmbiosConfig, StartError> {
    let mut config = SmbiosConfig::default();
    if let Some(text) = uuid {
        config.system.uuid = parse_uuid(text).ok_or_else(|| StartError::value("uuid", text, UUID_EXPECTED))?;
    }
    for text in values {
        parse_one(text, &mut config)?;
    }
    Ok(config)
}

const UUID_EXPECTED: &str = "expected a UUID such as 12345678-9abc-def0-1234-56789abcdef0";

fn parse_one(text: &str, config: &mut SmbiosConfig) -> Result<(), StartError> {
    let mut v = KeyValues::parse("smbios", text, "");
    if v.take("file")?.is_some() {
        return Err(v.error("not implemented; nearest is type="));
    }
    let Some(kind) = v.take_number("type", 0xff)? else { return Err(v.error("needs type=0 to type=4")) };
    match kind {
        0 => {
            let bios = config.bios.get_or_insert_with(Bios::default);
            texts(
                &mut v,
                &mut [("vendor", &mut bios.vendor), ("version", &mut bios.version), ("date", &mut bios.date)],
            )?;
            if let Some(release) = v.take("release")? {
                let parts = release.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                bios.release = parts.ok_or_else(|| v.error(format!("'release={release}': expected 0.0 to 255.255")))?;
            }
            bios.uefi = v.take_bool("uefi")?.unwrap_or(bios.uefi);
        }
        1 => {
            let system = &mut config.system;
            texts(
                &mut v,
                &mut [
                    ("manufacturer", &mut system.manufacturer),
                    ("product", &mut system.product),
                    ("version", &mut system.version),
                    ("serial", &mut system.serial),
                    ("sku", &mut system.sku),
                    ("family", &mut system.family),
                ],
            )?;
            if let Some(uuid) = v.take("uuid")? {
                system.uuid = parse_uuid(&uuid).ok_or_else(|| v.error(format!("'uuid={uuid}': {UUID_EXPECTED}")))?;
            }
        }
        2 => {
            let board = config.board.get_or_insert_with(Board::default);
            texts(
                &mut v,
                &mut [
                    ("manufacturer", &mut board.manufacturer),
                    ("product", &mut board.product),
                    ("version", &mut board.version),
                    ("serial", &mut board.serial),
                    ("asset", &mut board.asset),
                    ("location", &mut board.location),
                ],
            )?;
        }
        3 => {
            let chassis = &mut config.chassis;
            texts(
                &mut v,
                &mut [
                    ("manufacturer", &mut chassis.manufacturer),
                    ("version", &mut chassis.version),
                    ("serial", &mut chassis.serial),
                    ("asset", &mut chassis.asset),
                    ("sku", &mut chassis.sku),
                ],
            )?;
        }
        4 => {
            let processor = &mut config.processor;
            texts(
                &mut v,
                &mut [
                    ("sock_pfx", &mut processor.socket),
                    ("manufacturer", &mut processor.manufacturer),
                    ("version", &mut processor.version),
                    ("serial", &mut processor.serial),
                    ("asset", &mut processor.asset),
                    ("part", &mut processor.part),
                ],
            )?;
            let mut speed = |key: &str| v.take_number(key, 0xffff).map(|n| n.map(|n| n as u16));
            processor.max_speed = speed("max-speed")?.unwrap_or(processor.max_speed);
            processor.current_speed = speed("current-speed")?.unwrap_or(processor.current_speed);
        }
        other => return Err(v.error(format!("type {other} is not implemented; implemented: 0, 1, 2, 3, 4"))),
    }
    v.finish()
}

/// Replaces the texts of the fields that are given.
fn texts(v: &mut KeyValues, fields: &mut [(&str, &mut String)]) -> Result<(), StartError> {
    for (key, field) in fields {
        let Some(text) = v.take(key)? else { continue };
        if text.len() > TEXT_LIMIT {
            return Err(v.error(format!("'{key}' has {} bytes; accepted: up to {TEXT_LIMIT}", text.len())));
        }
        **field = text;
    }
    Ok(())
}

/// 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    let shaped = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]);
    let digits = groups.concat();
    if !shaped || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smbios(words: &[&str], uuid: Option<&str>) -> Result<SmbiosConfig, String> {
        let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
        parse(&words, uuid).map_err(|e| e.line())
    }

    #[test]
    fn fields_of_all_types_reach_the_configuration() {
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        let config = smbios(
            &[
                "type=0,vendor=V,,W,release=3.14,uefi=on",
                "type=1,manufacturer=M,family=F",
                "type=2,location=L",
                "type=3,sku=K",
                "type=4,sock_pfx=S,max-speed=3000",
            ],
            Some(uuid),
        );
        let config = config.unwrap();
        let bios = config.bios.unwrap();
        assert_eq!((bios.vendor.as_str(), bios.release, bios.uefi), ("V,W", (3, 14), true));
        assert_eq!((config.system.manufacturer.as_str(), config.system.family.as_str()), ("M", "F"));
        assert_eq!(config.system.uuid[..3], [0, 0x11, 0x22]);
        assert_eq!((config.board.unwrap().location, config.chassis.sku), ("L".to_string(), "K".to_string()));
        assert_eq!((config.processor.socket.as_str(), config.processor.max_speed), ("S", 3000));
    }

    #[test]
    fn what_is_no_field_type_number_or_uuid_is_refused_by_name() {
        let long = format!("type=1,serial={}", "x".repeat(256));
        for wrong in ["vendor=x", "type=5", "type=0,release=3", "type=1,uuid=1", "type=1,location=x", "file=x", &long] {
            assert!(smbios(&[wrong], None).unwrap_err().starts_with("-smbios "), "{wrong}");
        }
        for wrong in ["", "x", "00112233445566778899aabbccddeeff", "+0112233-4455-6677-8899-aabbccddeeff"] {
            assert!(smbios(&[], Some(wrong)).unwrap_err().starts_with("-uuid"), "{wrong}");
        }
    }
}

//! `-boot` and `-fw_cfg`: what firmware is told.

use super::boot_order::{self, boot_first};
use super::error::StartError;
use super::value::KeyValues;
use emu_devices::board::firmware::{BootOrder, FirmwareConfig};
use std::path::PathBuf;

/// The longest name of a file of fw_cfg, in bytes.
const NAME_LIMIT: usize = 55;

/// Checks all `-boot` values.
///
/// # Errors
/// A device, time or switch that does not exist.
pub fn parse_boot(values: &[String]) -> Result<FirmwareConfig, StartError> {
    let mut config = FirmwareConfig::default();
    let mut strict = false;
    for text in values {
        let mut v = KeyValues::parse("boot", text, "order");
        if let Some(letters) = v.take("order")? {
            config.order = parse_order(&v, &letters)?;
        }
        if let Some(letters) = v.take("once")? {
            config.once = Some(parse_order(&v, &letters)?);
        }
        config.menu = v.take_bool("menu")?.unwrap_or(config.menu);
        let mut time = |key: &str| v.take_number(key, 0xffff).map(|n| n.map(|n| n as u16));
        config.menu_wait = time("splash-time")?.or(config.menu_wait);
        config.fail_wait = time("reboot-timeout")?.or(config.fail_wait);
        strict = v.take_bool("strict")?.unwrap_or(strict);
        v.finish()?;
    }
    if strict {
        boot_first(&mut config, &[boot_order::HALT.into()]);
    }
    Ok(config)
}

fn parse_order(v: &KeyValues, letters: &str) -> Result<BootOrder, StartError> {
    let mut order = BootOrder::default();
    if letters.is_empty() || letters.len() > order.len() {
        return Err(v.error(format!("'{letters}': expected one to three boot devices")));
    }
    for (i, letter) in letters.char_indices() {
        order[i] = boot_device(letter).ok_or_else(|| {
            let accepted = "a (floppy), c (disk), d (CD-ROM), n (network)";
            v.error(format!("invalid boot device '{letter}'; accepted: {accepted}"))
        })?;
        if letters[..i].contains(letter) {
            return Err(v.error(format!("boot device '{letter}' was given twice")));
        }
    }
    Ok(order)
}

/// The number that a boot device's letter has in a [`BootOrder`].
pub fn boot_device(letter: char) -> Option<u8> {
    match letter {
        'a' | 'b' => Some(1),
        'c' => Some(2),
        'd' => Some(3),
        'n' => Some(4),
        _ => None,
    }
}

/// Checks all `-fw_cfg` values: strings go into `config`; what is in files is returned.
///
/// # Errors
/// A name that is missing, too long or given twice; contents that are missing or given twice.
pub fn parse_fw_cfg(
    values: &[String],
    config: &mut FirmwareConfig,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, PathBuf)>, StartError> {
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for text in values {
        let mut v = KeyValues::parse("fw_cfg", text, "name");
        let name = v.take("name")?.filter(|n| !n.is_empty()).ok_or_else(|| v.error("needs name=NAME"))?;
        let (file, string) = (v.take("file")?, v.take("string")?);
        v.finish()?;
        if name.len() > NAME_LIMIT {
            return Err(v.error(format!("the name has {} bytes; accepted: up to {NAME_LIMIT}", name.len())));
        }
        if config.files.iter().any(|f| f.0 == name) || files.iter().any(|f| f.0 == name) {
            return Err(v.error(format!("'{name}' was given twice")));
        }
        if !name.starts_with("opt/") {
            warnings.push(format!("-fw_cfg {text}: names of the user's own should begin with opt/"));
        }
        match (file, string) {
            (Some(path), None) => files.push((name, path.into())),
            (None, Some(string)) => config.files.push((name, string.into_bytes())),
            _ => return Err(v.error("needs file=FILE or string=TEXT")),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(text: &str) -> Result<FirmwareConfig, String> {
        parse_boot(&[text.to_string()]).map_err(|e| e.line())
    }

    #[test]
    fn boot_order_letters_are_cmos_numbers() {
        let config = boot("dc,once=n,menu=on,splash-time=500").unwrap();
        assert_eq!((config.order, config.once, config.menu), ([3, 2, 0], Some([4, 0, 0]), true));
        assert_eq!((config.menu_wait, config.fail_wait), (Some(500), None));
        for wrong in ["order=x", "order=cc", "acdn", "once=", "menu=maybe", "foo=1", "splash-time=65536"] {
            assert!(boot(wrong).unwrap_err().starts_with("-boot "), "{wrong}");
        }
    }

    #[test]
    fn fw_cfg_files_have_names_and_one_source() {
        let parse = |texts: &[&str]| {
            let (mut config, mut warnings) = (FirmwareConfig::default(), Vec::new());
            let texts: Vec<String> = texts.iter().map(|t| t.to_string()).collect();
            parse_fw_cfg(&texts, &mut config, &mut warnings).map(|files| (files, config.files, warnings.len()))
        };
        let (files, strings, warnings) = parse(&["opt/a,string=b,,c", "name=etc/d,file=/e"]).unwrap();
        assert_eq!((files, warnings), (vec![("etc/d".into(), "/e".into())], 1));
        assert_eq!(strings, [("opt/a".into(), b"b,c".to_vec())]);
        let long = format!("opt/{},string=x", "n".repeat(52));
        for wrong in ["opt/a", "opt/a,file=b,string=c", "string=b", &long] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
        assert!(parse(&["opt/a,string=b", "opt/a,string=c"]).is_err());
    }
}

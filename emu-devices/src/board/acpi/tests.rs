use super::*;

const BASE: u32 = 0xe_0000;

fn config() -> AcpiConfig {
    AcpiConfig {
        low_ram: 512 << 20,
        serials: [true, true, false, false],
        parallel: true,
        i8042: true,
        apic: true,
        vga: true,
        floppies: [4, 5],
    }
}

fn tables() -> Vec<u8> {
    AcpiTables::build(&config(), BASE).image
}

/// FADT and DSDT.
fn main_tables(image: &[u8]) -> (&[u8], &[u8]) {
    let fadt = table(image, word(&image[(word(image, 16) - BASE) as usize..], 36)).1;
    (fadt, table(image, word(fadt, 40)).1)
}

fn word(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, b| sum.wrapping_add(*b))
}

/// Signature and bytes of the table at a physical address.
fn table(image: &[u8], address: u32) -> (&str, &[u8]) {
    let at = (address - BASE) as usize;
    let bytes = &image[at..at + word(image, at + 4) as usize];
    (std::str::from_utf8(&bytes[..4]).unwrap(), bytes)
}

#[test]
fn every_table_is_reachable_and_sums_up_to_zero() {
    let image = tables();
    assert_eq!(&image[..8], b"RSD PTR ");
    assert_eq!((sum(&image[..20]), sum(&image[..36])), (0, 0));
    let (rsdt, xsdt) = (table(&image, word(&image, 16)), table(&image, word(&image, 24)));
    assert_eq!((rsdt.0, sum(rsdt.1), xsdt.0, sum(xsdt.1)), ("RSDT", 0, "XSDT", 0));
    let names: Vec<_> = rsdt.1[36..]
        .chunks(4)
        .zip(xsdt.1[36..].chunks(8))
        .map(|(short, long)| {
            assert_eq!(short, &long[..4]);
            let (name, bytes) = table(&image, word(short, 0));
            assert_eq!(sum(bytes), 0, "{name}");
            name
        })
        .collect();
    assert_eq!(names, ["FACP", "APIC", "HPET"]);
    let fadt = table(&image, word(&rsdt.1[36..], 0)).1;
    let (facs, dsdt) = (word(fadt, 36), word(fadt, 40));
    assert_eq!((facs % 64, table(&image, facs).0), (0, "FACS"));
    let dsdt = table(&image, dsdt);
    assert_eq!((dsdt.0, sum(dsdt.1)), ("DSDT", 0));
    assert!(image.len() < 0x1_0000);
}

#[test]
fn what_is_not_there_is_not_told() {
    const NO_VGA: u8 = 1 << 2;
    const IAPC_BOOT_ARCH: usize = 109;
    let has = |dsdt: &[u8], name: &[u8]| dsdt.windows(4).any(|bytes| bytes == name);
    let image = tables();
    let (fadt, dsdt) = main_tables(&image);
    assert_eq!(fadt[IAPC_BOOT_ARCH] & NO_VGA, 0);
    assert!(has(dsdt, b"FDC0") && has(dsdt, b"FLPA") && has(dsdt, b"FLPB"));
    let image = AcpiTables::build(&AcpiConfig { vga: false, floppies: [0, 4], ..config() }, BASE).image;
    let (fadt, dsdt) = main_tables(&image);
    assert_eq!(fadt[IAPC_BOOT_ARCH] & NO_VGA, NO_VGA);
    assert!(has(dsdt, b"FDC0") && !has(dsdt, b"FLPA") && has(dsdt, b"FLPB"));
    let image = AcpiTables::build(&AcpiConfig { floppies: [0, 0], ..config() }, BASE).image;
    assert!(!has(main_tables(&image).1, b"FDC0"));
}

/// `iasl` from acpica-tools, where it is installed, must disassemble every table and compile the DSDT again without a
/// warning, to the same bytes.
#[test]
fn dsdt_survives_disassembly_and_compilation_by_iasl() {
    let folder = std::env::temp_dir().join(format!("emu-acpi-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new("iasl").args(arguments).current_dir(&folder).output();
        output.ok().map(|o| (o.status.success(), String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).into_owned()))
    };
    let image = tables();
    let rsdt = table(&image, word(&image, 16)).1;
    let fadt = table(&image, word(&rsdt[36..], 0)).1;
    let dsdt = table(&image, word(fadt, 40)).1;
    for (name, bytes) in rsdt[36..].chunks(4).map(|a| table(&image, word(a, 0))).chain([("DSDT", dsdt)]) {
        std::fs::write(folder.join(format!("{name}.aml")), bytes).unwrap();
        let Some((success, text)) = run(&["-d", &format!("{name}.aml")]) else { return };
        assert!(success && !text.contains("Error") && !text.contains("Warning"), "{name}: {text}");
    }
    let (success, text) = run(&["-oa", "-p", "again", "DSDT.dsl"]).unwrap();
    assert!(success && text.contains("0 Errors, 0 Warnings"), "{text}");
    let again = std::fs::read(folder.join("again.aml")).unwrap();
    assert_eq!(again[36..], dsdt[36..], "the compiler encodes it in the same way");
    std::fs::remove_dir_all(folder).unwrap();
}

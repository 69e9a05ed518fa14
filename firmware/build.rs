//! Assembles the ROM images into `OUT_DIR`: each image, and a map of its symbols beside it.

#[path = "rom/mod.rs"]
mod rom;

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=rom");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let font = out.join("font_8x16.bin");
    fs::write(&font, rom::FONT_8X16).unwrap_or_else(|error| panic!("{}: {error}", font.display()));
    for (name, image) in [
        ("bios", rom::bios()),
        ("vgabios", rom::vgabios()),
        ("linuxboot", rom::linuxboot()),
        ("multiboot", rom::multiboot()),
    ] {
        for (suffix, content) in [("bin", image.bytes), ("map", image.map.into_bytes())] {
            let file = out.join(format!("{name}.{suffix}"));
            fs::write(&file, content).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }
}

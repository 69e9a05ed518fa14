//! Sets `emu_tail` where handlers may end in calls: the compiler turns those into jumps only when it optimises.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(emu_tail)");
    println!("cargo::rerun-if-changed=build.rs");
    let optimised = std::env::var("OPT_LEVEL").is_ok_and(|level| level != "0" && level != "1");
    if optimised {
        println!("cargo::rustc-cfg=emu_tail");
    }
}

//! The binary `emu`.

mod audio;
mod cards;
mod char;
mod cli;
mod daemon;
mod dev;
mod display;
mod entropy;
mod exit;
mod image;
mod img;
mod log;
mod machine;
mod monitor;
mod net;
mod qmp;
mod remote;
mod report;
mod run;
mod signals;
mod start;
mod virtio;

fn main() {
    start::main(&std::env::args_os().collect::<Vec<_>>())
}

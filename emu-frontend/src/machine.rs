//! The machine behind a configuration: board, processor, monitor, and what its end means for the exit status.

use crate::char::Characters;
use crate::cli::config::{Config, MonitorMode, SERIAL_PORTS};
use crate::cli::display::{DisplayKind, WindowOptions};
use crate::cli::drive::{DriveSpec, FLOPPY_DRIVES, IDE_DRIVES, MediaKind};
use crate::cli::error::StartError;
use crate::cli::machine::Engine;
use crate::cli::value::show_size;
use crate::dev::stats;
use crate::display::curses;
#[cfg(feature = "window")]
use crate::display::window;
use crate::net::Networks;
use crate::remote::{Identity, Remote};
use crate::run::BootImages;
use crate::{audio, cards, daemon, exit, image, report, virtio};
use crate::{monitor, qmp};
use emu_core::clock::ClockMode;
use emu_core::device::Region;
use emu_core::exec::Vcpu;
use emu_core::exec::region::Compiler;
use emu_devices::board::machine::{Control, MachineOptions, Outcome};
use emu_devices::board::pc::{AudioConfig, Pc, PcConfig, PcError};
use emu_devices::char::CharBackend;
use emu_devices::rtc::StartTime;
use emu_devices::storage::block::{Disk, Media};
use emu_devices::storage::fdc::Format;
use emu_devices::storage::ide::{DriveConfig, Kind};
use emu_devices::video::VgaConfig;
use emu_jit::{Immediate, Jit};
use std::sync::Arc;
#[cfg(feature = "window")]
use std::sync::mpsc::SendError;

/// The stack of the machine's thread: as large as first threads have.
#[cfg(feature = "window")]
const MACHINE_STACK: usize = 8 << 20;

/// Builds the machine, runs it until it ends, and ends the process with the status that follows from it. With a window,
/// the machine has a thread of its own, because windows want the process's first one.
///
/// # Errors
/// The machine cannot be built, or what it is to boot or to be shown on cannot be.
pub fn run(config: Config, images: BootImages, characters: Characters) -> Result<String, StartError> {
    match config.display {
        DisplayKind::None => serve(&config, images, characters, |_| Ok(())),
        DisplayKind::Curses => {
            serve(&config, images, characters, |remote| curses::start(remote.clone(), config.escape))
        }
        DisplayKind::Window(options) => run_with_window(config, images, characters, options),
    }
}

#[cfg(feature = "window")]
fn run_with_window(
    config: Config,
    images: BootImages,
    characters: Characters,
    options: WindowOptions,
) -> Result<String, StartError> {
    let host = window::Host::connect()?;
    let (sender, receiver) = std::sync::mpsc::channel();
    let body = move || {
        let ready = |remote: &Arc<Remote>| {
            // The first thread waits for this.
            let _ = sender.send(Ok(remote.clone()));
            Ok(())
        };
        if let Err(error) = serve(&config, images, characters, ready) {
            // When the window is there already, nobody receives any more.
            if let Err(SendError(Err(error))) = sender.send(Err(error)) {
                report::complain(&error.line());
                exit::leave(1);
            }
        }
    };
    let thread = std::thread::Builder::new().name("machine".into()).stack_size(MACHINE_STACK).spawn(body);
    thread.map_err(|e| StartError::Other(format!("cannot start the machine's thread: {e}")))?;
    match receiver.recv() {
        Ok(Ok(remote)) => {
            drop(receiver);
            host.run(remote, options)
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::Other("the machine's thread has ended".into())),
    }
}

#[cfg(not(feature = "window"))]
fn run_with_window(_: Config, _: BootImages, _: Characters, _: WindowOptions) -> Result<String, StartError> {
    Err(StartError::option("display", "this emu is built without windows"))
}

/// Builds the machine on this thread, has `show` show it, and runs it to the end of the process.
fn serve(
    config: &Config,
    images: BootImages,
    mut characters: Characters,
    show: impl FnOnce(&Arc<Remote>) -> Result<(), StartError>,
) -> Result<String, StartError> {
    let mut networks = Networks::open(&config.nets)?;
    let pc = build(config, images, &mut characters, &mut networks)?;
    for id in networks.end_unused() {
        report::complain(&format!("warning: netdev {id} has no peer"));
    }
    for media in &pc.media {
        let media = media.clone();
        exit::at_exit(move |patience| {
            if let Err(e) = media.settle(patience) {
                report::complain(&format!("{}: not everything is on the disk: {e}", media.info().name));
            }
        });
    }
    let identity = Identity {
        name: config.guest_name.clone().unwrap_or_default(),
        uuid: config.boot.firmware.smbios.system.uuid,
        chardevs: config.chardevs.iter().map(|(id, named)| (id.clone(), named.spec.kind.show())).collect(),
    };
    let remote = Arc::new(Remote::new(&pc, identity, networks.links()));
    image::medium::take_warnings().iter().for_each(|w| report::complain(&format!("warning: {w}")));
    stop_on_errors(&pc.media, &pc.machine.control(), &remote);
    let mut machine = pc.machine;
    machine.processor().set_compiler(compiler(config)?);
    let control = machine.control();
    let events = remote.events.clone();
    machine.observe(move |event| events.machine(event));
    for monitor in &config.monitors {
        let Some(console) = characters.console(&monitor.chardev) else { continue };
        match monitor.mode {
            MonitorMode::Readline => {
                let shared = config.chardevs.get(&monitor.chardev).is_some_and(|c| c.spec.mux);
                monitor::start(console, remote.clone(), shared)?;
            }
            MonitorMode::Control { pretty } => qmp::start(console, remote.clone(), pretty)?,
        }
    }
    characters.start()?;
    let events = remote.events.clone();
    exit::set_stop(move |reason| {
        events.host_shutdown(reason);
        // A machine that has ended already needs no stop.
        control.post(|machine| machine.quit());
    });
    show(&remote)?;
    if config.daemonize {
        daemon::ready()?;
    }
    let status = match machine.run().map_err(|error| refusal(config, error))? {
        Outcome::Exit(status) => status,
        Outcome::TripleFault => {
            report::complain(machine.processor().explain_shutdown().trim_end());
            0
        }
        Outcome::PowerOff | Outcome::Reset | Outcome::Quit => 0,
    };
    if config.stats {
        report::print_error(&stats::show(&mut machine));
    }
    exit::leave(status)
}

/// Has the machine stop when a drive's error is to do that; the request waits for it to go on.
fn stop_on_errors(media: &[Media], control: &Control<Vcpu, PcError>, remote: &Arc<Remote>) {
    for media in media {
        let (control, events) = (control.clone(), remote.events.clone());
        media.set_stop_handler(Arc::new(move |stall| {
            events.block_io_error(stall);
            control.post(|machine| machine.stop_for_io_error());
        }));
    }
}

/// What compiles hot code, if `config` wants that.
///
/// # Errors
/// It has to be compiled, but there is no compiler for this host, or no thread for it.
pub fn compiler(config: &Config) -> Result<Option<Box<dyn Compiler>>, StartError> {
    if config.engine == Engine::Interpreter {
        return Ok(None);
    }
    let compiler: Result<Box<dyn Compiler>, String> = match config.stress {
        Some(threshold) => Immediate::stressed(threshold, config.code_size).map(|jit| Box::new(jit) as _),
        None => Jit::new(config.code_size).map(|jit| Box::new(jit) as _),
    };
    match compiler {
        Ok(compiler) => Ok(Some(compiler)),
        Err(problem) if config.engine == Engine::Best => {
            tracing::warn!("the interpreter executes everything: {problem}");
            Ok(None)
        }
        Err(problem) => Err(StartError::value("accel", "jit", problem)),
    }
}

/// The machine that `config` describes.
///
/// # Errors
/// It cannot be built.
pub fn build(
    config: &Config,
    images: BootImages,
    characters: &mut Characters,
    networks: &mut Networks,
) -> Result<Pc, StartError> {
    Pc::new(describe(config, images, characters, networks)?).map_err(|error| refusal(config, error))
}

/// The board's error as one about an option.
pub fn refusal(config: &Config, error: PcError) -> StartError {
    match &error {
        PcError::Slot(slot) => match config.devices.cards.get(slot.card()) {
            Some(card) => card.error(error.to_string()),
            None => StartError::option("device", error.to_string()),
        },
        PcError::Kernel(_) => {
            let name = config.boot.kernel.as_ref().map(|k| k.display().to_string());
            StartError::value("kernel", name.unwrap_or_default(), error.to_string())
        }
        _ => StartError::value("m", show_size(config.memory), error.to_string()),
    }
}

/// What the board is to build.
fn describe(
    config: &Config,
    images: BootImages,
    characters: &mut Characters,
    networks: &mut Networks,
) -> Result<PcConfig, StartError> {
    let mut serials: [Option<Box<dyn CharBackend>>; SERIAL_PORTS] = Default::default();
    for (serial, id) in serials.iter_mut().zip(&config.serial) {
        *serial = id.as_ref().and_then(|id| characters.backend(id));
    }
    let clock = config.icount.map_or(ClockMode::Realtime, |icount| ClockMode::Icount { shift: icount.shift });
    let open = |spec: &DriveSpec| Ok((spec.name.clone(), open_drive(spec, clock)?));
    let disks = config.drives.unplaced.iter().chain(&config.drives.virtio).map(open).collect::<Result<_, _>>()?;
    let parallel = config.parallel.as_ref().and_then(|id| characters.backend(id));
    let debugcon = match config.devices.debugcons.as_slice() {
        [] => None,
        [one] => one.chardev.as_ref().and_then(|id| characters.output_only(id)).map(|backend| (one.base, backend)),
        _ => return Err(StartError::option("device", "only one isa-debugcon is implemented")),
    };
    let debug_exit = match config.devices.debug_exits.as_slice() {
        [] => None,
        [one] => Some(Region { base: one.base.into(), len: one.size.into() }),
        _ => return Err(StartError::option("device", "only one isa-debug-exit is implemented")),
    };
    let (seconds, nanos) = config.rtc.now();
    // The host's fraction of a second would be one more difference between two deterministic runs.
    let nanos = if clock == ClockMode::Realtime { nanos } else { 0 };
    Ok(PcConfig {
        ram: config.memory,
        model: Arc::new(config.cpu.clone()),
        clock,
        date: StartTime { seconds, nanos },
        serials,
        parallel,
        debugcon,
        debug_exit,
        testdev: config.devices.testdev,
        audio: audio(config)?,
        vga: config.vga.then(|| VgaConfig {
            memory: config.devices.vga_memory,
            rom: images.vga_rom,
            font: firmware::FONT_8X16.to_vec(),
        }),
        ide: drives(config, clock)?,
        boot: images.boot,
        firmware: images.firmware,
        floppies: floppies(config, clock)?,
        expansion: cards::build(config, networks, virtio::Backends { disks, characters })?,
        options: MachineOptions {
            no_reboot: config.no_reboot,
            no_shutdown: config.no_shutdown,
            paused: config.paused,
            icount_sleep: config.icount.is_none_or(|icount| icount.sleep),
        },
    })
}

/// The audio back ends, open, and who plays on them.
fn audio(config: &Config) -> Result<AudioConfig, StartError> {
    let backends = config.audio.iter().map(audio::open).collect::<Result<Vec<_>, _>>()?;
    Ok(AudioConfig { backends, speaker: config.speaker, sb16: config.sb16 })
}

/// The IDE drives with their images open.
fn drives(config: &Config, clock: ClockMode) -> Result<[Option<DriveConfig>; IDE_DRIVES], StartError> {
    let mut drives: [Option<DriveConfig>; IDE_DRIVES] = Default::default();
    for (drive, spec) in drives.iter_mut().zip(&config.drives.ide) {
        let Some(spec) = spec else { continue };
        let kind = if spec.media == MediaKind::Cdrom { Kind::CdRom } else { Kind::Disk };
        *drive = Some(DriveConfig { kind, disk: open_drive(spec, clock)?, names: spec.names.clone() });
    }
    Ok(drives)
}

/// The diskette drives with their images open.
fn floppies(config: &Config, clock: ClockMode) -> Result<[Option<Disk>; FLOPPY_DRIVES], StartError> {
    let mut drives: [Option<Disk>; FLOPPY_DRIVES] = Default::default();
    for (drive, spec) in drives.iter_mut().zip(&config.drives.floppies) {
        let Some(spec) = spec else { continue };
        let disk = open_drive(spec, clock)?;
        if let Some(len) = disk.len().filter(|len| Format::of(*len).is_none()) {
            return Err(spec.error(format!("an image of {len} bytes is no diskette; the largest is of 2949120 bytes")));
        }
        *drive = Some(disk);
    }
    Ok(drives)
}

fn open_drive(spec: &DriveSpec, clock: ClockMode) -> Result<Disk, StartError> {
    let removable = spec.media != MediaKind::Disk;
    let disk = match &spec.file {
        Some(file) => {
            let name = file.to_str().ok_or_else(|| spec.error("the file's name is not UTF-8"))?;
            let image = image::medium::open_at_start(name, &spec.block.image).map_err(|problem| spec.error(problem))?;
            Disk::with_image(&spec.name, removable, clock, name, image)
        }
        None => Disk::new(&spec.name, removable, clock),
    };
    let disk = disk.map_err(|e| spec.error(format!("cannot start the drive's thread: {e}")))?;
    disk.media().set_error_policy(spec.block.errors);
    disk.media().set_limits(spec.block.limits);
    Ok(disk)
}

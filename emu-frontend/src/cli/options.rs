//! The one definition of the command line: QEMU's option names, their values and their help.
//!
//! Every option here works; what QEMU has and emu has not is in [`NOT_IMPLEMENTED`] and ends in an error that says so.
//! [`normalise`] turns QEMU's single-dash spelling into the one that clap reads.

use super::error::{StartError, nearest};
use clap::{Command, CommandFactory, Parser};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::PathBuf;

const STANDARD: &str = "Standard options";
const BLOCK: &str = "Block device options";
const DISPLAY: &str = "Display options";
const AUDIO: &str = "Audio options";
const NETWORK: &str = "Network options";
const CHARACTER: &str = "Character device options";
const BOOT: &str = "Linux/Multiboot boot specific";
const DEBUG: &str = "Debug/Expert options";

/// What the user asked for, each value as written.
#[derive(Debug, Default, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_version_flag = true, args_override_self = true)]
pub struct Options {
    /// display this help and exit
    #[arg(long, alias = "h", help_heading = STANDARD)]
    pub help: bool,
    /// display version information and exit
    #[arg(long, help_heading = STANDARD)]
    pub version: bool,
    /// select the emulated machine ('-machine help' for a list); property accel=accel1[:accel2...] selects the engine
    #[arg(long, short_alias = 'M', alias = "M", value_name = "[type=]name[,prop=value...]", help_heading = STANDARD)]
    pub machine: Vec<String>,
    /// select the CPU model and switch features ('-cpu help' for a list)
    #[arg(long, value_name = "model[,+feature][,-feature]", help_heading = STANDARD)]
    pub cpu: Option<String>,
    /// select the engine ('-accel help' for a list); several are tried in turn
    #[arg(long, value_name = "name[,prop=value...]", help_heading = STANDARD)]
    pub accel: Vec<String>,
    /// number of CPUs; only 1 so far
    #[arg(long, value_name = "[cpus=]n", help_heading = STANDARD)]
    pub smp: Vec<String>,
    /// guest RAM, in MiB without a suffix (default: 128M)
    #[arg(long, value_name = "[size=]megs", help_heading = STANDARD)]
    pub m: Vec<String>,
    /// name of the guest; process= names the process
    #[arg(long, value_name = "string1[,process=string2]", help_heading = STANDARD)]
    pub name: Option<String>,
    /// add a device ('-device help' for a list, '-device driver,help' for its properties)
    #[arg(long, value_name = "driver[,prop=value...]", help_heading = STANDARD)]
    pub device: Vec<String>,
    /// an object for others to use: entropy for -device virtio-rng-pci, or a capture of a network back end's frames in a pcap file
    #[arg(long, value_name = "rng-random,id=id[,filename=path]|rng-builtin,id=id|filter-dump,id=id,netdev=id,file=path[,maxlen=n]", help_heading = DEBUG)]
    pub object: Vec<String>,
    /// default for a property of devices added by -device
    #[arg(long, value_name = "driver.property=value", help_heading = STANDARD)]
    pub global: Vec<String>,
    /// UUID of the machine, in its SMBIOS tables
    #[arg(long, value_name = "%08x-%04x-%04x-%04x-%012x", help_heading = STANDARD)]
    pub uuid: Option<String>,
    /// do not add default devices
    #[arg(long, help_heading = STANDARD)]
    pub nodefaults: bool,
    /// raw image of the diskette in the first drive
    #[arg(long, value_name = "file", help_heading = BLOCK)]
    pub fda: Option<PathBuf>,
    /// the diskette in the second drive
    #[arg(long, value_name = "file", help_heading = BLOCK)]
    pub fdb: Option<PathBuf>,
    /// raw image of the first hard disk, on the first IDE channel; a bare file name is the same
    #[arg(long, value_name = "file", help_heading = BLOCK)]
    pub hda: Option<PathBuf>,
    /// the second hard disk
    #[arg(long, value_name = "file", help_heading = BLOCK)]
    pub hdb: Option<PathBuf>,
    /// the third hard disk, first on the second channel
    #[arg(long, value_name = "file", help_heading = BLOCK)]
    pub hdc: Option<PathBuf>,
    /// the fourth hard disk
    #[arg(long, value_name = "file", help_heading = BLOCK)]
    pub hdd: Option<PathBuf>,
    /// image of a CD-ROM, in the place of the third hard disk
    #[arg(long, value_name = "file", help_heading = BLOCK)]
    pub cdrom: Option<PathBuf>,
    /// add a drive with an image; what is on none of the interfaces is for a -device to take by its id
    #[arg(
        long,
        value_name = "[file=file][,if=ide|floppy|virtio|none][,index=i | ,bus=n][,unit=m][,media=disk|cdrom][,format=raw][,snapshot=on|off][,readonly=on|off][,cache=writethrough|writeback|none|directsync|unsafe][,id=name]",
        help_heading = BLOCK
    )]
    pub drive: Vec<String>,
    /// write to temporary files instead of hard disk images
    #[arg(long, help_heading = BLOCK)]
    pub snapshot: bool,
    /// select the display ('-display help' for a list; default: a window where there can be one)
    #[arg(long, value_name = "none|curses|window[,full-screen=on|off][,window-close=on|off]", help_heading = DISPLAY)]
    pub display: Option<String>,
    /// start the window in full screen
    #[arg(long, help_heading = DISPLAY)]
    pub full_screen: bool,
    /// no display; serial port and monitor share the terminal
    #[arg(long, help_heading = DISPLAY)]
    pub nographic: bool,
    /// select the video card: std or none ('-vga help' for a list)
    #[arg(long, value_name = "type", help_heading = DISPLAY)]
    pub vga: Option<String>,
    /// where sound goes ('-audiodev help' for a list): '-machine pcspk-audiodev=id' and '-device sb16,audiodev=id' play there
    #[arg(long, value_name = "none,id=id | wav,id=id,path=file | cpal,id=id", help_heading = AUDIO)]
    pub audiodev: Vec<String>,
    /// network back end 'id' for use by -device ('-netdev help' for a list)
    #[arg(long, value_name = "user|socket|stream|dgram|tap|hubport,id=id[,prop=value...]", help_heading = NETWORK)]
    pub netdev: Vec<String>,
    /// a network card with a back end of its own ('-nic model=help' for a list); none for no card
    #[arg(long, value_name = "[type=]user|socket|stream|dgram|tap|none[,model=name][,mac=addr][,prop=value...]", help_heading = NETWORK)]
    pub nic: Vec<String>,
    /// a network card or back end on one hub with all others of -net; none for no card
    #[arg(long, value_name = "nic[,model=name][,macaddr=addr][,netdev=id] | user|socket|tap[,prop=value...] | none", help_heading = NETWORK)]
    pub net: Vec<String>,
    /// character device 'id' for use by other options ('-chardev help' for a list)
    #[arg(long, value_name = "backend,id=id[,mux=on|off][,logfile=path][,prop=value...]", help_heading = CHARACTER)]
    pub chardev: Vec<String>,
    /// redirect a serial port, up to four: stdio, mon:stdio, null, none, pty, file:path, pipe:path,
    /// unix:path[,server][,nowait], tcp:host:port[,server][,nowait][,nodelay], telnet:host:port[,server][,nowait], chardev:id
    #[arg(long, value_name = "dev", help_heading = CHARACTER)]
    pub serial: Vec<String>,
    /// redirect the parallel port's printer to a character device, as -serial; none for no such port
    #[arg(long, value_name = "dev", help_heading = CHARACTER)]
    pub parallel: Vec<String>,
    /// redirect the monitor to a character device, as -serial
    #[arg(long, value_name = "dev", help_heading = CHARACTER)]
    pub monitor: Vec<String>,
    /// set up a monitor on a character device
    #[arg(long, value_name = "[chardev=]id[,mode=readline|control][,pretty=on|off]", help_heading = CHARACTER)]
    pub mon: Vec<String>,
    /// a monitor for programs, QMP, on a character device, as -serial
    #[arg(long, value_name = "dev", help_heading = CHARACTER)]
    pub qmp: Vec<String>,
    /// the same with answers over several lines
    #[arg(long, value_name = "dev", help_heading = CHARACTER)]
    pub qmp_pretty: Vec<String>,
    /// write what the guest writes to port 0xe9 to a character device, as -serial
    #[arg(long, value_name = "dev", help_heading = CHARACTER)]
    pub debugcon: Vec<String>,
    /// firmware: a ROM image of a multiple of 64 KiB, as a path or as a name in a folder of -L
    #[arg(long, value_name = "file", help_heading = BOOT)]
    pub bios: Option<PathBuf>,
    /// search this folder for firmware
    #[arg(long = "L", id = "L", value_name = "path", help_heading = BOOT)]
    pub data_dir: Vec<PathBuf>,
    /// boot devices in order: a (floppy), c (disk), d (CD-ROM), n (network); once= until the first reset; those with bootindex= come before them, with strict=on they alone
    #[arg(long, value_name = "[order=]drives[,once=drives][,menu=on|off][,splash-time=ms][,reboot-timeout=ms][,strict=on|off]", help_heading = BOOT)]
    pub boot: Vec<String>,
    /// a file for firmware and guest in the firmware configuration device
    #[arg(long = "fw_cfg", id = "fw_cfg", value_name = "[name=]name,file=file|string=text", help_heading = BOOT)]
    pub fw_cfg: Vec<String>,
    /// what the SMBIOS tables say: type 0 (BIOS), 1 (system), 2 (baseboard), 3 (chassis) or 4 (processor) and its fields
    #[arg(long, value_name = "type=n[,field=value...]", help_heading = BOOT)]
    pub smbios: Vec<String>,
    /// boot a Linux bzImage, a Multiboot image or an ELF with a PVH note
    #[arg(long, value_name = "file", help_heading = BOOT)]
    pub kernel: Option<PathBuf>,
    /// kernel command line
    #[arg(long, value_name = "cmdline", help_heading = BOOT)]
    pub append: Option<String>,
    /// initial RAM disk; for Multiboot: modules, separated by commas, each with its arguments
    #[arg(long, value_name = "file", help_heading = BOOT)]
    pub initrd: Option<PathBuf>,
    /// exit instead of rebooting
    #[arg(long, help_heading = DEBUG)]
    pub no_reboot: bool,
    /// stop instead of exiting when the guest powers off
    #[arg(long, help_heading = DEBUG)]
    pub no_shutdown: bool,
    /// what the end of a boot is: reboot=shutdown is -no-reboot, shutdown=pause is -no-shutdown
    #[arg(long, value_name = "reboot=reset|shutdown | shutdown=poweroff|pause", help_heading = DEBUG)]
    pub action: Vec<String>,
    /// do not start the CPU; 'cont' in the monitor starts it
    #[arg(long = "S", id = "S", help_heading = DEBUG)]
    pub paused: bool,
    /// log these items ('-d help' for a list)
    #[arg(long, value_name = "item1,...", help_heading = DEBUG)]
    pub d: Vec<String>,
    /// write the log to a file instead of stderr; %d is the process id
    #[arg(long = "D", id = "D", value_name = "logfile", help_heading = DEBUG)]
    pub log_file: Option<PathBuf>,
    /// store the process id in a file
    #[arg(long, value_name = "file", help_heading = DEBUG)]
    pub pidfile: Option<PathBuf>,
    /// run in the background once the machine is set up
    #[arg(long, help_heading = DEBUG)]
    pub daemonize: bool,
    /// set the clock of the guest
    #[arg(long, value_name = "[base=utc|localtime|datetime][,clock=host|vm][,driftfix=none]", help_heading = DEBUG)]
    pub rtc: Vec<String>,
    /// virtual time by instructions, 2^N ns each: runs are repeatable
    #[arg(long, value_name = "[shift=]N|auto[,sleep=on|off][,align=off]", help_heading = DEBUG)]
    pub icount: Vec<String>,
    /// set the escape character of the terminal instead of Ctrl-A (code 1)
    #[arg(long, value_name = "chr", help_heading = DEBUG)]
    pub echr: Option<String>,
    /// fails: emu has no hardware virtualisation
    #[arg(long, hide = true)]
    pub enable_kvm: bool,
}

/// QEMU's options that emu has not, each with the nearest thing that it has.
const NOT_IMPLEMENTED: &[(&str, &str)] = &[
    ("blockdev", "-drive"),
    ("mtdblock", "-drive"),
    ("pflash", "-kernel"),
    ("sd", "-drive"),
    ("dtb", "-append"),
    ("shim", "-kernel"),
    ("gdb", "-d"),
    ("s", "-d"),
    ("vnc", "-display none"),
    ("spice", "-display none"),
    ("curses", "-display curses"),
    ("sdl", "-display window"),
    ("watchdog-action", "-no-reboot"),
    ("acpitable", "-machine"),
    ("audio", "-audiodev"),
    ("usb", "-machine usb=off"),
    ("usbdevice", "-device"),
    ("k", "-serial"),
    ("loadvm", "-S"),
    ("incoming", "-S"),
    ("only-migratable", "-S"),
    ("sandbox", "-daemonize"),
    ("run-with", "-daemonize"),
    ("runas", "-daemonize"),
    ("chroot", "-daemonize"),
    ("user", "-daemonize"),
    ("msg", "-D"),
    ("trace", "-d"),
    ("overcommit", "-m"),
    ("mem-path", "-m"),
    ("mem-prealloc", "-m"),
    ("numa", "-m"),
    ("add-fd", "-chardev"),
    ("set", "-global"),
    ("virtfs", "-initrd"),
    ("fsdev", "-initrd"),
    ("tpmdev", "-device"),
    ("readconfig", "-machine"),
    ("writeconfig", "-machine"),
    ("no-user-config", "-nodefaults"),
    ("no-acpi", "-machine"),
    ("no-hpet", "-machine"),
    ("no-fd-bootchk", "-nodefaults"),
    ("win2k-hack", "-machine"),
    ("option-rom", "-kernel"),
    ("semihosting", "-debugcon"),
    ("seed", "-icount"),
    ("one-insn-per-tb", "-d"),
    ("singlestep", "-d"),
    ("dfilter", "-d"),
    ("tb-size", "-accel"),
    ("plugin", "-d"),
    ("enable-sync-profile", "-d"),
    ("dump-vmstate", "-d"),
    ("compat", "-machine"),
    ("xen-domid", "-accel"),
];

/// Rewrites QEMU's spelling for clap: one dash or two, value in the next argument whatever it looks like.
///
/// # Errors
/// An option that is unknown, not implemented or lacks its value.
pub fn normalise(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, StartError> {
    let command = Options::command();
    let mut normal = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let shown = argument.to_string_lossy().into_owned();
        let Some(name) = shown.strip_prefix("--").or_else(|| shown.strip_prefix('-')).filter(|n| !n.is_empty()) else {
            // A bare name is the first hard disk.
            let mut word = OsString::from("--hda=");
            word.push(argument);
            normal.push(word);
            continue;
        };
        let Some(option) = command.get_arguments().find(|a| is_called(a, name)) else {
            return Err(unknown(&command, name));
        };
        let mut word = OsString::from("--");
        word.push(option.get_long().unwrap_or(name));
        if option.get_action().takes_values() {
            let value = arguments.next().ok_or_else(|| StartError::option(name, "requires an argument"))?;
            word.push("=");
            word.push(value);
        }
        normal.push(word);
    }
    Ok(normal)
}

fn is_called(option: &clap::Arg, name: &str) -> bool {
    option.get_long() == Some(name) || option.get_all_aliases().is_some_and(|all| all.contains(&name))
}

fn unknown(command: &Command, name: &str) -> StartError {
    if let Some((_, near)) = NOT_IMPLEMENTED.iter().find(|(n, _)| *n == name) {
        return StartError::option(name, format!("not implemented; nearest is {near}"));
    }
    let known = command.get_arguments().filter(|a| !a.is_hide_set()).filter_map(|a| a.get_long());
    match nearest(name, known) {
        Some(near) => StartError::option(name, format!("invalid option; nearest is -{near}")),
        None => StartError::option(name, "invalid option; -help lists what exists"),
    }
}

impl Options {
    /// Reads a command line without its program name.
    ///
    /// # Errors
    /// As [`normalise`], and values that are not UTF-8 where text is needed.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Options, StartError> {
        let normal = normalise(arguments)?;
        Options::try_parse_from(&normal).map_err(|error| {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            StartError::Other(first.trim_start_matches("error: ").to_string())
        })
    }
}

/// The `-help` text, in the shape that scripts grep: each option begins a line with its single dash.
pub fn help_text(program: &str) -> String {
    let mut text = format!(
        "usage: {program} [options] [disk_image]\n       {program} dev disasm|block|run-case|lockstep|stats [options]\n"
    );
    let mut heading = "";
    let command = Options::command();
    for option in command.get_arguments().filter(|a| !a.is_hide_set()) {
        if let Some(h) = option.get_help_heading().filter(|h| *h != heading) {
            let _ = writeln!(text, "\n{h}:");
            heading = h;
        }
        let mut left = String::new();
        for name in option.get_all_aliases().unwrap_or_default().iter().copied().chain(option.get_long()) {
            let _ = write!(left, "{}-{name}", if left.is_empty() { "" } else { " or " });
        }
        if let Some(value) =
            option.get_value_names().and_then(<[_]>::first).filter(|_| option.get_action().takes_values())
        {
            let _ = write!(left, " {value}");
        }
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        if left.len() < 16 {
            let _ = writeln!(text, "{left:<16}{help}");
        } else {
            let _ = writeln!(text, "{left}\n{:16}{help}", "");
        }
    }
    text + super::display::KEYS_HELP
}

/// The words of the options that take a file name, for tests.
#[cfg(test)]
fn longs() -> Vec<String> {
    Options::command().get_arguments().filter_map(|a| a.get_long().map(str::to_owned)).collect()
}

/// Whether `argument` is the name of a subcommand rather than an option.
pub fn is_subcommand(argument: &OsStr) -> bool {
    argument == "dev" || argument == "img"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Options, StartError> {
        Options::read(words.iter().map(OsString::from))
    }

    #[test]
    fn definition_passes_claps_own_checks() {
        Options::command().debug_assert();
    }

    #[test]
    fn single_and_double_dash_are_the_same_option() {
        for dash in ["-", "--"] {
            let o = read(&[&format!("{dash}m"), "64", &format!("{dash}no-reboot"), &format!("{dash}M"), "pc"]).unwrap();
            assert_eq!((o.m, o.no_reboot, o.machine), (vec!["64".to_string()], true, vec!["pc".to_string()]));
        }
    }

    #[test]
    fn value_that_begins_with_a_dash_is_still_a_value() {
        let o = read(&["-append", "-kernel --x=y", "-S", "-D", "-d"]).unwrap();
        assert_eq!(o.append.as_deref(), Some("-kernel --x=y"));
        assert!(o.paused);
        assert_eq!(o.log_file, Some(PathBuf::from("-d")));
    }

    #[test]
    fn repeated_option_last_one_wins_or_all_are_kept() {
        let o =
            read(&["-nographic", "-nographic", "-append", "a", "-append", "b", "-serial", "null", "-serial", "pty"]);
        let o = o.unwrap();
        assert_eq!(o.append.as_deref(), Some("b"));
        assert_eq!(o.serial, ["null", "pty"]);
    }

    #[test]
    fn unknown_missing_and_unimplemented_are_told_apart() {
        let line = |words: &[&str]| read(words).unwrap_err().line();
        assert_eq!(line(&["-kernal", "x"]), "-kernal: invalid option; nearest is -kernel");
        assert_eq!(line(&["-m"]), "-m: requires an argument");
        assert_eq!(line(&["-gdb", "tcp::1"]), "-gdb: not implemented; nearest is -d");
        assert_eq!(read(&["disk.img"]).unwrap().hda, Some(PathBuf::from("disk.img")));
    }

    #[test]
    fn help_lists_every_option_that_works_and_none_that_does_not() {
        let help = help_text("emu");
        for long in longs() {
            let hidden = long == "enable-kvm";
            assert_eq!(help.contains(&format!("-{long}")) || long == "help", !hidden, "{long}");
        }
        for (name, _) in NOT_IMPLEMENTED {
            assert!(!help.lines().any(|l| l.split(' ').next() == Some(&format!("-{name}"))), "{name}");
            assert!(!longs().iter().any(|l| l == name), "{name}");
        }
    }
}

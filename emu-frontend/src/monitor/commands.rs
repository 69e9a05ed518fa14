//! The table of monitor commands.

use super::arguments::{Arguments, Kind, Parameter, optional, required};
use super::{info, input, media, memory, network};
use crate::cli::firmware::boot_device;
use crate::log::LogItems;
use crate::remote::Remote;
use crate::{exit, log};
use emu_devices::board::firmware::{BootOrder, boot_order_bytes};

/// One command.
pub struct Command {
    /// Its name and aliases.
    pub names: &'static [&'static str],
    /// What it takes.
    pub parameters: &'static [Parameter],
    /// The arguments as `help` shows them.
    pub usage: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Does it; the answer.
    pub run: fn(&Remote, &Arguments) -> String,
}

const fn command(
    names: &'static [&'static str],
    parameters: &'static [Parameter],
    usage: &'static str,
    about: &'static str,
    run: fn(&Remote, &Arguments) -> String,
) -> Command {
    Command { names, parameters, usage, about, run }
}

const FORMAT: Parameter = optional("fmt", Kind::Format);

/// All commands but `help` and `info`, which are about the table itself.
pub const COMMANDS: &[Command] = &[
    command(
        &["balloon"],
        &[required("value", Kind::Number)],
        "target",
        "request VM to change its memory allocation (in MB)",
        memory::balloon,
    ),
    command(
        &["block_set_io_throttle"],
        &[
            required("device", Kind::Device),
            required("bps", Kind::Text),
            required("bps_rd", Kind::Text),
            required("bps_wr", Kind::Text),
            required("iops", Kind::Text),
            required("iops_rd", Kind::Text),
            required("iops_wr", Kind::Text),
        ],
        "device bps bps_rd bps_wr iops iops_rd iops_wr",
        "change I/O throttle limits for a block drive",
        media::set_throttle,
    ),
    command(
        &["boot_set"],
        &[required("bootdevice", Kind::Text)],
        "bootdevice",
        "define new values for the boot device list",
        boot_set,
    ),
    command(
        &["change"],
        &[
            required("device", Kind::Device),
            optional("force", Kind::Flag('f')),
            required("filename", Kind::File),
            optional("format", Kind::Text),
            optional("read-only-mode", Kind::Text),
        ],
        "device [-f] filename [format [read-only-mode]]",
        "change a removable medium, optional format, use -f to force the operation",
        media::change,
    ),
    command(
        &["commit"],
        &[required("device", Kind::Device)],
        "device|all",
        "commit changes to the disk images (if -snapshot is used) or backing files",
        media::commit,
    ),
    command(&["cont", "c"], &[], "", "resume emulation", |m, _| {
        m.cont().map_or_else(|problem| super::error(&problem), |()| String::new())
    }),
    command(
        &["cpu"],
        &[required("index", Kind::Number)],
        "index",
        "set the default CPU",
        |_, arguments| match arguments.number("index") {
            Some(0) => String::new(),
            _ => "invalid CPU index\n".into(),
        },
    ),
    command(
        &["eject"],
        &[optional("force", Kind::Flag('f')), required("device", Kind::Device)],
        "[-f] device",
        "eject a removable medium (use -f to force it)",
        media::eject,
    ),
    command(
        &["gva2gpa"],
        &[required("addr", Kind::Number)],
        "addr",
        "print the guest physical address corresponding to a guest virtual address",
        memory::physical_address,
    ),
    command(
        &["hostfwd_add"],
        &[required("arg1", Kind::Text), optional("arg2", Kind::Text)],
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
        "redirect TCP or UDP connections from host to guest (requires -net user)",
        network::add_forward,
    ),
    command(
        &["hostfwd_remove"],
        &[required("arg1", Kind::Text), optional("arg2", Kind::Text)],
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport",
        "remove host-to-guest TCP or UDP redirection",
        network::remove_forward,
    ),
    command(
        &["i"],
        &[FORMAT, required("addr", Kind::Number), optional("index", Kind::Number)],
        "/fmt addr",
        "I/O port read",
        memory::port_in,
    ),
    command(
        &["log"],
        &[required("items", Kind::Text)],
        "item1[,...]",
        "activate logging of the specified items",
        set_log,
    ),
    command(&["logfile"], &[required("filename", Kind::File)], "filename", "output logs to 'filename'", set_log_file),
    command(
        &["memsave"],
        &[required("val", Kind::Number), required("size", Kind::Number), required("filename", Kind::Text)],
        "addr size file",
        "save to disk virtual memory dump starting at 'addr' of size 'size'",
        memory::save,
    ),
    command(
        &["mouse_button"],
        &[required("state", Kind::Number)],
        "state",
        "change mouse button state (1=L, 2=M, 4=R)",
        input::mouse_button,
    ),
    command(
        &["mouse_move"],
        &[required("dx", Kind::Text), required("dy", Kind::Text), optional("dz", Kind::Text)],
        "dx dy [dz]",
        "send mouse move events",
        input::mouse_move,
    ),
    command(
        &["mouse_set"],
        &[required("index", Kind::Number)],
        "index",
        "set which mouse device receives events",
        input::mouse_set,
    ),
    command(
        &["net_set_io_throttle"],
        &[
            required("device", Kind::Text),
            required("bps", Kind::Number),
            required("bps_rd", Kind::Number),
            required("bps_wr", Kind::Number),
            required("iops", Kind::Number),
            required("iops_rd", Kind::Number),
            required("iops_wr", Kind::Number),
        ],
        "netdev bps bps_rd bps_wr iops iops_rd iops_wr",
        "change the limits of a network card in bytes and frames per second",
        network::set_throttle,
    ),
    command(&["nmi"], &[], "", "inject an NMI", |m, _| {
        m.nmi();
        String::new()
    }),
    command(
        &["o"],
        &[FORMAT, required("addr", Kind::Number), required("val", Kind::Number)],
        "/fmt addr value",
        "I/O port write",
        memory::port_out,
    ),
    command(
        &["pmemsave"],
        &[required("val", Kind::Number), required("size", Kind::Number), required("filename", Kind::Text)],
        "addr size file",
        "save to disk physical memory dump starting at 'addr' of size 'size'",
        memory::save_physical,
    ),
    command(
        &["print", "p"],
        &[FORMAT, required("val", Kind::Number)],
        "/fmt expr",
        "print expression value (use $reg for CPU register access)",
        memory::print,
    ),
    command(&["quit", "q"], &[], "", "quit the emulator", |_, _| exit::request("host-qmp-quit")),
    command(
        &["screendump"],
        &[
            optional("format", Kind::Option('f')),
            required("filename", Kind::File),
            optional("format", Kind::Option('f')),
        ],
        "filename [-f format]",
        "save screen into PPM or PNG image 'filename' (default: by its ending, else PPM)",
        input::screendump,
    ),
    command(
        &["sendkey"],
        &[required("keys", Kind::Text), optional("hold_ms", Kind::Number)],
        "keys [hold_ms]",
        "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)",
        input::send_key,
    ),
    command(
        &["set_link"],
        &[required("name", Kind::Text), required("up", Kind::Text)],
        "name on|off",
        "change the link status of a network adapter",
        network::set_link,
    ),
    command(&["stop", "s"], &[], "", "stop emulation", |m, _| {
        m.stop();
        String::new()
    }),
    command(
        &["sum"],
        &[required("start", Kind::Number), required("size", Kind::Number)],
        "addr size",
        "compute the checksum of a memory region",
        memory::sum,
    ),
    command(&["system_powerdown"], &[], "", "send system power down event", |m, _| {
        m.power_button();
        String::new()
    }),
    command(&["system_reset"], &[], "", "reset the system", |m, _| {
        m.reset().map(|problem| super::error(&problem)).unwrap_or_default()
    }),
    command(
        &["x"],
        &[FORMAT, required("addr", Kind::Number)],
        "/fmt addr",
        "virtual memory dump starting at 'addr'",
        memory::examine,
    ),
    command(
        &["xp"],
        &[FORMAT, required("addr", Kind::Number)],
        "/fmt addr",
        "physical memory dump starting at 'addr'",
        memory::examine_physical,
    ),
];

/// What `info` shows.
pub const INFO: &[Command] = &[
    command(&["balloon"], &[], "", "show balloon information", info::balloon),
    command(
        &["block"],
        &[optional("device", Kind::Device)],
        "[device]",
        "show info of one block device or all block devices",
        media::info,
    ),
    command(&["chardev"], &[], "", "show the character devices", info::chardev),
    command(&["cpus"], &[], "", "show infos for each CPU", info::cpus),
    command(&["irq"], &[], "", "show the interrupts statistics (if available)", info::irq),
    command(&["jit"], &[], "", "show dynamic compiler info", info::jit),
    command(&["kvm"], &[], "", "show KVM information", info::kvm),
    command(&["mem"], &[], "", "show the active virtual memory mappings", info::mem),
    command(&["mice"], &[], "", "show which guest mouse is receiving events", info::mice),
    command(&["mtree"], &[], "", "show memory tree", info::mtree),
    command(&["name"], &[], "", "show the current VM name", info::name),
    command(&["network"], &[], "", "show the network state", network::info),
    command(&["pci"], &[], "", "show PCI info", info::pci),
    command(&["pic"], &[], "", "show PIC state", info::pic),
    command(
        &["registers"],
        &[optional("all", Kind::Flag('a'))],
        "[-a]",
        "show the cpu registers (-a: of all cpus)",
        info::registers,
    ),
    command(&["status"], &[], "", "show the current VM status (running|paused)", info::status),
    command(&["tlb"], &[], "", "show virtual to physical memory mappings", info::tlb),
    command(&["usernet"], &[], "", "show user network stack connection states", network::info_user),
    command(&["uuid"], &[], "", "show the current VM UUID", info::uuid),
    command(&["version"], &[], "", "show the version of emu", info::version),
];

/// The boot devices from now on; a reset after `-boot once=` goes back to those of the command line.
fn boot_set(machine: &Remote, arguments: &Arguments) -> String {
    let letters = arguments.text("bootdevice").unwrap_or_default();
    let mut order = BootOrder::default();
    for (place, letter) in letters.chars().enumerate() {
        let Some(device) = boot_device(letter) else { return format!("Invalid boot device '{letter}'\n") };
        if letters.chars().take(place).any(|other| other == letter) {
            return format!("Boot device '{letter}' was given twice\n");
        }
        let Some(slot) = order.get_mut(place) else { return "Too many boot devices for PC\n".into() };
        *slot = device;
    }
    for (index, value) in boot_order_bytes(order) {
        machine.cmos.set_byte(index, value);
    }
    format!("boot device list now set to {letters}\n")
}

fn set_log_file(_: &Remote, arguments: &Arguments) -> String {
    let name = arguments.text("filename").unwrap_or_default();
    match log::set_file(std::path::Path::new(name)) {
        Ok(()) => String::new(),
        Err(e) => super::error(&format!("Error opening logfile {name}: {}", super::reason(&e))),
    }
}

fn set_log(_: &Remote, arguments: &Arguments) -> String {
    let items = arguments.text("items").unwrap_or_default();
    let parsed = match items {
        "none" => Ok(LogItems::default()),
        _ => LogItems::parse(&[items.to_string()]),
    };
    match parsed {
        Ok(items) => {
            log::set(items);
            // Who switches items wants to read the file.
            log::flush();
            String::new()
        }
        Err(_) => LogItems::help(),
    }
}

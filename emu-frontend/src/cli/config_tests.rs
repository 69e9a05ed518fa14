use super::*;

fn configure_words(words: &[&str]) -> Result<Outcome, String> {
    let options = Options::read(words.iter().map(Into::into)).map_err(|e| e.line())?;
    configure("emu", &options, false).map_err(|e| e.line())
}

fn config(words: &[&str]) -> Config {
    let words: Vec<&str> = ["-kernel", "k"].iter().chain(words).copied().collect();
    match configure_words(&words) {
        Ok(Outcome::Run(config)) => *config,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn error(words: &[&str]) -> String {
    let words: Vec<&str> = ["-kernel", "k"].iter().chain(words).copied().collect();
    match configure_words(&words) {
        Err(line) => line,
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn nographic_shares_the_terminal_between_serial_and_monitor() {
    let c = config(&["-nographic"]);
    assert_eq!(c.chardevs["serial0"].spec, CharSpec::shared_stdio());
    assert_eq!(c.serial[0].as_deref(), Some("serial0"));
    assert_eq!(c.monitors, [Monitor::human("serial0")]);
}

#[test]
fn nographic_gives_the_terminal_to_what_is_not_elsewhere() {
    let c = config(&["-nographic", "-serial", "null"]);
    assert_eq!(c.chardevs["compat_monitor0"].spec.kind, CharKind::Stdio { signal: true });
    let c = config(&["-nographic", "-monitor", "none"]);
    assert_eq!(c.chardevs["serial0"].spec.kind, CharKind::Stdio { signal: true });
    assert!(c.monitors.is_empty());
    let c = config(&["-nographic", "-serial", "mon:stdio", "-parallel", "none"]);
    assert_eq!((c.chardevs.len(), c.monitors.len()), (1, 1));
    let c = config(&["-nographic", "-nodefaults"]);
    assert!(c.chardevs.is_empty());
}

#[test]
fn stdio_used_twice_is_refused() {
    assert!(error(&["-nographic", "-serial", "stdio"]).contains("only one character device can use stdio"));
    assert!(error(&["-serial", "stdio", "-monitor", "stdio"]).contains("stdio"));
    assert!(error(&["-daemonize", "-nographic"]).starts_with("-daemonize: "));
    assert!(error(&["-daemonize", "-serial", "stdio"]).starts_with("-daemonize: "));
}

#[test]
fn four_serial_ports_keep_their_places_and_a_fifth_is_refused() {
    let c = config(&["-serial", "null", "-serial", "none", "-serial", "pty"]);
    assert_eq!(c.serial, [Some("serial0".into()), None, Some("serial2".into()), None]);
    let five: Vec<&str> = ["-serial", "null"].repeat(5);
    assert_eq!(error(&five), "-serial null: a PC has 4 serial ports");
}

#[test]
fn chardev_ids_are_resolved_and_sharing_needs_mux() {
    let c = config(&["-chardev", "stdio,id=c,mux=on", "-serial", "chardev:c", "-mon", "chardev=c"]);
    assert_eq!((c.serial[0].as_deref(), c.monitors.as_slice()), (Some("c"), &[Monitor::human("c")][..]));
    let line = error(&["-chardev", "null,id=con", "-serial", "chardev:com"]);
    assert_eq!(line, "-serial chardev:com: no -chardev has the id 'com'; nearest is 'con'");
    let line = error(&["-chardev", "null,id=c", "-serial", "chardev:c", "-serial", "chardev:c"]);
    assert!(line.contains("'c' is in use"), "{line}");
    assert!(error(&["-chardev", "null,id=c", "-chardev", "null,id=c"]).contains("duplicate"));
}

#[test]
fn debugcon_and_devices_reach_the_configuration() {
    let c = config(&["-debugcon", "file:/x", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    assert_eq!(c.devices.debugcons, [devices::Debugcon::at_default_port(Some("debugcon".into()))]);
    assert_eq!(c.devices.debug_exits.len(), 1);
    let c = config(&["-chardev", "null,id=d", "-device", "isa-debugcon,iobase=0x402,chardev=d"]);
    assert_eq!(c.devices.debugcons[0].chardev.as_deref(), Some("d"));
}

#[test]
fn orphaned_boot_options_are_refused_and_a_kernel_goes_with_firmware() {
    assert!(configure_words(&["-bios", "a", "-kernel", "b"]).is_ok());
    assert_eq!(configure_words(&["-append", "x"]).unwrap_err(), "-append: only goes with -kernel");
    assert_eq!(configure_words(&["-initrd", "x"]).unwrap_err(), "-initrd: only goes with -kernel");
    let c = configure_words(&["-machine", "pc,kernel=k,append=a b"]);
    assert!(matches!(c, Ok(Outcome::Run(c)) if c.boot.append == "a b"));
}

#[test]
fn hardware_that_is_absent_is_refused_by_name() {
    assert_eq!(error(&["-display", "vnc"]), "-display vnc: not implemented; implemented: none, curses, window");
    assert_eq!(error(&["-vga", "cirrus"]), "-vga cirrus: not implemented; implemented: std, none");
    assert!(error(&["-vga", "std", "-device", "VGA"]).starts_with("-vga std: "));
    assert!(error(&["-netdev", "vde,id=n"]).starts_with("-netdev vde,id=n: 'vde' is not a network back end here"));
    config(&["-display", "none", "-vga", "none", "-nic", "none", "-net", "none", "-parallel", "none"]);
}

#[test]
fn cards_of_nic_and_net_are_devices_with_back_ends() {
    let both = config(&["-nic", "user,model=ne2k_pci,mac=52:54:00:00:00:07", "-nic", "user,model=ne2k_isa,id=x"]);
    assert_eq!(both.nets.devices, ["ne2k_pci,netdev=#net000,mac=52:54:00:00:00:07", "ne2k_isa,netdev=x"]);
    assert_eq!(both.devices.cards.len(), 2);
    // A hub with one card and one back end is a cable.
    let pair = config(&["-net", "nic,model=ne2k_pci", "-net", "user"]);
    assert_eq!((pair.nets.netdevs.len(), pair.nets.devices), (1, vec!["ne2k_pci,netdev=#net000".to_string()]));
    let hub = config(&["-net", "nic,model=ne2k_pci", "-net", "nic,model=ne2k_pci", "-net", "user"]);
    assert_eq!((hub.nets.netdevs.len(), hub.devices.cards.len()), (4, 2));
    assert!(config(&["-nic", "none"]).devices.cards.is_empty() && config(&["-net", "none"]).devices.cards.is_empty());
    assert!(error(&["-nic", "user,model=ne2k_pci,mac=1"]).starts_with("-nic user,model=ne2k_pci,mac=1: 'mac=1'"));
}

#[test]
fn card_on_a_user_network_is_there_unless_network_options_say_otherwise() {
    for present in [&[][..], &["-nographic"], &["-device", "virtio-rng-pci"]] {
        assert_eq!(config(present).nets.devices, ["e1000,netdev=#net000"], "{present:?}");
    }
    for absent in [&["-nodefaults"][..], &["-nic", "none"], &["-net", "none"], &["-netdev", "user,id=n"]] {
        assert!(config(absent).devices.cards.is_empty(), "{absent:?}");
    }
    // A card of one's own without a back end says nothing of networks: as in QEMU, there are two then.
    assert_eq!(config(&["-device", "ne2k_pci"]).devices.cards.len(), 2);
}

#[test]
fn printer_port_is_there_unless_options_take_it_away() {
    for present in [&[][..], &["-nographic"], &["-parallel", "null"], &["-nodefaults", "-parallel", "null"]] {
        assert_eq!(config(present).parallel.as_deref(), Some("parallel0"), "{present:?}");
    }
    assert_eq!(config(&["-chardev", "null,id=p", "-parallel", "chardev:p"]).parallel.as_deref(), Some("p"));
    for absent in [&["-parallel", "none"][..], &["-nodefaults"], &["-nodefaults", "-parallel", "none"]] {
        assert_eq!(config(absent).parallel, None, "{absent:?}");
    }
}

#[test]
fn graphics_card_is_there_unless_options_take_it_away() {
    assert!(config(&[]).vga && config(&["-vga", "std", "-nodefaults"]).vga && config(&["-nographic"]).vga);
    assert!(!config(&["-vga", "none"]).vga && !config(&["-nodefaults"]).vga);
    assert!(config(&["-nodefaults", "-device", "VGA"]).vga);
}

#[test]
fn help_values_print_lists_before_anything_else_is_checked() {
    for words in [
        ["-machine", "help"],
        ["-cpu", "help"],
        ["-accel", "help"],
        ["-device", "help"],
        ["-device", "isa-debug-exit,help"],
        ["-netdev", "help"],
        ["-nic", "model=help"],
        ["-net", "nic,model=help"],
        ["-chardev", "help"],
        ["-display", "help"],
        ["-vga", "help"],
        ["-d", "help"],
    ] {
        assert!(matches!(configure_words(&words), Ok(Outcome::Print(_))), "{words:?}");
    }
    assert!(configure_words(&["-device", "foo,help"]).is_err());
}

#[test]
fn names_and_escape_character_are_read() {
    let c = config(&["-name", "guest1,process=emu1,debug-threads=on", "-echr", "0x14"]);
    assert_eq!(c.guest_name.as_deref(), Some("guest1"));
    assert_eq!(c.process_name.as_deref(), Some("emu1"));
    assert_eq!(c.escape, Some(0x14));
    assert_eq!(config(&[]).escape, Some(1));
    assert_eq!(config(&["-echr", "0"]).escape, None);
    assert!(error(&["-echr", "x"]).starts_with("-echr x: "));
}

#[test]
fn silent_machine_is_warned_about() {
    assert_eq!(config(&["-vga", "none"]).warnings.len(), 1);
    assert!(config(&["-nographic"]).warnings.is_empty());
    assert_eq!(config(&["-nographic", "-global", "a.b=c"]).warnings.len(), 1);
}

#[test]
fn qmp_and_mon_lead_to_monitors_for_programs() {
    let c =
        config(&["-qmp", "tcp:localhost:1,server,nowait", "-chardev", "null,id=c", "-mon", "c,mode=control,pretty=on"]);
    let control = |chardev: &str, pretty| Monitor { chardev: chardev.into(), mode: MonitorMode::Control { pretty } };
    assert_eq!(c.monitors, [control("compat_monitor0", false), control("c", true)]);
}

#[test]
fn boot_indexes_become_device_paths_that_firmware_tries_first() {
    let order = |words: &[&str]| {
        let none = ["-nic", "none", "-drive", "if=none,id=a,file=a", "-drive", "if=none,id=b,file=b"];
        let firmware = config(&[&none, words].concat()).boot.firmware;
        let found = firmware.files.into_iter().find(|(name, _)| name == "bootorder");
        found.map(|(_, order)| String::from_utf8(order).unwrap())
    };
    assert_eq!(order(&["-device", "ide-hd,drive=a", "-device", "virtio-blk-pci,drive=b,bootindex=-1"]), None);
    let all = [
        &["-device", "virtio-rng-pci", "-device", "virtio-blk-pci,drive=a,bootindex=7"][..],
        &["-device", "ne2k_isa", "-device", "ne2k_pci,bootindex=1", "-device", "virtio-net-pci,addr=0x1f,bootindex=2"],
        &["-device", "e1000,addr=4,bootindex=12", "-device", "ide-cd,bus=ide.1,unit=1,bootindex=0"],
        &["-device", "ide-hd,drive=b,bootindex=3", "-boot", "strict=on"],
    ];
    let taken = error(&[&["-nic", "none", "-drive", "if=none,id=a,file=a"], &all[..3].concat()[..]].concat());
    assert_eq!(taken, "-device e1000,addr=4,bootindex=12: there is no free PCI slot 0x4");
    let all =
        all.concat().into_iter().map(|word| if word.contains("addr=4") { "e1000,addr=c,bootindex=12" } else { word });
    let expected = [
        "/pci@i0cf8/ide@1,1/drive@1/disk@1",
        "/pci@i0cf8/ethernet@5/ethernet-phy@0",
        "/pci@i0cf8/ethernet@1f/ethernet-phy@0",
        "/pci@i0cf8/ide@1,1/drive@1/disk@0",
        "/pci@i0cf8/scsi@4/disk@0,0",
        "/pci@i0cf8/ethernet@c/ethernet-phy@0",
        "HALT\0",
    ];
    assert_eq!(order(&all.collect::<Vec<_>>()).unwrap(), expected.join("\n"));
}

//! The parts list of a PC: the `pc` machine of QEMU, an i440FX with PIIX3 and PIIX4 power management.
//!
//! ```text
//!  8254 --+                 +-> 8259 pair --INTR--> LINT0 \
//!  RTC  --+-> HPET's gate --+                              local APIC --> vCPU
//!  COM, keyboard, SCI, PIRQ-+-> I/O APIC  --messages-----> /
//!         16 wired-OR ISA lines; IRQ0 is input 2 of the I/O APIC
//! ```
//! Devices poll in the order in which they are plugged in. A processor model without APIC gets the 8259 pair's INTR
//! directly, and no I/O APIC. Deliberately absent, for now: USB.

use super::acpi::{AcpiConfig, AcpiTables, LoaderFiles};
use super::boot_state::{BootState, firmware_mtrrs};
use super::expansion::{self, Card, Expansion, SlotError};
use super::firmware::FirmwareConfig;
use super::fw_cfg::FwCfg;
use super::kernel::{Kernel, KernelError, KernelOptions};
use super::machine::{Machine, MachineOptions};
use super::memory_map::FIRMWARE_TABLES;
use super::mp;
use super::post::{self, HOST_BRIDGE, IDE, ISA_BRIDGE, POWER_MANAGEMENT, SERIAL_PORTS, VGA};
use super::rom::Rom;
use super::smbios::{SmbiosMachine, SmbiosTables};
use super::text_mode;
use crate::audio::sb16::{self, IRQS, Sb16, Sb16Config};
use crate::audio::{AudioBackend, Mixer, Voice};
use crate::char::CharBackend;
use crate::char::debug_exit::DebugExit;
use crate::char::debugcon::Debugcon;
use crate::char::parallel::{self, Parallel};
use crate::char::uart16550::Uart16550;
use crate::coprocessor::Coprocessor;
use crate::dma::i8237::Dma;
use crate::input::InputQueue;
use crate::input::i8042::I8042;
use crate::intc::ioapic::{self, IoApic, IoApicCore};
use crate::intc::lapic::{self, Lapic, LapicCore, LapicFeatures};
use crate::intc::pic::{Pic, PicPair};
use crate::intc::wired_or::WiredOr;
use crate::pc_testdev::{self, PcTestdev};
use crate::pci::PciBus;
use crate::pci::host_i440fx::HostBridge;
use crate::pci::piix3::{Piix3, Piix3Core};
use crate::pci::piix4::{FrontPanel, Piix4Pm};
use crate::port92::Port92;
use crate::rtc::{CmosLayout, CmosPatch, Rtc, StartTime};
use crate::storage::block::{Disk, Media};
use crate::storage::fdc::{Drive, Fdc};
use crate::storage::ide::{DriveConfig, Geometry, Ide, Kind};
use crate::timer::hpet::{self, Hpet, HpetLines};
use crate::timer::pit::Pit;
use crate::video::vga::{self, Vga};
use crate::video::{Display, VgaConfig};
use crate::virtio::balloon::BalloonControl;
use emu_core::bus::Bus;
use emu_core::clock::{Clock, ClockMode};
use emu_core::cpu::cpuid;
use emu_core::cpu::features::{Feature, Word};
use emu_core::cpu::model::CpuModel;
use emu_core::device::{Device, Region, Space, ports};
use emu_core::exec::Vcpu;
use emu_core::irq::{CpuPins, IrqInput, IrqLine, MsiSink};
use emu_core::mem::GuestMemory;
use std::sync::Arc;
use thiserror::Error;

/// Serial ports of a PC.
pub const SERIALS: usize = 4;
/// The least RAM that a PC can have: the low megabyte.
pub const MIN_RAM: u64 = 1 << 20;
/// The largest system BIOS that is taken for one of before PCI, as Bochs' `BIOS-bochs-legacy` is: it finds the VGA BIOS where cards for the ISA bus
/// have theirs.
const ISA_FIRMWARE: u64 = 64 << 10;
const SERIAL_IRQS: [usize; SERIALS] = [4, 3, 4, 3];

/// Why a PC cannot be built or started.
#[derive(Debug, Error)]
pub enum PcError {
    /// Too little RAM.
    #[error("a PC needs at least {MIN_RAM} bytes of RAM; {0} were asked for")]
    TooLittleRam(u64),
    /// The host has not got it.
    #[error("the host refuses {size} bytes of guest RAM: {source}")]
    Ram {
        /// Bytes asked for.
        size: u64,
        /// What the host says.
        source: std::io::Error,
    },
    /// The kernel cannot be booted.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Expansion cards do not fit.
    #[error(transparent)]
    Slot(#[from] SlotError),
}

/// What starts after a reset.
#[derive(Clone, Debug)]
pub enum PcBoot {
    /// A kernel, in the state that firmware would leave behind.
    Kernel(Box<Kernel>, KernelOptions),
    /// Firmware, from the reset vector.
    Firmware {
        /// Its image.
        rom: Rom,
        /// The kernel that it is to boot: what fw_cfg offers to an option ROM among `PcConfig::firmware`'s files.
        kernel: Option<(Box<Kernel>, KernelOptions)>,
    },
    /// The reset vector without a ROM: tests that bring their own code.
    ResetVector,
}

/// What makes sound, and where it goes.
#[derive(Default)]
pub struct AudioConfig {
    /// Back ends; `None`: nobody hears it.
    pub backends: Vec<Option<Box<dyn AudioBackend>>>,
    /// The back end of the speaker, by its number.
    pub speaker: Option<usize>,
    /// A Sound Blaster 16 and its back end.
    pub sb16: Option<(Sb16Config, Option<usize>)>,
}

/// What a PC is built from.
pub struct PcConfig {
    /// Bytes of RAM.
    pub ram: u64,
    /// The processor.
    pub model: Arc<CpuModel>,
    /// How virtual time advances.
    pub clock: ClockMode,
    /// What the real-time clock shows at power-on.
    pub date: StartTime,
    /// What is behind COM1 to COM4; `None`: no such port.
    pub serials: [Option<Box<dyn CharBackend>>; SERIALS],
    /// The printer on LPT1; `None`: no such port.
    pub parallel: Option<Box<dyn CharBackend>>,
    /// The debug console's port and what is behind it.
    pub debugcon: Option<(u16, Box<dyn CharBackend>)>,
    /// The ports of the debug exit.
    pub debug_exit: Option<Region>,
    /// Whether the test device of kvm-unit-tests is there.
    pub testdev: bool,
    /// The graphics card, if there is one.
    pub vga: Option<VgaConfig>,
    /// Sound.
    pub audio: AudioConfig,
    /// The drives on the IDE channels: 0 and 1 on the first, 2 and 3 on the second.
    pub ide: [Option<DriveConfig>; 4],
    /// The diskette drives.
    pub floppies: [Option<Disk>; 2],
    /// The cards in its slots.
    pub expansion: Vec<Expansion>,
    /// What starts.
    pub boot: PcBoot,
    /// What firmware is told.
    pub firmware: FirmwareConfig,
    /// How the machine reacts to its guest.
    pub options: MachineOptions,
}

/// A PC that is switched off, and its front.
pub struct Pc {
    /// The machine.
    pub machine: Machine<Vcpu, PcError>,
    /// Power button.
    pub front_panel: FrontPanel,
    /// The NMI button: a rise.
    pub nmi: IrqLine,
    /// What the user of keyboard and mouse does.
    pub input: InputQueue,
    /// Where PCI functions plug in.
    pub pci: PciBus,
    /// Their interrupts.
    pub intx: Arc<Piix3Core>,
    /// What the graphics card shows, if there is one.
    pub display: Option<Arc<dyn Display>>,
    /// The drives, for the user to change their media.
    pub media: Vec<Media>,
    /// The interrupt controllers, for monitors.
    pub controllers: Controllers,
    /// By which the user sets CMOS RAM.
    pub cmos: CmosPatch,
    /// The memory balloon, if there is one.
    pub balloon: Option<BalloonControl>,
}

/// The interrupt controllers as monitors read them.
#[derive(Clone)]
pub struct Controllers {
    /// The 8259 pair.
    pub pic: Arc<PicPair>,
    /// `None` with a processor model without APIC.
    pub ioapic: Option<Arc<IoApicCore>>,
}

/// The interrupt wiring.
struct Interrupts {
    isa: [Arc<WiredOr>; 16],
    /// I/O APIC inputs, without the ISA lines.
    inputs: Vec<IrqLine>,
    nmi: IrqLine,
    /// Where message-signalled interrupts go; `None` with a processor model without APIC.
    messages: Option<Arc<dyn MsiSink>>,
    controllers: Controllers,
}

impl Pc {
    /// Builds a PC.
    ///
    /// # Errors
    /// The amount of RAM is impossible.
    pub fn new(config: PcConfig) -> Result<Pc, PcError> {
        let model = config.model;
        if config.ram < MIN_RAM {
            return Err(PcError::TooLittleRam(config.ram));
        }
        let rom = match &config.boot {
            PcBoot::Firmware { rom, .. } => Some(rom),
            PcBoot::Kernel(..) | PcBoot::ResetVector => None,
        };
        let knows_no_pci = rom.is_some_and(|rom| rom.size() <= ISA_FIRMWARE);
        let video = config.vga.as_ref().map_or(0, vga::extra_memory);
        let cards: u64 = config.expansion.iter().map(|expansion| Card::extra_memory(&expansion.card)).sum();
        let extra = video + cards + rom.map_or(0, Rom::size);
        let memory = GuestMemory::new(config.ram, extra).map_err(|source| PcError::Ram { size: config.ram, source })?;
        if let Some(rom) = rom {
            let mapped = rom.map(&memory);
            debug_assert!(mapped, "memory was made with room for the ROM");
        }
        let pins = Arc::new(CpuPins::default());
        let bus = Arc::new(Bus::new(Arc::new(memory), pins, Clock::new(config.clock)));
        let interrupts = Interrupts::build(&bus, &model);
        let isa = |irq: usize| interrupts.isa[irq].source();

        let gate = Hpet::new(HpetLines { irq0: isa(0), irq8: isa(8), inputs: interrupts.inputs.clone() });
        let gate_core = gate.core();
        let gated = |pin| IrqLine::new(vec![(gate_core.clone() as Arc<dyn IrqInput>, pin)]);
        let mixers: Vec<Option<Mixer>> =
            config.audio.backends.into_iter().map(|backend| backend.map(Mixer::new)).collect();
        let voice = |number: Option<usize>| {
            let mixer = number.and_then(|n| mixers.get(n)).and_then(Option::as_ref);
            mixer.map_or_else(Voice::unconnected, Mixer::voice)
        };
        let mut pit = Pit::new(gated(hpet::pin::PIT));
        pit.connect_speaker(voice(config.audio.speaker));
        bus.attach(Box::new(pit));
        attach_at(&bus, gate, Space::Memory, hpet::REGION);
        let dma = Dma::default();
        let mut media: Vec<Media> = config.floppies.iter().flatten().map(Disk::media).collect();
        let fdc = Fdc::new(isa(6), dma.channel(2), config.floppies.map(|disk| disk.map(Drive::new)));
        let mut rtc = Rtc::new(gated(hpet::pin::RTC), config.date);
        let present = std::array::from_fn(|i| config.serials[i].is_some());
        let acpi = AcpiConfig {
            low_ram: bus.memory().low_ram(),
            serials: present,
            parallel: config.parallel.is_some(),
            i8042: true,
            apic: model.supports(Feature::Apic),
            vga: config.vga.is_some(),
            floppies: fdc.drive_types(),
        };
        rtc.set_layout(&CmosLayout {
            low_ram: bus.memory().low_ram(),
            high_ram: bus.memory().high_ram(),
            cpus: 1,
            fpu: model.supports(Feature::Fpu),
            mouse: true,
            floppies: acpi.floppies,
            disks: std::array::from_fn(|unit| match config.ide.get(unit) {
                Some(Some(DriveConfig { kind: Kind::Disk, disk, .. })) => Some(Geometry::of(disk.sectors())),
                _ => None,
            }),
            boot_order: config.firmware.first_order(),
        });
        let cmos = rtc.patch();
        bus.attach(Box::new(rtc));
        let input = InputQueue::new();
        bus.attach(Box::new(I8042::new(isa(1), isa(12), input.clone())));
        bus.attach(Box::new(Port92::default()));
        let coprocessor = Coprocessor::new(isa(13));
        let ferr = coprocessor.ferr();
        bus.attach(Box::new(coprocessor));
        let mut fw_cfg = fw_cfg(bus.memory(), &acpi, &model, &config.firmware);
        if let PcBoot::Firmware { kernel: Some((kernel, options)), .. } = &config.boot {
            kernel.offer(bus.memory().low_ram(), options, &mut fw_cfg)?;
        }
        bus.attach(Box::new(fw_cfg));
        let channels = std::array::from_fn(|channel| dma.channel(channel as u8));
        bus.attach(Box::new(dma));
        if let Some((card, number)) = config.audio.sb16 {
            // IRQ 2 of an ISA slot arrives at IRQ 9.
            let lines = IRQS.map(|irq| isa(if irq == 2 { 9 } else { irq.into() }));
            let id = bus.attach(Box::new(Sb16::new(card, lines, channels, voice(number))));
            bus.map(id, Space::Port, ports(card.base, sb16::PORTS), 0);
            bus.map(id, Space::Port, ports(sb16::MPU_BASE, 2), sb16::MPU_TAG);
        }
        for mixer in mixers.into_iter().flatten() {
            bus.attach(Box::new(mixer));
        }
        bus.attach(Box::new(fdc));
        for (i, backend) in config.serials.into_iter().enumerate() {
            if let Some(backend) = backend {
                attach_at(&bus, Uart16550::new(isa(SERIAL_IRQS[i]), backend), Space::Port, ports(SERIAL_PORTS[i], 8));
            }
        }
        if let Some(printer) = config.parallel {
            attach_at(&bus, Parallel::new(isa(7), printer), Space::Port, parallel::LPT1);
        }
        if let Some((port, backend)) = config.debugcon {
            attach_at(&bus, Debugcon::new(backend), Space::Port, ports(port, 1));
        }
        if let Some(region) = config.debug_exit {
            attach_at(&bus, DebugExit, Space::Port, region);
        }
        if config.testdev {
            let id = bus.attach(Box::new(PcTestdev::new((0..16).map(isa).collect())));
            bus.map(id, Space::Memory, pc_testdev::MEMORY, pc_testdev::MEMORY_TAG);
        }

        let pci = PciBus::new();
        pci.plug_bridge(&bus, HOST_BRIDGE, HostBridge::new(pci.clone()));
        let piix3 = Piix3::new(std::array::from_fn(isa));
        let intx = piix3.core();
        pci.plug(&bus, ISA_BRIDGE, piix3);

        let mut ide = Ide::new([isa(14), isa(15)]);
        for (unit, drive) in config.ide.into_iter().enumerate() {
            if let Some(drive) = drive {
                media.push(drive.disk.media());
                ide.connect(unit, drive);
            }
        }
        pci.plug(&bus, IDE, ide);
        let pm = Piix4Pm::new(isa(9), isa(9));
        let front_panel = pm.front_panel();
        pci.plug(&bus, POWER_MANAGEMENT, pm);
        let display = config.vga.as_ref().map(|vga| plug_vga(&bus, &pci, vga, knows_no_pci));
        let balloon = config.expansion.iter().find_map(|expansion| expansion.card.balloon());
        media.extend(config.expansion.iter().filter_map(|expansion| expansion.card.media()));
        expansion::plug(config.expansion, &bus, &pci, &intx, isa, interrupts.messages.as_ref())?;

        let mut vcpu = Vcpu::new(model.clone(), bus.clone());
        vcpu.ferr = ferr;
        let boot = boot(config.boot, config.firmware, model, acpi, config.vga, pci.clone());
        let machine = Machine::new(bus, vcpu, boot, config.options);
        let controllers = interrupts.controllers;
        Ok(Pc {
            machine,
            front_panel,
            nmi: interrupts.nmi,
            input,
            pci,
            intx,
            display,
            media,
            controllers,
            cmos,
            balloon,
        })
    }
}

impl Interrupts {
    /// Plugs the interrupt controllers in and connects them.
    fn build(bus: &Bus, model: &CpuModel) -> Interrupts {
        let pins = bus.pins().clone();
        if !model.supports(Feature::Apic) {
            let pic = Pic::new(IrqLine::new(vec![(pins.clone(), CpuPins::INTR)]));
            let pair = pic.pair();
            bus.set_interrupt_source(pair.clone());
            bus.attach(Box::new(pic));
            let isa = std::array::from_fn(|irq| WiredOr::new(IrqLine::new(vec![(pair.clone(), irq as u32)])));
            let nmi = IrqLine::new(vec![(pins, CpuPins::NMI)]);
            let controllers = Controllers { pic: pair, ioapic: None };
            return Interrupts {
                isa,
                inputs: vec![IrqLine::unconnected(); ioapic::PINS],
                nmi,
                messages: None,
                controllers,
            };
        }
        let features = LapicFeatures {
            x2apic: model.supports(Feature::X2apic),
            tsc_deadline: model.supports(Feature::TscDeadline),
        };
        let lapic = Lapic::new(0, pins, features);
        let local: Arc<LapicCore> = lapic.core();
        let ioapic = IoApic::new(local.clone());
        let io: Arc<IoApicCore> = ioapic.core();
        let pic = Pic::new(IrqLine::new(vec![(local.clone(), lapic::pin::LINT0)]));
        let pair = pic.pair();
        local.connect_pic(pair.clone());
        local.connect_eoi(io.clone());
        bus.set_interrupt_source(local.clone());
        bus.attach(Box::new(pic));
        bus.attach(Box::new(lapic));
        attach_at(bus, ioapic, Space::Memory, ioapic::REGION);

        // Every I/O APIC input has two sources: an ISA line and the HPET.
        let gates: Vec<Arc<WiredOr>> =
            (0..ioapic::PINS as u32).map(|pin| WiredOr::new(IrqLine::new(vec![(io.clone(), pin)]))).collect();
        let isa = std::array::from_fn(|irq| {
            let input = gates[if irq == 0 { 2 } else { irq }].input();
            WiredOr::new(IrqLine::new(vec![(pair.clone(), irq as u32), input]))
        });
        let inputs = gates.iter().map(|gate| gate.source()).collect();
        let controllers = Controllers { pic: pair, ioapic: Some(io) };
        let messages: Option<Arc<dyn MsiSink>> = Some(local.clone());
        Interrupts { isa, inputs, nmi: IrqLine::new(vec![(local, lapic::pin::LINT1)]), messages, controllers }
    }
}

/// What firmware is told.
fn fw_cfg(memory: &GuestMemory, acpi: &AcpiConfig, model: &CpuModel, firmware: &FirmwareConfig) -> FwCfg {
    let mut device = FwCfg::new(memory.ram_size(), 1);
    device.describe_memory(memory.low_ram(), memory.high_ram());
    for (name, contents) in LoaderFiles::build(acpi).0 {
        device.add_file(name, contents);
    }
    let smbios = SmbiosTables::for_firmware(&firmware.smbios, &smbios_machine(memory, model));
    device.add_file("etc/smbios/smbios-anchor", smbios.anchor);
    device.add_file("etc/smbios/smbios-tables", smbios.tables);
    firmware.describe(&mut device);
    device
}

fn smbios_machine(memory: &GuestMemory, model: &CpuModel) -> SmbiosMachine {
    let processor_id = [cpuid::signature(model), model.word(Word::L1Edx)];
    SmbiosMachine { low_ram: memory.low_ram(), high_ram: memory.high_ram(), processor_id }
}

/// What the machine does after each reset.
fn boot(
    boot: PcBoot,
    firmware: FirmwareConfig,
    model: Arc<CpuModel>,
    acpi: AcpiConfig,
    vga: Option<VgaConfig>,
    pci: PciBus,
) -> Box<dyn super::machine::Boot<PcError>> {
    let long_mode = model.supports(Feature::Lm);
    let kernel = match boot {
        PcBoot::Kernel(kernel, options) => Some((kernel, options)),
        PcBoot::Firmware { .. } | PcBoot::ResetVector => None,
    };
    let mut powered_on = false;
    let mut once = firmware.once.is_some();
    Box::new(move |bus: &Bus| -> Result<Option<BootState>, PcError> {
        if powered_on && std::mem::take(&mut once) {
            firmware.restore_order(bus);
        }
        powered_on = true;
        let Some((kernel, options)) = &kernel else { return Ok(None) };
        post::initialise(bus, acpi.serials, acpi.parallel);
        if let Some(vga) = &vga {
            text_mode::initialise(bus, vga.memory, &vga.font);
        }
        expansion::assign(bus, &pci);
        let memory = bus.memory();
        let machine = smbios_machine(memory, &model);
        SmbiosTables::place(&firmware.smbios, &machine, memory);
        if acpi.apic {
            mp::place(memory, machine.processor_id);
        }
        memory.write(FIRMWARE_TABLES, &AcpiTables::build(&acpi, FIRMWARE_TABLES as u32).image);
        let mut state = kernel.load(memory, options, FIRMWARE_TABLES, long_mode, vga.is_some())?;
        state.msrs = firmware_mtrrs(model.physical_bits());
        Ok(Some(state))
    })
}

/// Plugs the graphics card in, for firmware that knows no more than the ISA bus if `isa`; what it shows.
fn plug_vga(bus: &Bus, pci: &PciBus, config: &VgaConfig, isa: bool) -> Arc<dyn Display> {
    let card = Vga::new(config, bus.memory().clone(), bus.pins().clone());
    if isa {
        card.show_rom_at_c0000(config);
    }
    let display = card.display();
    let id = pci.plug(bus, VGA, card);
    bus.map(id, Space::Memory, vga::WINDOW, vga::WINDOW_TAG);
    display
}

fn attach_at(bus: &Bus, device: impl Device + 'static, space: Space, region: Region) {
    let id = bus.attach(Box::new(device));
    bus.map(id, space, region, 0);
}

#[cfg(test)]
mod tests;

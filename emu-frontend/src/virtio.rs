//! From the virtio devices of a configuration to those of the board: drives, character devices and entropy opened and plugged in.

use crate::char::Characters;
use crate::cli::cards::CardSpec;
use crate::cli::config::Config;
use crate::cli::error::StartError;
use crate::cli::objects::Entropy;
use crate::cli::virtio::{PortSpec, VirtioKind, VirtioSpec};
use crate::entropy;
use emu_devices::char::{CharBackend, NullBackend};
use emu_devices::net::NicConfig;
use emu_devices::storage::block::Disk;
use emu_devices::virtio::balloon::Balloon;
use emu_devices::virtio::block::Block;
use emu_devices::virtio::console::{Console, Port};
use emu_devices::virtio::net::Net;
use emu_devices::virtio::pci::VirtioOptions;
use emu_devices::virtio::rng::Rng;
use emu_devices::virtio::{Model, VirtioCard};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What virtio devices use, each one once.
pub struct Backends<'a> {
    /// Drives without a place of their own, open, by id.
    pub disks: BTreeMap<String, Disk>,
    /// Character devices.
    pub characters: &'a mut Characters,
}

/// The device that `spec` describes, as part of `card`. `nic`: its address and cable, should it be a network card.
///
/// # Errors
/// A back end that does not exist, that another device uses, or that the host refuses.
pub fn build(
    config: &Config,
    card: &CardSpec,
    spec: &VirtioSpec,
    backends: &mut Backends,
    nic: Option<NicConfig>,
) -> Result<VirtioCard, StartError> {
    let mut rom = Arc::new([]) as Arc<[u8]>;
    let mut options = spec.options;
    let model = match &spec.kind {
        VirtioKind::Block { drive, config: block } => {
            let disk = backends.disks.remove(drive).ok_or_else(|| card.error(config.drives.refusal(drive)))?;
            if disk.len().is_none() {
                return Err(card.error(format!("the drive '{drive}' has no medium")));
            }
            Model::Block(Block::new(disk, block.clone()))
        }
        VirtioKind::Net { options, .. } => {
            let nic = nic.ok_or_else(|| card.error("it has no cable"))?;
            rom = nic.rom;
            Model::Net(Net::new(nic.mac, nic.backend, *options))
        }
        VirtioKind::Rng { source, quota } => {
            let deterministic = config.icount.is_some();
            let source = match source {
                None => entropy::open(&Entropy::Builtin, deterministic).map_err(|problem| card.error(problem))?,
                Some(id) => {
                    let object = config.objects.iter().find(|object| object.id == *id);
                    let object = object.ok_or_else(|| card.error(format!("no -object has the id '{id}'")))?;
                    entropy::open(&object.entropy, deterministic).map_err(|problem| object.error(problem))?
                }
            };
            Model::Rng(Rng::new(source, *quota))
        }
        VirtioKind::Serial { most, ports } => {
            // One vector for each port, as QEMU's has: queues share them as the driver likes.
            options = VirtioOptions { vectors: options.vectors.or(Some(*most as u16 + 1)), ..options };
            let ports = ports.iter().map(|port| open_port(card, port, backends.characters));
            Model::Console(Console::new(ports.collect::<Result<_, _>>()?, *most))
        }
        VirtioKind::Balloon { deflate_on_oom } => Model::Balloon(Balloon::new(config.memory, *deflate_on_oom)),
    };
    Ok(VirtioCard { model, options, rom })
}

fn open_port(card: &CardSpec, port: &PortSpec, characters: &mut Characters) -> Result<Port, StartError> {
    let backend: Box<dyn CharBackend> = match &port.chardev {
        None => Box::new(NullBackend),
        Some(id) => characters.backend(id).ok_or_else(|| card.error(format!("no -chardev has the id '{id}'")))?,
    };
    Ok(Port { number: port.number, console: port.console, name: port.name.clone(), backend })
}

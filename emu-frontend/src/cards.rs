//! From the cards of a configuration to those of the board: ROMs read, addresses given, back ends plugged in.

use crate::cli::cards::{CardSpec, Model, NicSpec};
use crate::cli::config::Config;
use crate::cli::error::StartError;
use crate::net::Networks;
use crate::run::{find_data_file, read_file};
use crate::virtio;
use emu_devices::board::expansion::{Card, Expansion};
use emu_devices::net::{MacAddress, NetBackend, NicConfig, Unconnected};
use emu_devices::pci::option_rom;
use std::sync::Arc;

/// All cards of `config`. `networks` keeps those that none of them uses.
///
/// # Errors
/// A back end that does not exist or that two cards name; a ROM that cannot be read.
pub fn build(
    config: &Config,
    networks: &mut Networks,
    mut others: virtio::Backends,
) -> Result<Vec<Expansion>, StartError> {
    let cards = &config.devices.cards;
    let mut taken: Vec<MacAddress> = Vec::new();
    let mut expansion = Vec::new();
    for (number, card) in cards.iter().enumerate() {
        let mut nic = |spec: &NicSpec| -> Result<NicConfig, StartError> {
            let free = || (0..=u8::MAX).map(MacAddress::numbered).find(|mac| !taken.contains(mac));
            let mac = spec.mac.or_else(free).unwrap_or_default();
            taken.push(mac);
            let (model, name) = (card.driver(), card.id.clone());
            let name = name.unwrap_or_else(|| format!("{model}.{number}"));
            let backend: Box<dyn NetBackend> = match &spec.netdev {
                None => Box::new(Unconnected),
                Some(id) => {
                    let about = format!("type=nic,model={model},macaddr={mac}");
                    networks.take(id, &name, &about).map_err(|problem| card.error(problem))?
                }
            };
            Ok(NicConfig { mac, backend, rom: rom(config, card, spec)? })
        };
        let plugged = match &card.model {
            Model::Ne2kIsa { base, irq, nic: spec } => Card::Ne2kIsa { base: *base, irq: *irq, nic: nic(spec)? },
            Model::Ne2kPci(spec) => Card::Ne2kPci(nic(spec)?),
            Model::E1000(spec) => Card::E1000(nic(spec)?),
            Model::Virtio(spec) => {
                let nic = card.nic().map(&mut nic).transpose()?;
                Card::Virtio(Box::new(virtio::build(config, card, spec, &mut others, nic)?))
            }
        };
        expansion.push(Expansion { card: plugged, device: card.device });
    }
    Ok(expansion)
}

/// The image of a card's option ROM; empty if it has none.
fn rom(config: &Config, card: &CardSpec, spec: &NicSpec) -> Result<Arc<[u8]>, StartError> {
    let Some(name) = &spec.rom else { return Ok(Arc::new([])) };
    let path = find_data_file(name, &config.boot.data_dirs);
    let image = read_file("romfile", &path, option_rom::LARGEST as u64)
        .map_err(|e| card.error(format!("romfile '{}': {}", path.display(), e.problem())))?;
    Ok(image.into())
}

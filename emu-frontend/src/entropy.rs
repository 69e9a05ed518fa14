//! Sources of entropy on the host, as `-object` names them.
//!
//! `rng-builtin` is a generator that the host has seeded; in deterministic time its seed is always the same. `rng-random` reads a file, by
//! a thread of its own, as many bytes as the guest wants: reading may block.

use crate::cli::objects::Entropy;
use emu_core::bus::Notifier;
use emu_core::cpu::random::Random;
use emu_devices::shared::Shared;
use emu_devices::virtio::rng::EntropySource;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

/// Bytes that are read ahead of the guest at most.
const MOST: usize = 64 << 10;
const HOST: &str = "/dev/urandom";

/// Opens a source.
///
/// # Errors
/// What the host says, in words.
pub fn open(entropy: &Entropy, deterministic: bool) -> Result<Box<dyn EntropySource>, String> {
    match entropy {
        Entropy::Builtin => {
            let mut seed = [0; 32];
            if !deterministic {
                let read = File::open(HOST).and_then(|mut file| file.read_exact(&mut seed));
                read.map_err(|e| format!("cannot read {HOST}: {e}"))?;
            }
            Ok(Box::new(Random::seeded(seed)))
        }
        Entropy::File(path) => {
            let reader = FileSource::open(path).map_err(|e| format!("cannot read '{}': {e}", path.display()))?;
            Ok(Box::new(reader))
        }
    }
}

#[derive(Default)]
struct Pool {
    bytes: VecDeque<u8>,
    /// Bytes that the thread has been asked for and not read yet.
    coming: usize,
    notifier: Option<Notifier>,
}

struct FileSource {
    pool: Shared<Pool>,
    orders: Sender<usize>,
}

impl FileSource {
    fn open(path: &Path) -> io::Result<FileSource> {
        let mut file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (orders, received) = channel::<usize>();
        let pool = Shared::new(Pool::default());
        let shared = pool.clone();
        let work = move || {
            for wanted in received {
                let mut buffer = vec![0; wanted];
                // A file that has ended, or fails, gives nothing more: the guest waits.
                let Ok(()) = file.read_exact(&mut buffer) else {
                    tracing::warn!("a source of entropy has run dry");
                    return;
                };
                let notifier = {
                    let mut pool = shared.lock();
                    pool.coming -= wanted;
                    pool.bytes.extend(buffer);
                    pool.notifier.clone()
                };
                if let Some(notifier) = notifier {
                    notifier.notify();
                }
            }
        };
        std::thread::Builder::new().name("entropy".into()).spawn(work)?;
        Ok(FileSource { pool, orders })
    }
}

impl EntropySource for FileSource {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let mut pool = self.pool.lock();
        let n = pool.bytes.len().min(buffer.len());
        for (slot, byte) in buffer.iter_mut().zip(pool.bytes.drain(..n)) {
            *slot = byte;
        }
        let missing = (buffer.len() - n).min(MOST).saturating_sub(pool.coming);
        if missing > 0 {
            pool.coming += missing;
            // A thread that has ended has nothing more.
            let _ = self.orders.send(missing);
        }
        n
    }

    fn set_notifier(&mut self, notifier: Notifier) {
        self.pool.lock().notifier = Some(notifier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn builtin_source_differs_between_runs_unless_time_is_deterministic() {
        let take = |deterministic| {
            let mut bytes = [0; 32];
            assert_eq!(open(&Entropy::Builtin, deterministic).unwrap().fill(&mut bytes), 32);
            bytes
        };
        assert_ne!(take(false), take(false));
        assert_eq!(take(true), take(true));
    }

    #[test]
    fn file_is_read_as_far_as_it_goes() {
        let path = std::env::temp_dir().join(format!("emu-entropy-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let mut source = open(&Entropy::File(path.clone()), false).unwrap();
        let mut got: Vec<u8> = Vec::new();
        let start = Instant::now();
        while got.len() < 8 && start.elapsed() < Duration::from_secs(20) {
            let mut bytes = [0; 4];
            let n = source.fill(&mut bytes);
            got.extend(&bytes[..n]);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(&got[..8], b"01234567");
        std::fs::remove_file(&path).unwrap();
        assert!(open(&Entropy::File(path), false).err().unwrap().starts_with("cannot read '"));
    }
}

//! `-d` and `-D`: tracing targets named like QEMU's log items, written one line an event.
//!
//! Without `-d` no subscriber exists and an event costs one load of a static. Events carry their text as the message;
//! further fields follow as `name=value`.

use crate::cli::error::{StartError, nearest};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Items of `-d`, which are also the tracing targets, and what they show.
const ITEMS: &[(&str, &str)] = &[
    ("in_asm", "guest instructions of each block when it is decoded"),
    ("int", "interrupts and exceptions, with the registers"),
    ("exec", "each instruction before it executes (lots of logs, slow)"),
    ("cpu_reset", "CPU state at reset"),
    ("mmu", "page faults and changes of paging"),
    ("pcall", "protected-mode far jumps, calls and returns"),
    ("guest_errors", "accesses that a correct guest does not make"),
    ("unimp", "what the guest asks for and emu has not"),
];

static LOG: OnceLock<&'static Mutex<Sink>> = OnceLock::new();
/// The items that are logged now.
static ACTIVE: RwLock<Vec<&'static str>> = RwLock::new(Vec::new());

/// Which items to log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogItems {
    items: Vec<&'static str>,
}

impl LogItems {
    /// Reads `-d item,item...`.
    ///
    /// # Errors
    /// An unknown item.
    pub fn parse(values: &[String]) -> Result<LogItems, StartError> {
        let mut items = Vec::new();
        for text in values {
            for word in text.split(',') {
                match ITEMS.iter().find(|i| i.0 == word) {
                    Some((item, _)) => items.push(*item),
                    None if word == "all" => items.extend(ITEMS.iter().map(|i| i.0)),
                    None => {
                        let hint = match nearest(word, ITEMS.iter().map(|i| i.0)) {
                            Some(near) => format!("nearest is '{near}'"),
                            None => "-d help lists what exists".into(),
                        };
                        return Err(StartError::value("d", text, format!("no log item '{word}'; {hint}")));
                    }
                }
            }
        }
        Ok(LogItems { items })
    }

    /// What `-d help` prints.
    pub fn help() -> String {
        let mut text = String::from("Log items (comma separated):\n");
        for (item, what) in ITEMS {
            let _ = writeln!(text, "{item:<16}{what}");
        }
        text + "all             all of these\n"
    }

    /// Starts logging: to `file` if given (`%d` in its name is the process id), else to stderr.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn start(&self, file: Option<&Path>) -> Result<(), StartError> {
        let sink = match file {
            None if self.items.is_empty() => return Ok(()),
            None => Sink::Stderr,
            Some(path) => {
                let name = path.to_string_lossy().replace("%d", &std::process::id().to_string());
                let created = File::create(&name).map_err(|e| StartError::value("D", name, e.to_string()))?;
                Sink::File(BufWriter::new(created))
            }
        };
        // The sink lives as long as the process; `flush` empties it before the end.
        let sink: &'static Mutex<Sink> = Box::leak(Box::new(Mutex::new(sink)));
        if LOG.set(sink).is_ok() && !self.items.is_empty() {
            set(self.clone());
        }
        Ok(())
    }
}

/// Logs `items` from now on, and nothing else; without a file from the command line, to stderr.
pub fn set(items: LogItems) {
    let sink = LOG.get_or_init(|| Box::leak(Box::new(Mutex::new(Sink::Stderr))));
    *ACTIVE.write().unwrap_or_else(PoisonError::into_inner) = items.items;
    // Fails for all but the first call, which has set the subscriber.
    let _ = tracing::subscriber::set_global_default(ItemLog { sink });
    tracing::callsite::rebuild_interest_cache();
}

/// Writes what is logged from now on to a new file at `path`.
///
/// # Errors
/// The file cannot be created.
pub fn set_file(path: &Path) -> std::io::Result<()> {
    let file = Sink::File(BufWriter::new(File::create(path)?));
    let sink = LOG.get_or_init(|| Box::leak(Box::new(Mutex::new(Sink::Stderr))));
    flush();
    *lock(sink) = file;
    Ok(())
}

/// Writes out what is buffered; to be called before the process ends.
pub fn flush() {
    if let Some(sink) = LOG.get()
        && let Sink::File(file) = &mut *lock(sink)
    {
        // Nobody is left to tell about a full disk.
        let _ = file.flush();
    }
}

enum Sink {
    Stderr,
    File(BufWriter<File>),
}

fn lock(sink: &Mutex<Sink>) -> MutexGuard<'_, Sink> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

fn active() -> RwLockReadGuard<'static, Vec<&'static str>> {
    ACTIVE.read().unwrap_or_else(PoisonError::into_inner)
}

/// A subscriber that keeps events of some targets and knows no spans.
struct ItemLog {
    sink: &'static Mutex<Sink>,
}

impl Subscriber for ItemLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.is_span() && active().contains(&metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if active().is_empty() { LevelFilter::OFF } else { LevelFilter::TRACE })
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        line.message.push_str(&line.fields);
        line.message.push('\n');
        let bytes = line.message.as_bytes();
        // A log that cannot be written must not end the guest.
        let _ = match &mut *lock(self.sink) {
            Sink::Stderr => std::io::stderr().write_all(bytes),
            Sink::File(file) => file.write_all(bytes),
        };
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<LogItems, String> {
        LogItems::parse(&[text.to_string()]).map_err(|e| e.line())
    }

    #[test]
    fn log_items_are_read_and_unknown_ones_are_named() {
        assert_eq!(parse("int,mmu").unwrap().items, ["int", "mmu"]);
        assert_eq!(parse("all").unwrap().items.len(), ITEMS.len());
        assert_eq!(
            parse("int,guest_error"),
            Err("-d int,guest_error: no log item 'guest_error'; nearest is 'guest_errors'".into())
        );
        assert!(parse("op_opt").is_err());
    }

    #[test]
    fn only_chosen_targets_reach_the_sink() {
        let sink: &'static Mutex<Sink> = Box::leak(Box::new(Mutex::new(Sink::Stderr)));
        let path = std::env::temp_dir().join(format!("emu-log-test-{}", std::process::id()));
        *lock(sink) = Sink::File(BufWriter::new(File::create(&path).unwrap()));
        let choose = |items: &[&'static str]| {
            *ACTIVE.write().unwrap_or_else(PoisonError::into_inner) = items.to_vec();
            tracing::callsite::rebuild_interest_cache();
        };
        tracing::subscriber::with_default(ItemLog { sink }, || {
            for items in [&["int"][..], &[], &["mmu"]] {
                choose(items);
                tracing::trace!(target: "int", vector = 14, "fault");
                tracing::trace!(target: "mmu", "walk");
            }
        });
        if let Sink::File(file) = &mut *lock(sink) {
            file.flush().unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "fault vector=14\nwalk\n");
        std::fs::remove_file(path).unwrap();
    }
}

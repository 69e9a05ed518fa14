//! `emu img snapshot`, and how snapshots are listed.

use super::output::human;
use super::{Failure, How, Opening, Outcome, format};
use crate::image::qcow2::snapshot::Snapshot;
use crate::report;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::SystemTime;

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct Action {
    /// List them
    #[arg(short = 'l')]
    list: bool,
    /// Make one
    #[arg(short = 'c', value_name = "SNAPSHOT")]
    create: Option<String>,
    /// Go back to one
    #[arg(short = 'a', value_name = "SNAPSHOT")]
    apply: Option<String>,
    /// Delete one
    #[arg(short = 'd', value_name = "SNAPSHOT")]
    delete: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    opening: Opening,
    #[command(flatten)]
    action: Action,
    /// The image's format
    #[arg(short = 'f', value_name = "FORMAT")]
    format: Option<String>,
    /// Say nothing
    #[arg(short = 'q')]
    quiet: bool,
    /// The image
    file: String,
}

/// Makes, applies, deletes or lists snapshots.
pub fn run(a: &Arguments) -> Outcome {
    let Action { create, apply, delete, .. } = &a.action;
    let changes = create.is_some() || apply.is_some() || delete.is_some();
    let how = How { format: format(a.format.as_ref())?, read_only: !changes, ..How::default() };
    let mut image = a.opening.open(&a.file, &how)?;
    let name = image.format().name();
    let Some(image) = image.as_qcow2() else {
        return Err(Failure::new(format!("'{name}' images have no snapshots")));
    };
    let failed = |what: &str, name: &str, e: std::io::Error| {
        Failure::new(format!("Could not {what} snapshot '{name}': {}", Failure::from(e).message))
    };
    if let Some(name) = create {
        let date = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        image.create_snapshot(name, date).map_err(|e| failed("create", name, e))?;
    } else if let Some(name) = apply {
        image.apply_snapshot(name).map_err(|e| failed("apply", name, e))?;
    } else if let Some(name) = delete {
        image.delete_snapshot(name).map_err(|e| failed("delete", name, e))?;
    } else {
        let snapshots = image.snapshots()?;
        if !snapshots.is_empty() {
            report::print(&list(&snapshots));
        }
    }
    Ok(0)
}

/// The snapshots as a table.
pub fn list(snapshots: &[Snapshot]) -> String {
    let mut text = format!(
        "Snapshot list:\n{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}\n",
        "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"
    );
    for s in snapshots {
        let date = jiff::Timestamp::new(s.date.as_secs() as i64, 0)
            .map(|date| date.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string());
        let (seconds, millis) = (s.vm_clock / 1_000_000_000, s.vm_clock / 1_000_000 % 1000);
        let clock = format!("{:04}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let icount = if s.icount == u64::MAX { String::new() } else { s.icount.to_string() };
        let _ = writeln!(
            text,
            "{:<7} {:<16} {:>8} {:>19} {clock:>15} {icount:>10}",
            s.id,
            s.name,
            human(s.vm_state_size),
            date.unwrap_or_default(),
        );
    }
    text
}

/// The snapshots as JSON.
pub fn list_json(snapshots: &[Snapshot]) -> Value {
    let one = |s: &Snapshot| {
        let mut value = json!({
            "id": s.id,
            "name": s.name,
            "vm-state-size": s.vm_state_size,
            "date-sec": s.date.as_secs(),
            "date-nsec": s.date.subsec_nanos(),
            "vm-clock-sec": s.vm_clock / 1_000_000_000,
            "vm-clock-nsec": s.vm_clock % 1_000_000_000,
        });
        if s.icount != u64::MAX {
            value["icount"] = s.icount.into();
        }
        value
    };
    snapshots.iter().map(one).collect()
}

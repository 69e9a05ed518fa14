//! Events: what happens to the machine, told to all clients that have negotiated.

use super::json::show;
use crate::char::Announcer;
use emu_devices::board::machine::MachineEvent;
use emu_devices::storage::block::Stall;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where events go. Those of the guest are told by the machine's thread, which never waits for a client: one that leaves a
/// full queue of answers unread loses events.
#[derive(Default)]
pub struct Events {
    listeners: Mutex<Vec<Listener>>,
    shut_down: AtomicBool,
}

struct Listener {
    announcer: Announcer,
    pretty: bool,
    /// The client has negotiated.
    ready: Arc<AtomicBool>,
}

impl Events {
    /// Adds a monitor, which hears of events while `ready` is set.
    pub fn listen(&self, announcer: Announcer, pretty: bool, ready: Arc<AtomicBool>) {
        let listener = Listener { announcer, pretty, ready };
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// The machine's own events, in QEMU's words.
    pub fn machine(&self, event: MachineEvent) {
        match event {
            MachineEvent::Stop => self.tell("STOP", None),
            MachineEvent::Resume => self.tell("RESUME", None),
            MachineEvent::Reset => self.tell("RESET", Some(json!({"guest": true, "reason": "guest-reset"}))),
            MachineEvent::PowerOff => self.shutdown(true, "guest-shutdown"),
            MachineEvent::LastReset => self.shutdown(true, "guest-reset"),
        }
    }

    /// A reset from outside.
    pub fn host_reset(&self) {
        self.tell("RESET", Some(json!({"guest": false, "reason": "host-qmp-system-reset"})));
    }

    /// A drive's request has failed and waits for the machine to go on.
    pub fn block_io_error(&self, stall: &Stall) {
        let operation = if stall.is_read { "read" } else { "write" };
        let data = json!({
            "device": stall.drive,
            "operation": operation,
            "action": "stop",
            "nospace": stall.no_space,
            "reason": stall.reason,
        });
        self.tell("BLOCK_IO_ERROR", Some(data));
    }

    /// The power button.
    pub fn power_button(&self) {
        self.tell("POWERDOWN", None);
    }

    /// The emulator ends on its user's behalf: `reason` is QEMU's word for that. Only the first one is told.
    pub fn host_shutdown(&self, reason: &str) {
        if !self.shut_down.swap(true, Ordering::Relaxed) {
            self.shutdown(false, reason);
        }
    }

    fn shutdown(&self, guest: bool, reason: &str) {
        self.tell("SHUTDOWN", Some(json!({"guest": guest, "reason": reason})));
    }

    fn tell(&self, name: &str, data: Option<Value>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = json!({"seconds": now.as_secs(), "microseconds": now.subsec_micros()});
        let mut event = json!({"timestamp": timestamp, "event": name});
        if let Some(data) = data {
            event["data"] = data;
        }
        for listener in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if listener.ready.load(Ordering::Relaxed) {
                listener.announcer.announce(&show(&event, listener.pretty));
            }
        }
    }
}

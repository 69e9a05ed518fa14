//! Monitor commands about networks.

use super::arguments::Arguments;
use super::error;
use crate::cli::net_user::{parse_forward, parse_host_side};
use crate::net::Link;
use crate::net::throttle::Limits;
use crate::net::user::UserHandle;
use crate::remote::Remote;
use std::fmt::Write as _;

/// Cards, and the back ends at the other ends of their cables.
pub fn info(machine: &Remote, _: &Arguments) -> String {
    let mut text = String::new();
    let line = |link: &Link| {
        let limits = link.plug.limits().show();
        let limits = if limits.is_empty() { limits } else { format!(",throttling={{{limits}}}") };
        format!("{}: index=0,{}{limits}{}", link.id, link.about, if link.plug.link_up() { "" } else { ",link=down" })
    };
    let mut hubs: Vec<u32> = machine.networks.iter().filter_map(|link| link.hub).collect();
    hubs.sort_unstable();
    hubs.dedup();
    for hub in hubs {
        let _ = writeln!(text, "hub {hub}");
        for link in machine.networks.iter().filter(|link| link.hub == Some(hub)) {
            let card = link.card().map(|card| format!("{}: index=0,{}", card.name, card.about));
            let _ = writeln!(text, " \\ {}", card.unwrap_or_else(|| line(link)));
        }
    }
    for link in machine.networks.iter().filter(|link| link.hub.is_none()) {
        let _ = match link.card() {
            Some(card) => writeln!(text, "{}: index=0,{}\n \\ {}", card.name, card.about, line(link)),
            None => writeln!(text, "{}", line(link)),
        };
    }
    text
}

/// Forwarded ports and connections of user networks.
pub fn info_user(machine: &Remote, _: &Arguments) -> String {
    let users = machine.networks.iter().filter_map(|link| Some((link, link.user.as_ref()?)));
    let show = |(link, user): (&_, &UserHandle)| {
        let link: &Link = link;
        let hub = link.hub.map_or(-1, i64::from);
        format!("Hub {hub} ({}):\n{}", link.id, user.show())
    };
    users.map(|(link, user)| show((&**link, user))).collect()
}

/// A back end by its id, or by that of the card in which its cable is.
fn find<'a>(machine: &'a Remote, name: &str) -> Option<&'a Link> {
    let is = |link: &&std::sync::Arc<Link>| link.id == name || link.card().is_some_and(|card| card.name == name);
    machine.networks.iter().find(is).map(|link| &**link)
}

/// Plugs a cable in or pulls it out.
///
/// # Errors
/// QEMU's words.
pub fn plug(machine: &Remote, name: &str, up: bool) -> Result<(), String> {
    let link = find(machine, name).ok_or_else(|| format!("Device '{name}' not found"))?;
    link.plug.set_link(up);
    Ok(())
}

pub fn set_link(machine: &Remote, arguments: &Arguments) -> String {
    let up = match arguments.text("up") {
        Some("on") => true,
        Some("off") => false,
        _ => return error("Parameter 'up' expects 'on' or 'off'"),
    };
    plug(machine, arguments.text("name").unwrap_or_default(), up).map_or_else(|e| error(&e), |()| String::new())
}

/// The user network that the first of two words names, or the only one, and the last word.
fn user<'a, 't>(machine: &'a Remote, arguments: &'t Arguments) -> Result<(&'a UserHandle, &'t str), String> {
    let (first, second) = (arguments.text("arg1").unwrap_or_default(), arguments.text("arg2"));
    let Some(rule) = second else {
        let mut users = machine.networks.iter().filter_map(|link| link.user.as_ref());
        return users.next().map(|user| (user, first)).ok_or_else(|| "user mode network stack not in use\n".into());
    };
    let link = find(machine, first).ok_or_else(|| format!("unrecognized netdev id '{first}'\n"))?;
    let user = link.user.as_ref();
    user.map(|user| (user, rule)).ok_or_else(|| format!("invalid netdev id '{first}': not a user network\n"))
}

pub fn add_forward(machine: &Remote, arguments: &Arguments) -> String {
    let (user, rule) = match user(machine, arguments) {
        Ok(found) => found,
        Err(problem) => return problem,
    };
    match parse_forward(rule, user.guest) {
        Ok(forward) => user
            .add(forward)
            .map_or_else(|e| format!("could not set up host forwarding rule '{rule}': {e}\n"), |()| String::new()),
        Err(problem) => format!("invalid host forwarding rule '{rule}' ({problem})\n"),
    }
}

pub fn remove_forward(machine: &Remote, arguments: &Arguments) -> String {
    let (user, rule) = match user(machine, arguments) {
        Ok(found) => found,
        Err(problem) => return problem,
    };
    match parse_host_side(rule) {
        Ok((udp, host)) => {
            let result = if user.remove(udp, host) { "removed" } else { "not found" };
            format!("host forwarding rule for {rule} {result}\n")
        }
        Err(problem) => format!("invalid format: {problem}\n"),
    }
}

/// As `block_set_io_throttle`: all six limits anew.
pub fn set_throttle(machine: &Remote, arguments: &Arguments) -> String {
    let name = arguments.text("device").unwrap_or_default();
    let Some(link) = find(machine, name) else { return error(&format!("Device '{name}' not found")) };
    let mut limits = Limits::default();
    let names = [
        ("bps", "bps-total"),
        ("bps_rd", "bps-read"),
        ("bps_wr", "bps-write"),
        ("iops", "iops-total"),
        ("iops_rd", "iops-read"),
        ("iops_wr", "iops-write"),
    ];
    for (parameter, limit) in names {
        let value = arguments.number(parameter).unwrap_or(0);
        let Ok(value) = u64::try_from(value) else { return error(&format!("'{parameter}' cannot be negative")) };
        if let Err(problem) = limits.set(limit, value) {
            return error(&problem);
        }
    }
    match limits.check() {
        Ok(()) => {
            link.plug.set_limits(limits);
            String::new()
        }
        Err(problem) => error(&problem),
    }
}

//! `-action`, `-no-reboot` and `-no-shutdown`: what follows when the guest resets itself or powers off.
//!
//! Deliberately absent: actions for panics and watchdogs other than QEMU's defaults, as there is no device that tells of them.

use super::error::StartError;
use super::options::Options;
use super::value::KeyValues;

/// What follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// A reset by the guest ends the emulator.
    pub no_reboot: bool,
    /// A power-off by the guest stops the machine only.
    pub no_shutdown: bool,
}

/// Checks all `-action` values. They count for more than the older switches.
///
/// # Errors
/// An event or an action that does not exist or is not implemented.
pub fn parse(options: &Options) -> Result<Actions, StartError> {
    let mut actions = Actions { no_reboot: options.no_reboot, no_shutdown: options.no_shutdown };
    for text in &options.action {
        let mut v = KeyValues::parse("action", text, "");
        match v.take("reboot")?.as_deref() {
            None => {}
            Some("reset") => actions.no_reboot = false,
            Some("shutdown") => actions.no_reboot = true,
            Some(other) => return Err(v.error(format!("'reboot={other}': expected reset or shutdown"))),
        }
        match v.take("shutdown")?.as_deref() {
            None => {}
            Some("poweroff") => actions.no_shutdown = false,
            Some("pause") => actions.no_shutdown = true,
            Some(other) => return Err(v.error(format!("'shutdown={other}': expected poweroff or pause"))),
        }
        for (event, usual) in [("panic", "shutdown"), ("watchdog", "reset")] {
            if let Some(other) = v.take(event)?.filter(|action| action != usual) {
                return Err(v.error(format!("'{event}={other}' is not implemented; implemented: {event}={usual}")));
            }
        }
        v.finish()?;
    }
    Ok(actions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(words: &[&str]) -> Result<(bool, bool), String> {
        let options = Options::read(words.iter().map(Into::into)).map_err(|e| e.line())?;
        parse(&options).map(|a| (a.no_reboot, a.no_shutdown)).map_err(|e| e.line())
    }

    #[test]
    fn actions_are_the_older_switches_by_other_names() {
        assert_eq!(actions(&[]), Ok((false, false)));
        assert_eq!(actions(&["-no-reboot", "-no-shutdown"]), Ok((true, true)));
        assert_eq!(actions(&["-action", "reboot=shutdown,shutdown=pause"]), Ok((true, true)));
        assert_eq!(
            actions(&["-action", "reboot=shutdown", "-action", "reboot=reset,panic=shutdown"]),
            Ok((false, false))
        );
        assert_eq!(actions(&["-no-reboot", "-action", "reboot=reset"]), Ok((false, false)));
    }

    #[test]
    fn actions_that_do_not_exist_are_refused() {
        for (value, problem) in [
            ("reboot=halt", "'reboot=halt': expected reset or shutdown"),
            ("shutdown=reset", "'shutdown=reset': expected poweroff or pause"),
            ("panic=exit-failure", "'panic=exit-failure' is not implemented; implemented: panic=shutdown"),
            ("watchdog=none", "'watchdog=none' is not implemented; implemented: watchdog=reset"),
            ("fire=run", "unknown property 'fire'"),
        ] {
            let line = actions(&["-action", value]).unwrap_err();
            assert!(line.starts_with(&format!("-action {value}: ")) && line.contains(problem), "{line}");
        }
    }
}

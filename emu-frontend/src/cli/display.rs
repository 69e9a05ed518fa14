//! `-display` and `-full-screen`.

use super::error::StartError;
use super::options::Options;
use super::value::KeyValues;

/// Names under which QEMU opens a window.
const WINDOWS: [&str; 4] = ["window", "gtk", "sdl", "cocoa"];

/// What shows the guest's screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisplayKind {
    /// Nothing.
    None,
    /// Text modes in the terminal.
    Curses,
    /// A window.
    Window(WindowOptions),
}

/// How a window behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowOptions {
    /// Begins as full screen.
    pub full_screen: bool,
    /// The close button ends the emulator.
    pub close: bool,
}

/// What the display is, and whether nobody has chosen it. `screen`: the host can show windows.
///
/// # Errors
/// A display or property that does not exist.
pub fn parse(options: &Options, screen: bool) -> Result<(DisplayKind, bool), StartError> {
    let mut window = WindowOptions { full_screen: options.full_screen, close: true };
    let Some(text) = &options.display else {
        let silent = options.nographic || options.daemonize || options.vga.as_deref() == Some("none");
        let kind = match cfg!(feature = "window") && screen && !silent {
            true => DisplayKind::Window(window),
            false => DisplayKind::None,
        };
        return Ok((kind, true));
    };
    let mut v = KeyValues::parse("display", text, "type");
    let name = v.take("type")?.unwrap_or_default();
    let kind = match name.as_str() {
        "none" => DisplayKind::None,
        "curses" => DisplayKind::Curses,
        _ if WINDOWS.contains(&name.as_str()) || name == "default" => {
            if !cfg!(feature = "window") {
                return Err(v.error("this emu is built without windows (cargo feature 'window'); nearest is curses"));
            }
            window.full_screen |= v.take_bool("full-screen")?.unwrap_or(false);
            window.close = v.take_bool("window-close")?.unwrap_or(true);
            if v.take_bool("gl")? == Some(true) {
                return Err(v.error("'gl=on' is not implemented; nearest is gl=off"));
            }
            DisplayKind::Window(window)
        }
        _ => return Err(v.error("not implemented; implemented: none, curses, window")),
    };
    v.finish()?;
    Ok((kind, false))
}

/// The window's hotkeys, for its title.
#[cfg(feature = "window")]
pub const HOTKEYS: &str = "Ctrl-Alt-: G mouse, F full screen, S screenshot, D Ctrl-Alt-Del, P pause, Q quit";

/// The end of `-help`: the keys that a display keeps for itself.
pub const KEYS_HELP: &str = "
During emulation, the following keys are useful in the window:
ctrl-alt-g      take or release the mouse; a click takes it too
ctrl-alt-f      toggle full screen
ctrl-alt-s      save a screenshot in the current folder
ctrl-alt-d      send Ctrl-Alt-Del
ctrl-alt-p      pause or continue
ctrl-alt-q      quit

When using -nographic, press 'ctrl-a h' to get some help.
When using -display curses, 'ctrl-a d' sends Ctrl-Alt-Del and 'ctrl-a x' quits.
";

/// Whether the host can show windows.
pub fn host_has_screen() -> bool {
    cfg!(any(windows, target_os = "macos")) || std::env::var_os("DISPLAY").is_some_and(|name| !name.is_empty())
}

/// What `-display help` prints.
pub fn help() -> String {
    let window = if cfg!(feature = "window") { "window\n" } else { "" };
    format!("Available display backend types:\nnone\ncurses\n{window}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(words: &[&str], screen: bool) -> Result<DisplayKind, String> {
        let options = Options::read(words.iter().map(Into::into)).map_err(|e| e.line())?;
        parse(&options, screen).map(|(kind, _)| kind).map_err(|e| e.line())
    }

    #[test]
    fn display_follows_the_option_and_the_host() {
        assert_eq!(kind(&["-display", "none"], true), Ok(DisplayKind::None));
        assert_eq!(kind(&["-display", "curses"], true), Ok(DisplayKind::Curses));
        assert_eq!(kind(&[], false), Ok(DisplayKind::None));
        assert_eq!(kind(&["-nographic"], true), Ok(DisplayKind::None));
        assert_eq!(kind(&["-vga", "none"], true), Ok(DisplayKind::None));
        assert!(kind(&["-display", "vnc=:1"], true).is_err());
        assert!(kind(&["-display", "none,foo=1"], true).unwrap_err().contains("unknown property 'foo'"));
    }

    #[cfg(feature = "window")]
    #[test]
    fn window_takes_qemus_names_and_switches() {
        let window = |full_screen, close| Ok(DisplayKind::Window(WindowOptions { full_screen, close }));
        assert_eq!(kind(&[], true), window(false, true));
        assert_eq!(kind(&["-display", "gtk,gl=off,window-close=off"], true), window(false, false));
        assert_eq!(kind(&["-display", "sdl,full-screen=on"], true), window(true, true));
        assert_eq!(kind(&["-full-screen"], true), window(true, true));
        assert!(kind(&["-display", "window,gl=on"], true).is_err());
    }
}

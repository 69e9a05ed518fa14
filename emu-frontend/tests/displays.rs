//! The window in a real X server, and the terminal display on a pseudo-terminal.

#[cfg(feature = "window")]
mod guest;

#[cfg(feature = "window")]
mod window {
    use super::guest::{Emulator, PATIENCE, temporary};
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    /// An X server without a screen of glass; ended when dropped.
    struct Server(Child, String);

    impl Server {
        fn start() -> Server {
            let mut command = Command::new("Xvfb");
            command
                .args(["-displayfd", "1", "-screen", "0", "1024x768x24"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            let mut child = command.spawn().expect("Xvfb (package xvfb) starts");
            let mut number = String::new();
            let output = child.stdout.take().expect("stdout is piped");
            BufReader::new(output).read_line(&mut number).expect("Xvfb tells its number");
            Server(child, format!(":{}", number.trim()))
        }

        /// The screen as rows of red, green and blue, by ImageMagick.
        fn picture(&self) -> Vec<u8> {
            let mut command = Command::new("import");
            command.args(["-display", &self.1, "-window", "root", "-depth", "8", "rgb:-"]);
            command.output().expect("import (package imagemagick) starts").stdout
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Width, height and samples of a binary PPM.
    fn ppm(bytes: &[u8]) -> Option<(usize, usize, &[u8])> {
        let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
        let (magic, size, _, samples) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
        let (width, height) = std::str::from_utf8(size).ok()?.split_once(' ')?;
        (magic == b"P6").then_some((width.parse().ok()?, height.parse().ok()?, samples))
    }

    /// Whether the picture `shot`, `width` pixels wide, is somewhere in the screen, which is 1024 pixels wide.
    fn holds(screen: &[u8], width: usize, shot: &[u8]) -> bool {
        let rows: Vec<&[u8]> = shot.chunks_exact(3 * width).collect();
        let stride = 3 * 1024;
        let at = |start: usize| {
            rows.iter().enumerate().all(|(y, row)| screen.get(start + y * stride..).is_some_and(|s| s.starts_with(row)))
        };
        (0..screen.len() / 3).map(|pixel| 3 * pixel).filter(|start| start % stride + 3 * width <= stride).any(at)
    }

    #[test]
    fn window_shows_what_screendump_saves() {
        let server = Server::start();
        let path = temporary("window.ppm");
        let arguments = ["-display", "window", "-monitor", "stdio"];
        let environment = [("DISPLAY", server.1.as_str())];
        let mut emu = Emulator::start_with("window", &arguments, &environment);
        emu.output.expect("(qemu) ");
        emu.type_keys(b"info status\n");
        emu.output.expect("VM status: running");
        // Colour 0, the background, becomes red with some green: DAC write address, then three times six bits.
        for command in ["o /b 0x3c8 0", "o /b 0x3c9 63", "o /b 0x3c9 16", "o /b 0x3c9 0"] {
            emu.type_keys(format!("{command}\n").as_bytes());
            emu.output.expect("(qemu) ");
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            emu.type_keys(format!("screendump {}\n", path.display()).as_bytes());
            emu.output.expect("(qemu) ");
            let saved = std::fs::read(&path).unwrap_or_default();
            if let Some((width, height, shot)) = ppm(&saved)
                && shot.len() == 3 * width * height
                && shot[0] > 0xf0
                && holds(&server.picture(), width, shot)
            {
                break;
            }
            assert!(Instant::now() < deadline, "the window does not show the guest's screen");
        }
        emu.type_keys(b"quit\n");
        assert_eq!(emu.wait(), Some(0));
        std::fs::remove_file(path).unwrap();
    }
}

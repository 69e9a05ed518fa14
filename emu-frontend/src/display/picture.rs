//! Pictures as files: Netpbm's PPM (format P6, binary, 8 bits a sample) and PNG.

use emu_devices::video::Frame;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// The format of a picture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureFormat {
    /// Portable pixmap.
    Ppm,
    /// Portable Network Graphics.
    Png,
}

impl PictureFormat {
    /// By the name's ending: PNG for `.png`, else PPM.
    pub fn of(path: &Path) -> PictureFormat {
        match path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png")) {
            true => PictureFormat::Png,
            false => PictureFormat::Ppm,
        }
    }

    /// By a name as `screendump -f` takes it.
    pub fn from_name(name: &str) -> Option<PictureFormat> {
        match name {
            "ppm" => Some(PictureFormat::Ppm),
            "png" => Some(PictureFormat::Png),
            _ => None,
        }
    }
}

/// Writes `frame` to `path`, which is replaced if it exists.
///
/// # Errors
/// The host cannot write the file.
pub fn save(frame: &Frame, path: &Path, format: PictureFormat) -> io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    write(frame, &mut file, format)?;
    file.flush()
}

/// Writes `frame` to `out`. A frame without pixels becomes one black pixel, because no format can hold none.
///
/// # Errors
/// `out` fails.
pub fn write(frame: &Frame, out: &mut impl Write, format: PictureFormat) -> io::Result<()> {
    let (width, height) = (frame.width.max(1), frame.height.max(1));
    let mut bytes = Vec::with_capacity(width * height * 3);
    for pixel in frame.pixels.iter().take(width * height) {
        let [_, red, green, blue] = pixel.to_be_bytes();
        bytes.extend([red, green, blue]);
    }
    bytes.resize(width * height * 3, 0);
    match format {
        PictureFormat::Ppm => {
            write!(out, "P6\n{width} {height}\n255\n")?;
            out.write_all(&bytes)
        }
        PictureFormat::Png => {
            let mut encoder = png::Encoder::new(out, width as u32, height as u32);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&bytes)?;
            Ok(writer.finish()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let mut frame = Frame::default();
        frame.pixels.extend([0x00ff_8001, 0x0000_00ff]);
        (frame.width, frame.height) = (2, 1);
        frame
    }

    #[test]
    fn ppm_is_header_and_samples() {
        let mut out = Vec::new();
        write(&frame(), &mut out, PictureFormat::Ppm).unwrap();
        assert_eq!(out, b"P6\n2 1\n255\n\xff\x80\x01\x00\x00\xff");
    }

    #[test]
    fn png_reads_back_as_written() {
        let mut out = Vec::new();
        write(&frame(), &mut out, PictureFormat::Png).unwrap();
        let mut reader = png::Decoder::new(io::Cursor::new(out)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (2, 1));
        assert_eq!(pixels, [0xff, 0x80, 1, 0, 0, 0xff]);
    }

    #[test]
    fn format_follows_the_ending_and_empty_frames_are_one_pixel() {
        assert_eq!(PictureFormat::of(Path::new("a.PNG")), PictureFormat::Png);
        assert_eq!(PictureFormat::of(Path::new("png")), PictureFormat::Ppm);
        let mut out = Vec::new();
        write(&Frame::default(), &mut out, PictureFormat::Ppm).unwrap();
        assert_eq!(out, b"P6\n1 1\n255\n\0\0\0");
    }
}

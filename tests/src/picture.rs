//! Pictures of screens: read from PPM and PNG files, compared pixel by pixel with a tolerance, their differences shown.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A picture with 8 bits each of red, green and blue for a pixel, from the top left on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<[u8; 3]>,
}

/// What a comparison has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Pixels of which a channel differs by more than the tolerance.
    pub pixels: usize,
    /// The largest difference of a channel anywhere.
    pub largest: u8,
    /// The corners `(left, top)` and `(right, bottom)`, both inside, of the least rectangle around these pixels.
    pub bounds: Option<[(usize, usize); 2]>,
    /// The first picture, dimmed and grey, with these pixels in red.
    pub picture: Picture,
}

impl Picture {
    /// Reads a file: PNG or binary PPM ("P6", 8 bits), told by how it begins.
    pub fn read(path: &Path) -> Result<Picture, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let picture = if bytes.starts_with(b"\x89PNG") { Self::from_png(&bytes) } else { Self::from_ppm(&bytes) };
        picture.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The contents of a binary PPM file.
    pub fn from_ppm(bytes: &[u8]) -> Result<Picture, String> {
        let mut rest = bytes.strip_prefix(b"P6").ok_or("neither PNG nor a binary PPM file")?;
        let mut header = [0; 3];
        for value in &mut header {
            rest = rest.trim_ascii_start();
            while rest.first() == Some(&b'#') {
                let end = rest.iter().position(|&byte| byte == b'\n').ok_or("the header has no end")?;
                rest = rest[end..].trim_ascii_start();
            }
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number = std::str::from_utf8(&rest[..digits]).expect("digits are UTF-8");
            *value = number.parse::<usize>().map_err(|error| format!("a number of the header: {error}"))?;
            rest = &rest[digits..];
        }
        let [width, height, maximum] = header;
        if maximum != 255 {
            return Err(format!("{maximum} levels instead of 255"));
        }
        // One white space character ends the header.
        Self::from_rgb(width, height, rest.get(1..).unwrap_or_default())
    }

    fn from_png(bytes: &[u8]) -> Result<Picture, String> {
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::normalize_to_color8() | png::Transformations::ALPHA);
        let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
        let mut buffer = vec![0; reader.output_buffer_size().ok_or("too large")?];
        let info = reader.next_frame(&mut buffer).map_err(|error| error.to_string())?;
        let samples = info.color_type.samples();
        let rgb: Vec<u8> = buffer[..info.buffer_size()]
            .chunks_exact(samples)
            .flat_map(|pixel| if samples >= 3 { [pixel[0], pixel[1], pixel[2]] } else { [pixel[0]; 3] })
            .collect();
        Self::from_rgb(info.width as usize, info.height as usize, &rgb)
    }

    fn from_rgb(width: usize, height: usize, bytes: &[u8]) -> Result<Picture, String> {
        let (pixels, rest) = bytes.as_chunks::<3>();
        if width.checked_mul(height) != Some(pixels.len()) || !rest.is_empty() {
            return Err(format!("{} bytes are not {width} x {height} pixels", bytes.len()));
        }
        Ok(Picture { width, height, pixels: pixels.to_vec() })
    }

    /// Writes a binary PPM file.
    pub fn write_ppm(&self, path: &Path) -> Result<(), String> {
        let write = || {
            let mut file = BufWriter::new(File::create(path)?);
            write!(file, "P6\n{} {}\n255\n", self.width, self.height)?;
            file.write_all(self.pixels.as_flattened())?;
            file.flush()
        };
        write().map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Compares with another picture of the same size; channels that differ by `tolerance` or less count as equal.
    pub fn compare(&self, other: &Picture, tolerance: u8) -> Result<Difference, String> {
        if (self.width, self.height) != (other.width, other.height) {
            return Err(format!("{} x {} pixels against {} x {}", self.width, self.height, other.width, other.height));
        }
        let mut found = Difference { pixels: 0, largest: 0, bounds: None, picture: self.clone() };
        for (index, (pixel, (a, b))) in
            found.picture.pixels.iter_mut().zip(self.pixels.iter().zip(&other.pixels)).enumerate()
        {
            let distance = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
            found.largest = found.largest.max(distance);
            if distance > tolerance {
                let at = (index % self.width, index / self.width);
                let [from, to] = found.bounds.unwrap_or([at, at]);
                found.bounds = Some([(from.0.min(at.0), from.1.min(at.1)), (to.0.max(at.0), to.1.max(at.1))]);
                found.pixels += 1;
                *pixel = [255, 0, 0];
            } else {
                let grey = a.iter().map(|&channel| u16::from(channel)).sum::<u16>() / 6;
                *pixel = [grey.to_le_bytes()[0]; 3];
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(pixels: [[u8; 3]; 6]) -> Picture {
        Picture { width: 3, height: 2, pixels: pixels.to_vec() }
    }

    #[test]
    fn tolerance_is_for_each_channel() {
        let a = picture([[10, 20, 30]; 6]);
        let mut b = a.clone();
        b.pixels[1] = [13, 17, 33];
        assert_eq!(a.compare(&b, 3).expect("same size").pixels, 0);
        b.pixels[5] = [10, 24, 30];
        b.pixels[1] = [0, 20, 30];
        let found = a.compare(&b, 3).expect("same size");
        assert_eq!((found.pixels, found.largest, found.bounds), (2, 10, Some([(1, 0), (2, 1)])));
        assert_eq!(found.picture.pixels[5], [255, 0, 0]);
        assert_eq!(found.picture.pixels[0], [10; 3]);
        assert!(a.compare(&Picture { width: 2, height: 3, ..b }, 3).is_err());
    }

    #[test]
    fn ppm_files_are_read_and_broken_ones_refused() {
        let read = Picture::from_ppm(b"P6 # a comment\n# another\n2 1\n255\n\n23456").expect("well formed");
        assert_eq!(read, Picture { width: 2, height: 1, pixels: vec![*b"\n23", *b"456"] });
        for broken in [
            &b"P6\n2 1\n255\n12345"[..],
            b"P6\n2 1\n255\n1234567",
            b"P5\n2 1\n255\n123456",
            b"P6\n2 1\n65535\n123456",
            b"P6\n#",
        ] {
            assert!(Picture::from_ppm(broken).is_err());
        }
    }
}

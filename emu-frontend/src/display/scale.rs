//! A picture in a window of another size: nearest pixels, kept aspect, black bars.

use emu_devices::video::Frame;

/// Fills `out`, `width * height` pixels, with `frame` as large as it fits, in the middle.
pub fn fit(frame: &Frame, out: &mut [u32], width: usize, height: usize) {
    out.fill(0);
    if frame.width == 0 || frame.height == 0 || frame.pixels.len() < frame.width * frame.height {
        return;
    }
    let (shown_width, shown_height) = fitted_size(frame.width, frame.height, width, height);
    let (left, top) = ((width - shown_width) / 2, (height - shown_height) / 2);
    let columns: Vec<usize> = (0..shown_width).map(|x| x * frame.width / shown_width).collect();
    let mut drawn: Option<(usize, usize)> = None;
    for y in 0..shown_height {
        let source = y * frame.height / shown_height;
        let start = (top + y) * width + left;
        match drawn {
            // A row that repeats the one above is copied.
            Some((same, at)) if same == source => out.copy_within(at..at + shown_width, start),
            _ => {
                let row = &frame.pixels[source * frame.width..][..frame.width];
                for (pixel, column) in out[start..start + shown_width].iter_mut().zip(&columns) {
                    *pixel = row[*column];
                }
            }
        }
        drawn = Some((source, start));
    }
}

/// The largest size with the aspect of `width : height` that fits; whole multiples look best and are taken when they fit
/// exactly.
fn fitted_size(width: usize, height: usize, most_width: usize, most_height: usize) -> (usize, usize) {
    if most_width * height <= most_height * width {
        (most_width, (most_width * height / width).clamp(1.min(most_height), most_height))
    } else {
        ((most_height * width / height).clamp(1.min(most_width), most_width), most_height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(width: usize, pixels: &[u32]) -> Frame {
        let mut frame = Frame::default();
        frame.pixels.extend(pixels);
        (frame.width, frame.height) = (width, pixels.len() / width);
        frame
    }

    #[test]
    fn picture_of_its_own_size_is_copied() {
        let mut out = [9; 4];
        fit(&frame(2, &[1, 2, 3, 4]), &mut out, 2, 2);
        assert_eq!(out, [1, 2, 3, 4]);
    }

    #[test]
    fn wide_window_has_bars_on_both_sides_and_doubles_pixels() {
        let mut out = [9; 24];
        fit(&frame(2, &[1, 2, 3, 4]), &mut out, 6, 4);
        assert_eq!(out[..6], [0, 1, 1, 2, 2, 0]);
        assert_eq!(out[18..], [0, 3, 3, 4, 4, 0]);
    }

    #[test]
    fn empty_picture_and_tiny_windows_are_no_problem() {
        let mut out = [9; 2];
        fit(&Frame::default(), &mut out, 2, 1);
        assert_eq!(out, [0, 0]);
        fit(&frame(2, &[1, 2, 3, 4]), &mut out, 2, 1);
        fit(&frame(2, &[1, 2, 3, 4]), &mut [], 0, 0);
    }
}

//! Compressed clusters: raw deflate with a window of 4 KiB, or one Zstandard frame.

use super::header::Compression;
use crate::image::invalid;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use std::io;

/// log2 of the deflate window, which readers rely on.
const WINDOW_BITS: u8 = 12;

/// The `cluster` bytes that `packed` (and what follows it in its last sector) holds.
///
/// # Errors
/// It holds something else.
pub fn unpack(compression: Compression, packed: &[u8], cluster: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; cluster];
    let wrong = |what: String| invalid(format!("a compressed cluster is damaged: {what}"));
    match compression {
        Compression::Zlib => {
            // Readers take larger windows than writers are to use.
            let mut inflate = Decompress::new(false);
            inflate.decompress(packed, &mut bytes, FlushDecompress::Finish).map_err(|e| wrong(e.to_string()))?;
            if inflate.total_out() != cluster as u64 {
                return Err(wrong(format!("{} bytes", inflate.total_out())));
            }
        }
        Compression::Zstd => {
            // What follows the frame is other clusters' data, so one frame is decoded, not all.
            let mut output = zstd::zstd_safe::OutBuffer::around(bytes.as_mut_slice());
            let mut input = zstd::zstd_safe::InBuffer::around(packed);
            let mut decoder = zstd::zstd_safe::DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
            while output.pos() < cluster {
                let before = (input.pos(), output.pos());
                let left = decoder
                    .decompress_stream(&mut output, &mut input)
                    .map_err(|code| wrong(zstd::zstd_safe::get_error_name(code).into()))?;
                if left == 0 || before == (input.pos(), output.pos()) {
                    break;
                }
            }
            let n = output.pos();
            if n != cluster {
                return Err(wrong(format!("{n} bytes")));
            }
        }
    }
    Ok(bytes)
}

/// `bytes` compressed, if that makes them shorter.
///
/// # Errors
/// The compressor fails.
pub fn pack(compression: Compression, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let packed = match compression {
        Compression::Zlib => {
            let mut packed = vec![0; bytes.len() - 1];
            let mut deflate = Compress::new_with_window_bits(flate2::Compression::default(), false, WINDOW_BITS);
            match deflate.compress(bytes, &mut packed, FlushCompress::Finish).map_err(io::Error::other)? {
                Status::StreamEnd => {}
                Status::Ok | Status::BufError => return Ok(None),
            }
            packed.truncate(deflate.total_out() as usize);
            packed
        }
        Compression::Zstd => zstd::bulk::compress(bytes, 0)?,
    };
    Ok((packed.len() < bytes.len()).then_some(packed))
}

//! LUKS version 1: "LUKS On-Disk Format Specification", version 1.2.3. AES in XTS mode with plain64 sector numbers.
//!
//! ```text
//!  header (592) with eight key slots | key material of each slot | data, sector by sector
//! ```
//! A slot's key material is the master key, split so that all of it is needed (anti-forensic), and encrypted with a key
//! that PBKDF2 makes of the passphrase. Deliberately absent: version 2, other ciphers and modes, new images.

use crate::image::Format;
use crate::image::cipher::SectorCipher;
use crate::image::invalid;
use crate::image::layer::{Extent, ExtentKind, Layer};
use crate::image::storage::Storage;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use emu_devices::storage::block::Image;
use sha1::Sha1;
use sha2::digest::Digest as _;
use sha2::{Sha256, Sha512};
use std::io;

/// What a header begins with.
pub const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";
/// Bytes of a header.
pub const HEADER_LEN: usize = 592;
const SECTOR: usize = 512;
const SLOTS: usize = 8;
const SLOT_ACTIVE: u32 = 0x00ac_71f3;
/// The most rounds of its hash that a header may ask for, in all slots together: some minutes'.
const MOST_ROUNDS: u64 = 400_000_000;
/// The most stripes of a split key. All writers use 4000.
const MOST_STRIPES: u32 = 16_384;

/// What keys are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

impl Hash {
    fn len(self) -> usize {
        match self {
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
            Hash::Sha512 => 64,
        }
    }

    fn digest(self, parts: [&[u8]; 2]) -> Vec<u8> {
        let bytes = parts.concat();
        match self {
            Hash::Sha1 => Sha1::digest(bytes).to_vec(),
            Hash::Sha256 => Sha256::digest(bytes).to_vec(),
            Hash::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    fn pbkdf2(self, secret: &[u8], salt: &[u8], iterations: u32, len: usize) -> Vec<u8> {
        let mut key = vec![0; len];
        match self {
            Hash::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(secret, salt, iterations, &mut key),
            Hash::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(secret, salt, iterations, &mut key),
            Hash::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(secret, salt, iterations, &mut key),
        }
        key
    }

    /// Undoes the mixing of a stripe.
    fn diffuse(self, bytes: &[u8]) -> Vec<u8> {
        let blocks = bytes.chunks(self.len()).zip(0u32..);
        blocks.flat_map(|(block, i)| self.digest([&i.to_be_bytes(), block])[..block.len()].to_vec()).collect()
    }
}

enum Aes {
    Short(Box<Aes128>),
    Long(Box<Aes256>),
}

impl Aes {
    fn new(key: &[u8]) -> Option<Aes> {
        match key.len() {
            16 => Some(Aes::Short(Box::new(Aes128::new(GenericArray::from_slice(key))))),
            32 => Some(Aes::Long(Box::new(Aes256::new(GenericArray::from_slice(key))))),
            _ => None,
        }
    }

    fn encrypt(&self, block: &mut [u8]) {
        let block = GenericArray::from_mut_slice(block);
        match self {
            Aes::Short(aes) => aes.encrypt_block(block),
            Aes::Long(aes) => aes.encrypt_block(block),
        }
    }

    fn decrypt(&self, block: &mut [u8]) {
        let block = GenericArray::from_mut_slice(block);
        match self {
            Aes::Short(aes) => aes.decrypt_block(block),
            Aes::Long(aes) => aes.decrypt_block(block),
        }
    }
}

/// AES-XTS: IEEE 1619, with a sector's number as its tweak.
pub struct Xts {
    data: Aes,
    tweak: Aes,
}

impl Xts {
    /// A key of 32 or 64 bytes, of which the second half is for tweaks.
    fn new(key: &[u8]) -> Option<Xts> {
        let (data, tweak) = key.split_at(key.len() / 2);
        Some(Xts { data: Aes::new(data)?, tweak: Aes::new(tweak)? })
    }

    fn sectors(&self, first: u64, bytes: &mut [u8], f: impl Fn(&Aes, &mut [u8])) {
        for (sector, number) in bytes.chunks_exact_mut(SECTOR).zip(first..) {
            let mut tweak = [0; 16];
            tweak[..8].copy_from_slice(&number.to_le_bytes());
            self.tweak.encrypt(&mut tweak);
            let mut tweak = u128::from_le_bytes(tweak);
            for block in sector.chunks_exact_mut(16) {
                let mask = |block: &mut [u8]| block.iter_mut().zip(tweak.to_le_bytes()).for_each(|(b, t)| *b ^= t);
                mask(block);
                f(&self.data, block);
                mask(block);
                // Times x in GF(2^128).
                tweak = tweak << 1 ^ if tweak >> 127 != 0 { 0x87 } else { 0 };
            }
        }
    }
}

impl SectorCipher for Xts {
    fn decrypt(&mut self, sector: u64, bytes: &mut [u8]) {
        self.sectors(sector, bytes, Aes::decrypt);
    }

    fn encrypt(&mut self, sector: u64, bytes: &mut [u8]) {
        self.sectors(sector, bytes, Aes::encrypt);
    }
}

/// A header that has been opened with its passphrase.
pub struct Unlocked {
    /// The cipher of the data.
    pub cipher: Xts,
    /// Where the data begins, in bytes behind the header's beginning.
    pub payload: u64,
}

fn be32(bytes: &[u8], i: usize) -> u32 {
    u32::from_be_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]])
}

fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).unwrap_or_default()
}

/// Opens a header. `read` reads at an offset behind its beginning.
///
/// # Errors
/// It is no LUKS header, or one that this program does not read, or the passphrase is wrong.
pub fn unlock(mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>, secret: &[u8]) -> io::Result<Unlocked> {
    let mut h = [0; HEADER_LEN];
    read(0, &mut h)?;
    if !h.starts_with(MAGIC) {
        return Err(invalid("Volume is not in LUKS format"));
    }
    match u16::from_be_bytes([h[6], h[7]]) {
        1 => {}
        other => return Err(invalid(format!("LUKS version {other} is not implemented"))),
    }
    let (cipher, mode, hash) = (text(&h[8..40]), text(&h[40..72]), text(&h[72..104]));
    if (cipher, mode) != ("aes", "xts-plain64") {
        return Err(invalid(format!("LUKS cipher {cipher}-{mode} is not implemented; aes-xts-plain64 is")));
    }
    let hash = match hash {
        "sha1" => Hash::Sha1,
        "sha256" => Hash::Sha256,
        "sha512" => Hash::Sha512,
        other => return Err(invalid(format!("LUKS hash {other} is not implemented; sha1, sha256 and sha512 are"))),
    };
    let (payload, key_len) = (u64::from(be32(&h, 104)) * SECTOR as u64, be32(&h, 108) as usize);
    let (digest, salt, iterations) = (&h[112..132], &h[132..164], be32(&h, 164));
    if !matches!(key_len, 32 | 64) {
        return Err(invalid(format!("LUKS keys of {key_len} bytes are not implemented")));
    }
    let slots = h[208..].chunks_exact(48).take(SLOTS).filter(|s| be32(s, 0) == SLOT_ACTIVE);
    if iterations == 0 || slots.clone().any(|s| be32(s, 4) == 0) {
        return Err(invalid("the LUKS header is damaged"));
    }
    let rounds = |iterations: u32, len: usize| u64::from(iterations) * len.div_ceil(hash.len()) as u64;
    let all: u64 = slots.clone().map(|s| rounds(be32(s, 4), key_len) + rounds(iterations, digest.len())).sum();
    if all > MOST_ROUNDS {
        return Err(invalid(format!("the LUKS header asks for {all} rounds of its hash, which is too many")));
    }
    for s in slots {
        let (offset, stripes) = (u64::from(be32(s, 40)) * SECTOR as u64, be32(s, 44));
        if stripes == 0 || stripes > MOST_STRIPES {
            return Err(invalid("the LUKS header is damaged"));
        }
        let key = hash.pbkdf2(secret, &s[8..40], be32(s, 4), key_len);
        let mut material = vec![0; (key_len * stripes as usize).next_multiple_of(SECTOR)];
        read(offset, &mut material)?;
        let Some(mut xts) = Xts::new(&key) else { continue };
        xts.decrypt(0, &mut material);
        let master = merge(hash, &material[..key_len * stripes as usize], key_len);
        if hash.pbkdf2(&master, salt, iterations, digest.len()) == digest
            && let Some(cipher) = Xts::new(&master)
        {
            return Ok(Unlocked { cipher, payload });
        }
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "Invalid password, cannot unlock any keyslot"))
}

/// Makes the key that has been split into stripes whole.
fn merge(hash: Hash, stripes: &[u8], len: usize) -> Vec<u8> {
    let mut key = vec![0; len];
    let count = stripes.len() / len;
    for (i, stripe) in stripes.chunks_exact(len).enumerate() {
        key.iter_mut().zip(stripe).for_each(|(k, s)| *k ^= s);
        if i + 1 < count {
            key = hash.diffuse(&key);
        }
    }
    key
}

/// An encrypted disk.
pub struct Luks {
    file: Box<dyn Storage>,
    cipher: Xts,
    payload: u64,
}

impl Luks {
    /// Opens the disk in `file`.
    ///
    /// # Errors
    /// As [`unlock`].
    pub fn open(mut file: Box<dyn Storage>, secret: Option<&[u8]>) -> io::Result<Luks> {
        let Some(secret) = secret else {
            return Err(invalid("Parameter 'key-secret' is required for cipher"));
        };
        let Unlocked { cipher, payload } = unlock(|at, bytes| file.read_at(at, bytes), secret)?;
        if payload > file.len() {
            return Err(invalid("the LUKS volume has no data"));
        }
        Ok(Luks { file, cipher, payload })
    }

    fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.len().next_multiple_of(SECTOR as u64) => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Image for Luks {
    fn len(&self) -> u64 {
        self.file.len() - self.payload
    }

    fn is_read_only(&self) -> bool {
        self.file.is_read_only()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, buffer.len())?;
        let sector = SECTOR as u64;
        let (start, end) = (offset / sector * sector, (offset + buffer.len() as u64).next_multiple_of(sector));
        let mut bytes = vec![0; (end - start) as usize];
        self.file.read_at(self.payload + start, &mut bytes)?;
        self.cipher.decrypt(start / sector, &mut bytes);
        let from = (offset - start) as usize;
        buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset, bytes.len())?;
        let sector = SECTOR as u64;
        let (start, end) = (offset / sector * sector, (offset + bytes.len() as u64).next_multiple_of(sector));
        let mut secret = vec![0; (end - start) as usize];
        if (start, end) != (offset, offset + bytes.len() as u64) {
            self.read_at(start, &mut secret)?;
        }
        let from = (offset - start) as usize;
        secret[from..from + bytes.len()].copy_from_slice(bytes);
        self.cipher.encrypt(start / sector, &mut secret);
        self.file.write_at(self.payload + start, &secret)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Layer for Luks {
    fn format(&self) -> Format {
        Format::Luks
    }

    fn extent(&mut self, _offset: u64, max: u64) -> io::Result<Extent> {
        Ok(Extent { len: max, kind: ExtentKind::Data { at: None, compressed: false, hole: false } })
    }

    fn resize(&mut self, len: u64) -> io::Result<()> {
        let old = self.len();
        self.file.set_len(self.payload + len)?;
        // New sectors are zeros once they are decrypted.
        if len > old { self.write_zeroes(old, len - old, false) } else { Ok(()) }
    }

    fn is_encrypted(&self) -> bool {
        true
    }

    fn allocated(&self) -> u64 {
        self.file.allocated()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::open::{OpenOptions, open};
    use crate::image::testing::*;
    use std::process::Output;

    #[test]
    fn xts_is_that_of_ieee_1619() {
        // IEEE 1619-2007 annex B, vector 1: keys and data zeros, sector 0.
        let mut xts = Xts::new(&[0; 32]).unwrap();
        let mut bytes = [0; 512];
        xts.encrypt(0, &mut bytes);
        assert_eq!(bytes[..8], [0x91, 0x7c, 0xf6, 0x9e, 0xbd, 0x68, 0xb2, 0xec]);
        xts.decrypt(0, &mut bytes);
        assert_eq!(bytes, [0; 512]);
    }

    #[test]
    fn images_made_by_qemu_img_open_with_their_key_and_no_other() {
        let folder = Folder::new("luks");
        let mut random = fastrand::Rng::with_seed(8);
        let mut model = vec![0; 1 << 20];
        model.iter_mut().for_each(|b| *b = random.u8(..));
        let raw = folder.path("raw");
        std::fs::write(&raw, &model).unwrap();
        for (format, options, target) in [
            (Format::Luks, "key-secret=s,iter-time=10", "driver=luks,key-secret=s,file.filename="),
            (
                Format::Qcow2,
                "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
                "driver=qcow2,encrypt.key-secret=s,file.filename=",
            ),
        ] {
            let path = folder.path(format.name());
            let secret = "secret,id=s,data=open sesame";
            let size = model.len().to_string();
            let words = ["create", "-q", "--object", secret, "-f", format.name(), "-o", options, &path, &size];
            // How many iterations take 10 ms it measures, and fails where its processor time has not moved meanwhile.
            let unmeasured = |made: &Output| String::from_utf8_lossy(&made.stderr).contains("accurate CPU usage");
            let mut tries = std::iter::repeat_with(|| qemu_img(&words)).take(20);
            let Some(made) = tries.find(|made| !made.as_ref().is_some_and(unmeasured)).flatten() else {
                return;
            };
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let target = format!("{target}{path}");
            qemu_img_ok(&["convert", "-n", "--object", secret, "-f", "raw", "--target-image-opts", &raw, &target]);
            let how = |secret: &str| OpenOptions {
                format: Some(format),
                secret: Some(secret.as_bytes().to_vec()),
                ..OpenOptions::default()
            };
            let wrong = open(&path, &how("close sesame"), &mut Vec::new()).err().unwrap();
            assert!(wrong.contains("Invalid password, cannot unlock any keyslot"), "{wrong}");
            let none = OpenOptions { format: Some(format), ..OpenOptions::default() };
            assert!(open(&path, &none, &mut Vec::new()).err().unwrap().contains("key-secret' is required"));
            let mut image = open(&path, &how("open sesame"), &mut Vec::new()).unwrap();
            assert!(contents(image.as_mut()) == model);
            let mut changed = model.clone();
            random_operations(image.as_mut(), &mut changed, &mut random, 60);
            image.write_at(777, &[5; 100]).unwrap();
            changed[777..877].fill(5);
            drop(image);
            std::fs::write(&raw, &changed).unwrap();
            qemu_img_ok(&[
                "compare",
                "--object",
                secret,
                "--image-opts",
                &target,
                &format!("driver=raw,file.filename={raw}"),
            ]);
            std::fs::write(&raw, &model).unwrap();
        }
    }

    #[test]
    fn hostile_headers_are_refused() {
        let mut h = vec![0; 1 << 16];
        h[..6].copy_from_slice(MAGIC);
        h[7] = 1;
        h[8..11].copy_from_slice(b"aes");
        h[40..51].copy_from_slice(b"xts-plain64");
        h[72..78].copy_from_slice(b"sha256");
        h[108..112].copy_from_slice(&64u32.to_be_bytes());
        h[164..168].copy_from_slice(&10u32.to_be_bytes());
        h[208..212].copy_from_slice(&SLOT_ACTIVE.to_be_bytes());
        h[212..216].copy_from_slice(&10u32.to_be_bytes());
        h[252..256].copy_from_slice(&4000u32.to_be_bytes());
        let try_with = |at: usize, value: u32| {
            let mut h = h.clone();
            h[at..at + 4].copy_from_slice(&value.to_be_bytes());
            let storage = crate::image::storage::MemoryStorage::new(h);
            Luks::open(Box::new(storage), Some(b"x")).err().unwrap().to_string()
        };
        assert!(try_with(108, u32::MAX).contains("keys of"));
        assert!(try_with(164, u32::MAX).contains("too many"));
        assert!(try_with(212, u32::MAX).contains("too many"));
        assert!(try_with(252, u32::MAX).contains("damaged"));
        // Each slot on its own would do.
        let mut greedy = h.clone();
        for slot in 0..SLOTS {
            let at = 208 + 48 * slot;
            greedy.copy_within(208..256, at);
            greedy[at + 4..at + 8].copy_from_slice(&90_000_000u32.to_be_bytes());
        }
        let storage = crate::image::storage::MemoryStorage::new(greedy);
        let error = Luks::open(Box::new(storage), Some(b"x")).err().unwrap().to_string();
        assert!(error.contains("too many"), "{error}");
        assert!(try_with(252, 4000).contains("Invalid password"), "{}", try_with(252, 4000));
    }
}

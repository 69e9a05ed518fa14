//! Encryption of sectors, as LUKS has it.

/// Encrypts and decrypts runs of 512-byte sectors.
pub trait SectorCipher: Send {
    /// Decrypts whole sectors in place, the first of which is number `sector`.
    fn decrypt(&mut self, sector: u64, bytes: &mut [u8]);

    /// Encrypts whole sectors in place, the first of which is number `sector`.
    fn encrypt(&mut self, sector: u64, bytes: &mut [u8]);
}

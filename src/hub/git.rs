//! The ids that git gives to contents. The hub lists each file with its own: what was fetched is checked against it.
//!
//! A small file lies in git as it is. In place of a large one lies a pointer of a few lines with its SHA-256
//! (<https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>), so that the id of the pointer, too, tells whether the
//! large file is the right one.

use sha2::{Digest, Sha256};

/// The id of a file that lies in git as it is, fed piece by piece.
#[derive(Debug, Clone)]
pub(super) struct BlobId(Sha1);

impl BlobId {
    /// Of a file of this length.
    pub(super) fn new(size_bytes: u64) -> Self {
        let mut hash = Sha1::default();
        hash.update(format!("blob {size_bytes}\0").as_bytes());
        Self(hash)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> String {
        hex(&self.0.finish())
    }
}

/// The id of the pointer to a large file.
pub(super) fn pointer_id(sha256: &str, size_bytes: u64) -> String {
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n");
    let mut id = BlobId::new(pointer.len() as u64);
    id.update(pointer.as_bytes());
    id.finish()
}

/// What a large file is called in the cache.
pub(super) fn sha256_hex(hash: Sha256) -> String {
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// SHA-1 (FIPS 180-4), which git's ids are made of. It tells a damaged file from a whole one; nothing here depends on
/// its strength, which is broken: what may not be forged is the connection to the hub.
#[derive(Debug, Clone)]
struct Sha1 {
    state: [u32; 5],
    length: u64,
    /// Bytes that do not fill a block yet.
    rest: Vec<u8>,
}

impl Default for Sha1 {
    fn default() -> Self {
        let state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
        Self { state, length: 0, rest: Vec::new() }
    }
}

impl Sha1 {
    fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.rest.extend_from_slice(bytes);
        let (blocks, rest) = self.rest.as_chunks::<64>();
        for block in blocks {
            compress(&mut self.state, block);
        }
        self.rest = rest.to_vec();
    }

    fn finish(mut self) -> [u8; 20] {
        let bits = self.length * 8;
        let mut padding = vec![0x80];
        padding.resize(1 + (119 - self.length as usize % 64) % 64, 0);
        padding.extend(bits.to_be_bytes());
        self.update(&padding);
        let mut digest = [0; 20];
        for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        digest
    }
}

fn compress(state: &mut [u32; 5], block: &[u8; 64]) {
    let mut words = [0; 80];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for i in 16..80 {
        words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
    }
    let mut mixed = *state;
    for (i, word) in words.into_iter().enumerate() {
        let [first, x, y, z, last] = mixed;
        let (choice, constant) = match i {
            0..20 => ((x & y) | (!x & z), 0x5a82_7999_u32),
            20..40 => (x ^ y ^ z, 0x6ed9_eba1),
            40..60 => ((x & y) | (x & z) | (y & z), 0x8f1b_bcdc),
            _ => (x ^ y ^ z, 0xca62_c1d6),
        };
        let sum = [choice, last, constant, word].into_iter().fold(first.rotate_left(5), u32::wrapping_add);
        mixed = [sum, first, x.rotate_left(30), y, z];
    }
    for (sum, word) in state.iter_mut().zip(mixed) {
        *sum = sum.wrapping_add(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha1(bytes: &[u8]) -> String {
        let mut hash = Sha1::default();
        hash.update(bytes);
        hex(&hash.finish())
    }

    /// FIPS 180's own examples.
    #[test]
    fn sha1_is_that_of_the_standard() {
        assert_eq!(sha1(b""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(sha1(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(sha1(two_blocks), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        assert_eq!(sha1(&vec![b'a'; 1_000_000]), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    }

    #[test]
    fn pieces_do_not_matter() {
        for length in [55, 56, 63, 64, 65, 119, 120, 128, 1000] {
            let bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
            for piece in [1, 7, 64, 100] {
                let mut hash = Sha1::default();
                bytes.chunks(piece).for_each(|piece| hash.update(piece));
                assert_eq!(hex(&hash.finish()), sha1(&bytes), "{length} bytes in pieces of {piece}");
            }
        }
    }

    /// As `git hash-object` says.
    #[test]
    fn contents_have_the_ids_of_git() {
        let id = |content: &[u8]| {
            let mut id = BlobId::new(content.len() as u64);
            id.update(content);
            id.finish()
        };
        assert_eq!(id(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(id(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
    }

    /// What the hub lists for a file of 384 MB.
    #[test]
    fn pointers_have_the_ids_that_the_hub_lists() {
        let sha256 = "07f700e293baeaf3cd4240c3df1a948c4403f16961ea7979e86c8d6a9f8fd466";
        assert_eq!(pointer_id(sha256, 383_865_448), "2414184f64bda500ff7d0997c6a5e1a5bf69f84f");
        assert_ne!(pointer_id(sha256, 383_865_449), "2414184f64bda500ff7d0997c6a5e1a5bf69f84f");
    }
}

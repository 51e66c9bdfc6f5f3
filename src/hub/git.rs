//! Git ids of contents. The hub lists each file with its id, and every download is checked against it.
//!
//! Git holds a small file as it is. For a large file it holds a pointer: a few lines of text with the file's SHA-256
//! (<https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>). The id of the pointer therefore identifies the large
//! file too.
//!
//! Ids are SHA-1, which is broken. They detect damage here; protection from forgery is up to the connection to the hub.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The id of a file that git holds as it is, computed incrementally.
#[derive(Debug, Clone)]
pub(super) struct BlobId(Sha1);

impl BlobId {
    /// For a file of this length.
    pub(super) fn new(size_bytes: u64) -> Self {
        Self(Sha1::new_with_prefix(format!("blob {size_bytes}\0")))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// The id of the pointer to a large file.
pub(super) fn pointer_id(sha256: &str, size_bytes: u64) -> String {
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n");
    let mut id = BlobId::new(pointer.len() as u64);
    id.update(pointer.as_bytes());
    id.finish()
}

/// The name of a large file in the cache.
pub(super) fn sha256_hex(hash: Sha256) -> String {
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha1(bytes: &[u8]) -> String {
        hex(&Sha1::digest(bytes))
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
                let mut hash = Sha1::new();
                bytes.chunks(piece).for_each(|piece| hash.update(piece));
                assert_eq!(hex(&hash.finalize()), sha1(&bytes), "{length} bytes in pieces of {piece}");
            }
        }
    }

    /// Expected values from `git hash-object`.
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

    /// The hub's listing for a file of 384 MB.
    #[test]
    fn pointers_have_the_ids_that_the_hub_lists() {
        let sha256 = "07f700e293baeaf3cd4240c3df1a948c4403f16961ea7979e86c8d6a9f8fd466";
        assert_eq!(pointer_id(sha256, 383_865_448), "2414184f64bda500ff7d0997c6a5e1a5bf69f84f");
        assert_ne!(pointer_id(sha256, 383_865_449), "2414184f64bda500ff7d0997c6a5e1a5bf69f84f");
    }
}

//! Digits that identify files without reading all of large ones.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Bytes read at the start of a weights file. They hold the safetensors header of most checkpoints: the names, types,
/// shapes and offsets of all tensors.
const HEAD_BYTES: u64 = 256 << 10;

/// Further blocks read from a weights file, evenly spaced, the last at its end.
const BLOCKS: u64 = 64;

/// Bytes read at a time of a file that is read whole.
const READ_BYTES: usize = 1 << 20;

/// Bytes of each block.
const BLOCK_BYTES: u64 = 4 << 10;

/// The digits for files that are read whole, and files of which samples are read.
pub(super) fn of_files(whole: &[impl AsRef<Path>], sampled: &[impl AsRef<Path>]) -> Result<String> {
    let mut hash = Sha256::new();
    for file in whole.iter().map(AsRef::as_ref) {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        let mut whole = || {
            let mut opened = File::open(file)?;
            hash.update(opened.metadata()?.len().to_le_bytes());
            let mut block = vec![0; READ_BYTES];
            loop {
                match opened.read(&mut block)? {
                    0 => return Ok(()),
                    bytes => hash.update(&block[..bytes]),
                }
            }
        };
        whole().map_err(|source| Error::io(file, source))?;
    }
    for file in sampled.iter().map(AsRef::as_ref) {
        sample(file, &mut hash).map_err(|source| Error::io(file, source))?;
    }
    Ok(digits(hash))
}

/// The digits for texts.
pub(super) fn of_texts(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    digits(hash)
}

fn digits(hash: Sha256) -> String {
    let mut digits = [0; 16];
    digits.copy_from_slice(&hash.finalize()[..16]);
    format!("{:032x}", u128::from_be_bytes(digits))
}

/// Hashes a file's length and samples of its content.
fn sample(path: &Path, hash: &mut Sha256) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    hash.update(length.to_le_bytes());
    for (start, bytes) in samples(length) {
        let mut buffer = vec![0; bytes as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut buffer)?;
        hash.update(buffer);
    }
    Ok(())
}

/// The byte ranges (start, length) that are read from a file of this length.
fn samples(length: u64) -> Vec<(u64, u64)> {
    let head = length.min(HEAD_BYTES);
    let rest = length - head;
    if rest <= BLOCKS * BLOCK_BYTES {
        return vec![(0, length)];
    }
    let last = rest - BLOCK_BYTES;
    let block = |number| (head + (u128::from(last) * u128::from(number) / u128::from(BLOCKS - 1)) as u64, BLOCK_BYTES);
    std::iter::once((0, head)).chain((0..BLOCKS).map(block)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_read_whole() {
        for length in [0, 1, HEAD_BYTES, HEAD_BYTES + BLOCKS * BLOCK_BYTES] {
            assert_eq!(samples(length), [(0, length)]);
        }
    }

    #[test]
    fn large_files_are_sampled_from_end_to_end() {
        let length = 37_000_000_001;
        let samples = samples(length);
        assert_eq!(samples.len() as u64, BLOCKS + 1);
        assert_eq!(samples[0], (0, HEAD_BYTES));
        assert_eq!(samples.last(), Some(&(length - BLOCK_BYTES, BLOCK_BYTES)));
        let gaps: Vec<u64> = samples[1..].windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(gaps.iter().max().unwrap() - gaps.iter().min().unwrap() <= 1, "{gaps:?}");
    }

    #[test]
    fn what_is_seen_of_a_large_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        let mut content = vec![0_u8; 4 << 20];
        let mut digest = |change: usize| {
            content[change] ^= 1;
            std::fs::write(&path, &content).unwrap();
            content[change] ^= 1;
            let mut hash = Sha256::new();
            sample(&path, &mut hash).unwrap();
            hash.finalize()
        };
        // A byte in the head, one at the end, and one between two blocks.
        let between = (HEAD_BYTES + 2 * BLOCK_BYTES) as usize;
        let (head, end, unseen) = (digest(10), digest((4 << 20) - 1), digest(between));
        assert_ne!(head, end);
        assert_ne!(head, unseen);
        assert_eq!(unseen, digest(between + 1), "both are between the blocks");
    }
}

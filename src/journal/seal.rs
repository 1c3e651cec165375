//! The SHA-256 that seals a row.

use aws_lc_rs::digest::{SHA256, digest};

/// Returns the digest over `pieces`.
///
/// Each piece is preceded by its length, so that a byte that moves from one piece to its neighbour changes the digest.
pub(super) fn seal(pieces: &[&[u8]]) -> [u8; 32] {
    let mut whole = Vec::new();
    for piece in pieces {
        whole.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        whole.extend_from_slice(piece);
    }
    sha256(&whole)
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}

//! The SHA-256 that seals a row.

use super::key::sha256;

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

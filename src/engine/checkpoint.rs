//! The checkpoint of an upload: the content of its journal entry as a value.
//!
//! A program stores it where it likes and continues from it with [`Upload::resume_from`](crate::Upload::resume_from):
//! without a journal, from another path, on another host. The inode and ctime of the file, by which a journal knows it
//! again, mean nothing there. The length, mtime and the digests of chunks take their place.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::engine::journal_entry::Recovered;
use crate::engine::options::UploadOptions;
use crate::engine::proof::Unproved;
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::journal::{ContainerState, CreatedBy};
use crate::session::Resumed;
use crate::source::{ChunkDigest, SourceFile};
use crate::wire::{Addressing, Plan};

/// The progress of an upload of a file, from which another process can continue it. Contains no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The version of this format: [`Checkpoint::VERSION`].
    pub version: u32,
    /// The URL of the service, in canonical form.
    pub endpoint_url: String,
    /// `true` if the upload uses an upload token in place of the API key. The token itself is not part of the
    /// checkpoint.
    pub is_delegated: bool,
    /// The options of the upload, without the upload token.
    pub options: UploadOptions,
    /// The video as far as it is known. While it is being created, its mark.
    pub container: ContainerState,
    /// The length of the file in bytes.
    pub file_bytes: u64,
    /// The last write to the file, in whole seconds since 1970.
    pub file_mtime_s: i64,
    /// The rest of that time, in nanoseconds.
    pub file_mtime_ns: u32,
    /// The addressing of the chunks on the wire.
    pub addressing: Addressing,
    /// The length of every chunk but the last, in bytes.
    pub chunk_bytes: u64,
    /// The acknowledged chunks, counted from 0, in ascending order.
    pub acknowledged: Vec<RangeInclusive<u32>>,
    /// The digests of the chunks that were sent; `None` for a chunk that was sent with different bytes.
    #[serde(with = "digests_as_text", skip_serializing_if = "BTreeMap::is_empty", default)]
    digests: BTreeMap<u32, Option<ChunkDigest>>,
}

impl Checkpoint {
    /// The version of the format that this library writes.
    pub const VERSION: u32 = 1;

    /// Returns the video id; `None` until it is known.
    pub fn video_id(&self) -> Option<&str> {
        match &self.container {
            ContainerState::Known { video_id, .. } => Some(video_id),
            ContainerState::None | ContainerState::Intended { .. } => None,
        }
    }

    /// Returns the number of acknowledged chunks.
    pub fn acknowledged_chunks(&self) -> u32 {
        // A checkpoint comes from a caller's storage, where its ranges may have been damaged.
        let len = |range: &RangeInclusive<u32>| range.end().saturating_sub(*range.start()).saturating_add(1);
        let ranges = self.acknowledged.iter().filter(|range| !range.is_empty());
        ranges.map(len).fold(0, u32::saturating_add)
    }

    /// Creates the checkpoint of an upload of which nothing was sent.
    pub(crate) fn begin(
        endpoint_url: &str,
        options: UploadOptions,
        file: &SourceFile,
        plan: Plan,
    ) -> Checkpoint {
        let (file_mtime_s, file_mtime_ns) = mtime_of(file);
        let is_delegated = options.upload_token.is_some();
        let container = match &options.video_id {
            Some(id) => ContainerState::Known { video_id: id.clone(), made: CreatedBy::Given },
            // The first chunk creates the video, so that no separate request precedes it.
            None if is_delegated => ContainerState::Intended { mark: String::new() },
            None => ContainerState::None,
        };
        Checkpoint {
            version: Checkpoint::VERSION,
            endpoint_url: endpoint_url.to_owned(),
            is_delegated,
            options: UploadOptions { upload_token: None, ..options },
            container,
            file_bytes: file.len(),
            file_mtime_s,
            file_mtime_ns,
            addressing: plan.addressing(),
            chunk_bytes: plan.chunk_bytes(),
            acknowledged: Vec::new(),
            digests: BTreeMap::new(),
        }
    }

    /// Replaces the container. The chunks of another container are forgotten.
    pub(crate) fn set_container(&mut self, container: ContainerState) {
        // Indexes mean other bytes in another container.
        if self.container != container && self.video_id().is_some() {
            self.acknowledged.clear();
            self.digests.clear();
        }
        self.container = container;
    }

    pub(crate) fn insert_acknowledged(&mut self, index: u32) {
        // Neighbours are joined, so that ten thousand chunks stay a few ranges.
        let at = self.acknowledged.partition_point(|range| *range.end() < index);
        if self.acknowledged.get(at).is_some_and(|range| range.contains(&index)) {
            return;
        }
        let joins_left = at > 0 && self.acknowledged[at - 1].end() + 1 == index;
        let joins_right = self.acknowledged.get(at).is_some_and(|range| *range.start() == index + 1);
        let first = if joins_left { *self.acknowledged[at - 1].start() } else { index };
        let last = if joins_right { *self.acknowledged[at].end() } else { index };
        let replaced = at - usize::from(joins_left)..at + usize::from(joins_right);
        self.acknowledged.splice(replaced, [first..=last]);
    }

    /// Adds the digest of a chunk as it was sent. A chunk that was sent before with other bytes keeps no usable digest:
    /// the service may have stored either.
    pub(crate) fn insert_digest(&mut self, index: u32, digest: Option<ChunkDigest>) {
        let kept = self.digests.entry(index).or_insert(digest);
        if *kept != digest {
            *kept = None;
        }
    }

    /// Returns the indexes of the acknowledged chunks.
    pub(crate) fn stored(&self) -> impl Iterator<Item = u32> + use<'_> {
        self.acknowledged.iter().cloned().flatten()
    }

    /// Completes the options of an upload that continues from the checkpoint.
    ///
    /// # Errors
    /// If the options contradict the checkpoint.
    pub(crate) fn complete(&self, options: &mut UploadOptions) -> Result<()> {
        // Fields of another version may have another meaning.
        if self.version != Checkpoint::VERSION {
            let reason = format!(
                "it has version {}, and this library reads version {}",
                self.version,
                Checkpoint::VERSION
            );
            return Err(refused(reason).with_hint(Hint::NewerVersion));
        }
        if self.is_delegated != options.upload_token.is_some() {
            let (began, now) =
                if self.is_delegated { ("an upload token", "none") } else { ("the API key", "one") };
            return Err(refused(format!(
                "the upload was begun with {began}, and an upload token is needed to continue it: {now} is given"
            )));
        }
        match (&options.video_id, self.video_id()) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                return Err(refused(format!("it fills video {theirs}, and video {ours} is requested")));
            }
            (Some(ours), None) => {
                return Err(refused(format!("its video is not known yet, and video {ours} is requested")));
            }
            _ => {}
        }
        if let ContainerState::Known { video_id, made: CreatedBy::Given } = &self.container {
            options.video_id = Some(video_id.clone());
        }
        if options.video == Default::default() {
            options.video = self.options.video.clone();
        }
        Ok(())
    }

    /// Returns the state from which the upload of `file` to the service at `endpoint_url` continues.
    ///
    /// # Errors
    /// If the checkpoint belongs to another service or another file, or if it is damaged.
    pub(crate) fn recover(&self, endpoint_url: &str, file: &SourceFile) -> Result<Recovered> {
        // Both URLs are in canonical form.
        if self.endpoint_url != endpoint_url {
            return Err(refused(format!(
                "the upload was begun at {}, and this is {endpoint_url}",
                self.endpoint_url
            )));
        }
        let plan = Plan::new(self.file_bytes, self.chunk_bytes, self.addressing);
        let plan =
            plan.map_err(|error| refused("it is damaged: its plan is impossible").with_source(error))?;
        // Checked before the ranges are expanded: a damaged range may have billions of indexes.
        if self.acknowledged.iter().any(|range| *range.end() >= plan.chunks()) {
            return Err(refused(format!("it is damaged: the file has {} chunks", plan.chunks())));
        }
        match &self.container {
            ContainerState::Known { video_id, made } => {
                let doubt = self.doubt(file)?;
                let resumed = Resumed { stored: self.stored().collect() };
                let digests = self.digests.iter().map(|(&index, &digest)| (index, digest)).collect();
                let (video_id, made) = (video_id.clone(), *made);
                Ok(Recovered::Container { video_id, made, plan, resumed, doubt, digests })
            }
            // No list can be searched with an upload token.
            ContainerState::Intended { .. } if self.is_delegated => Ok(Recovered::PossibleOrphan),
            ContainerState::Intended { mark } => Ok(Recovered::Intended { mark: mark.clone() }),
            ContainerState::None => Ok(Recovered::Nothing),
        }
    }

    /// Compares the file with the one that was sent: first by length, then by mtime or by the digests of chunks.
    fn doubt(&self, file: &SourceFile) -> Result<Option<Unproved>> {
        let changed = |reason: String| {
            let doing = format!(
                "continue {} in video {}",
                file.path().display(),
                self.video_id().unwrap_or_default()
            );
            Error::new(ErrorKind::SourceChanged, doing).because(reason)
        };
        if file.len() != self.file_bytes {
            let (ours, theirs) = (file.len(), self.file_bytes);
            return Err(changed(format!("it has {ours} bytes, and the file that was sent has {theirs}")));
        }
        let digests = || self.digests.iter().map(|(&index, &digest)| (index, digest)).collect();
        // A program can set an mtime (utimensat(2)): digests, if there are any, check an equal one.
        if mtime_of(file) == (self.file_mtime_s, self.file_mtime_ns) {
            return Ok((!self.digests.is_empty()).then(|| Unproved::Compare(digests())));
        }
        if self.stored().any(|index| !self.digests.contains_key(&index)) {
            let reason = "its mtime is not that of the file that was sent, and there are no digests of all chunks \
                          that could prove that its bytes are the same";
            return Err(changed(reason.to_owned()).with_advice(KEEP_MTIME));
        }
        Ok(Some(Unproved::Prove(digests())))
    }
}

fn mtime_of(file: &SourceFile) -> (i64, u32) {
    let ns = file.identity().mtime_ns;
    // stat(2) gives seconds of 64 bits, so that the split is exact.
    (ns.div_euclid(SECOND_NS) as i64, ns.rem_euclid(SECOND_NS) as u32)
}

fn refused(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, "continue from the checkpoint").because(reason)
}

const SECOND_NS: i128 = 1_000_000_000;

const KEEP_MTIME: &str = "copy the file with its times, or keep digests from the beginning (`Settings::checksum`: `Checksum::Always`)";

/// Digests as pairs of index and hexadecimal text. JSON has no numbers as keys.
mod digests_as_text {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::source::ChunkDigest;
    use crate::source::sha256::hex;

    pub(super) fn serialize<S: Serializer>(
        digests: &BTreeMap<u32, Option<ChunkDigest>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let in_hex = |digest: &ChunkDigest| hex(digest.as_bytes());
        serializer.collect_seq(digests.iter().map(|(index, digest)| (index, digest.as_ref().map(in_hex))))
    }

    /// A text that is no digest equals no bytes.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<u32, Option<ChunkDigest>>, D::Error> {
        let pairs = Vec::<(u32, Option<String>)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(index, hex)| (index, hex.and_then(|hex| parse(&hex)))).collect())
    }

    fn parse(hex: &str) -> Option<ChunkDigest> {
        // `from_str_radix` would take a sign.
        if !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
        ChunkDigest::from_bytes(&bytes?)
    }
}

#[cfg(test)]
mod tests;

//! The proof that chunks of an earlier process match the file, and the digests for a later proof.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;

use super::Transfer;
use crate::engine::event::EngineEvent;
use crate::engine::proof::{Proof, Proving, Unproved};
use crate::engine::source::UploadSource;
use crate::engine::worker::{SentWhole, SessionId};
use crate::error::{Error, ErrorKind, Result};
use crate::session::event::UploadEvent;
use crate::session::{ReceivedSet, SessionAction};

impl Transfer {
    /// Returns `true` while the chunks of an earlier process are compared with the file. Nothing is sent meanwhile.
    pub(crate) fn is_proving(&self) -> bool {
        self.compared.is_some()
    }

    /// Returns the number of bytes compared so far.
    pub(super) fn compared_bytes(&self) -> u64 {
        self.compared.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed))
    }

    /// Returns the session's next action. Returns `None` while the source is checked, and while chunks are compared
    /// unless the upload failed.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<SessionAction> {
        if self.is_checking_source() || self.is_proving() && !self.session.has_failed() {
            return None;
        }
        self.session.poll(now)
    }

    /// Returns the time of the next poll if no event arrives earlier.
    pub(crate) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        // The session's next action has to wait for the end of the comparison.
        if self.is_proving() { None } else { self.session.next_timeout(now) }
    }

    /// Returns `true` if a chunk waits for a lane, now or after a pause.
    pub(crate) fn wants_lane(&self) -> bool {
        !self.is_proving() && self.session.wants_lane()
    }

    /// Starts the comparison of the earlier process's chunks with the file, or begins anew if nothing can prove them.
    pub(super) fn resolve(
        &mut self,
        id: SessionId,
        doubt: Unproved,
        patience: Duration,
    ) -> Option<LocalBoxFuture<'static, EngineEvent>> {
        let (digests, is_complete) = match doubt {
            Unproved::Prove(digests) => (digests, true),
            Unproved::Compare(digests) => (digests, false),
            // No chunk is known to be sent. The earlier container can be filled if the service has no chunk either.
            Unproved::Anew if self.plans.unproved.is_none() && self.session.chunks().stored() == 0 => {
                (Vec::new(), true)
            }
            Unproved::Anew => {
                self.begin_anew(NO_DIGESTS);
                return None;
            }
        };
        let UploadSource::File { file, choice } = &self.source else { return None };
        // A chunk that the service has but that has no digest cannot be proved; `take_status` restarts the upload
        // then.
        if is_complete {
            self.session.expect_only(digests.iter().map(|(index, _)| *index));
        }
        let chunks = self.session.chunks();
        // A damaged record may name chunks that the plan does not have.
        let known = digests.into_iter().filter(|(index, _)| *index < chunks.known());
        let proving = Proving {
            file: file.clone(),
            residency: choice.residency,
            chunks: known.map(|(index, digest)| (index, chunks.chunk(index).extent, digest)).collect(),
            read: Arc::default(),
            cancelled: self.cancel.subscribe(),
        };
        self.compared = Some(proving.read.clone());
        Some(Box::pin(async move { EngineEvent::Proved(id, proving.run(patience).await) }))
    }

    /// Takes in the result of the comparison.
    pub(crate) fn proved(&mut self, proof: Result<Proof>) {
        self.compared = None;
        match proof {
            Ok(Proof::Equal { chunks, bytes }) => {
                self.record.proved();
                if let Err(error) = self.record.catch_up(self.session.chunks().plan()) {
                    return self.session.disprove(error);
                }
                // Only the chunks of a known container can be in doubt.
                let video_id = self.session.video_id().unwrap_or_default().to_owned();
                self.event_sink.emit(UploadEvent::Proved { video_id, chunks, bytes });
            }
            Ok(Proof::Differs { index }) => {
                let number = index + 1;
                self.begin_anew(format!(
                    "chunk {number} is not what an earlier run sent, though mtime is equal"
                ));
            }
            Err(error) => self.session.disprove(error.doing(self.continuing())),
        }
    }

    /// Takes in the service's status. A chunk that was stored and never compared with the file ends the upload.
    pub(crate) fn take_status(&mut self, status: Result<ReceivedSet>, now: Instant, jitter: f64) {
        match &status {
            Ok(received) if self.session.is_unexpected(received) => self.begin_anew(NO_DIGEST),
            _ => self.session.handle_status(status, now, jitter),
        }
    }

    /// Ends the upload. An upload to a new video follows where that is possible.
    fn begin_anew(&mut self, reason: impl Into<String>) {
        // Drop the `Resumed` event: this upload does not continue the earlier one.
        self.session.take_events();
        self.plans.changed = self.plans.unproved.take();
        let error = Error::new(ErrorKind::SourceChanged, self.continuing()).because(reason);
        self.session.disprove(error);
    }

    fn continuing(&self) -> String {
        match self.session.video_id() {
            Some(video_id) => format!("continue {} in video {video_id}", self.file_name),
            None => format!("continue {}", self.file_name),
        }
    }

    /// Records the digest of a chunk. Returns the sender that lets the lane write the end of the request once the journal
    /// has the digest: after the end the service may have the chunk, and a crash would leave the chunk without a digest.
    #[must_use]
    pub(crate) fn sent(&mut self, sent: SentWhole) -> oneshot::Sender<()> {
        self.record.sent(sent.index, sent.digest);
        sent.written
    }

    /// Reports once that the file's attributes changed during the upload.
    pub(super) fn report_touched(&mut self) {
        let touched = self.source.file().and_then(|file| file.touched());
        if let (Some(change), false) = (touched, self.has_reported_touched) {
            self.has_reported_touched = true;
            self.event_sink.emit(UploadEvent::SourceTouched { change });
        }
    }
}

const NO_DIGESTS: &str = "its attributes, links or name changed since an earlier run sent chunks of it, and there are \
    no digests that prove that these chunks are still its bytes";

const NO_DIGEST: &str = "its attributes, links or name changed since an earlier run sent chunks of it, and the \
    service has one of which there is no digest that proves that it is still the file's";

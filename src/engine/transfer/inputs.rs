//! Input of an upload beside the reports of its lanes: chunks of its stream and stop requests.

use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use tokio::sync::{mpsc, watch};

use super::Transfer;
use crate::engine::event::{EngineEvent, next_stop_request, next_stream_event};
use crate::engine::request::StopRequest;
use crate::engine::source::UploadSource;
use crate::engine::stream_reader::StreamEvent;
use crate::engine::worker::SessionId;
use crate::error::{Error, ErrorKind};
use crate::session::Outcome;
use crate::session::chunks::Last;
use crate::session::retry::Fate;

impl Transfer {
    /// Frees the stream's chunks that the service has stored.
    pub(super) fn release_stored(&mut self) {
        if let UploadSource::Stream { held, .. } = &mut self.source {
            let chunks = self.session.chunks();
            held.retain(|&index, _| !chunks.is_stored(index));
        }
    }

    /// Takes in a chunk or a failure of the stream, and returns the wait for the next one.
    pub(crate) fn take_stream_event(
        &mut self,
        id: SessionId,
        stream_event: StreamEvent,
        inbox: mpsc::Receiver<StreamEvent>,
    ) -> LocalBoxFuture<'static, EngineEvent> {
        match stream_event {
            StreamEvent::Chunk(chunk) => {
                let last = if chunk.is_last() { Last::Yes } else { Last::No };
                let extent = chunk.extent();
                if let Err(refused) = self.session.chunks().check(extent, last) {
                    let error = Error::from(refused).doing(format!("send {}", self.file_name));
                    self.session.handle_failure(error);
                    return next_stream_event(id, inbox);
                }
                // Before `handle_filled`: until then `known` is the index of this chunk.
                if let UploadSource::Stream { held, .. } = &mut self.source {
                    held.insert(self.session.chunks().known(), chunk);
                }
                self.session.handle_filled(extent, last);
            }
            StreamEvent::Failed(error) => self.session.handle_failure(error),
        }
        next_stream_event(id, inbox)
    }

    /// Ends the upload, because the bytes or the video of a chunk to send are missing.
    pub(crate) fn cannot_send(&mut self, index: u32, now: Instant) {
        let error =
            Error::new(ErrorKind::Internal, self.doing(index)).because("its bytes or its video are missing");
        self.session.handle_outcome(index, Outcome::Failed { error, fate: Fate::NotStored }, now, 0.0);
    }

    /// Takes in the end of the stream. If its last chunk never came, its reader thread panicked.
    pub(crate) fn stream_ended(&mut self) {
        // The failure that ended the stream says more than its end.
        if !self.session.chunks().has_ended() && !self.session.has_failed() {
            let error = Error::new(ErrorKind::Internal, format!("read {}", self.file_name));
            self.session.handle_failure(error.because("its reader ended before the stream did"));
        }
    }

    /// Ends the upload early if requested, and returns the wait for the next request.
    pub(crate) fn halt(
        &mut self,
        id: SessionId,
        halt: StopRequest,
        halted: watch::Receiver<StopRequest>,
    ) -> Option<LocalBoxFuture<'static, EngineEvent>> {
        match halt {
            StopRequest::No => {}
            StopRequest::AfterChunks if !self.is_proving() => self.session.stop(),
            // No request is under way while chunks are compared, so the upload can end at once.
            StopRequest::AfterChunks => {
                self.session.disprove(Error::new(ErrorKind::Cancelled, "finish the upload"))
            }
            StopRequest::Now => {
                let error = Error::new(ErrorKind::Cancelled, "finish the upload");
                if self.is_proving() {
                    self.session.disprove(error);
                } else {
                    self.session.handle_failure(error);
                }
                return None;
            }
        }
        Some(next_stop_request(id, halted))
    }
}

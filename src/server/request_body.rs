//! The body of a request, read with a size limit, an idle timeout and the injected faults.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use serde_json::Value;
use tokio::time::timeout;

use super::fault_injection::RequestFault;
use super::fault_plan::ConnectionEnd;
use super::problem::ProblemDetails;
use super::response::HandlerError;
use super::rules::UploadRefusal;

/// The body of one request.
pub(super) struct RequestBody {
    body: Incoming,
    received: u64,
    ended: bool,
    idle: Duration,
    fault: RequestFault,
}

impl RequestBody {
    /// Wraps a body that may pause for at most `idle` between two frames.
    pub(super) fn new(body: Incoming, idle: Duration, fault: RequestFault) -> RequestBody {
        RequestBody { body, received: 0, ended: false, idle, fault }
    }

    /// Returns `true` if every byte was read.
    pub(super) fn is_finished(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    /// Returns `true` if no byte was read yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.received == 0
    }

    /// Returns the next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, HandlerError> {
        loop {
            self.fault.before_read(self.received).await?;
            let frame = match timeout(self.idle, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(Some(Err(_))) | Err(_) => return Err(HandlerError::Disconnect(ConnectionEnd::Close)),
            };
            // Trailers are no bytes of the body.
            let Ok(bytes) = frame.into_data() else { continue };
            self.received += bytes.len() as u64;
            if self.received > MAX_BODY_BYTES {
                return Err(UploadRefusal::FileTooLarge { file_len: self.received }.into());
            }
            self.fault.after_read(self.received, bytes.len()).await?;
            return Ok(Some(bytes));
        }
    }

    /// Reads and discards the rest, at most `MAX_BODY_BYTES` in total.
    pub(super) async fn drain(&mut self) -> Result<(), HandlerError> {
        while !self.is_finished() {
            match self.next().await {
                Ok(Some(_)) => {}
                // The body is too large. Its rest stays unread, which closes the connection.
                Ok(None) | Err(HandlerError::Problem(_)) => break,
                Err(disconnect) => return Err(disconnect),
            }
        }
        Ok(())
    }

    /// Reads the body as JSON, at most `MAX_JSON_BYTES`.
    pub(super) async fn json(&mut self) -> Result<Value, HandlerError> {
        let mut text = Vec::new();
        while let Some(bytes) = self.next().await? {
            text.extend_from_slice(&bytes);
            if text.len() > MAX_JSON_BYTES {
                return Err(invalid_payload(format!("More than {MAX_JSON_BYTES} bytes.")).into());
            }
        }
        serde_json::from_slice(&text).map_err(|error| invalid_payload(error.to_string()).into())
    }
}

pub(super) fn invalid_payload(detail: String) -> ProblemDetails {
    ProblemDetails::bad_request("invalid-payload", "The body of the request cannot be read.").detail(detail)
}

/// The largest body that is read, including the body of a refused request.
const MAX_BODY_BYTES: u64 = 1 << 30;

/// The largest JSON body.
const MAX_JSON_BYTES: usize = 1 << 20;

//! The body of a request as it arrives, within bounds and with the faults that concern reading.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::answer::Failure;
use super::faults::{Action, Ending};
use super::problem::Problem;
use super::rules::Refusal;

/// Reads one body.
pub(super) struct Intake {
    body: Incoming,
    received: u64,
    ended: bool,
    idle: Duration,
    fault: Option<Action>,
}

impl Intake {
    /// A body that may pause for `idle` between two frames.
    pub(super) fn new(body: Incoming, idle: Duration, fault: Option<Action>) -> Intake {
        Intake { body, received: 0, ended: false, idle, fault }
    }

    /// Whether every byte was read.
    pub(super) fn is_finished(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    /// Whether nothing was read yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.received == 0
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            self.suffer_before().await?;
            let frame = match timeout(self.idle, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(Some(Err(_))) | Err(_) => return Err(Failure::Severed(Ending::Close)),
            };
            let Ok(bytes) = frame.into_data() else { continue };
            self.received += bytes.len() as u64;
            if self.received > MAX_BODY_BYTES {
                return Err(Refusal::FileTooLarge { file_len: self.received }.into());
            }
            self.suffer_after(bytes.len()).await?;
            return Ok(Some(bytes));
        }
    }

    /// Reads what is left, up to a bound, and forgets it.
    pub(super) async fn drain(&mut self) -> Result<(), Failure> {
        while !self.is_finished() {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) | Err(Failure::Problem(_)) => break,
                Err(severed) => return Err(severed),
            }
        }
        Ok(())
    }

    /// The body as JSON.
    pub(super) async fn json(&mut self) -> Result<Value, Failure> {
        let mut text = Vec::new();
        while let Some(bytes) = self.next().await? {
            text.extend_from_slice(&bytes);
            if text.len() > MAX_JSON_BYTES {
                return Err(invalid_payload(format!("More than {MAX_JSON_BYTES} bytes.")).into());
            }
        }
        serde_json::from_slice(&text).map_err(|error| invalid_payload(error.to_string()).into())
    }

    async fn suffer_before(&mut self) -> Result<(), Failure> {
        match self.fault {
            Some(Action::Cut { after_bytes, how }) if self.received >= after_bytes => {
                Err(Failure::Severed(how))
            }
            Some(Action::StallReading { after_bytes, for_ms }) if self.received >= after_bytes => {
                self.fault = None;
                sleep(Duration::from_millis(for_ms)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn suffer_after(&mut self, len: usize) -> Result<(), Failure> {
        match self.fault {
            // The frame may have been the last one: nobody would ask for another.
            Some(Action::Cut { after_bytes, how }) if self.received >= after_bytes => {
                Err(Failure::Severed(how))
            }
            Some(Action::Throttle { bytes_per_second }) => {
                sleep(Duration::from_secs_f64(len as f64 / bytes_per_second.max(1) as f64)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn invalid_payload(detail: String) -> Problem {
    Problem::bad_request("invalid-payload", "The body of the request cannot be read.").detail(detail)
}

/// The most bytes read of one request, refused ones included.
const MAX_BODY_BYTES: u64 = 1 << 30;

/// The most bytes of a JSON body.
const MAX_JSON_BYTES: usize = 1 << 20;

//! The control connections: small JSON requests beside the lanes that carry the files.

use std::cell::RefCell;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;

use crate::api::Exchange;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Dialer, Lane, Patience};

/// Idle connections to the service, one request at a time on each.
#[derive(Debug)]
pub(super) struct Control {
    dialer: Dialer,
    patience: Patience,
    idle: RefCell<Vec<Lane<Full<Bytes>>>>,
}

impl Control {
    pub(super) fn new(dialer: Dialer, patience: Patience) -> Control {
        Control { dialer, patience, idle: RefCell::new(Vec::new()) }
    }

    fn take_idle(&self) -> Option<Lane<Full<Bytes>>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut lane) = idle.pop() {
            if lane.is_open() {
                return Some(lane);
            }
        }
        None
    }

    fn put_back(&self, mut lane: Lane<Full<Bytes>>) {
        let mut idle = self.idle.borrow_mut();
        if lane.is_open() && idle.len() < IDLE_LANES {
            idle.push(lane);
        }
    }
}

impl Exchange for Control {
    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let request = self.address(request)?;
        let mut lane = match self.take_idle() {
            Some(lane) => lane,
            None => self.dialer.dial().await?,
        };
        let answer = lane.send(request, &self.patience).await?;
        self.put_back(lane);
        Ok(answer)
    }
}

impl Control {
    fn address(&self, request: Request<Bytes>) -> Result<Request<Full<Bytes>>> {
        let unusable = |error: http::Error| {
            Error::new(ErrorKind::InvalidInput, "address the request").with_source(error)
        };
        let (mut head, body) = request.into_parts();
        head.uri = Uri::try_from(self.dialer.path(&head.uri.to_string())).map_err(|e| unusable(e.into()))?;
        let host = HeaderValue::try_from(self.dialer.authority()).map_err(|e| unusable(e.into()))?;
        head.headers.insert(header::HOST, host);
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        Ok(Request::from_parts(head, Full::new(body)))
    }
}

/// More idle connections than calls at once are of no use.
const IDLE_LANES: usize = 4;

//! One JSON request and its answer.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::{malformed, refused};
use super::query::escape;
use super::{Exchange, Origin, Secret};
use crate::error::{Error, ErrorKind, Result};

/// A JSON request, all but its `Authorization`.
#[derive(Debug)]
pub(super) struct Call {
    doing: String,
    method: Method,
    path: String,
    body: Option<Bytes>,
    secret: Option<Secret>,
}

impl Call {
    /// A request without a body to `path`, a path and a query, to do what `doing` says.
    pub(super) fn new(doing: impl Into<String>, method: Method, path: impl Into<String>) -> Call {
        Call { doing: doing.into(), method, path: path.into(), body: None, secret: None }
    }

    /// Gives it a JSON body.
    pub(super) fn json(self, body: &impl Serialize) -> Result<Call> {
        match serde_json::to_vec(body) {
            Ok(json) => Ok(Call { body: Some(json.into()), ..self }),
            Err(cause) => Err(Error::new(ErrorKind::InvalidInput, self.doing).with_source(cause)),
        }
    }

    /// Names the secret in its path or body, so that no error repeats it.
    pub(super) fn carrying(self, secret: &Secret) -> Call {
        Call { secret: Some(secret.clone()), ..self }
    }

    /// Reads the JSON of a 2xx.
    pub(super) fn read<T: DeserializeOwned>(&self, answer: &Response<Bytes>) -> Result<T> {
        serde_json::from_slice(answer.body()).map_err(|cause| {
            let error = malformed(&self.doing, answer.status(), answer.body()).with_source(cause);
            let authorization = answer.extensions().get().map(|Used(authorization)| authorization);
            hide_secrets(error, authorization, self.secret.as_ref())
        })
    }

    /// Reads the JSON of a 2xx that holds a secret: no error shows any of it.
    pub(super) fn read_secret<T: DeserializeOwned>(&self, answer: &Response<Bytes>) -> Result<T> {
        serde_json::from_slice(answer.body()).map_err(|_| self.malformed())
    }

    /// The error for a 2xx that says something else than the protocol.
    pub(super) fn malformed(&self) -> Error {
        Error::new(ErrorKind::MalformedAnswer, &self.doing)
    }

    fn request(&self, origin: &Origin, authorization: Option<&HeaderValue>) -> Result<Request<Bytes>> {
        let mut request = Request::builder()
            .method(&self.method)
            .uri(&self.path)
            .header(header::ACCEPT, "application/json")
            .body(self.body.clone().unwrap_or_default())
            .map_err(|cause| Error::new(ErrorKind::InvalidInput, &self.doing).with_source(cause))?;
        let headers = request.headers_mut();
        headers.extend(origin.headers());
        headers.extend(authorization.map(|value| (header::AUTHORIZATION, value.clone())));
        let json = HeaderValue::from_static("application/json");
        headers.extend(self.body.is_some().then_some((header::CONTENT_TYPE, json)));
        Ok(request)
    }
}

/// What the request of an answer proved itself with, beside the answer until that is read.
#[derive(Clone)]
struct Used(HeaderValue);

/// The service, as far as one request goes.
#[derive(Debug)]
pub(super) struct Service<E> {
    exchange: E,
    origin: Origin,
}

impl<E: Exchange> Service<E> {
    pub(super) fn new(exchange: E, origin: Origin) -> Service<E> {
        Service { exchange, origin }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Makes one attempt at `call`. An answer that is not 2xx is an error.
    pub(super) async fn send(
        &self,
        call: &Call,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Bytes>> {
        let request = call.request(&self.origin, authorization)?;
        let mut answer = self.exchange.exchange(request).await.map_err(|failed| failed.doing(&call.doing))?;
        if answer.status().is_success() {
            authorization.map(|used| answer.extensions_mut().insert(Used(used.clone())));
            return Ok(answer);
        }
        Err(hide_secrets(refused(&call.doing, &answer), authorization, call.secret.as_ref()))
    }
}

/// Blots out what a request proved itself with, and the secret that it carried, where the answer
/// repeated them: a proxy's page names the URL that it refuses, a redirection leads to it.
pub fn hide_secrets(error: Error, authorization: Option<&HeaderValue>, carried: Option<&Secret>) -> Error {
    let shown = authorization.and_then(credentials).unwrap_or_default();
    let carried = carried.map_or("", Secret::reveal);
    error.hiding(shown).hiding(carried).hiding(&escape(carried))
}

/// What stands behind `Basic` or `Bearer`.
fn credentials(authorization: &HeaderValue) -> Option<&str> {
    Some(authorization.to_str().ok()?.split_once(' ')?.1)
}

//! One JSON request and its answer.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::de;
use super::exchange::Exchange;
use super::origin::Origin;
use super::problem::{malformed, refused};
use super::redactor::Redactor;
use super::secret::Secret;
use crate::error::{Error, ErrorKind, Result};

/// A JSON request, all but its `Authorization`.
#[derive(Debug)]
pub(super) struct ApiCall {
    doing: String,
    method: Method,
    path: String,
    body: Option<Bytes>,
    secret: Option<Secret>,
}

impl ApiCall {
    /// Creates a request without a body. `path` is a path and a query; `doing` names the operation in the infinitive.
    pub(super) fn new(doing: impl Into<String>, method: Method, path: impl Into<String>) -> ApiCall {
        ApiCall { doing: doing.into(), method, path: path.into(), body: None, secret: None }
    }

    /// Sets a JSON body.
    pub(super) fn json(self, body: &impl Serialize) -> Result<ApiCall> {
        match serde_json::to_vec(body) {
            Ok(json) => Ok(ApiCall { body: Some(json.into()), ..self }),
            Err(cause) => Err(Error::new(ErrorKind::InvalidInput, self.doing).with_source(cause)),
        }
    }

    /// Sets the secret in the path or body, so that no error repeats it.
    pub(super) fn carrying(self, secret: &Secret) -> ApiCall {
        ApiCall { secret: Some(secret.clone()), ..self }
    }

    /// Reads the JSON of a 2xx.
    pub(super) fn read<T: DeserializeOwned>(&self, answer: &Response<Bytes>) -> Result<T> {
        de::read(answer.body()).map_err(|cause| {
            let redactor = redactor_of(answer);
            redactor.clean(malformed(&self.doing, answer, &redactor).with_source(cause))
        })
    }

    /// Reads the JSON of a 2xx that holds a secret. An error shows no part of the answer.
    pub(super) fn read_secret<T: DeserializeOwned>(&self, answer: &Response<Bytes>) -> Result<T> {
        // The cause would quote the answer.
        de::read(answer.body()).map_err(|_| self.malformed())
    }

    /// Returns the error for a 2xx that does not follow the protocol.
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

/// Returns the secrets that an answer may repeat. [`Service::send`] attaches them to the answer.
pub(super) fn redactor_of(answer: &Response<Bytes>) -> Redactor {
    answer.extensions().get().cloned().unwrap_or_default()
}

/// The service as a target of single requests.
#[derive(Debug)]
pub(super) struct Service<E> {
    exchange: E,
    origin: Origin,
    redactor: Redactor,
}

impl<E: Exchange> Service<E> {
    pub(super) fn new(exchange: E, origin: Origin, redactor: Redactor) -> Service<E> {
        Service { exchange, origin, redactor }
    }

    pub(super) fn exchange(&self) -> &E {
        &self.exchange
    }

    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Makes one attempt at `call`. An answer that is not 2xx is an error.
    pub(super) async fn send(
        &self,
        call: &ApiCall,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Bytes>> {
        let request = call.request(&self.origin, authorization)?;
        let redactor = self.redactor.with(call.secret.as_ref());
        let failed = |error: Error| redactor.clean(error.doing(&call.doing));
        let mut answer = self.exchange.exchange(request).await.map_err(failed)?;
        if answer.status().is_success() {
            answer.extensions_mut().insert(redactor);
            return Ok(answer);
        }
        Err(redactor.clean(refused(&call.doing, &answer, &redactor)))
    }
}

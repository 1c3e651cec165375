//! The seam between the API and HTTP.

use bytes::Bytes;

use crate::error::Result;

/// One exchange with the service: a request out, its whole answer back.
///
/// The request's URI is a path and a query. `Host`, connections and every bound on waiting and on
/// the answer's length are the exchange's business. Paths, bodies and the `Authorization` header
/// may hold secrets: an exchange does not log them.
pub trait Exchange {
    /// Sends `request` and reads the answer, whatever its status.
    ///
    /// # Errors
    /// When no whole answer came back.
    fn exchange(&self, request: http::Request<Bytes>) -> impl Future<Output = Result<http::Response<Bytes>>>;
}

//! The interface between the API and HTTP.

use bytes::Bytes;

use crate::error::Result;

/// An exchange with the service: one request, one whole answer.
///
/// The request's URI is a path and a query. The implementation adds `Host`, makes connections, and bounds the
/// waiting time and the answer's length. It must not log paths, bodies or the `Authorization` header: they may
/// hold secrets.
pub(crate) trait Exchange {
    /// Sends `request` and reads the answer with any status.
    ///
    /// # Errors
    /// If no whole answer arrived.
    fn exchange(&self, request: http::Request<Bytes>) -> impl Future<Output = Result<http::Response<Bytes>>>;
}

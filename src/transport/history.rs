//! Facts about an endpoint that outlive its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use super::cookies::Cookies;
use super::cut_sizes::CutSizes;
use super::limits::HEADER_LINES_LIMIT;

/// The facts that all connections of a dialer share.
///
/// An endpoint that has answered once is the right one: later failures may be temporary and are retried.
#[derive(Debug, Default)]
pub(super) struct History {
    has_answered: AtomicBool,
    wants_certificate: AtomicBool,
    /// The most header lines of one answer.
    header_lines: AtomicUsize,
    cookies: Cookies,
    cut_sizes: CutSizes,
}

impl History {
    /// Returns the cookies that the endpoint has set.
    pub(super) fn cookies(&self) -> &Cookies {
        &self.cookies
    }

    /// Returns the sizes at which requests to the endpoint were cut off.
    pub(super) fn cut_sizes(&self) -> &CutSizes {
        &self.cut_sizes
    }

    /// Records a complete head of an HTTP answer, with the number of its header lines.
    pub(super) fn note_answer(&self, header_lines: usize) {
        // Relaxed here and below: single facts, which order no other memory.
        self.has_answered.store(true, Ordering::Relaxed);
        self.header_lines.fetch_max(header_lines, Ordering::Relaxed);
    }

    /// Returns the limit of header lines for a new connection; `None` for hyper's default.
    ///
    /// With a custom limit hyper allocates 30 KiB for each answer, so only endpoints that may need it get
    /// one.
    pub(super) fn header_lines_limit(&self) -> Option<usize> {
        let may_need_it =
            !self.has_answered() || self.header_lines.load(Ordering::Relaxed) > FEW_HEADER_LINES;
        may_need_it.then_some(HEADER_LINES_LIMIT)
    }

    /// Returns `true` if any connection received an HTTP answer.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    /// Returns `true` if the server requested a client certificate.
    pub(super) fn wants_certificate(&self) -> bool {
        self.wants_certificate.load(Ordering::Relaxed)
    }
}

/// Half of hyper's default limit.
const FEW_HEADER_LINES: usize = 50;

/// Provides no client certificate and records that the server requested one.
#[derive(Debug)]
pub(super) struct NoClientCertificate(pub(super) Arc<History>);

impl ResolvesClientCert for NoClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.wants_certificate.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

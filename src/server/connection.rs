//! Connections: accepts, decrypts and serves them, and ends them in the way that a fault requests.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::app_state::AppState;
use super::fault_plan::ConnectionEnd;
use super::routes;

/// Accepts and serves connections until the sender of `stop` is dropped; then closes every connection.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    state: Arc<AppState>,
    mut stop: oneshot::Receiver<Infallible>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(accepted) => {
                    connections.spawn(serve_connection(accepted, tls.clone(), state.clone()));
                }
                // Usually the process has no free descriptors; a connection that ends frees one.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    connections.shutdown().await;
}

async fn serve_connection(
    (tcp, peer): (TcpStream, SocketAddr),
    tls: Option<TlsAcceptor>,
    state: Arc<AppState>,
) {
    state.stats.count(|stats| stats.connections += 1);
    // Responses are small and written at once; with Nagle's algorithm their last segment would wait for an
    // ACK.
    let _ = tcp.set_nodelay(true);
    let ending = Arc::new(AtomicBool::new(false));
    let socket = ResettableStream { tcp, reset: ending.clone() };
    let result = match tls {
        None => serve_http(socket, state, ending).await,
        Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)).await {
            Ok(Ok(stream)) => serve_http(stream, state, ending).await,
            Ok(Err(_)) | Err(_) => return,
        },
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn serve_http<S>(stream: S, state: Arc<AppState>, reset: Arc<AtomicBool>) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let idle = state.settings.idle;
    let service = service_fn(move |request| {
        let (state, reset) = (state.clone(), reset.clone());
        async move {
            routes::serve(state, request).await.map_err(|ending| {
                // Relaxed: hyper drops the stream on the task that stores this.
                reset.store(ending == ConnectionEnd::Reset, Ordering::Relaxed);
                ClosedWithoutResponse
            })
        }
    });
    http1::Builder::new()
        // Required by `header_read_timeout`.
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(READ_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// The error that makes hyper end a connection without a response.
#[derive(Debug)]
struct ClosedWithoutResponse;

impl fmt::Display for ClosedWithoutResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ended without a response")
    }
}

impl std::error::Error for ClosedWithoutResponse {}

/// A TCP stream that can end with a reset.
struct ResettableStream {
    tcp: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for ResettableStream {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // socket(7): closing with SO_LINGER on and zero seconds sends a reset.
            let _ = rustix::net::sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for ResettableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ResettableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// The largest number of open connections; further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 1024;

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The time limit of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The size of hyper's read buffer, and therefore the largest frame of a body.
const READ_BYTES: usize = 512 * 1024;

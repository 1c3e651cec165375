//! Connections: accepted, perhaps encrypted, served, and ended the way a fault asks for.

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

use super::faults::Ending;
use super::routes;
use super::site::Site;

/// Serves until told to stop; then every connection is ended.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    site: Arc<Site>,
    mut stop: oneshot::Receiver<Infallible>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(accepted) => {
                    connections.spawn(serve(accepted, tls.clone(), site.clone()));
                }
                // Out of descriptors, most likely: connections that end give some back.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    connections.shutdown().await;
}

async fn serve((tcp, peer): (TcpStream, SocketAddr), tls: Option<TlsAcceptor>, site: Arc<Site>) {
    site.tallies.count(|tally| tally.connections += 1);
    // Answers are small and written at once; without it their tail would wait for an ACK.
    let _ = tcp.set_nodelay(true);
    let ending = Arc::new(AtomicBool::new(false));
    let socket = Socket { tcp, reset: ending.clone() };
    let result = match tls {
        None => speak(socket, site, ending).await,
        Some(tls) => match timeout(HANDSHAKE, tls.accept(socket)).await {
            Ok(Ok(stream)) => speak(stream, site, ending).await,
            Ok(Err(_)) | Err(_) => return,
        },
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn speak<S>(stream: S, site: Arc<Site>, reset: Arc<AtomicBool>) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let idle = site.settings.idle;
    let service = service_fn(move |request| {
        let (site, reset) = (site.clone(), reset.clone());
        async move {
            routes::serve(site, request).await.map_err(|ending| {
                reset.store(ending == Ending::Reset, Ordering::Relaxed);
                Severed
            })
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(READ_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// What the service returns to hyper where the connection is to end without an answer.
#[derive(Debug)]
struct Severed;

impl fmt::Display for Severed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ended without an answer")
    }
}

impl std::error::Error for Severed {}

/// A TCP stream that can end in a reset.
struct Socket {
    tcp: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // socket(7): closing with SO_LINGER on and zero seconds sends a reset.
            let _ = rustix::net::sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
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

/// More wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 1024;

/// How long to wait before accepting again after a failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The most that hyper reads at once, and so the longest frame of a body.
const READ_BYTES: usize = 512 * 1024;

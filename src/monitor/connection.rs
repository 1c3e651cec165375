//! Connections: accepts them, serves them, and ends those that take no bytes.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};

use super::options::MonitorLimits;
use super::routes::{Router, answer};

/// Serves viewers until the sender of `stop` is dropped. Then sends every viewer the last state, and closes the
/// connections.
pub(super) async fn serve(
    listener: TcpListener,
    router: Arc<Router>,
    limits: MonitorLimits,
    mut stop: oneshot::Receiver<Infallible>,
) {
    let (ending, _) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut publishing = pin!(router.hub.run());
    loop {
        tokio::select! {
            _ = &mut stop => break,
            () = &mut publishing => {}
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < limits.connections => match accepted {
                Ok((tcp, _)) => {
                    connections.spawn(serve_connection(tcp, router.clone(), limits, ending.subscribe()));
                }
                // Usually the process has no free descriptors; a connection that ends frees one.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    // First: a viewer that arrives now would miss the last event.
    drop(listener);
    router.hub.end();
    drop(ending);
    // Bounded: a viewer that takes no bytes must not delay the end of the run.
    let last_events = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(END_TIMEOUT, last_events).await;
    connections.shutdown().await;
}

async fn serve_connection(
    tcp: TcpStream,
    router: Arc<Router>,
    limits: MonitorLimits,
    mut ending: watch::Receiver<()>,
) {
    // Events are small and written at once; with Nagle's algorithm they would wait for an ACK.
    let _ = tcp.set_nodelay(true);
    // Bounds the events that a slow viewer has yet to read: they are outdated.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&tcp, SEND_BUFFER_BYTES);
    let stream = TimedStream { tcp, limit: limits.write, blocked: None };
    let service = service_fn(|request| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(answer(&router, request).await) }
    });
    let connection = http1::Builder::new()
        // Required by `header_read_timeout`.
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        // A longer head is answered with 431.
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // The sender is dropped at the end and sends nothing before.
        _ = ending.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "monitor connection ended");
    }
}

/// A TCP stream that fails if the peer takes no byte for a while.
struct TimedStream {
    tcp: TcpStream,
    limit: Duration,
    /// Set while the socket takes no bytes.
    blocked: Option<Pin<Box<Sleep>>>,
}

impl TimedStream {
    fn in_time<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        // The limit is for one blocked write, not for the connection: a viewer stays for as long as the run takes.
        if poll.is_ready() {
            self.blocked = None;
            return poll;
        }
        let limit = self.limit;
        let blocked = self.blocked.get_or_insert_with(|| Box::pin(sleep(limit)));
        blocked.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Without a limit: a viewer of events sends nothing for as long as it watches.
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.in_time(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The time for the last events at the end.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest head of a request. Browsers send 1 to 2 KiB.
const LONGEST_HEAD: usize = 16 * 1024;

/// The size of a socket's send buffer: a minute of events. The kernel doubles it.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

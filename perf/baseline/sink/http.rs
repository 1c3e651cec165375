//! The part of HTTP/1.1 that a sink needs: it parses heads and discards bodies in place.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::low_water::LowWater;

/// A byte stream from a client.
pub(crate) trait Channel {
    /// Appends the next bytes, at least one. Returns 0 at the end.
    fn fill(&mut self, into: &mut Vec<u8>) -> io::Result<usize>;

    /// Discards up to `len` bytes and returns their number. 0 means that the next bytes must be read with
    /// [`Channel::fill`], which also detects the end.
    fn discard(&mut self, len: u64) -> io::Result<u64>;

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// A request without its body.
pub(crate) struct Head {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) content_range: Option<String>,
    pub(crate) closes: bool,
    framing: Framing,
    expects_continue: bool,
}

/// The framing of a body (RFC 9112, section 6).
#[derive(Clone, Copy)]
enum Framing {
    Length(u64),
    Chunked,
}

/// One answer, always JSON.
pub(crate) struct Answer {
    pub(crate) status: &'static str,
    pub(crate) body: String,
}

/// An HTTP/1.1 connection with one request at a time.
pub(crate) struct Connection<C> {
    channel: C,
    /// Bytes that were received but not used yet.
    ahead: Vec<u8>,
}

impl<C: Channel> Connection<C> {
    pub(crate) fn new(channel: C) -> Connection<C> {
        Connection { channel, ahead: Vec::with_capacity(HEAD_BYTES) }
    }

    /// Reads the next request. Returns `None` if the client has closed the connection.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some((head, used)) = parse_head(&self.ahead)? {
                self.ahead.drain(..used);
                return Ok(Some(head));
            }
            if self.ahead.len() > HEAD_BYTES {
                return Err(invalid("a request's head is longer than 64 KiB"));
            }
            if self.channel.fill(&mut self.ahead)? == 0 {
                return if self.ahead.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Discards the request's body and returns its length.
    pub(crate) fn discard_body(&mut self, head: &Head) -> io::Result<u64> {
        if head.expects_continue {
            self.channel.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        match head.framing {
            Framing::Length(len) => self.discard(len).map(|()| len),
            Framing::Chunked => self.discard_chunks(),
        }
    }

    pub(crate) fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let Answer { status, body } = answer;
        let len = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
        );
        self.channel.write_all(text.as_bytes())
    }

    fn discard(&mut self, len: u64) -> io::Result<()> {
        let mut left = len - self.discard_ahead(len);
        while left > 0 {
            let gone = match self.channel.discard(left)? {
                0 => self.look_and_discard(left)?,
                gone => gone,
            };
            left -= gone;
        }
        Ok(())
    }

    fn look_and_discard(&mut self, len: u64) -> io::Result<u64> {
        match self.channel.fill(&mut self.ahead)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(self.discard_ahead(len)),
        }
    }

    fn discard_ahead(&mut self, len: u64) -> u64 {
        let here = len.min(self.ahead.len() as u64);
        self.ahead.drain(..here as usize);
        here
    }

    /// Discards a body in chunked transfer coding (RFC 9112, section 7.1), with its trailers.
    fn discard_chunks(&mut self) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let line = self.line()?;
            let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let len = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
                .ok_or_else(|| invalid("a transfer chunk has no size"))?;
            if len == 0 {
                while !self.line()?.is_empty() {}
                return Ok(total);
            }
            self.discard(len + 2)?;
            total += len;
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.ahead[..end].to_vec();
                self.ahead.drain(..end + 2);
                return Ok(line);
            }
            if self.channel.fill(&mut self.ahead)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A socket without TLS.
pub(crate) struct Plain {
    low_water: LowWater,
    socket: Arc<TcpStream>,
    busy_poll: Arc<BusyPoll>,
    /// Not written to while bytes are discarded: only its length is used, as the limit.
    scratch: Box<[u8]>,
}

impl Plain {
    pub(crate) fn new(socket: Arc<TcpStream>, busy_poll: Arc<BusyPoll>) -> Plain {
        let low_water = LowWater::new(Arc::clone(&socket), LOW_WATER_BYTES);
        Plain { low_water, socket, busy_poll, scratch: vec![0; DISCARD_BYTES].into_boxed_slice() }
    }

    /// Discards the next bytes. Polls for a moment before it sleeps, because waking a sleeping thread costs time. While
    /// several bodies arrive, it does not poll, because other threads need the processor.
    fn receive_and_discard(&mut self, most: usize) -> io::Result<usize> {
        let forget = |scratch: &mut [u8], awake| recv(&self.socket, scratch, RecvFlags::TRUNC | awake);
        let scratch = &mut self.scratch[..most];
        let mut caught = forget(scratch, RecvFlags::DONTWAIT);
        if matches!(caught, Err(Errno::AGAIN)) && self.busy_poll.has_one_body() {
            caught = self.busy_poll.poll(|| forget(scratch, RecvFlags::DONTWAIT));
        }
        if matches!(caught, Err(Errno::AGAIN)) {
            caught = forget(scratch, RecvFlags::empty());
        }
        caught.map(|(_, gone)| gone).map_err(io::Error::from)
    }
}

/// The number of arriving bodies, and the time spent on polling for their bytes without result. This processor time is
/// not part of the sink's work.
#[derive(Debug, Default)]
pub(crate) struct BusyPoll {
    bodies: AtomicUsize,
    nanoseconds: AtomicU64,
}

impl BusyPoll {
    /// Counts a body as arriving while `arrival` runs.
    pub(super) fn during_body<T>(&self, arrival: impl FnOnce() -> T) -> T {
        self.bodies.fetch_add(1, Ordering::Relaxed);
        let arrived = arrival();
        self.bodies.fetch_sub(1, Ordering::Relaxed);
        arrived
    }

    fn has_one_body(&self) -> bool {
        self.bodies.load(Ordering::Relaxed) == 1
    }

    fn poll<T>(&self, mut look: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
        let began = Instant::now();
        loop {
            let seen = look();
            let elapsed = began.elapsed().min(MAX_BUSY_POLL);
            if elapsed == MAX_BUSY_POLL || !matches!(seen, Err(Errno::AGAIN)) {
                self.nanoseconds.fetch_add(elapsed.as_nanos() as u64, Ordering::Relaxed);
                return seen;
            }
        }
    }

    /// Returns the polling time since the last call.
    pub(super) fn take(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.swap(0, Ordering::Relaxed))
    }
}

impl Channel for Plain {
    fn fill(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        self.low_water.update(0)?;
        let (_, len) = recv(&self.socket, &mut self.scratch[..FILL_BYTES], RecvFlags::empty())?;
        into.extend_from_slice(&self.scratch[..len]);
        Ok(len)
    }

    fn discard(&mut self, len: u64) -> io::Result<u64> {
        self.low_water.update(len)?;
        let most = len.min(self.scratch.len() as u64) as usize;
        match self.receive_and_discard(most)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            gone => Ok(gone as u64),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&*self.socket).write_all(bytes)
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let used = match request.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(error)),
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let says = |name, word| header(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
    let framing = match header("content-length") {
        _ if says("transfer-encoding", "chunked") => Framing::Chunked,
        Some(len) => Framing::Length(len.parse().map_err(invalid)?),
        None => Framing::Length(0),
    };
    let head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        content_range: header("content-range").map(str::to_owned),
        closes: says("connection", "close"),
        framing,
        expects_continue: says("expect", "100-continue"),
    };
    Ok(Some((head, used)))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

const HEAD_BYTES: usize = 64 << 10;
const FILL_BYTES: usize = 16 << 10;
/// With a larger value, a client with `sendfile` would fill the window while the sink sleeps.
const LOW_WATER_BYTES: i32 = 256 << 10;
/// Longer than the time between two writes of a client without TLS.
const MAX_BUSY_POLL: Duration = Duration::from_micros(20);
/// More than a usual receive queue.
const DISCARD_BYTES: usize = 4 << 20;

//! The socket under hyper, which sends slices of a mapped file by `sendfile(2)` and so never reads them.
//!
//! Slices are recognised by address. Memory and file alternate in the order hyper gives them; one call makes
//! one system call and reports exactly what it moved, so a partial write needs no state here.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::meter::Meter;
use super::throttle::{Bandwidth, Valve};

/// A mapped run of a file. On a plain connection, slices that lie inside it are sent from the file.
///
/// `addr` only recognises slices: nothing is ever read through it. While requests with such slices are on
/// their way the map must stay in place and `file` must stay the file that is mapped, or other bytes are sent.
/// `sendfile(2)` to a connection that the peer has reset raises SIGPIPE; Rust programs ignore it unless
/// they ask otherwise, a host that does not should block it on the threads that drive lanes.
#[derive(Clone, Debug)]
pub struct FileRegion {
    /// The address of the first mapped byte.
    pub addr: usize,
    /// Mapped bytes.
    pub len: usize,
    /// The file, open for reading. Its own position is neither used nor moved.
    pub file: Arc<File>,
    /// Where in the file the first mapped byte is.
    pub file_offset: u64,
}

impl FileRegion {
    fn holds(&self, slice: &[u8]) -> bool {
        let start = slice.as_ptr().addr();
        !slice.is_empty() && start >= self.addr && start + slice.len() <= self.addr + self.len
    }

    fn offset_of(&self, slice: &[u8]) -> u64 {
        self.file_offset + (slice.as_ptr().addr() - self.addr) as u64
    }
}

/// Why bytes of a region could not be sent.
#[derive(Debug)]
pub(super) enum FileFailure {
    Truncated { offset: u64 },
    Unreadable { offset: u64, reason: io::Error },
}

/// A TCP connection that can send from a file.
///
/// When the peer is gone, writing waits for ever instead of failing: what the peer said before it went is
/// still to be read, and reading ends with that or with the reason.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TokioIo<TcpStream>,
    meter: Arc<Meter>,
    /// Absent while hands are shaken, which draws on no budget.
    valve: Option<Valve>,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, meter: Arc<Meter>) -> Socket {
        Socket { tcp: TokioIo::new(tcp), meter, valve: None }
    }

    /// From now on it writes only as much as `bandwidth` allows.
    pub(super) fn draw_on(&mut self, bandwidth: Bandwidth) {
        self.valve = Some(Valve::new(bandwidth));
    }

    /// How many bytes may be written now.
    fn poll_valve(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<usize> {
        let Some(valve) = &mut self.valve else { return Poll::Ready(usize::MAX) };
        let was_shut = valve.opens_at().is_some();
        let open_for = valve.poll_open(cx, || bufs.iter().map(|buf| buf.len() as u64).sum());
        if was_shut || open_for.is_pending() {
            self.meter.throttled(valve.opens_at());
        }
        open_for
    }

    fn wrote(&mut self, len: usize) {
        self.meter.socket_wrote(len);
        if let Some(valve) = &mut self.valve {
            valve.wrote(len);
        }
    }

    /// What to do about a write that failed for another reason than a full buffer.
    fn on_write_error(&self, error: io::Error) -> Poll<io::Result<usize>> {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut => {
                self.meter.write_failed(error.kind());
                Poll::Pending
            }
            _ => Poll::Ready(Err(error)),
        }
    }

    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = self.tcp.inner().as_fd();
        let region = self.meter.region();
        match Run::first_of(bufs, region.as_ref()) {
            Run::Memory { slices, then_file } => send_memory(socket, slices, then_file),
            Run::File { region, slices, len } => {
                self.send_file(socket, region, slices, len).map_err(|failure| self.give_up_file(failure))
            }
        }
    }

    fn send_file(
        &self,
        socket: BorrowedFd<'_>,
        region: &FileRegion,
        slices: &[IoSlice<'_>],
        len: usize,
    ) -> Result<usize, SendFileError> {
        let start = region.offset_of(&slices[0]);
        let mut offset = start;
        match retry_on_intr(|| rustix::fs::sendfile(socket, &*region.file, Some(&mut offset), len)) {
            Ok(0) => Err(SendFileError::File(FileFailure::Truncated { offset: start })),
            Ok(sent) => Ok(sent),
            // The file system has no splice: the kernel copies from the map, and says EFAULT where we would get SIGBUS.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => send_memory(socket, slices, More::No)
                .map_err(|reason| match Errno::from_io_error(&reason) {
                    Some(Errno::FAULT) => SendFileError::File(FileFailure::Truncated { offset: start }),
                    _ => SendFileError::Socket(reason),
                }),
            Err(reason @ (Errno::IO | Errno::BADF | Errno::STALE | Errno::OVERFLOW)) => {
                Err(SendFileError::File(FileFailure::Unreadable { offset: start, reason: reason.into() }))
            }
            Err(reason) => Err(SendFileError::Socket(reason.into())),
        }
    }

    fn give_up_file(&self, error: SendFileError) -> io::Error {
        match error {
            SendFileError::Socket(error) => error,
            SendFileError::File(failure) => {
                self.meter.file_failed(failure);
                io::Error::other("the file behind the map failed")
            }
        }
    }
}

/// A request that broke off is abandoned by a reset (`SO_LINGER`, `socket(7)`): what the kernel still holds of it
/// would only keep the server waiting for the rest.
impl Drop for Socket {
    fn drop(&mut self) {
        if self.meter.is_broken_off() {
            let _ = self.tcp.inner().set_zero_linger();
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(start) = bufs.iter().position(|buf| !buf.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        if self.meter.write_error().is_some() {
            return Poll::Pending;
        }
        loop {
            ready!(self.tcp.inner().poll_write_ready(cx))?;
            let most = ready!(self.poll_valve(cx, &bufs[start..]));
            let mut cut = IoSlice::new(&[]);
            let bufs = at_most(most, &bufs[start..], &mut cut);
            match self.tcp.inner().try_io(Interest::WRITABLE, || self.send(bufs)) {
                Ok(len) => {
                    self.wrote(len);
                    return Poll::Ready(Ok(len));
                }
                Err(full) if full.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return self.on_write_error(error),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

enum SendFileError {
    Socket(io::Error),
    File(FileFailure),
}

/// What one system call can send of a list of slices.
enum Run<'a, 'b> {
    Memory { slices: &'a [IoSlice<'b>], then_file: More },
    File { region: &'a FileRegion, slices: &'a [IoSlice<'b>], len: usize },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum More {
    No,
    Follows,
}

impl<'a, 'b> Run<'a, 'b> {
    /// The first run of `bufs`, whose first slice is not empty.
    fn first_of(bufs: &'a [IoSlice<'b>], region: Option<&'a FileRegion>) -> Run<'a, 'b> {
        let Some(region) = region else {
            return Run::Memory { slices: bufs, then_file: More::No };
        };
        match bufs.iter().position(|buf| region.holds(buf)) {
            None => Run::Memory { slices: bufs, then_file: More::No },
            Some(0) => Run::contiguous(bufs, region),
            Some(file) => Run::Memory { slices: &bufs[..file], then_file: More::Follows },
        }
    }

    fn contiguous(bufs: &'a [IoSlice<'b>], region: &'a FileRegion) -> Run<'a, 'b> {
        let start = bufs[0].as_ptr().addr();
        let mut end = start;
        let joined = bufs.iter().take_while(|buf| {
            let joins = buf.as_ptr().addr() == end && region.holds(buf);
            end += if joins { buf.len() } else { 0 };
            joins
        });
        let slices = &bufs[..joined.count()];
        Run::File { region, slices, len: (end - start).min(SENDFILE_LIMIT_BYTES) }
    }
}

/// The slices at the start of `bufs` that are no longer than `most` together: whole ones, or a part of the first.
fn at_most<'a, 'b: 'a>(most: usize, bufs: &'a [IoSlice<'b>], cut: &'a mut IoSlice<'a>) -> &'a [IoSlice<'a>] {
    if most == usize::MAX {
        return bufs;
    }
    let mut left = most;
    let whole = bufs.iter().take_while(|buf| {
        let fits = buf.len() <= left;
        left -= if fits { buf.len() } else { 0 };
        fits
    });
    match whole.count() {
        0 => {
            *cut = IoSlice::new(&bufs[0][..most]);
            std::slice::from_ref(cut)
        }
        whole => &bufs[..whole],
    }
}

/// `MSG_MORE` keeps a short head from leaving alone before the file's bytes (`send(2)`).
fn send_memory(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>], more: More) -> io::Result<usize> {
    let mut flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    flags.set(SendFlags::MORE, more == More::Follows);
    let sent =
        retry_on_intr(|| rustix::net::sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags))?;
    Ok(sent)
}

/// Most that one `sendfile(2)` moves: a fast peer must not keep the thread in one call for a whole chunk.
const SENDFILE_LIMIT_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::num::NonZeroU64;
    use std::sync::LazyLock;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use bytes::Bytes;
    use http::{Request, StatusCode};
    use proptest::prelude::*;

    use super::super::testing::{Frames, Server, Wire, patient, pattern, post, run};
    use super::super::{DialSettings, Lane, TransportError};
    use super::*;

    const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";
    const MAPPED: usize = 300_000;
    const FILE_OFFSET: usize = 4096;

    /// The file's bytes, and memory of the same length that holds none of them: whatever arrives from this
    /// "map" as file content cannot have been read from memory.
    struct Map {
        file: Arc<File>,
        content: Bytes,
        poison: Bytes,
    }

    impl Map {
        fn new(len: usize) -> Map {
            let mut file = tempfile::tempfile().unwrap();
            let content = pattern(FILE_OFFSET + len);
            file.write_all(&content).unwrap();
            let poison = content.slice(FILE_OFFSET..).iter().map(|byte| !byte).collect::<Vec<_>>();
            Map { file: Arc::new(file), content: content.slice(FILE_OFFSET..), poison: poison.into() }
        }

        fn region(&self) -> FileRegion {
            let (addr, len) = (self.poison.as_ptr().addr(), self.poison.len());
            FileRegion { addr, len, file: self.file.clone(), file_offset: FILE_OFFSET as u64 }
        }
    }

    /// Everything tiny, so that every write is a partial one.
    fn cramped() -> DialSettings {
        DialSettings { send_buffer_bytes: Some(4096), ..DialSettings::default() }
    }

    /// A server that hands out the bodies of all requests of one connection.
    fn echo() -> (Server, Receiver<Vec<u8>>) {
        let (bodies, received): (Sender<Vec<u8>>, _) = channel();
        let server = Server::start(Wire::Plain, move |server| {
            rustix::net::sockopt::set_socket_recv_buffer_size(&server.listener, 32 * 1024).unwrap();
            let mut peer = server.accept();
            while let Some(request) = peer.next_request() {
                bodies.send(request.body).unwrap();
                peer.answer(CREATED);
            }
        });
        (server, received)
    }

    #[derive(Clone, Debug)]
    enum Piece {
        Mapped {
            start: usize,
            len: usize,
        },
        /// Joins the piece before, when that one is mapped.
        Next {
            len: usize,
        },
        Memory {
            start: usize,
            len: usize,
        },
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        let len = || prop_oneof![0..3usize, 0..5000usize, 0..40_000usize];
        let piece = prop_oneof![
            (0..MAPPED, len()).prop_map(|(start, len)| Piece::Mapped { start, len: len.min(MAPPED - start) }),
            len().prop_map(|len| Piece::Next { len }),
            (0..MAPPED, len()).prop_map(|(start, len)| Piece::Memory { start, len: len.min(MAPPED - start) }),
        ];
        proptest::collection::vec(piece, 0..24)
    }

    /// The frames to send, and the bytes that must arrive.
    fn laid_out(map: &Map, memory: &Bytes, pieces: &[Piece]) -> (Vec<Bytes>, Vec<u8>) {
        let (mut frames, mut expected, mut end) = (Vec::new(), Vec::new(), 0);
        for piece in pieces {
            let (start, len) = match *piece {
                Piece::Memory { start, len } => {
                    frames.push(memory.slice(start..start + len));
                    expected.extend_from_slice(&memory[start..start + len]);
                    continue;
                }
                Piece::Mapped { start, len } => (start, len),
                Piece::Next { len } => (end, len.min(MAPPED - end)),
            };
            end = start + len;
            frames.push(map.poison.slice(start..end));
            expected.extend_from_slice(&map.content[start..end]);
        }
        (frames, expected)
    }

    static MAP: LazyLock<Map> = LazyLock::new(|| Map::new(MAPPED));

    #[test]
    fn any_mix_of_file_and_memory_arrives_exactly() {
        let memory: Bytes = (0..MAPPED).map(|i| (i * 7 + 3) as u8).collect::<Vec<_>>().into();
        let (server, received) = echo();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut lane: Lane<Frames> = runtime.block_on(server.dialer(cramped()).dial()).unwrap();
        lane.serve_from(Some(MAP.region()));
        let lane = std::cell::RefCell::new(lane);
        proptest!(ProptestConfig::with_cases(48), |(pieces in pieces())| {
            let (frames, expected) = laid_out(&MAP, &memory, &pieces);
            let mut lane = lane.borrow_mut();
            let answer = runtime.block_on(lane.send(post(Frames::new(frames)), &patient()));
            prop_assert_eq!(answer.unwrap().status(), StatusCode::CREATED);
            prop_assert_eq!(lane.sent().body_bytes(), expected.len() as u64);
            prop_assert!(received.recv().unwrap() == expected);
        });
    }

    #[test]
    fn a_limit_cuts_file_and_memory_and_loses_nothing_of_either() {
        let (server, received) = echo();
        run(async {
            // A share is a third of the file.
            let bandwidth = Bandwidth::bytes_per_second(NonZeroU64::new(3_200_000).unwrap());
            let dialer = server.dialer(cramped()).limited_to(bandwidth);
            let mut lane = dialer.dial().await.unwrap();
            lane.serve_from(Some(MAP.region()));
            let memory = pattern(200_000);
            let frames = [memory.clone(), MAP.poison.slice(..5), MAP.poison.slice(5..), memory.clone()];
            lane.send(post(Frames::new(frames)), &patient()).await.unwrap();
            assert!(received.recv().unwrap() == [&memory[..], &MAP.content, &memory].concat());
        });
    }

    #[test]
    fn without_a_region_the_memory_itself_is_sent() {
        let (server, received) = echo();
        run(async {
            let mut lane = server.dialer(cramped()).dial().await.unwrap();
            for region in [None, Some(MAP.region()), None] {
                let expected = if region.is_some() { &MAP.content } else { &MAP.poison };
                lane.serve_from(region);
                lane.send(post(Frames::new([MAP.poison.clone()])), &patient()).await.unwrap();
                assert!(received.recv().unwrap() == *expected);
            }
        });
    }

    #[test]
    fn over_tls_a_region_is_ignored() {
        let server = Server::start(Wire::Tls, |server| {
            let mut peer = server.accept();
            assert!(peer.read_request().body == MAP.poison);
            peer.answer(CREATED);
            peer.drain();
        });
        run(async {
            let mut lane = server.lane().await;
            lane.serve_from(Some(MAP.region()));
            lane.send(post(Frames::new([MAP.poison.clone()])), &patient()).await.unwrap();
        });
    }

    #[test]
    fn a_file_that_ends_early_is_named_with_the_offset_at_which_it_ends() {
        let map = Map::new(MAPPED);
        for len in [FILE_OFFSET + 200_000, FILE_OFFSET + 1, FILE_OFFSET, 10] {
            let server = Server::start(Wire::Plain, |server| server.accept().drain());
            map.file.set_len(len as u64).unwrap();
            run(async {
                let mut lane = server.dialer(cramped()).dial().await.unwrap();
                lane.serve_from(Some(map.region()));
                let body = Frames::new([Bytes::from_static(b"head"), map.poison.clone()]);
                let error = lane.send(post(body), &patient()).await.unwrap_err();
                let TransportError::FileTruncated { offset } = error else { panic!("{error:?}") };
                assert_eq!(offset, len.max(FILE_OFFSET) as u64);
                assert!(!error.sent_all() && !lane.is_open());
            });
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_fault_of_the_connection() {
        let server = Server::start(Wire::Plain, |server| server.accept().drain());
        let write_only = File::options().write(true).open("/dev/null").unwrap();
        run(async {
            let mut lane = server.dialer(cramped()).dial().await.unwrap();
            lane.serve_from(Some(FileRegion { file: Arc::new(write_only), ..MAP.region() }));
            let error = lane.send(post(Frames::new([MAP.poison.clone()])), &patient()).await.unwrap_err();
            assert!(matches!(error, TransportError::FileRead { offset: 4096, .. }), "{error:?}");
        });
    }

    #[test]
    fn a_file_system_without_splice_is_copied_by_the_kernel() {
        let (server, received) = echo();
        let unsplicable = Arc::new(File::open("/proc/self/mem").unwrap());
        run(async {
            let mut lane = server.dialer(cramped()).dial().await.unwrap();
            lane.serve_from(Some(FileRegion { file: unsplicable, ..MAP.region() }));
            lane.send(post(Frames::new([MAP.poison.clone()])), &patient()).await.unwrap();
            assert!(received.recv().unwrap() == MAP.poison);
        });
    }

    #[test]
    fn the_files_own_position_stays_where_it_was() {
        use std::io::Seek;
        let (server, _received) = echo();
        run(async {
            let mut lane = server.dialer(DialSettings::default()).dial().await.unwrap();
            (&*MAP.file).seek(io::SeekFrom::Start(17)).unwrap();
            lane.serve_from(Some(MAP.region()));
            let request = Request::post("/").body(Frames::new([MAP.poison.clone()])).unwrap();
            lane.send(request, &patient()).await.unwrap();
            assert_eq!((&*MAP.file).stream_position().unwrap(), 17);
        });
    }

    #[test]
    fn contiguous_slices_are_one_run_up_to_the_limit() {
        let map = MAP.region();
        let region = FileRegion { addr: 4096, len: 8 << 20, ..map };
        // Nothing is read through these slices.
        let run_of = |cuts: &[(usize, usize)]| {
            let slices: Vec<_> = cuts.iter().map(|&(start, len)| slice_at(4096 + start, len)).collect();
            match Run::first_of(&slices, Some(&region)) {
                Run::File { slices, len, .. } => (slices.len(), len),
                Run::Memory { slices, .. } => (slices.len(), 0),
            }
        };
        assert_eq!(run_of(&[(0, 10), (10, 20), (30, 5)]), (3, 35));
        assert_eq!(run_of(&[(0, 10), (11, 20)]), (1, 10));
        assert_eq!(run_of(&[(0, 700_000), (700_000, 700_000)]), (2, SENDFILE_LIMIT_BYTES));
        assert_eq!(run_of(&[((8 << 20) - 5, 10)]), (1, 0));
    }

    fn slice_at(addr: usize, len: usize) -> IoSlice<'static> {
        static BACKING: [u8; 0] = [];
        let start = BACKING.as_ptr().with_addr(addr);
        // SAFETY: the slice is only asked for its address and its length, never dereferenced.
        IoSlice::new(unsafe { std::slice::from_raw_parts(start, len) })
    }
}

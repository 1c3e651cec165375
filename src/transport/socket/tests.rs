use std::fs::File;
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{Request, StatusCode};
use proptest::prelude::*;

use crate::transport::region::FileRegion;
use crate::transport::testing::{Frames, Server, Wire, long_timeouts, pattern, post, run};
use crate::transport::{Bandwidth, DialSettings, Lane, TransportError};

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
    lane.set_file_region(Some(MAP.region()));
    let lane = std::cell::RefCell::new(lane);
    proptest!(ProptestConfig::with_cases(48), |(pieces in pieces())| {
        let (frames, expected) = laid_out(&MAP, &memory, &pieces);
        let mut lane = lane.borrow_mut();
        let answer = runtime.block_on(lane.send(post(Frames::new(frames)), &long_timeouts()));
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
        let dialer = server.dialer(cramped()).with_bandwidth(bandwidth);
        let mut lane = dialer.dial().await.unwrap();
        lane.set_file_region(Some(MAP.region()));
        let memory = pattern(200_000);
        let frames = [memory.clone(), MAP.poison.slice(..5), MAP.poison.slice(5..), memory.clone()];
        lane.send(post(Frames::new(frames)), &long_timeouts()).await.unwrap();
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
            lane.set_file_region(region);
            lane.send(post(Frames::new([MAP.poison.clone()])), &long_timeouts()).await.unwrap();
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
        lane.set_file_region(Some(MAP.region()));
        lane.send(post(Frames::new([MAP.poison.clone()])), &long_timeouts()).await.unwrap();
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
            lane.set_file_region(Some(map.region()));
            let body = Frames::new([Bytes::from_static(b"head"), map.poison.clone()]);
            let error = lane.send(post(body), &long_timeouts()).await.unwrap_err();
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
        lane.set_file_region(Some(FileRegion { file: Arc::new(write_only), ..MAP.region() }));
        let error = lane.send(post(Frames::new([MAP.poison.clone()])), &long_timeouts()).await.unwrap_err();
        assert!(matches!(error, TransportError::FileRead { offset: 4096, .. }), "{error:?}");
    });
}

#[test]
fn a_file_system_without_splice_is_copied_by_the_kernel() {
    let (server, received) = echo();
    let unsplicable = Arc::new(File::open("/proc/self/mem").unwrap());
    run(async {
        let mut lane = server.dialer(cramped()).dial().await.unwrap();
        lane.set_file_region(Some(FileRegion { file: unsplicable, ..MAP.region() }));
        lane.send(post(Frames::new([MAP.poison.clone()])), &long_timeouts()).await.unwrap();
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
        lane.set_file_region(Some(MAP.region()));
        let request = Request::post("/").body(Frames::new([MAP.poison.clone()])).unwrap();
        lane.send(request, &long_timeouts()).await.unwrap();
        assert_eq!((&*MAP.file).stream_position().unwrap(), 17);
    });
}

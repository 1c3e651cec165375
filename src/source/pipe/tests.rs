use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const BLOCK: u64 = BLOCK_BYTES as u64;

fn budget(blocks: u64) -> MemoryBudget {
    MemoryBudget::new(blocks * BLOCK)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Reads as pipes do: a few bytes at a time.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(self.1);
        self.0.read(&mut buffer[..len])
    }
}

fn bytes_of(chunk: &HeldChunk) -> Vec<u8> {
    let read = |block| chunk.read_now(block).unwrap().unwrap();
    chunk.extent().blocks(chunk.block_bytes()).flat_map(read).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn chunks_tile_the_pipe_and_only_the_last_is_short(
        len in 1..6 * BLOCK as usize,
        chunk_bytes in BLOCK / 2..3 * BLOCK,
        at_once in 1000..2 * BLOCK as usize,
    ) {
        let sent = pattern(len);
        let mut pipe = PipeReader::new(Trickle(&sent, at_once), "-", chunk_bytes, budget(4)).unwrap();
        let mut received = Vec::new();
        while let Some(chunk) = pipe.next_chunk().unwrap() {
            prop_assert_eq!(chunk.extent().offset(), received.len() as u64);
            received.extend(bytes_of(&chunk));
            let is_last = received.len() == len;
            prop_assert_eq!(chunk.is_last(), is_last);
            prop_assert!(is_last || chunk.extent().len() == chunk_bytes);
            prop_assert!(!chunk.extent().is_empty());
        }
        prop_assert!(received == sent);
        prop_assert!(pipe.next_chunk().unwrap().is_none());
    }
}

#[test]
fn a_pipe_that_ends_with_a_chunk_has_no_empty_last_chunk() {
    let sent = pattern(2 * BLOCK_BYTES);
    let mut pipe = PipeReader::new(&sent[..], "-", BLOCK, budget(2)).unwrap();
    assert!(!pipe.next_chunk().unwrap().unwrap().is_last());
    assert!(pipe.next_chunk().unwrap().unwrap().is_last());
    assert!(pipe.next_chunk().unwrap().is_none());
}

#[test]
fn a_pipe_of_another_length_than_stated_never_gives_a_last_chunk() {
    let sent = pattern(3 * BLOCK_BYTES);
    let read = |stated| {
        let pipe = PipeReader::new(&sent[..], "live.mp4", 2 * BLOCK, budget(4)).unwrap();
        let mut pipe = pipe.with_stated_len(Some(stated));
        let mut last = false;
        while let Some(chunk) = pipe.next_chunk()? {
            last = chunk.is_last();
        }
        Ok::<bool, SourceError>(last)
    };
    assert!(read(3 * BLOCK).unwrap());
    let shorter = read(3 * BLOCK + 1).unwrap_err();
    assert_eq!(
        shorter.to_string(),
        "live.mp4: ended after 3145728 bytes, its stated length is 3145729 bytes"
    );
    for stated in [3 * BLOCK - 1, 2 * BLOCK, 1] {
        let longer = read(stated).unwrap_err();
        assert!(
            matches!(longer, SourceError::LongerThanStated { stated: at, .. } if at == stated),
            "{longer}"
        );
    }
}

#[test]
fn bytes_in_memory_are_read_without_a_copy() {
    let all = Bytes::from(pattern(5 * BLOCK_BYTES / 2));
    let extent = Extent::new(BLOCK / 2, 2 * BLOCK);
    let chunk = HeldChunk::of_bytes("a", extent, true, &all.slice(BLOCK_BYTES / 2..));
    assert_eq!(bytes_of(&chunk), all[BLOCK_BYTES / 2..]);
    let block = chunk.read_now(Extent::new(BLOCK / 2, BLOCK)).unwrap().unwrap();
    assert_eq!(block.as_ptr(), all[BLOCK_BYTES / 2..].as_ptr());
    assert!(chunk.read_now(Extent::new(0, 1)).unwrap().is_err());
}

#[test]
fn an_empty_pipe_is_an_error() {
    let mut pipe = PipeReader::new(io::empty(), "standard input", BLOCK, budget(2)).unwrap();
    let error = pipe.next_chunk().unwrap_err();
    assert_eq!(error.to_string(), "standard input: empty, there is nothing to upload");
}

#[test]
fn a_broken_pipe_names_the_byte() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let sent = pattern(10);
    let mut pipe = PipeReader::new(sent.chain(Broken), "-", BLOCK, budget(2)).unwrap();
    let error = pipe.next_chunk().unwrap_err();
    assert!(matches!(error, SourceError::Read { offset: 10, .. }), "{error:?}");
}

#[test]
fn a_budget_too_small_for_a_chunk_is_refused_with_the_needed_size() {
    let error = PipeReader::new(io::empty(), "-", 4 * BLOCK + 1, budget(4)).unwrap_err();
    assert!(matches!(error, SourceError::Budget { needed, .. } if needed == 5 * BLOCK), "{error:?}");
}

#[test]
fn the_reader_waits_until_a_chunk_is_dropped() {
    let (ready, chunks) = mpsc::channel();
    let reading = thread::spawn(move || {
        let sent = pattern(3 * BLOCK_BYTES);
        let mut pipe = PipeReader::new(&sent[..], "-", BLOCK, budget(1)).unwrap();
        while let Some(chunk) = pipe.next_chunk().unwrap() {
            ready.send(chunk).unwrap();
        }
    });
    let (first, clone) = chunks.recv().map(|chunk| (chunk.clone(), chunk)).unwrap();
    drop(first);
    assert!(chunks.recv_timeout(Duration::from_millis(100)).is_err());
    drop(clone);
    assert_eq!(chunks.iter().count(), 2);
    reading.join().unwrap();
}

#[test]
fn a_chunk_gives_the_same_bytes_again_and_across_its_blocks() {
    let sent = pattern(3 * BLOCK_BYTES);
    let mut pipe = PipeReader::new(&sent[..], "-", 3 * BLOCK, budget(4)).unwrap();
    let chunk = pipe.next_chunk().unwrap().unwrap();
    assert!(bytes_of(&chunk) == sent && bytes_of(&chunk.clone()) == sent);
    let across = Extent::new(BLOCK - 3, 2 * BLOCK - 3);
    assert!(chunk.read_now(across).is_none());
    assert!(chunk.gather(across) == sent[across.offset() as usize..across.end() as usize]);
}
/// Waits for a byte of permission before it gives its bytes.
struct Permitted<R>(mpsc::Receiver<()>, R);

impl<R: Read> Read for Permitted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        self.1.read(buffer)
    }
}

/// A pipe that gives `len` bytes once the other end is dropped.
fn late(len: usize) -> (mpsc::Sender<()>, Permitted<io::Take<io::Repeat>>) {
    let (permit, permission) = mpsc::channel();
    (permit, Permitted(permission, io::repeat(7).take(len as u64)))
}

/// Reads to the end, each chunk dropped as soon as it is there; how many bytes there were.
fn drain<R: Read>(mut pipe: PipeReader<R>) -> u64 {
    let mut bytes = 0;
    while let Some(chunk) = pipe.next_chunk().unwrap() {
        bytes += chunk.extent().len();
    }
    bytes
}

#[test]
fn a_hundred_pipes_that_give_their_bytes_one_after_another_share_two_chunks() {
    let (budget, len) = (budget(4), 3 * BLOCK_BYTES);
    thread::scope(|scope| {
        // Each waits for the one that was begun after it: the last one to come is the first to be read.
        let mut last = None;
        for _ in 0..100 {
            let (permit, reader) = late(len);
            let before = last.replace(permit);
            let pipe = PipeReader::new(reader, "-", 2 * BLOCK, budget.clone()).unwrap();
            scope.spawn(move || {
                assert_eq!(drain(pipe), len as u64);
                drop(before);
            });
        }
    });
}

#[test]
fn pipes_that_all_have_begun_a_chunk_can_all_finish_it() {
    let budget = budget(4);
    thread::scope(|scope| {
        for _ in 0..50 {
            let sent = pattern(3 * BLOCK_BYTES);
            let budget = budget.clone();
            scope.spawn(move || {
                let pipe = PipeReader::new(Trickle(&sent, 10_000), "-", 2 * BLOCK, budget).unwrap();
                assert_eq!(drain(pipe), sent.len() as u64);
            });
        }
    });
}

fn is_free(budget: &MemoryBudget) -> bool {
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    pin!(budget.reserve(2 * BLOCK)).poll(cx).is_ready()
}

#[test]
fn cancelling_frees_the_memory_of_a_reader_that_is_blocked() {
    let budget = budget(2);
    let (permit, reader) = late(0);
    let stuck = Trickle(&[1; 5], 5).chain(reader);
    let mut pipe = PipeReader::new(stuck, "-", 2 * BLOCK, budget.clone()).unwrap();
    let cancel_guard = pipe.cancel_guard();
    let reading = thread::spawn(move || pipe.next_chunk().map(|chunk| chunk.is_none()));
    while is_free(&budget) {
        thread::yield_now();
    }
    drop(cancel_guard);
    assert!(pollster::block_on(budget.reserve(2 * BLOCK)).is_some());
    drop(permit);
    assert!(reading.join().unwrap().unwrap());
}

#[test]
fn cancelling_ends_a_reader_that_waits_for_memory() {
    let budget = budget(2);
    let all = pollster::block_on(budget.reserve(2 * BLOCK));
    let sent = pattern(10);
    let mut pipe = PipeReader::new(io::Cursor::new(sent), "-", BLOCK, budget.clone()).unwrap();
    let cancel_guard = pipe.cancel_guard();
    let reading = thread::spawn(move || pipe.next_chunk().map(|chunk| chunk.is_none()));
    drop(cancel_guard);
    assert!(reading.join().unwrap().unwrap());
    drop(all);
}

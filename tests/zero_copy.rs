//! Zero copy, checked with a counting allocator: the allocations of an upload do not grow with the file.
//!
//! A copy of a body needs memory. Any copy on the path of a file over plain HTTP, such as a buffer that is filled per
//! block or a flattened slice, allocates megabytes per GiB and fails this test.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ringlift::{ChunkSize, Client, Mode, Reader};
use ringlift_baseline::{Scheme, Sink};

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn sending_a_gibibyte_over_plain_http_allocates_almost_nothing() {
    let sink = Sink::start_with_hook(Scheme::Http, || NOT_COUNTED.set(true)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let warm_up = hole(folder.path(), "warm-up.mp4", 16 * MIB);
    let movie = hole(folder.path(), "movie.mp4", MOVIE_BYTES);
    // Fill the page cache, so that `Auto` chooses the map.
    io::copy(&mut File::open(&movie).unwrap(), &mut io::sink()).unwrap();
    for (reader, allowed) in ALLOWED_PER_GIB {
        let client = Client::builder().endpoint_url(sink.url()).api_key("key").reader(reader).lanes(1);
        let client = client.build().unwrap();
        // Threads, pools and connections are created once for any number of bytes.
        upload(&client, &warm_up);
        let before = ALLOCATED.load(Ordering::Relaxed);
        upload(&client, &movie);
        let allocated = ALLOCATED.load(Ordering::Relaxed) - before;
        let per_gib = allocated * (1 << 30) / MOVIE_BYTES;
        println!("{reader}: {} KiB per GiB", per_gib >> 10);
        assert!(per_gib <= allowed, "{reader}: {per_gib} bytes allocated per GiB sent");
    }
}

fn upload(client: &Client, path: &Path) {
    let upload = client.upload(path).mode(Mode::Bytes).chunk_size(ChunkSize::Bytes(64 * MIB));
    upload.send_blocking().unwrap();
}

/// Creates a sparse file. The page cache holds zeros for it, so reading it is like reading any other file.
fn hole(folder: &Path, name: &str, len: u64) -> PathBuf {
    let path = folder.join(name);
    File::create(&path).unwrap().set_len(len).unwrap();
    path
}

/// The system allocator, with a counter of the requested bytes.
struct Counting;

// SAFETY: every call is forwarded unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, and the memory came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size.saturating_sub(layout.size()));
        // SAFETY: the caller keeps the contract, and the memory came from `System`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

fn count(bytes: usize) {
    // A thread that is ending has no flag any more. It is not a thread of the sink.
    if !NOT_COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATED.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static NOT_COUNTED: Cell<bool> = const { Cell::new(false) };
}

const MIB: u64 = 1 << 20;
const MOVIE_BYTES: u64 = 1024 * MIB;

/// The map takes 265 KiB: a quarter of them are the buffers of hyper for heads, a fifth the futures of the requests that
/// create the video and ask for its status, and a third are the answers and orders of 16 chunks. With the other readers each
/// block adds a few words for its return to the pool.
const ALLOWED_PER_GIB: [(Reader, u64); 5] = [
    (Reader::Mmap, 320 << 10),
    (Reader::Auto, 320 << 10),
    (Reader::Uring, 512 << 10),
    (Reader::Direct, 512 << 10),
    (Reader::Pread, 512 << 10),
];

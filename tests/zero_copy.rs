//! Zero copy, held by a counting allocator: what an upload allocates does not grow with the file.
//!
//! A copy of a body needs memory to copy to. Whoever puts one on the path of a file over plain HTTP, be
//! it a buffer that is filled per block or a slice that is flattened, allocates megabytes per GiB here.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ringlift::{ChunkSize, Client, Mode, Reader};

#[path = "../perf/sink/mod.rs"]
#[allow(dead_code, reason = "TLS and the tally are for perf/")]
mod sink;

use sink::{Scheme, Sink};

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn sending_a_gibibyte_over_plain_http_allocates_almost_nothing() {
    let sink = Sink::start_with_hook(Scheme::Http, || NOT_COUNTED.set(true)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let warm_up = hole(folder.path(), "warm-up.mp4", 16 * MIB);
    let movie = hole(folder.path(), "movie.mp4", MOVIE_BYTES);
    // In the page cache, so that `Auto` takes the map.
    io::copy(&mut File::open(&movie).unwrap(), &mut io::sink()).unwrap();
    for (reader, allowed) in ALLOWED_PER_GIB {
        let client = Client::builder().endpoint_url(sink.url()).api_key("key").reader(reader).lanes(1);
        let client = client.build().unwrap();
        // Threads, pools and connections are made once, however much is sent.
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

/// The page cache holds zeros for it, so it is a file like any other to whoever reads it.
fn hole(folder: &Path, name: &str, len: u64) -> PathBuf {
    let path = folder.join(name);
    File::create(&path).unwrap().set_len(len).unwrap();
    path
}

/// The system's allocator, which also adds up what it is asked for.
struct Counting;

// SAFETY: every call is handed on as it came.
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
    // A thread that is being torn down has no flag any more, and is not the sink's in any case.
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

/// hyper takes 8 KiB a chunk for the answer, and a block costs the few words that give it back when it was sent.
const ALLOWED_PER_GIB: [(Reader, u64); 5] = [
    (Reader::Mmap, 256 << 10),
    (Reader::Auto, 256 << 10),
    (Reader::Uring, 512 << 10),
    (Reader::Direct, 512 << 10),
    (Reader::Pread, 512 << 10),
];

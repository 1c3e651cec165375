//! How tests come by a source of each kind, in the runtime it belongs to.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::budget::MemoryBudget;
use super::pipe::PipeReader;
use super::*;

/// Every way of reading there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Uring,
    Direct,
    Mmap,
    MmapTls,
    MmapTlsCold,
    Pread,
    PreadCold,
    Held,
}

impl Kind {
    pub(crate) const ALL: [Kind; 8] = [
        Kind::Uring,
        Kind::Direct,
        Kind::Mmap,
        Kind::MmapTls,
        Kind::MmapTlsCold,
        Kind::Pread,
        Kind::PreadCold,
        Kind::Held,
    ];

    pub(crate) const FILES: [Kind; 7] = [
        Kind::Uring,
        Kind::Direct,
        Kind::Mmap,
        Kind::MmapTls,
        Kind::MmapTlsCold,
        Kind::Pread,
        Kind::PreadCold,
    ];

    fn choice(self) -> Choice {
        let (reader, delivery, percent) = match self {
            Kind::Uring => (Reader::Uring, Delivery::Tls, 100),
            Kind::Direct => (Reader::Direct, Delivery::Tls, 0),
            Kind::Mmap => (Reader::Mmap, Delivery::Plain, 100),
            Kind::MmapTls => (Reader::Mmap, Delivery::Tls, 100),
            Kind::MmapTlsCold => (Reader::Mmap, Delivery::Tls, 0),
            Kind::Pread | Kind::Held => (Reader::Pread, Delivery::Plain, 100),
            Kind::PreadCold => (Reader::Pread, Delivery::Plain, 0),
        };
        Choice { reader, delivery, residency: Residency { percent }, reason: Reason::Asked }
    }

    fn has_ring(self) -> bool {
        matches!(self, Kind::Uring | Kind::Direct)
    }
}

pub(crate) const BLOCK_BYTES: u64 = 256 << 10;
const BLOCKS: usize = 3;

/// Bytes that differ from place to place, and do not repeat with blocks or pages.
pub(crate) fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251 + i / 65_521) as u8).collect()
}

/// A source of some kind over a file that is there until the test ends.
pub(crate) struct Fixture {
    pub(crate) source: AnySource,
    pub(crate) content: Rc<Vec<u8>>,
    /// The file, to be changed.
    pub(crate) file: File,
    /// Where the source reads into.
    pub(crate) pool: BufferPool,
    kind: Kind,
    path: PathBuf,
}

impl Fixture {
    fn new(kind: Kind, len: usize, temp: &NamedTempFile) -> Fixture {
        let new = if kind.has_ring() { BufferPool::in_ring } else { BufferPool::new };
        let pool = new(BLOCKS, BLOCK_BYTES).unwrap();
        let (file, path) = (temp.as_file().try_clone().unwrap(), temp.path().to_owned());
        let source = open(kind, &SourceFile::open(&path).unwrap(), &pool);
        Fixture { source, content: Rc::new(content(len)), file, pool, kind, path }
    }

    /// A source of the same kind over the file as it is now.
    pub(crate) fn reopen(&self) -> AnySource {
        open(self.kind, &SourceFile::open(&self.path).unwrap(), &self.pool)
    }
}

/// Runs `test` over a file with `content(len)`, in the runtime that the kind needs. Skips it if this build lacks that
/// runtime.
pub(crate) fn with<F: Future<Output = ()>>(kind: Kind, len: usize, test: impl FnOnce(Fixture) -> F) {
    let mut temp = NamedTempFile::new().unwrap();
    temp.write_all(&content(len)).unwrap();
    let test = async { test(Fixture::new(kind, len, &temp)).await };
    if kind.has_ring() { uring::start(test) } else { without_ring(test) }
}

/// Bytes the way a body gets them.
pub(crate) async fn get(source: &AnySource, extent: Extent) -> Result<Bytes, SourceError> {
    match source.read_now(extent) {
        Some(bytes) => bytes,
        None => source.read(extent).await,
    }
}

/// Fills every block of a pool that belongs to a ring, all of them held at once.
pub(crate) async fn read_all_at_once(pool: &BufferPool, blocks: u64) {
    let content = content((blocks * pool.block_bytes()) as usize);
    let mut temp = NamedTempFile::new().unwrap();
    temp.write_all(&content).unwrap();
    let source = open(Kind::Uring, &SourceFile::open(temp.path()).unwrap(), pool);
    let extents = Extent::new(0, content.len() as u64).blocks(pool.block_bytes());
    let read = futures_util::future::join_all(extents.map(|extent| source.read(extent))).await;
    assert_eq!(pool.free(), 0);
    assert!(read.into_iter().map(Result::unwrap).eq(content.chunks(pool.block_bytes() as usize)));
}

/// Waits until every block is back, and fails when one does not come.
pub(crate) async fn all_free(pool: &BufferPool) {
    for _ in 0..1000 {
        if pool.free() == pool.count() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} of {} blocks came back", pool.free(), pool.count());
}

/// Runs a future as a worker without a ring does.
pub(crate) fn without_ring<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

fn open(kind: Kind, file: &SourceFile, pool: &BufferPool) -> AnySource {
    if kind == Kind::Held {
        let bytes = content(file.len() as usize);
        let budget = MemoryBudget::new(file.len() + (4 << 20));
        let mut pipe = PipeReader::new(&bytes[..], "-", file.len().max(1), budget).unwrap();
        return AnySource::Held(pipe.next_chunk().unwrap().unwrap());
    }
    let (source, declined) = AnySource::open(file, &kind.choice(), pool);
    assert_eq!(declined, Ok(()), "{kind:?}");
    source
}

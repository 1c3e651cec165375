//! A map of the whole file, handed out in slices.
//!
//! On plain connections nobody reads the map: the slices tell the kernel which bytes to send, and a
//! file truncated meanwhile is a short `sendfile`. Where the bytes are encrypted the map is read, and
//! touching a page beyond the end of the file raises SIGBUS, whose default action ends the process.
//! For such maps a handler of that signal is installed, once: it puts zero pages in the place of the
//! rest of the map and marks the map, whose source from then on gives [`SourceError::Changed`].
//! Faults outside of our maps go to the handler that was there before.

use std::fs::File;
use std::io;
use std::rc::Rc;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

use super::Source;
use super::error::SourceError;
use super::file::SourceFile;
use super::reader::{Choice, Declined, Delivery};
use super::reads::Reads;
use super::sigbus::Guard;
use crate::extent::Extent;

/// Slices of a map. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MmapSource {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: SourceFile,
    whole: Bytes,
    map: Arc<Map>,
    waits: bool, // Some of it has to come from a disk.
    reads: Reads,
}

/// Where in memory a file is mapped, for an adapter that sends the file instead of the memory.
#[derive(Clone, Debug)]
pub struct Region {
    /// The address of the file's first byte.
    pub address: usize,
    /// The length of the map in bytes.
    pub len: usize,
    /// The file that is mapped, from its byte 0.
    pub file: Arc<File>,
}

impl MmapSource {
    /// # Errors
    /// When the process may not map that much, or too many maps are read in user space already.
    pub(super) fn new(file: &SourceFile, choice: &Choice) -> Result<MmapSource, Declined> {
        let raw = map(file)?;
        let guard = match choice.delivery {
            Delivery::Plain => None,
            Delivery::Tls => Some(Guard::over(&raw)?),
        };
        let map = Arc::new(Map { guard, raw, len: file.len() as usize, present: AtomicUsize::new(0) });
        let whole = Bytes::from_owner(Whole(Arc::clone(&map)));
        let (file, waits) = (file.clone(), !choice.residency.is_whole());
        Ok(MmapSource { inner: Rc::new(Inner { file, whole, map, waits, reads: Reads::default() }) })
    }

    /// Where the file is in memory.
    pub fn region(&self) -> Region {
        let whole = &self.inner.whole;
        let file = Arc::clone(self.inner.file.file());
        Region { address: whole.as_ptr() as usize, len: whole.len(), file }
    }

    fn is_read_here(&self) -> bool {
        self.inner.map.guard.is_some()
    }
}

impl Source for MmapSource {
    fn read_now(&self, extent: Extent) -> Option<Result<Bytes, SourceError>> {
        match self.is_read_here() && self.inner.waits && !extent.is_empty() {
            true => None,
            false => Some(self.inner.slice(extent)),
        }
    }

    fn read(&self, extent: Extent) -> impl Future<Output = Result<Bytes, SourceError>> + use<> {
        let inner = Rc::clone(&self.inner);
        async move {
            // What the disk takes long for happens on a blocking thread; the pages are there afterwards.
            let map = Arc::clone(&inner.map);
            let populating = inner.reads.on_thread(move || map.populate(extent));
            let stopped = |error| inner.file.read_error(extent.offset(), io::Error::other(error));
            let _ = populating.await.map_err(stopped)?;
            inner.slice(extent)
        }
    }

    fn block_bytes(&self) -> u64 {
        match self.is_read_here() {
            true => READ_BLOCK_BYTES,
            false => u64::MAX,
        }
    }

    fn depth(&self) -> usize {
        match self.is_read_here() && self.inner.waits {
            true => super::DEPTH,
            false => 1,
        }
    }

    fn needs_check(&self) -> bool {
        self.is_read_here()
    }

    fn check(&self) -> Result<(), SourceError> {
        self.inner.map.fault().map_or(Ok(()), |at| Err(self.inner.file.lost_at(at)))
    }
}

impl Inner {
    fn slice(&self, extent: Extent) -> Result<Bytes, SourceError> {
        self.file.check_extent(extent)?;
        if let Some(at) = self.map.fault() {
            return Err(self.file.lost_at(at));
        }
        // Takes the faults at once, and meets the end of a truncated file without a signal; twice, as a disk may fail once.
        let is_missing = || self.map.populate(extent).is_err();
        if self.map.guard.is_some() && is_missing() && is_missing() {
            return Err(self.file.lost_at(extent.offset()));
        }
        Ok(self.whole.slice(extent.offset() as usize..extent.end() as usize))
    }
}

/// The map itself. Unmapped when the source and the last slice are gone.
#[derive(Debug)]
struct Map {
    guard: Option<Guard>, // Before the memory: afterwards the addresses may be anybody's.
    raw: MmapRaw,
    len: usize,
    /// Bytes made present since others were let go.
    present: AtomicUsize,
}

impl Map {
    /// Makes the extent's pages present. An error means that some of them cannot be.
    fn populate(&self, extent: Extent) -> io::Result<()> {
        let (offset, len) = (extent.offset() as usize, extent.len() as usize);
        if self.present.fetch_add(len, Ordering::Relaxed) >= PRESENT_BYTES {
            self.present.store(len, Ordering::Relaxed);
            self.let_go();
        }
        match self.raw.advise_range(Advice::PopulateRead, offset, len) {
            // Before Linux 5.14 the pages come one by one, when they are touched.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            populated => populated,
        }
    }

    /// Gives back the page tables of what was read: a file of 30 GiB would come to hold 60 MiB of them, and
    /// count as the largest process there is when memory runs out. What is still in use comes back when touched.
    fn let_go(&self) {
        // SAFETY: the map is of a file and read only, so that a page let go shows the file's bytes again.
        let _ = unsafe { self.raw.unchecked_advise(UncheckedAdvice::DontNeed) };
    }

    /// The file's byte from which on its map was found missing.
    fn fault(&self) -> Option<u64> {
        let address = self.guard.as_ref()?.fault()?;
        Some((address - self.raw.as_ptr() as usize) as u64)
    }
}

struct Whole(Arc<Map>);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped for reading from `as_ptr` on for as long as the `Arc` lives. What
        // other processes write to the file may show; nothing here relies on two reads being equal.
        unsafe { slice::from_raw_parts(self.0.raw.as_ptr(), self.0.len) }
    }
}

/// Whether the process may map the file.
pub(super) fn mappable(file: &SourceFile) -> Result<(), Declined> {
    map(file).map(drop)
}

fn map(file: &SourceFile) -> Result<MmapRaw, Declined> {
    let len = usize::try_from(file.len()).map_err(|_| Declined::other(&io::ErrorKind::OutOfMemory.into()))?;
    let file: &File = file.file();
    MmapOptions::new().len(len).map_raw_read_only(file).map_err(|error| Declined::other(&error))
}

/// Slices of this size are handed out where the map is read, so that a truncation is noticed soon.
const READ_BLOCK_BYTES: u64 = 1 << 20;

/// How much of a map that is read has page tables at most, give or take what is in use.
const PRESENT_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::source::error::Change;
    use crate::source::page_cache::Residency;
    use crate::source::reader::{Reader, Why};
    use crate::source::sigbus::MAX_GUARDED;

    fn temp_of(len: usize) -> tempfile::NamedTempFile {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(&vec![7; len]).unwrap();
        temp
    }

    fn mapped(temp: &tempfile::NamedTempFile, delivery: Delivery) -> MmapSource {
        let file = SourceFile::open(temp.path()).unwrap();
        let residency = Residency { percent: 100 };
        let choice = Choice { reader: Reader::Mmap, delivery, residency, why: Why::Asked };
        MmapSource::new(&file, &choice).unwrap()
    }

    fn assert_truncated(result: Result<impl Sized, SourceError>, wanted: Change) {
        match result {
            Err(SourceError::Changed { change, .. }) => assert_eq!(change, wanted),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("nobody noticed"),
        }
    }

    #[test]
    fn reading_a_truncated_map_is_an_error_of_that_file_only() {
        let (temp, other_temp) = (temp_of(1 << 20), temp_of(1 << 20));
        let (source, other) = (mapped(&temp, Delivery::Tls), mapped(&other_temp, Delivery::Tls));
        let whole = source.read_now(Extent::new(0, 1 << 20)).unwrap().unwrap();
        temp.as_file().set_len(300_000).unwrap();
        assert!(whole[..294_912].iter().all(|byte| *byte == 7));
        // Touches missing pages: without the handler the test ends here.
        assert!(whole[303_104..].iter().all(|byte| *byte == 0));
        let change = Change::Truncated { from: 1 << 20, to: 300_000 };
        assert_truncated(source.check(), change);
        assert_truncated(source.read_now(Extent::new(0, 10)).unwrap(), change);
        other.check().unwrap();
        assert_eq!(other.read_now(Extent::new(0, 10)).unwrap().unwrap(), vec![7; 10]);
    }

    #[test]
    fn a_block_of_a_truncated_file_is_refused_before_anybody_touches_it() {
        let temp = temp_of(1 << 20);
        let source = mapped(&temp, Delivery::Tls);
        temp.as_file().set_len(0).unwrap();
        let read = source.read_now(Extent::new(8192, 8192)).unwrap();
        assert_truncated(read, Change::Truncated { from: 1 << 20, to: 0 });
    }

    #[test]
    fn truncations_under_load_leave_the_process_alive() {
        let readers = (0..2).map(|_| thread::spawn(|| (0..30).for_each(|_| read_while_truncated())));
        readers.collect::<Vec<_>>().into_iter().for_each(|reader| reader.join().unwrap());
    }

    fn read_while_truncated() {
        const LEN: usize = 1 << 20;
        let temp = temp_of(LEN);
        let source = mapped(&temp, Delivery::Tls);
        let slices: Vec<_> = Extent::new(0, LEN as u64)
            .blocks(64 << 10)
            .map(|block| source.read_now(block).unwrap().unwrap())
            .collect();
        let handle = temp.as_file().try_clone().unwrap();
        let cutter = thread::spawn(move || {
            thread::sleep(Duration::from_micros(200));
            handle.set_len(4096).unwrap();
        });
        let mut met_the_end = false;
        while !met_the_end {
            met_the_end = slices.iter().any(|slice| std::hint::black_box(slice).contains(&0));
        }
        cutter.join().unwrap();
        assert_truncated(source.check(), Change::Truncated { from: LEN as u64, to: 4096 });
    }

    /// Runs itself in a child, which faults in a map that is not ours.
    #[test]
    fn a_fault_elsewhere_still_ends_the_process() {
        const CHILD: &str = "RINGLIFT_TEST_FAULT_ELSEWHERE";
        if std::env::var_os(CHILD).is_some() {
            let (guarded, foreign) = (temp_of(4096), temp_of(4096));
            let _guarded = mapped(&guarded, Delivery::Tls);
            let unguarded =
                mapped(&foreign, Delivery::Plain).read_now(Extent::new(0, 4096)).unwrap().unwrap();
            foreign.as_file().set_len(0).unwrap();
            std::process::exit(i32::from(unguarded[0]));
        }
        let test = "source::mmap::tests::a_fault_elsewhere_still_ends_the_process";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", test]).env(CHILD, "1").output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }

    #[test]
    fn a_map_that_is_read_holds_no_more_of_the_file_than_it_may() {
        let temp = temp_of(0);
        let len = 3 * PRESENT_BYTES as u64;
        temp.as_file().set_len(len).unwrap();
        let source = mapped(&temp, Delivery::Tls);
        let most = PRESENT_BYTES + READ_BLOCK_BYTES as usize;
        for block in Extent::new(0, len).blocks(READ_BLOCK_BYTES) {
            let bytes = source.read_now(block).unwrap().unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0));
            let present = present_bytes(source.region().address);
            assert!((READ_BLOCK_BYTES as usize..=most).contains(&present), "{present} at {block:?}");
        }
    }

    /// What of the map at `address` is in this process's page tables (`Rss`, proc_pid_smaps(5)).
    fn present_bytes(address: usize) -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&format!("{address:x}-")));
        let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    }

    #[test]
    fn a_slot_is_free_again_after_its_map() {
        let temp = temp_of(4096);
        for _ in 0..2 * MAX_GUARDED {
            drop(mapped(&temp, Delivery::Tls));
        }
    }

    #[test]
    fn slices_keep_the_map_after_the_source_is_gone() {
        let temp = temp_of(10_000);
        let slice = mapped(&temp, Delivery::Tls).read_now(Extent::new(9_000, 1_000)).unwrap().unwrap();
        assert!(slice.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn the_region_is_where_the_slices_are() {
        let temp = temp_of(10_000);
        let source = mapped(&temp, Delivery::Plain);
        let (region, slice) = (source.region(), source.read_now(Extent::new(5_000, 10)).unwrap().unwrap());
        assert_eq!((slice.as_ptr() as usize, region.len), (region.address + 5_000, 10_000));
    }
}

//! Chunks on disk.
//!
//! A file part streams into its own file below `incoming`. Once it is accepted the file is renamed into
//! the video's folder, and that is all: a finished video is the ordered list of its pieces, nothing is
//! ever copied together. A part that is not accepted is removed when its [`Spool`] is dropped.

use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::task::{JoinHandle, spawn_blocking};

use super::answer::StorageError;

/// The folders of one server.
pub(super) struct Shelves {
    incoming: PathBuf,
    videos: PathBuf,
    next: AtomicU64,
}

/// A piece of a video: its place (first byte, part number or 0) and its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) place: u64,
    pub(super) len: u64,
}

impl Shelves {
    /// Makes the folders, and empties the one of unfinished requests.
    pub(super) fn open(data: &Path) -> Result<Shelves, StorageError> {
        let shelves =
            Shelves { incoming: data.join("incoming"), videos: data.join("videos"), next: AtomicU64::new(0) };
        match fs::remove_dir_all(&shelves.incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StorageError::at(&shelves.incoming)(error));
            }
            _ => {}
        }
        for folder in [&shelves.incoming, &shelves.videos] {
            fs::create_dir_all(folder).map_err(StorageError::at(folder))?;
        }
        Ok(shelves)
    }

    /// A file for one part that arrives; what exceeds `most_bytes` is counted and not kept.
    pub(super) fn spool(&self, most_bytes: u64) -> Spool {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.incoming.join(number.to_string());
        Spool { path, len: 0, most_bytes, gathered: Vec::new(), gathered_bytes: 0, file: Slot::Unmade }
    }

    /// Moves a part to its place in a video; blocking.
    pub(super) fn keep(&self, spool: &Spool, video_id: &str, place: u64) -> Result<PathBuf, StorageError> {
        let folder = self.videos.join(video_id);
        fs::create_dir_all(&folder).map_err(StorageError::at(&folder))?;
        let path = folder.join(piece_name(place));
        fs::rename(&spool.path, &path).map_err(StorageError::at(&path))?;
        Ok(path)
    }

    /// Removes all pieces of a video; blocking.
    pub(super) fn discard(&self, video_id: &str) -> Result<(), StorageError> {
        let folder = self.videos.join(video_id);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StorageError::at(&folder)(error)),
            _ => Ok(()),
        }
    }

    /// The bytes of a video in their order.
    pub(super) fn read(&self, video_id: &str, pieces: Vec<Piece>) -> BoxStream<'static, io::Result<Bytes>> {
        let reader = Reader { folder: self.videos.join(video_id), pieces: pieces.into_iter(), file: None };
        stream::try_unfold(reader, |mut reader| async move {
            let (block, reader) = spawn_blocking(move || (reader.next_block(), reader)).await?;
            Ok(block?.map(|block| (block, reader)))
        })
        .boxed()
    }

    /// The SHA-256 of a video in hex; blocking, gives up with an error once `stopping` is set.
    pub(super) fn digest(
        &self,
        video_id: &str,
        pieces: Vec<Piece>,
        stopping: &AtomicBool,
    ) -> Result<String, StorageError> {
        let folder = self.videos.join(video_id);
        let mut reader = Reader { folder: folder.clone(), pieces: pieces.into_iter(), file: None };
        let mut context = Context::new(&SHA256);
        while let Some(block) = reader.next_block().map_err(StorageError::at(&folder))? {
            if stopping.load(Ordering::Relaxed) {
                return Err(StorageError::at(&folder)(io::Error::other("the server is stopping")));
            }
            context.update(&block);
        }
        Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// One part on its way to disk. Dropping it removes its file, unless that was moved away.
pub(super) struct Spool {
    path: PathBuf,
    len: u64,
    most_bytes: u64,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    file: Slot,
}

/// Where the file is: one block is written while the next one arrives.
enum Slot {
    Unmade,
    Ready(File),
    Writing(JoinHandle<io::Result<File>>),
}

impl Spool {
    /// How many bytes arrived, those not kept included.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds bytes. Holds at most two blocks of [`WRITE_BYTES`] and a frame in memory.
    pub(super) async fn push(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.len += bytes.len() as u64;
        if self.len > self.most_bytes {
            self.gathered.clear();
            self.gathered_bytes = 0;
            return Ok(());
        }
        self.gathered_bytes += bytes.len();
        self.gathered.push(bytes);
        if self.gathered_bytes >= WRITE_BYTES || self.gathered.len() >= WRITE_SLICES {
            self.write().await?;
        }
        Ok(())
    }

    /// Waits until every byte is written.
    pub(super) async fn finish(&mut self) -> Result<(), StorageError> {
        self.write().await?;
        let file = self.idle_file().await?;
        self.file = Slot::Ready(file);
        Ok(())
    }

    async fn write(&mut self) -> Result<(), StorageError> {
        let file = self.idle_file().await?;
        let gathered = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        self.file = Slot::Writing(spawn_blocking(move || write_all(file, &gathered)));
        Ok(())
    }

    async fn idle_file(&mut self) -> Result<File, StorageError> {
        let file = match std::mem::replace(&mut self.file, Slot::Unmade) {
            Slot::Unmade => File::create(&self.path),
            Slot::Ready(file) => Ok(file),
            Slot::Writing(writing) => writing.await.map_err(io::Error::from).and_then(|written| written),
        };
        file.map_err(StorageError::at(&self.path))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Gone already when it was kept or never made.
        let _ = fs::remove_file(&self.path);
    }
}

fn write_all(mut file: File, gathered: &[Bytes]) -> io::Result<File> {
    let mut slices: Vec<IoSlice<'_>> = gathered.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(file)
}

/// Reads pieces one after the other; blocking.
struct Reader {
    folder: PathBuf,
    pieces: std::vec::IntoIter<Piece>,
    file: Option<io::Take<File>>,
}

impl Reader {
    fn next_block(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(file) = &mut self.file else {
                let Some(piece) = self.pieces.next() else { return Ok(None) };
                let file = File::open(self.folder.join(piece_name(piece.place)))?;
                self.file = Some(file.take(piece.len));
                continue;
            };
            let expected = file.limit().min(READ_BYTES);
            let mut block = Vec::with_capacity(expected as usize);
            file.by_ref().take(expected).read_to_end(&mut block)?;
            if block.len() as u64 != expected {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a stored piece is too short"));
            }
            if file.limit() == 0 {
                self.file = None;
            }
            if !block.is_empty() {
                return Ok(Some(block.into()));
            }
        }
    }
}

fn piece_name(place: u64) -> String {
    format!("{place:011}")
}

/// One write: large enough that the hop to a blocking thread costs nothing beside it.
const WRITE_BYTES: usize = 1 << 20;

/// The most slices in one write; below `IOV_MAX`.
const WRITE_SLICES: usize = 512;

/// One read of a stored piece.
const READ_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_part_that_is_not_kept_leaves_nothing() {
        let data = tempfile::tempdir().unwrap();
        let shelves = Shelves::open(data.path()).unwrap();
        let mut spool = shelves.spool(10 << 20);
        for _ in 0..3 {
            spool.push(Bytes::from(vec![7; WRITE_BYTES])).await.unwrap();
        }
        assert_eq!(names(&data.path().join("incoming")).len(), 1);
        spool.finish().await.unwrap();
        drop(spool);
        assert!(names(&data.path().join("incoming")).is_empty());
    }

    #[tokio::test]
    async fn pieces_are_read_in_the_order_given() {
        let data = tempfile::tempdir().unwrap();
        let shelves = Shelves::open(data.path()).unwrap();
        for (place, byte) in [(2, b'b'), (1, b'a')] {
            let mut spool = shelves.spool(10);
            spool.push(Bytes::from(vec![byte; 3])).await.unwrap();
            spool.finish().await.unwrap();
            shelves.keep(&spool, "vi1", place).unwrap();
        }
        let pieces = vec![Piece { place: 1, len: 3 }, Piece { place: 2, len: 3 }];
        let blocks: Vec<_> = shelves.read("vi1", pieces.clone()).map(Result::unwrap).collect().await;
        assert_eq!(blocks.concat(), b"aaabbb");
        let sha256 = shelves.digest("vi1", pieces, &AtomicBool::new(false)).unwrap();
        assert_eq!(sha256, "2ce109e9d0faf820b2434e166297934e6177b65ab9951dbc3e204cad4689b39c");
        shelves.discard("vi1").unwrap();
        assert!(names(&data.path().join("videos")).is_empty());
    }

    #[tokio::test]
    async fn a_part_past_its_limit_is_counted_and_not_kept() {
        let data = tempfile::tempdir().unwrap();
        let shelves = Shelves::open(data.path()).unwrap();
        let mut spool = shelves.spool(4);
        for _ in 0..3 {
            spool.push(Bytes::from_static(b"abc")).await.unwrap();
        }
        spool.finish().await.unwrap();
        assert_eq!(spool.len(), 9);
    }

    #[test]
    fn what_a_crash_left_behind_is_removed_at_the_start() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("incoming")).unwrap();
        fs::write(data.path().join("incoming/7"), "half").unwrap();
        Shelves::open(data.path()).unwrap();
        assert!(names(&data.path().join("incoming")).is_empty());
    }
}

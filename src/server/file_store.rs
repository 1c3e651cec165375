//! Chunks on disk.
//!
//! An arriving chunk is written to its own file in `incoming`. An accepted chunk is renamed into the folder
//! of its video. A complete video stays an ordered list of chunk files; they are never copied into one file.
//! The file of a refused chunk is removed when its [`ChunkWriter`] is dropped.

use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use ring::digest::{Context, SHA256};
use tokio::task::{JoinHandle, spawn_blocking};

/// A failed operation on a file or folder of the server.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(super) struct StorageError {
    path: PathBuf,
    source: io::Error,
}

impl StorageError {
    /// Returns the kind of the I/O error.
    pub(super) fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Returns a function for `map_err` that adds the path.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        |source| StorageError { path: path.to_owned(), source }
    }
}

/// The folders of one server: `incoming` for arriving chunks, `videos` for accepted ones.
pub(super) struct FileStore {
    incoming: PathBuf,
    videos: PathBuf,
    next: AtomicU64,
}

/// An accepted chunk: its position (offset of the first byte, part number, or 0 for a whole file) and its
/// length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredChunk {
    pub(super) position: u64,
    pub(super) len: u64,
}

impl FileStore {
    /// Creates the folders, and removes the unfinished chunks of an earlier run.
    pub(super) fn open(data: &Path) -> Result<FileStore, StorageError> {
        let files = FileStore {
            incoming: data.join("incoming"),
            videos: data.join("videos"),
            next: AtomicU64::new(0),
        };
        match fs::remove_dir_all(&files.incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StorageError::at(&files.incoming)(error));
            }
            _ => {}
        }
        for folder in [&files.incoming, &files.videos] {
            fs::create_dir_all(folder).map_err(StorageError::at(folder))?;
        }
        Ok(files)
    }

    /// Returns a writer for one arriving chunk. Bytes beyond `max_bytes` are counted but not stored.
    pub(super) fn writer(&self, max_bytes: u64) -> ChunkWriter {
        // Relaxed: the numbers only have to differ.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.incoming.join(number.to_string());
        ChunkWriter {
            path,
            len: 0,
            max_bytes,
            pending: Vec::new(),
            pending_bytes: 0,
            file: FileState::NotCreated,
        }
    }

    /// Moves a chunk into the folder of its video and returns its new path; blocking.
    pub(super) fn move_to_video(
        &self,
        writer: &ChunkWriter,
        video_id: &str,
        position: u64,
    ) -> Result<PathBuf, StorageError> {
        let folder = self.videos.join(video_id);
        fs::create_dir_all(&folder).map_err(StorageError::at(&folder))?;
        let path = folder.join(chunk_file_name(position));
        // A rename within one file system: the video has the whole chunk, or nothing of it (rename(2)).
        fs::rename(&writer.path, &path).map_err(StorageError::at(&path))?;
        Ok(path)
    }

    /// Removes all chunks of a video; blocking.
    pub(super) fn remove_video(&self, video_id: &str) -> Result<(), StorageError> {
        let folder = self.videos.join(video_id);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StorageError::at(&folder)(error)),
            _ => Ok(()),
        }
    }

    /// Returns the bytes of a video's chunks in the given order.
    pub(super) fn read(
        &self,
        video_id: &str,
        chunks: Vec<StoredChunk>,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        let reader =
            ChunkReader { folder: self.videos.join(video_id), chunks: chunks.into_iter(), file: None };
        stream::try_unfold(reader, |mut reader| async move {
            let (block, reader) = spawn_blocking(move || (reader.next_block(), reader)).await?;
            Ok(block?.map(|block| (block, reader)))
        })
        .boxed()
    }

    /// Returns the SHA-256 of a video in hex; blocking. Fails once `stopping` is set.
    pub(super) fn digest(
        &self,
        video_id: &str,
        chunks: Vec<StoredChunk>,
        stopping: &AtomicBool,
    ) -> Result<String, StorageError> {
        let folder = self.videos.join(video_id);
        let mut reader = ChunkReader { folder: folder.clone(), chunks: chunks.into_iter(), file: None };
        let mut context = Context::new(&SHA256);
        while let Some(block) = reader.next_block().map_err(StorageError::at(&folder))? {
            // The digest of a large video takes minutes, for which a stop must not wait.
            if stopping.load(Ordering::Relaxed) {
                return Err(StorageError::at(&folder)(io::Error::other("the server is stopping")));
            }
            context.update(&block);
        }
        Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Writes one arriving chunk to disk. Dropping the writer removes the file, unless it was moved to its video.
pub(super) struct ChunkWriter {
    path: PathBuf,
    len: u64,
    max_bytes: u64,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    file: FileState,
}

/// The file of a writer. One block is written on a blocking thread while the next one arrives.
enum FileState {
    NotCreated,
    Idle(File),
    Writing(JoinHandle<io::Result<File>>),
}

impl ChunkWriter {
    /// Returns the number of bytes received, including those that are not stored.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds bytes. The writer holds at most two blocks of [`WRITE_BYTES`] and one frame in memory.
    pub(super) async fn push(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.len += bytes.len() as u64;
        if self.len > self.max_bytes {
            // The chunk will be refused; only its length still matters, for the error message.
            self.pending.clear();
            self.pending_bytes = 0;
            return Ok(());
        }
        self.pending_bytes += bytes.len();
        self.pending.push(bytes);
        if self.pending_bytes >= WRITE_BYTES || self.pending.len() >= WRITE_SLICES {
            self.write().await?;
        }
        Ok(())
    }

    /// Waits until every byte is written.
    pub(super) async fn finish(&mut self) -> Result<(), StorageError> {
        self.write().await?;
        let file = self.take_file().await?;
        self.file = FileState::Idle(file);
        Ok(())
    }

    async fn write(&mut self) -> Result<(), StorageError> {
        let file = self.take_file().await?;
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.file = FileState::Writing(spawn_blocking(move || write_all(file, &pending)));
        Ok(())
    }

    async fn take_file(&mut self) -> Result<File, StorageError> {
        let file = match std::mem::replace(&mut self.file, FileState::NotCreated) {
            FileState::NotCreated => File::create(&self.path),
            FileState::Idle(file) => Ok(file),
            FileState::Writing(writing) => writing.await.map_err(io::Error::from).and_then(|written| written),
        };
        file.map_err(StorageError::at(&self.path))
    }
}

impl Drop for ChunkWriter {
    fn drop(&mut self) {
        // Fails if the file was moved to its video or never created; both are fine.
        let _ = fs::remove_file(&self.path);
    }
}

fn write_all(mut file: File, pending: &[Bytes]) -> io::Result<File> {
    let mut slices: Vec<IoSlice<'_>> = pending.iter().map(|bytes| IoSlice::new(bytes)).collect();
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

/// Reads chunk files one after the other; blocking.
struct ChunkReader {
    folder: PathBuf,
    chunks: std::vec::IntoIter<StoredChunk>,
    file: Option<io::Take<File>>,
}

impl ChunkReader {
    fn next_block(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(file) = &mut self.file else {
                let Some(chunk) = self.chunks.next() else { return Ok(None) };
                let file = File::open(self.folder.join(chunk_file_name(chunk.position)))?;
                self.file = Some(file.take(chunk.len));
                continue;
            };
            let expected = file.limit().min(READ_BYTES);
            let mut block = Vec::with_capacity(expected as usize);
            file.by_ref().take(expected).read_to_end(&mut block)?;
            if block.len() as u64 != expected {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a stored chunk is too short"));
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

/// Returns the file name of a chunk. The largest offset has 11 digits, so the names sort by position.
fn chunk_file_name(position: u64) -> String {
    format!("{position:011}")
}

/// The size of one write, large enough to make the cost of the blocking thread negligible.
const WRITE_BYTES: usize = 1 << 20;

/// The largest number of slices in one write; below `IOV_MAX` (1024 on Linux).
const WRITE_SLICES: usize = 512;

/// The size of one read from a chunk file.
const READ_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_refused_chunk_leaves_no_file() {
        let data = tempfile::tempdir().unwrap();
        let files = FileStore::open(data.path()).unwrap();
        let mut writer = files.writer(10 << 20);
        for _ in 0..3 {
            writer.push(Bytes::from(vec![7; WRITE_BYTES])).await.unwrap();
        }
        assert_eq!(names(&data.path().join("incoming")).len(), 1);
        writer.finish().await.unwrap();
        drop(writer);
        assert!(names(&data.path().join("incoming")).is_empty());
    }

    #[tokio::test]
    async fn chunks_are_read_in_the_given_order() {
        let data = tempfile::tempdir().unwrap();
        let files = FileStore::open(data.path()).unwrap();
        for (position, byte) in [(2, b'b'), (1, b'a')] {
            let mut writer = files.writer(10);
            writer.push(Bytes::from(vec![byte; 3])).await.unwrap();
            writer.finish().await.unwrap();
            files.move_to_video(&writer, "vi1", position).unwrap();
        }
        let chunks = vec![StoredChunk { position: 1, len: 3 }, StoredChunk { position: 2, len: 3 }];
        let blocks: Vec<_> = files.read("vi1", chunks.clone()).map(Result::unwrap).collect().await;
        assert_eq!(blocks.concat(), b"aaabbb");
        let sha256 = files.digest("vi1", chunks, &AtomicBool::new(false)).unwrap();
        assert_eq!(sha256, "2ce109e9d0faf820b2434e166297934e6177b65ab9951dbc3e204cad4689b39c");
        files.remove_video("vi1").unwrap();
        assert!(names(&data.path().join("videos")).is_empty());
    }

    #[tokio::test]
    async fn bytes_beyond_the_limit_are_counted_and_not_stored() {
        let data = tempfile::tempdir().unwrap();
        let files = FileStore::open(data.path()).unwrap();
        let mut writer = files.writer(4);
        for _ in 0..3 {
            writer.push(Bytes::from_static(b"abc")).await.unwrap();
        }
        writer.finish().await.unwrap();
        assert_eq!(writer.len(), 9);
    }

    #[test]
    fn unfinished_chunks_of_a_crash_are_removed_at_the_start() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("incoming")).unwrap();
        fs::write(data.path().join("incoming/7"), "half").unwrap();
        FileStore::open(data.path()).unwrap();
        assert!(names(&data.path().join("incoming")).is_empty());
    }
}

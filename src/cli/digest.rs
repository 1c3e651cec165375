//! SHA-256 of the sent bytes.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use ringlift::Error;
use ringlift::source::SourceError;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::exit::CommandError;

/// Digest of a file, computed on its own thread while the file is being sent.
pub(super) struct FileDigest {
    answer: oneshot::Receiver<io::Result<String>>,
    /// Number of bytes read so far.
    read: Arc<AtomicU64>,
    path: PathBuf,
}

impl FileDigest {
    /// Starts to read the file. Dropping the value stops the thread.
    pub(super) fn start(path: &Path) -> Result<FileDigest, CommandError> {
        let (reply, answer) = oneshot::channel();
        let (read, path) = (Arc::<AtomicU64>::default(), path.to_owned());
        let (counter, file) = (read.clone(), path.clone());
        let compute = move || {
            let digest = of_file(&file, &counter, || reply.is_closed());
            // The receiver is gone if the upload has failed.
            let _ = reply.send(digest);
        };
        thread::Builder::new()
            .name("ringlift-sha256".to_owned())
            .spawn(compute)
            .map_err(|error| CommandError::io("start the thread that computes the SHA-256", error))?;
        Ok(FileDigest { answer, read, path })
    }

    /// Returns the digest in hex. Fails if no byte was read for `silence`.
    pub(super) async fn finish(mut self, silence: Duration) -> Result<String, CommandError> {
        let gone = |_| Err(io::Error::other("the thread has exited"));
        let mut read = self.read.load(Ordering::Relaxed);
        loop {
            if let Ok(digest) = timeout(silence, &mut self.answer).await {
                let failed = |error| CommandError::io("compute the SHA-256 of the file", error);
                return digest.unwrap_or_else(gone).map_err(failed);
            }
            let now = self.read.load(Ordering::Relaxed);
            if std::mem::replace(&mut read, now) == now {
                let silent = SourceError::Silent { path: self.path, after: silence };
                return Err(Error::from(silent).doing("compute the SHA-256 of the file").into());
            }
        }
    }
}

fn of_file(path: &Path, counter: &AtomicU64, given_up: impl Fn() -> bool) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(hex(context.finish().as_ref())),
            Ok(_) if given_up() => return Err(io::ErrorKind::Interrupted.into()),
            Ok(read) => {
                context.update(&block[..read]);
                counter.fetch_add(read as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Digest of the bytes that pass through a [`HashingReader`] reader.
#[derive(Clone)]
pub(super) struct StreamDigest(Arc<Mutex<Context>>);

impl StreamDigest {
    pub(super) fn new() -> StreamDigest {
        StreamDigest(Arc::new(Mutex::new(Context::new(&SHA256))))
    }

    /// Returns the digest of all bytes so far, in hex.
    pub(super) fn value(&self) -> String {
        let context = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hex(context.finish().as_ref())
    }

    pub(super) fn over<R: Read>(&self, reader: R) -> HashingReader<R> {
        HashingReader { reader, digest: self.clone() }
    }
}

/// A reader that hashes the bytes it returns.
pub(super) struct HashingReader<R> {
    reader: R,
    digest: StreamDigest,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buf)?;
        self.digest.0.lock().unwrap_or_else(PoisonError::into_inner).update(&buf[..read]);
        Ok(read)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

const BLOCK_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_and_a_stream_of_the_same_bytes_have_the_same_digest() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        assert_eq!(of_file(file.path(), &AtomicU64::new(0), || false).unwrap(), OF_ABC);
        let digest = StreamDigest::new();
        io::copy(&mut digest.over(&b"abc"[..]), &mut io::sink()).unwrap();
        assert_eq!(digest.value(), OF_ABC);
    }

    #[test]
    fn dropped_digest_stops_reading() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        assert!(of_file(file.path(), &AtomicU64::new(0), || true).is_err());
    }
}

//! Files to upload, hot or cold, and how much of one is in the page cache.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rustix::fs::{Advice, OFlags, fadvise};

/// A folder for files, deleted on drop.
pub(crate) struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    /// Creates the folder in `parent`, which determines the disk.
    pub(crate) fn new(parent: &Path) -> io::Result<Files> {
        fs::create_dir_all(parent)?;
        Ok(Files { folder: tempfile::Builder::new().prefix("files-").tempdir_in(parent)? })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a file of `len` random bytes, synced to the disk. Creates it on the first call.
    pub(crate) fn random(&self, name: &str, len: u64) -> io::Result<PathBuf> {
        let path = self.path(name);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() == len) {
            return Ok(path);
        }
        write_random(&path, len)?.sync_all()?;
        Ok(path)
    }

    /// Returns `count` files of `len` random bytes each. Creates them on the first call, and writes them to the disk.
    pub(crate) fn random_set(&self, len: u64, count: usize) -> io::Result<Vec<PathBuf>> {
        let folder = self.path(&format!("{count}x{len}"));
        let paths: Vec<_> = (0..count).map(|index| folder.join(format!("{index:05}.mp4"))).collect();
        if !folder.exists() {
            fs::create_dir(&folder)?;
            paths.iter().try_for_each(|path| write_random(path, len).map(drop))?;
            // Once for all: an fsync for each of many files would take minutes.
            rustix::fs::syncfs(File::open(&folder)?)?;
        }
        Ok(paths)
    }

    /// Creates a sparse file of `len` bytes without data.
    pub(crate) fn sparse(&self, name: &str, len: u64) -> io::Result<PathBuf> {
        let path = self.path(name);
        File::create(&path)?.set_len(len)?;
        Ok(path)
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    /// Returns `true` if the file system supports `O_DIRECT`.
    pub(crate) fn reads_direct(&self) -> bool {
        let path = self.path("direct");
        let flags = OFlags::DIRECT.bits().cast_signed();
        let opened = File::create(&path)
            .and_then(|_| OpenOptions::new().read(true).custom_flags(flags).open(&path))
            .is_ok();
        // The folder is deleted later in any case.
        let _ = fs::remove_file(&path);
        opened
    }
}

fn write_random(path: &Path, len: u64) -> io::Result<File> {
    let mut file = File::create(path)?;
    let mut random = fastrand::Rng::with_seed(len);
    let mut block = vec![0; len.min(1 << 20) as usize];
    let mut left = len;
    while left > 0 {
        let piece = left.min(block.len() as u64);
        random.fill(&mut block[..piece as usize]);
        file.write_all(&block[..piece as usize])?;
        left -= piece;
    }
    Ok(file)
}

/// Reads the whole file into the page cache, and checks the result.
///
/// Tries several times, because some kernels reclaim idle pages at any time (DAMON).
pub(crate) fn fill_page_cache(path: &Path) -> crate::Result<()> {
    for _ in 0..ATTEMPTS {
        if missing(path)? == 0 {
            return Ok(());
        }
        io::copy(&mut File::open(path)?, &mut io::sink())?;
    }
    match missing(path)? {
        0 => Ok(()),
        bytes => Err(format!("{bytes} bytes of {} do not stay in the page cache", path.display()).into()),
    }
}

/// Drops the file's pages from the page cache, and checks the result.
pub(crate) fn drop_page_cache(path: &Path) -> crate::Result<()> {
    let file = File::open(path)?;
    for _ in 0..ATTEMPTS {
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        if resident(path)? == 0 {
            return Ok(());
        }
    }
    Err(format!("{} bytes of {} stay in the page cache", resident(path)?, path.display()).into())
}

/// Returns the bytes of the file in the page cache, in whole pages (mincore(2)).
pub(crate) fn resident(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    let len = file.metadata()?.len() as usize;
    // SAFETY: nothing reads the map; only the kernel is asked about its pages.
    let map = unsafe { Mmap::map(&file) }?;
    let page_bytes = rustix::param::page_size();
    let mut pages = vec![0_u8; len.div_ceil(page_bytes)];
    let start = map.as_ptr().cast_mut().cast();
    // SAFETY: the range is the map's, and the vector has one byte for each of its pages.
    let asked = unsafe { libc::mincore(start, len, pages.as_mut_ptr()) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    let here = pages.iter().filter(|page| **page & 1 == 1).count();
    Ok((here * page_bytes) as u64)
}

fn missing(path: &Path) -> io::Result<u64> {
    let pages_bytes = fs::metadata(path)?.len().next_multiple_of(rustix::param::page_size() as u64);
    Ok(pages_bytes - resident(path)?)
}

/// Returns the bytes that an unprivileged user can still write to the folder's disk.
pub(crate) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail * disk.f_frsize)
}

/// Returns the name of the folder's file system from the mount table.
pub(crate) fn file_system(folder: &Path) -> io::Result<String> {
    let folder = File::open(folder)?;
    let link = fs::read_to_string("/proc/self/mountinfo")?;
    let device = {
        let meta = rustix::fs::fstat(&folder)?;
        format!("{}:{}", rustix::fs::major(meta.st_dev), rustix::fs::minor(meta.st_dev))
    };
    let line = link.lines().find(|line| line.split(' ').nth(2) == Some(&device));
    let kind = line.and_then(|line| line.split(" - ").nth(1)).and_then(|rest| rest.split(' ').next());
    Ok(kind.map_or_else(|| format!("unknown (fd {})", folder.as_raw_fd()), str::to_owned))
}

const ATTEMPTS: usize = 5;

//! A file system that stops responding, like a network file system without its server.
//!
//! It implements the kernel's protocol (fuse(4), include/uapi/linux/fuse.h) over /dev/fuse, which needs the permission
//! to mount.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// A mounted file system with one file, `movie.mp4`, until it is dropped.
pub struct Disk {
    folder: TempDir,
    shared: Arc<Shared>,
    device: Option<File>,
}

struct Shared {
    device: File,
    content: Vec<u8>,
    state: Mutex<State>,
}

struct State {
    falls_silent: Silence,
    /// Requests that wait until the disk responds again.
    held: Vec<Vec<u8>>,
}

/// The requests that get no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    No,
    /// Reads from this offset on.
    From(usize),
    /// Lookups of the file.
    Whole,
}

impl Disk {
    /// Mounts the file system. Returns `None` if mounts are not permitted.
    pub fn holding(content: Vec<u8>, falls_silent: Silence) -> Option<Disk> {
        let folder = tempfile::tempdir().unwrap();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        mount("silent", folder.path(), "fuse.silent", MountFlags::NOSUID, &*options).ok()?;
        let state = Mutex::new(State { falls_silent, held: Vec::new() });
        let shared = Arc::new(Shared { device: device.try_clone().unwrap(), content, state });
        let serving = shared.clone();
        thread::spawn(move || serving.serve());
        Some(Disk { folder, shared, device: Some(device) })
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    /// Answers all waiting and future requests.
    pub fn resume_answers(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.falls_silent = Silence::No;
        let held = std::mem::take(&mut state.held);
        drop(state);
        held.iter().for_each(|request| self.shared.answer(request));
    }

    /// Returns the number of requests that wait for an answer.
    pub fn pending_requests(&self) -> usize {
        self.shared.state.lock().unwrap().held.len()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Waiting requests would prevent processes from ending.
        self.resume_answers();
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
        self.device = None;
    }
}

impl Shared {
    fn serve(&self) {
        let mut request = vec![0; 1 << 20];
        loop {
            match (&self.device).read(&mut request) {
                Ok(0) => return,
                Ok(len) => self.take(&request[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ENOENT: the request was interrupted. ENODEV: unmounted.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(_) => return,
            }
        }
    }

    fn take(&self, request: &[u8]) {
        let mut state = self.state.lock().unwrap();
        let is_held = match (state.falls_silent, word(request, 4)) {
            (Silence::From(offset), READ) => {
                long(request, HEADER + 8) as usize + word(request, HEADER + 16) as usize > offset
            }
            (Silence::Whole, LOOKUP) => true,
            _ => false,
        };
        if is_held {
            state.held.push(request.to_owned());
            return;
        }
        drop(state);
        self.answer(request);
    }

    fn answer(&self, request: &[u8]) {
        let (opcode, node) = (word(request, 4), long(request, 16));
        let (error, body) = match opcode {
            FORGET | BATCH_FORGET | INTERRUPT => return,
            INIT => (0, init()),
            LOOKUP if request[HEADER..].starts_with(NAME.as_bytes()) => (0, self.entry()),
            LOOKUP => (-libc::ENOENT, Vec::new()),
            GETATTR => (0, [&3600_u64.to_ne_bytes()[..], &[0; 8], &self.attributes(node)].concat()),
            OPEN => (0, vec![0; 16]),
            READ => (0, self.bytes(long(request, HEADER + 8), word(request, HEADER + 16))),
            RELEASE | FLUSH => (0, Vec::new()),
            _ => (-libc::ENOSYS, Vec::new()),
        };
        let len = 16 + body.len() as u32;
        let answer = [&len.to_ne_bytes()[..], &error.to_ne_bytes(), &request[8..16], &body].concat();
        // The requesting process may have ended.
        let _ = (&self.device).write(&answer);
    }

    fn bytes(&self, offset: u64, len: u32) -> Vec<u8> {
        let from = self.content.len().min(offset as usize);
        let to = self.content.len().min(from + len as usize);
        self.content[from..to].to_owned()
    }

    /// `struct fuse_entry_out` of the file.
    fn entry(&self) -> Vec<u8> {
        let valid = 3600_u64.to_ne_bytes();
        [&FILE.to_ne_bytes()[..], &[0; 8], &valid, &valid, &[0; 8], &self.attributes(FILE)].concat()
    }

    /// `struct fuse_attr`.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) = match node {
            FILE => (libc::S_IFREG | 0o644, self.content.len() as u64),
            _ => (libc::S_IFDIR | 0o755, 0),
        };
        let times = [1_700_000_000_u64; 3];
        let longs = [node, size, size / 512, times[0], times[1], times[2]];
        let words = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0];
        let longs = longs.iter().flat_map(|long| long.to_ne_bytes());
        longs.chain(words.iter().flat_map(|word| word.to_ne_bytes())).collect()
    }
}

/// `struct fuse_init_out`: version 7.31, asynchronous readahead of 128 KiB, 64 requests in the background.
fn init() -> Vec<u8> {
    let mut out =
        [7_u32, 31, 128 << 10, ASYNC_READ].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    out.extend([64_u16, 48].iter().flat_map(|half| half.to_ne_bytes()));
    out.extend([128_u32 << 10, 1].iter().flat_map(|word| word.to_ne_bytes()));
    out.resize(64, 0);
    out
}

fn word(request: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(request[at..at + 4].try_into().unwrap())
}

fn long(request: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(request[at..at + 8].try_into().unwrap())
}

const NAME: &str = "movie.mp4";
/// The file's inode; that of the folder is 1.
const FILE: u64 = 2;
/// Bytes of `struct fuse_in_header`.
const HEADER: usize = 40;

const ASYNC_READ: u32 = 1;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

//! The limits of the machine: a bare `sendfile` loop and a bare `O_DIRECT` read loop.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use rustix::fs::{OFlags, sendfile};

/// Sends the whole file in one request with a `sendfile` loop.
pub fn send(path: &Path, to: SocketAddr) -> io::Result<()> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut socket = TcpStream::connect(to)?;
    write!(socket, "POST /raw HTTP/1.1\r\nhost: {to}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n")?;
    let mut offset = 0;
    while offset < len {
        let at_once = (len - offset).min(SENDFILE_BYTES) as usize;
        if sendfile(&socket, &file, Some(&mut offset), at_once)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 201") {
        true => Ok(()),
        false => Err(io::Error::other(answer)),
    }
}

/// Reads the whole file with `O_DIRECT` and `depth` reads in flight, and returns its length.
pub fn read_direct(path: &Path, depth: u64) -> io::Result<u64> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    thread::scope(|scope| {
        let readers: Vec<_> = (0..depth)
            .map(|first| {
                scope.spawn({
                    let file = &file;
                    move || read_every(file, first, depth)
                })
            })
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap_or_else(|_| Err(io::Error::other("a reader panicked"))))
            .sum()
    })
}

/// Reads every `step`-th block from block `first` on.
fn read_every(file: &File, first: u64, step: u64) -> io::Result<u64> {
    let mut memory = vec![0; BLOCK_BYTES + ALIGNMENT];
    let skipped = memory.as_ptr().align_offset(ALIGNMENT);
    let block = &mut memory[skipped..skipped + BLOCK_BYTES];
    let mut total = 0;
    for index in (first..).step_by(step as usize) {
        match file.read_at(block, index * BLOCK_BYTES as u64)? {
            0 => break,
            len => total += len as u64,
        }
    }
    Ok(total)
}

/// The maximum of one call (sendfile(2)).
const SENDFILE_BYTES: u64 = 0x7fff_f000;
const BLOCK_BYTES: usize = 1 << 20;
/// Sufficient for every common block device and file system.
const ALIGNMENT: usize = 4096;

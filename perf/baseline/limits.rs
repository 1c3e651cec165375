//! The limits of the machine: a bare `sendfile` loop, a bare loop that seals TLS records, and a bare `O_DIRECT` read
//! loop.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use memmap2::Mmap;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use rustix::fs::{OFlags, sendfile};

/// Sends the file with a `sendfile` loop, in requests of up to `request_bytes` on one connection. Like every client of
/// HTTP/1.1, it waits for the answer before the next request.
pub fn send(path: &Path, to: SocketAddr, request_bytes: u64) -> io::Result<()> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut socket = TcpStream::connect(to)?;
    let mut offset = 0;
    while offset < len {
        let end = len.min(offset.saturating_add(request_bytes));
        write_head(&mut socket, end - offset)?;
        while offset < end {
            let at_once = (end - offset).min(SENDFILE_BYTES) as usize;
            if sendfile(&socket, &file, Some(&mut offset), at_once)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        check_answer(&mut socket)?;
    }
    Ok(())
}

/// Sends the whole file in one request as records of TLS 1.3 with AES-256-GCM, to a server without TLS.
///
/// The file is mapped. Its pages are populated by faults, which take less time than `MADV_POPULATE_READ`. Each record's plaintext is copied to the place of the record, and encrypted there. Sixteen
/// records are written at once.
pub fn send_sealed(path: &Path, to: SocketAddr) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: the file is not truncated while it is measured, and its bytes are only copied.
    let map = unsafe { Mmap::map(&file) }?;
    let len = map.len() + map.len().div_ceil(PLAIN_BYTES) * (RECORD_BYTES - PLAIN_BYTES);
    let mut socket = TcpStream::connect(to)?;
    write_head(&mut socket, len as u64)?;
    let mut sealer = Sealer::new()?;
    let mut records = vec![0; RECORDS_AT_ONCE * RECORD_BYTES];
    for plain in map.chunks(RECORDS_AT_ONCE * PLAIN_BYTES) {
        let mut filled = 0;
        for plain in plain.chunks(PLAIN_BYTES) {
            filled += sealer.seal(plain, &mut records[filled..])?;
        }
        socket.write_all(&records[..filled])?;
    }
    check_answer(&mut socket)
}

/// The key and the counter of records (RFC 8446, section 5.3).
struct Sealer {
    key: LessSafeKey,
    sequence: u64,
}

impl Sealer {
    fn new() -> io::Result<Sealer> {
        // Any key costs the same.
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(io::Error::other)?;
        Ok(Sealer { key: LessSafeKey::new(key), sequence: 0 })
    }

    /// Copies `plain` to the start of `record`, encrypts it there, and returns the length of the record.
    fn seal(&mut self, plain: &[u8], record: &mut [u8]) -> io::Result<usize> {
        let inner_len = plain.len() + 1;
        let [high, low] = ((inner_len + MAX_TAG_LEN) as u16).to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        let (head, rest) = record.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header);
        let (inner, rest) = rest.split_at_mut(inner_len);
        inner[..plain.len()].copy_from_slice(plain);
        inner[plain.len()] = APPLICATION_DATA;
        let nonce = self.next_nonce();
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), inner);
        rest[..MAX_TAG_LEN].copy_from_slice(sealed.map_err(io::Error::other)?.as_ref());
        Ok(HEADER_BYTES + inner_len + MAX_TAG_LEN)
    }

    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - size_of::<u64>()..].copy_from_slice(&self.sequence.to_be_bytes());
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Sends the head of a request with a body of `len` bytes.
fn write_head(socket: &mut TcpStream, len: u64) -> io::Result<()> {
    let host = socket.peer_addr()?;
    write!(socket, "POST /raw HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len}\r\n\r\n")
}

/// Reads one answer of the sink, which is short and ends with an empty object.
fn check_answer(socket: &mut TcpStream) -> io::Result<()> {
    let (mut answer, mut filled) = ([0; ANSWER_BYTES], 0);
    while !answer[..filled].ends_with(b"\r\n\r\n{}") {
        match socket.read(&mut answer[filled..])? {
            0 => break,
            len => filled += len,
        }
    }
    let answer = String::from_utf8_lossy(&answer[..filled]);
    if answer.starts_with("HTTP/1.1 201") { Ok(()) } else { Err(io::Error::other(answer.into_owned())) }
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

const ANSWER_BYTES: usize = 1024;
/// The maximum of one call (sendfile(2)).
const SENDFILE_BYTES: u64 = 0x7fff_f000;
/// The most plaintext of a record (RFC 8446, section 5.1).
const PLAIN_BYTES: usize = 1 << 14;
const HEADER_BYTES: usize = 5;
/// A full record: its header, the plaintext, the content type, and the tag.
const RECORD_BYTES: usize = HEADER_BYTES + PLAIN_BYTES + 1 + MAX_TAG_LEN;
const APPLICATION_DATA: u8 = 23;
/// 256 KiB of plaintext: fewer system calls, and still in the processor's cache when they are written.
const RECORDS_AT_ONCE: usize = 16;
const BLOCK_BYTES: usize = 1 << 20;
/// Sufficient for every common block device and file system.
const ALIGNMENT: usize = 4096;

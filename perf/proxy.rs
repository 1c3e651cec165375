//! A slow line on loopback: every connection has its own delay and rate.
//!
//! The proxy is independent of HTTP, TLS and the programs at both ends.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;

use crate::shaped_link::SharedLink;

/// The properties of the line, for every connection and in both directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) round_trip: Duration,
    pub(crate) bytes_per_second: f64,
}

/// Carries connections from `listener` to `target`, until the process ends. What they send passes `shared` together.
pub(crate) fn carry(
    listener: &TcpListener,
    target: SocketAddr,
    line: Line,
    shared: Option<&Arc<SharedLink>>,
) -> io::Result<()> {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    for near in listener.incoming() {
        let near = near?;
        connections.retain(|connection| !connection.is_finished());
        let shared = shared.cloned();
        connections.push(thread::spawn(move || match connect(near, target, line, shared.as_deref()) {
            Ok(()) => {}
            Err(error) => eprintln!("proxy: {error}"),
        }));
    }
    Ok(())
}

fn connect(near: TcpStream, target: SocketAddr, line: Line, shared: Option<&SharedLink>) -> io::Result<()> {
    // Limit the bytes in flight to the line's window instead of loopback's. A shared link has set its own.
    if shared.is_none() {
        set_socket_recv_buffer_size(&near, window_bytes(line))?;
    }
    let far = TcpStream::connect(target)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    // One round trip for the TCP handshake, which costs nothing on loopback.
    let open = Instant::now() + line.round_trip;
    thread::scope(|scope| {
        scope.spawn(|| one_way(&near, &far, line, open, shared));
        one_way(&far, &near, line, open, None);
    });
    Ok(())
}

/// Copies one direction until the sender closes it. A lost peer closes both directions.
fn one_way(from: &TcpStream, to: &TcpStream, line: Line, open: Instant, shared: Option<&SharedLink>) {
    let (sender, receiver) = sync_channel(IN_FLIGHT_BLOCKS);
    let outcome = thread::scope(|scope| {
        let arrivals = scope.spawn(|| deliver(receiver, to));
        let departures = depart(from, &sender, line, open, shared);
        drop(sender);
        departures.and(arrivals.join().unwrap_or(Ok(())))
    });
    let how = if outcome.is_ok() { Shutdown::Write } else { Shutdown::Both };
    // The other side may be gone already.
    let _ = to.shutdown(how);
    if outcome.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
}

/// Bytes and their arrival time.
struct Block {
    arrives: Instant,
    bytes: Vec<u8>,
}

/// Reads at most at the rate of the line, and of the link that it shares.
fn depart(
    mut from: &TcpStream,
    line_in: &SyncSender<Block>,
    line: Line,
    open: Instant,
    shared: Option<&SharedLink>,
) -> io::Result<()> {
    let mut free = open;
    let mut lane = shared.map(SharedLink::join);
    let mut buffer = vec![0; shared.map_or(BLOCK_BYTES, SharedLink::block_bytes)];
    loop {
        // The kernel still returns what it received before a reset. On a network, that would be lost.
        if let Some(error) = from.take_error()? {
            return Err(error);
        }
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        // Compensate for sleeps that took too long, up to `LATENESS`.
        let now = Instant::now();
        let factor = lane.as_ref().map_or(1.0, |lane| lane.factor(now));
        let taken = Duration::from_secs_f64(len as f64 / (line.bytes_per_second * factor));
        free = free.max(now - LATENESS) + taken;
        let mut passed = free;
        if let Some(lane) = &mut lane {
            let passage = lane.pass(len, now);
            free = free.max(passage.next);
            passed = passed.max(passage.through);
        }
        // The compensation is for the rate only: a block on an idle line would otherwise arrive earlier than the delay.
        let block = Block { arrives: passed.max(now) + line.round_trip / 2, bytes: buffer[..len].to_vec() };
        line_in.send(block).map_err(|_| io::ErrorKind::BrokenPipe)?;
        thread::sleep(free.saturating_duration_since(Instant::now()));
    }
}

/// Returns four times the bytes in flight on the line. A larger window would hold many seconds of a slow line.
fn window_bytes(line: Line) -> usize {
    let in_flight = line.bytes_per_second * line.round_trip.as_secs_f64();
    ((4.0 * in_flight) as usize).clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES)
}

fn deliver(line_out: Receiver<Block>, mut to: &TcpStream) -> io::Result<()> {
    for block in line_out {
        thread::sleep(block.arrives.saturating_duration_since(Instant::now()));
        to.write_all(&block.bytes)?;
    }
    Ok(())
}

const BLOCK_BYTES: usize = 64 << 10;
/// 16 MiB, which is more than the bandwidth-delay product of the line.
const IN_FLIGHT_BLOCKS: usize = 256;
const LATENESS: Duration = Duration::from_millis(20);
const LEAST_WINDOW_BYTES: usize = 128 << 10;
const MOST_WINDOW_BYTES: usize = 1 << 20;

//! Limits of bandwidth, requests and memory.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroU64;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringlift::{Bandwidth, ChunkSize, Client, MinSpeed, Reader, Settings, Uploaded};

use super::support::way::CHUNK;
use super::support::{MIB, Sample, Scheme, TestServer, digest, each_in_parallel};

const USAGE: i32 = 2;
const FAILED: i32 = 1;

fn mib_a_second(mib: u64) -> Bandwidth {
    Bandwidth::bytes_per_second(NonZeroU64::new(mib * MIB).unwrap())
}

#[test]
fn all_lanes_and_readers_share_one_limit() {
    let ways = [
        (Scheme::Http, Reader::Mmap),
        (Scheme::Http, Reader::Pread),
        (Scheme::Https, Reader::Uring),
        (Scheme::Https, Reader::Mmap),
    ];
    each_in_parallel(ways, |(scheme, reader)| {
        let test_server = TestServer::new(scheme);
        let sample = Sample::new(2 * CHUNK + 2 * MIB);
        // The limiter slows the last lane down, so the minimum speed must not end that lane.
        let min_speed = Some(MinSpeed { bytes_per_s: 3 * MIB, window: Duration::from_millis(50) });
        let client = test_server.short_pause_client().reader(reader).with(|settings| {
            settings.bandwidth = mib_a_second(10);
            settings.patience.min_speed = min_speed;
        });
        let client = client.build().unwrap();
        let begun = Instant::now();
        let upload = client.upload(sample.path()).chunk_size(ChunkSize::Bytes(CHUNK));
        let uploaded = upload.send_blocking().unwrap();
        let least = Duration::from_millis(1100);
        assert!(begun.elapsed() >= least, "{scheme:?} {reader} took {:?}", begun.elapsed());
        assert_eq!(uploaded.retries, 0, "{scheme:?} {reader}");
        test_server.assert_holds(&uploaded.video_id, &sample.path());
    });
}

#[test]
fn a_limit_can_be_changed_while_uploads_run() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(2 * CHUNK);
    let bandwidth = mib_a_second(1);
    let client = test_server
        .short_pause_client()
        .with(|settings| settings.bandwidth = bandwidth.clone())
        .build()
        .unwrap();
    let begun = Instant::now();
    let running = pollster::block_on(client.upload(sample.path()).start()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    bandwidth.set(None);
    let uploaded = running.join_blocking().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(9), "the old limit held for {:?}", begun.elapsed());
    test_server.assert_holds(&uploaded.video_id, &sample.path());
}

#[test]
fn the_command_respects_a_limit_and_a_timetable() {
    let limits = ["8M", "8M:1k", "00:00,8M 12:00,8M", "Mon-00:00,8M;Thu-10:30,8192"];
    each_in_parallel(limits, |limit| {
        let test_server = TestServer::new(Scheme::Http);
        let sample = Sample::new(6 * MIB);
        let begun = Instant::now();
        let ran = test_server.run(["upload", "--json", "--bwlimit", limit, sample.arg()]).done();
        assert!(begun.elapsed() >= Duration::from_millis(600), "{limit} took {:?}", begun.elapsed());
        test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
    });
}

#[test]
fn invalid_and_contradictory_limits_are_refused_before_anything_is_sent() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let refused = |args: &[&str], texts: &[&str]| {
        let args = ["upload"].into_iter().chain(args.iter().copied()).chain([sample.arg()]);
        test_server.run(args).failed(USAGE, texts);
        assert!(test_server.server.requests().is_empty(), "{texts:?}");
    };
    refused(&["--bwlimit", "fast"], &["--bwlimit", "10M, 512k or off"]);
    refused(&["--bwlimit", "25:00,1M"], &["`25:00` is no time"]);
    refused(&["--rate", "0"], &["--rate", "from 1 to"]);
    let both = ["--min-speed", "3145728", "--bwlimit", "10485760", "--concurrency"];
    refused(&["--min-speed", "3M", "--bwlimit", "Mon-00:00,50M Tue-00:00,10M", "--concurrency", "4"], &both);
}

#[test]
fn a_request_rate_enlarges_default_chunks_and_a_bandwidth_limit_does_not() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::sparse(2 << 30);
    let chunk_bytes = |args: &[&str]| {
        let args = ["upload", "--json", "--dry-run"].into_iter().chain(args.iter().copied());
        let ran = test_server.run(args.chain([sample.arg()])).done();
        ran.event("planned")["chunk_bytes"].as_u64().unwrap()
    };
    let free = chunk_bytes(&[]);
    let step = 256 << 10;
    // As few chunks as the rate demands, all of one length.
    let equal_chunks = |most_bytes: u64| {
        let chunks = sample.len.div_ceil(most_bytes.next_multiple_of(step));
        sample.len.div_ceil(chunks).next_multiple_of(step)
    };
    assert_eq!(chunk_bytes(&["--rate", "100"]), equal_chunks(75_000_000));
    assert_eq!(chunk_bytes(&["--rate", "1000", "--tpslimit", "1.2"]), equal_chunks(125_000_000 * 60 / 72));
    assert_eq!(chunk_bytes(&["--rate", "100", "--bwlimit", "10M"]), free);
}

#[test]
fn a_rate_spaces_the_requests_out_from_the_command_line_and_from_a_file() {
    let test_server = TestServer::new(Scheme::Http);
    let config = test_server.folder.path().join("config.toml");
    std::fs::write(&config, "[upload]\nrate = 120\n").unwrap();
    let sample = Sample::new(2 * CHUNK + 1);
    let chunk = CHUNK.to_string();
    for rate in [["--rate", "120/m"], ["--config", config.to_str().unwrap()]] {
        let begun = Instant::now();
        let args = ["upload", "--chunk-size", &chunk, rate[0], rate[1], sample.arg()];
        test_server.run(args).done();
        assert!(begun.elapsed() >= Duration::from_secs(1), "three requests in {:?}", begun.elapsed());
    }
}

/// A reader that returns its bytes after the other end of the channel is dropped.
struct DelayedReader<R>(mpsc::Receiver<()>, R);

impl<R: Read> Read for DelayedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let _ = self.0.recv();
        self.1.read(buffer)
    }
}

/// Returns a client whose streams share memory for `chunks` chunks of the smallest size.
fn client_with_memory_for(test_server: &TestServer, chunks: u64) -> Client {
    let cramp = |settings: &mut Settings| {
        settings.transfers = 100;
        settings.buffer_bytes = chunks * CHUNK;
    };
    test_server.short_pause_client().with(cramp).build().unwrap()
}

fn send(client: &Client, reader: impl Read + Send + 'static) -> Uploaded {
    let upload = client.upload_reader("live.mp4", reader).chunk_size(ChunkSize::Bytes(CHUNK));
    upload.send_blocking().unwrap()
}

#[test]
fn a_hundred_streams_in_reverse_order_share_memory_for_two_chunks() {
    let test_server = TestServer::new(Scheme::Http);
    let client = client_with_memory_for(&test_server, 2);
    let sample = Sample::new(CHUNK + 1);
    let expected = (sample.len, digest(&sample.path()));
    thread::scope(|scope| {
        let mut last = None;
        for _ in 0..100 {
            let (permit, permission) = mpsc::channel();
            let before = last.replace(permit);
            let (client, test_server, sample, expected) = (&client, &test_server, &sample, &expected);
            scope.spawn(move || {
                let uploaded = send(client, DelayedReader(permission, File::open(sample.path()).unwrap()));
                drop(before);
                assert_eq!(test_server.stored(&uploaded.video_id), *expected);
            });
        }
    });
}

#[test]
fn simultaneous_streams_complete_with_memory_for_one_chunk() {
    let test_server = TestServer::new(Scheme::Https);
    let client = client_with_memory_for(&test_server, 1);
    let sample = Sample::new(2 * CHUNK + 7);
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let uploaded = send(&client, File::open(sample.path()).unwrap());
                test_server.assert_holds(&uploaded.video_id, &sample.path());
            });
        }
    });
}

#[test]
fn a_stream_cancelled_within_a_chunk_returns_its_memory() {
    let test_server = TestServer::new(Scheme::Http);
    let client = client_with_memory_for(&test_server, 1);
    let (permit, permission) = mpsc::channel();
    let (told, begun) = mpsc::channel();
    let telling = NotifyingReader(told, std::io::repeat(7).take(2 * MIB));
    let stuck = telling.chain(DelayedReader(permission, std::io::empty()));
    let running = client.upload_reader("stuck.mp4", stuck).chunk_size(ChunkSize::Bytes(CHUNK)).start();
    let running = pollster::block_on(running).unwrap();
    begun.recv().unwrap();
    drop(running);
    let sample = Sample::new(CHUNK + 1);
    let uploaded = send(&client, File::open(sample.path()).unwrap());
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    drop(permit);
}

/// A reader that sends a message after its last byte.
struct NotifyingReader(mpsc::Sender<()>, std::io::Take<std::io::Repeat>);

impl Read for NotifyingReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.1.read(buffer)?;
        if read == 0 {
            self.0.send(()).unwrap();
        }
        Ok(read)
    }
}

#[test]
fn impossible_settings_for_standard_input_are_refused_before_any_file_is_sent() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    for (args, code, text) in [
        (["--max-buffer-memory", "4M", "--chunk-size", "auto"], USAGE, "--max-buffer-memory"),
        (["--max-buffer-memory", "9M", "--chunk-size", "10M"], USAGE, "10485760 bytes of memory"),
        (["--expected-size", "100G", "--chunk-size", "auto"], FAILED, "52428800000"),
        (["--mode", "single", "--max-buffer-memory", "64M"], FAILED, "--mode parts"),
    ] {
        let args = ["upload"].into_iter().chain(args).chain([sample.arg(), "-"]);
        test_server.run(args).failed(code, &[text]);
        assert!(test_server.server.requests().is_empty(), "{text}");
    }
}

#[test]
fn chunks_of_standard_input_shrink_with_the_available_memory() {
    let test_server = TestServer::new(Scheme::Http);
    let chunk_bytes = |memory: &str| {
        let ran =
            test_server.run(["upload", "--json", "--dry-run", "--max-buffer-memory", memory, "-"]).done();
        ran.event("planned")["chunk_bytes"].as_u64().unwrap()
    };
    assert_eq!(chunk_bytes("256M"), 16 * MIB);
    assert_eq!(chunk_bytes("7.5M"), 7 * MIB);
}

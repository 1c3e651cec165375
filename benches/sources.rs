//! How fast each reader gives a chunk's bytes, hot and cold, without a network behind it.
//!
//! Every block is copied once into a small buffer, as encryption would read it; so the map is
//! measured as it is over TLS. A map on a plain connection is read by nobody, and has no number here.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http_body_util::BodyExt;
use ringlift::internals::ChunkBody;
use ringlift::internals::Envelope;
use ringlift::internals::{AnySource, BufferPool, Choice, Delivery, Reason, Residency, SourceFile, probe};
use ringlift::{Extent, Reader};
use rustix::fs::{Advice, fadvise};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    Hot,
    Cold,
}

/// block sizes, for the readers that have blocks; hot and cold.
fn sources(c: &mut Criterion) {
    let path = sample();
    for (cache, name) in [(Cache::Hot, "hot"), (Cache::Cold, "cold")] {
        let mut group = c.benchmark_group(format!("sources/{name}"));
        group.throughput(Throughput::Bytes(FILE_BYTES));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(2));
        for (reader, blocks_kib) in AXES {
            for block_kib in *blocks_kib {
                let id = BenchmarkId::new(reader.to_string(), format!("block={block_kib}KiB"));
                group.bench_function(id, |b| {
                    b.iter_custom(|times| measure(&path, *reader, cache, block_kib << 10, times));
                });
            }
        }
    }
    fs::remove_file(path).expect("the sample is ours");
}

fn measure(path: &Path, reader: Reader, cache: Cache, block_bytes: u64, times: u64) -> Duration {
    let file = SourceFile::open(path).expect("the sample is readable");
    let residency = Residency { percent: if cache == Cache::Hot { 100 } else { 0 } };
    let choice = Choice { reader, delivery: Delivery::Tls, residency, reason: Reason::Asked };
    let run = |pool: BufferPool| async move {
        let mut taken = Duration::ZERO;
        for _ in 0..times {
            set_cache(path, cache);
            let (source, declined) = AnySource::open(&file, &choice, &pool);
            declined.expect("every reader is to be had where this is measured");
            let start = Instant::now();
            drain(source).await;
            taken += start.elapsed();
        }
        taken
    };
    match probe::check_ring() {
        Ok(()) => tokio_uring::start(async {
            run(BufferPool::in_ring(BLOCKS, block_bytes).expect("memory for the pool")).await
        }),
        Err(_) => {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                run(BufferPool::new(BLOCKS, block_bytes).expect("memory for the pool")).await
            })
        }
    }
}

async fn drain(source: AnySource) {
    let envelope = Envelope::new("boundary", "sample.mp4", None);
    let mut body = ChunkBody::new(&envelope, source, Extent::new(0, FILE_BYTES), Arc::default());
    let mut record = [0; 16 << 10];
    while let Some(frame) = body.frame().await {
        let block = frame.expect("the sample does not change").into_data().expect("there are no trailers");
        for piece in block.chunks(record.len()) {
            record[..piece.len()].copy_from_slice(piece);
            std::hint::black_box(&mut record);
        }
    }
}

fn set_cache(path: &Path, cache: Cache) {
    let file = File::open(path).expect("the sample is readable");
    match cache {
        Cache::Hot => drop(fs::read(path).expect("the sample is readable")),
        Cache::Cold => fadvise(&file, 0, None, Advice::DontNeed).expect("a hint"),
    }
}

fn sample() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sources-bench.bin");
    let mut file = File::create(&path).expect("the target folder is writable");
    for number in 0..FILE_BYTES >> 20 {
        file.write_all(&vec![number as u8; 1 << 20]).expect("there is room for the sample");
    }
    file.sync_all().expect("there is room for the sample");
    path
}

const FILE_BYTES: u64 = 128 << 20;
const BLOCKS: usize = 8;

const BLOCK_SIZES_KIB: &[u64] = &[128, 256, 512, 1024, 2048];

/// The map's blocks are its own.
const AXES: &[(Reader, &[u64])] = &[
    (Reader::Uring, BLOCK_SIZES_KIB),
    (Reader::Direct, BLOCK_SIZES_KIB),
    (Reader::Pread, BLOCK_SIZES_KIB),
    (Reader::Mmap, &[1024]),
];

criterion_group!(benches, sources);
criterion_main!(benches);

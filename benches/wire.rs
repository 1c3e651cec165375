//! Arithmetic and text of the wire: what a chunk costs before its first byte moves.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlift::internals::{ContentRange, Envelope};
use ringlift::limits::MIB;
use ringlift::{Addressing, Extent, Plan};

fn plan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire/plan");
    let plan = Plan::new(FILE_BYTES, 5 * MIB, Addressing::ByteRange).expect("the guide's limits allow it");
    group.throughput(Throughput::Elements(u64::from(plan.chunks())));
    group.bench_function("chunks", |bencher| {
        bencher
            .iter(|| (0..plan.chunks()).map(|index| black_box(&plan).chunk(index).extent.len()).sum::<u64>());
    });
    group.finish();
}

fn content_range(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire/content_range");
    let bytes =
        ContentRange::Bytes { extent: Extent::new(FILE_BYTES / 2, 64 * MIB), total: Some(FILE_BYTES) };
    let part = ContentRange::Part { number: 160, total: Some(320) };
    for (name, range) in [("bytes", bytes), ("part", part)] {
        let text = range.to_string();
        group
            .bench_function(format!("print/{name}"), |bencher| bencher.iter(|| black_box(range).to_string()));
        group.bench_function(format!("parse/{name}"), |bencher| {
            bencher.iter(|| black_box(text.as_str()).parse::<ContentRange>());
        });
    }
    group.finish();
}

fn envelope(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire/envelope");
    for (name, video_id) in [("container", None), ("delegated", Some("vi4k0jvEUuaTdRAEjQ4Jfrgz"))] {
        group.bench_function(name, |bencher| {
            bencher
                .iter(|| Envelope::new(black_box("boundary-of-32-characters-or-so"), "movie.mp4", video_id));
        });
    }
    group.finish();
}

criterion_group!(wire, plan, content_range, envelope);
criterion_main!(wire);

const FILE_BYTES: u64 = 20 << 30;

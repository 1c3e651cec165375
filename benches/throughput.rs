//! Uploads to a sink in this process: how a file is addressed, read, cut and sent, one axis at a time
//! around a base point, over HTTP and HTTPS.
//!
//! Start here to tune: `cargo bench --bench throughput`, then `-- throughput/https/reader`, say.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use ringlift::{ChunkSize, Client, Mode, Reader, SigbusHandler};
use ringlift_baseline::{Scheme, Sink, limits};
use tempfile::TempDir;

use support::HotFile;

/// One way to upload. Axes that a benchmark does not name are those of the base point.
#[derive(Clone, Copy)]
struct UploadParams {
    mode: Mode,
    reader: Reader,
    chunk_mib: u64,
    lanes: usize,
}

const BASE: UploadParams = UploadParams { mode: Mode::Bytes, reader: Reader::Auto, chunk_mib: 64, lanes: 2 };

fn limit(criterion: &mut Criterion) {
    let bench = ThroughputBench::new(Scheme::Http);
    let mut group = bench.group(criterion, "throughput/limit");
    let address = bench.sink.url().trim_start_matches("http://").parse().expect("a sink has an address");
    group.bench_function("sendfile", |bencher| {
        bencher.iter(|| limits::send(&bench.file.path(), address, u64::MAX).expect("loopback carries it"));
    });
    group.bench_function("sealing", |bencher| {
        bencher.iter(|| limits::send_sealed(&bench.file.path(), address).expect("loopback carries it"));
    });
    group.finish();
}

fn http(criterion: &mut Criterion) {
    all_axes(criterion, Scheme::Http);
}

fn https(criterion: &mut Criterion) {
    all_axes(criterion, Scheme::Https);
}

fn all_axes(criterion: &mut Criterion, scheme: Scheme) {
    let bench = ThroughputBench::new(scheme);
    let modes = [("single", Mode::Single), ("bytes", Mode::Bytes), ("parts", Mode::Parts)];
    bench.axis(criterion, "mode", modes.map(|(name, mode)| (name.to_owned(), UploadParams { mode, ..BASE })));
    let readers = [Reader::Auto, Reader::Mmap, Reader::Uring, Reader::Direct, Reader::Pread];
    bench.axis(
        criterion,
        "reader",
        readers.map(|reader| (reader.to_string(), UploadParams { reader, ..BASE })),
    );
    let chunks = [5, 16, 64, 128];
    bench.axis(
        criterion,
        "chunk",
        chunks.map(|chunk_mib| (format!("{chunk_mib}MiB"), UploadParams { chunk_mib, ..BASE })),
    );
    let lanes = [1, 2, 4, 8];
    let one_of = |lanes: usize| (lanes.to_string(), UploadParams { lanes, chunk_mib: 16, ..BASE });
    bench.axis(criterion, "lanes", lanes.map(one_of));
}

/// A sink, a file and what a client needs to know of them.
struct ThroughputBench {
    scheme: Scheme,
    sink: Sink,
    file: HotFile,
    ca: Option<PathBuf>,
    _folder: TempDir,
}

impl ThroughputBench {
    fn new(scheme: Scheme) -> ThroughputBench {
        let sink = Sink::start(scheme).expect("loopback has a free port");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ca = support::certificate(&sink, folder.path()).expect("a temporary file");
        let file = HotFile::new(FILE_BYTES).expect("the target folder takes a file");
        ThroughputBench { scheme, sink, file, ca, _folder: folder }
    }

    fn group<'a>(&self, criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
        let mut group = criterion.benchmark_group(name);
        group
            .throughput(Throughput::Bytes(self.file.len))
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(2));
        group
    }

    fn axis(
        &self,
        criterion: &mut Criterion,
        axis: &str,
        ways: impl IntoIterator<Item = (String, UploadParams)>,
    ) {
        let mut group = self.group(criterion, &format!("throughput/{}/{axis}", self.scheme.name()));
        for (name, way) in ways {
            let client = self.client(way);
            group.bench_function(name, |bencher| bencher.iter(|| self.upload(&client, way)));
        }
        group.finish();
    }

    /// Its threads and connections are there before the first measurement.
    fn client(&self, way: UploadParams) -> Client {
        let client = Client::builder().endpoint_url(self.sink.url()).api_key("bench");
        // As the command does, so that `auto` is what it takes.
        let client = client
            .reader(way.reader)
            .lanes(way.lanes)
            .with(|settings| settings.sigbus = SigbusHandler::Install);
        let client = self.ca.iter().fold(client, |client, ca| client.ca_cert(ca));
        client.build().expect("the settings are sound")
    }

    fn upload(&self, client: &Client, way: UploadParams) {
        let upload =
            client.upload(self.file.path()).mode(way.mode).chunk_size(ChunkSize::Bytes(way.chunk_mib << 20));
        let uploaded = upload.send_blocking().expect("the sink takes everything");
        assert_eq!(uploaded.bytes, self.file.len);
    }
}

criterion_group!(throughput, limit, http, https);
criterion_main!(throughput);

/// Fits one request, so that all ways send the same bytes.
const FILE_BYTES: u64 = 192 << 20;

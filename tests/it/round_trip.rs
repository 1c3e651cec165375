//! Every source, addressing, scheme and edge-case length: the stored bytes equal the file.

use std::fs::File;

use ringlift::limits::MIN_CHUNK_BYTES;
use ringlift::{ChunkSize, Client, ErrorKind, Mode, Reader, SigbusHandler};

use crate::support::{MIB, Sample, Scheme, TestServer};

const CHUNK: u64 = 6 * MIB;

const LENGTHS: &[u64] =
    &[1, MIN_CHUNK_BYTES - 1, MIN_CHUNK_BYTES, MIN_CHUNK_BYTES + 1, CHUNK, 2 * CHUNK, 2 * CHUNK + 1];

const MODES: &[Mode] = &[Mode::Single, Mode::Bytes, Mode::Parts, Mode::Auto];

fn every_length_and_mode(scheme: Scheme, reader: Reader) {
    let test_server = TestServer::new(scheme);
    let client = test_server.client().reader(reader).lanes(4).build().unwrap();
    every_length_and_mode_by(&client, &test_server);
}

fn every_length_and_mode_by(client: &Client, test_server: &TestServer) {
    for &len in LENGTHS {
        let sample = Sample::new(len);
        for &mode in MODES {
            let upload = client.upload(sample.path()).mode(mode).chunk_size(ChunkSize::Bytes(CHUNK));
            let uploaded = upload.send_blocking().unwrap();
            assert_eq!(uploaded.bytes, len, "{mode:?} {len}");
            test_server.assert_holds(&uploaded.video_id, &sample.path());
        }
    }
}

#[test]
fn the_ring_delivers_every_byte_over_http() {
    every_length_and_mode(Scheme::Http, Reader::Uring);
}

#[test]
fn the_ring_delivers_every_byte_over_https() {
    every_length_and_mode(Scheme::Https, Reader::Uring);
}

#[test]
fn direct_reads_deliver_every_byte_over_http() {
    every_length_and_mode(Scheme::Http, Reader::Direct);
}

#[test]
fn direct_reads_deliver_every_byte_over_https() {
    every_length_and_mode(Scheme::Https, Reader::Direct);
}

#[test]
fn the_map_delivers_every_byte_over_http() {
    every_length_and_mode(Scheme::Http, Reader::Mmap);
}

#[test]
fn the_map_delivers_every_byte_over_https() {
    every_length_and_mode(Scheme::Https, Reader::Mmap);
}

#[test]
fn plain_reads_deliver_every_byte_over_http() {
    every_length_and_mode(Scheme::Http, Reader::Pread);
}

#[test]
fn plain_reads_deliver_every_byte_over_https() {
    every_length_and_mode(Scheme::Https, Reader::Pread);
}

#[test]
fn the_chosen_reader_delivers_every_byte_hot_and_cold() {
    for (scheme, sigbus) in [
        (Scheme::Http, SigbusHandler::Leave),
        (Scheme::Https, SigbusHandler::Leave),
        (Scheme::Https, SigbusHandler::Install),
    ] {
        let test_server = TestServer::new(scheme);
        let client = test_server.client().lanes(4).with(|settings| settings.sigbus = sigbus).build().unwrap();
        every_length_and_mode_by(&client, &test_server);
        let sample = Sample::new(3 * CHUNK + 17);
        let send =
            || client.upload(sample.path()).chunk_size(ChunkSize::Bytes(CHUNK)).send_blocking().unwrap();
        let hot = send();
        let by_map = scheme == Scheme::Http || sigbus == SigbusHandler::Install;
        assert_eq!(hot.reader == Some(Reader::Mmap), by_map, "{scheme:?} {sigbus:?}: {:?}", hot.reader);
        test_server.assert_holds(&hot.video_id, &sample.path());
        let file = File::open(sample.path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        test_server.assert_holds(&send().video_id, &sample.path());
    }
}

#[test]
fn a_stream_of_unknown_length_delivers_every_byte() {
    for scheme in [Scheme::Http, Scheme::Https] {
        let test_server = TestServer::new(scheme);
        let client = test_server.client().build().unwrap();
        for &len in LENGTHS {
            let sample = Sample::new(len);
            let upload = client.upload_reader("movie.mp4", File::open(sample.path()).unwrap());
            let uploaded = upload.chunk_size(ChunkSize::Bytes(CHUNK)).send_blocking().unwrap();
            assert_eq!(uploaded.bytes, len);
            test_server.assert_holds(&uploaded.video_id, &sample.path());
        }
    }
}

#[test]
fn a_delegated_upload_creates_one_video_for_any_number_of_chunks() {
    for scheme in [Scheme::Http, Scheme::Https] {
        let test_server = TestServer::new(scheme);
        let key_holder = test_server.client().build().unwrap();
        let token = pollster::block_on(key_holder.create_upload_token(None)).unwrap();
        let stranger =
            test_server.client().with(|settings| settings.credentials = Default::default()).build().unwrap();
        for mode in [Mode::Single, Mode::Bytes, Mode::Parts] {
            let before = test_server.server.stats().videos_created;
            let sample = Sample::new(4 * CHUNK + 3);
            let upload = stranger.upload(sample.path()).upload_token(token.token.clone()).mode(mode);
            let uploaded = upload.chunk_size(ChunkSize::Bytes(CHUNK)).send_blocking().unwrap();
            test_server.assert_holds(&uploaded.video_id, &sample.path());
            assert_eq!(test_server.server.stats().videos_created, before + 1);
        }
        let sample = Sample::new(2 * CHUNK + 3);
        let upload = stranger.upload_reader("live.mp4", File::open(sample.path()).unwrap());
        let upload = upload.upload_token(token.token.clone()).chunk_size(ChunkSize::Bytes(CHUNK));
        test_server.assert_holds(&upload.send_blocking().unwrap().video_id, &sample.path());
    }
}

#[test]
fn an_empty_file_is_refused_before_anything_is_created() {
    let test_server = TestServer::new(Scheme::Http);
    let client = test_server.client().build().unwrap();
    let sample = Sample::new(0);
    for &mode in MODES {
        let error = client.upload(sample.path()).mode(mode).send_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PlanImpossible);
    }
    let error = client.upload_reader("empty", std::io::empty()).send_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PlanImpossible);
    assert_eq!(test_server.server.stats().videos_created, 0);
}

#[test]
fn a_sparse_file_of_six_gib_is_sent_past_32_bits() {
    let test_server = TestServer::new(Scheme::Http);
    let client = test_server.client().build().unwrap();
    let sample = Sample::sparse(6 << 30);
    let uploaded = client.upload(sample.path()).mode(Mode::Bytes).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
}

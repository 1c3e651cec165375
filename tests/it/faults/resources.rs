//! Limits of the process, of the protocol and of names, and readers that panic.

use super::*;

#[test]
fn the_command_works_with_few_descriptors_little_locked_memory_or_no_ring() {
    for scheme in SCHEMES {
        let test_server = TestServer::new(scheme);
        let sample = Way::Bytes.sample(5);
        for want in [Restriction::Descriptors(64), Restriction::LockedKib(64), Restriction::Ring] {
            let args = ["upload", "--json", "-c", "3", "--chunk-size", "5MiB", sample.arg()];
            let ran = want
                .run(|command| {
                    test_server.configure(command).args(args);
                })
                .done();
            test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path());
        }
    }
}

#[test]
fn too_few_descriptors_are_an_error_and_not_a_hang() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Way::Bytes.sample(3);
    let args = ["upload", "--json", "-c", "3", "--retries", "0", "--chunk-size", "5MiB", sample.arg()];
    each_in_parallel([0, 1, 2], |third| {
        for most in (4 + third..40).step_by(3) {
            let ran = Restriction::Descriptors(most).run(|command| {
                test_server.configure(command).args(args);
            });
            match ran.code {
                Some(0) => {
                    test_server.assert_holds(ran.summary()["video_id"].as_str().unwrap(), &sample.path())
                }
                _ => assert!(
                    ran.stderr.contains("ringlift:") && !ran.stderr.contains("panicked"),
                    "{most}: {ran:?}"
                ),
            }
        }
    });
}

/// A reader that returns some bytes and then panics.
struct PanickingReader(usize);

impl std::io::Read for PanickingReader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        assert!(self.0 > 0, "this reader panics, as it should");
        let len = buf.len().min(self.0);
        self.0 -= len;
        Ok(len)
    }
}

#[test]
fn a_panicking_reader_ends_only_its_own_upload() {
    let test_server = TestServer::new(Scheme::Http);
    let client = test_server.short_pause_client().build().unwrap();
    for len in [0, 3 * MIB, 12 * MIB] {
        let upload = client.upload_reader("live.mp4", PanickingReader(len as usize));
        let error = upload.chunk_size(ChunkSize::Bytes(CHUNK)).send_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
        assert!(error.to_string().contains("live.mp4"), "{error}");
    }
    let sample = Way::Bytes.sample(2);
    let uploaded = Way::Bytes.upload(&test_server, &client, &sample).send_blocking().unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
}

#[test]
fn a_file_beyond_the_limits_of_the_protocol_is_refused_with_the_limits_before_anything_is_created() {
    let test_server = TestServer::new(Scheme::Http);
    let client = test_server.client().build().unwrap();
    let refused = |len: u64, mode: Mode, chunk_size: ChunkSize| {
        let sample = Sample::sparse(len);
        let error =
            client.upload(sample.path()).mode(mode).chunk_size(chunk_size).send_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PlanImpossible, "{error:?}");
        std::error::Error::source(&error).unwrap().to_string()
    };
    let auto = ChunkSize::Auto;
    let too_long = refused(100 << 30, Mode::Auto, auto);
    assert!(too_long.contains("52428800000"), "{too_long}");
    let too_long = refused(10_000 * CHUNK + 1, Mode::Parts, ChunkSize::Bytes(CHUNK));
    assert!(too_long.contains("52428800000"), "{too_long}");
    let too_small = refused(MIB * 100, Mode::Bytes, ChunkSize::Bytes(CHUNK - 1));
    assert!(too_small.contains("5242880"), "{too_small}");
    let too_large = refused(MIB * 300, Mode::Parts, ChunkSize::Bytes(200 * MIB + 1));
    assert!(too_large.contains("209715200"), "{too_large}");
    let too_long_for_one = refused(200 * MIB + 1, Mode::Single, auto);
    assert!(too_long_for_one.contains("209715200"), "{too_long_for_one}");
    test_server.assert_created(0);
    assert_eq!(test_server.chunk_requests().len(), 0);
}

#[test]
fn a_last_chunk_of_one_byte_and_one_of_full_length_both_arrive() {
    for way in Way::CHUNKED {
        for len in [2 * CHUNK, 2 * CHUNK + 1, CHUNK, CHUNK - 1, 1] {
            let test_server = TestServer::new(Scheme::Http);
            upload_successfully(&test_server, way, &Sample::new(len));
            test_server.assert_created(1);
        }
    }
}

#[test]
fn no_file_name_can_end_its_header() {
    let long = "x".repeat(255);
    let names: [&[u8]; 7] = [
        b"a \"quoted\" name.mp4",
        b"two\r\nContent-Length: 0\r\n\r\nlines.mp4",
        b"not \xff\xfe utf-8.mp4",
        b"..\\..\\up.mp4",
        "\u{202e}4pm.\u{1f4fc}".as_bytes(),
        b"--ringlift-\t%0d%0a;name=x.mp4",
        long.as_bytes(),
    ];
    for scheme in SCHEMES {
        let test_server = TestServer::new(scheme);
        let client = test_server.short_pause_client().build().unwrap();
        let (folder, token) = (tempfile::tempdir().unwrap(), test_server.upload_token());
        for name in names {
            let path = folder.path().join(OsStr::from_bytes(name));
            fs::write(&path, name).unwrap();
            let uploaded = client.upload(&path).send_blocking().unwrap();
            test_server.assert_holds(&uploaded.video_id, &path);
            let title =
                pollster::block_on(client.video(&uploaded.video_id)).unwrap().title.unwrap_or_default();
            assert_eq!(title, String::from_utf8_lossy(name));
            let uploaded = client.upload(&path).upload_token(token.clone()).send_blocking().unwrap();
            test_server.assert_holds(&uploaded.video_id, &path);
        }
    }
}

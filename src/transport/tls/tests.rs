use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{SanType, date_time_ymd};

use super::*;
use crate::transport::testing::{
    Frames, Server, Wire, get, long_timeouts, pattern, post, run, self_signed, wanting_certificates,
};
use crate::transport::{DialSettings, Dialer};

/// The error of the first request to a server that reads and answers nothing.
fn refused(certified: (Arc<rustls::ServerConfig>, String)) -> TransportError {
    let server = Server::certified(Wire::Tls, certified, |server| server.accept().drain());
    run(async { first_answer(&server.dialer(DialSettings::default()), get()).await.unwrap_err() })
}

async fn first_answer(dialer: &Dialer, request: http::Request<Frames>) -> Result<(), TransportError> {
    let mut lane = dialer.dial().await?;
    lane.send(request, &long_timeouts()).await.map(drop)
}

#[test]
fn a_named_self_signed_certificate_is_accepted_with_ca_true() {
    let server = Server::certified(Wire::Tls, self_signed(|_| {}), |server| {
        let mut peer = server.accept();
        peer.read_request();
        peer.answer("HTTP/1.1 204 No Content\r\n\r\n");
    });
    run(async { first_answer(&server.dialer(DialSettings::default()), get()).await.unwrap() });
}

#[test]
fn a_named_certificate_still_has_to_be_for_the_host_and_for_today() {
    let elsewhere = refused(self_signed(|params| {
        params.subject_alt_names = vec![SanType::DnsName("elsewhere.test".try_into().unwrap())];
    }));
    assert!(matches!(elsewhere, TransportError::Untrusted { .. }), "{elsewhere:?}");
    assert!(elsewhere.to_string().contains("elsewhere.test"), "{elsewhere}");
    let expired = refused(self_signed(|params| params.not_after = date_time_ymd(2001, 1, 1)));
    assert!(expired.to_string().contains("expired"), "{expired}");
    let early = refused(self_signed(|params| params.not_before = date_time_ymd(3000, 1, 1)));
    assert!(matches!(early, TransportError::Untrusted { .. }), "{early:?}");
}

#[test]
fn another_certificate_of_the_same_name_is_not_the_one_that_was_named() {
    let (config, _) = self_signed(|_| {});
    let (_, other) = self_signed(|_| {});
    let error = refused((config, other));
    assert!(matches!(error, TransportError::Untrusted { .. }), "{error:?}");
    assert!(error.to_string().contains("add this very certificate"), "{error}");
}

#[test]
fn a_server_that_requires_a_client_certificate_is_refused_by_that_name() {
    for version in [&version::TLS12, &version::TLS13] {
        for len in [0, 8 << 20] {
            let certified = wanting_certificates(version);
            let server = Server::certified(Wire::Tls, certified, |server| server.accept().drain());
            run(async {
                let request = post(Frames::new([pattern(len)]));
                let error = first_answer(&server.dialer(DialSettings::default()), request).await.unwrap_err();
                assert!(matches!(error, TransportError::TlsRefused { .. }), "{version:?} {len}: {error:?}");
                assert!(error.to_string().contains("client certificate"), "{error}");
                assert!(!error.sent_all());
            });
        }
    }
}

/// Answers the first connection with these bytes, whatever it sends.
fn answering(answer: &'static [u8]) -> Server {
    Server::start(Wire::Plain, move |server| {
        let (mut tcp, _) = server.listener.accept().unwrap();
        let mut bytes = [0; 4096];
        let _ = tcp.read(&mut bytes).unwrap();
        tcp.write_all(answer).unwrap();
        tcp.shutdown(std::net::Shutdown::Write).unwrap();
        while tcp.read(&mut bytes).is_ok_and(|len| len > 0) {}
    })
}

#[test]
fn a_fatal_alert_is_final_and_an_end_without_one_is_not() {
    for (answer, word) in [
        (&b"\x15\x03\x03\0\x02\x02\x28"[..], "cipher suite"),
        (&b"\x15\x03\x03\0\x02\x02\x46"[..], "TLS 1.2"),
        (&b"\x15\x03\x03\0\x02\x02\x70"[..], "host name"),
        (&b"\x15\x03\x03\0\x02\x02\x2f"[..], "IllegalParameter"),
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "does not speak TLS"),
    ] {
        let server = answering(answer);
        let dialer = https(&server);
        let error = run(async { dialer.dial::<Frames>().await.unwrap_err() });
        assert!(matches!(error, TransportError::TlsRefused { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
    for answer in [&b""[..], b"\x15\x03\x03\0\x02\x02\x50", b"\x16\x03"] {
        let server = answering(answer);
        let dialer = https(&server);
        let error = run(async { dialer.dial::<Frames>().await.unwrap_err() });
        assert!(matches!(error, TransportError::Tls { .. }), "{answer:?}: {error:?}");
    }
}

fn https(server: &Server) -> Dialer {
    let endpoint = format!("https://{}", server.address);
    let (_, ca_pem) = self_signed(|_| {});
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(ca_pem.as_bytes()).unwrap();
    let trust = Trust { ca_certs: vec![ca.path().to_owned()] };
    Dialer::new(&endpoint, &trust, DialSettings::default()).unwrap()
}

#[test]
fn a_file_of_certificates_may_begin_with_a_byte_order_mark() {
    let (_, pem) = self_signed(|_| {});
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"\xef\xbb\xbf").unwrap();
    file.write_all(pem.replace('\n', "\r\n").as_bytes()).unwrap();
    assert_eq!(ca_certs(file.path()).unwrap().len(), 1);
    // It has no end, and no certificate either.
    let endless = ca_certs("/dev/zero".as_ref()).unwrap_err();
    assert!(matches!(endless, TransportError::BadCaCert { flaw: CaCertFlaw::NotPem, .. }), "{endless:?}");
}

#[test]
fn a_clock_before_1970_is_named() {
    static READ: AtomicUsize = AtomicUsize::new(0);
    let clock = Clock(|| {
        READ.fetch_add(1, Ordering::Relaxed);
        UNIX_EPOCH - Duration::from_secs(1)
    });
    let server = Server::start(Wire::Tls, |server| server.accept().drain());
    let history = Arc::new(History::default());
    let trust = server.trust();
    let config = Arc::new(client_config_at(&trust, &history, clock).unwrap());
    run(async {
        let tcp = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let socket = LaneSocket::new(tcp, Arc::default());
        let uri = server.endpoint().parse().unwrap();
        let Err(error) = secure(socket, &uri, &config, &history, 1 << 16).await else { panic!("secured") };
        assert!(matches!(error, TransportError::TlsRefused { .. }), "{error:?}");
        assert!(error.to_string().contains("1970"), "{error}");
    });
    assert!(READ.load(Ordering::Relaxed) > 0);
}

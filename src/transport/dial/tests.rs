use std::io::Write as _;
use std::os::fd::OwnedFd;

use hyper::rt::Write as _;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};

use super::*;
use crate::transport::error::CaCertFlaw;
use crate::transport::metered::MeteredStream;
use crate::transport::testing::{Frames, Server, WIRES, Wire, run};
use crate::transport::{EndpointFlaw, Trust};

const SHORT: Duration = Duration::from_millis(300);

fn dialer(endpoint: &str) -> Result<Dialer, TransportError> {
    Dialer::new(endpoint, &Trust::default(), DialSettings::default())
}

fn short() -> DialSettings {
    DialSettings { connect_timeout: SHORT, tls_timeout: SHORT, ..DialSettings::default() }
}

async fn failed(dialer: &Dialer) -> TransportError {
    dialer.dial::<Frames>().await.expect_err("no lane")
}

/// An address that answers no connection: its backlog is full, so that the kernel drops what comes.
struct Dead {
    address: SocketAddr,
    _listener: OwnedFd,
    _backlog: Vec<std::net::TcpStream>,
}

impl Dead {
    fn new() -> Dead {
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&listener, 0).unwrap();
        let address: SocketAddr = getsockname(&listener).unwrap().try_into().unwrap();
        let timeouts = Duration::from_millis(50);
        let backlog = (0..4).map_while(|_| std::net::TcpStream::connect_timeout(&address, timeouts).ok());
        Dead { address, _backlog: backlog.collect(), _listener: listener }
    }
}

#[test]
fn an_endpoint_names_the_host_and_prefixes_the_paths() {
    let plain = dialer("http://127.0.0.1:8080/base/").unwrap();
    assert!(!plain.is_tls());
    assert_eq!(plain.authority(), "127.0.0.1:8080");
    assert_eq!(plain.path("/videos?a=b"), "/base/videos?a=b");
    assert_eq!(plain.path("videos"), "/base/videos");
    let bare = dialer("http://example.test").unwrap();
    assert_eq!((bare.authority(), bare.path("/videos").as_str()), ("example.test", "/videos"));
    assert_eq!((bare.endpoint.host(), bare.endpoint.port()), ("example.test", 80));
    let v6 = dialer("http://[::1]:81/").unwrap();
    assert_eq!((v6.endpoint.host(), v6.endpoint.port()), ("::1", 81));
}

#[test]
fn an_invalid_endpoint_is_refused_with_the_reason() {
    for (endpoint, expected) in [
        ("", EndpointFlaw::NotAUrl),
        ("/videos", EndpointFlaw::NotAUrl),
        ("ws.api.video", EndpointFlaw::NotAUrl),
        ("ftp://host", EndpointFlaw::Scheme),
        ("http://:80", EndpointFlaw::NoHost),
        ("http://host/?q", EndpointFlaw::Query),
        ("http://host/?key=secret", EndpointFlaw::Query),
        ("https://me:secret@host", EndpointFlaw::Credentials),
    ] {
        let error = dialer(endpoint).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(matches!(error, TransportError::BadEndpoint { flaw, .. } if flaw == expected), "{error:?}");
    }
}

#[test]
fn an_invalid_ca_file_is_refused_with_the_reason() {
    let trusting = |path: &std::path::Path| {
        let trust = Trust { ca_certs: vec![path.to_owned()] };
        match Dialer::new("https://localhost", &trust, DialSettings::default()) {
            Err(TransportError::BadCaCert { flaw, .. }) => flaw,
            other => panic!("{other:?}"),
        }
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(trusting("/nowhere/ca.pem".as_ref()), CaCertFlaw::Unreadable(_)));
    assert!(matches!(trusting(file.path()), CaCertFlaw::NotPem));
    file.write_all(b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    assert!(matches!(trusting(file.path()), CaCertFlaw::NotPem));
    file.as_file().set_len(0).unwrap();
    std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(matches!(trusting(file.path()), CaCertFlaw::Rejected(_)));
}

#[test]
fn a_refused_connection_names_the_address_once() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    run(async {
        let error = failed(&dialer(&format!("http://{unused}")).unwrap()).await;
        assert!(matches!(error, TransportError::Connect { .. }), "{error:?}");
        let named = format!("cannot connect to {unused}: Connection refused");
        assert!(error.to_string().starts_with(&named), "{error}");
        let dialer = dialer("http://named.test").unwrap();
        let error = dialer.connect_any(vec![unused], "named.test:1").await.unwrap_err();
        let named = format!("cannot connect to named.test:1: {unused}: Connection refused");
        assert!(error.to_string().starts_with(&named), "{error}");
    });
}

#[test]
fn an_unknown_name_does_not_resolve() {
    run(async {
        let error = failed(&dialer("http://nowhere.invalid").unwrap()).await;
        assert!(matches!(error, TransportError::Resolve { .. }), "{error:?}");
    });
}

#[test]
fn a_dead_address_among_several_costs_little() {
    let dead = Dead::new();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let live = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let live_address = live.local_addr().unwrap();
    run(async {
        let dialer = dialer("http://several.test").unwrap();
        let (_, address) =
            dialer.connect_any(vec![dead.address, unused, live_address], "host:1").await.unwrap();
        assert_eq!(address, live_address);
    });
}

#[test]
fn only_dead_addresses_are_a_timeout_and_one_refusal_is_not() {
    let (dead, other) = (Dead::new(), Dead::new());
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    run(async {
        let dialer = Dialer { settings: short(), ..dialer("http://several.test").unwrap() };
        let error = dialer.connect_any(vec![dead.address, other.address], "host:1").await.unwrap_err();
        let TransportError::ConnectTimeout { after: SHORT, attempts, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(attempts.len(), 2);
        let error = dialer.connect_any(vec![dead.address, unused], "host:1").await.unwrap_err();
        assert!(
            matches!(&error, TransportError::Connect { attempts, .. } if attempts.len() == 2),
            "{error:?}"
        );
    });
}

#[test]
fn dials_take_turns_among_the_addresses() {
    let dialer = dialer("http://127.0.0.1").unwrap();
    let clone = dialer.clone();
    run(async {
        dialer.resolve(dialer.endpoint.host(), 80).await.unwrap();
        clone.resolve(clone.endpoint.host(), 80).await.unwrap();
    });
    assert_eq!(dialer.turn.load(Ordering::Relaxed), 2);
}

/// Packets may be lost without an error: the kernel detects that first (tcp(7)).
#[test]
fn the_kernel_receives_the_timeout_for_a_silent_peer() {
    let server = Server::start(Wire::Plain, |server| server.accept().drain());
    run(async {
        for (user_timeout_s, idle_s) in [(90, 30), (7, 3)] {
            let settings = DialSettings {
                tcp_user_timeout: Duration::from_secs(user_timeout_s),
                tcp_keepalive: Duration::from_secs(idle_s),
                ..DialSettings::default()
            };
            let socket = server.dialer(settings).socket(server.address).unwrap();
            assert_eq!(u64::from(sockopt::tcp_user_timeout(&socket).unwrap()), user_timeout_s * 1000);
            assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(idle_s));
            assert!(sockopt::socket_keepalive(&socket).unwrap());
        }
        server.dialer(DialSettings::default()).attempt(server.address).await.unwrap();
    });
}

#[test]
fn hyper_sees_vectored_writes_on_both_wires() {
    for wire in WIRES {
        let server = Server::start(wire, |server| server.accept().drain());
        run(async {
            let dialer = server.dialer(DialSettings::default());
            let (tcp, _) = dialer.connect_any(vec![server.address], "host:1").await.unwrap();
            let state = Arc::new(RequestState::default());
            let stream =
                dialer.secure(MaybeHttpsStream::Http(LaneSocket::new(tcp, state.clone()))).await.unwrap();
            assert!(MeteredStream::new(stream, state).is_write_vectored());
        });
    }
}

#[test]
fn a_certificate_from_an_unknown_authority_is_refused_with_the_way_out() {
    let server = Server::start(Wire::Tls, |server| server.accept().drain());
    run(async {
        let error = failed(&dialer(&server.endpoint()).unwrap()).await;
        assert!(matches!(error, TransportError::Untrusted { .. }), "{error:?}");
        assert!(error.to_string().contains("add its certificate to the trusted ones"), "{error}");
    });
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let server = Server::named("elsewhere.test", Wire::Tls, |server| server.accept().drain());
    run(async {
        let error = failed(&server.dialer(DialSettings::default())).await;
        assert!(matches!(error, TransportError::Untrusted { .. }), "{error:?}");
        assert!(error.to_string().contains("elsewhere.test"), "{error}");
    });
}

#[test]
fn a_server_without_tls_or_without_an_answer_fails_the_handshake() {
    for greeting in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let server = Server::start(Wire::Plain, move |server| {
            let mut peer = server.accept();
            peer.answer(greeting);
            peer.drain();
        });
        run(async {
            let endpoint = format!("https://{}", server.address);
            let error = failed(&Dialer::new(&endpoint, &Trust::default(), short()).unwrap()).await;
            match error {
                // Another attempt would find the same server.
                TransportError::TlsRefused { .. } if !greeting.is_empty() => {}
                TransportError::TlsTimeout { after: SHORT, .. } if greeting.is_empty() => {}
                other => panic!("{other:?}"),
            }
        });
    }
}

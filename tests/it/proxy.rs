//! HTTP proxies: one that fails as prescribed, tinyproxy and squid.
//!
//! The endpoint on this machine would be reached without the proxy. Over HTTP it has a name that only the proxy can
//! resolve, over TLS the machine's own address.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ringlift::{ChunkSize, ClientBuilder, Error, ErrorKind, Hint, Mode, Proxy, Uploaded};

use crate::support::command::{CommandOutput, Restriction, ringlift, run};
use crate::support::fault_proxy::{FaultProxy, ProxyAction};
use crate::support::real_proxy::{ProxyProgram, RealProxy, TunnelPorts, address_of_this_machine};
use crate::support::{MIB, Sample, Scheme, TestServer, each_in_parallel, short_pauses};

const CHUNK: u64 = 5 * MIB;
const KEY: &str = "key-of-the-proxied-server";
const FILMS: &str = "http://films.invalid";

/// Returns a server that is reached through proxies, and its URL. `None` if this machine has no address for TLS.
fn server(scheme: Scheme) -> Option<(TestServer, String)> {
    if scheme == Scheme::Http {
        return Some((TestServer::new(scheme), FILMS.to_owned()));
    }
    server_on_network(scheme)
}

/// Returns a server at this machine's own address, which a real proxy can connect to.
fn server_on_network(scheme: Scheme) -> Option<(TestServer, String)> {
    let ip = address_of_this_machine()?;
    let test_server = TestServer::with(scheme, |settings| {
        settings.listen = SocketAddr::new(ip, 0);
        settings.api_key = Some(KEY.to_owned());
    });
    let url = test_server.server.url().to_owned();
    Some((test_server, url))
}

fn client(test_server: &TestServer, endpoint: &str, proxy: &str) -> ClientBuilder {
    test_server.client().endpoint_url(endpoint).lanes(2).with(short_pauses).with(|settings| {
        settings.dial.proxy = Proxy::parse(proxy).unwrap();
    })
}

fn upload(client: ClientBuilder, sample: &Sample) -> Result<Uploaded, Error> {
    let upload = client.build().unwrap().upload(sample.path());
    upload.mode(Mode::Bytes).chunk_size(ChunkSize::Bytes(CHUNK)).send_blocking()
}

fn assert_uploads(test_server: &TestServer, client: ClientBuilder) {
    let sample = Sample::new(2 * CHUNK + 4_321);
    let uploaded = upload(client, &sample).unwrap();
    test_server.assert_holds(&uploaded.video_id, &sample.path());
    test_server.assert_nothing_was_sent_twice();
}

fn failure(client: ClientBuilder) -> Error {
    let client = client.with(|settings| settings.retry.retries = 0);
    upload(client, &Sample::new(MIB)).unwrap_err()
}

fn tunnel(answer: &str, piece: usize) -> ProxyAction {
    ProxyAction::Tunnel(answer.to_owned(), piece)
}

// Tunnels.

#[test]
fn uploads_pass_through_a_tunnel_however_the_proxy_writes_its_answer() {
    let long = format!("HTTP/1.1 200 OK\r\nX-Notice: {}\r\n\r\n", "n".repeat(9 << 10));
    let actions = [
        ProxyAction::tunnel(),
        tunnel("HTTP/1.1 200 Connection established\r\nVia: 1.1 corp\r\n\r\n", 1),
        tunnel("HTTP/1.0 200\r\n\r\n", 4096),
        tunnel("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", 11),
        tunnel(&long, 4096),
    ];
    for scheme in [Scheme::Http, Scheme::Https] {
        each_in_parallel(actions.clone(), |action| {
            let Some((test_server, endpoint)) = server(scheme) else { return };
            let proxy = FaultProxy::always(test_server.server.addr(), action);
            assert_uploads(&test_server, client(&test_server, &endpoint, &proxy.url("")));
            let heads = proxy.heads();
            assert_eq!(proxy.connects(), heads.len(), "{heads:?}");
            let default =
                if scheme == Scheme::Http { "films.invalid:80" } else { &endpoint["https://".len()..] };
            let agent = format!("User-Agent: ringlift/{}\r\n", env!("CARGO_PKG_VERSION"));
            for head in heads {
                assert!(
                    head.starts_with(&format!("CONNECT {default} HTTP/1.1\r\nHost: {default}\r\n")),
                    "{head}"
                );
                assert!(head.contains(&agent) && !head.to_lowercase().contains("authorization"), "{head}");
            }
        });
    }
}

#[test]
fn an_upload_survives_a_proxy_that_fails_for_a_while() {
    let (test_server, endpoint) = server(Scheme::Http).unwrap();
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "n".repeat(20 << 10));
    let actions = [
        ProxyAction::tunnel(),
        ProxyAction::Answer(ProxyAction::answer("502 Bad Gateway", "", "no route")),
        ProxyAction::Answer(ProxyAction::answer("503 Busy", "Retry-After: 0\r\n", "")),
        ProxyAction::Answer("HTTP/1.1 200 O".to_owned()),
        ProxyAction::Answer(String::new()),
        ProxyAction::Hang,
        tunnel(&long, 4096),
        // Bytes after the head belong to the tunnel, where no answer is expected yet.
        tunnel("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", 4096),
        ProxyAction::CutAfter(3 * MIB),
    ];
    let count = actions.len();
    let proxy = FaultProxy::start(test_server.server.addr(), move |index| {
        actions.get(index).cloned().unwrap_or_else(ProxyAction::tunnel)
    });
    let client = client(&test_server, &endpoint, &proxy.url("")).lanes(1).with(|settings| {
        settings.dial.connect_timeout = Duration::from_millis(500);
    });
    assert_uploads(&test_server, client);
    assert!(proxy.connects() > count, "{:?}", proxy.heads());
    test_server.assert_created(1);
}

#[test]
fn an_upload_that_the_proxy_ended_is_resumed() {
    each_in_parallel([Scheme::Http, Scheme::Https], |scheme| {
        let Some((test_server, endpoint)) = server(scheme) else { return };
        let journal = test_server.folder.path().join("journal.db");
        let sample = Sample::new(5 * CHUNK);
        // The control connection, a lane that ends in its second chunk, and no further one.
        let refusing = FaultProxy::start(test_server.server.addr(), |index| match index {
            0 => ProxyAction::tunnel(),
            1 => ProxyAction::CutAfter(CHUNK + 2 * MIB),
            _ => ProxyAction::Answer(ProxyAction::answer("403 Forbidden", "", "after hours")),
        });
        let with = |proxy: &FaultProxy| {
            client(&test_server, &endpoint, &proxy.url("")).lanes(1).with(|settings| {
                settings.journal = Some(journal.clone());
            })
        };
        let error = upload(with(&refusing), &sample).unwrap_err();
        assert!(error.is_resumable() && !error.is_temporary(), "{error:?}");
        assert!(error.to_string().contains("403 Forbidden: after hours"), "{error}");
        let open = FaultProxy::always(test_server.server.addr(), ProxyAction::tunnel());
        let uploaded = upload(with(&open), &sample).unwrap();
        test_server.assert_holds(&uploaded.video_id, &sample.path());
        test_server.assert_nothing_was_sent_twice();
        test_server.assert_created(1);
    });
}

#[test]
fn files_are_sent_by_the_kernel_through_a_tunnel_and_in_absolute_form() {
    let forbidden = ProxyAction::AbsoluteOnly(ProxyAction::answer("405 Method Not Allowed", "", ""));
    for action in [ProxyAction::tunnel(), forbidden] {
        let test_server = TestServer::new(Scheme::Http);
        let proxy = FaultProxy::always(test_server.server.addr(), action);
        let sample = Sample::new(MIB);
        let prepare = |command: &mut std::process::Command| {
            test_server
                .configure(command)
                .env("RINGLIFT_ENDPOINT_URL", FILMS)
                .env("http_proxy", proxy.url(""));
            command.args(["upload", "--reader", "mmap", "--retries", "0", sample.arg()]);
        };
        // Without sendfile(2) the upload fails, so it is the call that sends the file.
        Restriction::SendFile.run(prepare).failed(5, &["cannot be read"]);
        let mut command = ringlift();
        prepare(&mut command);
        run(&mut command).done();
    }
}

#[test]
fn an_https_proxy_is_reached_by_tls_with_the_trusted_certificates() {
    each_in_parallel([Scheme::Http, Scheme::Https], |scheme| {
        let Some((test_server, endpoint)) = server(scheme) else { return };
        let addr = test_server.server.addr();
        let proxy = FaultProxy::with_tls(addr, ProxyAction::Login("me:pass-word"));
        let url = proxy.url("me:pass-word@");
        assert_uploads(&test_server, client(&test_server, &endpoint, &url).ca_cert(proxy.ca()));
        let error = failure(
            client(&test_server, &endpoint, &url).ca_cert(FaultProxy::with_tls(addr, ProxyAction::Hang).ca()),
        );
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error:?}");
        assert!(error.to_string().contains(&format!("the proxy {}", proxy.addr())), "{error}");
        if scheme == Scheme::Http {
            let forbidden = ProxyAction::AbsoluteOnly(ProxyAction::answer("403 Forbidden", "", ""));
            let proxy = FaultProxy::with_tls(addr, forbidden);
            assert_uploads(&test_server, client(&test_server, &endpoint, &proxy.url("")).ca_cert(proxy.ca()));
        }
    });
}

// Absolute form.

#[test]
fn a_proxy_that_refuses_connect_receives_requests_in_absolute_form() {
    each_in_parallel(["403 Forbidden", "405 Method Not Allowed", "501 Not Implemented"], |status| {
        let (test_server, endpoint) = server(Scheme::Http).unwrap();
        let forbidden = ProxyAction::AbsoluteOnly(ProxyAction::answer(status, "", "no tunnels"));
        let proxy = FaultProxy::always(test_server.server.addr(), forbidden);
        assert_uploads(&test_server, client(&test_server, &endpoint, &proxy.url("me:pass@")));
        let heads = proxy.heads();
        assert_eq!(proxy.connects(), 1, "it is decided once: {heads:?}");
        for head in &heads[1..] {
            assert!(head.contains(" http://films.invalid/videos"), "{head}");
            assert!(head.to_lowercase().contains("host: films.invalid\r\n"), "{head}");
            assert!(head.contains("proxy-authorization: Basic bWU6cGFzcw==\r\n"), "{head}");
        }
        // The digest was requested from the server directly.
        assert_eq!(heads.len() - 1, test_server.server.requests().len() - 1);
        // The refused one, and one for each lane and for the calls: connections are kept.
        assert!(proxy.connections() <= 4, "{} connections for {heads:?}", proxy.connections());
    });
}

#[test]
fn a_proxy_that_refuses_both_forms_is_named() {
    let (test_server, endpoint) = server(Scheme::Http).unwrap();
    let refusal = ProxyAction::answer("403 Forbidden", "", "<html><body>Not <b>this</b> site</body></html>");
    let proxy = FaultProxy::always(test_server.server.addr(), ProxyAction::Refuse(refusal));
    let error = failure(client(&test_server, &endpoint, &proxy.url("")));
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    let expected = format!("the proxy {} refuses: 403 Forbidden: Not this site", proxy.addr());
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(error.advice().unwrap().contains("administrator"), "{error:?}");
}

#[test]
fn a_tunnel_that_worked_once_is_not_given_up_for_absolute_form() {
    let (test_server, endpoint) = server(Scheme::Http).unwrap();
    let proxy = FaultProxy::start(test_server.server.addr(), |index| match index {
        0 => ProxyAction::tunnel(),
        _ => ProxyAction::AbsoluteOnly(ProxyAction::answer("403 Forbidden", "", "")),
    });
    let error = failure(client(&test_server, &endpoint, &proxy.url("")));
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert_eq!(proxy.connects(), proxy.heads().len(), "{:?}", proxy.heads());
}

// Refusals.

/// Returns the error of an upload over a proxy that answers every CONNECT with this.
fn refused(status: &str, headers: &str, body: &str) -> (Error, FaultProxy) {
    let (test_server, endpoint) = server_with_https_name();
    let answer = ProxyAction::Answer(ProxyAction::answer(status, headers, body));
    let proxy = FaultProxy::always(test_server.server.addr(), answer);
    let error = failure(client(&test_server, &endpoint, &proxy.url("")));
    (error, proxy)
}

/// An https endpoint whose certificate is never seen.
fn server_with_https_name() -> (TestServer, String) {
    (TestServer::new(Scheme::Https), "https://films.invalid".to_owned())
}

#[test]
fn a_refusal_of_the_proxy_is_named_as_its_own_with_its_words() {
    for (status, headers, body, words, kind) in [
        (
            "403 Forbidden",
            "",
            "blocked by policy 7",
            "403 Forbidden: blocked by policy 7",
            ErrorKind::Refused,
        ),
        ("302 Found", "Location: http://login.corp\r\n", "", "302 Found", ErrorKind::Refused),
        ("502 Bad Gateway", "", "no such host", "502 Bad Gateway: no such host", ErrorKind::Unavailable),
        (
            "504 Timeout",
            "Proxy-Status: corp; error=connection_timeout\r\n",
            "<html>",
            "504 Gateway Timeout: corp; error=connection_timeout",
            ErrorKind::Unavailable,
        ),
        ("503 Busy", "X-Squid-Error: ERR_DNS_FAIL 0\r\n", "", "ERR_DNS_FAIL", ErrorKind::Unavailable),
    ] {
        let (error, proxy) = refused(status, headers, body);
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(&format!("the proxy {} refuses: ", proxy.addr())), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(proxy.connects(), 1);
    }
}

#[test]
fn a_proxy_that_names_a_wait_as_seconds_or_as_a_date_is_not_asked_before() {
    let date = "Date: Sun, 06 Nov 1994 08:49:07 GMT\r\n";
    for wait in ["90", "Sun, 06 Nov 1994 08:50:37 GMT"] {
        let headers = format!("{date}Retry-After: {wait}\r\n");
        let (error, proxy) = refused("503 Busy", &headers, "");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(90)), "{error:?}");
        assert_eq!(proxy.connects(), 1, "the wait is longer than the time for attempts");
    }
}

#[test]
fn a_login_that_is_missing_or_unsupported_is_explained() {
    let (error, _) = refused("407 Login", "Proxy-Authenticate: Basic realm=\"corp\"\r\n", "");
    assert_eq!((error.kind(), error.hint()), (ErrorKind::Refused, Some(Hint::ProxyCredentials)), "{error:?}");
    let headers = "Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n";
    let (error, _) = refused("407 Login", headers, "");
    let advice = error.advice().unwrap();
    assert!(advice.contains("cntlm") && advice.contains("px"), "{error:?}");
}

#[test]
fn a_proxy_that_cannot_be_reached_is_named_with_the_reason() {
    let (test_server, endpoint) = server_with_https_name();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hanging = FaultProxy::always(test_server.server.addr(), ProxyAction::Hang);
    let ssh = FaultProxy::always(test_server.server.addr(), ProxyAction::Answer("SSH-2.0-x\r\n".to_owned()));
    for (proxy, words, kind) in [
        ("proxy.invalid:3128".to_owned(), "cannot resolve proxy.invalid", ErrorKind::Connect),
        (unused.to_string(), "Connection refused", ErrorKind::Connect),
        (hanging.url(""), "no complete answer within 500ms", ErrorKind::Connect),
        (ssh.url(""), "does not speak HTTP: an SSH server", ErrorKind::WrongProtocol),
    ] {
        let client = client(&test_server, &endpoint, &proxy).with(|settings| {
            settings.dial.connect_timeout = Duration::from_millis(500);
        });
        let error = failure(client);
        assert_eq!((error.kind(), error.hint()), (kind, Some(Hint::CheckProxy)), "{error:?}");
        let named = format!("the proxy {} ", proxy.trim_start_matches("http://"));
        assert!(error.to_string().contains(&named) && error.to_string().contains(words), "{error}");
    }
}

#[test]
fn cuts_at_one_size_suggest_smaller_chunks() {
    let (test_server, endpoint) = server(Scheme::Http).unwrap();
    let proxy = FaultProxy::start(test_server.server.addr(), |index| match index {
        0 => ProxyAction::tunnel(),
        _ => ProxyAction::CutAfter(20 * MIB),
    });
    let client = client(&test_server, &endpoint, &proxy.url("")).lanes(1).with(|settings| {
        settings.retry.retries = 5;
        // The socket accepts as much more as its buffer holds.
        settings.dial.send_buffer_bytes = Some(64 << 10);
    });
    let sample = Sample::sparse(64 * MIB);
    let upload = client.build().unwrap().upload(sample.path());
    let error = upload.mode(Mode::Bytes).chunk_size(ChunkSize::Bytes(64 * MIB)).send_blocking().unwrap_err();
    assert_eq!(error.hint(), Some(Hint::SmallerChunksInNewUpload), "{error:?}");
    assert!(error.to_string().contains("the same size"), "{error}");
}

// The command.

fn command(test_server: &TestServer, name: &str, value: &str, args: &[&str]) -> CommandOutput {
    let mut command = ringlift();
    test_server.configure(&mut command).env("RINGLIFT_ENDPOINT_URL", FILMS).env(name, value);
    run(command.args(["upload", "--json", "--retries", "0"]).args(args))
}

#[test]
fn the_log_names_the_proxy_and_the_form_of_requests() {
    let test_server = TestServer::new(Scheme::Http);
    let addr = test_server.server.addr();
    let sample = Sample::new(MIB);
    let forbidden = ProxyAction::AbsoluteOnly(ProxyAction::answer("403 Forbidden", "", ""));
    for (action, form) in [(ProxyAction::tunnel(), "(CONNECT)"), (forbidden, "absolute form")] {
        let proxy = FaultProxy::always(addr, action);
        let ran = command(&test_server, "http_proxy", &proxy.url(""), &["-v", sample.arg()]).done();
        assert!(ran.stderr.contains(&format!("through the proxy {}", proxy.addr())), "{}", ran.stderr);
        assert!(ran.stderr.contains(form), "{}", ran.stderr);
        let ran = command(&test_server, "RINGLIFT_PROXY", &proxy.url(""), &[sample.arg()]).done();
        assert!(!ran.stderr.contains("proxy"), "{}", ran.stderr);
    }
}

#[test]
fn an_unusable_proxy_is_refused_before_anything_is_sent() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    for name in ["http_proxy", "ALL_PROXY", "RINGLIFT_PROXY"] {
        let ran = command(&test_server, name, "socks5://me:hunter2@proxy:1080", &[sample.arg()]);
        let ran = ran.failed(2, &[name, "SOCKS"]);
        assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
    }
    let args = ["--proxy", "http://me:hunter2@proxy:port", sample.arg()];
    let ran = command(&test_server, "ALL_PROXY", "", &args).failed(2, &["--proxy", "port"]);
    assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
    assert_eq!(test_server.server.requests().len(), 0);
}

#[test]
fn the_password_of_a_proxy_is_shown_nowhere() {
    let test_server = TestServer::new(Scheme::Http);
    let proxy = FaultProxy::always(test_server.server.addr(), ProxyAction::Login("me:hunter2/pass"));
    let sample = Sample::new(MIB);
    let right = proxy.url("me:hunter2%2Fpass@");
    let wrong = proxy.url("me:hunter2%2Fwrong@");
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), format!("proxy = \"{wrong}\"")).unwrap();
    let config = config.path().to_str().unwrap();
    let no_scheme = wrong.trim_start_matches("http://");
    let ran = command(&test_server, "RINGLIFT_PROXY", &right, &["-vvv", sample.arg()]).done();
    let mut outputs = vec![ran];
    for (value, args) in [
        (&*wrong, &["-vvv", sample.arg()][..]),
        ("", &["-vvv", "--proxy", &wrong, sample.arg()]),
        ("", &["-vvv", "--proxy", no_scheme, sample.arg()]),
        ("", &["-vvv", &format!("--proxy={no_scheme}"), sample.arg()]),
        ("", &["-vvv", "--config", config, sample.arg()]),
    ] {
        let ran = command(&test_server, "http_proxy", value, args).failed(1, &["407", "You sent: CONNECT"]);
        assert_eq!(ran.event("file_failed")["error"]["kind"], "refused");
        outputs.push(ran);
    }
    // The beginning of `me:hunter2` in Base64, and the secret itself.
    for secret in ["hunter2", "bWU6aHVudGVyMi"] {
        for ran in &outputs {
            assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(secret), "{secret}: {ran:?}");
        }
    }
    let error = failure(client(&test_server, FILMS, &wrong));
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("bWU6aHVudGVyMi"), "{error:?}");
}

#[test]
fn no_proxy_and_the_flag_exempt_from_the_proxy_of_the_environment() {
    let Some((test_server, endpoint)) = server_on_network(Scheme::Http) else { return };
    let sample = Sample::new(MIB);
    let proxy = FaultProxy::always(test_server.server.addr(), ProxyAction::Hang);
    let host = endpoint.trim_start_matches("http://").split(':').next().unwrap().to_owned();
    for (no_proxy, args) in
        [(&*host, &[][..]), ("*", &[]), (&format!("{host}/32"), &[]), ("", &["--proxy", "none"])]
    {
        let mut command = ringlift();
        test_server.configure(&mut command).env("http_proxy", proxy.url("")).env("NO_PROXY", no_proxy);
        run(command.args(["upload", sample.arg()]).args(args)).done();
    }
    assert_eq!(proxy.heads(), Vec::<String>::new());
}

// Programs of other projects.

fn real(
    program: ProxyProgram,
    ports: TunnelPorts,
    scheme: Scheme,
) -> Option<(RealProxy, TestServer, String)> {
    let (test_server, endpoint) = server_on_network(scheme)?;
    Some((program.start(ports, None)?, test_server, endpoint))
}

#[test]
fn uploads_pass_through_tunnels_of_tinyproxy_and_squid_and_are_resumed() {
    let cases = ProxyProgram::ALL.map(|program| [(program, Scheme::Http), (program, Scheme::Https)]);
    each_in_parallel(cases.into_iter().flatten(), |(program, scheme)| {
        let Some((proxy, test_server, endpoint)) = real(program, TunnelPorts::All, scheme) else { return };
        let journal: PathBuf = test_server.folder.path().join("journal.db");
        let sample = Sample::new(4 * CHUNK + 4_321);
        let with = |proxy: &str| {
            client(&test_server, &endpoint, proxy).with(|settings| settings.journal = Some(journal.clone()))
        };
        // The first run is cut by a proxy in front of the server, in the middle of a chunk.
        let cutting = FaultProxy::start(test_server.server.addr(), |index| match index {
            0 => ProxyAction::tunnel(),
            _ => ProxyAction::CutAfter(CHUNK + 2 * MIB),
        });
        let first = with(&cutting.url("")).lanes(1).with(|settings| settings.retry.retries = 0);
        upload(first, &sample).unwrap_err();
        let uploaded = upload(with(&proxy.url("")), &sample).unwrap();
        test_server.assert_holds(&uploaded.video_id, &sample.path());
        test_server.assert_nothing_was_sent_twice();
        test_server.assert_created(1);
    });
}

#[test]
fn tinyproxy_and_squid_pass_on_requests_in_absolute_form() {
    each_in_parallel(ProxyProgram::ALL, |program| {
        let Some((proxy, test_server, endpoint)) = real(program, TunnelPorts::Https, Scheme::Http) else {
            return;
        };
        assert_uploads(&test_server, client(&test_server, &endpoint, &proxy.url("")));
    });
}

#[test]
fn tinyproxy_and_squid_are_named_when_they_refuse() {
    each_in_parallel(ProxyProgram::ALL, |program| {
        let Some((proxy, test_server, endpoint)) = real(program, TunnelPorts::Https, Scheme::Https) else {
            return;
        };
        let error = failure(client(&test_server, &endpoint, &proxy.url("")));
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert!(error.to_string().contains("refuses: 403 "), "{error}");
        // A name that the proxy cannot resolve.
        let Some((proxy, ..)) = real(program, TunnelPorts::All, Scheme::Https) else { return };
        let error = failure(client(&test_server, "https://films.invalid", &proxy.url("")));
        assert!(error.is_temporary(), "{error:?}");
        assert!(error.to_string().contains("the proxy 127.0.0.1:"), "{error}");
    });
}

#[test]
fn tinyproxy_takes_the_credentials_of_the_url() {
    let Some((test_server, endpoint)) = server_on_network(Scheme::Https) else { return };
    let Some(proxy) = ProxyProgram::Tinyproxy.start(TunnelPorts::All, Some("me pass-word")) else { return };
    assert_uploads(&test_server, client(&test_server, &endpoint, &proxy.url("me:pass%2Dword@")));
    for userinfo in ["", "me:wrong@"] {
        let error = failure(client(&test_server, &endpoint, &proxy.url(userinfo)));
        assert_eq!(error.hint(), Some(Hint::ProxyCredentials), "{error:?}");
        assert!(error.to_string().contains("refuses: 40"), "{error}");
    }
}

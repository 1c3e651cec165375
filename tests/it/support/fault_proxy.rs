//! An HTTP proxy that fails as a test prescribes. It connects to the test server, whatever host it is asked for.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A proxy on its own port. Its thread ends with the test process.
pub struct FaultProxy {
    addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    /// The certificate of a proxy that speaks TLS.
    ca: Option<tempfile::NamedTempFile>,
}

/// The treatment of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyAction {
    /// Opens a tunnel with this answer, sent in pieces of so many bytes.
    Tunnel(String, usize),
    /// Answers this to CONNECT, and closes.
    Answer(String),
    /// Answers nothing.
    Hang,
    /// Opens a tunnel, and resets it after so many bytes of the client.
    CutAfter(u64),
    /// Refuses CONNECT with this answer, and passes on requests in absolute form.
    AbsoluteOnly(String),
    /// Answers this to each request of any form.
    Refuse(String),
    /// Opens a tunnel for a client with these `Basic` credentials, and repeats the request to others.
    Login(&'static str),
}

impl ProxyAction {
    pub fn tunnel() -> ProxyAction {
        ProxyAction::Tunnel("HTTP/1.1 200 Connection established\r\n\r\n".to_owned(), 4096)
    }

    /// Answers `status` with `headers` (each with its line end) and this body.
    pub fn answer(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
    }
}

type Choice = Arc<dyn Fn(usize) -> ProxyAction + Send + Sync>;

impl FaultProxy {
    /// Starts a proxy. `choose` returns the treatment of each connection by its index.
    pub fn start(
        server: SocketAddr,
        choose: impl Fn(usize) -> ProxyAction + Send + Sync + 'static,
    ) -> FaultProxy {
        FaultProxy::listen(server, None, Arc::new(choose))
    }

    /// Starts a proxy that treats all connections alike.
    pub fn always(server: SocketAddr, action: ProxyAction) -> FaultProxy {
        FaultProxy::start(server, move |_| action.clone())
    }

    /// Starts a proxy that speaks TLS with its clients.
    pub fn with_tls(server: SocketAddr, action: ProxyAction) -> FaultProxy {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let mut ca = tempfile::NamedTempFile::new().unwrap();
        ca.write_all(cert.pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let key = key.serialize_der().try_into().unwrap();
        let config = config.unwrap().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let proxy = FaultProxy::listen(server, Some(acceptor), Arc::new(move |_| action.clone()));
        FaultProxy { ca: Some(ca), ..proxy }
    }

    fn listen(server: SocketAddr, tls: Option<TlsAcceptor>, choose: Choice) -> FaultProxy {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (addr, heads) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let seen = heads.clone();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                for index in 0.. {
                    let (client, _) = listener.accept().await.unwrap();
                    client.set_nodelay(true).unwrap();
                    counter.fetch_add(1, Ordering::Relaxed);
                    let connection = Connection { server, action: choose(index), seen: seen.clone() };
                    tokio::spawn(connection.secure(client, tls.clone()));
                }
            });
        });
        FaultProxy { addr, heads, connections, ca: None }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the URL of the proxy with these credentials: empty, or `user:password@`.
    pub fn url(&self, userinfo: &str) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://{userinfo}{}", self.addr)
    }

    pub fn ca(&self) -> PathBuf {
        self.ca.as_ref().unwrap().path().to_owned()
    }

    /// Returns the heads of the requests to the proxy itself, oldest first.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Returns the number of connections to the proxy.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns the number of CONNECT requests.
    pub fn connects(&self) -> usize {
        self.heads().iter().filter(|head| head.starts_with("CONNECT ")).count()
    }
}

struct Connection {
    server: SocketAddr,
    action: ProxyAction,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Connection {
    async fn secure(self, client: TcpStream, tls: Option<TlsAcceptor>) {
        match tls {
            None if matches!(self.action, ProxyAction::CutAfter(_)) => self.cut(client).await,
            None => self.serve(client).await,
            Some(tls) => match tls.accept(client).await {
                Ok(client) => self.serve(client).await,
                Err(_) => None,
            },
        };
    }

    /// Serves requests until the end of the connection. An error of either side only ends it.
    async fn serve(self, mut client: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        loop {
            let head = self.read_head(&mut client).await?;
            let is_connect = head.starts_with("CONNECT ");
            match &self.action {
                ProxyAction::Tunnel(answer, piece) => return self.tunnel(client, answer, *piece).await,
                ProxyAction::Login(pair) => {
                    let basic = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pair);
                    if head.contains(&format!("Proxy-Authorization: Basic {basic}\r\n")) {
                        return self.tunnel(client, "HTTP/1.1 200 OK\r\n\r\n", 4096).await;
                    }
                    let headers = "Proxy-Authenticate: Basic realm=\"corp\"\r\n";
                    let answer = ProxyAction::answer("407 Login", headers, &format!("You sent: {head}"));
                    return client.write_all(answer.as_bytes()).await.ok();
                }
                ProxyAction::Hang => std::future::pending().await,
                ProxyAction::AbsoluteOnly(_) if !is_connect => self.forward(&mut client, &head).await?,
                ProxyAction::AbsoluteOnly(answer) | ProxyAction::Answer(answer) => {
                    return client.write_all(answer.as_bytes()).await.ok();
                }
                ProxyAction::Refuse(answer) => {
                    client.write_all(answer.as_bytes()).await.ok()?;
                    // The rest of a request is read, so that a reset does not overtake the answer.
                    copy(&mut client, &mut tokio::io::sink()).await.ok();
                    return None;
                }
                ProxyAction::CutAfter(_) => unreachable!("handled by `cut`"),
            }
        }
    }

    async fn tunnel(
        &self,
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        answer: &str,
        piece: usize,
    ) -> Option<()> {
        for piece in answer.as_bytes().chunks(piece) {
            client.write_all(piece).await.ok()?;
            client.flush().await.ok()?;
            tokio::task::yield_now().await;
        }
        let mut server = TcpStream::connect(self.server).await.ok()?;
        copy_bidirectional(&mut client, &mut server).await.ok().map(drop)
    }

    async fn cut(self, mut client: TcpStream) -> Option<()> {
        let ProxyAction::CutAfter(bytes) = self.action else { return None };
        self.read_head(&mut client).await?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
        let mut server = TcpStream::connect(self.server).await.ok()?;
        let (from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let mut limited = from_client.take(bytes);
        tokio::select! {
            _ = copy(&mut limited, &mut to_server) => {}
            _ = copy(&mut from_server, &mut to_client) => {}
        }
        client.set_zero_linger().ok()
    }

    /// Passes on one request in absolute form, and its answer.
    async fn forward(&self, client: &mut (impl AsyncRead + AsyncWrite + Unpin), head: &str) -> Option<()> {
        let (method, rest) = head.split_once(" http://").expect(head);
        let path = &rest[rest.find('/')?..];
        let kept = path.lines().filter(|line| !line.to_ascii_lowercase().starts_with("proxy-authorization:"));
        let head: String = kept.map(|line| format!("{line}\r\n")).collect();
        let mut server = TcpStream::connect(self.server).await.ok()?;
        let request = format!("{method} {}", head.replacen("\r\n", "\r\nConnection: close\r\n", 1));
        server.write_all(request.as_bytes()).await.ok()?;
        let len = header(&request, "content-length").map_or(0, |len| len.parse().unwrap());
        copy(&mut (&mut *client).take(len), &mut server).await.ok()?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await.ok()?;
        // The connection to the client stays open: only the server's was to be closed.
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        let answer_head = String::from_utf8_lossy(&answer[..end]);
        let kept = answer_head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let answer_head = kept.collect::<Vec<_>>().join("\r\n");
        client.write_all(answer_head.as_bytes()).await.ok()?;
        client.write_all(&answer[end..]).await.ok()
    }

    async fn read_head(&self, client: &mut (impl AsyncRead + Unpin)) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        self.seen.lock().unwrap().push(head.clone());
        Some(head)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

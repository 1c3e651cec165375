//! A proxy between a client and the server that can change each exchange.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// An HTTP/1.1 proxy on its own port. Its threads end with the connections.
pub struct Middlebox {
    addr: SocketAddr,
}

/// The head of a completely received request.
#[derive(Debug)]
pub struct SeenRequest<'a> {
    /// The request line and the headers, each with its line end.
    head: &'a str,
}

/// The treatment of one exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Request and answer are passed on.
    Pass,
    /// The request is delivered twice; the client gets the second answer.
    DeliverTwice,
    /// The request is delivered, and the connection closed in place of its answer.
    LoseAnswer,
    /// The request is delivered, and this answered in place of its answer.
    Replace(String),
    /// This is answered, and the request is not delivered.
    Answer(String),
    /// The request is delivered without its headers of this name, in lower case.
    Strip(&'static str),
}

impl Middlebox {
    /// Starts a proxy in front of `server`. `treat` chooses the treatment of each exchange.
    pub fn start(
        server: SocketAddr,
        treat: impl Fn(&SeenRequest<'_>) -> Treatment + Send + Sync + 'static,
    ) -> Middlebox {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let treat = Arc::new(treat);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, mut server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let treat = treat.clone();
                thread::spawn(move || while exchange(&mut client, &mut server, &*treat).is_some() {});
            }
        });
        Middlebox { addr }
    }

    /// Returns the URL of the proxy.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl SeenRequest<'_> {
    /// Returns `true` if the request carries a chunk.
    pub fn is_chunk(&self) -> bool {
        self.head.starts_with("POST ") && (self.path().ends_with("/source") || self.path() == "/upload")
    }

    /// Returns `true` if the request is a status request.
    pub fn is_status(&self) -> bool {
        self.head.starts_with("GET ") && self.path().ends_with("/status")
    }

    /// Returns `true` if the request creates a video.
    pub fn is_creation(&self) -> bool {
        self.head.starts_with("POST /videos HTTP")
    }

    /// Returns the value of `Content-Range`, or an empty string.
    pub fn content_range(&self) -> &str {
        header(self.head, "content-range").unwrap_or_default()
    }

    fn path(&self) -> &str {
        let target = self.head.split(' ').nth(1).unwrap_or_default();
        target.split('?').next().unwrap_or_default()
    }
}

/// Returns a gateway's answer: an HTML page instead of a problem document.
pub fn page(status: u16, headers: &str) -> String {
    let body = "<html><body>nothing here</body></html>";
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Odd\r\nContent-Type: text/html\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Returns an answer of the service: a problem document.
pub fn problem(status: u16, slug: &str) -> String {
    let body =
        format!(r#"{{"type":"https://docs.api.video/reference/{slug}","title":"T","status":{status}}}"#);
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Odd\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Handles one exchange. Returns `None` at the end of the connection.
fn exchange(
    client: &mut TcpStream,
    server: &mut TcpStream,
    treat: &impl Fn(&SeenRequest<'_>) -> Treatment,
) -> Option<()> {
    let (head, body) = message(client)?;
    let treatment = treat(&SeenRequest { head: &head });
    let sent = match treatment {
        Treatment::Strip(name) => without(&head, name),
        _ => head,
    };
    let mut deliver = || {
        server.write_all(sent.as_bytes()).ok()?;
        server.write_all(&body).ok()?;
        message(server)
    };
    let answer = match treatment {
        Treatment::Answer(answer) => (answer, Vec::new()),
        Treatment::Replace(answer) => deliver().map(|_| (answer, Vec::new()))?,
        Treatment::DeliverTwice => deliver().and_then(|_| deliver())?,
        Treatment::LoseAnswer => return deliver().and(None),
        Treatment::Pass | Treatment::Strip(_) => deliver()?,
    };
    client.write_all(answer.0.as_bytes()).ok()?;
    client.write_all(&answer.1).ok()
}

/// Reads head and body of a message with a `Content-Length`, or without a body.
pub fn message(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

fn without(head: &str, name: &str) -> String {
    let is_other = |line: &&str| line.split(':').next().is_none_or(|found| !found.eq_ignore_ascii_case(name));
    head.split_inclusive("\r\n").filter(is_other).collect()
}

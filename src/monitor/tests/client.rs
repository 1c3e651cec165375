//! A client of one request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// An answer of the monitor.
pub(super) struct MonitorReply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl MonitorReply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends a GET request with further headers, and returns the answer.
pub(super) fn get(addr: SocketAddr, target: &str, headers: &[&str]) -> MonitorReply {
    request(addr, "GET", target, headers)
}

pub(super) fn request(addr: SocketAddr, method: &str, target: &str, headers: &[&str]) -> MonitorReply {
    let mut tcp = connect(addr);
    send(&mut tcp, method, target, headers);
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    MonitorReply { status, head: head.to_owned(), body: body.to_owned() }
}

pub(super) fn connect(addr: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(addr).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    tcp
}

pub(super) fn send(tcp: &mut TcpStream, method: &str, target: &str, headers: &[&str]) {
    let host =
        if headers.iter().any(|header| header.starts_with("Host:")) { "" } else { "Host: localhost\r\n" };
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n");
    tcp.write_all(head.as_bytes()).unwrap();
}

/// The stream of events of one viewer.
pub(super) struct EventReader(BufReader<TcpStream>);

/// One event.
#[derive(Debug)]
pub(super) struct SeenEvent {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) data: Value,
}

impl EventReader {
    pub(super) fn open(addr: SocketAddr, headers: &[&str]) -> EventReader {
        let mut tcp = connect(addr);
        send(&mut tcp, "GET", "/api/events", headers);
        EventReader::of(tcp)
    }

    /// Reads the head of the answer.
    pub(super) fn of(tcp: TcpStream) -> EventReader {
        let mut reader = EventReader(BufReader::new(tcp));
        let status = reader.line().unwrap();
        assert!(status.contains("200"), "{status}");
        while !reader.line().unwrap().is_empty() {}
        reader
    }

    /// Returns the next line that is not part of the chunked coding; `None` at the end.
    pub(super) fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            // Sizes of chunks end with CR LF, and so do heads. Lines of events end with LF alone.
            let is_size = line.ends_with("\r\n") && u64::from_str_radix(line.trim(), 16).is_ok();
            if !is_size {
                return Some(line.trim_end().to_owned());
            }
        }
    }

    /// Returns the next event; `None` at the end of the stream.
    pub(super) fn event(&mut self) -> Option<SeenEvent> {
        let (mut id, mut name) = (0, String::new());
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("id", value)) => id = value.parse().unwrap(),
                Some(("event", value)) => name = value.to_owned(),
                Some(("data", value)) => {
                    return Some(SeenEvent { id, name, data: serde_json::from_str(value).unwrap() });
                }
                _ => {}
            }
        }
    }
}

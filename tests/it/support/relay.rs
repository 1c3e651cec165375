//! A relay between a client and the server that adds interim answers.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Passes every byte on, and adds text before each answer. Its threads end with the test process.
pub struct Relay {
    addr: SocketAddr,
    received: Arc<Mutex<Vec<u8>>>,
}

/// The side that sends the next first byte on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Client,
    Server,
}

impl Relay {
    /// Starts a relay that sends `interim` at the first byte of each request, and again before the first byte of its
    /// answer.
    pub fn start(server: SocketAddr, interim: &'static str) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, received) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let recorded = received.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                connect(client.unwrap(), TcpStream::connect(server).unwrap(), interim, recorded.clone());
            }
        });
        Relay { addr, received }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the beginnings of all requests, in lower case.
    pub fn heads(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().unwrap()).to_lowercase()
    }
}

fn connect(client: TcpStream, server: TcpStream, interim: &'static str, received: Arc<Mutex<Vec<u8>>>) {
    let turn = Arc::new(Mutex::new(Turn::Client));
    let (mut from, mut to, turns) = (client.try_clone().unwrap(), server.try_clone().unwrap(), turn.clone());
    let mut say = client.try_clone().unwrap();
    thread::spawn(move || {
        pump(&mut from, &mut to, |bytes| {
            let mut turn = turns.lock().unwrap();
            if *turn == Turn::Client {
                *turn = Turn::Server;
                received.lock().unwrap().extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES)]);
                let _ = say.write_all(interim.as_bytes());
            }
        });
    });
    let (mut from, mut to) = (server, client.try_clone().unwrap());
    let mut say = client;
    thread::spawn(move || {
        pump(&mut from, &mut to, |_| {
            let mut turn = turn.lock().unwrap();
            if *turn == Turn::Server {
                *turn = Turn::Client;
                let _ = say.write_all(interim.as_bytes());
            }
        });
    });
}

/// Copies bytes until one side closes.
fn pump(from: &mut TcpStream, to: &mut TcpStream, mut before: impl FnMut(&[u8])) {
    let mut block = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut block) {
        before(&block[..len]);
        if to.write_all(&block[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

const HEAD_BYTES: usize = 2048;

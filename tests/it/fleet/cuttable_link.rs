//! A connection between a host and a server that a test can cut, as a broken network does.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener as Listener, TcpStream};
use tokio::sync::watch;

/// A relay to a server. While it is cut, connections stay open and carry nothing. Its thread ends with the link.
#[derive(Debug)]
pub struct CuttableLink {
    addr: SocketAddr,
    is_cut: watch::Sender<bool>,
}

impl CuttableLink {
    /// Starts a relay to this address.
    pub fn to(server: SocketAddr) -> CuttableLink {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let (is_cut, cuts) = watch::channel(false);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, server, cuts));
        });
        CuttableLink { addr, is_cut }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Cuts the link. What is on its way is lost.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Joins the link. Connections from before the cut are closed, as a router without their state does.
    pub fn join(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn serve(listener: TcpListener, server: SocketAddr, cuts: watch::Receiver<bool>) {
    let listener = Listener::from_std(listener).unwrap();
    let mut end = cuts.clone();
    // Fails once the link is dropped.
    let dropped = async { drop(end.wait_for(|_| false).await) };
    let accept = async {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(relay(client, server, cuts.clone()));
        }
    };
    tokio::select! {
        () = accept => {}
        () = dropped => {}
    }
}

/// Relays one connection until it ends, or until the link is joined after a cut.
async fn relay(mut client: TcpStream, server: SocketAddr, mut cuts: watch::Receiver<bool>) {
    let mut begin = cuts.clone();
    // The guard of the value must not live as long as the wait below.
    let cut = async { drop(begin.wait_for(|is_cut| *is_cut).await) };
    let exchange = async {
        let mut server = TcpStream::connect(server).await?;
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        copy_bidirectional(&mut client, &mut server).await
    };
    tokio::select! {
        biased;
        () = cut => drop(cuts.wait_for(|is_cut| !is_cut).await),
        _ = exchange => {}
    }
}

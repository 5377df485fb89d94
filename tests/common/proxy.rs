//! A network between two programs that can be made bad: connections that nobody tells that they are dead.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::{
    future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Passes connections on to a server.
pub struct Proxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    connections: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Network {
    /// Connections up to this number carry nothing any more, and stay open.
    black_hole_through: u64,
    /// New connections are closed at once.
    refuses: bool,
}

impl Proxy {
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (network, state) = watch::channel(Network::default());
        let connections = Arc::new(AtomicU64::new(0));
        let numbers = connections.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if state.borrow().refuses {
                    continue;
                }
                let number = numbers.fetch_add(1, SeqCst) + 1;
                let (server, state) = (server.clone(), state.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        carry(client, server, number, state).await;
                    }
                });
            }
        });
        Self { address, network, connections, accepting }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The connections that are there carry nothing any more; new ones do.
    pub fn black_hole_existing(&self) {
        let through = self.connections.load(SeqCst);
        self.network.send_modify(|network| network.black_hole_through = through);
    }

    /// New connections are closed at once, or not any more.
    pub fn refuse(&self, refuses: bool) {
        self.network.send_modify(|network| network.refuses = refuses);
    }

    /// How many connections were made.
    pub fn connections(&self) -> u64 {
        self.connections.load(SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    number: u64,
    mut state: watch::Receiver<Network>,
) {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            biased;
            () = forgotten(&mut state, number) => future::pending().await,
            read = client.read(&mut up) => match read {
                Ok(bytes @ 1..) => if server.write_all(&up[..bytes]).await.is_err() { return },
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(bytes @ 1..) => if client.write_all(&down[..bytes]).await.is_err() { return },
                _ => return,
            },
        }
    }
}

/// Waits until the network forgets a connection.
async fn forgotten(state: &mut watch::Receiver<Network>, number: u64) {
    // The proxy is gone with its test.
    let _ = state.wait_for(|network| number <= network.black_hole_through).await;
}

//! A network between two programs that can be made bad: connections that nobody tells that they are dead.

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
    /// Connections up to this number carry nothing any more, and stay open.
    black_hole_through: watch::Sender<u64>,
    connections: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (black_hole_through, through) = watch::channel(0);
        let connections = Arc::new(AtomicU64::new(0));
        let numbers = connections.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = numbers.fetch_add(1, SeqCst) + 1;
                let (server, through) = (server.clone(), through.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        carry(client, server, number, through).await;
                    }
                });
            }
        });
        Self { address, black_hole_through, connections, accepting }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The connections that are there carry nothing any more; new ones do.
    pub fn black_hole_existing(&self) {
        self.black_hole_through.send_replace(self.connections.load(SeqCst));
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
    mut black_hole_through: watch::Receiver<u64>,
) {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            biased;
            () = forgotten(&mut black_hole_through, number) => future::pending().await,
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
async fn forgotten(black_hole_through: &mut watch::Receiver<u64>, number: u64) {
    // The proxy is gone with its test.
    let _ = black_hole_through.wait_for(|&through| number <= through).await;
}

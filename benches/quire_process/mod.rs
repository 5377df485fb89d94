//! The real server, as a process whose time and memory can be read.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses its own part")]

pub mod typists;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Error, protocol::WebSocketConfig},
};

/// Limits are for the server as people run it, not for one in which a tool looks for errors.
pub const AS_SHIPPED: bool = cfg!(feature = "mimalloc");

/// A server process on a folder of its own.
pub struct Quire {
    process: Child,
    /// Where it listens.
    pub address: String,
    _folder: TempDir,
}

impl Quire {
    /// Starts the server on an empty folder, and tells how long it took until it answered.
    pub fn start() -> (Self, Duration) {
        Self::start_with(&[])
    }

    /// The same, with further arguments.
    pub fn start_with(arguments: &[&str]) -> (Self, Duration) {
        let folder = TempDir::new().expect("a folder");
        let start = Instant::now();
        let mut process = Command::new(env!("CARGO_BIN_EXE_quire"))
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path())
            // What is measured is how fast it can be, not how fast one client may be.
            .args(["--max-messages", "0", "--max-bytes", "0"])
            .args(arguments)
            // A server refuses settings that it does not know.
            .env_remove("QUIRE_SOAK_MINUTES")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server's binary");
        let log = BufReader::new(process.stderr.take().expect("a piped log"));
        let mut lines = log.lines();
        let line =
            lines.find_map(|line| line.ok().filter(|line| line.contains("http://"))).expect("it listens");
        // Somebody must read the log, or the server waits. From its first error on it is worth reading.
        std::thread::spawn(move || {
            let told = lines.map_while(Result::ok).skip_while(|line| !line.contains("ERROR"));
            told.for_each(|line| eprintln!("{line}"));
        });
        let address = line.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next());
        let address = address.expect("an address").to_owned();
        std::net::TcpStream::connect(&address).expect("a connection");
        (Self { process, address, _folder: folder }, start.elapsed())
    }

    /// How many documents it has in memory.
    pub async fn open_documents(&self) -> usize {
        let answer = String::from_utf8(self.get("/readyz").await).expect("UTF-8");
        let number = answer.split("\"documents\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
        number.and_then(|number| number.parse().ok()).expect("a number")
    }

    /// What it answers, without the head of the answer.
    pub async fn get(&self, path: &str) -> Vec<u8> {
        let mut socket = TcpStream::connect(&self.address).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("an open connection");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.expect("an answer");
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        answer.split_off(head + 4)
    }

    /// Stops it in good order.
    pub fn stop(mut self) {
        let told = Command::new("kill").arg(self.process.id().to_string()).status();
        assert!(told.expect("the command kill").success());
        let status = self.process.wait().expect("its status");
        assert!(status.success(), "the server ended with {status}");
    }

    /// User and system time of the process so far, in seconds (proc(5): fields 14 and 15, in hundredths).
    pub fn cpu(&self) -> f64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("it is running");
        let after_name = stat.rsplit(')').next().expect("a name in parentheses");
        let ticks = |field: usize| {
            after_name.split_whitespace().nth(field - 3).and_then(|field| field.parse::<f64>().ok())
        };
        (ticks(14).expect("user time") + ticks(15).expect("system time")) / 100.0
    }

    /// How many files, sockets among them, the process has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("it is running").count()
    }

    /// Resident memory of the process, in megabytes.
    pub fn memory_mb(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it is running");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a resident size");
        line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<f64>().ok()).expect("a number")
            / 1024.0
    }
}

impl Drop for Quire {
    fn drop(&mut self) {
        // An error: it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client's WebSocket.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a document.
pub async fn join(quire: &Quire, document: &str) -> Socket {
    try_join(&quire.address, &format!("/ws/{document}")).await.expect("a connection")
}

/// Opens a WebSocket of the server at this address, where it lets us.
pub async fn try_join(address: &str, path: &str) -> Result<Socket, Error> {
    // Browsers take frames of any size, and a diff is one frame.
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let url = format!("ws://{address}{path}");
    let (socket, _) = connect_async_with_config(url, Some(config), true).await?;
    Ok(socket)
}

/// The update with which a client inserts a letter behind its last one.
pub fn insertion(client: u64, clock: u64) -> Vec<u8> {
    let mut update = vec![1, 1];
    quire::lib0::write_uint(&mut update, client);
    quire::lib0::write_uint(&mut update, clock);
    match clock {
        0 => update.extend([4, 1, 1, b't']),
        _ => {
            update.push(0x84);
            quire::lib0::write_uint(&mut update, client);
            quire::lib0::write_uint(&mut update, clock - 1);
        }
    }
    update.extend([1, b'x', 0]);
    update
}

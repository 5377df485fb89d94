//! A Redis server of a test's own, with everything that can happen to one.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a server may take to start or to load its data.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis server on a port of its own. It ends with the test.
pub struct RedisServer {
    port: u16,
    folder: TempDir,
    options: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    /// One that keeps nothing.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that keeps everything, over a kill too.
    pub fn start_durable() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// One with further options, as they stand on its command line.
    pub fn start_with(options: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), &[&["--save", ""], options].concat())
    }

    fn start_in(folder: TempDir, options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self { port: 0, folder, options, process: None };
        loop {
            server.port = free_port();
            // The nodes of a cluster talk with each other on the port that is 10,000 higher.
            if server.port > 55_000 {
                continue;
            }
            server.launch();
            // Somebody else may have taken the port meanwhile.
            if server.is_up() {
                return server;
            }
        }
    }

    /// A Sentinel that watches a master under this name; two of them elect another one.
    pub fn start_sentinel(master: &Self, name: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("sentinel.conf");
        let settings = [
            format!("sentinel monitor {name} 127.0.0.1 {} 2", master.port),
            format!("sentinel down-after-milliseconds {name} 500"),
            format!("sentinel failover-timeout {name} 3000"),
        ];
        std::fs::write(&file, settings.join("\n")).unwrap();
        Self::start_in(folder, &[file.to_str().unwrap(), "--sentinel"])
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Kills it without a warning.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again on its port, with what it kept.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
        assert!(self.is_up(), "redis-server did not start again");
    }

    /// It stands still, with open connections.
    pub fn stop_signal(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub fn cont(&self) {
        self.signal("-CONT");
    }

    /// Runs a command with redis-cli, and answers what that prints.
    pub fn cli(&self, words: &[&str]) -> String {
        let output =
            Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn launch(&mut self) {
        let process = Command::new("redis-server")
            .args(&self.options)
            .args(["--bind", "127.0.0.1", "--loglevel", "warning"])
            .args(["--port", &self.port.to_string()])
            .arg("--dir")
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.process = Some(process);
    }

    /// Waits until it answers, or has ended.
    fn is_up(&mut self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if answers(self.port) {
                return true;
            }
            if self.process.as_mut().is_none_or(|process| process.try_wait().unwrap().is_some()) {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A cluster: three masters, each with a third of the slots.
pub struct RedisCluster {
    pub masters: Vec<RedisServer>,
    /// One for each master, or none; they end with it.
    _replicas: Vec<RedisServer>,
}

impl RedisCluster {
    pub fn start(with_replicas: bool) -> Self {
        let start = || {
            let node_timeout = ["--cluster-node-timeout", "1500", "--cluster-replica-validity-factor", "0"];
            RedisServer::start_with(&[&["--cluster-enabled", "yes"][..], &node_timeout].concat())
        };
        let masters: Vec<_> = (0..3).map(|_| start()).collect();
        let replicas: Vec<_> = (0..if with_replicas { 3 } else { 0 }).map(|_| start()).collect();
        for (master, (first, last)) in masters.iter().zip([(0, 5_460), (5_461, 10_922), (10_923, 16_383)]) {
            master.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        let all = || masters.iter().chain(&replicas);
        for (epoch, node) in all().enumerate() {
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(epoch + 1).to_string()]);
            masters[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string()]);
        }
        let count = all().count();
        wait("the nodes know each other", || {
            all().all(|node| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}"))
            })
        });
        for (master, replica) in masters.iter().zip(&replicas) {
            replica.cli(&["CLUSTER", "REPLICATE", &master.cli(&["CLUSTER", "MYID"])]);
        }
        wait("the replicas follow", || {
            let follows =
                |node: &RedisServer| node.cli(&["INFO", "replication"]).contains("master_link_status:up");
            replicas.iter().all(follows)
        });
        // A node that is not known to be a replica everywhere is not elected.
        wait("everybody knows the replicas", || {
            all().all(|node| node.cli(&["CLUSTER", "NODES"]).matches("slave").count() == replicas.len())
        });
        Self { masters, _replicas: replicas }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.masters.iter().map(RedisServer::address).collect();
        format!("redis-cluster://{}", hosts.join(","))
    }

    /// The index of the master that had a key in the beginning.
    pub fn owner(&self, key: &str) -> usize {
        let slot: usize = self.masters[0].cli(&["CLUSTER", "KEYSLOT", key]).parse().unwrap();
        slot / 5_461
    }

    /// Moves the slot of a key to another master, with all that is in it.
    pub fn move_slot(&self, key: &str, from: usize, to: usize) {
        let (from, to) = (&self.masters[from], &self.masters[to]);
        let slot = from.cli(&["CLUSTER", "KEYSLOT", key]);
        let (from_id, to_id) = (from.cli(&["CLUSTER", "MYID"]), to.cli(&["CLUSTER", "MYID"]));
        to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
        for key in keys.lines() {
            let answer = from.cli(&["MIGRATE", "127.0.0.1", &to.port.to_string(), key, "0", "1000"]);
            assert_eq!(answer, "OK");
        }
        for node in [to, from].into_iter().chain(&self.masters) {
            node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
    }
}

fn wait(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether a server is there and has loaded its data; that it wants a password is an answer too.
fn answers(port: u16) -> bool {
    let answer = || {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        socket.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    answer().is_ok_and(|answer| &answer == b"+PONG\r\n" || &answer == b"-NOAUTH")
}

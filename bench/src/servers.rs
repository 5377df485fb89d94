//! The servers: how each is started, on a folder of its own and pinned to a core, and how it is spoken to.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::{dialect::Dialect, load::Scenario};

/// How long a server may take until it listens,
const START_WITHIN: Duration = Duration::from_secs(30);
/// and until it has ended after it was told to.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Whom the benchmark knows, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Server {
    Quire,
    Relay,
    YWebsocket,
    Hocuspocus,
    YSweet,
    Pycrdt,
}

/// Where things are.
pub(crate) struct Tools {
    /// Quire's binary.
    pub quire: PathBuf,
    /// The folder with the peers.
    pub peers: PathBuf,
    /// The core of the servers.
    pub core: usize,
}

/// A server that listens.
pub(crate) struct Running {
    processes: Vec<Child>,
    pub addresses: Vec<String>,
    pub path: &'static str,
    pub dialect: Dialect,
}

impl Server {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Quire => "Quire",
            Self::Relay => "bare relay",
            Self::YWebsocket => "@y/websocket-server",
            Self::Hocuspocus => "Hocuspocus",
            Self::YSweet => "Y-Sweet",
            Self::Pycrdt => "pycrdt-websocket",
        }
    }

    pub(crate) fn is_installed(self, tools: &Tools) -> bool {
        match self {
            Self::Quire => tools.quire.exists(),
            Self::Relay => true,
            Self::YWebsocket => tools.peers.join(Y_WEBSOCKET).exists(),
            Self::Hocuspocus => tools.peers.join("node_modules/@hocuspocus/server").exists(),
            Self::YSweet => tools.peers.join(Y_SWEET).exists(),
            Self::Pycrdt => tools.peers.join(PYTHON).exists(),
        }
    }

    pub(crate) fn can(self, scenario: Scenario) -> bool {
        match scenario {
            Scenario::Saved | Scenario::TwoNodes => matches!(self, Self::Quire | Self::Hocuspocus),
            // It has no documents to give to who joins.
            Scenario::JoinCold
            | Scenario::Join50
            | Scenario::Join200
            | Scenario::Typing
            | Scenario::Churn => self != Self::Relay,
            _ => true,
        }
    }

    /// Whether a document outlives the process.
    pub(crate) fn stores(self) -> bool {
        !matches!(self, Self::Relay | Self::Pycrdt)
    }

    /// Starts it on a folder, as the scenario needs it.
    pub(crate) fn start(self, tools: &Tools, folder: &Path, scenario: Scenario) -> Result<Running> {
        let (path, dialect) = match self {
            Self::Quire if scenario == Scenario::Saved => ("/hocuspocus", Dialect::Hocuspocus),
            Self::Quire => ("/ws/{document}", Dialect::YWebsocket),
            Self::Hocuspocus => ("/", Dialect::Hocuspocus),
            Self::YSweet => ("/d/{document}/ws/{document}", Dialect::YWebsocket),
            _ => ("/{document}", Dialect::YWebsocket),
        };
        let mut running = Running { processes: Vec::new(), addresses: Vec::new(), path, dialect };
        let (nodes, redis) = match scenario {
            Scenario::TwoNodes => {
                let port = free_port()?;
                let mut redis = pinned(tools, "redis-server");
                redis
                    .args(["--port", &port.to_string(), "--save", "", "--appendonly", "yes", "--dir"])
                    .arg(folder);
                running.spawn(redis, port)?;
                (2, Some(port))
            }
            _ => (1, None),
        };
        for node in 0..nodes {
            let port = free_port()?;
            running.spawn(self.command(tools, &folder.join(node.to_string()), port, redis), port)?;
            running.addresses.push(format!("127.0.0.1:{port}"));
        }
        Ok(running)
    }

    fn command(self, tools: &Tools, folder: &Path, port: u16, redis: Option<u16>) -> Command {
        let address = format!("127.0.0.1:{port}");
        let program = |path: &str| tools.peers.join(path);
        match self {
            Self::Quire => {
                let mut command = pinned(tools, &tools.quire);
                // What is measured is how fast it can be, not how fast one client may be.
                command.args(["--listen", &address, "--max-messages", "0", "--max-bytes", "0"]);
                match redis {
                    Some(redis) => command.args(["--redis", &format!("redis://127.0.0.1:{redis}")]),
                    None => command.arg("--data").arg(folder),
                };
                command
            }
            Self::Relay => {
                let mut command = pinned(tools, std::env::current_exe().expect("this program has a path"));
                command.args(["relay", "--listen", &address]);
                command
            }
            Self::YWebsocket => {
                let mut command = pinned(tools, "node");
                command.arg(program(Y_WEBSOCKET)).env("HOST", "127.0.0.1").env("PORT", port.to_string());
                command.env("YPERSISTENCE", folder);
                command
            }
            Self::Hocuspocus => {
                let mut command = pinned(tools, "node");
                command.arg(program("hocuspocus.mjs")).arg(port.to_string()).arg(folder);
                command.args(redis.map(|redis| redis.to_string()));
                command
            }
            Self::YSweet => {
                let mut command = pinned(tools, program(Y_SWEET));
                command.args(["serve", "--host", "127.0.0.1", "--port", &port.to_string()]).arg(folder);
                command
            }
            Self::Pycrdt => {
                let mut command = pinned(tools, program(PYTHON));
                command.arg(program("pycrdt_server.py")).arg(port.to_string());
                command
            }
        }
    }
}

const Y_WEBSOCKET: &str = "node_modules/@y/websocket-server/src/server.js";
const Y_SWEET: &str = "y-sweet/bin/y-sweet";
const PYTHON: &str = "venv/bin/python";

fn pinned(tools: &Tools, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &tools.core.to_string()]).arg(program.as_ref());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Running {
    fn spawn(&mut self, mut command: Command, port: u16) -> Result<()> {
        let process = command.spawn().with_context(|| format!("{command:?} does not start"))?;
        self.processes.push(process);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let process = self.processes.last_mut().expect("it was just started");
            if let Some(status) = process.try_wait()? {
                bail!("{command:?} ended with {status}");
            }
            ensure!(start.elapsed() < START_WITHIN, "{command:?} does not listen within {START_WITHIN:?}");
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().map(Child::id)
    }

    /// Stops it in good order, where it can.
    pub(crate) fn stop(mut self) -> Result<()> {
        // The nodes before their Redis.
        for process in self.processes.iter_mut().rev() {
            Command::new("kill").arg(process.id().to_string()).status().context("the command kill")?;
            let start = Instant::now();
            while process.try_wait()?.is_none() && start.elapsed() < STOP_WITHIN {
                sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // An error: it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

//! Runs every scenario against every server, in turns, so that a slow minute of the machine strikes all of them alike;
//! the servers on one core, the generator on another.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::{
    figures::Figures,
    load::Scenario,
    servers::{Running, Server, Tools},
    table::{Outcome, Row, Table},
};

/// Which scenarios and servers, and how long.
#[derive(Args)]
pub(crate) struct Run {
    /// Quire's binary.
    #[arg(long)]
    quire: PathBuf,
    /// The folder in which the peers are installed.
    #[arg(long)]
    peers: PathBuf,
    /// Only these; all where none is named.
    #[arg(long = "scenario", value_enum)]
    scenarios: Vec<Scenario>,
    /// Only these, and Quire; all that are installed where none is named.
    #[arg(long = "server", value_enum)]
    servers: Vec<Server>,
    /// How often each, for the median.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each goes on.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    #[arg(long, default_value_t = 1)]
    generator_core: usize,
    /// Where to write the table as JSON, after each scenario.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// After this long a scenario is given up.
const LOAD_WITHIN: &str = "240";

impl Run {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(self.rounds > 0, "--rounds 0: there is no median of nothing");
        let cores = thread::available_parallelism()?.get();
        ensure!(self.server_core != self.generator_core, "--server-core and --generator-core must differ");
        ensure!(self.server_core.max(self.generator_core) < cores, "there are only {cores} cores here");
        let tools = Tools { quire: self.quire.clone(), peers: self.peers.clone(), core: self.server_core };
        ensure!(Server::Quire.is_installed(&tools), "there is no {}", tools.quire.display());
        let mut servers = Vec::new();
        for &server in Server::value_variants() {
            let wanted = self.servers.is_empty() || server == Server::Quire || self.servers.contains(&server);
            match (wanted, server.is_installed(&tools)) {
                (true, true) => servers.push(server),
                (true, false) => eprintln!("{} is not installed, and left out", server.title()),
                (false, _) => {}
            }
        }
        let mut table = Table::new();
        for &scenario in Scenario::value_variants() {
            if scenario == Scenario::Paper
                || !(self.scenarios.is_empty() || self.scenarios.contains(&scenario))
            {
                continue;
            }
            let able: Vec<_> = servers.iter().copied().filter(|server| server.can(scenario)).collect();
            let mut runs: Vec<Vec<_>> = vec![Vec::new(); able.len()];
            for round in 0..self.rounds {
                // Nobody is always first.
                for number in (0..able.len()).map(|number| (number + round) % able.len()) {
                    // Who was given up once is not waited for again.
                    if runs[number].last().is_some_and(Result::is_err) {
                        continue;
                    }
                    let outcome =
                        self.once(&tools, able[number], scenario).map_err(|error| format!("{error:#}"));
                    eprintln!("{scenario:?}, {}: {outcome:?}", able[number].title());
                    runs[number].push(outcome);
                }
            }
            let rows = able.iter().zip(runs);
            table.rows.extend(rows.map(|(&server, runs)| Row {
                scenario,
                server,
                outcome: Outcome::of(runs),
            }));
            if let Some(path) = &self.json {
                std::fs::write(path, serde_json::to_string_pretty(&table.to_json())?)
                    .with_context(|| format!("{} cannot be written", path.display()))?;
            }
        }
        println!("{table}");
        Ok(())
    }

    fn once(&self, tools: &Tools, server: Server, scenario: Scenario) -> Result<Figures> {
        let folder = TempDir::new()?;
        let mut running = server.start(tools, folder.path(), scenario)?;
        if matches!(scenario, Scenario::JoinCold | Scenario::Join50 | Scenario::Join200) {
            self.load(&running, Scenario::Paper)?;
            if server.stores() {
                running.stop()?;
                running = server.start(tools, folder.path(), scenario)?;
            }
        }
        let figures = self.load(&running, scenario)?;
        running.stop()?;
        Ok(figures)
    }

    /// The generator is a process of its own, on its own core.
    fn load(&self, running: &Running, scenario: Scenario) -> Result<Figures> {
        let mut command = Command::new("timeout");
        command.args([
            "--kill-after",
            "5",
            LOAD_WITHIN,
            "taskset",
            "--cpu-list",
            &self.generator_core.to_string(),
        ]);
        command.arg(std::env::current_exe()?).arg("load").args(["--seconds", &self.seconds.to_string()]);
        command.args(["--scenario", &name(scenario)]);
        command.args(["--dialect", &name(running.dialect), "--path", running.path]);
        command.args(running.addresses.iter().flat_map(|address| ["--address", address]));
        command.args(running.pids().map(|pid| format!("--pid={pid}")));
        // Where it happened in the generator is of no interest in a table.
        command.env("RUST_BACKTRACE", "0");
        let output = command.stdin(Stdio::null()).output().context("the generator does not start")?;
        match output.status.code() {
            Some(0) => Ok(serde_json::from_slice(&output.stdout)?),
            Some(124) => bail!("it was not done after {LOAD_WITHIN} s"),
            _ => bail!("{}", String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("Error: ")),
        }
    }
}

/// How the command line calls it.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().expect("no value is hidden").get_name().to_owned()
}

//! The scenarios, each against one server that is already running.

mod presence;
mod saved;
mod sessions;
mod slow_reader;
mod traffic;
mod typing;

use std::{fmt::Write as _, rc::Rc, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    figures::Figures,
    process::Processes,
    session::{Session, Target},
};

/// What is done to a server, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    #[value(name = "fan-out-10")]
    FanOut10,
    #[value(name = "fan-out-100")]
    FanOut100,
    #[value(name = "fan-out-500")]
    FanOut500,
    Ramp,
    #[value(name = "documents-1000")]
    Documents1000,
    #[value(name = "documents-5000")]
    Documents5000,
    #[value(name = "idle-5000")]
    Idle5000,
    #[value(name = "idle-20000")]
    Idle20000,
    /// Puts the paper into a document, for the three that follow.
    Paper,
    JoinCold,
    #[value(name = "join-50")]
    Join50,
    #[value(name = "join-200")]
    Join200,
    Typing,
    SlowReader,
    Churn,
    #[value(name = "presence-100")]
    Presence100,
    #[value(name = "presence-500")]
    Presence500,
    #[value(name = "presence-1000")]
    Presence1000,
    Saved,
    TwoNodes,
}

/// One run of a scenario.
#[derive(Args)]
pub(crate) struct Load {
    #[arg(long, value_enum)]
    pub scenario: Scenario,
    #[command(flatten)]
    pub target: Target,
    /// The processes of the server, whose time and memory are read.
    #[arg(long = "pid", required = true)]
    pub pids: Vec<u32>,
    /// How long to go on.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
}

/// What a scenario has to work with.
pub(crate) struct Place {
    pub target: Target,
    pub server: Processes,
    pub duration: Duration,
}

impl Load {
    /// Does it, and returns what was found.
    pub(crate) async fn run(self) -> Result<Figures> {
        let place = Place {
            target: self.target,
            server: Processes(self.pids),
            duration: Duration::from_secs(self.seconds),
        };
        match self.scenario {
            Scenario::FanOut10 => traffic::fan_out(&place, 10, 200).await,
            Scenario::FanOut100 | Scenario::TwoNodes => traffic::fan_out(&place, 100, 100).await,
            Scenario::FanOut500 => traffic::fan_out(&place, 500, 20).await,
            Scenario::Ramp => traffic::ramp(&place).await,
            Scenario::Documents1000 => traffic::documents(&place, 1_000).await,
            Scenario::Documents5000 => traffic::documents(&place, 5_000).await,
            Scenario::Idle5000 => sessions::idle(&place, 5_000).await,
            Scenario::Idle20000 => sessions::idle(&place, 20_000).await,
            Scenario::Paper => sessions::put_paper(&place).await,
            Scenario::JoinCold => sessions::join(&place, 1).await,
            Scenario::Join50 => sessions::join(&place, 50).await,
            Scenario::Join200 => sessions::join(&place, 200).await,
            Scenario::Typing => typing::type_paper(&place).await,
            Scenario::SlowReader => slow_reader::stall(&place).await,
            Scenario::Churn => sessions::churn(&place).await,
            Scenario::Presence100 => presence::moves(&place, 100, 1).await,
            Scenario::Presence500 => presence::moves(&place, 500, 1).await,
            Scenario::Presence1000 => presence::moves(&place, 1_000, 5).await,
            Scenario::Saved => saved::acknowledged(&place).await,
        }
    }
}

/// Fails if one of the sessions ended.
fn all_are_here(sessions: &[Rc<Session>]) -> Result<()> {
    let mut failures = sessions.iter().filter_map(|session| session.failure());
    let Some(first) = failures.next() else { return Ok(()) };
    let mut message = format!("{} of {} sessions ended", failures.count() + 1, sessions.len());
    write!(message, "; the first: {first}")?;
    bail!(message)
}

//! Compares Quire with other servers of Yjs documents. `quire-bench run` does all of it; `load` and `relay` are the
//! two processes that it starts beside the servers.

mod dialect;
mod figures;
mod frames;
mod lib0;
mod load;
mod paper;
mod process;
mod relay;
mod run;
mod servers;
mod session;
mod socket;
mod table;
mod update;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::{net::TcpListener, runtime::Builder, task::LocalSet};

#[derive(Parser)]
#[command(about, version)]
enum Command {
    /// Runs the scenarios against the servers, and prints the table
    Run(run::Run),
    /// Does one scenario to a server that is running, and prints what was found as JSON
    Load(load::Load),
    /// Hands on messages and understands nothing: the limit of what a server can reach
    Relay {
        #[arg(long)]
        listen: String,
    },
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Run(run) => run.run(),
        Command::Load(load) => {
            let figures = on_this_thread(load.run())?;
            println!("{}", serde_json::to_string(&figures)?);
            Ok(())
        }
        Command::Relay { listen } => on_this_thread(async {
            let listener =
                TcpListener::bind(&listen).await.with_context(|| format!("cannot listen on {listen}"))?;
            relay::serve(listener).await
        }),
    }
}

fn on_this_thread<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, future)
}

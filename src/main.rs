//! The `quire` command: arguments in, server up, signal, server down.

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Context;
use quire::{
    Server,
    access::own,
    config::{Config, ConfigError, LogFormat, Task, TokenRequest},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::{error, info, warn};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let task = match Task::from_process() {
        Ok(task) => task,
        // Help and usage errors are formatted, and go where they belong.
        Err(ConfigError::Arguments(error)) => error.exit(),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let config = match task {
        Task::Serve(config) => config,
        Task::Token(request) => return print_token(request),
    };
    log_to_stderr(&config);
    allow_many_files(&config);
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_token(request: TokenRequest) -> ExitCode {
    match own::answer(request) {
        Ok(token) => {
            println!("{token}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(config: &Config) -> anyhow::Result<()> {
    let server = Server::new(config)?;
    server.runtime().block_on(async {
        let listener = TcpListener::bind(config.listen).await.with_context(|| {
            format!("cannot listen on {}: choose another address with --listen", config.listen)
        })?;
        let stop = stop_signal()?;
        let kept = match config.redis {
            Some(_) => "on Redis".to_owned(),
            None => format!("in {}", config.data.display()),
        };
        if !config.authentication.is_on() {
            match config.authentication.insecure_no_auth {
                true => warn!("nobody is asked for a token: whoever reaches this address may do everything"),
                false => info!("nobody is asked for a token, so only this machine is served (see --auth)"),
            }
        }
        info!(documents = kept, "listening on http://{}", listener.local_addr()?);
        server.serve(listener, stop).await?;
        info!("everything is saved");
        Ok(())
    })
}

/// Every connection is an open file, and most systems allow far fewer of them than they can unless they are asked.
fn allow_many_files(config: &Config) {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) => {
            let connections = config.limits.connections;
            let too_few = usize::try_from(files).is_ok_and(|files| files <= connections);
            if too_few && connections != usize::MAX {
                warn!(
                    files,
                    connections,
                    "this system allows fewer open files (ulimit -n) than there may be connections"
                );
            }
        }
        Err(error) => warn!(%error, "the system's limit of open files stays as it is"),
    }
}

fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn log_to_stderr(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(&config.log)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

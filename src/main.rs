//! The `quire` command: arguments in, server up, signal, server down; or a token, another server's
//! documents, or an errand about documents.

mod command;

use std::{
    io::IsTerminal,
    net::SocketAddr,
    process::{self, ExitCode},
    time::Duration,
};

use anyhow::{Context, bail};
use quire::{
    Server,
    access::own,
    config::{Config, ConfigError, ImportRequest, LogFormat, OtherServer, Task, TokenRequest},
    import::{Import, ImportError, counts::Counts, hocuspocus, y_sweet, y_websocket},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::Instant,
};
use tracing::{error, info, warn};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often a terminal shows how far an import has come.
const SHOW_EVERY: Duration = Duration::from_millis(100);

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
        Task::Import(request) => return import_documents(&request),
        Task::Errand(errand) => {
            log_to_stderr("warn", LogFormat::Text);
            return command::run(errand);
        }
    };
    log_to_stderr(&config.log, config.log_format);
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

fn import_documents(request: &ImportRequest) -> ExitCode {
    log_to_stderr("warn", LogFormat::Text);
    match run_import(request) {
        Ok(counts) if counts.refused() == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_import(request: &ImportRequest) -> anyhow::Result<Counts> {
    let store = &request.store;
    // First, so that a slip of the pen makes no data folder.
    let documents = match request.from {
        OtherServer::YWebsocket => y_websocket::open(store),
        OtherServer::Hocuspocus => hocuspocus::open(store),
        OtherServer::YSweet => y_sweet::open(store),
    }?;
    let runtime = quire::start_runtime()?;
    let backend = quire::open_backend(&request.data, request.redis.as_deref(), runtime.handle())?;
    let mut counts = Counts::default();
    runtime.block_on(async {
        let ended = tell(Import::start(documents, backend.clone()), &mut counts).await;
        backend.close().await?;
        println!("{counts}");
        ended.context("the import stopped early; what it imported stays, and the next one adds the rest")
    })?;
    match counts.is_empty() {
        true => bail!("there is no document in {}: is it the right place?", store.display()),
        false => Ok(counts),
    }
}

/// Follows an import to its end, and tells what is not taken over; a terminal also shows how far it has come.
async fn tell(mut import: Import, counts: &mut Counts) -> Result<(), ImportError> {
    let at_terminal = std::io::stderr().is_terminal();
    // Back to the beginning of the line, and away with what stands there.
    let clear = if at_terminal { "\r\x1b[K" } else { "" };
    let mut shown = Instant::now();
    while let Some(imported) = import.next().await {
        let imported = imported?;
        counts.count(&imported);
        for problem in imported.refused {
            eprintln!("{clear}{:?}: {problem}", imported.name);
        }
        if let Some(left) = imported.left {
            eprintln!("{clear}{:?}: not taken over: {left}", imported.name);
        }
        if at_terminal && shown.elapsed() > SHOW_EVERY {
            shown = Instant::now();
            eprint!("{clear}{counts} ...");
        }
    }
    eprint!("{clear}");
    Ok(())
}

fn run(config: &Config) -> anyhow::Result<()> {
    let server = Server::new(config)?;
    server.runtime().block_on(async {
        let listener = listen(config.listen, "--listen").await?;
        let admin = match config.admin_listen {
            Some(address) => Some(listen(address, "--admin-listen").await?),
            None => None,
        };
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
        if let Some(admin) = &admin {
            info!("metrics and the API are also on {}", admin.local_addr()?);
        }
        info!(documents = kept, "listening on http://{}", listener.local_addr()?);
        let serve_admin = async {
            if let Some(listener) = admin {
                server.serve_admin(listener).await;
            }
        };
        let (served, ()) = tokio::join!(server.serve(listener, stop), serve_admin);
        served?;
        info!("everything is saved");
        Ok(())
    })
}

async fn listen(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another address with {flag}"))
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

/// Waits for the signal that stops the server. The next one ends the process at once.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => SignalKind::terminate(),
            _ = interrupt.recv() => SignalKind::interrupt(),
        }
    };
    Ok(async move {
        next().await;
        tokio::spawn(async move {
            let signal = next().await;
            warn!("a second signal: ending at once; what is not saved yet is only with the clients");
            // As a shell tells it of a process that a signal has ended.
            process::exit(128 + signal.as_raw_value());
        });
    })
}

fn log_to_stderr(filter: &str, format: LogFormat) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

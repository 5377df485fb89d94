//! Quire: a collaboration server for Yjs documents.
//!
//! # The house
//!
//! A document talks with peers. A client session is a peer. A reply goes to the peer it answers; news goes to
//! every peer but the one it came from. A file imports from lower floors, or from its own without cycles:
//!
//! ```text
//! 6  main
//! 5  lib (Server)
//! 4  http/*   connection   session
//! 3  hub      import/*   bundle
//! 2  actor    saver    history/*    outbox    capacity    webhooks/*
//! 1  backend/*   access/*   config   metrics   drain   trace   troubles   websocket/*
//! 0  name  update  state_vector  guard  presence  protocol/*  document/*  record  end  level  lib0
//! ```
//!
//! The ground is pure: no tokio, no axum, no clock, no async. `backend` knows no Yjs; `actor` knows no hub;
//! `session` and `connection` know no backend and no hub.
//!
//! # The journey of one update
//!
//! ```text
//! connection: frame in → session → DocumentHandle::receive (mailbox)
//!   Actor::receive          drains what waits, as one batch
//!     Document::receive     update::read, the guard, yrs; what is news, what needs something missing
//!     Actor::tell_others    encoded once; to every peer but the sender:
//!       outboxes            carried at once into the sockets that take it; the rest → connection: frame out
//!       Saver::note         → Backend::append; when it is durable, the sender's session says "saved"
//! ------------------------- Redis: the log, and a message to all who follow the document
//!   Feed::next              on another node: Actor::take_incoming → Document::receive_kept → outboxes
//! ```
//!
//! A log that has lost something is loaded and compared (`Incoming::Compare`): what only it has is taken in, what only
//! the document has is appended again. Presence takes the same road, but is only told (`Backend::tell`).
//!
//! # Embedding
//!
//! [`Server::router`] is an axum router like any other. Told who connects, it keeps to the limits per address:
//!
//! ```no_run
//! # async fn run() -> anyhow::Result<()> {
//! let server = quire::Server::new(&quire::config::Config::default())?;
//! let app = axum::Router::new().merge(server.router());
//! let app = app.into_make_service_with_connect_info::<std::net::SocketAddr>();
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, app).with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) }).await?;
//! server.shutdown().await?;
//! # Ok(())
//! # }
//! ```

pub mod access;
pub mod actor;
pub mod backend;
pub mod bundle;
pub mod capacity;
pub mod config;
pub mod connection;
pub mod document;
pub mod drain;
pub mod end;
pub mod guard;
pub mod history;
pub mod http;
pub mod hub;
pub mod import;
pub mod level;
pub mod lib0;
pub mod metrics;
pub mod name;
pub mod outbox;
pub mod presence;
pub mod protocol;
pub mod record;
pub mod saver;
pub mod session;
pub mod state_vector;
pub mod trace;
pub mod troubles;
pub mod update;
pub mod webhooks;
pub mod websocket;

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    io,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use axum::Router;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
    time::{sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    access::{
        origins::Origins,
        tokens::{Tokens, TokensError},
    },
    actor::Surroundings,
    backend::{
        Backend, BackendError,
        embedded::{Embedded, OpenError},
        redis::{
            Redis,
            link::{ConnectError, Link},
        },
    },
    config::{Config, ConfigError, Limits},
    drain::Drain,
    http::{admission::Admission, heavy_work::HeavyWork},
    hub::Hub,
    metrics::Metrics,
    name::DocumentName,
    webhooks::Webhooks,
};

/// yrs walks nested types recursively; a thread of the usual 2 MiB overflows on documents of honest clients.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// How long a stop may take when the sessions were sent away. Process managers kill after 10 seconds (Docker) or more.
const STOP_WITHIN: Duration = Duration::from_secs(9);

/// How many documents are named of which something is not saved; each is in the log besides.
const MAX_TOLD: usize = 20;

/// One node: its open documents, their backend, and the threads on which they live.
pub struct Server {
    hub: Hub,
    backend: Arc<dyn Backend>,
    limits: Arc<Limits>,
    keep_deleted: Duration,
    keeps_history: bool,
    tokens: Option<Arc<Tokens>>,
    origins: Arc<Origins>,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    webhooks: Webhooks,
    heavy_work: Arc<HeavyWork>,
    connections: TaskTracker,
    /// Whether `/metrics` is on a second port only.
    has_admin_port: bool,
    /// In what time they end before the server stops.
    drain_within: Duration,
    drain: Arc<Drain>,
    /// Cancelled when they have, and the listener is closed.
    stopping: CancellationToken,
    /// Present until the server is dropped.
    runtime: Option<Runtime>,
}

/// Why a server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] OpenError),
    /// Redis cannot be used.
    #[error(transparent)]
    Redis(#[from] ConnectError),
    /// A secret or a key cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// Webhooks cannot be told with these settings.
    #[error(transparent)]
    Webhooks(#[from] ConfigError),
    /// The threads cannot be started.
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
}

/// Why a server did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Something took longer than it may.
    #[error("not everything was done within {} seconds", STOP_WITHIN.as_secs())]
    Deadline,
    /// Some edits are not in the store. Clients that are still there bring them again.
    #[error("{}", told(.0))]
    Unsaved(Vec<DocumentName>),
    /// The backend could not be closed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl Server {
    /// Opens the data folder, or connects to Redis, and starts the threads on which documents live. It does not
    /// listen yet.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let runtime = start_runtime()?;
        let backend = open_backend(&config.data, config.redis.as_deref(), runtime.handle())?;
        let limits = Arc::new(config.limits.clone());
        let metrics = Arc::<Metrics>::default();
        let webhooks = Webhooks::start(&config.webhooks, backend.clone(), metrics.clone(), runtime.handle())?;
        let around = Surroundings {
            idle: config.idle,
            limits: limits.clone(),
            history: Arc::new(config.history.clone()),
            metrics: metrics.clone(),
            webhooks: webhooks.teller(),
            troubles: Arc::default(),
        };
        let hub = Hub::new(backend.clone(), runtime.handle().clone(), around);
        let authentication = &config.authentication;
        let tokens = match authentication.is_on() {
            true => Some(Arc::new(Tokens::new(authentication, &config.data, config.redis.is_some())?)),
            false => None,
        };
        if let Some(tokens) = tokens.clone() {
            runtime.spawn(async move { tokens.prepare().await });
        }
        let origins = Arc::new(Origins::new(authentication));
        let admission = Arc::new(Admission::new(limits.clone(), authentication, metrics.clone()));
        let (connections, stopping) = (TaskTracker::new(), CancellationToken::new());
        let (drain_within, drain) = (config.drain, Arc::default());
        let heavy_work = Arc::new(HeavyWork::new(runtime.handle().clone()));
        let runtime = Some(runtime);
        Ok(Self {
            hub,
            backend,
            limits,
            keep_deleted: config.keep_deleted,
            keeps_history: !config.history.off,
            tokens,
            origins,
            admission,
            metrics,
            webhooks,
            heavy_work,
            connections,
            has_admin_port: config.admin_listen.is_some(),
            drain_within,
            drain,
            stopping,
            runtime,
        })
    }

    /// The runtime of the server's threads, for programs that have none of their own.
    pub fn runtime(&self) -> &Handle {
        self.runtime.as_ref().expect("it is there until the server is dropped").handle()
    }

    /// All routes. They serve on whatever runtime they are called; documents live on the server's own.
    pub fn router(&self) -> Router {
        http::router(self.shared(), !self.has_admin_port)
    }

    /// The API, the health pages and `/metrics`, for a port that not everybody reaches.
    pub fn admin_router(&self) -> Router {
        http::admin_router(self.shared())
    }

    fn shared(&self) -> http::Shared {
        let Self { hub, connections, drain, .. } = self;
        http::Shared {
            hub: hub.clone(),
            backend: self.backend.clone(),
            limits: self.limits.clone(),
            keep_deleted: self.keep_deleted,
            keeps_history: self.keeps_history,
            tokens: self.tokens.clone(),
            origins: self.origins.clone(),
            admission: self.admission.clone(),
            metrics: self.metrics.clone(),
            webhooks: self.webhooks.teller(),
            heavy_work: self.heavy_work.clone(),
            connections: connections.clone(),
            drain: drain.clone(),
        }
    }

    /// Serves [`Self::admin_router`] until [`Self::serve`] or [`Self::shutdown`] has sent all sessions away.
    pub async fn serve_admin(&self, listener: TcpListener) {
        let (admission, stopping) = (self.admission.clone(), self.stopping.clone());
        http::listener::serve(listener, self.admin_router(), admission, stopping).await;
    }

    /// Serves a listener until `stop`, then stops in good order.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), StopError> {
        let serving =
            http::listener::serve(listener, self.router(), self.admission.clone(), self.stopping.clone());
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => return Ok(()),
            () = stop => info!(connections = self.connections.len(), "stopping"),
        }
        // Until all sessions are sent away the listener says that there is no place here.
        let served = async {
            tokio::select! {
                () = &mut serving => Ok(()),
                () = async { self.stopping.cancelled().await; sleep(STOP_WITHIN).await } => Err(StopError::Deadline),
            }
        };
        let (stopped, served) = tokio::join!(self.shutdown(), served);
        stopped.and(served)
    }

    /// Refuses new sessions, closes the open ones with 1012, one after the other, saves everything and closes the
    /// backend.
    pub async fn shutdown(&self) -> Result<(), StopError> {
        let until = self.drain.begin(self.connections.len(), self.drain_within);
        self.connections.close();
        // A time-out: the last of them are still saying goodbye.
        let _ = timeout_at(until, self.connections.wait()).await;
        self.stopping.cancel();
        let stop = async {
            let unsaved = self.hub.shutdown().await;
            self.connections.wait().await;
            self.webhooks.stop().await;
            let closed = self.backend.close().await;
            match unsaved.is_empty() {
                true => Ok(closed?),
                false => Err(StopError::Unsaved(unsaved)),
            }
        };
        timeout(STOP_WITHIN, stop).await.unwrap_or(Err(StopError::Deadline))
    }
}

/// What is told of documents of which something is not saved: the names of a few.
fn told(unsaved: &[DocumentName]) -> String {
    let names = unsaved.iter().take(MAX_TOLD).map(|name| format!("{name:?}", name = name.as_str()));
    let more = if unsaved.len() > MAX_TOLD { ", ..." } else { "" };
    format!(
        "edits of {} documents could not be saved: {}{more}; clients that are still open bring them when the server is \
         back",
        unsaved.len(),
        names.collect::<Vec<_>>().join(", ")
    )
}

/// Starts threads on which documents may live.
pub fn start_runtime() -> Result<Runtime, StartError> {
    Builder::new_multi_thread()
        .thread_name("quire")
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .map_err(StartError::Threads)
}

/// Opens the data folder, or connects to Redis where one is named. What the backend does by itself runs on `runtime`.
pub fn open_backend(
    data: &Path,
    redis: Option<&str>,
    runtime: &Handle,
) -> Result<Arc<dyn Backend>, StartError> {
    let Some(url) = redis else { return Ok(Arc::new(Embedded::open(data)?)) };
    // On a thread of its own: whoever embeds the server may be inside a runtime, where nothing may be waited for.
    let connected = thread::scope(|scope| scope.spawn(|| runtime.block_on(Link::connect(url))).join());
    let link = connected.expect("connecting does not panic")?;
    // Random enough to be no other run's.
    let run = RandomState::new().hash_one(std::process::id()) >> 1;
    Ok(Arc::new(Redis::new(Arc::new(link), run, runtime)))
}

impl Drop for Server {
    fn drop(&mut self) {
        // A runtime cannot be waited for inside another one, where an embedding program may drop this.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

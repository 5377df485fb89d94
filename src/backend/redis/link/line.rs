//! One supervised connection to Redis: it is up, or it is down for a reason, and every call ends in bounded time.
//! It knows when a connection is no good any more; making the next one is the keeper's.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind};
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    super::super::BackendError,
    checks::Obstacle,
    scripts::Script,
    wire::{Wire, is_elsewhere},
};

/// How long Redis may answer that it is busy with itself before another connection is tried.
const MAX_REFUSING: Duration = Duration::from_secs(2);

/// A connection, or why there is none.
pub(super) struct Line {
    /// How long a call may take.
    limit: Duration,
    /// After so many unanswered calls in a row the connection is given up: one that the network has forgotten
    /// stays open for ever otherwise, while a new one would work.
    patience: u32,
    /// Told when Redis says that another one has what was asked for.
    wrong: Arc<Notify>,
    state: Mutex<State>,
    changed: Notify,
    calls: AtomicUsize,
}

enum State {
    Up {
        up: Up,
        unanswered: u32,
        refusing_since: Option<Instant>,
        given_up: CancellationToken,
        _gives_up: DropGuard,
    },
    Down {
        reason: String,
        /// The latest connection that ended, maybe before it was up.
        ended: u64,
    },
    Closed,
}

/// A connection that is ready for calls.
pub(super) struct Up {
    /// The connection.
    pub(super) wire: Wire,
    /// Its number; a later one has a larger number.
    pub(super) number: u64,
    /// To which Redis it leads, and to which of its lives.
    pub(super) identity: String,
}

/// Why a call brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// Redis cannot be asked, for this reason; what was asked may have been done all the same.
    Away(String),
    /// The link is closed.
    Closed,
    /// Redis answered with an error.
    Answer(RedisError),
}

impl Failure {
    /// Redis answered with something that is not understood.
    pub(super) fn strange(what: &'static str) -> Self {
        Self::Answer((ErrorKind::UnexpectedReturnType, what).into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(reason) => f.write_str(reason),
            Self::Closed => f.write_str("the link is closed"),
            Self::Answer(error) => error.fmt(f),
        }
    }
}

impl From<Failure> for BackendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(reason) => Self::Away(reason),
            Failure::Closed => Self::Closed,
            Failure::Answer(error) => Self::Store(error.to_string()),
        }
    }
}

impl Line {
    pub(super) fn new(limit: Duration, patience: u32, wrong: Arc<Notify>) -> Self {
        let state = State::Down { reason: "it is not connected yet".to_owned(), ended: 0 };
        Self {
            limit,
            patience,
            wrong,
            state: Mutex::new(state),
            changed: Notify::new(),
            calls: AtomicUsize::new(0),
        }
    }

    /// Sends a command, and reads its answer.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let (mut wire, number, given_up) = self.wire()?;
        let _call = self.count();
        self.answer(number, &given_up, command.query_async(&mut wire)).await
    }

    /// Sends several commands at once, and reads their answers.
    pub(super) async fn ask_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Failure> {
        let (mut wire, number, given_up) = self.wire()?;
        let _call = self.count();
        self.answer(number, &given_up, commands.query_async(&mut wire)).await
    }

    /// Runs a script, and gives it to a Redis that does not know it.
    pub(super) async fn run<T: FromRedisValue>(&self, script: &Script, call: &Cmd) -> Result<T, Failure> {
        let (mut wire, number, given_up) = self.wire()?;
        let _call = self.count();
        self.answer(number, &given_up, script.run(call, &mut wire)).await
    }

    /// Hears these channels, and no longer those; answers which of these another Redis has.
    pub(super) async fn hear_channels(
        &self,
        these: &[Arc<str>],
        not_those: &[Arc<str>],
    ) -> Result<Vec<Arc<str>>, Failure> {
        let (wire, number, given_up) = self.wire()?;
        self.answer(number, &given_up, wire.hear_channels(these, not_those)).await
    }

    /// Whether nobody waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.load(Relaxed) == 0
    }

    /// Why calls fail at once; `None` where they do not.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.wire().err()
    }

    /// The number and the identity of the connection that is up.
    pub(super) fn identity(&self) -> Option<(u64, String)> {
        match &*self.lock() {
            State::Up { up, .. } => Some((up.number, up.identity.clone())),
            State::Down { .. } | State::Closed => None,
        }
    }

    /// Waits until it is down, and answers why.
    pub(super) async fn lost(&self) -> String {
        loop {
            if let State::Down { reason, .. } = &*self.lock() {
                return reason.clone();
            }
            self.changed.notified().await;
        }
    }

    /// Takes a new connection into use, unless that has ended meanwhile.
    pub(super) fn raise(&self, up: Up) -> Result<(), Obstacle> {
        let mut state = self.lock();
        match &*state {
            State::Down { ended, .. } if *ended >= up.number => {
                Err(Obstacle::Unreachable("it closed the connection".to_owned()))
            }
            State::Closed => Ok(()),
            _ => {
                let given_up = CancellationToken::new();
                let _gives_up = given_up.clone().drop_guard();
                *state = State::Up { up, unanswered: 0, refusing_since: None, given_up, _gives_up };
                Ok(())
            }
        }
    }

    /// Says why it is still down.
    pub(super) fn explain(&self, why: String) {
        if let State::Down { reason, .. } = &mut *self.lock() {
            *reason = why;
        }
    }

    /// Gives up the connection with this number, if it is not given up yet.
    pub(super) fn give_up(&self, number: u64, why: &str) {
        self.end(&mut self.lock(), number, why);
    }

    /// Gives up the connection that is up.
    pub(super) fn give_up_any(&self, why: &str) {
        self.end(&mut self.lock(), u64::MAX, why);
    }

    /// Gives up for good.
    pub(super) fn close(&self) {
        *self.lock() = State::Closed;
    }

    /// The connection that is up, its number, and what tells when it is given up.
    fn wire(&self) -> Result<(Wire, u64, CancellationToken), Failure> {
        match &*self.lock() {
            State::Up { up, given_up, .. } => Ok((up.wire.clone(), up.number, given_up.clone())),
            State::Down { reason, .. } => Err(Failure::Away(reason.clone())),
            State::Closed => Err(Failure::Closed),
        }
    }

    /// Waits for an answer. Where the connection is given up there will be none, and who waited for it would keep
    /// others from asking on the next one.
    async fn answer<T>(
        &self,
        number: u64,
        given_up: &CancellationToken,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Failure> {
        match given_up.run_until_cancelled(timeout(self.limit, answer)).await {
            Some(answer) => self.hear(number, answer),
            None => Err(Failure::Away("the connection was given up".to_owned())),
        }
    }

    /// What an answer, an error or silence says about the connection.
    fn hear<T>(
        &self,
        number: u64,
        answer: Result<RedisResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, Failure> {
        let mut state = self.lock();
        let (unanswered, refusing_since) = match &mut *state {
            State::Up { up, unanswered, refusing_since, .. } if up.number == number => {
                (unanswered, refusing_since)
            }
            // Another one is in its place.
            _ => {
                return match answer {
                    Ok(Ok(answer)) => Ok(answer),
                    Ok(Err(error)) => Err(away_or_answer(error)),
                    Err(_) => Err(Failure::Away("Redis did not answer in time".to_owned())),
                };
            }
        };
        let Ok(answer) = answer else {
            *unanswered += 1;
            let why = format!("Redis did not answer within {:?}", self.limit);
            if *unanswered >= self.patience {
                self.end(&mut state, number, &why);
            }
            return Err(Failure::Away(why));
        };
        *unanswered = 0;
        let error = match answer {
            Ok(answer) => {
                *refusing_since = None;
                return Ok(answer);
            }
            Err(error) => error,
        };
        let why = error.to_string();
        match error.kind() {
            // It was the master, and will not be it again soon.
            ErrorKind::Server(ServerErrorKind::ReadOnly) => {
                self.end(&mut state, number, "it is a replica, which takes no writes");
            }
            _ if is_elsewhere(&error) => self.wrong.notify_one(),
            ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown) => {
                let since = refusing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > MAX_REFUSING {
                    self.end(&mut state, number, &why);
                }
            }
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType => {
                *refusing_since = None;
            }
            _ => self.end(&mut state, number, &why),
        }
        Err(away_or_answer(error))
    }

    fn end(&self, state: &mut State, number: u64, why: &str) {
        match state {
            State::Up { up, .. } if up.number <= number => {
                *state = State::Down { reason: why.to_owned(), ended: up.number };
                self.changed.notify_one();
            }
            State::Down { ended, .. } if number != u64::MAX => *ended = number.max(*ended),
            State::Up { .. } | State::Down { .. } | State::Closed => {}
        }
    }

    fn count(&self) -> impl Drop + '_ {
        self.calls.fetch_add(1, Relaxed);
        Call(&self.calls)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state is only set while it is locked")
    }
}

/// Somebody who waits for an answer.
struct Call<'a>(&'a AtomicUsize);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Whether an error tells about Redis's state, which passes, or about what was asked.
fn away_or_answer(error: RedisError) -> Failure {
    let passes = match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::ReadOnly
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
        ),
        // Too few replicas, or a script that runs for too long.
        ErrorKind::Extension => matches!(error.code(), Some("NOREPLICAS" | "BUSY")),
        ErrorKind::UnexpectedReturnType => false,
        _ => true,
    };
    match passes {
        true => Failure::Away(error.to_string()),
        false => Failure::Answer(error),
    }
}

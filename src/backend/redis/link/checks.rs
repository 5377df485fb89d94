//! Whether the Redis at the other end can be used: what it says about itself, and what it lets us do. Each
//! obstacle says what to do about it.

use std::{future::Future, time::Duration};

use redis::{ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, cmd};
use tokio::time::timeout;
use tracing::warn;

use super::{scripts::Scripts, wire::Wire};

/// How long a check may take.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Entries of streams with an epoch of ours, and errors from within scripts as they are, came with it.
const OLDEST_MAJOR: u32 = 7;

/// What the commands and the scripts call, in an order in which nothing stays; `{}` is a key.
const NEEDED: [&str; 36] = [
    "XADD {} 0-1 u 0",
    "XRANGE {} - +",
    "XREVRANGE {} + - COUNT 1",
    "XLEN {}",
    "XINFO STREAM {}",
    "XTRIM {} MINID 0",
    "DEL {}",
    "HSET {} e 0",
    "HGET {} e",
    "HMGET {} e",
    "HGETALL {}",
    "HINCRBY {} e 1",
    "HEXISTS {} e",
    "HDEL {} e",
    "RPUSH {} 0",
    "RPUSHX {} 0",
    "LRANGE {} 0 0",
    "LLEN {}",
    "LTRIM {} 0 0",
    "PERSIST {}",
    "EXPIRE {} 1",
    "DEL {}",
    "SADD {} 0",
    "SMEMBERS {}",
    "SREM {} 0",
    "ZADD {} 0 a",
    "ZRANGEBYLEX {} - +",
    "ZRANGEBYSCORE {} 0 0",
    "ZCARD {}",
    "ZREM {} a",
    "SET {} 0 PX 1000",
    "EXISTS {}",
    "PEXPIRE {} 1000",
    "MEMORY USAGE {}",
    "RENAME {} {}",
    "UNLINK {}",
];

/// What is in the way of using a Redis.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// The URL is none of Redis.
    #[error(
        "{0}; write it like redis://host:6379, or like rediss://user:password@host:6379 for TLS and a user"
    )]
    Url(String),
    /// The Sentinels know of no master with this name.
    #[error(
        "its Sentinels know no master {0}; write the name that stands in their configuration behind the last host"
    )]
    NoMaster(String),
    /// There is no connection.
    #[error("{0}; is it running, and can it be reached from here?")]
    Unreachable(String),
    /// Its certificate is not trusted.
    #[error(
        "{0}; if somebody signed its certificate whom this machine does not know, set the variable SSL_CERT_FILE to \
         the file with the certificate of who signed it"
    )]
    Certificate(String),
    /// It wants another user or password.
    #[error(
        "it refuses us ({0}); write the user and the password into the URL: redis://user:password@host:6379"
    )]
    Refused(String),
    /// Its access rules forbid something that we need.
    #[error(
        "it forbids what Quire needs ({0}); give the user these rules: \
         ~quire:* &quire:* +@read +@write +@pubsub +@scripting +@transaction +@connection +info"
    )]
    Forbidden(String),
    /// It is too old.
    #[error("it is Redis {0}; Quire needs Redis 7.0 or newer, or Valkey")]
    Old(String),
    /// It would throw documents away.
    #[error(
        "its maxmemory-policy is {0}, which throws documents away when its memory is full; set it to noeviction"
    )]
    Evicts(String),
    /// It has only a part of the keys.
    #[error("it is a node of a cluster; write some of its nodes, like redis-cluster://host:6379,host:6379")]
    InCluster,
    /// It is a replica.
    #[error("it is a replica, which takes no writes; give Quire the address of its master")]
    Replica,
    /// It is reading its data from the disk.
    #[error("it is still loading its data; it can be used in a moment")]
    Loading,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl From<RedisError> for Obstacle {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::RESP3NotSupported => Self::Old("6 or older".to_owned()),
            ErrorKind::AuthenticationFailed => Self::Refused(text),
            ErrorKind::Extension if matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) => {
                Self::Refused(text)
            }
            ErrorKind::Server(ServerErrorKind::NoPerm) => Self::Forbidden(text),
            ErrorKind::Server(ServerErrorKind::BusyLoading) => Self::Loading,
            ErrorKind::Io if text.contains("certificate") => Self::Certificate(text),
            ErrorKind::Io => Self::Unreachable(text),
            _ => Self::Other(text),
        }
    }
}

/// What a Redis says about itself.
pub(super) struct About(String);

impl About {
    /// Asks it.
    pub(super) async fn ask(wire: &mut Wire) -> Result<Self, Obstacle> {
        Ok(Self(within(cmd("INFO").query_async(wire)).await?))
    }

    /// Which Redis it is, and which of its lives: another text when its data may be others.
    pub(super) fn identity(&self) -> String {
        format!("{} {}", self.field("run_id"), self.field("master_replid"))
    }

    /// Whether it takes writes now.
    pub(super) fn takes_writes(&self) -> Result<(), Obstacle> {
        match (self.field("role"), self.field("loading")) {
            (_, "1") => Err(Obstacle::Loading),
            ("slave", _) => Err(Obstacle::Replica),
            _ => Ok(()),
        }
    }

    /// Whether it is one for Quire.
    pub(super) fn is_suitable(&self, in_cluster: bool) -> Result<(), Obstacle> {
        let version = self.field("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        let policy = self.field("maxmemory_policy");
        if major < OLDEST_MAJOR {
            return Err(Obstacle::Old(version.to_owned()));
        }
        if policy.starts_with("allkeys-") {
            return Err(Obstacle::Evicts(policy.to_owned()));
        }
        match !in_cluster && self.field("cluster_enabled") == "1" {
            true => Err(Obstacle::InCluster),
            false => Ok(()),
        }
    }

    /// Warns where it does not write to a disk whatever it is told.
    pub(super) async fn warn_if_forgetful(&self, wire: &mut Wire) {
        if self.field("aof_enabled") != "0" {
            return;
        }
        let saving =
            within(cmd("CONFIG").arg("GET").arg("save").query_async::<Vec<(String, String)>>(wire)).await;
        match saving.as_deref() {
            Ok([(_, when)]) if when.is_empty() => warn!(
                "Redis keeps nothing on a disk: documents are lost when it stops; set appendonly to yes in its \
                 configuration"
            ),
            Ok(_) => warn!(
                "Redis writes to its disk only now and then: what was saved since is lost when it crashes; set appendonly \
                 to yes in its configuration"
            ),
            Err(error) => warn!(%error, "cannot see whether Redis keeps its data on a disk"),
        }
    }

    fn field(&self, name: &str) -> &str {
        let value = |line: &'_ str| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')).is_some();
        self.0.lines().find(|line| value(line)).map_or("", |line| line[name.len() + 1..].trim_end())
    }
}

/// Asks for everything that we need, in a way that leaves nothing behind.
pub(super) async fn may_do_everything(wire: &mut Wire, scripts: &Scripts, key: &str) -> Result<(), Obstacle> {
    let mut commands = Pipeline::new();
    for script in scripts.all() {
        commands.add_command(script.load());
    }
    for command in NEEDED {
        let mut words = command.split(' ');
        let mut command = cmd(words.next().expect("a command has a name"));
        for word in words {
            command.arg(if word == "{}" { key } else { word });
        }
        commands.add_command(command);
    }
    commands.cmd("PUBLISH").arg(key).arg("");
    // Last, because its error does not say which command is forbidden. Without a log it changes nothing.
    commands.add_command(scripts.append.call(&[key], 8)).arg("0").arg("").arg(key).arg("0");
    commands.ignore_errors();
    let answers: Vec<RedisResult<Value>> = within(commands.query_async(wire)).await?;
    answers.into_iter().collect::<RedisResult<Vec<_>>>()?;
    Ok(())
}

/// Asks, and does not wait for ever.
pub(super) async fn within<T>(answer: impl Future<Output = RedisResult<T>>) -> Result<T, Obstacle> {
    match timeout(CHECK_TIMEOUT, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Obstacle::Unreachable(format!("no answer within {CHECK_TIMEOUT:?}"))),
    }
}

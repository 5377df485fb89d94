//! A connection as the client library gives it, and its answers as values of ours. It neither waits nor retries.

use std::sync::Arc;

use bytes::Bytes;
use redis::{
    Cmd, ErrorKind, Pipeline, PushKind, RedisError, RedisFuture, RedisResult, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

use super::super::{super::Position, store::Entry};

/// A connection: many may use it at once.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) connection: MultiplexedConnection,
    /// Whether channels are those of a cluster, where each node has its own.
    pub(super) sharded: bool,
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        self.connection.req_packed_command(command)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.connection.req_packed_commands(commands, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}

impl Wire {
    /// Hears these channels, and no longer those. Answers which of these it does not hear after all, because
    /// another node of the cluster has them.
    pub(super) async fn hear_channels(
        mut self,
        these: &[Arc<str>],
        not_those: &[Arc<str>],
    ) -> RedisResult<Vec<Arc<str>>> {
        if self.sharded {
            return self.hear_sharded_channels(these, not_those).await;
        }
        if !these.is_empty() {
            self.connection.subscribe(these.iter().map(|channel| &**channel).collect::<Vec<_>>()).await?;
        }
        if !not_those.is_empty() {
            self.connection
                .unsubscribe(not_those.iter().map(|channel| &**channel).collect::<Vec<_>>())
                .await?;
        }
        Ok(Vec::new())
    }

    /// One command for each channel: those of one command would have to be in one slot.
    async fn hear_sharded_channels(
        &mut self,
        these: &[Arc<str>],
        not_those: &[Arc<str>],
    ) -> RedisResult<Vec<Arc<str>>> {
        let mut commands = Pipeline::with_capacity(these.len() + not_those.len());
        for channel in these {
            commands.cmd("SSUBSCRIBE").arg(&**channel);
        }
        for channel in not_those {
            commands.cmd("SUNSUBSCRIBE").arg(&**channel);
        }
        commands.ignore_errors();
        let answers: Vec<RedisResult<Value>> = commands.query_async(self).await?;
        let mut elsewhere = Vec::new();
        for (channel, answer) in these.iter().zip(answers) {
            match answer {
                Ok(Value::Push { kind: PushKind::SSubscribe, data })
                    if data.first() == Some(&Value::BulkString(channel.as_bytes().into())) => {}
                // A channel was taken away by Redis itself at this moment, which the client library takes for an
                // answer: from there on all answers are those to other commands.
                Ok(_) => return Err((ErrorKind::Client, "answers are out of order").into()),
                Err(error) if is_elsewhere(&error) => elsewhere.push(channel.clone()),
                Err(error) => return Err(error),
            }
        }
        Ok(elsewhere)
    }
}

/// Whether another node of the cluster is to be asked, or will be in a moment.
pub(super) fn is_elsewhere(error: &RedisError) -> bool {
    let ErrorKind::Server(kind) = error.kind() else { return false };
    matches!(kind, ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::ClusterDown)
}

/// A position as Redis writes it.
pub(super) fn write_position(position: Position) -> String {
    format!("{}-{}", position.epoch, position.number)
}

/// The position that stands there.
pub(super) fn read_position(text: &[u8]) -> Option<Position> {
    let (epoch, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
    Some(Position { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
}

/// The bytes of a value; `None` where it is something else.
pub(super) fn read_bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        _ => None,
    }
}

/// The elements of a value that is a list of bytes.
pub(super) fn read_list(value: Value) -> Option<Vec<Bytes>> {
    let Value::Array(elements) = value else { return None };
    elements.into_iter().map(read_bytes).collect()
}

/// The entries of a log.
pub(super) fn read_entries(value: Value) -> Option<Vec<Entry>> {
    let Value::Array(entries) = value else { return None };
    entries.into_iter().map(read_entry).collect()
}

fn read_entry(value: Value) -> Option<Entry> {
    let Value::Array(parts) = value else { return None };
    let [id, Value::Array(fields)] = <[Value; 2]>::try_from(parts).ok()? else { return None };
    let position = read_position(&read_bytes(id)?)?;
    // Behind the first field there may be the time.
    let mut fields = fields.into_iter();
    let (name, content) = (fields.next()?, fields.next()?);
    let envelope = match &*read_bytes(name)? {
        b"u" => Some(read_bytes(content)?),
        _ => None,
    };
    Some(Entry { position, envelope })
}

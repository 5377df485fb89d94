//! The commands, in Redis's words.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value, cmd};

use super::{
    super::{
        super::{Position, Segment},
        store::{Append, Commit, Committed, Entry, Kept, Keys, LEASE, Leases, Meta, Size, slot_tag},
    },
    keeper::random,
    line::{Failure, Line},
    scripts::Scripts,
    shards::Shards,
    snapshot,
    wire::{read_bytes, read_entries, read_list, read_position, write_position},
};

/// Commands with more bytes go over their own connection: Redis and the network are busy with a megabyte for
/// milliseconds, which small ones should not wait for.
const LARGE_BYTES: usize = 64 * 1024;
/// The nodes; their leases have the same beginning.
const NODES: &str = "quire:{nodes}";
/// The names of all documents.
const NAMES: &str = "quire:documents";
/// Counts of a user's connections that nobody changed for so many seconds are of nodes that died.
const COUNTS_SECONDS: u32 = 30 * 24 * 60 * 60;

/// The commands, over connections that are kept.
pub(super) struct Commands {
    pub(super) shards: Arc<Shards>,
    pub(super) scripts: Scripts,
}

impl Commands {
    pub(super) async fn append(
        &self,
        keys: &Keys,
        epoch: u64,
        envelope: &[u8],
        message: &[u8],
    ) -> Result<Append, Failure> {
        let bytes = envelope.len() + message.len();
        let log = keys.log();
        let mut call = self.scripts.append.call(&[&log], bytes);
        call.arg(epoch).arg(envelope).arg(keys.channel()).arg(now());
        // Where it is the same, Redis need not be sent it twice.
        if message != envelope {
            call.arg(message);
        }
        match self.line(&log, bytes).run(&self.scripts.append, &call).await {
            Ok(Some((id, entries))) => {
                let id: Vec<u8> = id;
                let position =
                    read_position(&id).ok_or_else(|| Failure::strange("an id is not a position"))?;
                Ok(Append::Done { position, entries })
            }
            Ok(None) => Ok(Append::NoLog),
            Err(Failure::Answer(error)) if error.to_string().contains("equal or smaller") => {
                Ok(Append::OldEpoch)
            }
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn begin(&self, keys: &Keys, epoch: u64) -> Result<Option<u64>, Failure> {
        let (meta, log) = (keys.meta(), keys.log());
        let mut call = self.scripts.begin.call(&[&meta, &log], 16);
        call.arg(epoch);
        self.command(&meta).run(&self.scripts.begin, &call).await
    }

    pub(super) async fn delete(
        &self,
        keys: &Keys,
        keep_for: Duration,
        message: &[u8],
    ) -> Result<bool, Failure> {
        let mut call = self.scripts.delete.call(&with_trash(keys), message.len());
        // No more than Redis can count.
        let keep_for = u64::try_from(keep_for.as_millis()).unwrap_or(u64::MAX).min(1 << 50);
        call.arg(keep_for).arg(keys.channel()).arg(message);
        self.command(&keys.meta()).run(&self.scripts.delete, &call).await
    }

    pub(super) async fn undelete(&self, keys: &Keys) -> Result<bool, Failure> {
        let call = self.scripts.undelete.call(&with_trash(keys), 0);
        self.command(&keys.meta()).run(&self.scripts.undelete, &call).await
    }

    pub(super) async fn create(&self, keys: &Keys, envelope: Option<&[u8]>) -> Result<bool, Failure> {
        let bytes = envelope.map_or(0, <[u8]>::len);
        let mut call = self.scripts.create.call(&with_trash(keys), bytes);
        if let Some(envelope) = envelope {
            call.arg(envelope).arg(now());
        }
        self.line(&keys.meta(), bytes).run(&self.scripts.create, &call).await
    }

    pub(super) async fn enlist(&self, name: &str, is_there: bool) -> Result<(), Failure> {
        let mut command = match is_there {
            true => cmd("ZADD"),
            false => cmd("ZREM"),
        };
        command.arg(NAMES).arg(is_there.then_some(0)).arg(name);
        self.command(NAMES).ask(&command).await
    }

    pub(super) async fn names(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, Failure> {
        // No byte of UTF-8 is as large as the one that ends the range.
        let begin = match after < prefix {
            true => [b"[", prefix.as_bytes()].concat(),
            false => [b"(", after.as_bytes()].concat(),
        };
        let end = [b"(", prefix.as_bytes(), &[0xff]].concat();
        let mut command = cmd("ZRANGEBYLEX");
        command.arg(NAMES).arg(begin).arg(end).arg("LIMIT").arg(0).arg(limit);
        self.command(NAMES).ask(&command).await
    }

    pub(super) async fn size(&self, keys: &Keys) -> Result<Option<Size>, Failure> {
        let (meta, log) = (keys.meta(), keys.log());
        let call = self.scripts.size.call(&[&meta, &log], 0);
        let size: Option<(u64, Option<u64>)> = self.command(&meta).run(&self.scripts.size, &call).await?;
        Ok(size.map(|(bytes, changed)| Size { bytes, changed }))
    }

    pub(super) async fn read(&self, keys: &Keys) -> Result<Kept, Failure> {
        let mut commands = Pipeline::new();
        commands.atomic();
        commands.cmd("HMGET").arg(keys.meta()).arg(&["e", "v", "s", "t", "d"]);
        commands.cmd("XRANGE").arg(keys.log()).arg("-").arg("+");
        commands.cmd("LRANGE").arg(keys.set_aside()).arg(0).arg(-1);
        let (meta, log, set_aside) =
            self.bulk(&keys.log()).ask_all::<(Value, Value, Value)>(&commands).await?;
        let read = || {
            Some(Kept { meta: read_meta(meta)?, log: read_entries(log)?, set_aside: read_list(set_aside)? })
        };
        read().ok_or_else(|| Failure::strange("a document is not as Quire writes it"))
    }

    pub(super) async fn read_snapshot(&self, key: &str) -> Result<Option<Bytes>, Failure> {
        snapshot::read(&self.bulk(key), key).await
    }

    pub(super) async fn read_log(
        &self,
        keys: &Keys,
        from: Position,
        count: usize,
    ) -> Result<Vec<Entry>, Failure> {
        let log = keys.log();
        let mut command = cmd("XRANGE");
        command.arg(&log).arg(write_position(from)).arg("+").arg("COUNT").arg(count);
        let entries = self.bulk(&log).ask(&command).await?;
        read_entries(entries).ok_or_else(|| Failure::strange("a log is not as Quire writes it"))
    }

    pub(super) async fn commit(&self, keys: &Keys, commit: &Commit) -> Result<Committed, Failure> {
        // A key of its own for each attempt: one before, whose answer was lost, may have been committed, or may
        // still be on its way.
        let key = format!("{}.{:x}", keys.snapshot(commit.version + 1, commit.node), random());
        let bulk = &self.bulk(&key);
        let elements = snapshot::upload(bulk, &key, &commit.snapshot).await?;
        let (segments, data) = (keys.segments(), keys.segment_data());
        let size =
            256 + commit.segment.as_ref().map_or(0, |segment| segment.about.len() + segment.data.len());
        let keys = [&*keys.meta(), &*keys.log(), &*key, &*segments, &*data];
        let mut call = self.scripts.commit.call(&keys, size);
        call.arg(commit.epoch).arg(commit.version).arg(commit.version + 1);
        call.arg(write_position(commit.through)).arg(write_position(commit.keep_from)).arg(elements);
        match &commit.stands_on {
            Some((position, beginning)) => call.arg(write_position(*position)).arg(&**beginning),
            None => call.arg("").arg(""),
        };
        if let Some(Segment { through, about, data }) = &commit.segment {
            call.arg(write_position(*through)).arg(&**about).arg(&**data);
        }
        let committed = match bulk.run(&self.scripts.commit, &call).await? {
            1_i64 => return Ok(Committed::Done),
            0 => Committed::Outrun,
            -1 => Committed::OtherLog,
            _ => return Err(snapshot::lost()),
        };
        // If it stays, it goes by itself.
        let _ = bulk.ask::<()>(cmd("DEL").arg(&key)).await;
        Ok(committed)
    }

    pub(super) async fn segments(&self, keys: &Keys) -> Result<Vec<(Position, Bytes)>, Failure> {
        let key = keys.segments();
        let found: Vec<(Vec<u8>, Vec<u8>)> = self.bulk(&key).ask(cmd("HGETALL").arg(&key)).await?;
        let read = found.into_iter().map(|(position, about)| Some((read_position(&position)?, about.into())));
        let mut segments: Vec<(Position, Bytes)> = read
            .collect::<Option<_>>()
            .ok_or_else(|| Failure::strange("a history is not as Quire writes it"))?;
        segments.sort_unstable_by_key(|(position, _)| *position);
        Ok(segments)
    }

    pub(super) async fn segment_data(
        &self,
        keys: &Keys,
        segments: &[Position],
    ) -> Result<Vec<Option<Bytes>>, Failure> {
        let key = keys.segment_data();
        let bulk = self.bulk(&key);
        let mut found = Vec::with_capacity(segments.len());
        // One by one: an answer has a time in which it must come, and a bound.
        for position in segments {
            let data: Option<Vec<u8>> =
                bulk.ask(cmd("HGET").arg(&key).arg(write_position(*position))).await?;
            found.push(data.map(Bytes::from));
        }
        Ok(found)
    }

    pub(super) async fn replace_segments(
        &self,
        keys: &Keys,
        old: &[(Position, Bytes)],
        new: &Segment,
    ) -> Result<bool, Failure> {
        let (segments, data) = (keys.segments(), keys.segment_data());
        let old_size: usize = old.iter().map(|(_, about)| about.len() + 48).sum();
        let size = new.about.len() + new.data.len() + old_size;
        let mut call = self.scripts.replace_segments.call(&[&segments, &data], size);
        call.arg(write_position(new.through)).arg(&*new.about).arg(&*new.data);
        for (position, about) in old {
            call.arg(write_position(*position)).arg(&**about);
        }
        self.bulk(&segments).run(&self.scripts.replace_segments, &call).await
    }

    pub(super) async fn set_aside(&self, keys: &Keys, entry: &[u8], keep: u32) -> Result<(), Failure> {
        let key = keys.set_aside();
        let mut commands = Pipeline::new();
        commands.atomic().cmd("RPUSH").arg(&key).arg(entry).ignore();
        commands.cmd("LTRIM").arg(&key).arg(-i64::from(keep)).arg(-1).ignore();
        self.line(&key, entry.len()).ask_all(&commands).await
    }

    pub(super) async fn publish(&self, channel: &str, message: &[u8]) -> Result<u64, Failure> {
        let mut command = Cmd::with_capacity(3, channel.len() + message.len() + 16);
        command.arg(self.scripts.publish).arg(channel).arg(message);
        self.line(channel, message.len()).ask(&command).await
    }

    pub(super) async fn lease(&self, node: u64) -> Result<Leases, Failure> {
        let mut call = self.scripts.lease.call(&[NODES, &lease_key(node)], 32);
        call.arg(format!("{node:x}")).arg(LEASE.as_millis() as u64);
        let (times, live): (u64, Vec<String>) = self.command(NODES).run(&self.scripts.lease, &call).await?;
        let live = live.iter().filter_map(|node| u64::from_str_radix(node, 16).ok()).collect();
        Ok(Leases { times, live })
    }

    pub(super) async fn end_lease(&self, node: u64) -> Result<(), Failure> {
        let mut commands = Pipeline::new();
        commands.atomic().cmd("DEL").arg(lease_key(node)).ignore();
        commands.cmd("SREM").arg(NODES).arg(format!("{node:x}")).ignore();
        self.command(NODES).ask_all(&commands).await
    }

    pub(super) async fn admit(
        &self,
        user: &str,
        node: u64,
        live: &[u64],
        limit: u32,
    ) -> Result<bool, Failure> {
        let key = user_key(user);
        let mut call = self.scripts.admit.call(&[&key], 32 + live.len() * 16);
        call.arg(format!("{node:x}")).arg(limit).arg(COUNTS_SECONDS);
        for node in live {
            call.arg(format!("{node:x}"));
        }
        self.command(&key).run(&self.scripts.admit, &call).await
    }

    pub(super) async fn dismiss(&self, user: &str, node: u64, last: bool) -> Result<(), Failure> {
        let key = user_key(user);
        let mut call = self.scripts.dismiss.call(&[&key], 16);
        call.arg(format!("{node:x}")).arg(u8::from(last));
        self.command(&key).run(&self.scripts.dismiss, &call).await
    }

    /// The connection for a command with a key and so many bytes.
    pub(super) fn line(&self, key: &str, bytes: usize) -> Arc<Line> {
        match bytes > LARGE_BYTES {
            true => self.bulk(key),
            false => self.command(key),
        }
    }

    fn command(&self, key: &str) -> Arc<Line> {
        self.shards.keeper(key).command.clone()
    }

    fn bulk(&self, key: &str) -> Arc<Line> {
        self.shards.keeper(key).bulk.clone()
    }
}

/// The keys of a document, and those of what a deleted one has left.
fn with_trash(keys: &Keys) -> Vec<String> {
    keys.all().into_iter().chain(keys.trash()).collect()
}

/// Milliseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn lease_key(node: u64) -> String {
    format!("{NODES}:{node:x}")
}

/// The key of a user's counts: one slot of a cluster for each user.
fn user_key(user: &str) -> String {
    format!("quire:{{u:{}}}", slot_tag(user))
}

fn read_meta(value: Value) -> Option<Meta> {
    let Value::Array(fields) = value else { return None };
    let [epoch, version, snapshot, through, deleted] = <[Value; 5]>::try_from(fields).ok()?.map(read_bytes);
    let number = |text: Option<Bytes>| match text {
        Some(text) => std::str::from_utf8(&text).ok()?.parse().ok(),
        None => Some(0),
    };
    Some(Meta {
        epoch: number(epoch)?,
        version: number(version)?,
        through: through.map_or(Some(Position::default()), |text| read_position(&text))?,
        snapshot: String::from_utf8(snapshot.unwrap_or_default().into()).ok()?,
        deleted: deleted.is_some(),
    })
}

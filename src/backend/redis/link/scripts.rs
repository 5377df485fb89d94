//! What Redis does for us in one step, in its own language. Numbers in Lua are doubles: epochs stay below 2^53 and
//! are written with `%.0f`, because `..` writes large ones with an exponent.

use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, ServerErrorKind, ToRedisArgs, cmd};

use super::wire::Wire;

/// Key: the log. Arguments: the epoch, the envelope, the channel, the time, and the message where it is not the
/// envelope. The channel is no key, because a cluster that moves the slot answers nothing while some keys are not
/// there; and the time stands in the log, because the meta hash would be another key.
const APPEND: &str = "
local id = redis.call('XADD', KEYS[1], 'NOMKSTREAM', ARGV[1] .. '-*', 'u', ARGV[2], 't', ARGV[4])
if not id then return false end
redis.call('PUBLISH', ARGV[3], id .. '|' .. (ARGV[5] or ARGV[2]))
return { id, redis.call('XLEN', KEYS[1]) }";

/// The epoch of a document, which its log knows too, where the hash was lost; 0 where it has never been.
const EPOCH_OF: &str = "
local function epoch_of(meta, log)
  local e = tonumber(redis.call('HGET', meta, 'e') or 0)
  if redis.call('EXISTS', log) == 1 then
    local info = redis.call('XINFO', 'STREAM', log)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then e = math.max(e, tonumber(string.match(info[i + 1], '^%d+'))) end
    end
  end
  return e
end";

/// Keys: the meta hash, the log. Argument: the epoch. A deleted document begins nothing.
const BEGIN: &str = "
if redis.call('HEXISTS', KEYS[1], 'd') == 1 then return false end
local e = string.format('%.0f', math.max(epoch_of(KEYS[1], KEYS[2]), tonumber(ARGV[1])))
redis.call('HSET', KEYS[1], 'e', e)
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('XADD', KEYS[2], e .. '-*', 'i', '1') end
return e";

/// Lets all go that a deleted document has left; its keys begin with the sixth one.
const EMPTY_TRASH: &str = "
local function empty_trash()
  local s = redis.call('HGET', KEYS[6], 's')
  if s and s ~= '' then redis.call('UNLINK', s) end
  for i = 6, 10 do redis.call('UNLINK', KEYS[i]) end
end";

/// Keys: those of the document, and those of what a deleted one has left. Arguments: for how many milliseconds that is
/// kept, the channel, the message. The low 20 bits of an epoch count how often a log was lost. Where the name is one of
/// a deleted document, only what it has left can go.
const DELETE: &str = "
local keep = tonumber(ARGV[1])
if redis.call('HEXISTS', KEYS[1], 'd') == 0 then
  local e = epoch_of(KEYS[1], KEYS[2])
  if e == 0 then return 0 end
  empty_trash()
  local s = redis.call('HGET', KEYS[1], 's')
  if s and s ~= '' then redis.call('PEXPIRE', s, math.max(keep, 1)) end
  for i = 1, 5 do
    if redis.call('EXISTS', KEYS[i]) == 1 then
      redis.call('RENAME', KEYS[i], KEYS[i + 5])
      redis.call('PEXPIRE', KEYS[i + 5], math.max(keep, 1))
    end
  end
  e = string.format('%.0f', (math.floor(e / 1048576) + 1) * 1048576)
  redis.call('HSET', KEYS[1], 'e', e, 'd', '1')
  redis.call('PUBLISH', ARGV[2], ARGV[3])
end
if keep == 0 then empty_trash() end
return 1";

/// Keys: as for a deletion. The epoch is the one of before: who has missed all that goes on.
const UNDELETE: &str = "
if redis.call('HEXISTS', KEYS[1], 'd') == 0 then return 0 end
if redis.call('EXISTS', KEYS[6], KEYS[7]) == 0 then return 0 end
for i = 1, 5 do
  redis.call('UNLINK', KEYS[i])
  if redis.call('EXISTS', KEYS[i + 5]) == 1 then
    redis.call('RENAME', KEYS[i + 5], KEYS[i])
    redis.call('PERSIST', KEYS[i])
  end
end
local s = redis.call('HGET', KEYS[1], 's')
if s and s ~= '' then redis.call('PERSIST', s) end
return 1";

/// Keys: as for a deletion. Arguments, where there is a first entry: the envelope, the time.
const CREATE: &str = "
if redis.call('HDEL', KEYS[1], 'd') == 0 then return 0 end
empty_trash()
for i = 2, 5 do redis.call('UNLINK', KEYS[i]) end
local id = redis.call('HGET', KEYS[1], 'e') .. '-*'
redis.call('XADD', KEYS[2], id, 'i', '1')
if ARGV[1] then redis.call('XADD', KEYS[2], id, 'u', ARGV[1], 't', ARGV[2]) end
return 1";

/// Keys: the meta hash, the log. Answers with nothing where there is no document: a log begins with an entry that
/// is none. Otherwise with the bytes of all, and the time of the last entry.
const SIZE: &str = "
local m = redis.call('HMGET', KEYS[1], 'd', 's')
local s = m[2] or ''
if m[1] or (s == '' and redis.call('XLEN', KEYS[2]) < 2) then return false end
local bytes = redis.call('MEMORY', 'USAGE', KEYS[2]) or 0
if s ~= '' then bytes = bytes + (redis.call('MEMORY', 'USAGE', s, 'SAMPLES', 0) or 0) end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return { bytes, last and last[2][4] or false }";

/// Keys: the meta hash, the log, the uploaded list, what is known of segments, what they hold. Arguments: the epoch, the
/// version that is replaced, the new one, the position through which the snapshot goes, the first that is kept, how many
/// elements the list has; where it stands on an entry, its id and how its envelope begins, otherwise two empty ones; and
/// where there is a segment, its position and these two. Answers 1 for done, 0 for outrun, -1 for
/// another log, -2 for a list that is not all there.
const COMMIT: &str = "
local m = redis.call('HMGET', KEYS[1], 'e', 'v', 's')
if (m[1] or '0') ~= ARGV[1] then return -1 end
if (m[2] or '0') ~= ARGV[2] then return 0 end
if ARGV[7] ~= '' then
  local entry = redis.call('XRANGE', KEYS[2], ARGV[7], ARGV[7])[1]
  if not entry or entry[2][1] ~= 'u' or string.sub(entry[2][2], 1, #ARGV[8]) ~= ARGV[8] then return -1 end
end
if redis.call('LLEN', KEYS[3]) ~= tonumber(ARGV[6]) then return -2 end
redis.call('PERSIST', KEYS[3])
redis.call('HSET', KEYS[1], 'v', ARGV[3], 's', KEYS[3], 't', ARGV[4])
if m[3] and m[3] ~= '' then redis.call('EXPIRE', m[3], 120) end
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[5])
if ARGV[9] then
  redis.call('HSET', KEYS[4], ARGV[9], ARGV[10])
  redis.call('HSET', KEYS[5], ARGV[9], ARGV[11])
end
return 1";

/// Keys: what is known of segments, what they hold. Arguments: the position of the new one, these two of it, and the
/// position of each old one with what is known of it. Answers 1 where all of those were there and just this was known of
/// them; otherwise nothing changes.
const REPLACE_SEGMENTS: &str = "
for i = 4, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then return 0 end
end
for i = 4, #ARGV, 2 do
  redis.call('HDEL', KEYS[1], ARGV[i])
  redis.call('HDEL', KEYS[2], ARGV[i])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1";

/// Keys: the set of nodes, the node's lease. Arguments: the node, for how many milliseconds.
const LEASE: &str = "
local times = redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('SADD', KEYS[1], ARGV[1])
local live = {}
for _, node in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', KEYS[1] .. ':' .. node) == 1 then
    live[#live + 1] = node
  else
    redis.call('SREM', KEYS[1], node)
  end
end
return { times, live }";

/// Key: the user's hash of node to count. Arguments: the node, the limit or 0, for how many seconds a hash is
/// kept that nobody changes, the live nodes.
const ADMIT: &str = "
local live = { [ARGV[1]] = true }
for i = 4, #ARGV do live[ARGV[i]] = true end
local counts = redis.call('HGETALL', KEYS[1])
local sum = 0
for i = 1, #counts, 2 do
  if live[counts[i]] then
    sum = sum + tonumber(counts[i + 1])
  else
    redis.call('HDEL', KEYS[1], counts[i])
  end
end
if ARGV[2] ~= '0' and sum >= tonumber(ARGV[2]) then return 0 end
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1";

/// Key: the user's hash of node to count. Arguments: the node, and 1 where the user has no other connection there.
const DISMISS: &str = "
if ARGV[2] == '1'
    or (redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 and redis.call('HINCRBY', KEYS[1], ARGV[1], -1) < 1) then
  redis.call('HDEL', KEYS[1], ARGV[1])
end";

/// Keys: the notifications by when they are due, their bodies, how often they were tried. Arguments: the time now and
/// that until which what is claimed is nobody else's, in milliseconds; how many there may be, how many are claimed, and how
/// many are removed and tried again; then the ids of the former, and of the latter id, time and tries; and of those that
/// are new id and body.
const EXCHANGE: &str = "
local at = 7
for i = 1, tonumber(ARGV[5]) do
  redis.call('ZREM', KEYS[1], ARGV[at])
  redis.call('HDEL', KEYS[2], ARGV[at])
  redis.call('HDEL', KEYS[3], ARGV[at])
  at = at + 1
end
for i = 1, tonumber(ARGV[6]) do
  if redis.call('HEXISTS', KEYS[2], ARGV[at]) == 1 then
    redis.call('ZADD', KEYS[1], ARGV[at + 1], ARGV[at])
    redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 2])
  end
  at = at + 3
end
local waiting = redis.call('ZCARD', KEYS[1])
local dropped = 0
for i = at, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0 then
    if waiting < tonumber(ARGV[3]) then
      redis.call('ZADD', KEYS[1], ARGV[1], ARGV[i])
      redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
      waiting = waiting + 1
    else
      dropped = dropped + 1
    end
  end
end
local claimed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[4])) do
  redis.call('ZADD', KEYS[1], ARGV[2], id)
  claimed[#claimed + 1] = { id, redis.call('HGET', KEYS[2], id) or '', redis.call('HGET', KEYS[3], id) or '0' }
end
return { dropped, waiting, claimed }";

/// All scripts.
pub(super) struct Scripts {
    /// Not a script, but the command that they publish with.
    pub(super) publish: &'static str,
    pub(super) append: Script,
    pub(super) begin: Script,
    pub(super) delete: Script,
    pub(super) undelete: Script,
    pub(super) create: Script,
    pub(super) size: Script,
    pub(super) commit: Script,
    pub(super) replace_segments: Script,
    pub(super) lease: Script,
    pub(super) admit: Script,
    pub(super) dismiss: Script,
    pub(super) exchange: Script,
}

impl Scripts {
    /// Those of a cluster publish to its sharded channels.
    pub(super) fn new(in_cluster: bool) -> Self {
        let publish = if in_cluster { "SPUBLISH" } else { "PUBLISH" };
        let publishing = |code: &str| code.replace("'PUBLISH'", &format!("'{publish}'"));
        Self {
            publish,
            append: Script::new(publishing(APPEND)),
            begin: Script::new([EPOCH_OF, BEGIN].concat()),
            delete: Script::new([EPOCH_OF, EMPTY_TRASH, &publishing(DELETE)].concat()),
            undelete: Script::new(UNDELETE),
            create: Script::new([EMPTY_TRASH, CREATE].concat()),
            size: Script::new(SIZE),
            commit: Script::new(COMMIT),
            replace_segments: Script::new(REPLACE_SEGMENTS),
            lease: Script::new(LEASE),
            admit: Script::new(ADMIT),
            dismiss: Script::new(DISMISS),
            exchange: Script::new(EXCHANGE),
        }
    }

    pub(super) fn all(&self) -> [&Script; 12] {
        [
            &self.append,
            &self.begin,
            &self.delete,
            &self.undelete,
            &self.create,
            &self.size,
            &self.commit,
            &self.replace_segments,
            &self.lease,
            &self.admit,
            &self.dismiss,
            &self.exchange,
        ]
    }
}

/// A script, which is called by its hash.
pub(super) struct Script {
    code: String,
    hash: String,
}

impl Script {
    fn new(code: impl Into<String>) -> Self {
        let code = code.into();
        Self { hash: redis::Script::new(&code).get_hash().to_owned(), code }
    }

    /// A call with these keys; the arguments are added to it. `size` is how many bytes they have, about.
    pub(super) fn call(&self, keys: &[impl AsRef<str> + ToRedisArgs], size: usize) -> Cmd {
        let size = keys.iter().map(|key| key.as_ref().len()).sum::<usize>() + size + 128;
        let mut call = Cmd::with_capacity(keys.len() + 12, size);
        call.arg("EVALSHA").arg(&self.hash).arg(keys.len()).arg(keys);
        call
    }

    /// Gives the script to Redis.
    pub(super) fn load(&self) -> Cmd {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(&self.code);
        load
    }

    /// Sends a call, and gives the script to a Redis that does not know it, such as one that was restarted.
    pub(super) async fn run<T: FromRedisValue>(&self, call: &Cmd, wire: &mut Wire) -> RedisResult<T> {
        match call.query_async(wire).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.load().query_async::<()>(wire).await?;
                call.query_async(wire).await
            }
            answer => answer,
        }
    }
}

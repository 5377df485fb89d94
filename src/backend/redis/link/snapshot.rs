//! A snapshot in Redis: a list of chunks, behind a first element that says how many there are and what they are
//! together. Nothing that is only half there is taken for a snapshot.

use bincode::config;
use bytes::Bytes;
use redis::{Pipeline, Value, cmd};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    line::{Failure, Line},
    wire::read_list,
};

/// Bytes of a chunk: Redis is kept from others for a fraction of a millisecond.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that are read at once.
const CHUNKS_AT_ONCE: usize = 4;
/// An upload that is not committed after so many seconds never will be.
const UPLOAD_SECONDS: u32 = 300;
/// The first format; another one gets another number.
const FORMAT: u8 = 1;
/// The most bytes of a manifest. It has a tenth of that.
const MAX_MANIFEST_BYTES: usize = 64 * 1024;

/// The first element of the list.
#[derive(Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Manifest {
    bytes: u64,
    chunks: u64,
    checksum: u64,
}

impl Manifest {
    fn of(snapshot: &[u8]) -> Self {
        let chunks = snapshot.len().div_ceil(CHUNK_BYTES) as u64;
        Self { bytes: snapshot.len() as u64, chunks, checksum: xxh3_64(snapshot) }
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bincode::encode_into_std_write(self, &mut bytes, config::standard())
            .expect("three integers are written to memory");
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, rest) = bytes.split_first()? else { return None };
        let limited = config::standard().with_limit::<MAX_MANIFEST_BYTES>();
        let (manifest, _) = bincode::decode_from_slice::<Self, _>(rest, limited).ok()?;
        Some(manifest)
    }
}

/// Uploads a snapshot under a key that nobody else has, and answers how many elements the list has. It goes by
/// itself unless it is committed.
pub(super) async fn upload(line: &Line, key: &str, snapshot: &Bytes) -> Result<u64, Failure> {
    let mut begin = Pipeline::new();
    begin.atomic().cmd("RPUSH").arg(key).arg(Manifest::of(snapshot).write()).ignore();
    begin.cmd("EXPIRE").arg(key).arg(UPLOAD_SECONDS).ignore();
    line.ask_all::<()>(&begin).await?;
    let mut elements = 1;
    for chunk in snapshot.chunks(CHUNK_BYTES) {
        elements += 1;
        // Not a list that begins with this chunk, where the one above was lost: it would stay for ever.
        let push = line.ask::<u64>(cmd("RPUSHX").arg(key).arg(chunk)).await?;
        if push != elements {
            return Err(lost());
        }
    }
    Ok(elements)
}

/// Why an upload is given up.
pub(super) fn lost() -> Failure {
    Failure::Away("Redis has lost a snapshot that was being uploaded".to_owned())
}

/// Reads a snapshot; `None` where it is not all there any more.
pub(super) async fn read(line: &Line, key: &str) -> Result<Option<Bytes>, Failure> {
    let mut first = read_chunks(line, key, 0, CHUNKS_AT_ONCE).await?.into_iter();
    let Some(manifest) = first.next() else { return Ok(None) };
    let Some(manifest) = Manifest::read(&manifest) else {
        return Err(Failure::strange(
            "a snapshot begins with something that this version of Quire cannot read",
        ));
    };
    let mut snapshot = Vec::new();
    let mut chunks = 0;
    let mut ready: Vec<Bytes> = first.collect();
    while !ready.is_empty() && chunks < manifest.chunks {
        for chunk in ready.iter().take((manifest.chunks - chunks) as usize) {
            snapshot.extend_from_slice(chunk);
            chunks += 1;
        }
        if chunks < manifest.chunks {
            ready = read_chunks(line, key, chunks as usize + 1, CHUNKS_AT_ONCE - 1).await?;
        }
    }
    match chunks == manifest.chunks {
        false => Ok(None),
        true if Manifest::of(&snapshot) == manifest => Ok(Some(snapshot.into())),
        true => Err(Failure::strange("a snapshot is damaged: its checksum is another one")),
    }
}

/// Elements from this one on, and so many after it.
async fn read_chunks(line: &Line, key: &str, from: usize, after: usize) -> Result<Vec<Bytes>, Failure> {
    let chunks = line.ask::<Value>(cmd("LRANGE").arg(key).arg(from).arg(from + after)).await?;
    read_list(chunks).ok_or_else(|| Failure::strange("a snapshot is not a list of bytes"))
}

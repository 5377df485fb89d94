//! The file of a backup: a tar archive under zstd. First comes `quire-backup.json`, which says what it is; then, for each
//! document, `documents/<number>/about.json` with its name, size and checksum, and `documents/<number>/bundle` with what is
//! to be put back; last `end.json`, by which a whole archive is known.

use std::io::{self, Read, Write};

use anyhow::{Context, bail};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tar::{Archive, Builder, EntryType, Header};
use xxhash_rust::xxh3::xxh3_128;

/// The first format; another one gets another number.
const FORMAT: u32 = 1;
const HEAD: &str = "quire-backup.json";
const END: &str = "end.json";
/// zstd's own choice. What bundles hold is compressed already for the most part.
const ZSTD_LEVEL: i32 = 3;
/// The most bytes of an entry that says something of others.
const MAX_JSON_BYTES: u64 = 64 * 1024;
/// The most bytes of a bundle, so that a damaged length cannot ask for all memory.
const MAX_BUNDLE_BYTES: u64 = 1 << 30;

/// What a backup is.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    /// The number of its format.
    format: u32,
    /// When it was begun, in milliseconds since 1970.
    begun: u64,
    /// The version of the command that made it.
    quire: String,
}

/// What a document's bundle must be.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    name: String,
    bytes: u64,
    xxh3: String,
}

/// What all of a backup must be.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    documents: u64,
}

/// A document in a backup.
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) bundle: Bytes,
}

/// A backup that is being written.
pub(super) struct Writer<W: Write> {
    tar: Builder<zstd::Encoder<'static, W>>,
    begun: u64,
    documents: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a backup; `now` is in milliseconds since 1970.
    pub(super) fn begin(to: W, now: u64) -> io::Result<Self> {
        let mut compressed = zstd::Encoder::new(to, ZSTD_LEVEL)?;
        compressed.include_checksum(true)?;
        let mut writer = Self { tar: Builder::new(compressed), begun: now, documents: 0 };
        let head = Head { format: FORMAT, begun: now, quire: env!("CARGO_PKG_VERSION").to_owned() };
        writer.add_json(HEAD, &head)?;
        Ok(writer)
    }

    /// Adds a document.
    pub(super) fn add(&mut self, name: &str, bundle: &[u8]) -> io::Result<()> {
        self.documents += 1;
        let about = About { name: name.to_owned(), bytes: bundle.len() as u64, xxh3: checksum(bundle) };
        self.add_json(&entry_name(self.documents, "about.json"), &about)?;
        self.add_entry(&entry_name(self.documents, "bundle"), bundle)
    }

    /// Ends the backup, and gives back where it was written to.
    pub(super) fn end(mut self) -> io::Result<W> {
        let end = End { documents: self.documents };
        self.add_json(END, &end)?;
        self.tar.into_inner()?.finish()
    }

    fn add_json(&mut self, name: &str, value: &impl Serialize) -> io::Result<()> {
        self.add_entry(name, &serde_json::to_vec(value)?)
    }

    fn add_entry(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_mtime(self.begun / 1_000);
        header.set_size(content.len() as u64);
        self.tar.append_data(&mut header, name, content)
    }
}

/// Reads a backup to its end, and hands each document over when it was found to be whole; stops at the first thing that
/// is wrong. Answers how many documents there were: only then is it known that none is missing.
pub(super) fn read(from: impl Read, mut take: impl FnMut(Kept) -> anyhow::Result<()>) -> anyhow::Result<u64> {
    let mut archive = Archive::new(zstd::Decoder::new(from).context(BROKEN)?);
    let mut entries = Entries(archive.entries().context(BROKEN)?);
    let head: Head = entries.next_json(HEAD)?;
    if head.format != FORMAT {
        bail!(
            "the backup is of format {}, and this Quire knows format {FORMAT}: restore it with Quire {} or a newer one",
            head.format,
            head.quire
        );
    }
    let mut documents = 0;
    while let Some(kept) = entries.next_document(documents + 1)? {
        documents += 1;
        take(kept)?;
    }
    // Behind the archive stands the checksum of all of it.
    io::copy(&mut archive.into_inner(), &mut io::sink())
        .with_context(|| format!("{BROKEN}: behind {END}"))?;
    Ok(documents)
}

/// What is said where the archive itself cannot be read.
const BROKEN: &str = "the backup is damaged, or not complete";

struct Entries<'a, R: Read>(tar::Entries<'a, R>);

impl<R: Read> Entries<'_, R> {
    /// The document with this number; none where the archive ends as it should.
    fn next_document(&mut self, number: u64) -> anyhow::Result<Option<Kept>> {
        let expected = entry_name(number, "about.json");
        let (name, content) = self.next(&expected, MAX_JSON_BYTES)?;
        if name == END {
            let End { documents } = read_json(END, &content)?;
            if documents != number - 1 {
                bail!(
                    "{BROKEN}: {END} says that there are {documents} documents, and there are {}",
                    number - 1
                );
            }
            return Ok(None);
        }
        if name != expected {
            bail!("{BROKEN}: {expected} should come, and {name:?} does");
        }
        let About { name: document, bytes, xxh3 } = read_json(&name, &content)?;
        let expected = entry_name(number, "bundle");
        let (name, bundle) = self.next(&expected, MAX_BUNDLE_BYTES)?;
        if name != expected || bundle.len() as u64 != bytes || checksum(&bundle) != xxh3 {
            bail!("{BROKEN}: {name:?} is not what was written of the document {document:?}");
        }
        Ok(Some(Kept { name: document, bundle }))
    }

    fn next_json<T: DeserializeOwned>(&mut self, expected: &str) -> anyhow::Result<T> {
        let (name, content) = self.next(expected, MAX_JSON_BYTES)?;
        if name != expected {
            bail!("this is no backup: it begins with {name:?} in place of {expected}");
        }
        read_json(expected, &content)
    }

    /// The next entry's name and content; `expected` is for who reads what is wrong.
    fn next(&mut self, expected: &str, limit: u64) -> anyhow::Result<(String, Bytes)> {
        let mut entry = match self.0.next() {
            Some(entry) => entry.with_context(|| format!("{BROKEN}: where {expected} should come"))?,
            None => bail!("{BROKEN}: it ends before {expected}"),
        };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let size = entry.size();
        if size > limit {
            bail!("{BROKEN}: {name:?} says that it has {size} bytes; {limit} are the most");
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).with_context(|| format!("{BROKEN}: within {name:?}"))?;
        if content.len() as u64 != size {
            bail!("{BROKEN}: {name:?} ends after {} of {size} bytes", content.len());
        }
        Ok((name, content.into()))
    }
}

fn read_json<T: DeserializeOwned>(name: &str, content: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(content).with_context(|| format!("{BROKEN}: {name}"))
}

fn entry_name(number: u64, what: &str) -> String {
    format!("documents/{number:06}/{what}")
}

fn checksum(content: &[u8]) -> String {
    format!("{:032x}", xxh3_128(content))
}

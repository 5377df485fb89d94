//! What people want to see: which documents there are, their versions, and their content.

use std::{
    fmt::Write as _,
    fs,
    io::{self, IsTerminal, Write as _},
    path::Path,
};

use anyhow::{Context, bail};
use quire::config::{Export, List, Versions};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Outcome,
    source::{Source, document_path, encoded},
};

/// Formats that are no text.
const BINARY: [&str; 2] = ["update", "state-vector"];

/// Prints the documents, page by page.
pub(super) async fn list(source: &Source, told: &List) -> anyhow::Result<Outcome> {
    let mut after = Some(String::new());
    while let Some(name) = after {
        let (documents, next) = source.list(&told.prefix, &name).await?;
        let mut page = String::new();
        for document in documents {
            match told.json {
                true => add_json(&mut page, &document)?,
                false => {
                    let changed = document.changed.map_or_else(|| "-".to_owned(), moment);
                    writeln!(page, "{:>12}  {changed:<20}  {}", document.bytes, document.name)?;
                }
            }
        }
        io::stdout().write_all(page.as_bytes())?;
        after = next;
    }
    Ok(Outcome::Done)
}

/// Prints the versions of a document, newest first.
pub(super) async fn versions(source: &Source, told: &Versions) -> anyhow::Result<Outcome> {
    let mut before = None;
    loop {
        let (versions, next) = source.versions(&told.document, before.as_deref()).await?;
        let mut page = String::new();
        for version in versions {
            match told.json {
                true => add_json(&mut page, &version)?,
                false => {
                    let name = version.name.as_deref().map_or_else(|| "-".to_owned(), printable);
                    let users = printable(&version.users.join(", "));
                    let (id, time, bytes) = (version.id, moment(version.time), version.bytes);
                    writeln!(page, "{id:<12}  {time}  {bytes:>12}  {name}  {users}")?;
                }
            }
        }
        io::stdout().write_all(page.as_bytes())?;
        match next {
            Some(next) => before = Some(next),
            None => return Ok(Outcome::Done),
        }
    }
}

/// Writes a document, or a version of it, in the format that is asked for.
pub(super) async fn export(source: &Source, told: &Export) -> anyhow::Result<Outcome> {
    let to_stdout = told.output == Path::new("-");
    if to_stdout && BINARY.contains(&told.format.as_str()) && io::stdout().is_terminal() {
        bail!("{:?} is not made for a terminal: name a file with --output, or another --format", told.format);
    }
    let mut path = document_path(&told.document);
    if let Some(version) = &told.version {
        write!(path, "/versions/{}", encoded(version))?;
    }
    write!(path, "?format={}", encoded(&told.format))?;
    for root in &told.root {
        write!(path, "&root={}", encoded(root))?;
    }
    let content = source.get(&path).await?;
    match to_stdout {
        true => io::stdout().write_all(&content)?,
        false => fs::write(&told.output, &content)
            .with_context(|| format!("cannot write {}", told.output.display()))?,
    }
    Ok(Outcome::Done)
}

fn add_json(page: &mut String, value: &impl Serialize) -> anyhow::Result<()> {
    page.push_str(&serde_json::to_string(value)?);
    page.push('\n');
    Ok(())
}

/// A moment for people, to the second; `at` is in milliseconds since 1970.
fn moment(at: u64) -> String {
    let seconds = i64::try_from(at / 1_000).unwrap_or(i64::MAX);
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| at.to_string())
}

/// What others have named so, without what a terminal would take as an order.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

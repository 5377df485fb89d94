//! `quire restore`: the documents of a backup are put back, one after the other. A file is read as a whole before that, so
//! that a damaged one changes nothing; what comes through a pipe is checked document by document.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use anyhow::Context;
use hyper::{Method, StatusCode};
use quire::config::Restore;
use tokio::{runtime::Handle, task::block_in_place};

use super::{
    Outcome,
    archive::{self, Kept},
    progress::Progress,
    source::{Source, document_path},
};

/// Documents by what has become of them.
#[derive(Default)]
struct Counts {
    restored: u64,
    left: u64,
    failed: u64,
}

pub(super) async fn run(source: &Source, told: &Restore) -> anyhow::Result<Outcome> {
    // An archive is read where it may wait, as its reader cannot go from thread to thread.
    let counts = block_in_place(|| match told.file == Path::new("-") {
        true => put_all(source, told, io::stdin().lock(), None),
        false => {
            let all = archive::read(open(&told.file)?, |_| Ok(())).context("nothing was restored")?;
            put_all(source, told, open(&told.file)?, Some(all))
        }
    });
    let Counts { restored, left, failed } = counts?;
    eprintln!("documents restored: {restored}");
    if left > 0 {
        eprintln!(
            "left as they are, because they are there already or were deleted: {left} (--replace puts the backup's in \
             their place)"
        );
    }
    match failed {
        0 => Ok(Outcome::Done),
        _ => {
            eprintln!("not restored, for the reasons above: {failed}");
            Ok(Outcome::Partly)
        }
    }
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(BufReader::new(file))
}

fn put_all(source: &Source, told: &Restore, from: impl Read, all: Option<u64>) -> anyhow::Result<Counts> {
    let mut progress = Progress::begin("restoring", all);
    let mut counts = Counts::default();
    let read = archive::read(from, |kept| {
        if kept.name.starts_with(&told.prefix) {
            let name = kept.name.clone();
            match Handle::current().block_on(put(source, kept, told.replace)) {
                Ok(true) => counts.restored += 1,
                Ok(false) => counts.left += 1,
                Err(error) => {
                    progress.tell(&name, &format!("{error:#}"));
                    counts.failed += 1;
                }
            }
        }
        progress.step();
        Ok(())
    });
    progress.end();
    read.with_context(|| format!("it stopped early; documents restored before that: {}", counts.restored))?;
    Ok(counts)
}

/// Puts a document; answers whether there was room for it.
async fn put(source: &Source, Kept { name, bundle }: Kept, replace: bool) -> anyhow::Result<bool> {
    let path = format!("{}/bundle?replace={replace}", document_path(&name));
    let answer = source.ask(Method::PUT, &path, bundle).await?;
    match answer.status {
        StatusCode::CONFLICT if !replace => Ok(false),
        _ => answer.good().map(|_| true),
    }
}

//! `quire backup`: all documents with their histories in one file, while people go on writing. Each document is as it was
//! at the moment when it was read; none of them waits for the others.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use quire::config::Backup;

use super::{
    Outcome, archive,
    progress::Progress,
    source::{Source, document_path},
};

/// Documents by what has become of them.
#[derive(Default)]
struct Counts {
    kept: u64,
    bytes: u64,
    failed: u64,
}

pub(super) async fn run(source: &Source, told: &Backup) -> anyhow::Result<Outcome> {
    let counts = match told.file == Path::new("-") {
        true => write(source, io::stdout()).await?.1,
        false => write_file(source, &told.file).await?,
    };
    let Counts { kept, bytes, failed } = counts;
    eprintln!("documents in the backup: {kept} ({bytes} bytes)");
    match failed {
        0 => Ok(Outcome::Done),
        _ => {
            eprintln!("documents that are not in it, for the reasons above: {failed}");
            Ok(Outcome::Partly)
        }
    }
}

/// Writes the file beside its place, where it comes when it is whole: what stands under its name can be restored.
async fn write_file(source: &Source, path: &Path) -> anyhow::Result<Counts> {
    if path.exists() {
        bail!("{} is there already: name another file", path.display());
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let cannot = || format!("cannot write {}", partial.display());
    let written = async {
        let file = create(&partial).with_context(cannot)?;
        let (file, counts) = write(source, BufWriter::new(file)).await?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error).with_context(cannot)?;
        file.sync_all().with_context(cannot)?;
        fs::rename(&partial, path).with_context(|| format!("cannot give {} its name", path.display()))?;
        Ok(counts)
    };
    let written = written.await;
    if written.is_err() {
        // An error: it was not made.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// A file for nobody but us: it holds what everybody wrote.
fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

async fn write<W: Write>(source: &Source, to: W) -> anyhow::Result<(W, Counts)> {
    // Only the names, so that it is known how many there are.
    let names = names(source).await?;
    let mut progress = Progress::begin("backing up", Some(names.len() as u64));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    let cannot = "cannot write the backup";
    let mut archive = archive::Writer::begin(to, now).context(cannot)?;
    let mut counts = Counts::default();
    for name in names {
        match fetch(source, &name).await {
            Ok(Some(bundle)) => {
                archive.add(&name, &bundle).context(cannot)?;
                counts.kept += 1;
                counts.bytes += bundle.len() as u64;
            }
            // It was deleted since.
            Ok(None) => {}
            Err(error) => {
                progress.tell(&name, &format!("{error:#}"));
                counts.failed += 1;
            }
        }
        progress.step();
    }
    progress.end();
    let mut to = archive.end().context(cannot)?;
    to.flush().context(cannot)?;
    Ok((to, counts))
}

async fn names(source: &Source) -> anyhow::Result<Vec<String>> {
    let (mut names, mut after) = (Vec::new(), Some(String::new()));
    while let Some(name) = after {
        let (documents, next) = source.list("", &name).await?;
        names.extend(documents.into_iter().map(|document| document.name));
        after = next;
    }
    Ok(names)
}

async fn fetch(source: &Source, name: &str) -> anyhow::Result<Option<Bytes>> {
    let path = format!("{}/bundle", document_path(name));
    let answer = source.ask(Method::GET, &path, Bytes::new()).await?;
    match answer.status {
        StatusCode::NOT_FOUND => Ok(None),
        _ => answer.good().map(Some),
    }
}

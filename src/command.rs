//! The commands for documents: what they are asked for goes to a server, or to a folder as if it had one, and what they
//! find goes to the terminal or into a file.

mod archive;
mod backup;
mod progress;
mod restore;
mod show;
mod source;

use std::process::ExitCode;

use quire::config::Errand;

use self::source::Source;

/// What has come of a command.
enum Outcome {
    Done,
    /// It has come to its end, and has told what did not succeed.
    Partly,
}

/// Runs an errand: 0 where all of it succeeded, 1 where something did not.
pub(crate) fn run(errand: Errand) -> ExitCode {
    match run_on_threads(errand) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Partly) => ExitCode::FAILURE,
        // Whoever reads has enough, as with `| head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_on_threads(errand: Errand) -> anyhow::Result<Outcome> {
    let runtime = quire::start_runtime()?;
    let source = Source::open(errand.source(), matches!(errand, Errand::Restore(_)))?;
    // On one of the threads, whose stacks are large enough for documents.
    let ended = runtime.spawn(async move {
        let outcome = match &errand {
            Errand::List(list) => show::list(&source, list).await,
            Errand::Versions(versions) => show::versions(&source, versions).await,
            Errand::Export(export) => show::export(&source, export).await,
            Errand::Backup(backup) => backup::run(&source, backup).await,
            Errand::Restore(restore) => restore::run(&source, restore).await,
        };
        source.close().await?;
        outcome
    });
    runtime.block_on(ended)?
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

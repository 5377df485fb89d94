//! What the commands for documents are told: whose documents, which of them, and what is to be done.

use std::{env, path::PathBuf};

use clap::{Args, Subcommand, builder::PossibleValuesParser};

use super::Secret;
use crate::document::export::Format;

/// The variables of a [`Source`], which flags come before.
pub(super) const VARIABLES: [&str; 2] = ["QUIRE_SERVER", "QUIRE_TOKEN"];

/// Whose documents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Whose documents")]
pub struct Source {
    /// Address of a running server (http://127.0.0.1:8080), which may need the token in QUIRE_TOKEN [env: QUIRE_SERVER]
    #[arg(long, value_name = "URL", conflicts_with = "data", value_parser = address)]
    pub server: Option<String>,
    /// File with the token for the server, in place of QUIRE_TOKEN
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub token_file: Option<PathBuf>,
    /// Folder of documents on which no server is running; ./data where nothing is said [env: QUIRE_DATA]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// The token itself, from the variable `QUIRE_TOKEN`.
    #[arg(skip)]
    pub token: Option<Secret>,
}

/// What is to be done with documents.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Errand {
    /// Print the names of documents, their sizes and when they were changed
    List(List),
    /// Print the versions of a document
    Versions(Versions),
    /// Write a document in a format of your choice
    Export(Export),
    /// Write all documents, with their histories, to one file
    Backup(Backup),
    /// Put the documents of a backup back
    Restore(Restore),
}

/// Which documents are listed.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct List {
    /// How their names begin
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub prefix: String,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Whose documents.
    #[command(flatten)]
    pub source: Source,
}

/// Whose versions are listed.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Versions {
    /// The document
    #[arg(value_name = "NAME")]
    pub document: String,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Whose documents.
    #[command(flatten)]
    pub source: Source,
}

/// What is exported, and how.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Export {
    /// The document
    #[arg(value_name = "NAME")]
    pub document: String,
    /// The format
    #[arg(long, default_value = "update", value_parser = PossibleValuesParser::new(Format::NAMES.map(|(name, _)| name)))]
    pub format: String,
    /// What a root type is where its content does not tell (content:text); may be repeated
    #[arg(long, value_name = "NAME:KIND")]
    pub root: Vec<String>,
    /// The id of a version, in place of the document as it is now
    #[arg(long, value_name = "ID")]
    pub version: Option<String>,
    /// Where to write it; - is the standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Whose documents.
    #[command(flatten)]
    pub source: Source,
}

/// Where a backup goes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Backup {
    /// The file, which must not be there yet (documents.tar.zst); - is the standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Whose documents.
    #[command(flatten)]
    pub source: Source,
}

/// What of a backup is put back.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Restore {
    /// The file; - is the standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Only documents whose names begin so
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub prefix: String,
    /// Put documents in the place of those that are there already, or were deleted; what is replaced cannot be taken back
    #[arg(long)]
    pub replace: bool,
    /// Whose documents.
    #[command(flatten)]
    pub source: Source,
}

impl Errand {
    /// Whose documents it is about.
    pub fn source(&self) -> &Source {
        match self {
            Self::List(list) => &list.source,
            Self::Versions(versions) => &versions.source,
            Self::Export(export) => &export.source,
            Self::Backup(backup) => &backup.source,
            Self::Restore(restore) => &restore.source,
        }
    }

    pub(super) fn source_mut(&mut self) -> &mut Source {
        match self {
            Self::List(list) => &mut list.source,
            Self::Versions(versions) => &mut versions.source,
            Self::Export(export) => &mut export.source,
            Self::Backup(backup) => &mut backup.source,
            Self::Restore(restore) => &mut restore.source,
        }
    }
}

impl Source {
    /// Adds what variables say where no flag does: a server that is named comes before a folder.
    pub(super) fn read_variables(&mut self) -> Result<(), String> {
        self.token = env::var("QUIRE_TOKEN").ok().map(Secret::new);
        if self.server.is_none() && self.data.is_none() {
            match env::var("QUIRE_SERVER") {
                Ok(server) => {
                    self.server = Some(address(&server).map_err(|reason| format!("QUIRE_SERVER: {reason}"))?);
                }
                Err(_) => self.data = env::var_os("QUIRE_DATA").map(PathBuf::from),
            }
        }
        match (&self.server, &self.token_file) {
            (None, Some(_)) => Err("--token-file is for a server: name it with --server".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The address of a server, without a slash at its end.
fn address(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).ok();
    match url.filter(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none()) {
        Some(url) => Ok(url.as_str().trim_end_matches('/').to_owned()),
        None => Err("the address of a server is needed, such as http://127.0.0.1:8080".to_owned()),
    }
}

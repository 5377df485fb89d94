//! What somebody may do with a document.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What somebody may do with a document; each level includes the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// See the document, and be seen in it.
    Read,
    /// Change it.
    Write,
    /// Do with it what an administrator does: end sessions, look at its raw bytes.
    Admin,
}

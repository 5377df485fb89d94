//! How much is kept of what documents were: when there is a version, and how much all of them may take.

use std::time::Duration;

use clap::Args;

use super::values::{bytes, seconds};

/// How documents' histories are kept.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct History {
    /// Keep no history: no versions, and nothing of who wrote what
    #[arg(id = "no-history", long = "no-history", env = "QUIRE_NO_HISTORY")]
    pub off: bool,
    /// How long nobody may have edited a document until there is a new version of it
    #[arg(id = "version-pause", long = "version-pause", env = "QUIRE_VERSION_PAUSE", value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub pause: Duration,
    /// How much time lies between two versions at least, beside those with a name
    #[arg(id = "version-every", long = "version-every", env = "QUIRE_VERSION_EVERY", value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub every: Duration,
    /// How much a document's history may take in the store; then its older half becomes one version
    #[arg(id = "max-history", long = "max-history", env = "QUIRE_MAX_HISTORY", value_name = "BYTES", default_value = "64MiB", value_parser = bytes)]
    pub bytes: usize,
    /// Who only looks at what is stored leaves it as it is, so that a document at rest gets neither a snapshot nor a
    /// version.
    #[arg(skip)]
    pub only_looks: bool,
}

impl Default for History {
    fn default() -> Self {
        Self {
            off: false,
            pause: Duration::from_secs(120),
            every: Duration::from_secs(600),
            bytes: 64 << 20,
            only_looks: false,
        }
    }
}

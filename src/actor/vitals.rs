//! What can be seen of an open document without asking its actor: whoever looks at all of them must neither wake each
//! nor wait for the busy ones.

use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;

use crate::saver::now;

/// Over how many seconds edits are told as lately.
const LATELY_SECONDS: f64 = 60.0;

/// The figures of an open document, which its actor keeps.
#[derive(Debug, Default)]
pub(super) struct Vitals(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    figures: Figures,
    /// Edits, of which those of long ago count less and less.
    lately: f64,
    /// When that was so.
    at: Option<Instant>,
}

/// The figures of an open document.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Figures {
    /// About how many bytes it has, as an update.
    pub bytes: usize,
    /// Its sessions on this node.
    pub sessions: usize,
    /// Edits since it was opened, those from other nodes too.
    pub edits: u64,
    /// About how many of them came within the last minute.
    pub lately: f64,
    /// When the last one came, in milliseconds since 1970.
    pub changed: Option<u64>,
    /// Whether something in it is not saved yet.
    pub unsaved: bool,
}

impl Vitals {
    /// Edits have come.
    pub(super) fn edited(&self, edits: usize) {
        let kept = &mut *self.lock();
        let at = Instant::now();
        kept.lately = kept.fading(at) + edits as f64;
        kept.at = Some(at);
        kept.figures.edits += edits as u64;
        kept.figures.changed = Some(now());
    }

    /// This is how large the document is now, how many are in it, and whether something is not saved.
    pub(super) fn note(&self, bytes: usize, sessions: usize, unsaved: bool) {
        let figures = &mut self.lock().figures;
        (figures.bytes, figures.sessions, figures.unsaved) = (bytes, sessions, unsaved);
    }

    /// The figures as they are now.
    pub(super) fn figures(&self) -> Figures {
        let kept = self.lock();
        Figures { lately: kept.fading(Instant::now()), ..kept.figures.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl Kept {
    /// What is left of the edits by then. A steady stream of them is told as what comes in a minute.
    fn fading(&self, by: Instant) -> f64 {
        let passed = self.at.map_or(0.0, |at| (by - at).as_secs_f64());
        self.lately * (-passed / LATELY_SECONDS).exp()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn edits_are_forgotten_as_activity_and_remembered_as_edits() {
        let vitals = Vitals::default();
        for _ in 0..600 {
            vitals.edited(1);
            advance(Duration::from_secs(1)).await;
        }
        let steady = vitals.figures();
        assert!((55.0..65.0).contains(&steady.lately), "{steady:?}");
        advance(Duration::from_secs(600)).await;
        let silent = vitals.figures();
        assert!(silent.lately < 0.1 && silent.edits == 600, "{silent:?}");
    }
}

//! How far a command has come: a bar on a terminal, else a line now and then. All of it goes to the standard error.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often there is a line where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows how many documents are done.
pub(super) struct Progress {
    bar: ProgressBar,
    /// When the last line was written; none at a terminal.
    told: Option<Instant>,
    doing: &'static str,
}

impl Progress {
    /// Begins; `all` is how many documents there are, where that is known.
    pub(super) fn begin(doing: &'static str, all: Option<u64>) -> Self {
        let told = (!stderr().is_terminal()).then(Instant::now);
        let bar = match (told, all) {
            (Some(_), all) => {
                let bar = ProgressBar::hidden();
                bar.set_length(all.unwrap_or_default());
                bar
            }
            (None, Some(all)) => {
                ProgressBar::new(all).with_style(style("{prefix} {wide_bar} {pos}/{len}, {eta} left"))
            }
            (None, None) => ProgressBar::new_spinner().with_style(style("{prefix} {spinner} {pos}")),
        };
        bar.set_prefix(doing);
        Self { bar, told, doing }
    }

    /// One more is done.
    pub(super) fn step(&mut self) {
        self.bar.inc(1);
        if let Some(told) = self.told.filter(|told| told.elapsed() >= LINE_EVERY) {
            self.told = Some(told + told.elapsed());
            let all = self.bar.length().filter(|all| *all > 0).map(|all| format!(" of {all}"));
            eprintln!("{}: {}{} documents", self.doing, self.bar.position(), all.unwrap_or_default());
        }
    }

    /// Says what has not succeeded with a document.
    pub(super) fn tell(&self, document: &str, problem: &str) {
        self.bar.suspend(|| eprintln!("{document:?}: {problem}"));
    }

    /// Leaves the terminal as it was.
    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is one")
}

//! How much of a document's time one session may take: edits that are made to be slow must not keep
//! everybody else waiting.

use std::time::Duration;

use tokio::time::Instant;

/// Processor time that a session may use at once: enough for the largest documents that people make.
const BURST: Duration = Duration::from_secs(2);
/// What a session may use in the long run, as one part in so many of the time that passes.
const SHARE: u32 = 2;

/// What one session has used lately.
#[derive(Debug)]
pub(super) struct Budget {
    used: Duration,
    at: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { used: Duration::ZERO, at: now }
    }

    /// Notes what a message took that was done at this time. Answers until when the session must rest, if it
    /// must.
    pub(super) fn spend(&mut self, took: Duration, now: Instant) -> Option<Instant> {
        let earned = now.saturating_duration_since(self.at) / SHARE;
        self.used = self.used.saturating_sub(earned) + took;
        self.at = now;
        let over = self.used.checked_sub(BURST).filter(|over| !over.is_zero())?;
        Some(now + over * SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_session_that_takes_little_never_rests() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for second in 1..1_000 {
            assert_eq!(budget.spend(400 * MILLISECOND, start + 1_000 * second * MILLISECOND), None);
        }
    }

    #[test]
    fn a_session_that_takes_everything_rests_half_of_the_time() {
        let start = Instant::now();
        let (mut budget, mut now, mut worked) = (Budget::new(start), start, Duration::ZERO);
        while now < start + Duration::from_secs(100) {
            now += 300 * MILLISECOND;
            worked += 300 * MILLISECOND;
            now = budget.spend(300 * MILLISECOND, now).unwrap_or(now);
        }
        assert!(worked > Duration::from_secs(50) && worked < Duration::from_secs(54), "{worked:?}");
    }
}

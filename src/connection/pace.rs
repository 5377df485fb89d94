//! How fast a client may send: who sends faster is not read for a while.

use std::time::Duration;

use tokio::time::Instant;

use crate::{config::Limits, end::End};

/// How many seconds' worth may come at once: a client that comes back brings all that it has written meanwhile.
const BURST: Duration = Duration::from_secs(10);
/// A client that leaves so much of its share unused has paused.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a client may go on without a pause while it is slowed.
const SLOWED_FOR: Duration = Duration::from_secs(60);

/// What one client has sent lately.
#[derive(Debug)]
pub(super) struct Pace {
    messages: Share,
    bytes: Share,
    slowed_since: Option<Instant>,
}

/// How much of one kind was sent, as the time in which so much may be sent.
#[derive(Debug)]
struct Share {
    per_second: usize,
    paid_until: Instant,
}

impl Pace {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let share = |per_second| Share { per_second, paid_until: now };
        Self {
            messages: share(limits.messages_per_second),
            bytes: share(limits.bytes_per_second),
            slowed_since: None,
        }
    }

    /// Notes a frame that came at this time. Answers until when the client must not be read, if it must not.
    pub(super) fn note(
        &mut self,
        messages: usize,
        bytes: usize,
        now: Instant,
    ) -> Result<Option<Instant>, End> {
        // One frame without a rest is no pause: a rest lasts a little longer than it should.
        if self.paid_until() + PAUSE <= now + BURST {
            self.slowed_since = None;
        }
        self.messages.spend(messages, now);
        self.bytes.spend(bytes, now);
        let paid_until = self.paid_until();
        if paid_until <= now + BURST {
            return Ok(None);
        }
        let since = *self.slowed_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= SLOWED_FOR {
            return Err(End::TooFast);
        }
        Ok(Some(paid_until - BURST))
    }

    fn paid_until(&self) -> Instant {
        self.messages.paid_until.max(self.bytes.paid_until)
    }
}

impl Share {
    fn spend(&mut self, amount: usize, now: Instant) {
        let takes = Duration::from_secs_f64(amount as f64 / self.per_second.max(1) as f64);
        self.paid_until = self.paid_until.max(now) + takes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn pace(messages_per_second: usize, bytes_per_second: usize, now: Instant) -> Pace {
        Pace::new(&Limits { messages_per_second, bytes_per_second, ..Default::default() }, now)
    }

    #[test]
    fn who_keeps_within_the_limits_is_never_slowed() {
        let start = Instant::now();
        let mut pace = pace(100, 10_000, start);
        for number in 0..100_000 {
            assert_eq!(pace.note(1, 100, start + 10 * number * MILLISECOND), Ok(None));
        }
    }

    #[test]
    fn a_burst_is_ten_times_as_much() {
        let start = Instant::now();
        let mut messages = pace(100, usize::MAX, start);
        assert!((0..1_000).all(|_| messages.note(1, 1 << 20, start) == Ok(None)));
        assert_eq!(messages.note(1, 0, start), Ok(Some(start + 10 * MILLISECOND)));
        // Ten seconds later all of it may come again.
        let later = start + 11 * SECOND;
        assert!((0..1_000).all(|_| messages.note(1, 1 << 20, later) == Ok(None)));
        assert!(matches!(messages.note(1, 0, later), Ok(Some(_))));

        let mut bytes = pace(usize::MAX, 1_000, start);
        assert_eq!(bytes.note(16, 10_000, start), Ok(None));
        assert_eq!(bytes.note(16, 5_000, start), Ok(Some(start + 5 * SECOND)));
    }

    /// A client that sends as fast as it is read: how many messages in how long, and how it ends.
    fn flood(pace: &mut Pace, start: Instant, overshoot: Duration) -> (u32, Duration, End) {
        let (mut now, mut sent) = (start, 0);
        loop {
            match pace.note(1, 0, now) {
                Ok(rest) => now = rest.map_or(now, |until| until.max(now) + overshoot),
                Err(end) => return (sent, now - start, end),
            }
            sent += 1;
        }
    }

    #[test]
    fn who_never_pauses_is_sent_away_and_until_then_is_served_at_the_limit() {
        for overshoot in [Duration::ZERO, 7 * MILLISECOND, 300 * MILLISECOND] {
            let start = Instant::now();
            let (sent, took, end) = flood(&mut pace(1_000, usize::MAX, start), start, overshoot);
            assert_eq!(end, End::TooFast);
            assert!(took >= SLOWED_FOR && took < SLOWED_FOR + SECOND, "{took:?}");
            assert!((69_000..=71_500).contains(&sent), "{sent} messages with {overshoot:?}");
        }
    }

    #[test]
    fn who_pauses_may_stay() {
        let start = Instant::now();
        let mut pace = pace(1_000, usize::MAX, start);
        let mut now = start;
        for _ in 0..100 {
            // Twice what may come at once, as fast as it is taken, and then nothing for two seconds.
            for _ in 0..20_000 {
                now = pace.note(1, 0, now).unwrap().unwrap_or(now);
            }
            now += 2 * SECOND;
        }
    }

    #[test]
    fn no_limit_is_no_limit() {
        let start = Instant::now();
        let mut pace = pace(usize::MAX, usize::MAX, start);
        assert!((0..1_000_000).all(|_| pace.note(16, 1 << 30, start) == Ok(None)));
    }
}

//! How a node empties before it stops: its connections end one after the other, so that their clients do not all come
//! back, to this node or to the others, in the same second.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The time between two connections that end, where there is enough: a hundred clients a second are no burden to anybody,
/// and a node with few of them stops at once.
const BETWEEN: Duration = Duration::from_millis(10);

/// Whether a node empties, and which connection's turn it is.
#[derive(Default)]
pub struct Drain {
    begun: CancellationToken,
    pace: OnceLock<Pace>,
    /// How many connections have a time at which they end.
    turns: AtomicU32,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    start: Instant,
    between: Duration,
}

impl Drain {
    /// Begins, for so many connections, and answers when the last of them has its turn: after this time at most. Once
    /// begun, it goes on as it was.
    pub fn begin(&self, connections: usize, within: Duration) -> Instant {
        let connections = u32::try_from(connections).unwrap_or(u32::MAX).max(1);
        let pace = self
            .pace
            .get_or_init(|| Pace { start: Instant::now(), between: BETWEEN.min(within / connections) });
        self.begun.cancel();
        pace.start + pace.between * connections
    }

    /// Whether it has begun: then nobody new comes in.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits until it has begun and it is the turn of whoever waits.
    pub async fn turn(&self) {
        self.begun.cancelled().await;
        let pace = self.pace.get().expect("it was set before the token was cancelled");
        let before = self.turns.fetch_add(1, Ordering::Relaxed);
        sleep_until(pace.start + pace.between * before).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    /// When each of so many connections has its turn, in order.
    async fn turns(connections: usize, within: Duration) -> Vec<Duration> {
        let (drain, start) = (Drain::default(), Instant::now());
        let waiting = join_all((0..connections).map(|_| async {
            drain.turn().await;
            start.elapsed()
        }));
        let last = drain.begin(connections, within);
        let mut turns = waiting.await;
        turns.sort_unstable();
        assert!(*turns.last().unwrap() <= last - start && last - start <= within);
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn many_are_spread_over_the_whole_time() {
        let second = Duration::from_secs(1);
        let turns = turns(5_000, 10 * second).await;
        for n in 0..10 {
            let in_second =
                turns.iter().filter(|turn| (n * second..(n + 1) * second).contains(*turn)).count();
            assert!((490..=510).contains(&in_second), "{in_second} in second {n}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn few_need_not_wait() {
        let turns = turns(20, Duration::from_secs(10)).await;
        assert!(*turns.last().unwrap() < Duration::from_millis(250), "{turns:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_time_is_at_once() {
        assert!(turns(1_000, Duration::ZERO).await.iter().all(|turn| turn.is_zero()));
    }
}

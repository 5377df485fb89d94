//! A timer for a task that waits again and again, each time a little longer: it stays where it is, and looks again when it
//! rings too early. To move it each time would cost more than what is waited for.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Poll, ready},
};

use tokio::time::{Instant, Sleep};

/// Waits for something, until then at most.
pub(super) async fn by<T>(
    mut alarm: Pin<&mut Sleep>,
    until: Instant,
    something: impl Future<Output = T>,
) -> Option<T> {
    let mut something = pin!(something);
    poll_fn(move |context| {
        if let Poll::Ready(came) = something.as_mut().poll(context) {
            return Poll::Ready(Some(came));
        }
        if alarm.deadline() > until {
            alarm.as_mut().reset(until);
        }
        loop {
            ready!(alarm.as_mut().poll(context));
            if alarm.deadline() == until {
                return Poll::Ready(None);
            }
            alarm.as_mut().reset(until);
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::time::{sleep, sleep_until};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_when_it_must_whether_it_was_set_later_or_earlier() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut alarm = pin!(sleep_until(at(20)));
        for (until, now) in [(5, 5), (40, 40), (30, 40), (41, 41), (100, 100)] {
            assert_eq!(by(alarm.as_mut(), at(until), pending::<()>()).await, None);
            assert_eq!(start.elapsed().as_secs(), now, "until {until}");
        }
        assert_eq!(by(alarm.as_mut(), at(200), sleep(Duration::from_secs(3))).await, Some(()));
        assert_eq!(start.elapsed().as_secs(), 103);
        assert_eq!(by(alarm.as_mut(), at(110), pending::<()>()).await, None);
        assert_eq!(start.elapsed().as_secs(), 110);
    }
}

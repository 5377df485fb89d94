//! Work that takes long and much memory, such as looking into a history: a few requests at a time, and on the server's own
//! threads. Their stacks are large enough for yrs; those of a program that embeds the server may not be. What has begun is
//! finished, also where nobody waits for it any more, so that it is counted as long as it takes.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

use super::error::Problem;

/// How many requests are worked on at a time; others wait. Each may hold a document several times, and takes a thread
/// that the opening of documents needs, too.
const AT_ONCE: usize = 4;

/// Where this work is done.
pub(crate) struct HeavyWork {
    runtime: Handle,
    places: Arc<Semaphore>,
}

impl HeavyWork {
    /// Work on the threads of this runtime.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { runtime, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Does work when its turn has come. It gives its place up when the answer is made.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = self.places.clone().acquire_owned().await.expect("it is never closed");
        let done = self.runtime.spawn(async move {
            let _place = place;
            work.await
        });
        done.await.unwrap_or_else(|failed| Err(broken(failed)))
    }
}

/// Does a part of such work that waits for nothing, without keeping other tasks from their thread.
pub(super) async fn beside_others<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    spawn_blocking(work).await.unwrap_or_else(|failed| Err(broken(failed)))
}

fn broken(failed: JoinError) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, failed)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use futures_util::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::start_runtime;

    /// Those of a program that embeds the server have another name, and smaller stacks.
    #[tokio::test]
    async fn it_is_done_on_the_servers_own_threads() {
        let runtime = start_runtime().unwrap();
        let here = || std::thread::current().name().map(str::to_owned);
        let work = async move { Ok((here(), beside_others(move || Ok(here())).await?)) };
        let done = HeavyWork::new(runtime.handle().clone()).run(work).await;
        assert_eq!(done.unwrap(), (Some("quire".to_owned()), Some("quire".to_owned())));
        runtime.shutdown_background();
    }

    #[tokio::test(start_paused = true)]
    async fn few_are_worked_on_at_a_time_also_where_nobody_waits_any_more() {
        let heavy_work = HeavyWork::new(Handle::current());
        let (busy, most, done) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let all = (0..40).map(|number| {
            let (busy, most, done) = (busy.clone(), most.clone(), done.clone());
            let work = async move {
                most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(Duration::from_secs(1)).await;
                busy.fetch_sub(1, Ordering::SeqCst);
                done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            };
            let answer = heavy_work.run(work);
            async move {
                match number % 2 {
                    0 => assert!(timeout(Duration::from_millis(500), answer).await.is_err()),
                    _ => answer.await.unwrap(),
                }
            }
        });
        join_all(all).await;
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
        // The twenty that were waited for, and two that had begun.
        assert_eq!(done.load(Ordering::SeqCst), 22);
    }
}

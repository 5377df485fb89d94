//! A link to Redis, and what it heard.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use quire::{
    backend::{
        BackendError,
        redis::{
            link::Link,
            store::{Append, Event, Keys, Store},
        },
    },
    name::DocumentName,
};
use tokio::time::sleep;

/// How long anything may take that usually takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A link, and what it heard.
pub struct Node {
    pub link: Link,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Node {
    pub async fn on(url: &str) -> Self {
        let link = Link::connect(url).await.unwrap();
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let heard = events.clone();
        link.listen(Arc::new(move |event| heard.lock().unwrap().push(event)));
        Self { link, events }
    }

    /// Appends an envelope that is its own message.
    pub async fn append(&self, keys: &Keys, epoch: u64, envelope: &str) -> Result<Append, BackendError> {
        let envelope = Bytes::from(envelope.to_owned());
        self.link.append(keys, epoch, envelope.clone(), envelope).await
    }

    pub async fn publish(&self, keys: &Keys, message: &str) -> Result<u64, BackendError> {
        self.link.publish(&keys.channel(), Bytes::from(message.to_owned())).await
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// What it heard on a document's channel.
    pub fn messages(&self, keys: &Keys) -> Vec<String> {
        let text = |event| match event {
            Event::Message { channel, payload } if channel == keys.channel() => {
                Some(String::from_utf8(payload.into()).unwrap())
            }
            _ => None,
        };
        self.events().into_iter().filter_map(text).collect()
    }

    /// How often it heard that it may have missed something on a document's channel.
    pub fn missed(&self, keys: &Keys) -> usize {
        let missed = Event::Missed { channel: keys.channel().into() };
        self.events().iter().filter(|event| **event == missed).count()
    }

    pub fn missed_all(&self) -> usize {
        self.events().iter().filter(|event| **event == Event::MissedAll).count()
    }

    /// Waits until a message that it sends itself is heard.
    pub async fn hears(&self, keys: &Keys, message: &str, limit: Duration) -> Duration {
        let begin = Instant::now();
        loop {
            let _ = self.publish(keys, message).await;
            sleep(Duration::from_millis(20)).await;
            if self.messages(keys).iter().any(|heard| heard == message) {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < limit, "{message:?} is not heard after {:?}", begin.elapsed());
        }
    }

    /// Waits until an append is done.
    pub async fn writes(&self, keys: &Keys, limit: Duration) -> Duration {
        let begin = Instant::now();
        loop {
            let call = Instant::now();
            let answer = self.append(keys, 1, "x").await;
            assert!(call.elapsed() < Duration::from_secs(2), "a call took {:?}", call.elapsed());
            if let Ok(Append::Done { .. } | Append::NoLog) = answer {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < limit, "{answer:?} after {:?}", begin.elapsed());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

pub fn keys(name: &str) -> Keys {
    Keys::new(&DocumentName::new(name).unwrap())
}

/// Bytes of every kind.
pub fn noise(bytes: u32) -> Bytes {
    (0..bytes).map(|at| (at.wrapping_mul(at) >> 5) as u8).collect()
}

/// Waits until something holds.
pub async fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
    begin.elapsed()
}

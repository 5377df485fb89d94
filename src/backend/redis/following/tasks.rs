//! What is done for all documents that are followed, in the background.

use std::{sync::Weak, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use super::{
    super::{
        super::{Incoming, Position},
        envelope::{Envelope, Stamp, Words},
        nodes::Renewed,
        store::Event,
    },
    Follower, Following, read_log, said,
};

/// Messages that are told at the same time.
const TELLERS: usize = 64;
/// In what time every log is looked at that nothing was heard of.
const SCRUB: Duration = Duration::from_secs(300);
/// How often a node's lease is renewed.
const RENEW: Duration = Duration::from_secs(2);

pub(super) async fn tell(following: Weak<Following>, messages: mpsc::Receiver<(String, Bytes)>) {
    let telling = ReceiverStream::new(messages).map(|(channel, message)| {
        let following = following.clone();
        async move {
            let Some(following) = following.upgrade() else { return };
            let heard = following.store.publish(&channel, message).await;
            let follower = following.followers().get(channel.as_bytes()).cloned();
            if let (Ok(heard), Some(follower)) = (heard, follower) {
                // One of them is this node.
                follower.told().alone = heard <= 1;
            }
        }
    });
    telling.buffered(TELLERS).for_each(|()| std::future::ready(())).await;
}

pub(super) async fn probe(
    following: Weak<Following>,
    mut probes: mpsc::Receiver<(Instant, Weak<Follower>, Position)>,
) {
    while let Some((at, follower, position)) = probes.recv().await {
        sleep_until(at).await;
        let (Some(following), Some(follower)) = (following.upgrade(), follower.upgrade()) else { continue };
        let told = follower.told();
        if told.appended == position && !told.alone {
            let stamp = Stamp { run: following.run, number: 0 };
            let message = said(&Envelope { stamp, words: Words::Head(position) });
            // An error: more waits than may.
            let _ = following.told.try_send((follower.keys.channel(), message));
        }
    }
}

pub(super) async fn scrub(following: Weak<Following>) {
    loop {
        let Some(followers) =
            following.upgrade().map(|known| known.followers().values().cloned().collect::<Vec<_>>())
        else {
            return;
        };
        let pause = SCRUB / followers.len().max(1) as u32;
        if followers.is_empty() {
            sleep(pause).await;
        }
        for follower in followers {
            sleep(pause).await;
            read_log(following.clone(), follower).await;
        }
    }
}

pub(super) async fn renew(following: Weak<Following>) {
    let mut ticks = interval(RENEW);
    loop {
        ticks.tick().await;
        let Some(following) = following.upgrade() else { return };
        let incarnation = following.nodes().incarnation();
        let Ok(leases) = following.store.lease(incarnation).await else { continue };
        let Renewed { gone, late, forgotten } = following.nodes().renewed(&leases);
        if forgotten {
            warn!("Redis has forgotten a lease; every log is looked at");
            following.hear(Event::MissedAll);
        }
        if gone.is_empty() && !late {
            continue;
        }
        info!(gone = ?gone, late, "nodes have come or gone");
        let followers: Vec<_> = following.followers().values().cloned().collect();
        for follower in followers {
            let gone = gone.iter().map(|node| Incoming::NodeLeft(*node));
            for incoming in gone.chain(late.then_some(Incoming::Missed)) {
                // An error: it is followed no longer.
                let _ = follower.incoming.send(incoming).await;
            }
        }
    }
}

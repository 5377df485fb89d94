//! The channels that are to be heard, which outlive every connection. One task asks Redis for what has changed, in
//! batches and one after the other, so that a channel that is left and heard again at once ends as it was wanted.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{Notify, oneshot};

/// Channels that are asked for with one command. More would keep Redis from others for longer.
const BATCH: usize = 500;

/// The channels and how far they are heard.
#[derive(Default)]
pub(super) struct Channels {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    channels: HashMap<Arc<str>, Heard>,
    /// Those that Redis must be asked about.
    changed: Vec<Arc<str>>,
    /// Those that Redis took away before they were confirmed.
    lost: HashSet<Arc<str>>,
    /// Who waits until a channel is heard.
    waiting: HashMap<Arc<str>, Vec<oneshot::Sender<()>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Wanted, but Redis has not confirmed it yet.
    NotYet,
    /// The same, and messages were missed until then.
    Again,
    /// Wanted and confirmed.
    Yes,
    /// No longer wanted, but Redis does not know it yet.
    Leaving,
}

/// What Redis is to be asked for at once.
pub(super) struct Batch {
    /// Channels to hear.
    pub(super) these: Vec<Arc<str>>,
    /// Channels to hear no longer.
    pub(super) not_those: Vec<Arc<str>>,
}

/// A channel on its way from one keeper to another.
pub(super) struct Taken {
    /// Which one.
    pub(super) name: Arc<str>,
    heard: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Channels {
    /// Wants a channel. The receiver hears when it is heard; it is none where it is heard already.
    pub(super) fn want(&self, channel: &str) -> Option<oneshot::Receiver<()>> {
        let mut state = self.lock();
        let (channel, heard) = match state.channels.get_key_value(channel) {
            Some((_, Heard::Yes)) => return None,
            Some((known, heard)) => (known.clone(), Some(*heard)),
            None => (channel.into(), None),
        };
        if let None | Some(Heard::Leaving) = heard {
            state.channels.insert(channel.clone(), Heard::NotYet);
            state.changed.push(channel.clone());
        }
        let (heard, hears) = oneshot::channel();
        let waiting = state.waiting.entry(channel).or_default();
        // Those who gave up need no place any more.
        waiting.retain(|waiting| !waiting.is_closed());
        waiting.push(heard);
        self.changed.notify_one();
        Some(hears)
    }

    /// Wants a channel no longer.
    pub(super) fn leave(&self, channel: &str) {
        let mut state = self.lock();
        let Some((channel, heard)) = state.channels.get_key_value(channel) else { return };
        if *heard == Heard::Leaving {
            return;
        }
        let channel = channel.clone();
        state.waiting.remove(&channel);
        state.channels.insert(channel.clone(), Heard::Leaving);
        state.changed.push(channel);
        self.changed.notify_one();
    }

    /// A new connection hears nothing yet.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        let State { channels, changed, lost, .. } = &mut *state;
        lost.clear();
        channels.retain(|_, heard| *heard != Heard::Leaving);
        channels.values_mut().for_each(|heard| *heard = Heard::NotYet);
        *changed = channels.keys().cloned().collect();
    }

    /// Waits until there is something to ask for.
    pub(super) async fn changed(&self) {
        while self.lock().changed.is_empty() {
            self.changed.notified().await;
        }
    }

    /// What to ask for next; `None` where all is as it is wanted.
    pub(super) fn next(&self) -> Option<Batch> {
        let mut state = self.lock();
        let (mut these, mut not_those) = (Vec::new(), Vec::new());
        while these.len() + not_those.len() < BATCH {
            let Some(channel) = state.changed.pop() else { break };
            match state.channels.get(&channel) {
                Some(Heard::NotYet | Heard::Again) => these.push(channel),
                Some(Heard::Leaving) => not_those.push(channel),
                Some(Heard::Yes) | None => {}
            }
        }
        let nothing = these.is_empty() && not_those.is_empty();
        (!nothing).then_some(Batch { these, not_those })
    }

    /// Redis has done what it was asked for, but for these, which another one has. Answers with the channels that
    /// are heard again and were not for a while.
    pub(super) fn confirm(&self, batch: Batch, elsewhere: &[Arc<str>]) -> Vec<Arc<str>> {
        let mut state = self.lock();
        let state = &mut *state;
        let mut missed = Vec::new();
        for channel in batch.these {
            if !elsewhere.is_empty() && elsewhere.contains(&channel) {
                continue;
            }
            if let Some(heard @ (Heard::NotYet | Heard::Again)) = state.channels.get_mut(&channel) {
                if state.lost.remove(&channel) {
                    *heard = Heard::Again;
                    state.changed.push(channel);
                    continue;
                }
                if *heard == Heard::Again {
                    missed.push(channel.clone());
                }
                *heard = Heard::Yes;
                for waiting in state.waiting.remove(&channel).into_iter().flatten() {
                    // Who waited may have given up.
                    let _ = waiting.send(());
                }
            }
        }
        for channel in batch.not_those {
            if state.channels.get(&channel) == Some(&Heard::Leaving) {
                state.channels.remove(&channel);
            }
        }
        missed
    }

    /// These must be asked for once more.
    pub(super) fn ask_again(&self, channels: Vec<Arc<str>>) {
        self.lock().changed.extend(channels);
        self.changed.notify_one();
    }

    /// Redis has stopped to send a channel. Answers whether that was not asked for.
    pub(super) fn unheard(&self, channel: &str) -> bool {
        let mut state = self.lock();
        let Some((channel, heard)) = state.channels.get_key_value(channel) else { return false };
        let (channel, heard) = (channel.clone(), *heard);
        match heard {
            Heard::Leaving => return false,
            Heard::NotYet | Heard::Again => drop(state.lost.insert(channel)),
            Heard::Yes => {
                state.channels.insert(channel.clone(), Heard::Again);
                state.changed.push(channel);
                self.changed.notify_one();
            }
        }
        true
    }

    /// All that are wanted.
    pub(super) fn wanted(&self) -> Vec<Arc<str>> {
        let state = self.lock();
        let wanted = state.channels.iter().filter(|(_, heard)| **heard != Heard::Leaving);
        wanted.map(|(channel, _)| channel.clone()).collect()
    }

    /// Takes channels out, for another keeper.
    pub(super) fn take(&self, is_taken: impl Fn(&str) -> bool) -> Vec<Taken> {
        let mut state = self.lock();
        let State { channels, waiting, .. } = &mut *state;
        let taken = channels.extract_if(|channel, _| is_taken(channel));
        let taken = taken.filter(|(_, heard)| *heard != Heard::Leaving);
        let wanted = |(name, heard)| {
            let waiting = waiting.remove(&name).unwrap_or_default();
            Taken { name, heard: heard != Heard::NotYet, waiting }
        };
        taken.map(wanted).collect()
    }

    /// Puts in a channel that another keeper had.
    pub(super) fn put(&self, Taken { name, heard, waiting }: Taken) {
        let mut state = self.lock();
        state.channels.insert(name.clone(), if heard { Heard::Again } else { Heard::NotYet });
        if !waiting.is_empty() {
            state.waiting.entry(name.clone()).or_default().extend(waiting);
        }
        state.changed.push(name);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the channels are locked")
    }
}

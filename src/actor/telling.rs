//! What goes out: replies to sessions, news to everybody, and what waits until it is saved.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use tracing::debug;

use super::{
    Actor,
    batch::{Batch, Told, edits, merge, presence},
    member::Member,
    relay::is_relayed,
};
use crate::{
    document::{News, UpdateError},
    outbox::Missed,
    presence::{Presence, SessionId, State},
    protocol::{self, Carries, Outgoing, relay::Relayed},
    state_vector::StateVector,
};

impl Actor {
    pub(super) fn step_2(&mut self, since: StateVector) -> Result<Arc<Outgoing>, UpdateError> {
        if let Some((known, step_2)) = &self.last_step_2
            && *known == since
        {
            return Ok(step_2.clone());
        }
        let diff = self.document.diff(&since)?;
        Ok(self.note_step_2(since, &diff))
    }

    /// Notes all of the document as one update, for who has nothing of it.
    pub(super) fn note_whole(&mut self, whole: &Bytes) {
        self.note_step_2(StateVector::default(), whole);
    }

    fn note_step_2(&mut self, since: StateVector, diff: &Bytes) -> Arc<Outgoing> {
        let known = self.document.state_vector();
        let lacks = known.iter().map(|(client, clock)| (client, since.get(client).min(clock)));
        let carries = Carries::Edits(lacks.collect());
        let step_2 = Arc::new(Outgoing { frame: protocol::sync_step_2(diff), carries });
        self.last_step_2 = Some((since, step_2.clone()));
        step_2
    }

    /// Brings a session up to date that has missed something.
    pub(super) fn catch_up(&mut self, session: SessionId, batch: &mut Batch) -> Result<(), UpdateError> {
        let Some(member) = self.members.get(&session) else { return Ok(()) };
        let Some(Missed { edits, presence: missed }) = member.outbox.0.take_missed() else { return Ok(()) };
        if !missed.is_empty() {
            let newest = missed.iter().map(|(&client, &clock)| self.presence.newest(client, clock));
            member.outbox.0.push(&Arc::new(presence(&newest.collect::<Vec<_>>())));
        }
        if let Some(missing) = edits {
            self.around.metrics.resyncs.inc();
            debug!(session = session.0, clients = missing.len(), "a slow session is brought up to date");
            let frame = protocol::sync_step_2(&self.document.diff_from(&missing)?);
            let carries = Carries::Edits(missing.into_iter().collect());
            self.reply(session, Arc::new(Outgoing { frame, carries }), batch);
        }
        Ok(())
    }

    /// Answers a session with content of the document: now, or where the session takes content for "saved",
    /// when all of it is.
    pub(super) fn reply(&self, session: SessionId, reply: Arc<Outgoing>, batch: &mut Batch) {
        match self.members.get(&session) {
            Some(member) if member.echoes() => batch.held.push((session, reply)),
            Some(member) => member.outbox.0.push(&reply),
            None => {}
        }
    }

    /// Tells everybody what a batch brought: the sessions, and the backend, which tells the other nodes.
    pub(super) fn tell_others(&mut self, mut batch: Batch) {
        if !batch.news.is_empty() {
            self.vitals.edited(batch.news.len());
            let senders: HashSet<SessionId> = batch.news.iter().map(|told| told.from).collect();
            let all = merge(batch.news.iter());
            let frames: Vec<_> = all.iter().map(|news| Arc::new(edits(news))).collect();
            let (mut deliveries, mut fullest) = (0, 0);
            let mut deliver = |member: &mut Member, frames: &[Arc<Outgoing>]| {
                deliveries += frames.len() as u64;
                fullest = frames.iter().map(|frame| member.tell(frame)).fold(fullest, usize::max);
            };
            for (session, member) in &mut self.members {
                if member.echoes() {
                    // What it has made, or has already, it would take for "saved".
                    // What came from the log is saved.
                    let (held, now): (Vec<_>, Vec<_>) = batch.news.iter().partition(|told| {
                        !is_relayed(told.from)
                            && (member.waits_for(told)
                                || may_be_its_own_deletion(&self.presence, told, *session))
                    });
                    let now = if held.is_empty() && !senders.contains(session) {
                        frames.clone()
                    } else {
                        let now = now.into_iter().filter(|told| told.from != *session);
                        merge(now).iter().map(|news| Arc::new(edits(news))).collect()
                    };
                    deliver(member, &now);
                    let held = held.into_iter().filter(|told| told.from != *session);
                    batch.held.extend(held.map(|told| (*session, Arc::new(edits(&told.news)))));
                } else if senders.len() > 1 || !senders.contains(session) {
                    // Among those of others its own edits do no harm.
                    deliver(member, &frames);
                }
            }
            self.around
                .metrics
                .edits
                .inc_by(batch.news.iter().filter(|told| !is_relayed(told.from)).count() as u64);
            self.around.metrics.deliveries.inc_by(deliveries);
            if let Some(since) = batch.since.filter(|_| deliveries > 0) {
                self.around.metrics.delivered(since.elapsed(), fullest);
            }
            self.note(&batch.news, all);
            batch.traced.step("save");
            self.saver.follow(batch.traced);
        }
        if !batch.held.is_empty() || !batch.counts.is_empty() || !batch.answers.is_empty() {
            let through = self.saver.noted();
            if !batch.answers.is_empty() && through > self.saver.saved() {
                self.saver.hurry();
            }
            self.saver.expect();
            self.answers.extend(batch.answers.into_iter().map(|answer| (through, answer)));
            for (session, count) in batch.counts {
                if let Some(member) = self.members.get_mut(&session) {
                    member.hold_count(through, count);
                }
            }
            for (session, outgoing) in batch.held {
                if let Some(member) = self.members.get_mut(&session) {
                    member.hold(through, outgoing);
                }
            }
            self.release_saved();
        }
        for answer in batch.versions {
            self.saver.keep_version(answer);
        }
        self.tell_presence(batch.presence);
        self.carry();
    }

    /// Has carried to the sessions what they were told: here, in one go, since to wake each of their tasks costs more than
    /// to write what they would.
    pub(super) fn carry(&mut self) {
        self.members.values_mut().for_each(Member::carry);
    }

    /// Has it saved: merged, as far as it is of the same user. `all` is all of it, merged.
    fn note(&mut self, news: &[Told], all: Vec<News>) {
        // What came from the log is there already.
        let own: Vec<&Told> = news.iter().filter(|told| !is_relayed(told.from)).collect();
        for (group, of_user) in own.chunk_by(|a, b| a.user == b.user).enumerate() {
            let is_all = group == 0 && of_user.len() == news.len();
            let merged = if is_all { all.clone() } else { merge(of_user.iter().copied()) };
            for News { update, adds } in merged {
                self.relay.edited();
                self.saver.note(update, &adds, of_user[0].user.clone());
            }
        }
    }

    /// Tells everybody the newest state of each client that something was said about.
    fn tell_presence(&mut self, said: Vec<(SessionId, Vec<State>)>) {
        let sources: HashSet<SessionId> =
            said.iter().filter(|(_, states)| !states.is_empty()).map(|(from, _)| *from).collect();
        if sources.is_empty() {
            return;
        }
        let own = said.iter().filter(|(from, _)| !is_relayed(*from)).flat_map(|(_, states)| states);
        self.relay.note_presence(own.cloned());
        let newest: BTreeMap<_, State> =
            said.into_iter().flat_map(|(_, states)| states).map(|state| (state.client, state)).collect();
        let frame = Arc::new(presence(&newest.into_values().collect::<Vec<_>>()));
        for (session, member) in &mut self.members {
            if sources.len() > 1 || !sources.contains(session) {
                member.tell(&frame);
            }
        }
    }

    /// Tells the sessions a text of an application, all but the one that it comes from.
    pub(super) fn tell_sessions(&mut self, from: SessionId, text: Bytes) {
        let text = Arc::new(Outgoing { frame: text, carries: Carries::Stateless });
        for (session, member) in &mut self.members {
            if *session != from {
                member.tell(&text);
            }
        }
    }

    /// Tells everybody a text of an application, on all nodes.
    pub(super) fn tell_stateless(&mut self, from: SessionId, text: Bytes) {
        self.tell_nodes([Relayed::Stateless(text.clone())]);
        self.tell_sessions(from, text);
    }

    /// Answers whoever waits for "saved", and gives the sessions that do what is saved by now.
    pub(super) fn release_saved(&mut self) {
        while let Some((_, answer)) = self.answers.pop_front_if(|(through, _)| *through <= self.saver.saved())
        {
            answer();
        }
        for member in self.members.values_mut() {
            member.release(self.saver.saved());
        }
    }
}

/// Whether a session may have made this deletion itself, over a connection that it had before: a deletion does not name
/// its maker.
fn may_be_its_own_deletion(presence: &Presence, told: &Told, session: SessionId) -> bool {
    let same_client = match (presence.own_client(told.from), presence.own_client(session)) {
        (Some(theirs), Some(its)) => theirs == its,
        _ => true,
    };
    told.news.adds.is_empty() && told.from < session && same_client
}

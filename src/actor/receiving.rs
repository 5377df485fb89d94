//! What comes in from sessions: each message is taken in, and what everybody must hear of it gathers in a batch.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::info;

use super::{
    Actor, MEASURE_SHARE, NOBODY, WriteError,
    batch::{Batch, edits, presence, question, read_only_notice},
    beside_others,
    handle::{Answering, Edit},
    member::TellSaved,
};
use crate::{
    document::{News, Received, UpdateError, contained},
    end::End,
    presence::SessionId,
    protocol::Message,
};

/// An update that says nothing: the answer of a client that has nothing to bring.
const EMPTY_UPDATE: &[u8] = &[0, 0];

impl Actor {
    pub(super) fn receive_message(
        &mut self,
        from: SessionId,
        message: Message,
        batch: &mut Batch,
    ) -> Result<(), UpdateError> {
        match message {
            Message::SyncStep1(since) => {
                if let Some(member) = self.members.get_mut(&from) {
                    member.has(&since);
                    // Who asks is asked back: what one side may lack, the other one may, too.
                    if std::mem::replace(&mut member.has_asked, true) {
                        member.asked = true;
                        member.outbox.0.push(&question(&self.document.state_vector()));
                    }
                }
                let reply = self.step_2(since)?;
                self.reply(from, reply, batch);
            }
            Message::SyncStep2(update) => {
                if let Some(member) = self.members.get_mut(&from) {
                    member.asked = false;
                    member.sent += 1;
                }
                self.receive_update(from, update, true, batch)?;
            }
            Message::Update(update) => {
                if let Some(member) = self.members.get_mut(&from) {
                    member.sent += 1;
                }
                self.receive_update(from, update, false, batch)?;
            }
            // Nobody is here without a session; one that has left brings nobody back.
            Message::Awareness(states) if self.members.contains_key(&from) => {
                match self.presence.receive(from, states, self.start.elapsed()) {
                    Ok(news) => {
                        if let (Some(client), Some(member)) =
                            (self.presence.own_client(from), self.members.get_mut(&from))
                        {
                            member.makes(client);
                        }
                        batch.presence.push((from, news));
                    }
                    Err(rule) => {
                        self.refuse_session(from, End::Refused(format!("awareness refused: {rule}")))
                    }
                }
            }
            Message::Stateless(text) if self.members.contains_key(&from) => self.tell_stateless(from, text),
            Message::Awareness(_) | Message::Stateless(_) => {}
            Message::QueryAwareness => {
                if let Some(member) = self.members.get(&from) {
                    member.outbox.0.push(&Arc::new(presence(&self.presence.everybody())));
                }
            }
        }
        Ok(())
    }

    fn receive_update(
        &mut self,
        from: SessionId,
        update: Bytes,
        answers: bool,
        batch: &mut Batch,
    ) -> Result<(), UpdateError> {
        if self.members.get(&from).is_some_and(|member| member.terms.read_only) {
            return self.refuse_edit(from, &update, batch);
        }
        let (bytes, limit) = (update.len(), self.around.limits.update_bytes);
        if bytes > limit {
            let rule = format!("it has {bytes} bytes; the limit is {limit} (--max-update)");
            self.refuse_update(from, bytes, End::Refused(format!("update refused: {rule}")));
            return Ok(());
        }
        let received = match self.take_update(update.clone()) {
            Ok(received) => received,
            Err(UpdateError::Refused(rule)) => {
                self.refuse_update(from, bytes, End::Refused(format!("update refused: {rule}")));
                return Ok(());
            }
            Err(UpdateError::Full) => {
                self.refuse_update(from, bytes, End::DocumentFull(self.around.limits.document_bytes));
                return Ok(());
            }
            Err(broken) => {
                self.suspect = Some(update);
                return Err(broken);
            }
        };
        if let Some(news) = received.news.clone() {
            self.last_step_2 = None;
            // Where a part of it was known or must wait, it is more than what its sender has just made.
            let fresh = !answers && news.update == update;
            let user = self.members.get(&from).and_then(|member| member.terms.user.clone());
            batch.note(from, fresh, user, news);
        }
        let Some(member) = self.members.get_mut(&from) else {
            // The session has left; what it sent before counts all the same.
            return Ok(());
        };
        if member.echoes() && *update != *EMPTY_UPDATE {
            let adds = received.news.iter().flat_map(|news| &news.adds);
            if !answers {
                adds.clone().for_each(|(client, _)| member.makes(*client));
            }
            member.has_too(adds.map(|(client, _)| (*client, self.document.next_clock(*client))));
            // Where nothing was news, all of it is here already.
            let own = match (received.news, &received.rest) {
                (Some(news), _) => Some(news),
                (None, None) => Some(News { update, adds: Vec::new() }),
                (None, Some(_)) => None,
            };
            batch.held.extend(own.map(|own| (from, Arc::new(edits(&own)))));
        }
        match received.rest {
            Some(rest) if answers => {
                member.lacking = true;
                member.keep_aside(rest);
            }
            Some(_) if !member.asked => {
                member.asked = true;
                member.outbox.0.push(&question(&self.document.state_vector()));
            }
            // It holds everything that its sender had when it was asked.
            None if answers => member.lacking = false,
            _ => {}
        }
        batch.counts.extend(member.count().map(|count| (from, count)));
        Ok(())
    }

    /// Takes in an update from no session, all of it or nothing. Where it makes the document, there must be none.
    pub(super) fn write(
        &mut self,
        edit: Edit,
        makes: bool,
        user: Option<Arc<str>>,
        answer: Answering<Result<(), WriteError>>,
        batch: &mut Batch,
    ) -> Result<(), UpdateError> {
        // An error, here and below: nobody waits for the answer any more.
        match self.take_edit(edit, makes)? {
            Ok(news) => {
                match news {
                    Some(news) => {
                        self.last_step_2 = None;
                        batch.note(NOBODY, true, user, news);
                    }
                    None if makes => drop(self.saver.note(Bytes::from_static(EMPTY_UPDATE), &[], None)),
                    None => {}
                }
                batch.answers.push(Box::new(|| drop(answer.send(Ok(Ok(()))))));
            }
            Err(error) => drop(answer.send(Ok(Err(error)))),
        }
        Ok(())
    }

    /// Makes the update of an edit, and takes it in.
    fn take_edit(
        &mut self,
        edit: Edit,
        makes: bool,
    ) -> Result<Result<Option<News>, WriteError>, UpdateError> {
        if makes && self.saver.exists() {
            return Ok(Err(WriteError::Exists));
        }
        let update = match contained(|| edit(&self.document))?? {
            Ok(Some(update)) => update,
            Ok(None) => return Ok(Ok(None)),
            Err(error) => return Ok(Err(error)),
        };
        let (bytes, limit) = (update.len(), self.around.limits.update_bytes);
        if bytes > limit {
            return Ok(Err(WriteError::TooLarge { bytes, limit }));
        }
        Ok(match self.document.lacks_for(&update) {
            Ok(true) => Err(WriteError::Lacks),
            Ok(false) => match self.take_update(update.clone()) {
                Ok(received) => Ok(received.news),
                Err(UpdateError::Refused(rule)) => Err(WriteError::Refused(rule.to_string())),
                Err(UpdateError::Full) => Err(WriteError::Full(self.around.limits.document_bytes)),
                Err(broken) => {
                    self.suspect = Some(update);
                    return Err(broken);
                }
            },
            Err(UpdateError::Refused(rule)) => Err(WriteError::Refused(rule.to_string())),
            Err(broken) => return Err(broken),
        })
    }

    /// Answers whether the document exists; with `make`, it does from now on.
    pub(super) fn exists(&mut self, make: bool, answer: Answering<bool>, batch: &mut Batch) {
        let exists = self.saver.exists();
        if make && !exists {
            self.saver.note(Bytes::from_static(EMPTY_UPDATE), &[], None);
        }
        match make {
            // Also where it exists: somebody else may have made it a moment ago.
            true => batch.answers.push(Box::new(move || drop(answer.send(Ok(exists))))),
            false => drop(answer.send(Ok(exists))),
        }
    }

    /// Tells a session that only looks on that its edits are not taken: each time where it is told what is saved,
    /// otherwise once. What it brings may be known, too.
    fn refuse_edit(&mut self, from: SessionId, update: &[u8], batch: &mut Batch) -> Result<(), UpdateError> {
        let has = self.document.has(update);
        let Some(member) = self.members.get_mut(&from) else { return Ok(()) };
        match has {
            Ok(true) => batch.counts.extend(member.count().map(|count| (from, count))),
            Ok(false) => {
                member.lacking = true;
                let told = std::mem::replace(&mut member.told_read_only, true);
                if !told || member.terms.tell_saved == TellSaved::Count {
                    member.outbox.0.push(&read_only_notice());
                }
            }
            Err(UpdateError::Refused(rule)) => {
                self.refuse_update(from, update.len(), End::Refused(format!("update refused: {rule}")));
            }
            Err(broken) => return Err(broken),
        }
        Ok(())
    }

    /// Gives an update to the document. Where there seems to be no space for it, the real size decides.
    fn take_update(&mut self, update: Bytes) -> Result<Received, UpdateError> {
        let now = Instant::now();
        let received = self.document.receive(update.clone());
        if received != Err(UpdateError::Full) || now < self.measure_at {
            return received;
        }
        // Whoever sends one edit after the other to a full document must not have it encoded each time.
        beside_others(|| self.document.measure())?;
        self.measure_at = Instant::now() + now.elapsed() * MEASURE_SHARE;
        self.document.receive(update)
    }

    fn refuse_update(&mut self, from: SessionId, bytes: usize, end: End) {
        info!(session = from.0, bytes, reason = end.reason(), "update refused");
        self.refuse_session(from, end);
    }

    /// Offers again what was kept aside, where the document has moved on to what it needs.
    pub(super) fn offer_again(&mut self, batch: &mut Batch) -> Result<(), UpdateError> {
        loop {
            self.offer_asides_again(batch)?;
            let ready = self.members.iter_mut().find_map(|(&session, member)| {
                let rest = member.aside.take_if(|rest| self.document.knows_any(rest))?;
                Some((session, rest))
            });
            let Some((session, rest)) = ready else { return Ok(()) };
            let start = Instant::now();
            self.receive_update(session, rest.update.into(), true, batch)?;
            self.charge(session, start);
        }
    }
}

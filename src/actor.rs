//! The task that owns one open document. An update has one way in, [`Actor::receive`], and one way out,
//! [`Actor::tell_others`].

mod batch;
mod budget;
mod ending;
mod handle;
mod member;
mod opening;
mod receiving;
mod relay;
mod telling;
mod vitals;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::mpsc,
    task::{block_in_place, yield_now},
    time::{Instant, sleep_until},
};

use self::{
    batch::{Answer, Batch, presence, question},
    handle::{Mail, Received, Written},
    member::{Member, MemberOutbox},
    relay::Relay,
    vitals::Vitals,
};
pub use self::{
    handle::{Described, DocumentHandle, Edit, Gone, ReadError, WriteError},
    member::{TellSaved, Terms},
    vitals::Figures,
};
use crate::{
    backend::{Backend, Incoming},
    capacity::Place,
    config::{History, Limits},
    document::{Document, UpdateError, contained},
    end::End,
    metrics::Metrics,
    name::DocumentName,
    presence::{Presence, SessionId},
    protocol::{Outgoing, relay::Relayed},
    saver::{Loaded, Saver},
    state_vector::StateVector,
    troubles::Troubles,
    webhooks::Teller,
};

/// Messages that are taken in before everybody is told of them.
const BATCH: usize = 256;
/// Bytes of edits, and time, after which everybody is told before more is taken in.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_TIME: Duration = Duration::from_millis(5);
/// How long a client that lost its socket is still shown, since most of them come back at once.
const PRESENCE_GRACE: Duration = Duration::from_secs(2);
/// How often presence is looked through for clients that have fallen silent.
const LOOK_THROUGH: Duration = Duration::from_secs(3);
/// The number of no session.
const NOBODY: SessionId = SessionId(0);
/// How long a document stays open that somebody took up while it was about to leave memory.
const STAY: Duration = Duration::from_secs(1);
/// What finding out how large a document is may take, as one part in so many of the time that passes.
const MEASURE_SHARE: u32 = 10;

/// Why an actor stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Nobody has used the document for a while, and everything is saved.
    Idle,
    /// It was told to, and everything is saved; or the document is no longer what is stored under its name.
    Told,
    /// It was told to, and what it had could not be saved in time.
    Unsaved,
    /// The document engine failed: the document must be opened anew.
    Failed(Option<Suspect>),
}

/// An update that was being taken in when the document engine failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The update.
    pub update: Bytes,
    /// How the engine failed.
    pub reason: String,
}

/// What all documents of a node have in common.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// How long a document stays open after its last session.
    pub idle: Duration,
    /// How much is taken from clients.
    pub limits: Arc<Limits>,
    /// How histories are kept.
    pub history: Arc<History>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where applications are told of what is saved.
    pub webhooks: Teller,
    /// What went wrong.
    pub troubles: Arc<Troubles>,
}

/// One open document and its sessions.
pub struct Actor {
    name: DocumentName,
    backend: Arc<dyn Backend>,
    mailbox: mpsc::Receiver<Mail>,
    document: Document,
    saver: Saver,
    relay: Relay,
    presence: Presence,
    members: HashMap<SessionId, Member>,
    /// When the clients of sessions that were lost are no longer shown.
    lost: VecDeque<(Instant, SessionId)>,
    around: Surroundings,
    /// What can be seen of it from outside.
    vitals: Arc<Vitals>,
    /// What the document takes of the node.
    place: Place,
    /// From when on its size may be found out again.
    measure_at: Instant,
    /// When the document may leave memory, if nobody is in it.
    rest_at: Instant,
    /// The last sync step 2 and the state vector that it answered: many who join ask for the same.
    last_step_2: Option<(StateVector, Arc<Outgoing>)>,
    /// What is answered when everything through a number is saved.
    answers: VecDeque<(u64, Answer)>,
    /// The update during which the document engine failed.
    suspect: Option<Bytes>,
    /// From when the times of presence count, and when it is looked through next.
    start: Instant,
    look_through_at: Instant,
}

impl Actor {
    /// Serves the document until there is a reason to stop. Its ends are on the heap: each open document holds as much as
    /// the largest thing that is waited for here.
    pub async fn run(&mut self) -> Stopped {
        let mut mail = VecDeque::new();
        let mut received = Vec::new();
        loop {
            if let Some(over) = self.saver.over().cloned() {
                return Box::pin(self.give_up(&over)).await;
            }
            if let Err(broken) = self.saver.start(&self.document, self.relay.is_complete()) {
                return Box::pin(self.fail(broken)).await;
            }
            self.note_place();
            let timer = self.timer();
            tokio::select! {
                // Saved edits first: they are few, and people wait for them. Timers last: they can wait.
                biased;
                loaded = self.saver.progress() => {
                    if let Err(broken) = self.progressed(loaded) {
                        return Box::pin(self.fail(broken)).await;
                    }
                }
                count = self.mailbox.recv_many(&mut received, BATCH) => {
                    // Whoever has something by now brings it: everybody is told once of all that.
                    yield_now().await;
                    while received.len() < BATCH && let Ok(more) = self.mailbox.try_recv() {
                        received.push(more);
                    }
                    self.around.metrics.looked_into_mailbox(received.len() + self.mailbox.len());
                    mail.extend(received.drain(..));
                    // No mail at all: not even the hub holds a handle any more.
                    let stop = count == 0 || mail.iter().any(|mail| matches!(mail, Mail::Stop));
                    while !mail.is_empty() {
                        // Giving the thread's other tasks away costs more than taking in a keystroke.
                        let received = match mail.iter().any(Mail::is_large) {
                            true => beside_others(|| self.receive(&mut mail)),
                            false => self.receive(&mut mail),
                        };
                        if let Err(broken) = received {
                            return Box::pin(self.fail(broken)).await;
                        }
                        if !mail.is_empty() {
                            yield_now().await;
                        }
                    }
                    if stop {
                        return Box::pin(self.stop()).await;
                    }
                }
                incoming = self.relay.feed.next() => {
                    yield_now().await;
                    if let Err(broken) = self.receive_from_nodes(incoming) {
                        return Box::pin(self.fail(broken)).await;
                    }
                }
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
            if self.timer().is_some_and(|at| at <= Instant::now()) {
                match self.ring() {
                    Ok(true) => return Stopped::Idle,
                    Ok(false) => {}
                    Err(broken) => return self.fail(broken).await,
                }
            }
        }
    }

    /// Somebody took the document up while it was about to leave memory.
    pub fn stay(&mut self) {
        self.rest_at = Instant::now() + STAY;
    }

    /// Notes what the document takes of the node, what is seen of it, and whether it can make space.
    fn note_place(&mut self) {
        self.vitals.note(self.document.bytes(), self.members.len(), !self.saver.is_saved());
        self.place.resize(self.document.bytes(), self.document.blocks());
        if !self.members.is_empty() {
            self.place.wake();
        } else if self.saver.is_idle() {
            self.place.rest();
        }
    }

    /// When something is to be done that nobody sends mail about.
    fn timer(&self) -> Option<Instant> {
        let lost = self.lost.front().map(|(at, _)| *at);
        let rest = (self.members.is_empty() && self.saver.is_idle()).then_some(self.rest_at);
        let expiry = (!self.presence.is_empty()).then_some(self.look_through_at);
        [lost, rest, expiry, self.relay.timer()].into_iter().flatten().min()
    }

    /// Does what is due by now. Answers whether the document may leave memory.
    fn ring(&mut self) -> Result<bool, UpdateError> {
        let now = Instant::now();
        let mut batch = Batch::default();
        while let Some((_, session)) = self.lost.pop_front_if(|(at, _)| *at <= now) {
            batch.presence.push((session, self.presence.remove(session, now - self.start)));
        }
        if self.look_through_at <= now {
            self.look_through_at = now + LOOK_THROUGH;
            // Nobody's own: everybody hears of it.
            batch.presence.push((NOBODY, self.presence.expire(now - self.start)));
        }
        self.tell_others(batch);
        self.ring_relay()?;
        if !self.members.is_empty() || !self.saver.is_idle() || self.rest_at > now {
            return Ok(false);
        }
        self.saver.compact_at_rest(&self.document, self.relay.is_complete())?;
        if !self.saver.is_idle() {
            return Ok(false);
        }
        self.take_leave_of_nodes();
        Ok(true)
    }

    /// The saver has something done; sessions may hear of it.
    fn progressed(&mut self, loaded: Option<Loaded>) -> Result<(), UpdateError> {
        if let Some(theirs) = loaded {
            let mut batch = Batch::default();
            let compared = self.compare(theirs, &mut batch);
            self.tell_others(batch);
            compared?;
        }
        self.release_saved();
        self.carry();
        Ok(())
    }

    /// Takes in what came from the other nodes, and tells everybody once what came of it.
    fn receive_from_nodes(&mut self, first: Incoming) -> Result<(), UpdateError> {
        let (start, mut batch) = (Instant::now(), Batch::default());
        let mut next = Some(first);
        let mut received = Ok(());
        while let Some(incoming) = next
            && received.is_ok()
        {
            received = self.take_incoming(incoming, &mut batch);
            let full = batch.bytes > BATCH_BYTES || start.elapsed() >= BATCH_TIME;
            next = if full { None } else { self.relay.feed.try_next() };
        }
        let received = received.and_then(|()| self.offer_again(&mut batch));
        self.tell_others(batch);
        received
    }

    /// Takes in what waited, and tells everybody once what came of it.
    fn receive(&mut self, mail: &mut VecDeque<Mail>) -> Result<(), UpdateError> {
        let mut batch = Batch::default();
        let received = self.take_in(mail, &mut batch);
        // Also where the engine failed: what came in before that is as good as ever.
        self.tell_others(batch);
        received
    }

    fn take_in(&mut self, mail: &mut VecDeque<Mail>, batch: &mut Batch) -> Result<(), UpdateError> {
        let start = Instant::now();
        while batch.bytes <= BATCH_BYTES && start.elapsed() < BATCH_TIME {
            let Some(mail) = mail.pop_front() else { break };
            match mail {
                Mail::Join { session, outbox, terms } => self.join(session, outbox, terms),
                Mail::Receive(received) => {
                    let Received { from, message, came, mut trace, .. } = *received;
                    batch.since.get_or_insert(came);
                    trace.step("apply");
                    let (start, before) = (Instant::now(), batch.news.len());
                    self.receive_message(from, message, batch)?;
                    self.charge(from, start);
                    // Where it brought nothing new, this is its end.
                    if batch.news.len() > before {
                        trace.step("deliver");
                        batch.traced.add(trace);
                    }
                }
                Mail::ChangeTerms { session, terms } => self.change_terms(session, terms),
                Mail::CatchUp { session } => self.catch_up(session, batch)?,
                Mail::Leave { session } => self.leave(session),
                Mail::Read(look) => contained(|| look(Ok(&self.document)))?,
                Mail::Write(written) => {
                    let Written { edit, makes, user, answer, .. } = *written;
                    self.write(edit, makes, user, answer, batch)?;
                }
                Mail::Exists { make, answer } => self.exists(make, answer, batch),
                Mail::Tell(text) => self.tell_stateless(NOBODY, text),
                Mail::KeepVersion { answer } => batch.versions.push(answer),
                Mail::Describe { answer } => drop(answer.send(Ok(self.describe()))),
                Mail::EndSessions { user, answer } => {
                    self.tell_nodes([Relayed::EndSessions { user: user.clone() }]);
                    // An error: nobody waits for the answer any more.
                    let _ = answer.send(self.end_sessions(user.as_deref()));
                }
                Mail::Rest => self.rest_at = Instant::now(),
                Mail::Stop => {}
            }
        }
        self.offer_again(batch)
    }

    fn describe(&self) -> Described {
        Described {
            exists: self.saver.exists(),
            sessions: self.members.values().map(|member| member.terms.clone()).collect(),
            presence: self.presence.everybody(),
            log: self.saver.log(),
        }
    }

    /// Notes what a session's message took, and lets the session rest where that is too much.
    fn charge(&mut self, session: SessionId, start: Instant) {
        let now = Instant::now();
        if let Some(member) = self.members.get_mut(&session)
            && let Some(until) = member.budget.spend(now - start, now)
        {
            member.outbox.0.rest(until);
        }
    }

    fn join(&mut self, session: SessionId, outbox: MemberOutbox, terms: Terms) {
        outbox.0.push(&question(&self.document.state_vector()));
        let everybody = self.presence.everybody();
        if !everybody.is_empty() {
            outbox.0.push(&Arc::new(presence(&everybody)));
        }
        self.members.insert(session, Member::new(outbox, terms));
    }

    /// A session goes on with another token. What it brought in vain while it might only read is asked for again.
    fn change_terms(&mut self, session: SessionId, terms: Terms) {
        let Some(member) = self.members.get_mut(&session) else { return };
        if member.terms.read_only && !terms.read_only {
            member.told_read_only = false;
            member.asked = true;
            member.outbox.0.push(&question(&self.document.state_vector()));
        }
        member.terms = terms;
    }

    fn leave(&mut self, session: SessionId) {
        if self.members.remove(&session).is_none() {
            return;
        }
        self.lost.push_back((Instant::now() + PRESENCE_GRACE, session));
        if self.members.is_empty() {
            self.rest_at = Instant::now() + self.around.idle;
            self.last_step_2 = None;
            self.saver.expect();
        }
    }

    fn refuse_session(&mut self, session: SessionId, end: End) {
        if let Some(member) = self.members.get(&session) {
            member.outbox.0.end(end);
        }
        self.leave(session);
    }
}

/// Does work that may take long for a large or a hostile update, so that other tasks do not wait for its thread.
fn beside_others<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}

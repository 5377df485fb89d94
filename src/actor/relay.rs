//! The other nodes as a peer of the document: what they append and tell comes in here, and goes out what they must
//! hear of presence. Edits reach them through the saver, since the log carries these.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use tokio::time::{Duration, Instant};
use tracing::{debug, error, warn};

use super::{Actor, batch::Batch};
use crate::{
    backend::{Feed, Incoming, NodeId, Position},
    document::UpdateError,
    guard::Rest,
    presence::{SessionId, State},
    protocol::relay::{self, Relayed},
    record::Record,
    saver::{self, Loaded},
    update::ClientId,
};

/// How long presence gathers before the other nodes are told, and how long where only clocks have moved: clients
/// renew their state every 15 seconds, and are gone after 30.
const GATHER: Duration = Duration::from_millis(100);
const GATHER_RENEWALS: Duration = Duration::from_secs(8);
/// How long after an edit the nodes compare their fingerprints, and how long until the next try where something is
/// still unsaved.
const CHECK_AFTER: Duration = Duration::from_secs(60);
const CHECK_AGAIN: Duration = Duration::from_secs(1);
/// How long after a sign that something is missing the log is read again: most often it is on its way.
const COMPARE_AFTER: Duration = Duration::from_secs(1);
/// Parts of records that wait for what they need; more are read again when the log is compared.
const MAX_ASIDES: usize = 64;
/// Marks the numbers under which presence knows nodes.
const NODE: u64 = 1 << 63;
/// Who brings what comes from the log.
pub(super) const RELAY: SessionId = SessionId(NODE);

/// How long ago another node's clock showed this, in milliseconds since 1970; nothing where that one is ahead.
fn since(time: u64) -> Duration {
    Duration::from_millis(saver::now().saturating_sub(time))
}

/// The number under which presence knows a node.
fn place(node: NodeId) -> SessionId {
    SessionId(node.0 | NODE)
}

/// Whether something comes from another node.
pub(super) fn is_relayed(from: SessionId) -> bool {
    from.0 & NODE != 0
}

/// What the actor knows of the other nodes.
#[derive(Default)]
pub(super) struct Relay {
    pub(super) feed: Feed,
    /// Parts of records that need what is not here.
    asides: Vec<Rest>,
    /// States that the other nodes have not been told yet, and when they are.
    presence: BTreeMap<ClientId, State>,
    tell_at: Option<Instant>,
    /// What the others were told last of each client.
    told: HashMap<ClientId, Bytes>,
    /// When fingerprints are compared.
    check_at: Option<Instant>,
}

impl Relay {
    pub(super) fn new(feed: Feed, asides: Vec<Rest>) -> Self {
        Self { feed, asides, ..Self::default() }
    }

    /// Whether all that the log has is in the document: then a snapshot may take its place.
    pub(super) fn is_complete(&self) -> bool {
        self.asides.is_empty()
    }

    /// When it is to do something by itself.
    pub(super) fn timer(&self) -> Option<Instant> {
        [self.tell_at, self.check_at].into_iter().flatten().min()
    }

    /// Notes that the document was edited here.
    pub(super) fn edited(&mut self) {
        if self.feed.is_shared() {
            self.check_at.get_or_insert_with(|| Instant::now() + CHECK_AFTER);
        }
    }

    /// Notes states that the other nodes must hear of.
    pub(super) fn note_presence(&mut self, states: impl IntoIterator<Item = State>) {
        if !self.feed.is_shared() {
            return;
        }
        for state in states {
            let renewal = state.json.is_some() && self.told.get(&state.client) == state.json.as_ref();
            let at = Instant::now() + if renewal { GATHER_RENEWALS } else { GATHER };
            self.tell_at = Some(self.tell_at.map_or(at, |before| before.min(at)));
            self.presence.insert(state.client, state);
        }
    }

    fn take_presence(&mut self) -> Vec<State> {
        self.tell_at = None;
        let states: Vec<_> = std::mem::take(&mut self.presence).into_values().collect();
        for state in &states {
            match &state.json {
                Some(json) => self.told.insert(state.client, json.clone()),
                None => self.told.remove(&state.client),
            };
        }
        states
    }
}

impl Actor {
    /// Does what is due by now for the other nodes.
    pub(super) fn ring_relay(&mut self) -> Result<(), UpdateError> {
        let now = Instant::now();
        if self.relay.tell_at.is_some_and(|at| at <= now) {
            // Who went to another node meanwhile is that node's to tell of.
            self.relay.presence.retain(|&client, state| {
                state.json.is_none() || self.presence.owner(client).is_some_and(|owner| !is_relayed(owner))
            });
            let states = self.relay.take_presence();
            self.tell_nodes(relay::awareness(states));
        }
        if self.relay.check_at.is_some_and(|at| at <= now) {
            self.relay.check_at = None;
            if self.saver.is_idle() {
                let Position { epoch, number } = self.saver.through();
                let fingerprint = self.document.fingerprint()?;
                self.tell_nodes([Relayed::Check { epoch, number, fingerprint }]);
            } else {
                self.relay.check_at = Some(now + CHECK_AGAIN);
            }
        }
        Ok(())
    }

    /// The other nodes forget who was here by this node's sessions.
    pub(super) fn take_leave_of_nodes(&mut self) {
        let here = self.presence.owned(|owner| !is_relayed(owner));
        self.relay.note_presence(here.into_iter().map(|state| State { json: None, ..state }));
        let states = self.relay.take_presence();
        self.tell_nodes(relay::awareness(states));
    }

    fn tell_nodes_who_is_here(&mut self) {
        self.relay.told.clear();
        self.relay.note_presence(self.presence.owned(|owner| !is_relayed(owner)));
    }

    pub(super) fn tell_nodes(&self, messages: impl IntoIterator<Item = Relayed>) {
        if self.relay.feed.is_shared() {
            messages.into_iter().for_each(|told| self.backend.tell(&self.name, told.write()));
        }
    }

    /// Takes in what comes from the other nodes.
    pub(super) fn take_incoming(&mut self, incoming: Incoming, batch: &mut Batch) -> Result<(), UpdateError> {
        match incoming {
            Incoming::Records { records, through } => {
                let bytes = records.iter().map(Bytes::len).sum();
                for record in &records {
                    match Record::read(record) {
                        Ok(Record { time, updates }) => {
                            self.around.metrics.relayed(since(time));
                            updates
                                .into_iter()
                                .try_for_each(|authored| self.receive_from_log(authored.update, batch))?;
                        }
                        Err(error) => error!(%error, "a record of another node cannot be read"),
                    }
                }
                self.saver.heard(records.len(), bytes, through);
            }
            Incoming::Told { node, message } => match Relayed::read(&message) {
                Ok(told) => self.hear(node, told, batch)?,
                Err(error) => warn!(%error, node = node.0, "what another node told cannot be read"),
            },
            Incoming::NodeLeft(node) => {
                let gone = self.presence.remove(place(node), self.start.elapsed());
                batch.presence.push((place(node), gone));
            }
            Incoming::Missed => {
                if !self.members.is_empty() || !self.presence.is_empty() {
                    self.tell_nodes([Relayed::QueryAwareness]);
                    self.tell_nodes_who_is_here();
                }
            }
            Incoming::Compare { after } => self.saver.compare(after),
        }
        Ok(())
    }

    fn hear(&mut self, node: NodeId, told: Relayed, batch: &mut Batch) -> Result<(), UpdateError> {
        match told {
            Relayed::Awareness(states) => {
                let (members, now) = (&self.members, self.start.elapsed());
                let is_connected = |session| members.contains_key(&session);
                let news = self.presence.receive_from_node(place(node), states, now, is_connected);
                batch.presence.push((place(node), news));
            }
            Relayed::QueryAwareness => self.tell_nodes_who_is_here(),
            Relayed::Stateless(text) => self.tell_sessions(place(node), text),
            Relayed::EndSessions { user } => {
                self.end_sessions(user.as_deref());
            }
            Relayed::Check { epoch, number, fingerprint } => {
                let same_place = Position { epoch, number } == self.saver.through() && self.saver.is_idle();
                if same_place && self.document.fingerprint()? != fingerprint {
                    warn!(node = node.0, "another node has another content; it is compared with the store");
                    self.saver.compare(COMPARE_AFTER);
                }
            }
        }
        Ok(())
    }

    /// Takes in an update that is in the log, or that part of it that stands on known ground.
    fn receive_from_log(&mut self, update: Bytes, batch: &mut Batch) -> Result<(), UpdateError> {
        let received = match self.document.receive_kept(update.clone()) {
            Ok(received) => received,
            Err(UpdateError::Refused(rule)) => {
                error!(%rule, bytes = update.len(), "an update in the log was refused");
                return Ok(());
            }
            Err(broken) => {
                self.suspect = Some(update);
                return Err(broken);
            }
        };
        if let Some(news) = received.news {
            self.last_step_2 = None;
            batch.note(RELAY, false, None, news);
        }
        if let Some(rest) = received.rest {
            debug!(bytes = rest.update.len(), "a record needs what is not here");
            if self.relay.asides.len() == MAX_ASIDES {
                self.relay.asides.remove(0);
            }
            self.relay.asides.push(rest);
            self.saver.compare(COMPARE_AFTER);
        }
        Ok(())
    }

    /// Offers again what stood in the log before what it needs.
    pub(super) fn offer_asides_again(&mut self, batch: &mut Batch) -> Result<(), UpdateError> {
        while let Some(at) = self.relay.asides.iter().position(|rest| self.document.knows_any(rest)) {
            let rest = self.relay.asides.swap_remove(at);
            self.receive_from_log(rest.update.into(), batch)?;
        }
        Ok(())
    }

    /// Takes in what only the store has; what only the document has is saved again.
    pub(super) fn compare(&mut self, theirs: Loaded, batch: &mut Batch) -> Result<(), UpdateError> {
        let missing = theirs.document.diff(&self.document.state_vector())?;
        self.relay.asides.clear();
        self.receive_from_log(missing, batch)?;
        self.saver.compared(&theirs, &self.document)?;
        // What nobody has the rest of stays in the log, and aside.
        theirs.gaps.into_iter().try_for_each(|rest| self.receive_from_log(rest.update.into(), batch))
    }
}

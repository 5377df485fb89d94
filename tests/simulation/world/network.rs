//! The connections between clients and server, and what a bad network makes of them.

use std::{mem, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt;
use quire::{
    actor::{TellSaved, Terms},
    end::End,
    lib0::Reader,
    outbox::Taken,
    protocol::{self, Message, dialect::News, y_websocket},
    session::Session,
    trace::Edit,
    update::{ClientId, Clock},
};
use yrs::updates::{decoder::Decode, encoder::Encode};

use super::{Mistake, Trial, World};

/// One connection, as the two sides and the network between them see it.
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) client: usize,
    pub(super) node: usize,
    /// The server's side; none when the server has let go.
    pub(super) session: Option<Session>,
    pub(super) tell_saved: TellSaved,
    /// The updates that the server has been given, and how many of them it has told to be saved.
    pub(super) given: Vec<Bytes>,
    pub(super) counted: usize,
    /// Whether the client takes it for open.
    pub(super) client_open: bool,
    pub(super) up: Vec<Travelling>,
    pub(super) down: Vec<Travelling>,
    /// Until when nobody reads what the server sends.
    pub(super) stalled_until: u64,
    /// When a side that has not noticed yet notices that the other one is gone.
    pub(super) noticed_at: u64,
    pub(super) step_2s: usize,
}

pub(super) struct Travelling {
    due: u64,
    frame: Bytes,
}

impl World {
    pub(super) fn is_connected(&self, client: usize) -> bool {
        self.links.iter().any(|link| link.client == client && link.client_open)
    }

    /// A client comes, with the numbers of what it has.
    pub(super) fn connect(&mut self, client: usize) -> Result<(), String> {
        let node = self.random.index(self.nodes.len());
        let Some(process) = &self.nodes[node].process else {
            self.comes_back_later(client);
            return Ok(());
        };
        let tell_saved = self.clients[client].tell_saved;
        let join = async {
            let document = process.open()?;
            Ok::<_, String>(
                Session::join(document, Terms { tell_saved, ..Terms::default() }, None, Arc::new(())).await,
            )
        };
        let Ok(session) = process.runtime.block_on(join)? else {
            // The document left memory at this moment.
            return Ok(());
        };
        let number = self.connections;
        self.connections += 1;
        self.trace.note(self.now, format_args!("client {client} connects"));
        self.links.push(Link {
            number,
            client,
            node,
            session: Some(session),
            tell_saved,
            given: Vec::new(),
            counted: 0,
            client_open: true,
            up: Vec::new(),
            down: Vec::new(),
            stalled_until: 0,
            noticed_at: u64::MAX,
            step_2s: 0,
        });
        let index = self.links.len() - 1;
        let question = protocol::sync_step_1(&self.clients[client].replica.state_vector());
        self.send_up(index, question);
        self.say_presence(index, 20);
        Ok(())
    }

    /// What the client side sends.
    pub(super) fn send_up(&mut self, index: usize, frame: Bytes) {
        let before = self.links[index].up.last().map_or(0, |last| last.due);
        let dues = self.travels(before);
        self.links[index].up.extend(dues.into_iter().map(|due| Travelling { due, frame: frame.clone() }));
    }

    /// What the server sends.
    pub(super) fn send_down(&mut self, index: usize, frame: Bytes) -> Result<(), String> {
        let Some(frame) = self.mistaken(index, frame) else { return Ok(()) };
        let link = &self.links[index];
        if !link.client_open {
            // Nobody hears it.
            return Ok(());
        }
        if link.tell_saved == TellSaved::Echo
            && let Ok(Message::SyncStep2(update) | Message::Update(update)) =
                Message::read(&mut Reader::new(&frame))
        {
            let client = link.client;
            let saved = self.clients[client].note_saved(&update, &self.made_twice);
            self.must_be_written(client, &saved)?;
        }
        let before = link.down.last().map_or(0, |last| last.due);
        let dues = self.travels(before);
        let frames = dues.into_iter().map(|due| Travelling { due, frame: frame.clone() });
        self.links[index].down.extend(frames);
        Ok(())
    }

    fn must_be_written(&self, client: usize, saved: &[(ClientId, Clock)]) -> Result<(), String> {
        match saved.iter().find(|(id, end)| self.store.written(*id) < *end) {
            None => Ok(()),
            Some((id, end)) => Err(format!(
                "client {client} was told that its edits are saved, and {id}:{end} is not written"
            )),
        }
    }

    /// The server has told how many of the updates are saved that came over this connection.
    fn count_saved(&mut self, index: usize, count: u64) -> Result<(), String> {
        let link = &mut self.links[index];
        let (client, from) = (link.client, mem::replace(&mut link.counted, count as usize));
        if link.counted < from || link.counted > link.given.len() {
            return Err(format!("{count} updates are said to be saved, of {}", link.given.len()));
        }
        let saved: Vec<_> = link.given[from..link.counted].to_vec();
        for update in saved {
            let ends = self.clients[client].note_counted(update);
            self.must_be_written(client, &ends)?;
        }
        Ok(())
    }

    /// When a frame arrives: once and after those before it, unless the network is worse than any real one.
    pub(super) fn travels(&mut self, before: u64) -> Vec<u64> {
        let latency = self.habits.latency;
        let due = self.now + self.random.between(1, latency);
        if !self.habits.lossy {
            return vec![due.max(before)];
        }
        match self.random.below(100) {
            0..10 => Vec::new(),
            10..15 => vec![due, self.now + self.random.between(1, 5 * latency)],
            15..40 => vec![self.now + self.random.between(1, 5 * latency)],
            _ => vec![due],
        }
    }

    /// The deliberate mistakes on the way from the server.
    pub(super) fn mistaken(&mut self, index: usize, frame: Bytes) -> Option<Bytes> {
        let Ok(Message::SyncStep2(update)) = Message::read(&mut Reader::new(&frame)) else {
            return Some(frame);
        };
        let link = &mut self.links[index];
        link.step_2s += 1;
        match self.trial {
            Trial::With(Mistake::ReplyDropped) if link.number.is_multiple_of(4) => None,
            // A client asks once; what comes then is a resync.
            Trial::With(Mistake::ResyncWithoutDeleteSet) if link.step_2s > 1 => {
                let read = yrs::Update::decode_v1(&update).expect("the server sends well-formed updates");
                // The deletions stand at the end.
                let blocks = update.len() - read.delete_set().encode_v1().len();
                let part = [&update[..blocks], &[0]].concat();
                Some(protocol::sync_step_2(&part))
            }
            _ => Some(frame),
        }
    }

    /// Frames arrive at the server, as its connections read them.
    pub(super) fn deliver_up(&mut self) -> Result<(), String> {
        for index in 0..self.links.len() {
            for frame in arrived(&mut self.links[index].up, self.now) {
                let process = &self.nodes[self.links[index].node].process;
                let (Some(process), Some(session)) = (process, &self.links[index].session) else {
                    break;
                };
                let client = self.links[index].client;
                let messages = y_websocket::read(&frame).map_err(|error| error.to_string())?;
                let updates = messages.iter().filter_map(|message| match message {
                    Message::SyncStep2(update) | Message::Update(update) => Some(update.clone()),
                    _ => None,
                });
                let updates: Vec<_> = updates.collect();
                let received = process.runtime.block_on(async {
                    for message in messages {
                        session.receive(message, Edit::default()).await?;
                    }
                    Ok(())
                });
                if let Err(end) = received {
                    self.ended(index, end)?;
                    break;
                }
                if self.links[index].tell_saved == TellSaved::Count {
                    self.links[index].given.extend(updates);
                }
                self.trace.note(self.now, format_args!("client {client} is heard, {} bytes", frame.len()));
                // Some come one by one, and some as a batch.
                if self.random.percent(60) {
                    self.pass(1)?;
                }
            }
        }
        Ok(())
    }

    /// What waits in the server's outboxes goes out, where somebody reads.
    pub(super) fn pump(&mut self) -> Result<(), String> {
        for index in 0..self.links.len() {
            let process = &self.nodes[self.links[index].node].process;
            let (Some(process), Some(session)) = (process, &self.links[index].session) else {
                continue;
            };
            if self.links[index].stalled_until > self.now {
                continue;
            }
            let mut news = News::default();
            let found = match session.look(&mut news) {
                Taken::Behind => {
                    match process.runtime.block_on(async { session.catch_up().now_or_never() }) {
                        Some(Err(end)) => Taken::End(end),
                        Some(Ok(())) | None => Taken::Nothing,
                    }
                }
                found => found,
            };
            match found {
                Taken::Nothing | Taken::Behind => {}
                Taken::News => {
                    for outgoing in news.frames {
                        self.send_down(index, outgoing.frame.clone())?;
                    }
                    if self.links[index].tell_saved == TellSaved::Count {
                        self.count_saved(index, news.saved)?;
                    }
                }
                Taken::End(end) => self.ended(index, end)?,
            }
        }
        Ok(())
    }

    /// Frames arrive at clients, and are answered.
    pub(super) fn deliver_down(&mut self) -> Result<(), String> {
        for index in 0..self.links.len() {
            if self.links[index].stalled_until > self.now {
                continue;
            }
            for frame in arrived(&mut self.links[index].down, self.now) {
                let (client, number) = (self.links[index].client, self.links[index].number);
                let mut reader = Reader::new(&frame);
                let message = Message::read(&mut reader).map_err(|error| error.to_string())?;
                if !reader.is_empty() {
                    return Err("a frame holds more than one message".to_owned());
                }
                self.trace.note(self.now, format_args!("client {client} hears {} bytes", frame.len()));
                let (reply, news) = self.clients[client]
                    .hear(message)
                    .map_err(|error| format!("client {client} cannot take what it hears: {error}"))?;
                if let Some(reply) = reply {
                    self.send_up(index, reply);
                }
                for update in news {
                    self.tell_server(client, Some(number), &update);
                }
            }
        }
        Ok(())
    }

    /// The server has ended a session. What is on its way still arrives.
    pub(super) fn ended(&mut self, index: usize, end: End) -> Result<(), String> {
        self.trace.note(self.now, format_args!("client {} is sent away: {end:?}", self.links[index].client));
        match end {
            End::Stopping | End::Unreadable(_) | End::Away => {}
            End::Reopening if self.habits.engine_failures > 0 => {}
            _ => return Err(format!("client {} was sent away: {end:?}", self.links[index].client)),
        }
        self.server_lets_go(index);
        let last = self.links[index].down.last().map_or(self.now, |last| last.due);
        self.links[index].noticed_at = last.max(self.now) + 1;
        Ok(())
    }

    /// Who has not noticed a broken connection yet notices now.
    pub(super) fn notice(&mut self) {
        for index in 0..self.links.len() {
            if self.links[index].noticed_at <= self.now {
                self.server_lets_go(index);
                self.client_lets_go(index);
            }
        }
    }

    pub(super) fn client_lets_go(&mut self, index: usize) {
        let link = &mut self.links[index];
        link.down.clear();
        if mem::take(&mut link.client_open) {
            let client = link.client;
            self.comes_back_later(client);
        }
    }

    pub(super) fn server_lets_go(&mut self, index: usize) {
        // A session leaves from within the process, as it may have to wait there.
        let process = self.nodes[self.links[index].node].process.as_ref();
        let _within = process.map(|process| process.runtime.enter());
        self.links[index].session = None;
    }

    pub(super) fn some_link(&mut self, fits: impl Fn(&Link) -> bool) -> Option<usize> {
        let fitting: Vec<_> = (0..self.links.len()).filter(|&index| fits(&self.links[index])).collect();
        (!fitting.is_empty()).then(|| fitting[self.random.index(fitting.len())])
    }

    /// A connection breaks; both sides notice at once, or one of them much later.
    pub(super) fn cut_somebody(&mut self) {
        let Some(index) = self.some_link(|link| link.client_open && link.session.is_some()) else { return };
        let who_notices = self.random.index(3);
        let client = self.links[index].client;
        let whom = ["both notice", "the client notices", "the server notices"][who_notices];
        self.trace.note(self.now, format_args!("the connection of client {client} breaks, {whom}"));
        self.links[index].noticed_at = self.now + self.random.between(10, 5_000);
        if who_notices != 2 {
            self.client_lets_go(index);
        }
        if who_notices != 1 {
            self.server_lets_go(index);
        }
        if who_notices == 0 {
            self.links[index].up.clear();
        }
    }

    pub(super) fn stall_somebody(&mut self) {
        if let Some(index) = self.some_link(|link| link.client_open) {
            let longest = [100, 1_000, 5_000][self.random.index(3)];
            let until = self.now + self.random.between(10, longest);
            self.trace.note(self.now, format_args!("client {} reads nothing", self.links[index].client));
            self.links[index].stalled_until = until;
        }
    }

    /// For a while nobody is there, so that the document may leave memory.
    pub(super) fn everybody_leaves(&mut self) {
        self.trace.note(self.now, "everybody leaves");
        for index in 0..self.links.len() {
            self.client_lets_go(index);
            self.server_lets_go(index);
        }
        let back_at = self.now + self.random.between(1, 2 * self.habits.idle + 3_000);
        for client in &mut self.clients {
            client.back_at = client.back_at.max(back_at);
        }
    }
}

/// Takes what has arrived by now, in the order of its arrival.
fn arrived(travelling: &mut Vec<Travelling>, now: u64) -> Vec<Bytes> {
    let mut arrived: Vec<_> = travelling.extract_if(.., |one| one.due <= now).collect();
    arrived.sort_by_key(|one| one.due);
    arrived.into_iter().map(|one| one.frame).collect()
}

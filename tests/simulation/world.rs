//! One document, its clients, a server that may die, and a bad network between them, all from one seed.
//!
//! The server's parts are the real ones, from the frames of a connection down to the backend; a process is a
//! runtime whose clock stands still while nobody waits, so that killing it is dropping it.

mod network;

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Display,
    mem,
    time::Duration,
};

use bytes::Bytes;
use quire::{
    actor::TellSaved,
    config::Limits,
    document::{
        Document, Received,
        export::{self, Format},
    },
    presence::State,
    protocol,
    state_vector::StateVector,
};
use tokio::time::sleep;
use xxhash_rust::xxh3::Xxh3Default;

use self::network::Link;
use super::{
    client::{Client, Replica},
    disk::{Disk, Trouble},
    judge::{Ending, History},
    process::{Process, Store},
    random::Random,
    redis::{Redis, RedisMistake},
};

/// Turns in which things go wrong, at most.
const TURNS: u64 = 400;
/// How long everybody may take to have the same, once nothing goes wrong any more. The slowest that may happen
/// is a save that is tried again, and a client that waits before it comes back.
const CALM: u64 = 60_000;
/// How long a client waits before it comes back, at most; y-websocket waits as long.
const BACK_WITHIN: u64 = 2_500;
/// Large states of presence that fill the outbox of somebody who reads nothing.
const SHOUTS: usize = 20;

/// How the document engine fails, where it is told to.
pub const INJECTED: &str = "the simulation lets the document engine fail";

/// Milliseconds for which one node lives before another does.
const STEP: u64 = 10;

/// From here on clients that make no edits have their numbers; those of the histories end at 2^32.
const VISITORS: u64 = 1 << 40;

/// What is tried on the worlds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// Everything is as it should be.
    Sound,
    /// Worlds that are fit for a deliberate mistake, with it or without.
    With(Mistake),
    Without(Mistake),
    /// Several nodes on one Redis, which may make a mistake.
    Nodes(Option<RedisMistake>),
}

/// A deliberate mistake, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// Some sync step 2 does not arrive, although everything around it does.
    ReplyDropped,
    /// Who fell behind does not hear what was deleted meanwhile.
    ResyncWithoutDeleteSet,
    /// Clients give updates with gaps to yrs.
    GapLetThrough,
}

pub struct World {
    random: Random,
    trial: Trial,
    habits: Habits,
    /// Milliseconds.
    now: u64,
    store: Store,
    store_well_since: Option<u64>,
    nodes: Vec<Node>,
    /// How often a node was started.
    runs: u64,
    clients: Vec<Client>,
    /// Updates that several clients make, byte for byte.
    made_twice: HashSet<Bytes>,
    links: Vec<Link>,
    /// How many there have been.
    connections: u64,
    trace: Trace,
}

/// A server, and when it is there again that was stopped or killed.
#[derive(Default)]
struct Node {
    process: Option<Process>,
    restart_at: u64,
}

/// How bad this world is. Numbers are so many of a hundred turns, unless they say otherwise.
struct Habits {
    /// Whether frames are lost, doubled and reordered within a connection, which no real one does.
    lossy: bool,
    /// Milliseconds.
    latency: u64,
    cuts: u64,
    stalls: u64,
    shouts: u64,
    restarts: u64,
    rests: u64,
    engine_failures: u64,
    disk_trouble: u64,
    second_connections: u64,
    /// What only Redis does: go away, lose a connection, and lose what it had.
    redis_trouble: u64,
    redis_losses: u64,
    /// How long a document stays open after its last session, in milliseconds.
    idle: u64,
}

impl Habits {
    /// What a Redis does beside; where it loses what it had, nothing else does at the same time.
    fn with_redis(mut self, random: &mut Random) -> Self {
        self.redis_trouble = if random.percent(70) { random.between(1, 6) } else { 0 };
        if random.percent(50) {
            self.redis_losses = random.between(1, 3);
            (self.restarts, self.rests, self.engine_failures) = (0, 0, 0);
            self.idle = 1_000_000;
        }
        self
    }
}

/// What happened: a number that is equal for equal runs, and where somebody wants to read it, the lines.
pub struct Trace {
    hash: Xxh3Default,
    aloud: bool,
}

impl Trace {
    pub fn new(aloud: bool) -> Self {
        Self { hash: Xxh3Default::new(), aloud }
    }

    fn note(&mut self, now: u64, what: impl Display) {
        let line = format!("{now:>7} ms  {what}");
        self.hash.update(line.as_bytes());
        if self.aloud {
            println!("{line}");
        }
    }
}

/// Lives through a history, and answers with what everybody has at the end and the trace's number; or with what
/// went wrong.
pub fn live(seed: u64, history: History, trial: Trial, trace: Trace) -> Result<(Ending, u64), String> {
    let mut world = World::new(seed, history, trial, trace);
    world.storm()?;
    world.calm()?;
    let ending = world.end()?;
    Ok((ending, world.trace.hash.digest()))
}

impl World {
    fn new(seed: u64, history: History, trial: Trial, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let often = |random: &mut Random, percent, most| match random.percent(percent) {
            true => random.between(1, most),
            false => 0,
        };
        let lossy = match trial {
            Trial::Sound => random.percent(30),
            Trial::Nodes(_) => false,
            Trial::With(mistake) | Trial::Without(mistake) => mistake == Mistake::GapLetThrough,
        };
        let habits = Habits {
            lossy,
            latency: [2, 20, 200, 1_000][random.index(4)],
            cuts: often(&mut random, 70, 12),
            stalls: often(&mut random, 60, 15),
            shouts: often(&mut random, 50, 6),
            // What got lost on both sides is what leaves gaps.
            restarts: often(&mut random, if lossy { 80 } else { 50 }, 4),
            rests: often(&mut random, 30, 3),
            engine_failures: often(&mut random, 30, 4),
            disk_trouble: often(&mut random, 50, 4),
            second_connections: often(&mut random, 20, 5),
            redis_trouble: 0,
            redis_losses: 0,
            idle: [0, 100, 3_000][random.index(3)],
        };
        let habits = match trial {
            Trial::Nodes(_) => habits.with_redis(&mut random),
            _ => habits,
        };
        let mut made = HashSet::new();
        let updates = history.iter().flatten().map(|edit| edit.update.clone());
        let made_twice = updates.filter(|update| !made.insert(update.clone())).collect();
        let visitors = random.below(2) as usize;
        let edits = history.into_iter().chain((0..visitors).map(|_| Vec::new()));
        let clients = edits.zip(VISITORS..).map(|(edits, number)| {
            let tell_saved = match random.percent(30) {
                true => TellSaved::Echo,
                // Where the network keeps its promises: a count is of what came in order.
                false if !habits.lossy && (seed + number).is_multiple_of(2) => TellSaved::Count,
                false => TellSaved::No,
            };
            Client::new(Replica::new(trial), edits, number, tell_saved)
        });
        let clients = clients.collect();
        let (store, nodes) = match trial {
            Trial::Nodes(mistake) => {
                (Store::Redis(Redis::new(random.split(), mistake)), random.between(2, 3))
            }
            _ => (Store::Disk(Disk::new(random.split())), 1),
        };
        let trouble = Trouble { slow: [0, 5, 500, 5_000][random.index(4)], ..Trouble::default() };
        store.set_trouble(trouble, habits.redis_trouble);
        Self {
            trial,
            now: 0,
            store,
            store_well_since: trouble.well_since(0),
            nodes: (0..nodes).map(|_| Node::default()).collect(),
            runs: 0,
            clients,
            made_twice,
            links: Vec::new(),
            connections: 0,
            trace,
            habits,
            random,
        }
    }

    /// Everything that can go wrong.
    fn storm(&mut self) -> Result<(), String> {
        for _ in 0..TURNS {
            if self.clients.iter().all(|client| client.edits.is_empty()) {
                return Ok(());
            }
            let pause = match self.random.below(100) {
                0..90 => self.random.between(1, 10),
                90..98 => self.random.between(10, 300),
                _ => self.random.between(300, 4_000),
            };
            self.turn(pause)?;
            if self.random.percent(50) {
                self.somebody_edits()?;
            }
            self.something_happens()?;
        }
        Ok(())
    }

    /// Time passes, frames travel, and who lost a connection comes back.
    fn turn(&mut self, pause: u64) -> Result<(), String> {
        self.pass(pause)?;
        self.notice();
        self.start_again()?;
        for client in 0..self.clients.len() {
            if self.clients[client].back_at <= self.now && !self.is_connected(client) {
                self.connect(client)?;
            }
        }
        self.deliver_up()?;
        self.deliver_down()?;
        self.links.retain(|link| link.session.is_some() || link.client_open);
        Ok(())
    }

    /// The server does what it can do in this time, and its connections are written to.
    fn pass(&mut self, pause: u64) -> Result<(), String> {
        let end = self.now + pause;
        while self.now < end {
            // Nodes hear of each other in between.
            let step = if self.nodes.len() > 1 { (end - self.now).min(STEP) } else { pause };
            self.now += step;
            for process in self.nodes.iter().filter_map(|node| node.process.as_ref()) {
                process.runtime.block_on(async { sleep(Duration::from_millis(step)).await });
            }
            if let Store::Redis(redis) = &self.store {
                redis.tick(self.now);
            }
        }
        self.pump()
    }

    fn somebody_edits(&mut self) -> Result<(), String> {
        let client = self.random.index(self.clients.len());
        let several = if self.random.percent(10) { 10 } else { 1 };
        for _ in 0..several {
            if self.clients[client].can_edit() {
                self.edit(client)?;
            }
        }
        Ok(())
    }

    fn edit(&mut self, client: usize) -> Result<(), String> {
        if let Some(number) = self.clients[client].new_number() {
            self.load_again(client, number);
        }
        let update = self.clients[client].edit().map_err(|error| format!("client {client}: {error}"))?;
        self.trace.note(self.now, format_args!("client {client} edits, {} bytes", update.len()));
        self.tell_server(client, None, &update);
        Ok(())
    }

    /// A page that is loaded again has what it had, but another number and a new connection.
    fn load_again(&mut self, client: usize, number: u64) {
        self.trace.note(self.now, format_args!("client {client} loads its page again"));
        self.clients[client].number = number;
        // The list of what is not known to be saved is gone with the page; numbers tell of the rest.
        self.clients[client].made.clear();
        for index in 0..self.links.len() {
            if self.links[index].client == client {
                self.client_lets_go(index);
                let notices = self.now + self.random.between(1, 1_000);
                self.links[index].noticed_at = notices.min(self.links[index].noticed_at);
            }
        }
        self.clients[client].back_at = self.now + self.random.between(1, 1_000);
    }

    /// A client's news goes out on all of its connections but the one that it came from.
    fn tell_server(&mut self, client: usize, but: Option<u64>, update: &Bytes) {
        let frame = protocol::update(update);
        let to = |link: &Link| link.client == client && link.client_open && Some(link.number) != but;
        for index in 0..self.links.len() {
            if to(&self.links[index]) {
                self.send_up(index, frame.clone());
            }
        }
    }

    fn something_happens(&mut self) -> Result<(), String> {
        let Habits {
            cuts,
            stalls,
            shouts,
            restarts,
            rests,
            engine_failures,
            disk_trouble,
            second_connections,
            ..
        } = self.habits;
        if self.random.percent(cuts) {
            self.cut_somebody();
        }
        if self.random.percent(stalls) {
            self.stall_somebody();
        }
        if self.random.percent(shouts) {
            self.shout();
        }
        if self.random.percent(restarts) {
            self.stop_server()?;
        }
        if self.random.percent(rests) {
            self.everybody_leaves();
        }
        if self.random.percent(engine_failures) {
            self.break_engine()?;
        }
        if self.random.percent(disk_trouble) {
            let trouble = Trouble {
                slow: [0, 20, 3_000][self.random.index(3)],
                fails: [0, 20, 100][self.random.index(3)],
                unreadable: [0, 0, 50][self.random.index(3)],
            };
            self.trace.note(self.now, format_args!("the disk: {trouble:?}"));
            self.store.set_trouble(trouble, self.habits.redis_trouble);
            self.store_well_since = trouble.well_since(self.now);
        }
        self.something_happens_to_redis();
        if self.random.percent(second_connections) {
            let client = self.random.index(self.clients.len());
            // Not where it would hear on one connection what it has just said on the other, and take it for saved.
            if self.is_connected(client) && self.clients[client].tell_saved != TellSaved::Echo {
                self.connect(client)?;
            }
        }
        if self.random.percent(3) {
            self.send_again();
        }
        Ok(())
    }

    fn something_happens_to_redis(&mut self) {
        let Store::Redis(redis) = &self.store else { return };
        if self.random.percent(self.habits.redis_trouble) {
            match self.random.below(3) {
                0 => redis.go_away(self.random.between(1, 10_000)),
                1 => redis.cut(self.random.index(self.nodes.len()), self.random.between(1, 10_000)),
                _ => {}
            }
            self.trace.note(self.now, "Redis has trouble");
        }
        let held = self.nodes.iter().any(|node| node.process.as_ref().is_some_and(|process| process.holds()));
        // What nobody holds is lost with the Redis that had it.
        if held && self.random.percent(self.habits.redis_losses) {
            self.trace.note(self.now, "Redis loses something");
            match self.random.below(4) {
                0 => redis.forget_everything(true),
                1 => redis.forget_everything(false),
                2 => redis.go_back(),
                _ => redis.remember(),
            }
        }
    }

    fn say_presence(&mut self, index: usize, bytes: usize) {
        let client = self.links[index].client;
        self.clients[client].presence_clock += 1;
        let clock = self.clients[client].presence_clock;
        let json = Bytes::from(format!("\"{}\"", "x".repeat(bytes - 2)));
        let state = State { client: self.clients[client].number, clock, json: Some(json) };
        self.send_up(index, protocol::awareness(&[state]));
    }

    /// Somebody's presence is so large and comes so often that who reads nothing falls behind.
    fn shout(&mut self) {
        let Some(index) = self.some_link(|link| link.client_open && link.session.is_some()) else { return };
        for _ in 0..2 {
            self.stall_somebody();
        }
        self.trace.note(self.now, format_args!("client {} shouts", self.links[index].client));
        for _ in 0..SHOUTS {
            self.say_presence(index, Limits::default().presence_bytes);
        }
    }

    /// Sends an edit that was sent before.
    fn send_again(&mut self) {
        let Some(index) = self.some_link(|link| link.client_open) else { return };
        let made = &self.clients[self.links[index].client].made;
        if !made.is_empty() {
            let frame = protocol::update(&made[self.random.index(made.len())]);
            self.send_up(index, frame);
        }
    }

    fn comes_back_later(&mut self, client: usize) {
        // Some stay away for longer, and edit meanwhile.
        let longest = if self.random.percent(20) { 10 * BACK_WITHIN } else { BACK_WITHIN };
        self.clients[client].back_at = self.now + self.random.between(1, longest);
        if self.clients[client].forgetful && !self.is_connected(client) {
            self.clients[client].replica = Replica::new(self.trial);
        }
    }

    /// The document engine fails while something else waits for it, or nothing.
    fn break_engine(&mut self) -> Result<(), String> {
        let node = self.random.index(self.nodes.len());
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        self.trace.note(self.now, format_args!("the document engine of node {node} fails"));
        let document = process.open()?;
        process.runtime.spawn(async move { document.read(|_| panic!("{INJECTED}")).await });
        if self.random.percent(50) {
            self.deliver_up()?;
        }
        Ok(())
    }

    /// The server stops in good order, or is killed.
    fn stop_server(&mut self) -> Result<(), String> {
        let node = self.random.index(self.nodes.len());
        let Some(process) = self.nodes[node].process.take() else { return Ok(()) };
        self.nodes[node].restart_at = self.now + self.random.between(1, 5_000);
        if self.random.percent(50) {
            self.trace.note(self.now, format_args!("node {node} stops"));
            let had = process.read(|document| document.fingerprint().ok());
            process.runtime.block_on(process.hub.shutdown());
            // A disk that had trouble a moment ago may need longer than a stop may take.
            if let Ok(Some(had)) = had
                && self.store_well_since.is_some_and(|since| since + 10_000 < self.now)
                && matches!(self.store, Store::Disk(_))
                && self.store.document()?.fingerprint() != Ok(had)
            {
                return Err("the server stopped in good order and did not save everything".to_owned());
            }
        } else {
            self.trace.note(self.now, format_args!("node {node} is killed"));
        }
        {
            let _within = process.runtime.enter();
            for link in self.links.iter_mut().filter(|link| link.node == node) {
                link.session = None;
            }
        }
        drop(process);
        if let Store::Redis(redis) = &self.store {
            redis.forget_link(node);
        }
        for index in 0..self.links.len() {
            if self.links[index].node != node {
                continue;
            }
            let at_once = self.random.percent(70);
            let notices = self.now + if at_once { 0 } else { self.random.between(10, 5_000) };
            self.links[index].noticed_at = notices.min(self.links[index].noticed_at);
        }
        self.saved_means_saved()
    }

    /// What clients were told to be saved is on the disk.
    fn saved_means_saved(&mut self) -> Result<(), String> {
        if self.habits.redis_losses > 0 {
            // What Redis has lost is there again when it is quiet.
            return Ok(());
        }
        self.all_saved_is_there()
    }

    fn all_saved_is_there(&mut self) -> Result<(), String> {
        let mut document = self.store.document()?;
        for (number, client) in self.clients.iter().enumerate() {
            let mut lost = client.saved.iter().any(|(&id, &clock)| document.state_vector().get(id) < clock);
            for update in &client.saved_updates {
                lost |= document.receive(update.clone()) != Ok(Received::default());
            }
            if lost {
                return Err(format!("an edit of client {number} was told to be saved, and is lost"));
            }
        }
        Ok(())
    }

    fn start_again(&mut self) -> Result<(), String> {
        for number in 0..self.nodes.len() {
            if self.nodes[number].process.is_none() && self.nodes[number].restart_at <= self.now {
                self.trace.note(self.now, format_args!("node {number} starts"));
                self.runs += 1;
                let idle = Duration::from_millis(self.habits.idle);
                let process = Process::start(&self.store, number, self.runs, idle);
                self.nodes[number].process = Some(process);
            }
        }
        Ok(())
    }

    /// Nothing goes wrong any more. In an honest network whoever is connected stays so: nobody has to come
    /// anew to have everything.
    fn calm(&mut self) -> Result<(), String> {
        self.trace.note(self.now, "calm");
        self.store.set_trouble(Trouble::default(), 0);
        if let Store::Redis(redis) = &self.store {
            redis.come_back();
        }
        let now = self.now;
        self.nodes.iter_mut().for_each(|node| node.restart_at = now);
        let lossy = mem::take(&mut self.habits.lossy);
        for index in 0..self.links.len() {
            self.links[index].stalled_until = 0;
            if lossy || self.links[index].noticed_at < u64::MAX {
                self.links[index].noticed_at = self.now;
            }
        }
        self.notice();
        for client in &mut self.clients {
            client.back_at = self.now + self.random.below(BACK_WITHIN);
        }
        let (soon, late) = (self.now + CALM / 6, self.now + CALM);
        while self.now < late {
            // Whoever does not have everything soon may have to wait for a while.
            let longest = if self.now < soon { 50 } else { 1_000 };
            let pause = self.random.between(1, longest);
            self.turn(pause)?;
            for client in 0..self.clients.len() {
                while self.clients[client].can_edit() {
                    self.edit(client)?;
                }
            }
            if self.is_quiet() && self.differences()?.is_empty() {
                return Ok(());
            }
        }
        Err(format!("stuck: {}", self.differences()?.join("; ")))
    }

    fn is_quiet(&self) -> bool {
        self.nodes.iter().all(|node| node.process.is_some())
            && (0..self.clients.len()).all(|client| self.is_connected(client))
            && self.links.iter().all(|link| link.up.is_empty() && link.down.is_empty())
    }

    /// What keeps everybody from having the same.
    fn differences(&mut self) -> Result<Vec<String>, String> {
        let mut differences = Vec::new();
        let mut servers = Vec::new();
        for process in self.nodes.iter().map(|node| node.process.as_ref().ok_or("a node is down")) {
            match process?.read(|document| (document.fingerprint(), document.state_vector())) {
                Ok((fingerprint, state_vector)) => {
                    servers.push((fingerprint.map_err(|error| error.to_string())?, state_vector));
                }
                Err(error) => return Ok(vec![error]),
            }
        }
        let server = servers.swap_remove(0);
        for other in servers {
            if other.0 != server.0 {
                differences.push(format!("a node has {}, another {}", shown(&other.1), shown(&server.1)));
            }
        }
        if self.nodes.len() > 1 {
            let stored = self.store.document()?;
            if stored.fingerprint() != Ok(server.0) {
                differences.push(format!("Redis has {}", shown(&stored.state_vector())));
            }
        }
        for (number, client) in self.clients.iter().enumerate() {
            if let Some(edit) = client.edits.front() {
                differences.push(format!("client {number} cannot make an edit that needs {:?}", edit.needs));
            }
            if !self.is_connected(number) {
                differences.push(format!("client {number} is not connected"));
            }
            let waits = |link: &&Link| link.client == number && link.counted < link.given.len();
            if let Some(link) = self.links.iter().find(waits) {
                let Link { counted, given, .. } = link;
                differences
                    .push(format!("client {number} knows that {counted} of {} edits are saved", given.len()));
            }
            if client.replica.waits() > 0 {
                differences.push(format!("client {number} has gaps"));
            }
            if client.replica.fingerprint()? != server.0 {
                differences.push(format!(
                    "client {number} has {}, the server {}",
                    shown(&client.replica.state_vector()),
                    shown(&server.1)
                ));
            }
        }
        Ok(differences)
    }

    /// Everybody says what they have and leaves, the document leaves memory, and the server stops.
    fn end(&mut self) -> Result<Ending, String> {
        let mut processes = Vec::new();
        for node in &mut self.nodes {
            processes.push(node.process.take().ok_or("a node is down")?);
        }
        let process = processes.swap_remove(0);
        let everything = |document: &Document| {
            let json = export::export(document, Format::Json, &BTreeMap::new());
            (document.diff(&StateVector::default()), json)
        };
        let (state, json) = process.read(everything)?;
        let json = json.map_err(|error| format!("the export: {error}"))?;
        {
            // Sessions leave from within a process.
            let _within = process.runtime.enter();
            self.links.clear();
        }
        for process in processes {
            process.runtime.block_on(process.hub.shutdown());
        }
        process.rest(Duration::from_millis(self.habits.idle + CALM))?;
        process.runtime.block_on(process.hub.shutdown());
        drop(process);
        self.all_saved_is_there()?;
        let nothing = StateVector::default();
        let mut states = vec![
            ("the server".to_owned(), state.map_err(|error| error.to_string())?),
            (
                "the store".to_owned(),
                self.store.document()?.diff(&nothing).map_err(|error| error.to_string())?,
            ),
        ];
        for (number, client) in self.clients.iter().enumerate() {
            states.push((format!("client {number}"), client.replica.diff(&nothing)?));
        }
        let json = String::from_utf8(json).map_err(|error| format!("the export: {error}"))?;
        Ok(Ending { states, json })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Sessions leave from within the process.
        let process = self.nodes.iter().find_map(|node| node.process.as_ref());
        let _within = process.map(|process| process.runtime.enter());
        self.links.clear();
    }
}

fn shown(state_vector: &StateVector) -> String {
    let mut clocks: Vec<_> = state_vector.iter().collect();
    clocks.sort_unstable();
    format!("{clocks:?}")
}

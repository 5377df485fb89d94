//! Several nodes as real processes on one Redis, and people who stay in a document whatever happens to these.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    process::{Child, Command},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use quire::{
    lib0::{self, Reader},
    presence::State,
    protocol::{self, Message},
};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::{interval, sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message as Frame};
use yrs::{
    Doc, GetString, ReadTxn, StateVector, Text, TextRef, Transact, Update,
    updates::{decoder::Decode, encoder::Encode},
};

use super::{PATIENCE, TestServer, new_doc};

/// How soon after a fault everybody must agree again.
pub const HEALED: Duration = Duration::from_secs(10);
/// How long a client waits until it connects again.
const RECONNECT: Duration = Duration::from_millis(200);
/// How long it waits for a connection: a node that stands still takes it, and says nothing.
const CONNECT: Duration = Duration::from_secs(2);
/// How often clients say that they are still here.
const RENEW: Duration = Duration::from_secs(15);

/// A node: a process of its own. It ends with the test.
pub struct Node {
    /// Where requests go.
    pub server: TestServer,
    process: Child,
}

impl Node {
    /// One on the Redis at this address.
    pub fn start(redis: &str) -> Self {
        Self::start_with(&["--redis", redis], &[])
    }

    /// One with these arguments and variables.
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("log");
        let mut process = Command::new(env!("CARGO_BIN_EXE_quire"))
            .args(["--listen", "127.0.0.1:0", "--idle", "1"])
            .args(arguments)
            .envs(variables.iter().copied())
            // A node refuses settings that it does not know.
            .env_remove("QUIRE_TEST_LONG")
            .current_dir(folder.path())
            .stderr(File::create(&file).unwrap())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        loop {
            let log = std::fs::read_to_string(&file).unwrap();
            let address =
                log.split_once("http://").and_then(|(_, rest)| rest.split_once(char::is_whitespace));
            if let Some((address, _)) = address {
                let server = TestServer::at(folder, address.parse().unwrap());
                return Self { server, process };
            }
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < PATIENCE, "a node does not start: {log}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it without a warning.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// It stands still, with open connections.
    pub fn stop_signal(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub fn cont(&self) {
        self.signal("-CONT");
    }

    /// Its resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.server.folder.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        let process = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- the node at {}\n{}", self.server.address, self.log());
        }
        // An error: it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Somebody who has a document open, over all lost connections, as a browser's tab does.
pub struct Client {
    tab: Arc<Mutex<Tab>>,
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    staying: JoinHandle<()>,
}

/// What a browser's tab knows.
struct Tab {
    name: String,
    /// Where the document is: a node's address, and what follows `/ws/`.
    address: String,
    document: String,
    doc: Doc,
    text: TextRef,
    /// How many words were typed.
    typed: usize,
    /// Which of them came back as saved.
    saved: BTreeSet<usize>,
    clock: u32,
    /// Who is shown, and the last clock that was heard of everybody.
    here: BTreeMap<u64, (u32, Option<String>)>,
    /// How often each client came, and how often it went.
    came: BTreeMap<u64, usize>,
    went: BTreeMap<u64, usize>,
    connections: usize,
    has_document: bool,
}

impl Client {
    /// Opens a document, and waits until it is there.
    pub async fn joins(node: &Node, document: &str, name: &str) -> Self {
        let doc = new_doc();
        let text = doc.get_or_insert_text("text");
        let tab = Arc::new(Mutex::new(Tab {
            name: name.to_owned(),
            address: node.server.address.clone(),
            document: document.to_owned(),
            doc,
            text,
            typed: 0,
            saved: BTreeSet::new(),
            clock: 1,
            here: BTreeMap::new(),
            came: BTreeMap::new(),
            went: BTreeMap::new(),
            connections: 0,
            has_document: false,
        }));
        let (outgoing, to_send) = mpsc::unbounded_channel();
        let staying = tokio::spawn(stay(tab.clone(), to_send));
        let client = Self { tab, outgoing, staying };
        client.waits("it has no document", |tab| tab.has_document).await;
        client
    }

    /// From the next connection on, another node serves it.
    pub fn moves_to(&self, node: &Node) {
        self.tab().address = node.server.address.clone();
    }

    /// Writes a word at the end of the text.
    pub fn types(&self) {
        let update = self.tab().types();
        // An error: it has left.
        let _ = self.outgoing.send(protocol::update(&update).to_vec());
    }

    /// Moves the cursor.
    pub fn moves(&self) {
        let presence = self.tab().renews();
        // An error: it has left.
        let _ = self.outgoing.send(presence);
    }

    /// Leaves without a word.
    pub fn leaves(self) {}

    pub fn text(&self) -> String {
        self.tab().reads()
    }

    pub fn id(&self) -> u64 {
        self.tab().doc.client_id().get()
    }

    /// How often it has connected.
    pub fn connections(&self) -> usize {
        self.tab().connections
    }

    /// The words that it was told are saved.
    pub fn saved(&self) -> Vec<String> {
        let tab = self.tab();
        tab.saved.iter().map(|&number| tab.word(number)).collect()
    }

    pub fn typed(&self) -> Vec<String> {
        let tab = self.tab();
        (0..tab.typed).map(|number| tab.word(number)).collect()
    }

    /// Whether it shows another one.
    pub fn shows(&self, other: u64) -> bool {
        self.tab().here.get(&other).is_some_and(|(_, state)| state.is_some())
    }

    /// How often it has seen another one come, and go.
    pub fn came_and_went(&self, other: u64) -> (usize, usize) {
        let tab = self.tab();
        let of = |times: &BTreeMap<u64, usize>| times.get(&other).copied().unwrap_or(0);
        (of(&tab.came), of(&tab.went))
    }

    async fn waits(&self, otherwise: &str, what: impl Fn(&Tab) -> bool) {
        until(PATIENCE, || what(&self.tab()), || format!("{}: {otherwise}", self.tab().name)).await;
    }

    fn tab(&self) -> MutexGuard<'_, Tab> {
        self.tab.lock().unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.staying.abort();
    }
}

impl Tab {
    /// A word that nobody else writes, and that is a part of no other.
    fn word(&self, number: usize) -> String {
        format!("<{}{number}>", self.name)
    }

    fn reads(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    fn types(&mut self) -> Vec<u8> {
        let word = self.word(self.typed);
        self.typed += 1;
        let mut transaction = self.doc.transact_mut();
        let end = self.text.len(&transaction);
        self.text.insert(&mut transaction, end, &word);
        transaction.encode_update_v1()
    }

    /// What it says at the beginning of a connection.
    fn greeting(&mut self) -> [Vec<u8>; 2] {
        self.connections += 1;
        // Nobody else is shown without a connection.
        self.here.clear();
        let mut question = vec![0, 0];
        lib0::write_bytes(&mut question, &self.doc.transact().state_vector().encode_v1());
        [question, self.presence()]
    }

    fn presence(&self) -> Vec<u8> {
        let json = format!(r#"{{"name":"{}"}}"#, self.name);
        let state = State { client: self.doc.client_id().get(), clock: self.clock, json: Some(json.into()) };
        protocol::awareness(&[state]).to_vec()
    }

    fn renews(&mut self) -> Vec<u8> {
        self.clock += 1;
        self.presence()
    }

    /// Takes a message, and answers it.
    fn hears(&mut self, message: Message) -> Option<Vec<u8>> {
        match message {
            Message::SyncStep1(known) => {
                let known = StateVector::decode_v1(&known.write()).unwrap();
                let update = self.doc.transact().encode_diff_v1(&known);
                return Some(protocol::sync_step_2(&update).to_vec());
            }
            Message::SyncStep2(update) => {
                self.applies(&update);
                self.has_document = true;
            }
            Message::Update(update) => self.applies(&update),
            Message::Awareness(states) => {
                let clients: BTreeSet<_> = states.iter().map(|state| state.client).collect();
                assert_eq!(clients.len(), states.len(), "somebody is told of twice: {states:?}");
                states.into_iter().for_each(|state| self.shows(state));
            }
            Message::QueryAwareness | Message::Stateless(_) => {}
        }
        None
    }

    fn applies(&mut self, update: &[u8]) {
        self.doc.transact_mut().apply_update(Update::decode_v1(update).unwrap()).unwrap();
        // What comes back is saved, where that was asked for.
        if self.document.ends_with("?echo=saved") {
            let update = String::from_utf8_lossy(update);
            let unsaved = (0..self.typed).filter(|number| !self.saved.contains(number));
            let saved: Vec<_> = unsaved.filter(|number| update.contains(&self.word(*number))).collect();
            self.saved.extend(saved);
        }
    }

    /// Shows what is news, as y-protocols does.
    fn shows(&mut self, State { client, clock, json }: State) {
        if client == self.doc.client_id().get() {
            return;
        }
        let known = self.here.get(&client);
        let shown = known.is_some_and(|(_, state)| state.is_some());
        let newer = known.is_none_or(|(known, _)| clock > *known || (clock == *known && json.is_none()));
        if !newer {
            return;
        }
        match (shown, &json) {
            (false, Some(_)) => *self.came.entry(client).or_default() += 1,
            (true, None) => *self.went.entry(client).or_default() += 1,
            _ => {}
        }
        let state = json.map(|json| String::from_utf8_lossy(&json).into_owned());
        self.here.insert(client, (clock, state));
    }
}

/// Stays in a document.
async fn stay(tab: Arc<Mutex<Tab>>, mut to_send: mpsc::UnboundedReceiver<Vec<u8>>) {
    loop {
        let url = {
            let tab = tab.lock().unwrap();
            format!("ws://{}/ws/{}", tab.address, tab.document)
        };
        if let Ok(Ok((socket, _))) = timeout(CONNECT, connect_async(url)).await {
            // An error: the connection is lost.
            let _ = serve(&tab, socket, &mut to_send).await;
        }
        sleep(RECONNECT).await;
    }
}

async fn serve(
    tab: &Mutex<Tab>,
    mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    to_send: &mut mpsc::UnboundedReceiver<Vec<u8>>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let greeting = tab.lock().unwrap().greeting();
    for frame in greeting {
        socket.send(Frame::Binary(frame.into())).await?;
    }
    let mut renew = interval(RENEW);
    renew.reset();
    loop {
        let answer = tokio::select! {
            frame = socket.next() => match frame {
                Some(Ok(Frame::Binary(bytes))) => {
                    let message = Message::read(&mut Reader::new(&bytes)).unwrap();
                    tab.lock().unwrap().hears(message)
                }
                Some(Ok(Frame::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => None,
                Some(Err(error)) => return Err(error),
            },
            Some(frame) = to_send.recv() => Some(frame),
            _ = renew.tick() => Some(tab.lock().unwrap().renews()),
        };
        if let Some(frame) = answer {
            socket.send(Frame::Binary(frame.into())).await?;
        }
    }
}

/// People who type on, while something happens.
pub struct Typing(JoinHandle<()>);

impl Typing {
    pub fn start(clients: &[&Client]) -> Self {
        let all: Vec<_> =
            clients.iter().map(|client| (client.tab.clone(), client.outgoing.clone())).collect();
        Self(tokio::spawn(async move {
            let mut ticks = interval(Duration::from_millis(60));
            loop {
                ticks.tick().await;
                for (tab, outgoing) in &all {
                    let update = tab.lock().unwrap().types();
                    // An error: somebody has left.
                    let _ = outgoing.send(protocol::update(&update).to_vec());
                }
            }
        }))
    }

    pub async fn stop(self) {
        self.0.abort();
        // An error: it was aborted, which is what was wanted.
        let _ = self.0.await;
    }
}

/// Waits until everybody reads the same, and in it everything that anybody of them has typed.
pub async fn agree(clients: &[&Client]) -> Duration {
    let words: Vec<_> = clients.iter().flat_map(|client| client.typed()).collect();
    let agree = || {
        let texts: Vec<_> = clients.iter().map(|client| client.text()).collect();
        texts.iter().all(|text| *text == texts[0]) && has_all(&texts[0], &words)
    };
    let otherwise = || {
        let tell = |client: &&Client| {
            let text = client.text();
            let lacks: Vec<_> = words.iter().filter(|word| !text.contains(*word)).collect();
            format!("{} has {} bytes and lacks {lacks:?}", client.tab().name, text.len())
        };
        format!("they do not agree: {}", clients.iter().map(tell).collect::<Vec<_>>().join("; "))
    };
    until(HEALED, agree, otherwise).await
}

/// Whether a text has all these words.
pub fn has_all(text: &str, words: &[String]) -> bool {
    words.iter().all(|word| text.contains(word))
}

/// Waits until this holds, and tells how long it took.
pub async fn until(limit: Duration, holds: impl Fn() -> bool, otherwise: impl Fn() -> String) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < limit, "after {limit:?}: {}", otherwise());
        sleep(Duration::from_millis(20)).await;
    }
    begin.elapsed()
}

/// Whether there is time for the scenarios that take minutes.
pub fn long() -> bool {
    std::env::var_os("QUIRE_TEST_LONG").is_some()
}

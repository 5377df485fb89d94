//! Yjs itself, in a process of its own (`tests/clients/judge.mjs`): it makes the histories, and says at the end
//! what is wrong. It works ahead while the simulation runs.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use quire::update::{ClientId, Clock, Update};
use serde::{Deserialize, Deserializer};
use serde_json::{Value as Json, json};

/// What brings the packages that the judge needs.
const INSTALL: &str = "cd tests/clients && npm ci";

pub struct Judge {
    process: Child,
    requests: Option<BufWriter<ChildStdin>>,
    answers: Receiver<Answer>,
    histories: HashMap<u64, History>,
    judgements: BTreeMap<u64, Vec<String>>,
    open: usize,
}

/// For each client its edits, in order.
pub type History = Vec<Vec<Edit>>;

/// One transaction of a client.
#[derive(Debug, Clone, Deserialize)]
pub struct Edit {
    #[serde(deserialize_with = "from_base64")]
    pub update: Bytes,
    /// What its maker had: for each client the first clock that was not there.
    pub needs: Vec<(ClientId, Clock)>,
}

impl Edit {
    /// Who made it; nobody can tell where it only deletes.
    pub fn number(&self) -> Option<ClientId> {
        let update = Update::read(&self.update).expect("Yjs makes well-formed updates");
        update.sections.first().map(|section| section.client)
    }
}

/// What a world ended with.
#[derive(Debug)]
pub struct Ending {
    /// Whole documents as updates, with their owners.
    pub states: Vec<(String, Bytes)>,
    /// The server's export, as JSON.
    pub json: String,
}

#[derive(Deserialize)]
struct Answer {
    seed: u64,
    clients: Option<History>,
    problems: Option<Vec<String>>,
}

fn from_base64<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(from)?;
    BASE64_STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}

impl Judge {
    pub fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        assert!(folder.join("node_modules/yjs").exists(), "Yjs is the judge, and it is missing: {INSTALL}");
        let mut process = Command::new("node")
            .arg(folder.join("judge.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("Yjs is the judge, and node cannot be started ({error}). With Node 20.19 or newer: {INSTALL}")
            });
        let requests = process.stdin.take().map(BufWriter::new);
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let (answered, answers) = mpsc::channel();
        // A thread reads along, so that neither side can wait for the other to read.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let answer = serde_json::from_str(&line).expect("the judge answers in its own format");
                if answered.send(answer).is_err() {
                    return;
                }
            }
        });
        Self { process, requests, answers, histories: HashMap::new(), judgements: BTreeMap::new(), open: 0 }
    }

    /// Asks for a history, to be taken later.
    pub fn prepare(&mut self, seed: u64) {
        self.ask(&json!({ "seed": seed, "make": "history" }));
    }

    pub fn history(&mut self, seed: u64) -> History {
        loop {
            if let Some(history) = self.histories.remove(&seed) {
                return history;
            }
            self.hear();
        }
    }

    /// Asks for a judgement, to be taken later.
    pub fn judge(&mut self, seed: u64, ending: &Ending) {
        let states: serde_json::Map<_, _> = ending
            .states
            .iter()
            .map(|(whose, state)| (whose.clone(), BASE64_STANDARD.encode(state).into()))
            .collect();
        self.ask(&json!({ "seed": seed, "make": "judgement", "states": states, "json": ending.json }));
    }

    /// What is wrong with the worlds that were judged by now; with `all` of those that were asked about.
    pub fn problems(&mut self, all: bool) -> BTreeMap<u64, Vec<String>> {
        while all && self.open > 0 {
            self.hear();
        }
        std::mem::take(&mut self.judgements)
    }

    fn ask(&mut self, request: &Json) {
        self.open += 1;
        let requests = self.requests.as_mut().expect("it is open until the end");
        writeln!(requests, "{request}")
            .and_then(|()| requests.flush())
            .expect("the judge listens; what it said is above");
    }

    fn hear(&mut self) {
        let answer = self.answers.recv().expect("the judge answers; what it said is above");
        self.open -= 1;
        self.histories.extend(answer.clients.map(|history| (answer.seed, history)));
        let problems = answer.problems.filter(|problems| !problems.is_empty());
        self.judgements.extend(problems.map(|problems| (answer.seed, problems)));
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        // Its input ends, and with it the judge.
        self.requests = None;
        let _ = self.process.wait();
    }
}

//! Half an hour of people who come and go: a thousand documents, into which clients join, look, type, idle, leave, and come
//! back with other ids. Fails where the server takes more memory at the end than after the first five minutes, or keeps a
//! file descriptor, a task, a session or a document when everybody has gone.
//!
//! `cargo bench --bench soak`, or for as many minutes as `QUIRE_SOAK_MINUTES` says: with less than ten, memory is told, but not
//! judged.

mod quire_process;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use quire::{
    presence::State,
    protocol::{self, y_websocket::KEEP_ALIVE},
    state_vector::StateVector,
};
use quire_process::{AS_SHIPPED, Quire, Socket, insertion, try_join};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message as Frame;

/// Documents in which people are.
const DOCUMENTS: u64 = 1_000;
/// People at the same time.
const PEOPLE: u64 = 300;
/// How long a document stays in memory after its last session, in seconds: shorter than most pauses between visits.
const IDLE: &str = "5";
/// From when on memory is compared.
const SETTLED: Duration = Duration::from_secs(300);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Of so many looks the mean is taken, at either end: people come and go by chance, and so does memory.
const LOOKS: usize = 6;
/// How much more it may be at the end.
const MAX_GROWTH: f64 = 1.05;
/// The store opens its four readers when they are first needed, each with the files of the database and its log.
const READERS_FILES: usize = 8;
/// How long it may take until nothing is left when everybody has gone.
const GONE_WITHIN: Duration = Duration::from_secs(60);

static CLIENT: AtomicU64 = AtomicU64::new(1);

/// Small numbers that look random.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// How long this lasts.
#[derive(Clone, Copy)]
struct Course {
    start: Instant,
    length: Duration,
}

impl Course {
    /// After this time memory is as large as it should ever be.
    fn settles(self) -> Duration {
        SETTLED.min(self.length / 2)
    }

    /// The document with this number. It is written for a while, and then one without a letter takes its place, another one
    /// each moment: so there is as much in a thousand documents at the end as there was when memory was first looked at.
    fn document(self, number: u64) -> String {
        let place = number as f64 / DOCUMENTS as f64;
        let edition = (self.start.elapsed().as_secs_f64() / self.settles().as_secs_f64() + place) as u64;
        format!("/ws/soak/{number}/{edition}")
    }

    fn goes_on(self) -> bool {
        self.start.elapsed() < self.length
    }
}

/// What is left over, or is not.
#[derive(Debug, Clone, Copy)]
struct Open {
    sessions: usize,
    documents: usize,
    tasks: usize,
    files: usize,
}

impl Open {
    async fn at(quire: &Quire) -> Self {
        let metrics = String::from_utf8(quire.get("/metrics").await).expect("UTF-8");
        let sum = |name: &str| {
            let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.rsplit(' ').next());
            lines.map(|value| value.parse::<usize>().expect("a number")).sum()
        };
        let (sessions, documents, tasks) =
            (sum("quire_sessions{"), sum("quire_documents "), sum("quire_tasks "));
        Self { sessions, documents, tasks, files: quire.open_files() }
    }

    /// Whether nothing is here that was not there at the start.
    fn is_no_more_than(&self, before: &Self) -> bool {
        self.sessions <= before.sessions
            && self.documents <= before.documents
            && self.tasks <= before.tasks
            && self.files <= before.files + READERS_FILES
    }
}

/// A person who visits documents until it is time to go.
async fn lives(address: String, number: u64, course: Course) -> (u64, u64) {
    let mut dice = Dice(number);
    let (mut visits, mut edits) = (0, 0);
    while course.goes_on() {
        sleep(Duration::from_millis(dice.throw(4_000))).await;
        edits += visits_once(&address, &course.document(dice.throw(DOCUMENTS)), &mut dice).await;
        visits += 1;
    }
    (visits, edits)
}

/// Opens a document, does something in it, and goes; answers how many edits it was.
async fn visits_once(address: &str, document: &str, dice: &mut Dice) -> u64 {
    let mut socket = try_join(address, document).await.expect("a connection");
    let client = CLIENT.fetch_add(1, Ordering::Relaxed);
    let here = State { client, clock: 1, json: Some(r#"{"user":{"name":"Alice"}}"#.into()) };
    for frame in [protocol::sync_step_1(&StateVector::default()), protocol::awareness(&[here])] {
        socket.send(Frame::Binary(frame)).await.expect("an open connection");
    }
    let edits = match dice.throw(4) {
        0 => idles(&mut socket, dice).await,
        _ => types(&mut socket, client, dice).await,
    };
    match dice.throw(3) {
        // A line that is cut.
        0 => drop(socket),
        _ => {
            // An error: it is closed already.
            let _ = socket.close(None).await;
        }
    }
    edits
}

async fn types(socket: &mut Socket, client: u64, dice: &mut Dice) -> u64 {
    let edits = 1 + dice.throw(30);
    for clock in 0..edits {
        let update = insertion(client, clock);
        socket.send(Frame::Binary(protocol::update(&update))).await.expect("an open connection");
        reads(socket, Duration::from_millis(20 + dice.throw(400))).await;
    }
    edits
}

/// Stays for up to twenty seconds, and only says that she is still here.
async fn idles(socket: &mut Socket, dice: &mut Dice) -> u64 {
    for _ in 0..dice.throw(5) {
        reads(socket, Duration::from_secs(5)).await;
        socket.send(Frame::Binary(KEEP_ALIVE.into())).await.expect("an open connection");
    }
    0
}

/// Takes whatever comes for so long.
async fn reads(socket: &mut Socket, during: Duration) {
    let reading = async {
        while let Some(frame) = socket.next().await {
            frame.expect("an open connection");
        }
        panic!("the server has closed the connection");
    };
    // It ends by the time only.
    let _: Result<(), _> = timeout(during, reading).await;
}

fn mean(looks: &[f64]) -> f64 {
    looks.iter().sum::<f64>() / looks.len() as f64
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let minutes =
        std::env::var("QUIRE_SOAK_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(30);
    let (quire, _) = Quire::start_with(&["--idle", IDLE, "--max-new-connections-per-address", "0"]);
    let before = Open::at(&quire).await;
    let course = Course { start: Instant::now(), length: Duration::from_secs(minutes * 60) };
    let people: Vec<_> =
        (0..PEOPLE).map(|number| tokio::spawn(lives(quire.address.clone(), number, course))).collect();
    let (mut looks, mut at_settled) = (Vec::new(), None);
    while course.goes_on() {
        sleep(LOOK).await;
        looks.push(quire.memory_mb());
        if course.start.elapsed() >= course.settles() {
            at_settled.get_or_insert(looks.len());
        }
        if looks.len() % LOOKS == 0 {
            let (seconds, open) = (course.start.elapsed().as_secs(), Open::at(&quire).await);
            println!("{seconds:5} s: {:.1} MB, {open:?}", mean(&looks[looks.len() - LOOKS..]));
        }
    }
    let (mut visits, mut edits) = (0, 0);
    for person in people {
        let (visited, edited) = person.await.expect("a person");
        (visits, edits) = (visits + visited, edits + edited);
    }
    let gone = Instant::now();
    let mut after = Open::at(&quire).await;
    while !after.is_no_more_than(&before) && gone.elapsed() < GONE_WITHIN {
        sleep(Duration::from_secs(1)).await;
        after = Open::at(&quire).await;
    }
    // From the middle of the first looks to that of the last ones.
    let settled = at_settled.expect("it took its time");
    let settled = mean(&looks[settled - LOOKS / 2..settled + LOOKS / 2]);
    let at_end = mean(&looks[looks.len() - LOOKS..]);
    println!("{visits} visits, {edits} edits, {:.1} s of CPU", quire.cpu());
    println!(
        "memory: {settled:.1} MB when it had settled, {at_end:.1} MB at the end, {:.1} MB when all had gone",
        quire.memory_mb()
    );
    println!(
        "left over {:?} after everybody had gone: {after:?}; at the start it was {before:?}",
        gone.elapsed()
    );
    quire.stop();
    assert!(after.is_no_more_than(&before), "something is left over");
    // In less time the allocator and the store's caches are still filling.
    let is_settled = course.settles() == SETTLED;
    assert!(!AS_SHIPPED || !is_settled || at_end <= settled * MAX_GROWTH, "memory grows");
}

//! People who type, and what the others in their documents hear of it: everything, and how late.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::{Place, all_are_here};
use crate::{
    dialect::Event,
    figures::{Figures, Latency, now},
    process::Processes,
    session::Session,
    update::{insertion, ranges},
};

/// What may still be missing this long after the last update was sent will never come.
const GRACE: Duration = Duration::from_secs(15);
/// The ramp ends where an update takes longer than this,
const LATE_MS: f64 = 100.0;
/// or where this long after the last one something is missing.
const DRAIN: Duration = Duration::from_secs(1);
/// Where the ramp begins, in updates a second.
const SLOWEST: f64 = 200.0;
/// From one step of the ramp to the next.
const STEEPNESS: f64 = 1.4;
/// How many sessions join at once.
const AT_ONCE: usize = 50;

/// Who does what.
#[derive(Clone)]
struct Shape {
    name: String,
    documents: usize,
    members: usize,
    /// The first of the members type.
    writers: usize,
    /// In all documents together, in a second.
    updates: f64,
    duration: Duration,
}

/// What was typed in a document, and what its members heard of it. Writers have the clients 1 and up.
struct Hall {
    /// Of each writer, when it sent each letter.
    sent: Vec<Vec<u32>>,
    /// Of each member, how much of each writer it has.
    heard: Vec<Vec<u64>>,
}

/// Documents with people in them.
struct Crowd {
    shape: Shape,
    sessions: Vec<Rc<Session>>,
    halls: Vec<Rc<RefCell<Hall>>>,
    latency: Rc<RefCell<Latency>>,
}

/// One document with ten who type.
pub(super) async fn fan_out(place: &Place, members: usize, updates: u32) -> Result<Figures> {
    let crowd = Crowd::gather(
        place,
        Shape {
            name: "fan-out".to_owned(),
            documents: 1,
            members,
            writers: 10,
            updates: f64::from(updates),
            duration: place.duration,
        },
    )
    .await?;
    let mut figures = crowd.type_on(place, GRACE).await?;
    figures.insert("memory_mb".to_owned(), place.server.memory()? / 1024.0);
    Ok(figures)
}

/// Many documents with two people in each, of whom one types a letter a second.
pub(super) async fn documents(place: &Place, documents: usize) -> Result<Figures> {
    let before = place.server.memory()?;
    let start = Instant::now();
    let crowd = Crowd::gather(
        place,
        Shape {
            name: "small".to_owned(),
            documents,
            members: 2,
            writers: 1,
            updates: documents as f64,
            duration: place.duration,
        },
    )
    .await?;
    let joins = (documents * 2) as f64 / start.elapsed().as_secs_f64();
    let mut figures = crowd.type_on(place, GRACE).await?;
    figures.insert("joins_per_second".to_owned(), joins);
    figures.insert("kib_per_document".to_owned(), (place.server.memory()? - before) / documents as f64);
    Ok(figures)
}

/// 100 members of whom ten type, faster and faster: the highest rate at which everything came in time.
pub(super) async fn ramp(place: &Place) -> Result<Figures> {
    let mut updates = SLOWEST;
    let mut best = None;
    // A hiccup of the machine is not the end of the ramp: each rate has two tries.
    while let Some(figures) = match climb(place, updates).await? {
        None => climb(place, updates).await?,
        done => done,
    } {
        best = Some(figures);
        updates *= STEEPNESS;
    }
    best.with_context(|| format!("{SLOWEST} updates a second are too many already"))
}

/// One step of the ramp; `None` if the server was too slow for it.
async fn climb(place: &Place, updates: f64) -> Result<Option<Figures>> {
    static STEP: AtomicUsize = AtomicUsize::new(0);
    let shape = Shape {
        name: format!("ramp-{}", STEP.fetch_add(1, Ordering::Relaxed)),
        documents: 1,
        members: 100,
        writers: 10,
        updates,
        duration: Duration::from_secs(2),
    };
    let crowd = Crowd::gather(place, shape).await?;
    let step = crowd.type_on(place, DRAIN).await;
    crowd.leave();
    // What this step left behind is not the next one's.
    sleep(Duration::from_millis(300)).await;
    // An error: a session was sent away, since it was too slow.
    Ok(step.ok().filter(|figures| figures["missing"] == 0.0 && figures["p99_ms"] <= LATE_MS))
}

impl Crowd {
    async fn gather(place: &Place, shape: Shape) -> Result<Self> {
        let latency = Rc::new(RefCell::new(Latency::new()));
        let mut halls = Vec::new();
        let mut sessions = Vec::new();
        for _ in 0..shape.documents {
            halls.push(Rc::new(RefCell::new(Hall {
                sent: vec![Vec::new(); shape.writers],
                heard: vec![vec![0; shape.writers]; shape.members],
            })));
        }
        // In each document one comes first: one of the peers hangs when two open a document in the same moment.
        for member in [0..1, 1..shape.members] {
            let seats: Vec<_> = member
                .flat_map(|member| (0..shape.documents).map(move |document| (document, member)))
                .collect();
            for some in seats.chunks(AT_ONCE) {
                let mut joins = Vec::new();
                for &(document, member) in some {
                    let (hall, latency) = (halls[document].clone(), latency.clone());
                    let (target, name) = (place.target.clone(), format!("{}-{document}", shape.name));
                    joins.push(tokio::task::spawn_local(async move {
                        let hear = move |event: Event<'_>, now| {
                            if let Event::Update(update) | Event::Whole(update) = event {
                                hall.borrow_mut().hear(member, update, now, &mut latency.borrow_mut());
                            }
                        };
                        target.join(member, &name, hear).await
                    }));
                }
                for join in joins {
                    sessions.push(join.await??);
                }
            }
        }
        Ok(Self { shape, sessions, halls, latency })
    }

    fn leave(&self) {
        self.sessions.iter().for_each(|session| session.leave());
    }

    /// Types for as long as the shape says, and waits until everybody has heard everything.
    async fn type_on(&self, place: &Place, grace: Duration) -> Result<Figures> {
        let Shape { documents, members, writers, updates, duration, .. } = self.shape;
        let cpu = place.server.cpu()?;
        let generator = Processes(vec![std::process::id()]);
        let own_cpu = generator.cpu()?;
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < duration {
            let due = (start.elapsed().as_secs_f64() * updates) as usize;
            for number in sent..due {
                let (document, writer) = (number % documents, number / documents % writers);
                self.type_letter(document, writer);
            }
            sent = due.max(sent);
            sleep(Duration::from_millis(1)).await;
        }
        let expected = (sent * (members - 1)) as u64;
        let end = Instant::now();
        while self.latency.borrow().count() < expected && end.elapsed() < grace {
            sleep(Duration::from_millis(2)).await;
        }
        let wall = start.elapsed().as_secs_f64();
        let cpu = (place.server.cpu()? - cpu).as_secs_f64();
        let own_cpu = (generator.cpu()? - own_cpu).as_secs_f64();
        all_are_here(&self.sessions)?;
        ensure!(sent > 0, "no update was sent in {duration:?}");
        let latency = self.latency.borrow();
        let delivered = latency.count();
        let mut figures = Figures::new();
        latency.write(&mut figures, "");
        figures.insert("cpu_us_per_delivery".to_owned(), cpu * 1e6 / delivered.max(1) as f64);
        figures.insert("cpu_us_per_update".to_owned(), cpu * 1e6 / sent as f64);
        figures.insert("updates_per_second".to_owned(), sent as f64 / duration.as_secs_f64());
        figures.insert("deliveries_per_second".to_owned(), delivered as f64 / wall);
        figures.insert("server_cpu_percent".to_owned(), cpu * 100.0 / wall);
        figures.insert("generator_cpu_percent".to_owned(), own_cpu * 100.0 / wall);
        figures.insert("missing".to_owned(), (expected - delivered) as f64);
        Ok(figures)
    }

    fn type_letter(&self, document: usize, writer: usize) {
        let mut hall = self.halls[document].borrow_mut();
        let clock = hall.sent[writer].len() as u64;
        hall.sent[writer].push(now());
        drop(hall);
        // Those who join first are the first member of each document, then the others, member by member.
        let session = &self.sessions[writer * self.shape.documents + document];
        session.update(&insertion(writer as u64 + 1, clock, "x"));
    }
}

impl Hall {
    /// Counts what is new, wherever it comes from: one frame may bring many updates, and an update may come twice.
    fn hear(&mut self, member: usize, update: &[u8], now: u32, latency: &mut Latency) {
        ranges(update, |client, clock, length| {
            let writer = client as usize - 1;
            let heard = &mut self.heard[member][writer];
            // What is behind a gap is not here yet: it cannot be shown.
            if writer == member || clock > *heard {
                return;
            }
            for new in *heard..clock + length {
                latency.took(self.sent[writer][new as usize], now);
            }
            *heard = (*heard).max(clock + length);
        })
        .expect("the server hands on what was typed");
    }
}

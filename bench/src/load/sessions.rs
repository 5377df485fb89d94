//! People who come, stay without a word, or go.

use std::{
    cell::{Cell, RefCell},
    fs,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{task::spawn_local, time::sleep};

use super::{Place, all_are_here};
use crate::{
    dialect::Event,
    figures::{Figures, Latency, now},
    paper::{CLOCKS, Paper, clocks},
    session::{Session, Target},
    update::insertion,
};

/// The document with the paper.
const PAPER: &str = "paper";
/// Some servers bring a document behind the answer to a join.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// How many sessions join at once.
const AT_ONCE: usize = 50;
/// What the generator needs beside its sessions.
const OTHER_FILES: usize = 200;
const IDLE_DOCUMENTS: usize = 500;

const CHURN_SLOTS: usize = 64;
const CHURN_DOCUMENTS: usize = 100;
const CHURN_LETTERS: usize = 3_000;

/// Sessions that do nothing.
pub(super) async fn idle(place: &Place, wanted: usize) -> Result<Figures> {
    let count = wanted.min(open_files()?.saturating_sub(OTHER_FILES));
    let memory = place.server.memory()?;
    let cpu = place.server.cpu()?;
    let start = Instant::now();
    let mut sessions = Vec::with_capacity(count);
    let numbers: Vec<_> = (0..count).collect();
    // In each document one comes first, see there.
    for some in numbers[..IDLE_DOCUMENTS].chunks(AT_ONCE).chain(numbers[IDLE_DOCUMENTS..].chunks(AT_ONCE)) {
        let join = |number: usize| {
            let target = place.target.clone();
            spawn_local(async move {
                target.join(number, &format!("idle-{}", number % IDLE_DOCUMENTS), |_, _| ()).await
            })
        };
        let joins: Vec<_> = some.iter().copied().map(join).collect();
        for join in joins {
            sessions.push(join.await??);
        }
    }
    let connected = start.elapsed().as_secs_f64();
    let connect_cpu = (place.server.cpu()? - cpu).as_secs_f64();
    sleep(Duration::from_secs(1)).await;
    let cpu = place.server.cpu()?;
    sleep(place.duration).await;
    let idle_cpu = (place.server.cpu()? - cpu).as_secs_f64();
    all_are_here(&sessions)?;
    let mut figures = Figures::new();
    figures.insert("sessions".to_owned(), count as f64);
    figures.insert("kib_per_session".to_owned(), (place.server.memory()? - memory) / count as f64);
    figures.insert("joins_per_second".to_owned(), count as f64 / connected);
    figures.insert("cpu_us_per_join".to_owned(), connect_cpu * 1e6 / count as f64);
    figures.insert("idle_cpu_percent".to_owned(), idle_cpu * 100.0 / place.duration.as_secs_f64());
    Ok(figures)
}

/// How many files this process may have open.
fn open_files() -> Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits").context("/proc/self/limits cannot be read")?;
    let line =
        limits.lines().find(|line| line.starts_with("Max open files")).context("no limit of open files")?;
    Ok(line.split_whitespace().nth(3).context("no limit of open files")?.parse()?)
}

/// Puts the paper into a document, and leaves when the server had time to store it.
pub(super) async fn put_paper(place: &Place) -> Result<Figures> {
    let paper = Paper::read()?;
    let session = place.target.join(0, PAPER, |_, _| ()).await?;
    session.update(&paper.whole);
    // Some servers store only after ten seconds; that it was all there is seen by who joins.
    sleep(Duration::from_secs(11)).await;
    all_are_here(&[session])?;
    Ok(Figures::new())
}

/// People who join the document with the paper at the same moment.
pub(super) async fn join(place: &Place, people: usize) -> Result<Figures> {
    let cpu = place.server.cpu()?;
    let bytes = Rc::new(Cell::new(0));
    let latency = Rc::new(RefCell::new(Latency::new()));
    let start = Instant::now();
    let joins = (0..people).map(|number| {
        let (target, bytes, latency) = (place.target.clone(), bytes.clone(), latency.clone());
        spawn_local(async move {
            let began = now();
            let session = join_whole(&target, number, PAPER, CLOCKS, &bytes).await?;
            latency.borrow_mut().took(began, now());
            anyhow::Ok(session)
        })
    });
    let mut sessions = Vec::new();
    for join in joins.collect::<Vec<_>>() {
        sessions.push(join.await??);
    }
    let took = start.elapsed().as_secs_f64();
    let cpu = (place.server.cpu()? - cpu).as_secs_f64();
    all_are_here(&sessions)?;
    let mut figures = Figures::new();
    latency.borrow().write(&mut figures, "");
    figures.insert("all_ms".to_owned(), took * 1e3);
    figures.insert("cpu_ms".to_owned(), cpu * 1e3);
    figures.insert("kb_per_join".to_owned(), bytes.get() as f64 / 1e3 / people as f64);
    figures.insert("memory_mb".to_owned(), place.server.memory()? / 1024.0);
    Ok(figures)
}

/// Joins, and waits until this many clocks have come: they need not be in the answer to the join.
async fn join_whole(
    target: &Target,
    number: usize,
    document: &str,
    wanted: u64,
    bytes: &Rc<Cell<usize>>,
) -> Result<Rc<Session>> {
    let start = Instant::now();
    let here = Rc::new(Cell::new(0));
    let hear = {
        let (here, bytes) = (here.clone(), bytes.clone());
        move |event: Event<'_>, _: u32| {
            if let Event::Whole(update) | Event::Update(update) = event {
                here.set(clocks(update).max(here.get()));
                bytes.set(bytes.get() + update.len());
            }
        }
    };
    let session = target.join(number, document, hear).await?;
    while here.get() < wanted {
        ensure!(
            start.elapsed() < WHOLE_WITHIN,
            "{} of {wanted} clocks came to who joined {document}",
            here.get()
        );
        sleep(Duration::from_millis(1)).await;
    }
    Ok(session)
}

/// People who join, get the document, and leave, one after the other in each of some slots.
pub(super) async fn churn(place: &Place) -> Result<Figures> {
    let letters = "x".repeat(CHURN_LETTERS);
    let mut hosts = Vec::new();
    for document in 0..CHURN_DOCUMENTS {
        let host = place.target.join(0, &churned(document), |_, _| ()).await?;
        host.update(&insertion(1, 0, &letters));
        hosts.push(host);
    }
    sleep(Duration::from_secs(1)).await;
    let cpu = place.server.cpu()?;
    let latency = Rc::new(RefCell::new(Latency::new()));
    let start = Instant::now();
    let slots = (0..CHURN_SLOTS).map(|slot| {
        let (target, latency, duration) = (place.target.clone(), latency.clone(), place.duration);
        spawn_local(async move {
            let bytes = Rc::default();
            let mut document = slot;
            while start.elapsed() < duration {
                let began = now();
                let name = churned(document % CHURN_DOCUMENTS);
                let session = join_whole(&target, 0, &name, CHURN_LETTERS as u64, &bytes).await?;
                latency.borrow_mut().took(began, now());
                session.leave();
                document += CHURN_SLOTS;
            }
            anyhow::Ok(())
        })
    });
    for slot in slots.collect::<Vec<_>>() {
        slot.await??;
    }
    let took = start.elapsed().as_secs_f64();
    let cpu = (place.server.cpu()? - cpu).as_secs_f64();
    all_are_here(&hosts)?;
    let latency = latency.borrow();
    let mut figures = Figures::new();
    latency.write(&mut figures, "");
    figures.insert("cpu_us_per_join".to_owned(), cpu * 1e6 / latency.count() as f64);
    figures.insert("joins_per_second".to_owned(), latency.count() as f64 / took);
    figures.insert("memory_mb".to_owned(), place.server.memory()? / 1024.0);
    Ok(figures)
}

fn churned(document: usize) -> String {
    format!("churn-{document}")
}

//! One of twenty readers stops reading for a while: what the others notice, what the server keeps for it, and when it
//! has caught up.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::time::sleep;

use super::{Place, all_are_here};
use crate::{
    dialect::Event,
    figures::{Figures, Latency, now},
    session::Session,
    update::{insertion, ranges},
};

const READERS: usize = 20;
const UPDATES_PER_SECOND: f64 = 1_000.0;
const LETTERS: usize = 1024;
/// How long it stops: until the kernel's buffers are long full.
const STALL: Duration = Duration::from_secs(20);
/// After this long the slow one will never catch up.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(20);

struct Page {
    /// When each update was sent.
    sent: Vec<u32>,
    /// Of each reader, how many it has.
    heard: Vec<usize>,
    /// Of the readers who always read.
    latency: Latency,
}

pub(super) async fn stall(place: &Place) -> Result<Figures> {
    let page =
        Rc::new(RefCell::new(Page { sent: Vec::new(), heard: vec![0; READERS], latency: Latency::new() }));
    let mut sessions = vec![place.target.join(0, "stall", |_, _| ()).await?];
    for reader in 0..READERS {
        let page = page.clone();
        let hear = move |event: Event<'_>, now| {
            if let Event::Update(update) | Event::Whole(update) = event {
                page.borrow_mut().hear(reader, update, now);
            }
        };
        sessions.push(place.target.join(reader, "stall", hear).await?);
    }
    let slow = &sessions[1];
    type_on(&sessions[0], &page, place.duration).await;
    let before = std::mem::replace(&mut page.borrow_mut().latency, Latency::new());
    let memory = place.server.memory()?;
    let cpu = place.server.cpu()?;
    slow.pause(true);
    let read_by_all = page.borrow().sent.len();
    type_on(&sessions[0], &page, STALL).await;
    let cpu = (place.server.cpu()? - cpu).as_secs_f64();
    let grown = place.server.memory()? - memory;
    slow.pause(false);
    let end = Instant::now();
    while page.borrow().missing() > 0 && end.elapsed() < CATCH_UP_WITHIN {
        sleep(Duration::from_millis(1)).await;
    }
    let caught_up = end.elapsed().as_secs_f64();
    let page = page.borrow();
    let mut figures = Figures::new();
    figures.insert("sent_away".to_owned(), f64::from(u8::from(slow.failure().is_some())));
    all_are_here(&sessions[2..])?;
    before.write(&mut figures, "before_");
    page.latency.write(&mut figures, "");
    figures.insert("grown_mb".to_owned(), grown / 1024.0);
    figures.insert(
        "written_mb".to_owned(),
        ((page.sent.len() - read_by_all) * LETTERS) as f64 / 1024.0 / 1024.0,
    );
    figures.insert("catch_up_ms".to_owned(), caught_up * 1e3);
    figures.insert("cpu_percent".to_owned(), cpu * 100.0 / STALL.as_secs_f64());
    figures.insert("missing".to_owned(), page.missing() as f64);
    Ok(figures)
}

async fn type_on(writer: &Session, page: &RefCell<Page>, duration: Duration) {
    let letters = "x".repeat(LETTERS);
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < duration {
        let due = (start.elapsed().as_secs_f64() * UPDATES_PER_SECOND) as usize;
        for _ in sent..due {
            let mut page = page.borrow_mut();
            let clock = (page.sent.len() * LETTERS) as u64;
            page.sent.push(now());
            writer.update(&insertion(1, clock, &letters));
        }
        sent = due;
        sleep(Duration::from_millis(1)).await;
    }
}

impl Page {
    fn hear(&mut self, reader: usize, update: &[u8], now: u32) {
        ranges(update, |_, clock, length| {
            let heard = &mut self.heard[reader];
            // What is behind a gap is not here yet: it cannot be shown. The ranges of a diff are of any length.
            let (first, end) = (clock as usize / LETTERS, (clock + length) as usize / LETTERS);
            if first > *heard || end <= *heard {
                return;
            }
            for new in *heard..end {
                // The slow one is not one of the others.
                if reader != 0 {
                    self.latency.took(self.sent[new], now);
                }
            }
            *heard = end;
        })
        .expect("the server hands on what was typed");
    }

    fn missing(&self) -> usize {
        self.heard.iter().map(|heard| self.sent.len() - heard).sum()
    }
}

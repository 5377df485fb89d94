//! People whose carets move, and what the others see of it.
//!
//! A server may leave out a state that a newer one has overtaken. Nobody may miss the last one.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::time::sleep;

use super::{Place, all_are_here};
use crate::{
    dialect::{Event, presences},
    figures::{Figures, Latency, now},
};

/// After this long the last state will never come.
const GRACE: Duration = Duration::from_secs(15);

struct Room {
    latency: Latency,
    /// Of each person, when each state was sent. The first has the clock 1.
    sent: Vec<Vec<u32>>,
    /// Of each person, the latest clock of each other.
    seen: Vec<Vec<u32>>,
}

/// So many people, each of whom moves so often a second.
pub(super) async fn moves(place: &Place, people: usize, per_second: usize) -> Result<Figures> {
    let room = Rc::new(RefCell::new(Room {
        latency: Latency::new(),
        sent: vec![Vec::new(); people],
        seen: vec![vec![0; people]; people],
    }));
    let mut sessions = Vec::new();
    for person in 0..people {
        let room = room.clone();
        let hear = move |event: Event<'_>, now| {
            if let Event::Presence(message) = event {
                room.borrow_mut().see(person, message, now);
            }
        };
        sessions.push(place.target.join(person, "presence", hear).await?);
    }
    let cpu = place.server.cpu()?;
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < place.duration {
        let due = (start.elapsed().as_secs_f64() * (people * per_second) as f64) as usize;
        for number in sent..due {
            let person = number % people;
            let mut room = room.borrow_mut();
            room.sent[person].push(now());
            let clock = room.sent[person].len() as u64;
            drop(room);
            let state = format!(
                r##"{{"user":{{"name":"Person {person}","color":"#30bced"}},"cursor":{{"anchor":{clock},"head":{clock}}}}}"##
            );
            sessions[person].presence(person as u64 + 1, clock, &state);
        }
        sent = due;
        sleep(Duration::from_millis(1)).await;
    }
    let end = Instant::now();
    while room.borrow().missing() > 0 && end.elapsed() < GRACE {
        sleep(Duration::from_millis(10)).await;
    }
    let cpu = (place.server.cpu()? - cpu).as_secs_f64();
    all_are_here(&sessions)?;
    let room = room.borrow();
    let mut figures = Figures::new();
    room.latency.write(&mut figures, "");
    figures.insert("cpu_us_per_move_and_reader".to_owned(), cpu * 1e6 / (sent * (people - 1)) as f64);
    figures.insert(
        "seen_percent".to_owned(),
        room.latency.count() as f64 * 100.0 / (sent * (people - 1)) as f64,
    );
    figures.insert("missing".to_owned(), room.missing() as f64);
    figures.insert("memory_mb".to_owned(), place.server.memory()? / 1024.0);
    Ok(figures)
}

impl Room {
    fn see(&mut self, person: usize, message: &[u8], now: u32) {
        presences(message, |client, clock| {
            let other = client as usize - 1;
            let seen = &mut self.seen[person][other];
            if other != person && clock as u32 > *seen {
                *seen = clock as u32;
                self.latency.took(self.sent[other][clock as usize - 1], now);
            }
        })
        .expect("the server hands on what was sent");
    }

    /// How many last states were not seen, by all people together.
    fn missing(&self) -> usize {
        let last: Vec<_> = self.sent.iter().map(|sent| sent.len() as u32).collect();
        let missed = |(person, seen): (usize, &Vec<u32>)| {
            (0..last.len()).filter(|&other| other != person && seen[other] != last[other]).count()
        };
        self.seen.iter().enumerate().map(missed).sum()
    }
}

//! How long a writer waits until it is told that its edit is taken, in Hocuspocus' protocol. What that is worth, each
//! server says for itself: Quire that it is on disk, Hocuspocus that it is in memory.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::{Place, all_are_here};
use crate::{
    dialect::{Dialect, Event},
    figures::{Figures, Latency, now},
    update::insertion,
};

const WRITERS: usize = 100;
const UPDATES_PER_SECOND: f64 = 1_000.0;
/// After this long an answer will never come.
const GRACE: Duration = Duration::from_secs(15);

pub(super) async fn acknowledged(place: &Place) -> Result<Figures> {
    ensure!(place.target.dialect == Dialect::Hocuspocus, "only Hocuspocus' protocol tells what is saved");
    let latency = Rc::new(RefCell::new(Latency::new()));
    let mut sessions = Vec::new();
    let mut waiting = Vec::new();
    for writer in 0..WRITERS {
        // When each was sent that is not answered yet; the first answer is to the sync and not measured.
        let sent = Rc::new(RefCell::new(VecDeque::new()));
        let hear = {
            let (sent, latency) = (sent.clone(), latency.clone());
            move |event: Event<'_>, now| match event {
                Event::Ask => sent.borrow_mut().push_back(None),
                Event::Saved => {
                    let sent = sent.borrow_mut().pop_front().expect("an answer to something");
                    if let Some(sent) = sent {
                        latency.borrow_mut().took(sent, now);
                    }
                }
                _ => {}
            }
        };
        sessions.push(place.target.join(writer, &format!("saved-{writer}"), hear).await?);
        waiting.push(sent);
    }
    sleep(Duration::from_secs(1)).await;
    let cpu = place.server.cpu()?;
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < place.duration {
        let due = (start.elapsed().as_secs_f64() * UPDATES_PER_SECOND) as usize;
        for number in sent..due {
            let writer = number % WRITERS;
            waiting[writer].borrow_mut().push_back(Some(now()));
            sessions[writer].update(&insertion(1, (number / WRITERS) as u64, "x"));
        }
        sent = due;
        sleep(Duration::from_millis(1)).await;
    }
    let end = Instant::now();
    while latency.borrow().count() < sent as u64 && end.elapsed() < GRACE {
        sleep(Duration::from_millis(1)).await;
    }
    let cpu = (place.server.cpu()? - cpu).as_secs_f64();
    all_are_here(&sessions)?;
    let latency = latency.borrow();
    let mut figures = Figures::new();
    latency.write(&mut figures, "");
    figures.insert("cpu_us_per_update".to_owned(), cpu * 1e6 / sent as f64);
    figures.insert("missing".to_owned(), (sent as u64 - latency.count()) as f64);
    Ok(figures)
}

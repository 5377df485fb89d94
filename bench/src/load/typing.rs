//! A whole paper, one update per edit, as fast as the server takes them, while somebody watches.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::{Place, all_are_here};
use crate::{
    dialect::Event,
    figures::Figures,
    paper::{CLOCKS, Paper, clocks},
};

/// A server that takes longer is not waited for.
const WITHIN: Duration = Duration::from_secs(60);
/// How far the writer may be ahead of the socket.
const AHEAD: usize = 64 * 1024;

pub(super) async fn type_paper(place: &Place) -> Result<Figures> {
    let paper = Paper::read()?;
    let heard = Rc::new(Cell::new(0));
    let hear = {
        let heard = heard.clone();
        move |event: Event<'_>, _: u32| {
            if let Event::Update(update) | Event::Whole(update) = event {
                heard.set(heard.get() + clocks(update));
            }
        }
    };
    let observer = place.target.join(0, "typing", hear).await?;
    let writer = place.target.join(0, "typing", |_, _| ()).await?;
    let memory = place.server.memory()?;
    let cpu = place.server.cpu()?;
    let start = Instant::now();
    for (number, edit) in paper.edits.iter().enumerate() {
        writer.update(edit);
        if number % 100 == 99 {
            tokio::task::yield_now().await;
        }
        while writer.unsent() > AHEAD {
            ensure!(start.elapsed() < WITHIN, "only {number} edits were taken in {WITHIN:?}");
            sleep(Duration::from_millis(1)).await;
        }
    }
    while heard.get() < CLOCKS {
        ensure!(start.elapsed() < WITHIN, "{} of {} clocks were heard in {WITHIN:?}", heard.get(), CLOCKS);
        sleep(Duration::from_millis(5)).await;
    }
    let took = start.elapsed().as_secs_f64();
    let cpu = (place.server.cpu()? - cpu).as_secs_f64();
    let memory = place.server.memory()? - memory;
    // Who comes now gets the paper as it was typed, with everything that was removed.
    let got = Rc::new(RefCell::new(Vec::new()));
    let keep = {
        let got = got.clone();
        move |event: Event<'_>, _: u32| {
            if let Event::Whole(update) = event {
                got.borrow_mut().push(update.to_vec());
            }
        }
    };
    let reader = place.target.join(0, "typing", keep).await?;
    ensure!(paper.is_made_by(&got.borrow())?, "the paper is not the one that was typed");
    all_are_here(&[observer, writer, reader])?;
    let mut figures = Figures::new();
    figures.insert("cpu_us_per_edit".to_owned(), cpu * 1e6 / paper.edits.len() as f64);
    figures.insert("seconds".to_owned(), took);
    figures.insert("grown_mb".to_owned(), memory / 1024.0);
    Ok(figures)
}

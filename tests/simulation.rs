//! A document, its clients and a server that may die, over a bad network: from one seed, in one thread, with
//! time under control. What the clients do is what Yjs did in a history of the same seed, and Yjs says at the end
//! whether all have what it makes of these edits.
//!
//! ```text
//! QUIRE_TEST_SEEDS=100000 QUIRE_TEST_FIRST_SEED=1    how many seeds, and from which one on
//! QUIRE_TEST_SEED=77                                 only this one, aloud (with -- --nocapture)
//! ```

mod client;
mod disk;
mod judge;
mod process;
mod random;
mod redis;
mod world;

use std::{
    collections::BTreeMap,
    env,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

use tracing::Level;

use self::{
    judge::{Ending, History, Judge},
    redis::RedisMistake,
    world::{Mistake, Trace, Trial},
};

/// How many seeds are tried where nobody says otherwise.
const SEEDS: u64 = 1_000;
/// Seeds that have found something, with one node and with several.
const FAILED_BEFORE: [u64; 1] = [51_503];
const NODES_FAILED_BEFORE: [u64; 11] =
    [7_756, 9_293, 26_028, 26_829, 33_291, 60_510, 68_689, 69_752, 73_457, 81_339, 92_975];
/// On how many seeds a deliberate mistake is tried at most.
const SEEDS_PER_MISTAKE: u64 = 500;
/// How many histories are made in advance.
const AHEAD: u64 = 8;
/// More failures than these tell nothing new.
const MAX_FAILURES: usize = 10;

/// What went wrong, by seed.
type Failures = BTreeMap<u64, Vec<String>>;

#[test]
fn everybody_ends_with_what_yjs_makes_of_all_edits() {
    let (seeds, only) = seeds();
    assert_none(&simulate_too(seeds, Trial::Sound, only, &FAILED_BEFORE), "everybody");
}

/// Lives through the worlds of these seeds, and of those that have found something, unless it is only one.
fn simulate_too(seeds: Range<u64>, trial: Trial, only: bool, failed_before: &[u64]) -> Failures {
    let mut failures = simulate(seeds, trial, MAX_FAILURES, only);
    if !only {
        for &seed in failed_before {
            failures.extend(simulate(seed..seed + 1, trial, MAX_FAILURES, false));
        }
    }
    failures
}

/// Which seeds are asked for, and whether it is only one.
fn seeds() -> (Range<u64>, bool) {
    let only = number("QUIRE_TEST_SEED");
    let first = only.or(number("QUIRE_TEST_FIRST_SEED")).unwrap_or(1);
    let count = only.map_or_else(|| number("QUIRE_TEST_SEEDS").unwrap_or(SEEDS), |_| 1);
    if only.is_some() {
        // What the server writes to its log, between the lines of the simulation.
        tracing_subscriber::fmt().with_max_level(Level::DEBUG).without_time().init();
    }
    (first..first + count, only.is_some())
}

fn assert_none(failures: &Failures, test: &str) {
    let told: Vec<_> = failures.iter().map(|(seed, problems)| shown(*seed, problems)).collect();
    assert!(
        failures.is_empty(),
        "these fail, and repeat with cargo test --test all simulation::{test} -- --nocapture\n{}",
        told.join("\n")
    );
}

#[test]
fn nodes_on_one_redis_end_with_what_yjs_makes_of_all_edits() {
    let (seeds, only) = seeds();
    assert_none(&simulate_too(seeds, Trial::Nodes(None), only, &NODES_FAILED_BEFORE), "nodes");
}

#[test]
fn a_gap_in_the_log_that_stays_is_noticed() {
    assert_noticed(Trial::Nodes(Some(RedisMistake::GapsStay)), Trial::Nodes(None));
}

#[test]
fn an_append_that_failed_and_is_taken_for_done_is_noticed() {
    assert_noticed(Trial::Nodes(Some(RedisMistake::FailureTakenForDone)), Trial::Nodes(None));
}

#[test]
fn a_seed_repeats_itself() {
    let mut judge = Judge::start();
    for seed in 1..=30 {
        judge.prepare(seed);
        let history = judge.history(seed);
        for trial in [Trial::Sound, Trial::Nodes(None)] {
            let number = || {
                let lived = world::live(seed, history.clone(), trial, Trace::new(false));
                lived.map(|(_, number)| number)
            };
            assert_eq!(number(), number(), "seed {seed}, {trial:?}");
        }
    }
}

#[test]
fn a_dropped_reply_is_noticed() {
    assert_noticed(Trial::With(Mistake::ReplyDropped), Trial::Without(Mistake::ReplyDropped));
}

#[test]
fn a_resync_without_the_delete_set_is_noticed() {
    assert_noticed(
        Trial::With(Mistake::ResyncWithoutDeleteSet),
        Trial::Without(Mistake::ResyncWithoutDeleteSet),
    );
}

#[test]
fn a_gap_that_is_let_through_is_noticed() {
    assert_noticed(Trial::With(Mistake::GapLetThrough), Trial::Without(Mistake::GapLetThrough));
}

/// Some world fails with the mistake that does not fail without it.
fn assert_noticed(with: Trial, without: Trial) {
    for first in (1..=SEEDS_PER_MISTAKE).step_by(10) {
        let seeds = first..first + 10;
        let mut noticed = simulate(seeds.clone(), with, usize::MAX, false);
        let unsound = simulate(seeds, without, usize::MAX, false);
        noticed.retain(|seed, _| !unsound.contains_key(seed));
        if !noticed.is_empty() {
            println!("noticed: {noticed:?}");
            return;
        }
    }
    panic!("{SEEDS_PER_MISTAKE} seeds do not notice it");
}

/// Lives through the worlds of these seeds, until so many have failed.
fn simulate(seeds: Range<u64>, trial: Trial, max_failures: usize, aloud: bool) -> Failures {
    keep_injected_panics_quiet();
    let mut judge = Judge::start();
    let mut failures = Failures::new();
    let mut prepared = seeds.clone();
    for seed in prepared.by_ref().take(AHEAD as usize) {
        judge.prepare(seed);
    }
    for seed in seeds.clone() {
        prepared.by_ref().take(1).for_each(|seed| judge.prepare(seed));
        match live(seed, judge.history(seed), trial, aloud) {
            Ok(ending) => judge.judge(seed, &ending),
            Err(problem) => note(&mut failures, [(seed, vec![problem])], trial),
        }
        note(&mut failures, judge.problems(false), trial);
        if failures.len() >= max_failures {
            return failures;
        }
        if (seed - seeds.start + 1).is_multiple_of(10_000) {
            eprintln!("{} seeds are done, {} failed", seed - seeds.start + 1, failures.len());
        }
    }
    note(&mut failures, judge.problems(true), trial);
    failures
}

/// Notes failures, and tells them at once, since who runs a long campaign reads along.
fn note(failures: &mut Failures, found: impl IntoIterator<Item = (u64, Vec<String>)>, trial: Trial) {
    for (seed, problems) in found {
        eprintln!("{trial:?} fails: {}", shown(seed, &problems));
        failures.insert(seed, problems);
    }
}

fn shown(seed: u64, problems: &[String]) -> String {
    format!("QUIRE_TEST_SEED={seed}\n    {}", problems.join("\n    "))
}

/// One world; a panic is a failure like another, so that its seed is told.
fn live(seed: u64, history: History, trial: Trial, aloud: bool) -> Result<Ending, String> {
    let run = AssertUnwindSafe(|| world::live(seed, history, trial, Trace::new(aloud)));
    match catch_unwind(run) {
        Ok(lived) => lived.map(|(ending, _)| ending),
        Err(panic) => Err(match panic.downcast_ref::<String>() {
            Some(text) => text.clone(),
            None => panic.downcast_ref::<&str>().copied().unwrap_or("a panic without a text").to_owned(),
        }),
    }
}

/// The failures of the engine that are part of a world are many, and no news.
fn keep_injected_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = take_hook();
        set_hook(Box::new(move |panic| {
            if panic.payload_as_str() != Some(world::INJECTED) {
                tell(panic);
            }
        }));
    });
}

fn number(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not {value:?}")))
}

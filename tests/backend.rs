//! Holds every backend to the promise of [`quire::backend`]: one function per promise, and one test per
//! function and implementation. A new implementation brings a [`Store`] and a line `keeps_the_promise!`;
//! what only one of them promises stands in its own module.

use std::{
    collections::{HashMap, HashSet},
    env,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::{self, Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{join, join_all},
};
use quire::{
    backend::{
        Again, Backend, BackendError, Exchange, Exchanged, Feed, Incoming, Listed, MAX_SET_ASIDE,
        Notification, Position, Segment, Stored,
        embedded::{Embedded, Obstacle, OpenError},
        redis::{Redis, link::Link},
    },
    name::DocumentName,
};
use tempfile::TempDir;
use tokio::{runtime::Handle, time::timeout};

/// A position that no record has.
const BEYOND: Position = Position { epoch: 1 << 40, number: 1 << 40 };

/// What outlives the backends that are opened on it, as a disk outlives a process.
trait Store {
    async fn open(&self) -> Arc<dyn Backend>;
}

/// One test for every promise; the argument makes a store with nothing in it.
macro_rules! keeps_the_promise {
    ($new_store:expr) => {
        keeps_the_promise! {
            $new_store;
            an_unknown_document_is_empty
            records_keep_their_order
            records_survive_reopening
            positions_grow_across_compaction_and_reopening
            a_compaction_replaces_exactly_the_records_through_its_position
            a_late_compaction_does_not_undo_a_newer_one
            a_compaction_ahead_of_its_time_does_not_hide_later_records
            a_load_sees_no_state_within_a_compaction
            a_segment_comes_with_its_compaction_and_gives_way_only_as_it_is_known
            a_history_goes_with_its_document_and_comes_back_with_it
            the_newest_of_what_is_set_aside_are_kept
            many_documents_at_once_do_not_mix
            every_record_comes_back_as_it_was
            every_name_is_its_own_document
            a_deleted_document_stays_deleted_and_comes_back_as_it_was
            a_name_that_is_begun_anew_has_nothing
            who_loaded_what_was_deleted_adds_nothing_to_what_is_begun_anew
            who_goes_on_appending_while_a_name_is_begun_anew_adds_nothing_to_it
            what_was_deleted_goes_when_its_time_is_over
            a_list_names_what_is_there_in_order_and_in_pages
            notifications_wait_until_they_are_removed
            closing_keeps_what_was_accepted_and_refuses_the_rest
        }
    };
    ($new_store:expr; $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise(&$new_store).await;
            }
        )*
    };
}

async fn an_unknown_document_is_empty(store: &impl Store) {
    let backend = store.open().await;
    append(&*backend, "known", "1").await;
    assert_eq!(load(&*backend, "unknown").await, Stored::default());
}

async fn records_keep_their_order(store: &impl Store) {
    let backend = store.open().await;
    let mut log = Vec::new();
    // More than ten, so that they do not come sorted as text.
    for number in 0..25 {
        let record = Bytes::from(number.to_string());
        log.push((append(&*backend, "essay", record.clone()).await, record));
    }
    assert!(log.is_sorted_by(|(earlier, _), (later, _)| earlier < later), "positions grow: {log:?}");
    assert_eq!(load(&*backend, "essay").await, Stored { log, ..Stored::default() });
}

async fn records_survive_reopening(store: &impl Store) {
    let backend = store.open().await;
    let first = append(&*backend, "essay", "1").await;
    compact(&*backend, "essay", first, "snapshot").await;
    append(&*backend, "essay", "2").await;
    append(&*backend, "poem", "3").await;
    let (essay, poem) = (load(&*backend, "essay").await, load(&*backend, "poem").await);
    assert_eq!((texts(&essay), texts(&poem)), (vec!["snapshot", "2"], vec!["3"]));
    backend.close().await.unwrap();

    let backend = store.open().await;
    assert_eq!(load(&*backend, "essay").await, essay);
    assert_eq!(load(&*backend, "poem").await, poem);
}

async fn positions_grow_across_compaction_and_reopening(store: &impl Store) {
    let mut last = Position::default();
    for round in 0..3 {
        let backend = store.open().await;
        for _ in 0..2 {
            let position = append(&*backend, "essay", "record").await;
            assert!(position > last, "round {round}: {position:?} comes after {last:?}");
            last = position;
        }
        // Nothing is left in the log from which the last position could be told.
        compact(&*backend, "essay", last, "snapshot").await;
        assert_eq!(load(&*backend, "essay").await.log, []);
        backend.close().await.unwrap();
    }
}

async fn a_compaction_replaces_exactly_the_records_through_its_position(store: &impl Store) {
    let backend = store.open().await;
    append(&*backend, "poem", "untouched").await;
    append(&*backend, "essay", "1").await;
    let second = append(&*backend, "essay", "2").await;
    append(&*backend, "essay", "3").await;
    compact(&*backend, "essay", second, "1+2").await;
    assert_eq!(texts(&load(&*backend, "essay").await), ["1+2", "3"]);

    let fourth = append(&*backend, "essay", "4").await;
    append(&*backend, "essay", "5").await;
    compact(&*backend, "essay", fourth, "1+2+3+4").await;
    let stored = load(&*backend, "essay").await;
    assert_eq!(stored.snapshot.as_deref(), Some(&b"1+2+3+4"[..]));
    assert_eq!(texts(&stored), ["1+2+3+4", "5"]);
    assert_eq!(texts(&load(&*backend, "poem").await), ["untouched"]);
}

async fn a_late_compaction_does_not_undo_a_newer_one(store: &impl Store) {
    let backend = store.open().await;
    let first = append(&*backend, "essay", "1").await;
    let second = append(&*backend, "essay", "2").await;
    compact(&*backend, "essay", second, "1+2").await;
    compact(&*backend, "essay", first, "1").await;
    assert_eq!(texts(&load(&*backend, "essay").await), ["1+2"], "record 2 is in no log any more");
}

async fn a_compaction_ahead_of_its_time_does_not_hide_later_records(store: &impl Store) {
    let backend = store.open().await;
    append(&*backend, "essay", "1").await;
    compact(&*backend, "essay", BEYOND, "1").await;
    let position = append(&*backend, "essay", "2").await;
    assert_eq!(texts(&load(&*backend, "essay").await), ["1", "2"]);
    compact(&*backend, "essay", position, "1+2").await;
    assert_eq!(texts(&load(&*backend, "essay").await), ["1+2"]);
}

async fn a_load_sees_no_state_within_a_compaction(store: &impl Store) {
    let backend = store.open().await;
    let written = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (backend, written) = (backend.clone(), written.clone());
            tokio::spawn(async move {
                let mut seen = 0;
                while !written.load(Ordering::Relaxed) {
                    let now = last_number(&load(&*backend, "essay").await);
                    assert!(now >= seen, "record {seen} was there, and now {now} is the last one");
                    seen = now;
                }
            })
        })
        .collect();
    for number in 1..=200 {
        // A snapshot holds the number of the last record in it.
        let position = append(&*backend, "essay", number.to_string()).await;
        compact(&*backend, "essay", position, number.to_string()).await;
    }
    written.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(last_number(&load(&*backend, "essay").await), 200);
}

async fn a_segment_comes_with_its_compaction_and_gives_way_only_as_it_is_known(store: &impl Store) {
    let backend = store.open().await;
    let essay = name("essay");
    assert_eq!(backend.segments(&essay).await, Ok(Vec::new()));
    let mut kept = Vec::new();
    for number in 1..=3 {
        let through = append(&*backend, "essay", text(number)).await;
        // Whoever sees the log without the record sees the segment that has it.
        let read = async {
            loop {
                let stored = backend.load(&essay).await.unwrap();
                if stored.log.is_empty() {
                    return backend.read_segments(&essay, BEYOND).await.unwrap();
                }
            }
        };
        let kept_now = segment(through, &format!("about {number}"), &format!("data {number}"));
        let compaction = backend.compact(&essay, through, text(number), Some(kept_now.clone()));
        let (compacted, seen) = join(compaction, read).await;
        compacted.unwrap();
        kept.push(kept_now);
        assert_eq!(seen, kept);
    }
    let known = |segments: &[Segment]| -> Vec<(Position, Bytes)> {
        segments.iter().map(|segment| (segment.through, segment.about.clone())).collect()
    };
    assert_eq!(backend.segments(&essay).await.unwrap(), known(&kept));
    assert_eq!(backend.read_segments(&essay, kept[1].through).await.unwrap(), kept[..2]);
    // One that is not there, and one of which something else is known by now.
    let joined = segment(kept[1].through, "about both", "data of both");
    let mut unknown = known(&kept[..2]);
    unknown[0].0 = BEYOND;
    let mut renamed = known(&kept[..2]);
    renamed[1].1 = text("about 2 as it was");
    for old in [unknown, renamed] {
        assert_eq!(backend.replace_segments(&essay, old, joined.clone()).await, Ok(false));
        assert_eq!(backend.read_segments(&essay, BEYOND).await.unwrap(), kept);
    }
    assert_eq!(backend.replace_segments(&essay, known(&kept[..2]), joined.clone()).await, Ok(true));
    assert_eq!(backend.replace_segments(&essay, known(&kept[..2]), joined.clone()).await, Ok(false));
    let left = [joined, kept.remove(2)];
    assert_eq!(backend.read_segments(&essay, BEYOND).await.unwrap(), left);
    backend.close().await.unwrap();
    drop(backend);
    assert_eq!(store.open().await.read_segments(&essay, BEYOND).await.unwrap(), left);
}

async fn a_history_goes_with_its_document_and_comes_back_with_it(store: &impl Store) {
    let backend = store.open().await;
    let essay = name("essay");
    let through = append(&*backend, "essay", "1").await;
    let kept = segment(through, "about", "data");
    backend.compact(&essay, through, "1".into(), Some(kept.clone())).await.unwrap();
    let read = async || backend.read_segments(&essay, BEYOND).await.unwrap_or_default();
    assert!(backend.delete(&essay, KEPT).await.unwrap());
    assert_eq!(read().await, []);
    assert!(backend.undelete(&essay).await.unwrap());
    assert_eq!(read().await, [kept]);
    assert!(backend.delete(&essay, Duration::ZERO).await.unwrap());
    assert_eq!(read().await, []);
    assert!(backend.create(&essay, None).await.unwrap());
    assert_eq!(read().await, []);
}

async fn the_newest_of_what_is_set_aside_are_kept(store: &impl Store) {
    let backend = store.open().await;
    append(&*backend, "essay", "1").await;
    let updates: Vec<_> = (0..MAX_SET_ASIDE + 2).map(|number| Bytes::from(number.to_string())).collect();
    for update in &updates {
        backend.set_aside(&name("essay"), update.clone(), "it broke the engine".to_owned()).await.unwrap();
    }
    backend.close().await.unwrap();
    let backend = store.open().await;
    let stored = load(&*backend, "essay").await;
    assert_eq!(stored.set_aside, updates[2..]);
    assert_eq!(texts(&stored), ["1"]);
    assert_eq!(load(&*backend, "poem").await, Stored::default());
}

async fn many_documents_at_once_do_not_mix(store: &impl Store) {
    let backend = store.open().await;
    let names: Vec<_> = (0..1_500).map(|number| format!("document {number}")).collect();
    join_all(names.iter().map(|name| append(&*backend, name, name.clone()))).await;
    for name in &names {
        assert_eq!(texts(&load(&*backend, name).await), [name]);
    }
}

async fn every_record_comes_back_as_it_was(store: &impl Store) {
    let backend = store.open().await;
    let ten_megabytes: Vec<u8> = (0..10_000_000_u32).map(|number| (number % 251) as u8).collect();
    let records = [vec![], vec![0], (0..=255).collect(), ten_megabytes];
    for record in &records {
        append(&*backend, "essay", record.clone()).await;
    }
    let log = load(&*backend, "essay").await.log;
    // Compared without printing ten megabytes.
    assert_eq!(log.len(), records.len());
    for ((_, loaded), record) in log.iter().zip(&records) {
        assert!(loaded == record, "a record of {} bytes came back with {}", record.len(), loaded.len());
    }

    compact(&*backend, "essay", log[3].0, records[3].clone()).await;
    assert!(load(&*backend, "essay").await.snapshot.unwrap() == records[3], "the large snapshot differs");
    compact(&*backend, "essay", log[3].0, "").await;
    assert_eq!(load(&*backend, "essay").await, Stored { snapshot: Some(Bytes::new()), ..Stored::default() });
}

async fn every_name_is_its_own_document(store: &impl Store) {
    let backend = store.open().await;
    let long = "ü".repeat(500);
    let names = [
        "a",
        "A",
        " a",
        "a ",
        "a/b",
        "a:b",
        "a*",
        "a%",
        "a_",
        "a?",
        "a\\",
        "a'b",
        "a\"b",
        "a`b",
        "{a}",
        "'; --",
        "é",
        "e\u{301}",
        "ß",
        "ss",
        "📝",
        "\u{200b}",
        &long,
        &long[2..],
        "0",
        "00",
        "NULL",
        "../a",
    ];
    for name in names {
        append(&*backend, name, name.to_owned()).await;
    }
    for name in names {
        assert_eq!(texts(&load(&*backend, name).await), [name]);
    }
}

/// For longer than a test takes.
const KEPT: Duration = Duration::from_secs(3_600);

async fn a_deleted_document_stays_deleted_and_comes_back_as_it_was(store: &impl Store) {
    let backend = store.open().await;
    let essay = name("essay");
    append(&*backend, "poem", "untouched").await;
    let first = append(&*backend, "essay", "1").await;
    compact(&*backend, "essay", first, "snapshot").await;
    let last = append(&*backend, "essay", "2").await;
    backend.set_aside(&essay, text("bad"), "it broke the engine".to_owned()).await.unwrap();
    let before = load(&*backend, "essay").await;
    assert!(backend.delete(&essay, KEPT).await.unwrap());
    for _ in 0..2 {
        assert_eq!(backend.load(&essay).await, Err(BackendError::Deleted));
        assert_eq!(backend.append(&essay, text("3")).await, Err(BackendError::Deleted));
        assert_eq!(backend.compact(&essay, last, text("3"), None).await, Err(BackendError::Deleted));
        assert!(backend.delete(&essay, KEPT).await.unwrap(), "it is deleted already");
    }
    backend.close().await.unwrap();

    let backend = store.open().await;
    assert_eq!(backend.load(&essay).await, Err(BackendError::Deleted));
    assert!(backend.undelete(&essay).await.unwrap());
    assert_eq!(load(&*backend, "essay").await, before);
    assert!(append(&*backend, "essay", "3").await > last);
    assert_eq!(texts(&load(&*backend, "essay").await), ["snapshot", "2", "3"]);
    assert!(!backend.undelete(&essay).await.unwrap(), "it is there");
    assert!(!backend.create(&essay, None).await.unwrap(), "it is there");
    assert_eq!(texts(&load(&*backend, "poem").await), ["untouched"]);

    let unknown = name("unknown");
    assert!(!backend.delete(&unknown, KEPT).await.unwrap());
    assert!(!backend.undelete(&unknown).await.unwrap());
    assert!(!backend.create(&unknown, None).await.unwrap());
    assert_eq!(backend.load(&unknown).await, Ok(Stored::default()));
}

async fn a_name_that_is_begun_anew_has_nothing(store: &impl Store) {
    let backend = store.open().await;
    let essay = name("essay");
    let mut last = Position::default();
    for round in 0..3 {
        let first = append(&*backend, "essay", "1").await;
        assert!(first > last, "round {round}: {first:?} comes after {last:?}");
        compact(&*backend, "essay", first, "old").await;
        last = append(&*backend, "essay", "2").await;
        backend.set_aside(&essay, text("bad"), "it broke the engine".to_owned()).await.unwrap();
        assert!(backend.delete(&essay, KEPT).await.unwrap());
        assert!(backend.create(&essay, None).await.unwrap());
        assert_eq!(load(&*backend, "essay").await, Stored::default());
        assert!(!backend.undelete(&essay).await.unwrap(), "there is a new one");
        // Made of what is no more.
        let _ = backend.compact(&essay, last, text("old"), None).await;
        assert_eq!(load(&*backend, "essay").await, Stored::default());
    }
    // Also where nothing was made of it yet.
    assert!(backend.delete(&essay, KEPT).await.unwrap());
    assert_eq!(backend.load(&essay).await, Err(BackendError::Deleted));
    // Or with one record from the first moment on.
    assert!(backend.create(&essay, Some(text("new"))).await.unwrap());
    assert_eq!(texts(&load(&*backend, "essay").await), ["new"]);
    assert!(!backend.create(&essay, Some(text("newer"))).await.unwrap(), "it is there");
    append(&*backend, "essay", "2").await;
    assert_eq!(texts(&load(&*backend, "essay").await), ["new", "2"]);
    assert_eq!(backend.list("", "", 10).await.unwrap().len(), 1);
}

async fn who_loaded_what_was_deleted_adds_nothing_to_what_is_begun_anew(store: &impl Store) {
    let backend = store.open().await;
    let essay = name("essay");
    let mut feed = backend.follow(&essay);
    backend.load(&essay).await.unwrap();
    let position = append(&*backend, "essay", "old").await;
    assert!(backend.delete(&essay, KEPT).await.unwrap());
    let told = timeout(Duration::from_secs(5), feed.next()).await.expect("who follows is told");
    assert!(matches!(told, Incoming::Compare { .. }), "{told:?}");
    backend.append(&essay, text("late")).await.unwrap_err();
    assert_eq!(backend.load(&essay).await, Err(BackendError::Deleted));

    assert!(backend.create(&essay, None).await.unwrap());
    for _ in 0..2 {
        backend.append(&essay, text("late")).await.unwrap_err();
        backend.compact(&essay, position, text("late"), None).await.unwrap_err();
        assert_eq!(backend.load(&essay).await, Err(BackendError::Recreated));
    }
    drop(feed);
    assert_eq!(load(&*backend, "essay").await, Stored::default());
    let _feed = backend.follow(&essay);
    assert_eq!(load(&*backend, "essay").await, Stored::default());
    append(&*backend, "essay", "new").await;
    assert_eq!(texts(&load(&*backend, "essay").await), ["new"]);

    // Who follows what is taken back goes on with it.
    assert!(backend.delete(&essay, KEPT).await.unwrap());
    assert!(backend.undelete(&essay).await.unwrap());
    assert_eq!(texts(&load(&*backend, "essay").await), ["new"]);
    append(&*backend, "essay", "newer").await;
    assert_eq!(texts(&load(&*backend, "essay").await), ["new", "newer"]);
}

async fn who_goes_on_appending_while_a_name_is_begun_anew_adds_nothing_to_it(store: &impl Store) {
    let backend = store.open().await;
    let essay = name("essay");
    for round in 0..20 {
        let feed = backend.follow(&essay);
        backend.load(&essay).await.unwrap();
        append(&*backend, "essay", "old").await;
        let appending = tokio::spawn({
            let (backend, essay) = (backend.clone(), essay.clone());
            // It ends when all that comes after is refused, and goes on for a while where that is not so.
            async move {
                let mut refused = 0;
                for _ in 0..500 {
                    refused += usize::from(backend.append(&essay, text("old")).await.is_err());
                    if refused == 20 {
                        break;
                    }
                }
                refused
            }
        });
        tokio::time::sleep(Duration::from_millis(round)).await;
        assert!(backend.delete(&essay, KEPT).await.unwrap());
        assert!(backend.create(&essay, None).await.unwrap());
        assert_eq!(appending.await.unwrap(), 20, "round {round}");
        drop(feed);
        assert_eq!(load(&*backend, "essay").await, Stored::default(), "round {round}");
    }
}

async fn what_was_deleted_goes_when_its_time_is_over(store: &impl Store) {
    let backend = store.open().await;
    for document in ["purged", "later", "short"] {
        append(&*backend, document, "1").await;
    }
    let short = Duration::from_millis(200);
    assert!(backend.delete(&name("purged"), Duration::ZERO).await.unwrap());
    assert!(backend.delete(&name("later"), KEPT).await.unwrap());
    assert!(backend.delete(&name("later"), Duration::ZERO).await.unwrap());
    assert!(backend.delete(&name("short"), short).await.unwrap());
    tokio::time::sleep(2 * short).await;
    for document in ["purged", "later", "short"] {
        assert!(!backend.undelete(&name(document)).await.unwrap(), "{document} is gone");
        assert_eq!(backend.load(&name(document)).await, Err(BackendError::Deleted));
    }
}

async fn a_list_names_what_is_there_in_order_and_in_pages(store: &impl Store) {
    let backend = store.open().await;
    let begin = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let names = ["b", "a", "a/2", "a/10", "a/ü", "a/📝", "A", "a b"];
    for document in names.into_iter().chain(["gone", "a/gone"]) {
        let position = append(&*backend, document, "1").await;
        if document == "a/10" {
            compact(&*backend, document, position, vec![7; 10_000]).await;
        }
    }
    backend.load(&name("a/unknown")).await.unwrap();
    let list = async |prefix: &str, after: &str, limit| backend.list(prefix, after, limit).await.unwrap();
    // The list may follow what is made.
    let deadline = SystemTime::now() + Duration::from_secs(5);
    while list("", "", 100).await.len() < names.len() + 2 {
        assert!(SystemTime::now() < deadline, "it is never complete: {:?}", list("", "", 100).await);
    }
    for document in ["gone", "a/gone"] {
        assert!(backend.delete(&name(document), KEPT).await.unwrap());
    }
    let named = |listed: &[Listed]| -> Vec<String> {
        listed.iter().map(|listed| listed.name.as_str().to_owned()).collect()
    };
    let all = list("", "", 100).await;
    assert_eq!(named(&all), ["A", "a", "a b", "a/10", "a/2", "a/ü", "a/📝", "b"]);
    assert_eq!(named(&list("a/", "", 100).await), ["a/10", "a/2", "a/ü", "a/📝"]);
    assert_eq!(named(&list("a/", "a/10", 2).await), ["a/2", "a/ü"]);
    assert_eq!(named(&list("a/", "a/ü", 1).await), ["a/📝"]);
    assert_eq!(named(&list("a/", "a/📝", 1).await), [""; 0]);
    assert_eq!(named(&list("a", "a/ü", 100).await), ["a/📝"]);
    assert_eq!(named(&list("x", "", 100).await), [""; 0]);
    assert_eq!(named(&list("", "", 3).await), ["A", "a", "a b"]);
    assert!(all[3].bytes >= 10_000 && all[3].bytes > all[2].bytes && all[2].bytes > 0, "{all:?}");
    for Listed { name, changed, .. } in &all {
        // To the second.
        assert!(changed.is_some_and(|changed| changed.abs_diff(begin) < 20_000), "{name}: {changed:?}");
    }

    assert!(backend.undelete(&name("a/gone")).await.unwrap());
    assert_eq!(named(&list("a/g", "", 100).await), ["a/gone"]);
    backend.close().await.unwrap();
    assert_eq!(named(&store.open().await.list("a/g", "", 100).await.unwrap()), ["a/gone"]);
}

async fn closing_keeps_what_was_accepted_and_refuses_the_rest(store: &impl Store) {
    let backend = store.open().await;
    let accepted = join_all((0..100).map(|number| backend.append(&name("essay"), text(number))));
    // Both are under way at once; the appends were there first.
    let (answers, closed) = join(accepted, backend.close()).await;
    closed.unwrap();
    let positions: Vec<_> =
        answers.into_iter().map(|answer| answer.expect("it was accepted").position).collect();

    let essay = name("essay");
    assert!(matches!(backend.append(&essay, text("late")).await, Err(BackendError::Closed)));
    assert!(matches!(
        backend.compact(&essay, positions[0], text("late"), None).await,
        Err(BackendError::Closed)
    ));
    assert!(matches!(backend.load(&essay).await, Err(BackendError::Closed)));
    backend.close().await.expect("closing twice is closing once");

    let stored = load(&*store.open().await, "essay").await;
    assert_eq!(stored.snapshot, None);
    let mut accepted: Vec<_> = positions.into_iter().zip((0..100).map(text)).collect();
    // What is appended at the same time has no order.
    accepted.sort();
    assert_eq!(stored.log, accepted);
}

async fn notifications_wait_until_they_are_removed(store: &impl Store) {
    let notification = |id: &str, tries| Notification { id: id.to_owned(), body: text(id), tries };
    let add = |ids: [&str; 3]| ids.map(|id| notification(id, 0)).to_vec();
    let claim = |claim| Exchange { most: 2, claim, ..Exchange::default() };
    let backend = store.open().await;
    assert_eq!(backend.exchange(claim(9)).await, Ok(Exchanged::default()));
    let added = backend.exchange(Exchange { add: add(["b", "a", "c"]), claim: 1, ..claim(1) }).await.unwrap();
    assert_eq!(added, Exchanged { dropped: 1, claimed: vec![notification("a", 0)], waiting: 2 });
    // Those that are there already are neither dropped nor due again.
    let added = backend.exchange(Exchange { add: add(["a", "b", "c"]), ..claim(9) }).await.unwrap();
    assert_eq!(added, Exchanged { dropped: 1, claimed: vec![notification("b", 0)], waiting: 2 });
    backend.close().await.unwrap();

    let backend = store.open().await;
    let waiting = backend.exchange(claim(9)).await.unwrap();
    assert_eq!(waiting, Exchanged { waiting: 2, ..Exchanged::default() }, "others have claimed them");
    let again = |id: &str, after| Again { id: id.to_owned(), tries: 3, after: Duration::from_secs(after) };
    let again = vec![again("a", 0), again("b", 60), again("unknown", 0)];
    let tried = backend.exchange(Exchange { again, ..claim(9) }).await.unwrap();
    assert_eq!(tried, Exchanged { claimed: vec![notification("a", 3)], waiting: 2, ..Exchanged::default() });
    let remove = vec!["a".to_owned(), "unknown".to_owned()];
    let removed = backend.exchange(Exchange { remove, ..claim(9) }).await.unwrap();
    assert_eq!(removed, Exchanged { waiting: 1, ..Exchanged::default() });
}

/// What the embedded backend promises beside.
mod redis {
    use super::*;
    use crate::common::redis::RedisServer;

    keeps_the_promise!(RedisServer::start());

    /// The number of a run of a node.
    static RUN: AtomicU64 = AtomicU64::new(1);

    impl Store for RedisServer {
        async fn open(&self) -> Arc<dyn Backend> {
            let link = Link::connect(&self.url()).await.unwrap();
            Arc::new(Redis::new(Arc::new(link), RUN.fetch_add(1, Ordering::Relaxed), &Handle::current()))
        }
    }

    /// What comes of a document within a few seconds; what is told may come in between.
    async fn next(feed: &mut Feed) -> Incoming {
        timeout(Duration::from_secs(5), feed.next()).await.expect("nothing comes")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_follows_hears_of_every_append_and_of_what_is_told() {
        let server = RedisServer::start();
        let (alice, bob) = (server.open().await, server.open().await);
        let essay = name("essay");
        let (_alices, mut bobs) = (alice.follow(&essay), bob.follow(&essay));
        assert_eq!(alice.load(&essay).await.unwrap(), Stored::default());
        assert_eq!(bob.load(&essay).await.unwrap(), Stored::default());
        for number in 0..300 {
            // Some are too large for the channel.
            let mut record = vec![0; if number % 50 == 7 { 100_000 } else { 10 }];
            record[..2].copy_from_slice(&u16::to_be_bytes(number));
            alice.append(&essay, record.into()).await.unwrap();
        }
        let mut heard = HashSet::new();
        while heard.len() < 300 {
            // A record may come twice, where the log was read.
            if let Incoming::Records { records, .. } = next(&mut bobs).await {
                heard.extend(records.iter().map(|record| u16::from_be_bytes([record[0], record[1]])));
            }
        }
        bob.tell(&essay, "hello".into());
        alice.tell(&essay, "hello".into());
        while !matches!(next(&mut bobs).await, Incoming::Told { message, .. } if message == "hello") {}
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_log_that_is_lost_is_noticed_with_the_next_append() {
        let server = RedisServer::start();
        let backend = server.open().await;
        let essay = name("essay");
        let _feed = backend.follow(&essay);
        backend.load(&essay).await.unwrap();
        backend.append(&essay, text("1")).await.unwrap();
        server.cli(&["FLUSHALL"]);
        assert_eq!(backend.append(&essay, text("2")).await, Err(BackendError::Lost));
        assert_eq!(backend.load(&essay).await.unwrap(), Stored::default());
        let appended = backend.append(&essay, text("1+2")).await.unwrap();
        assert!(appended.gapless && appended.position.epoch & 0xf_ffff == 1, "{appended:?}");
    }
}

mod embedded {
    use super::*;

    keeps_the_promise!(TempDir::new().unwrap());

    /// Where a test that runs in a process of its own finds its folder.
    const FOLDER: &str = "QUIRE_TEST_FOLDER";

    impl Store for TempDir {
        async fn open(&self) -> Arc<dyn Backend> {
            Arc::new(Embedded::open(self.path()).unwrap())
        }
    }

    #[tokio::test]
    async fn two_servers_cannot_use_one_folder() {
        let folder = TempDir::new().unwrap();
        let backend = folder.open().await;
        append(&*backend, "essay", "1").await;

        let error = refusal(folder.path());
        assert!(matches!(error.obstacle, Obstacle::InUse(Some(pid)) if pid == process::id()), "{error}");
        let (place, pid) = (folder.path().display().to_string(), process::id().to_string());
        for part in [&place, &pid, "another Quire", "stop", "--data"] {
            assert!(error.to_string().contains(part), "{part:?} is missing in: {error}");
        }

        append(&*backend, "essay", "2").await;
        backend.close().await.unwrap();
        assert_eq!(texts(&load(&*folder.open().await, "essay").await), ["1", "2"]);
    }

    #[tokio::test]
    async fn dropping_it_writes_what_was_accepted_and_frees_the_folder() {
        let folder = TempDir::new().unwrap();
        let backend = folder.open().await;
        let mut append = backend.append(&name("essay"), text(1));
        assert!((&mut append).now_or_never().is_none(), "nothing is durable at once");
        drop(backend);

        let lock = File::open(folder.path().join("lock")).unwrap();
        let (freed, wait) = mpsc::channel();
        thread::spawn(move || lock.lock().and_then(|()| lock.unlock()).map(|()| freed.send(())));
        wait.recv_timeout(Duration::from_secs(10)).expect("the folder is freed");
        append.await.unwrap();
        assert_eq!(texts(&load(&*folder.open().await, "essay").await), ["1"]);
    }

    #[tokio::test]
    async fn what_cannot_be_written_neither_holds_up_the_queue_nor_is_counted() {
        let folder = TempDir::new().unwrap();
        let backend = folder.open().await;
        let database = rusqlite::Connection::open(folder.path().join("quire.db")).unwrap();
        let refusing = |table: &str| {
            let refuse = format!(
                "CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no space'); END"
            );
            database.execute_batch(&refuse).unwrap();
        };
        let exchange = |id: String| {
            let add = vec![Notification { body: text(&id), id, tries: 0 }];
            backend.exchange(Exchange { add, most: 100, ..Exchange::default() })
        };
        let (essay, poem) = (name("essay"), name("poem"));
        refusing("log");
        for round in 1..=10 {
            let appends = (backend.append(&essay, text("1")), backend.append(&poem, text("1")));
            let (essay, exchanged, poem) = tokio::join!(appends.0, exchange(format!("a{round}")), appends.1);
            assert!(essay.is_err() && poem.is_err(), "{essay:?}, {poem:?}");
            assert_eq!(exchanged.unwrap().waiting, round);
        }
        database.execute_batch("DROP TRIGGER full").unwrap();
        refusing("notification");
        for round in 1..=10 {
            let (appended, exchanged) =
                tokio::join!(backend.append(&essay, text(round)), exchange(format!("b{round}")));
            appended.unwrap();
            exchanged.unwrap_err();
        }
        database.execute_batch("DROP TRIGGER full").unwrap();
        assert_eq!(texts(&load(&*backend, "essay").await).len(), 10);
        assert_eq!(exchange("c".to_owned()).await.unwrap().waiting, 11);
    }

    #[tokio::test]
    async fn a_new_folder_is_for_nobody_else() {
        let parent = TempDir::new().unwrap();
        let folder = parent.path().join("new/data");
        let backend = Embedded::open(&folder).unwrap();
        append(&backend, "essay", "1").await;
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&folder.metadata().unwrap());
            assert_eq!(mode & 0o777, 0o700);
        }
        backend.close().await.unwrap();
        assert!(!folder.join("quire.db-wal").exists(), "one file holds everything");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_used_says_why() {
        let folder = TempDir::new().unwrap();
        let (file, inside) = (folder.path().join("file"), folder.path().join("file/data"));
        File::create(&file).unwrap();
        for unusable in [&file, &inside] {
            let error = refusal(unusable);
            assert!(matches!(error.obstacle, Obstacle::Folder(_)), "{error}");
            assert!(error.to_string().contains(&unusable.display().to_string()), "{error}");
        }

        std::fs::write(folder.path().join("quire.db"), "a letter to my aunt ".repeat(1_000)).unwrap();
        let error = refusal(folder.path());
        assert!(matches!(error.obstacle, Obstacle::Database(_)), "{error}");
        assert!(error.to_string().contains("not a database"), "{error}");
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_left_alone() {
        let folder = TempDir::new().unwrap();
        let database = rusqlite::Connection::open(folder.path().join("quire.db")).unwrap();
        database.pragma_update(None, "user_version", 4).unwrap();
        drop(database);
        let before = std::fs::read(folder.path().join("quire.db")).unwrap();

        let error = refusal(folder.path());
        assert!(matches!(error.obstacle, Obstacle::Newer(4)), "{error}");
        assert_eq!(std::fs::read(folder.path().join("quire.db")).unwrap(), before);
    }

    /// A folder as the first version of the tables was written, with a document.
    fn first_version() -> TempDir {
        let folder = TempDir::new().unwrap();
        let database = rusqlite::Connection::open(folder.path().join("quire.db")).unwrap();
        let tables = "
            CREATE TABLE document (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
            CREATE TABLE snapshot (document INTEGER PRIMARY KEY, through INTEGER NOT NULL, data BLOB NOT NULL) STRICT;
            CREATE TABLE log (
                document INTEGER NOT NULL, position INTEGER NOT NULL, record BLOB NOT NULL,
                PRIMARY KEY (document, position)
            ) STRICT, WITHOUT ROWID;
            CREATE TABLE set_aside (
                id INTEGER PRIMARY KEY, document INTEGER NOT NULL, time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
                reason TEXT NOT NULL, data BLOB NOT NULL
            ) STRICT;
            CREATE INDEX set_aside_document ON set_aside (document);
            INSERT INTO document VALUES (7, 'essay');
            INSERT INTO snapshot VALUES (7, 1, CAST('snapshot' AS BLOB));
            INSERT INTO log VALUES (7, 2, CAST('2' AS BLOB));
            PRAGMA user_version = 1;";
        database.execute_batch(tables).unwrap();
        folder
    }

    #[tokio::test]
    async fn a_database_of_the_first_version_is_used_on() {
        let folder = first_version();
        let backend = folder.open().await;
        assert_eq!(texts(&load(&*backend, "essay").await), ["snapshot", "2"]);
        let listed = backend.list("", "", 10).await.unwrap();
        assert_eq!((listed[0].name.as_str(), listed[0].bytes, listed[0].changed), ("essay", 9, None));
        let position = append(&*backend, "essay", "3").await;
        assert_eq!(position, Position { epoch: 0, number: 3 });
        assert!(backend.list("", "", 10).await.unwrap()[0].changed.is_some());
        backend.close().await.unwrap();
        assert_eq!(texts(&load(&*folder.open().await, "essay").await), ["snapshot", "2", "3"]);
    }

    #[tokio::test]
    async fn what_was_deleted_takes_no_space_when_its_time_is_over() {
        let folder = TempDir::new().unwrap();
        let backend = folder.open().await;
        for document in ["short", "long"] {
            let position = append(&*backend, document, "1").await;
            compact(&*backend, document, position, "snapshot").await;
            append(&*backend, document, "2").await;
            backend.set_aside(&name(document), text("bad"), "it broke the engine".to_owned()).await.unwrap();
        }
        assert!(backend.delete(&name("short"), Duration::from_millis(1)).await.unwrap());
        assert!(backend.delete(&name("long"), KEPT).await.unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
        backend.close().await.unwrap();
        let backend = folder.open().await;
        append(&*backend, "other", "1").await;
        backend.close().await.unwrap();

        let database = rusqlite::Connection::open(folder.path().join("quire.db")).unwrap();
        let count = |table: &str, document: &str| {
            let query = format!(
                "SELECT count(*) FROM {table} WHERE document = (SELECT id FROM document WHERE name = ?1)"
            );
            database.query_row(&query, [document], |row| row.get::<_, i64>(0)).unwrap()
        };
        for table in ["snapshot", "log", "set_aside"] {
            assert_eq!((count(table, "short"), count(table, "long")), (0, 1), "{table}");
        }
        drop(database);
        let backend = folder.open().await;
        assert_eq!(backend.load(&name("short")).await, Err(BackendError::Deleted));
        assert!(backend.undelete(&name("long")).await.unwrap());
    }

    #[tokio::test]
    async fn a_failure_for_one_document_is_not_an_error_for_its_group() {
        let folder = TempDir::new().unwrap();
        folder.open().await.close().await.unwrap();
        let database = rusqlite::Connection::open(folder.path().join("quire.db")).unwrap();
        let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON log WHEN new.record = CAST('bad' AS BLOB)
                       BEGIN SELECT RAISE(ABORT, 'refused'); END";
        database.execute_batch(trigger).unwrap();
        drop(database);

        let backend = folder.open().await;
        let record = |number: usize| if number % 40 == 7 { "bad" } else { "good" };
        let names: Vec<_> = (0..200).map(|number| format!("document {number}")).collect();
        let appends =
            names.iter().zip(0..).map(|(document, i)| backend.append(&name(document), text(record(i))));
        let answers = join_all(appends).await;
        for (number, answer) in answers.iter().enumerate() {
            match record(number) {
                "bad" => {
                    assert!(matches!(answer, Err(BackendError::Store(reason)) if reason.contains("refused")))
                }
                _ => assert!(answer.is_ok(), "document {number}: {answer:?}"),
            }
            let expected = if record(number) == "bad" { vec![] } else { vec!["good"] };
            assert_eq!(texts(&load(&*backend, &names[number]).await), expected);
        }
    }

    #[tokio::test]
    async fn what_was_answered_survives_kill_9() {
        let seed = env::var("QUIRE_TEST_SEED").map_or_else(
            |_| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
            |seed| seed.parse().expect("QUIRE_TEST_SEED is a number"),
        );
        println!("QUIRE_TEST_SEED={seed}");
        let mut random = seed;
        let folder = TempDir::new().unwrap();
        let mut answered = HashMap::<String, u64>::new();
        for round in 1..=10 {
            let command = in_its_own_process("backend::embedded::appends_until_it_is_killed", folder.path());
            let (mut child, mut lines) = spawn(command);
            let before_kill = (next_random(&mut random) % 150) as usize;
            let mut note = |line: String| {
                // The last line may be cut off; then its number is too small, or missing.
                let (_, saved) = line.split_once("saved ")?;
                let (document, number) = saved.split_once(' ')?;
                answered.insert(document.to_owned(), number.parse().ok()?);
                Some(())
            };
            let noted = lines.by_ref().filter_map(&mut note).take(before_kill).count();
            assert_eq!(noted, before_kill, "round {round}: the process ended by itself");
            child.kill().unwrap();
            lines.filter_map(note).for_each(drop);
            child.wait().unwrap();

            let backend = folder.open().await;
            for (document, &answered) in &answered {
                let kept = last_number(&load(&*backend, document).await);
                assert!(
                    kept >= answered,
                    "round {round}, {document}: {answered} was answered, {kept} is kept"
                );
            }
            backend.close().await.unwrap();
        }
        assert!(!answered.is_empty(), "some process lived long enough to save something");
    }

    #[tokio::test]
    #[ignore = "runs until it is killed: what_was_answered_survives_kill_9 starts it"]
    async fn appends_until_it_is_killed() {
        let Ok(folder) = env::var(FOLDER) else { return };
        let backend: Arc<dyn Backend> = Arc::new(Embedded::open(Path::new(&folder)).unwrap());
        let documents = (0..8).map(|document| {
            let (backend, document) = (backend.clone(), format!("document-{document}"));
            tokio::spawn(async move {
                let mut last = last_number(&load(&*backend, &document).await);
                loop {
                    last += 1;
                    let position = append(&*backend, &document, last.to_string()).await;
                    // Ends this process by a panic where the test has gone away.
                    println!("saved {document} {last}");
                    if last.is_multiple_of(10) {
                        compact(&*backend, &document, position, last.to_string()).await;
                    }
                }
            })
        });
        join_all(documents).await;
    }

    #[tokio::test]
    async fn a_full_disk_loses_nothing_and_heals() {
        // A limit on the size of files is what can be had everywhere; exceeding it must be an error, no signal.
        let limited = "trap '' XFSZ && exec prlimit --fsize=2000000: \"$0\" \"$@\"";
        if !Command::new("sh").args(["-c", limited, "true"]).status().is_ok_and(|status| status.success()) {
            println!("skipped: prlimit is not here, or must not set a limit");
            return;
        }
        let folder = TempDir::new().unwrap();
        let test = in_its_own_process("backend::embedded::fills_its_disk", folder.path());
        let mut command = Command::new("sh");
        command.args(["-c", limited]).arg(test.get_program()).args(test.get_args());
        command.env(FOLDER, folder.path());
        let (mut child, lines) = spawn(command);
        let saved: Vec<_> = lines.filter_map(|line| Some(line.split_once("saved ")?.1.to_owned())).collect();
        assert!(child.wait().unwrap().success(), "the process failed after saving {}", saved.len());
        assert!(saved.len() > 1, "something was saved before and after");

        let stored = load(&*folder.open().await, "essay").await;
        let kept = texts(&stored);
        assert!(
            saved.iter().all(|number| kept.contains(&number.as_str())),
            "{saved:?} were answered, {kept:?} are kept"
        );
    }

    #[tokio::test]
    #[ignore = "needs a limit on the size of files: a_full_disk_loses_nothing_and_heals starts it"]
    async fn fills_its_disk() {
        let Ok(folder) = env::var(FOLDER) else { return };
        let backend = Embedded::open(Path::new(&folder)).unwrap();
        let (essay, large) = (name("essay"), Bytes::from(vec![1; 50_000]));
        let mut saved = Vec::new();
        let error = loop {
            assert!(saved.len() < 1_000, "the disk is never full");
            let number = saved.len().to_string();
            if let Err(error) = backend.append(&essay, text(&number)).await {
                break error;
            }
            println!("saved {number}");
            saved.push(number);
            if let Err(error) = backend.append(&name("large"), large.clone()).await {
                break error;
            }
        };
        assert!(matches!(error, BackendError::Store(_)), "{error}");
        for _ in 0..3 {
            backend.append(&name("large"), large.clone()).await.expect_err("it is still full");
            assert_eq!(texts(&backend.load(&essay).await.unwrap()), saved, "reading goes on");
        }

        let pid = process::id().to_string();
        let freed = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().unwrap();
        assert!(freed.success());
        append(&backend, "large", large).await;
        append(&backend, "essay", "freed").await;
        println!("saved freed");
        backend.close().await.unwrap();
    }

    fn refusal(folder: &Path) -> OpenError {
        match Embedded::open(folder) {
            Ok(_) => panic!("{} was opened", folder.display()),
            Err(error) => error,
        }
    }

    /// This file's test of that name, alone in a process that can be killed or limited.
    fn in_its_own_process(test: &str, folder: &Path) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--ignored", "--exact", test, "--nocapture"]).env(FOLDER, folder);
        command
    }

    fn spawn(mut command: Command) -> (Child, impl Iterator<Item = String>) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().expect("it is piped");
        (child, BufReader::new(output).lines().map_while(Result::ok))
    }
}

fn name(text: &str) -> DocumentName {
    DocumentName::new(text).unwrap()
}

fn text(text: impl ToString) -> Bytes {
    text.to_string().into()
}

async fn load(backend: &dyn Backend, document: &str) -> Stored {
    backend.load(&name(document)).await.unwrap()
}

async fn append(backend: &dyn Backend, document: &str, record: impl Into<Bytes>) -> Position {
    backend.append(&name(document), record.into()).await.unwrap().position
}

async fn compact(backend: &dyn Backend, document: &str, through: Position, snapshot: impl Into<Bytes>) {
    backend.compact(&name(document), through, snapshot.into(), None).await.unwrap();
}

fn segment(through: Position, about: &str, data: &str) -> Segment {
    Segment { through, about: text(about), data: text(data) }
}

/// The snapshot, where there is one, and the records, of a document that holds text.
fn texts(stored: &Stored) -> Vec<&str> {
    let records = stored.log.iter().map(|(_, record)| record);
    stored.snapshot.iter().chain(records).map(|text| str::from_utf8(text).unwrap()).collect()
}

/// The last number in a document of numbers that count up from the snapshot's, or from 1, without a gap.
fn last_number(stored: &Stored) -> u64 {
    let numbers: Vec<u64> = texts(stored).iter().map(|text| text.parse().unwrap()).collect();
    let first = if stored.snapshot.is_some() { numbers[0] } else { 1 };
    assert!(numbers.iter().copied().eq(first..first + numbers.len() as u64), "a gap in {stored:?}");
    numbers.last().copied().unwrap_or(0)
}

/// Splitmix64.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

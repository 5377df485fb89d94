//! What an operator would complain about who has set a limit: a document, a presence or a node that grows beyond it,
//! or somebody who is turned away below it.

use std::time::{Duration, Instant};

use quire::{config::Config, presence::State, protocol};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use yrs::{ReadTxn, StateVector, Text, Transact, WriteTxn};

use crate::common::{PATIENCE, Person, Raw, TestServer, insertion, new_doc, within};

fn code(close: &CloseFrame) -> u16 {
    close.code.into()
}

/// The update of a new client that inserts so many letters.
fn letters(count: usize) -> Vec<u8> {
    insertion(&new_doc(), 0, &"x".repeat(count))
}

/// Sends a frame and waits until the server has dealt with it; it must take it.
async fn takes(raw: &mut Raw, frame: impl Into<Vec<u8>>) {
    raw.send(frame).await;
    // Nothing but the answer is a sync step 2.
    raw.send([0, 0, 1, 0]).await;
    while !matches!(raw.hears().await, protocol::Message::SyncStep2(_)) {}
}

async fn size_of(server: &TestServer, document: &str) -> usize {
    let response = server.get(&format!("/api/documents/{document}")).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.body.len()
}

#[tokio::test]
async fn an_update_may_be_as_large_as_the_limit_and_no_larger() {
    let fits = letters(1_000);
    let limit = fits.len();
    let server = TestServer::start_with(|config| config.limits.update_bytes = limit).await;
    takes(&mut Raw::connect(&server, "letter").await, &*protocol::update(&fits)).await;
    let before = server.text_of("letter").await;
    // Ids of clients differ in length: one more letter would not always be one more byte.
    let too_large = letters(1_010);
    for frame in [protocol::update(&too_large), protocol::sync_step_2(&too_large)] {
        let mut alice = Raw::connect(&server, "letter").await;
        alice.send(frame).await;
        let close = alice.is_closed().await;
        assert_eq!(code(&close), 4400);
        for said in [&too_large.len().to_string(), &limit.to_string(), "--max-update"] {
            assert!(close.reason.contains(said), "{said} is not in: {}", close.reason);
        }
    }
    assert_eq!(server.text_of("letter").await, before);
}

#[tokio::test]
async fn a_full_document_takes_only_deletions_and_then_new_content_again() {
    const LIMIT: usize = 20_000;
    let server = TestServer::start_with(|config| config.limits.document_bytes = LIMIT).await;
    let mut alice = Person::joins(&server, "letter").await;
    let mut bob = Person::joins(&server, "letter").await;
    // Typed letter by letter, what is sent is far more than what the document has in the end.
    for _ in 0..2_000 {
        alice.types("0").await;
    }
    alice.types(&"a".repeat(LIMIT - 3_000)).await;
    bob.reads(&alice.sees()).await;
    let size = size_of(&server, "letter").await;
    assert!((LIMIT - 1_000..LIMIT).contains(&size), "{size}");

    let mut carol = Person::joins(&server, "letter").await;
    carol.types(&"c".repeat(LIMIT - size + 1)).await;
    let close = carol.raw.is_closed().await;
    assert_eq!(code(&close), 4413);
    for said in [&LIMIT.to_string(), "--max-document"] {
        assert!(close.reason.contains(said), "{said} is not in: {}", close.reason);
    }
    // What still fits is taken, and so are deletions; nobody else has noticed anything.
    alice.types("fits").await;
    bob.reads(&alice.sees()).await;
    let deletion = bob.edit(|text, transaction| text.remove_range(transaction, 0, 15_000));
    bob.raw.send(protocol::update(&deletion)).await;
    alice.reads(&bob.sees()).await;
    bob.types(&"b".repeat(10_000)).await;
    alice.reads(&bob.sees()).await;
    let size = size_of(&server, "letter").await;
    assert!(size <= LIMIT, "{size}");
}

#[tokio::test]
async fn a_document_beyond_a_limit_that_was_lowered_is_served_and_shrinks() {
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "letter").await;
    takes(&mut alice.raw, &*protocol::update(&letters(10_000))).await;
    let folder = server.stop().await;
    let server = TestServer::start_in(folder, |config| config.limits.document_bytes = 5_000).await;
    let mut bob = Person::joins(&server, "letter").await;
    assert_eq!(bob.sees().len(), 10_000);
    // What the document has already is taken again, since it adds nothing.
    let everything = bob.doc.transact().encode_diff_v1(&StateVector::default());
    takes(&mut bob.raw, &*protocol::update(&everything)).await;
    let deletion = bob.edit(|text, transaction| text.remove_range(transaction, 0, 9_000));
    takes(&mut bob.raw, &*protocol::update(&deletion)).await;
    assert_eq!(server.text_of("letter").await.len(), 1_000);
    takes(&mut bob.raw, &*protocol::update(&letters(3_000))).await;
    assert_eq!(server.text_of("letter").await.len(), 4_000);
    Person::joins(&server, "letter").await.types(&"x".repeat(2_000)).await;
    assert_eq!(server.text_of("letter").await.len(), 4_000);
}

#[tokio::test]
async fn a_thousand_edits_to_a_full_document_are_refused_in_little_time() {
    let server = TestServer::start_with(|config| config.limits.document_bytes = 2_000_000).await;
    let mut alice = Person::joins(&server, "letter").await;
    takes(&mut alice.raw, &*protocol::update(&letters(1_999_000))).await;
    let start = Instant::now();
    let edit = protocol::update(&letters(2_000));
    let mut attackers = Vec::new();
    for _ in 0..100 {
        let mut attacker = Raw::connect(&server, "letter").await;
        for _ in 0..10 {
            attacker.send(&*edit).await;
        }
        attackers.push(attacker);
    }
    for mut attacker in attackers {
        assert_eq!(code(&attacker.is_closed().await), 4413);
    }
    takes(&mut alice.raw, &*protocol::update(&insertion(&new_doc(), 0, "!"))).await;
    assert!(server.text_of("letter").await.contains('!'));
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

fn state(client: u64, clock: u32, bytes: usize) -> State {
    State { client, clock, json: Some(format!("\"{}\"", "x".repeat(bytes - 2)).into()) }
}

#[tokio::test]
async fn a_presence_state_may_be_as_large_as_the_limit_and_no_larger() {
    for limit in [1_000, 64 * 1024, 200_000] {
        let server = TestServer::start_with(|config| config.limits.presence_bytes = limit).await;
        let mut alice = Raw::connect(&server, "letter").await;
        alice.is_greeted().await;
        alice.says_who_is_here(&[state(1, 1, limit)]).await;
        assert_eq!(here(&mut alice, 1).await, [state(1, 1, limit)]);
        alice.says_who_is_here(&[state(1, 2, limit + 1)]).await;
        let close = alice.is_closed().await;
        assert_eq!(code(&close), 4400);
        for said in [&(limit + 1).to_string(), &limit.to_string(), "--max-presence"] {
            assert!(close.reason.contains(said), "{said} is not in: {}", close.reason);
        }
    }
}

/// Who is here, as soon as there are so many.
async fn here(raw: &mut Raw, count: usize) -> Vec<State> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        raw.send([3]).await;
        if let protocol::Message::Awareness(states) = raw.hears().await
            && states.len() >= count
        {
            return states;
        }
        assert!(Instant::now() < deadline, "there are not so many");
    }
}

#[tokio::test]
async fn no_more_are_shown_than_the_limit_and_all_may_edit() {
    let server = TestServer::start_with(|config| config.limits.presences = 3).await;
    let mut everybody = Vec::new();
    for client in 1..=4 {
        let mut raw = Raw::connect(&server, "letter").await;
        raw.is_greeted().await;
        raw.says_who_is_here(&[state(client, 1, 20)]).await;
        here(&mut raw, client.min(3) as usize).await;
        everybody.push(raw);
    }
    let mut fourth = everybody.pop().unwrap();
    let mut shown: Vec<_> = here(&mut fourth, 3).await.iter().map(|state| state.client).collect();
    shown.sort_unstable();
    assert_eq!(shown, [1, 2, 3]);
    takes(&mut fourth, &*protocol::update(&letters(5))).await;
    assert_eq!(server.text_of("letter").await, "xxxxx");
    // There is space again when somebody leaves.
    everybody[0].says_who_is_here(&[State { client: 1, clock: 2, json: None }]).await;
    let deadline = Instant::now() + PATIENCE;
    for clock in 2.. {
        fourth.says_who_is_here(&[state(4, clock, 20)]).await;
        if here(&mut fourth, 2).await.iter().any(|state| state.client == 4) {
            break;
        }
        assert!(Instant::now() < deadline, "she is not shown");
    }
}

/// Joins a document, and answers with the close frame where that is refused.
async fn is_refused(server: &TestServer, document: &str) -> CloseFrame {
    Raw::connect(server, document).await.is_closed().await
}

async fn open_documents(server: &TestServer) -> u64 {
    let health: serde_json::Value = serde_json::from_slice(&server.get("/readyz").await.body).unwrap();
    health["documents"].as_u64().unwrap()
}

async fn are_open(server: &TestServer, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while open_documents(server).await != count {
        assert!(Instant::now() < deadline, "{} are open", open_documents(server).await);
        sleep(Duration::from_millis(20)).await;
    }
}

/// As many tries as it takes to join and type.
async fn types_at_last(server: &TestServer, document: &str) -> Person {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut raw = Raw::connect(server, document).await;
        raw.send([3]).await;
        match within(futures_util::StreamExt::next(&mut raw.socket)).await {
            Some(Ok(frame)) if frame.is_binary() => return Person::joins(server, document).await,
            _ => assert!(Instant::now() < deadline, "{document} is never opened"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn never_idle(config: &mut Config) {
    config.idle = Duration::from_secs(3_600);
}

#[tokio::test]
async fn where_all_documents_are_in_use_no_more_are_opened_until_somebody_leaves() {
    let server = TestServer::start_with(|config| {
        never_idle(config);
        config.limits.open_documents = 3;
    })
    .await;
    let mut people = Vec::new();
    for document in ["a", "b", "c"] {
        people.push(Person::joins(&server, document).await);
    }
    let close = is_refused(&server, "d").await;
    assert_eq!(code(&close), 1013);
    assert!(
        close.reason.contains(" 3 ") && close.reason.contains("--max-open-documents"),
        "{}",
        close.reason
    );
    let answer = server.get("/api/documents/d").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.text().contains("--max-open-documents"), "{}", answer.text());
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains(r#"quire_refusals_total{limit="max-open-documents"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"quire_sessions_ended_total{reason="full"} 1"#), "{metrics}");
    let ready = server.get("/readyz").await;
    let told: serde_json::Value = serde_json::from_slice(&ready.body).unwrap();
    assert_eq!((ready.status, &told["over"]), (503, &serde_json::json!(["max-open-documents"])), "{told}");
    // Whoever is in, and comes to an open document, is not disturbed.
    let mut bob = Person::joins(&server, "a").await;
    people[0].types("still here").await;
    bob.reads("still here").await;
    // Document b is left.
    drop(people.remove(1));
    let mut carol = types_at_last(&server, "d").await;
    carol.types("here too").await;
    Person::joins(&server, "d").await.reads("here too").await;
    assert_eq!(code(&is_refused(&server, "e").await), 1013);
    are_open(&server, 3).await;
}

#[tokio::test]
async fn the_document_that_was_idle_for_the_longest_time_leaves_first() {
    let server = TestServer::start_with(|config| {
        never_idle(config);
        config.limits.open_documents = 3;
    })
    .await;
    for document in ["a", "b", "c"] {
        let mut person = Person::joins(&server, document).await;
        takes(&mut person.raw, &*protocol::update(&letters(3))).await;
        drop(person);
        sleep(Duration::from_millis(300)).await;
    }
    are_open(&server, 3).await;
    // Used again, a is the one that was used last.
    drop(Person::joins(&server, "a").await);
    sleep(Duration::from_millis(300)).await;
    let _dora = types_at_last(&server, "d").await;
    are_open(&server, 3).await;
    let cora = Person::joins(&server, "c").await;
    let _anna = Person::joins(&server, "a").await;
    // All three are in use, so b is not open: it was the one that left.
    assert_eq!(code(&is_refused(&server, "b").await), 1013);
    assert_eq!(cora.sees(), "xxx");
}

#[tokio::test]
async fn documents_that_take_too_much_memory_leave_when_they_are_idle() {
    let server = TestServer::start_with(|config| {
        never_idle(config);
        config.limits.memory_bytes = 2_000_000;
    })
    .await;
    let mut alice = Person::joins(&server, "large").await;
    takes(&mut alice.raw, &*protocol::update(&letters(2_000_000))).await;
    // How large a document has become is told a moment after it was taken in.
    let full = async {
        while server.get("/api/documents/other").await.status != 503 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    within(full).await;
    let close = is_refused(&server, "other").await;
    assert_eq!(code(&close), 1013);
    assert!(close.reason.contains("2000000") && close.reason.contains("--max-memory"), "{}", close.reason);
    let answer = server.get("/api/documents/other").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("--max-memory"), "{}", answer.text());
    let bob = Person::joins(&server, "large").await;
    assert_eq!(bob.sees().len(), 2_000_000);
    drop((alice, bob));
    let _carol = types_at_last(&server, "other").await;
    are_open(&server, 1).await;
}

#[tokio::test]
async fn who_joins_a_document_that_is_told_to_leave_finds_it() {
    let server = TestServer::start_with(|config| {
        never_idle(config);
        config.limits.open_documents = 1;
    })
    .await;
    let mut typed = String::new();
    for round in 0..50 {
        let word = format!("{round} ");
        let mut alice = types_at_last(&server, "wanted").await;
        alice.reads(&typed).await;
        let edit = alice.edit(|text, transaction| {
            let end = text.len(transaction);
            text.insert(transaction, end, &word);
        });
        takes(&mut alice.raw, &*protocol::update(&edit)).await;
        typed.push_str(&word);
        drop(alice);
        // Somebody wants its place at the same moment as somebody comes back.
        let mut other = Raw::connect(&server, "other").await;
        let mut back = Raw::connect(&server, "wanted").await;
        other.send([3]).await;
        back.send([3]).await;
        drop((other, back));
    }
    types_at_last(&server, "wanted").await.reads(&typed).await;
}

#[tokio::test]
async fn fifty_thousand_root_types_are_served_and_exported_and_disturb_nobody() {
    const ROOTS: usize = 50_000;
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "undisturbed").await;
    let mut bob = Person::joins(&server, "undisturbed").await;
    let doc = new_doc();
    let update = {
        let mut transaction = doc.transact_mut();
        for root in 0..ROOTS {
            let text = transaction.get_or_insert_text(format!("root {root}"));
            text.insert(&mut transaction, 0, "x");
        }
        transaction.encode_update_v1()
    };
    let attack = async {
        let mut attacker = Raw::connect(&server, "roots").await;
        takes(&mut attacker, &*protocol::update(&update)).await;
        for format in ["update", "json", "text", "xml"] {
            let answer = server.get(&format!("/api/documents/roots?format={format}")).await;
            assert_eq!(answer.status, 200, "{format}: {}", answer.text());
        }
        let text = server.text_of("roots").await;
        assert_eq!(text.matches('x').count(), ROOTS);
        Person::joins(&server, "roots").await.types("edited").await;
    };
    let mut attack = Box::pin(attack);
    let (mut typed, mut slowest, mut done) = (String::new(), Duration::ZERO, false);
    while !done {
        let start = Instant::now();
        typed.push('.');
        alice.types(".").await;
        tokio::select! {
            () = &mut attack, if !done => done = true,
            () = sleep(Duration::from_millis(20)) => {}
        }
        bob.reads(&typed).await;
        slowest = slowest.max(start.elapsed());
    }
    drop(attack);
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    let server = server.restart().await;
    assert_eq!(server.text_of("roots").await.matches('x').count(), ROOTS);
}

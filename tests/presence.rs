//! What people would complain about who look for each other: somebody who is not shown, is shown although
//! gone, or flickers.

use std::time::{Duration, Instant};

use quire::{presence::State, protocol::Message};

use crate::common::{Raw, TestServer};

fn state(client: u64, clock: u32, json: &'static str) -> State {
    State { client, clock, json: (json != "null").then(|| json.into()) }
}

async fn joined(server: &TestServer, client: u64) -> Raw {
    let mut raw = Raw::connect(server, "letter").await;
    raw.is_greeted().await;
    raw.says_who_is_here(&[state(client, 1, r#"{"name":"somebody"}"#)]).await;
    raw
}

#[tokio::test]
async fn a_late_joiner_sees_everyone_at_once() {
    let server = TestServer::start().await;
    let _alice = joined(&server, 10).await;
    let mut bob = joined(&server, 20).await;
    sees(&mut bob, 2).await;
    let mut carol = Raw::connect(&server, "letter").await;
    assert!(matches!(carol.hears().await, Message::SyncStep1(_)));
    let Message::Awareness(mut states) = carol.hears().await else { panic!("nobody is shown") };
    states.sort_by_key(|state| state.client);
    assert_eq!(states.iter().map(|state| state.client).collect::<Vec<_>>(), [10, 20]);
}

/// Asks who is here until there are so many.
async fn sees(raw: &mut Raw, count: usize) {
    let mut here = 0;
    while here < count {
        raw.send([3]).await;
        if let Message::Awareness(states) = raw.hears().await {
            here = here.max(states.len());
        }
    }
}

#[tokio::test]
async fn who_says_goodbye_is_gone_at_once_and_who_is_cut_off_within_three_seconds() {
    let server = TestServer::start().await;
    let mut alice = joined(&server, 10).await;
    let mut bob = joined(&server, 20).await;
    let carol = joined(&server, 30).await;
    sees(&mut alice, 3).await;
    let start = Instant::now();
    bob.says_who_is_here(&[state(20, 2, "null")]).await;
    is_told_of(&mut alice, state(20, 2, "null")).await;
    assert!(start.elapsed() < Duration::from_millis(1_500));
    drop(carol);
    is_told_of(&mut alice, state(30, 1, "null")).await;
    assert!(start.elapsed() < Duration::from_secs(5));
}

async fn is_told_of(raw: &mut Raw, expected: State) {
    loop {
        if let Message::Awareness(states) = raw.hears().await
            && states.contains(&expected)
        {
            return;
        }
    }
}

#[tokio::test]
async fn who_comes_back_at_once_is_not_seen_to_leave() {
    let server = TestServer::start().await;
    let mut alice = joined(&server, 10).await;
    let bob = joined(&server, 20).await;
    is_told_of(&mut alice, state(20, 1, r#"{"name":"somebody"}"#)).await;
    drop(bob);
    // Stock clients come back with the same clock.
    let mut bob = joined(&server, 20).await;
    bob.says_who_is_here(&[state(20, 2, r#"{"name":"bob"}"#)]).await;
    is_told_of(&mut alice, state(20, 2, r#"{"name":"bob"}"#)).await;
    // Longer than somebody who is lost is shown.
    tokio::time::sleep(Duration::from_secs(3)).await;
    alice.hears_nothing_more().await;
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let server = TestServer::start().await;
    let mut alice = joined(&server, 10).await;
    let mut bob = joined(&server, 20).await;
    is_told_of(&mut alice, state(20, 1, r#"{"name":"somebody"}"#)).await;
    bob.says_who_is_here(&[state(10, 9, "null")]).await;
    bob.says_who_is_here(&[state(10, 9, r#"{"name":"forged"}"#)]).await;
    bob.says_who_is_here(&[state(20, 2, r#"{"name":"bob"}"#)]).await;
    loop {
        let Message::Awareness(told) = alice.hears().await else { panic!("no awareness") };
        // Her own state may come back to her, but not another one.
        let of_alice: Vec<_> = told.iter().filter(|state| state.client == 10).collect();
        assert!(of_alice.iter().all(|told| **told == state(10, 1, r#"{"name":"somebody"}"#)), "{of_alice:?}");
        if told.contains(&state(20, 2, r#"{"name":"bob"}"#)) {
            return;
        }
    }
}

#[tokio::test]
async fn a_state_that_is_no_json_is_refused() {
    let server = TestServer::start().await;
    let mut alice = joined(&server, 10).await;
    alice.says_who_is_here(&[state(10, 2, "{")]).await;
    let close = alice.is_closed().await;
    assert_eq!(u16::from(close.code), 4400);
    assert!(close.reason.contains("not JSON"), "{}", close.reason);
}

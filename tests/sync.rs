//! What people who edit one document would complain about: text that does not arrive, arrives twice, or
//! waits for somebody who is slow.

use futures_util::SinkExt;
use quire::protocol::{self, Message};
use tokio_tungstenite::tungstenite::{Error, Message as Frame};
use yrs::{ReadTxn, StateVector, Text, Transact};

use crate::common::{Person, Raw, TestServer, insertion, new_doc};

#[tokio::test]
async fn what_one_types_the_others_read() {
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "letter").await;
    let mut bob = Person::joins(&server, "letter").await;
    alice.types("hello").await;
    bob.reads("hello").await;
    bob.types(" world").await;
    alice.reads("hello world").await;
    let mut carol = Person::joins(&server, "letter").await;
    carol.reads("hello world").await;
    assert_eq!(server.text_of("letter").await, "hello world");
}

#[tokio::test]
async fn names_with_slashes_spaces_and_unicode_are_documents_of_their_own() {
    let server = TestServer::start().await;
    let names = ["a", "a/b", "a%2Fc", "%C3%BC%20x", "__proto__", "constructor", "a//b", "%F0%9F%93%9D"];
    for name in names {
        Person::joins(&server, name).await.types(name).await;
    }
    for name in names {
        let mut reader = Person::joins(&server, name).await;
        reader.reads(name).await;
    }
    // A slash in a name is one, however it is written.
    Person::joins(&server, "a/c").await.reads("a%2Fc").await;
}

#[tokio::test]
async fn a_sender_does_not_hear_its_own_edit() {
    let server = TestServer::start().await;
    let mut alice = Raw::connect(&server, "letter").await;
    alice.is_greeted().await;
    let update = insertion(&new_doc(), 0, "hello");
    alice.send(protocol::update(&update)).await;
    alice.hears_nothing_more().await;
}

#[tokio::test]
async fn an_edit_that_comes_twice_is_told_once() {
    let server = TestServer::start().await;
    let mut alice = Raw::connect(&server, "letter").await;
    let mut bob = Raw::connect(&server, "letter").await;
    alice.is_greeted().await;
    bob.is_greeted().await;
    let update = insertion(&new_doc(), 0, "hello");
    for _ in 0..3 {
        alice.send(protocol::update(&update)).await;
        alice.hears_nothing_more().await;
    }
    assert_eq!(bob.hears().await, Message::Update(update.into()));
    bob.hears_nothing_more().await;
}

#[tokio::test]
async fn an_edit_whose_ground_is_missing_is_asked_for_once() {
    let server = TestServer::start().await;
    let mut alice = Raw::connect(&server, "letter").await;
    let mut bob = Person::joins(&server, "letter").await;
    alice.is_greeted().await;
    let doc = new_doc();
    insertion(&doc, 0, "one ");
    alice.send(protocol::update(&insertion(&doc, 4, "two "))).await;
    assert!(
        matches!(alice.hears().await, Message::SyncStep1(known) if known.get(doc.client_id().get()) == 0)
    );
    alice.send(protocol::update(&insertion(&doc, 8, "three"))).await;
    alice.hears_nothing_more().await;
    // The answer to the question brings all of it.
    alice.send(protocol::sync_step_2(&doc.transact().encode_diff_v1(&StateVector::default()))).await;
    bob.reads("one two three").await;
    alice.hears_nothing_more().await;
}

#[tokio::test]
async fn a_deletion_that_overtakes_its_text_is_not_lost() {
    let server = TestServer::start().await;
    let mut alice = Raw::connect(&server, "letter").await;
    let mut bob = Person::joins(&server, "letter").await;
    alice.is_greeted().await;
    let doc = new_doc();
    insertion(&doc, 0, "one two");
    let deletion = {
        let text = doc.get_or_insert_text("text");
        let mut transaction = doc.transact_mut();
        text.remove_range(&mut transaction, 0, 4);
        transaction.encode_update_v1()
    };
    alice.send(protocol::update(&deletion)).await;
    assert!(matches!(alice.hears().await, Message::SyncStep1(_)));
    alice.send(protocol::sync_step_2(&doc.transact().encode_diff_v1(&StateVector::default()))).await;
    bob.reads("two").await;
}

#[tokio::test]
async fn what_a_client_itself_lacks_is_kept_aside_until_it_comes() {
    let server = TestServer::start().await;
    let mut alice = Raw::connect(&server, "letter").await;
    let mut bob = Raw::connect(&server, "letter").await;
    let mut carol = Person::joins(&server, "letter").await;
    alice.is_greeted().await;
    bob.is_greeted().await;
    // Bob has the end of somebody's text, but not its middle: his answer has a hole.
    let doc = new_doc();
    let (first, middle, end) =
        (insertion(&doc, 0, "one "), insertion(&doc, 4, "two "), insertion(&doc, 8, "three"));
    let with_hole = yrs::merge_updates_v1([&first, &end]).unwrap();
    bob.send(protocol::sync_step_2(&with_hole)).await;
    carol.reads("one ").await;
    bob.hears_nothing_more().await;
    alice.send(protocol::update(&middle)).await;
    carol.reads("one two three").await;
}

#[tokio::test]
async fn several_messages_in_a_frame_are_all_taken() {
    let server = TestServer::start().await;
    let mut alice = Raw::connect(&server, "letter").await;
    let mut bob = Person::joins(&server, "letter").await;
    alice.is_greeted().await;
    let doc = new_doc();
    let frame =
        [insertion(&doc, 0, "hello"), insertion(&doc, 5, " world")].map(|update| protocol::update(&update));
    alice.send(frame.concat()).await;
    bob.reads("hello world").await;
}

#[tokio::test]
async fn a_query_is_answered_and_a_refusal_says_why() {
    let server = TestServer::start().await;
    let mut alice = Raw::connect(&server, "letter").await;
    alice.is_greeted().await;
    alice.send([3]).await;
    assert_eq!(alice.hears().await, Message::Awareness(vec![]));
    alice.send([99]).await;
    let close = alice.is_closed().await;
    assert_eq!(u16::from(close.code), 4400);
    assert!(close.reason.contains("99"), "{}", close.reason);
    let mut bob = Raw::connect(&server, "letter").await;
    bob.is_greeted().await;
    // An update whose block is of length 0.
    bob.send(protocol::update(&[1, 1, 7, 0, 4, 1, 1, b't', 0, 0])).await;
    let close = bob.is_closed().await;
    assert_eq!(u16::from(close.code), 4400);
    assert!(close.reason.contains("a block has no content"), "{}", close.reason);
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_only_its_own_connection() {
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "letter").await;
    let mut bob = Raw::connect(&server, "letter").await;
    bob.is_greeted().await;
    // The server hangs up in the middle of it.
    let _ = bob.socket.send(Frame::Binary(vec![0; 17 * 1024 * 1024].into())).await;
    alice.types("hello").await;
    Person::joins(&server, "letter").await.reads("hello").await;
}

#[tokio::test]
async fn twenty_people_who_open_a_cold_document_at_once_all_read_the_next_edit() {
    let server = TestServer::start().await;
    for trial in 0..50 {
        let name = format!("letter-{trial}");
        let joins = (0..20).map(|_| Person::joins(&server, &name));
        let mut people = futures_util::future::join_all(joins).await;
        people[trial % 20].types("hello").await;
        for person in &mut people {
            person.reads("hello").await;
        }
    }
}

#[tokio::test]
async fn an_edit_comes_back_to_who_asked_for_it_only_when_it_is_saved() {
    let server = TestServer::start().await;
    let mut alice = Raw::connect(&server, "letter?echo=saved").await;
    let mut bob = Person::joins(&server, "letter").await;
    alice.is_greeted().await;
    let update = insertion(&new_doc(), 0, "hello");
    alice.send(protocol::update(&update)).await;
    assert_eq!(alice.hears().await, Message::Update(update.clone().into()));
    bob.reads("hello").await;
    // Again, although it is nothing new: it is saved.
    alice.send(protocol::update(&update)).await;
    assert_eq!(alice.hears().await, Message::Update(update.into()));
    // The database has it by now.
    let records: i64 = rusqlite::Connection::open(server.folder.path().join("quire.db"))
        .unwrap()
        .query_row("SELECT count(*) FROM log", [], |row| row.get(0))
        .unwrap();
    assert_eq!(records, 1);
}

#[tokio::test]
async fn a_bad_name_or_option_is_refused_before_the_upgrade() {
    let server = TestServer::start().await;
    let long = "x".repeat(1_001);
    let refused = [
        ("letter?echo=never", 400, "echo"),
        ("", 404, "/ws/"),
        ("a%0Ab", 400, "U+000A"),
        ("%FF", 400, "UTF-8"),
        (&long, 400, "1001 bytes; at most 1000"),
    ];
    for (rest, status, detail) in refused {
        let answer = tokio_tungstenite::connect_async(format!("ws://{}/ws/{rest}", server.address)).await;
        let Err(Error::Http(response)) = answer else { panic!("{rest} was not refused") };
        assert_eq!(response.status(), status, "{rest}");
        let body = String::from_utf8(response.into_body().unwrap_or_default()).unwrap();
        assert!(body.contains(detail), "{rest}: {body}");
    }
}

#[tokio::test]
async fn a_slow_reader_gets_one_diff_and_the_same_text() {
    let server = TestServer::start().await;
    let mut slow = Person::joins(&server, "letter").await;
    let mut alice = Person::joins(&server, "letter").await;
    let mut bob = Person::joins(&server, "letter").await;
    // 32 MB, written and deleted again: far more than the socket's buffers, and of no use to who comes late.
    let chunk = "x".repeat(64 * 1024);
    for _ in 0..512 {
        let update = alice.edit(|text, transaction| {
            let length = text.len(transaction);
            text.remove_range(transaction, 0, length);
            text.insert(transaction, 0, &chunk);
        });
        alice.raw.send(protocol::update(&update)).await;
    }
    alice.types("the end").await;
    let end = alice.sees();
    bob.reads(&end).await;
    let mut received = 0;
    while slow.sees() != end {
        let frame = slow.raw.hears_bytes().await;
        received += frame.len();
        let mut reader = quire::lib0::Reader::new(&frame);
        match Message::read(&mut reader).unwrap() {
            Message::Update(update) | Message::SyncStep2(update) => {
                let update = yrs::updates::decoder::Decode::decode_v1(&update).unwrap();
                slow.doc.transact_mut().apply_update(update).unwrap();
            }
            _ => {}
        }
    }
    assert!(received < 12 * 1024 * 1024, "{received} bytes, of 32 MB that were missed");
}

//! What a client could do to harm others: bytes that kill, hang or fool the document engine.

use futures_util::SinkExt;
use quire::{
    document::{Document, UpdateError},
    protocol::{self, Message},
    update::Update,
};
use tokio_tungstenite::tungstenite::Message as Frame;
use yrs::{ReadTxn, StateVector, Transact, updates::decoder::Decode};

use crate::common::{
    Person, Raw, TestServer,
    inputs::{self, Input, Kind},
    insertion, new_doc,
};

#[tokio::test]
async fn harmful_inputs_are_refused_or_served_and_disturb_nobody_else() {
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "undisturbed").await;
    let mut bob = Person::joins(&server, "undisturbed").await;
    let mut typed = String::new();
    for (number, input) in inputs::all().iter().enumerate() {
        let label = &input.label;
        let name = format!("victim-{number}");
        let mut attacker = Raw::connect(&server, &name).await;
        attacker.is_greeted().await;
        for frame in input.frames() {
            // It may have been thrown out by now.
            let _ = attacker.socket.send(Frame::Binary(frame)).await;
        }
        // Whatever became of the attacker, the document takes an edit, saves it, and exports in every format.
        let mut visitor = Raw::connect(&server, &format!("{name}?echo=saved")).await;
        visitor.is_greeted().await;
        let edit = insertion(&new_doc(), 0, "still here");
        visitor.send(protocol::update(&edit)).await;
        while visitor.hears().await != Message::Update(edit.clone().into()) {}
        for format in ["update", "json", "text", "xml", "state-vector"] {
            let answer = server.get(&format!("/api/documents/{name}?format={format}")).await;
            assert_eq!(answer.status, 200, "{label}: {format}");
            assert!(format != "text" || answer.text().contains("still here"), "{label}");
        }
        let word = format!("{number} ");
        typed.push_str(&word);
        alice.types(&word).await;
        bob.reads(&typed).await;
    }
    // What was let in can also be loaded again.
    let server = server.restart().await;
    for number in 0..inputs::all().len() {
        let answer = server.get(&format!("/api/documents/victim-{number}")).await;
        assert_eq!(answer.status, 200, "victim-{number}: {}", answer.text());
    }
}

#[test]
fn what_was_known_before_is_not_passed_on() {
    let mut document = Document::default();
    let (alice, bob) = (new_doc(), new_doc());
    let hello = insertion(&alice, 0, "hello");
    document.receive(hello.clone().into()).unwrap();
    bob.transact_mut().apply_update(yrs::Update::decode_v1(&hello).unwrap()).unwrap();
    insertion(&bob, 5, " world");
    // All that he has: nobody looks at Alice's part again, and she may wait to hear that it is saved.
    let everything = bob.transact().encode_state_as_update_v1(&StateVector::default());
    let news = document.receive(everything.into()).unwrap().news.unwrap();
    let told: Vec<_> =
        Update::read(&news.update).unwrap().sections.iter().map(|section| section.client).collect();
    assert_eq!(told, [bob.client_id().get()]);
}

#[test]
fn a_refused_update_leaves_no_trace() {
    let mut document = Document::default();
    let doc = new_doc();
    document.receive(insertion(&doc, 0, "hello").into()).unwrap();
    let before = document.fingerprint().unwrap();
    let mut refused = 0;
    for Input { label, parts, .. } in inputs::all().into_iter().filter(|input| input.kind == Kind::Update) {
        for update in parts {
            let mut victim = Document::load(&[document.snapshot().unwrap().0]).unwrap();
            match victim.receive(update.into()) {
                Ok(_) => {}
                Err(UpdateError::Refused(_)) => {
                    refused += 1;
                    assert_eq!(victim.fingerprint().unwrap(), before, "{label}");
                    // And the next edit is taken in as if nothing had been.
                    let next = insertion(&new_doc(), 0, "next");
                    assert!(victim.receive(next.into()).unwrap().news.is_some(), "{label}");
                }
                Err(UpdateError::Full) => panic!("{label}: no limit was set"),
                Err(UpdateError::Broken(reason)) => panic!("{label} broke the engine: {reason}"),
            }
        }
    }
    assert!(refused >= 15, "only {refused} were refused");
}

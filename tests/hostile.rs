//! What a client could do to harm others: bytes that kill, hang or fool the document engine.

mod common;

use common::{Person, Raw, TestServer, data, within};
use quire::{
    document::{Document, UpdateError},
    lib0::write_uint,
    protocol,
};

/// The inputs that are known to harm yrs: label, kind, and the bytes of one update after the other.
fn inputs() -> Vec<(String, String, Vec<Vec<u8>>)> {
    let table = String::from_utf8(data("hostile/updates.tsv")).unwrap();
    let row = |line: &str| {
        let columns: Vec<_> = line.split('\t').collect();
        let updates = columns[2].split(' ').map(decode_hex).collect();
        (columns[0].to_owned(), columns[1].to_owned(), updates)
    };
    let mut inputs: Vec<_> = table.lines().skip(1).map(row).collect();
    let update = |label: &str, update| (label.to_owned(), "update_v1".to_owned(), vec![update]);
    inputs.push(update("values nested 6,200 deep", nested_values(6_200)));
    inputs.push(update("values nested 30,000 deep", nested_values(30_000)));
    inputs.push(update("types nested 8,000 deep", nested_types(8_000)));
    inputs.push((
        "colliding clients".to_owned(),
        "state_vector_v1".to_owned(),
        vec![colliding_clients(50_000)],
    ));
    inputs
}

fn decode_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// One array value in another, and so on.
fn nested_values(depth: usize) -> Vec<u8> {
    let mut update = vec![1, 1, 1, 0, 8, 1, 1, b't', 1];
    update.extend([117, 1].repeat(depth));
    update.extend([126, 0]);
    update
}

/// One shared array in another, and so on.
fn nested_types(depth: usize) -> Vec<u8> {
    let mut update = vec![1];
    write_uint(&mut update, depth as u64);
    update.extend([1, 0, 7, 1, 1, b't', 0]);
    for clock in 0..depth as u64 - 1 {
        update.extend([7, 0, 1]);
        write_uint(&mut update, clock);
        update.push(0);
    }
    update.push(0);
    update
}

/// A state vector whose clients all fall into one place of yrs's hash table.
fn colliding_clients(count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_uint(&mut bytes, count);
    for client in 0..count {
        write_uint(&mut bytes, (client << 32) & ((1 << 53) - 1));
        bytes.push(1);
    }
    bytes
}

#[tokio::test]
async fn harmful_inputs_are_refused_or_served_and_disturb_nobody_else() {
    let server = TestServer::start().await;
    let mut alice = Person::joins(&server, "undisturbed").await;
    let mut bob = Person::joins(&server, "undisturbed").await;
    let mut typed = String::new();
    for (number, (label, kind, updates)) in inputs().into_iter().enumerate() {
        let name = format!("victim-{number}");
        let mut attacker = Raw::connect(&server, &name).await;
        attacker.is_greeted().await;
        for update in updates {
            let frame = match kind.as_str() {
                "state_vector_v1" => [&[0, 0][..], &with_length(&update)].concat(),
                _ => protocol::update(&update).to_vec(),
            };
            // It may have been thrown out by now.
            let _ = futures_util::SinkExt::send(
                &mut attacker.socket,
                tokio_tungstenite::tungstenite::Message::Binary(frame.into()),
            )
            .await;
        }
        // Whatever became of the attacker, the document opens, and exports in every format.
        let mut visitor = Person::joins(&server, &name).await;
        visitor.types("still here").await;
        let mut reader = Person::joins(&server, &name).await;
        within(async {
            while !reader.sees().contains("still here") {
                reader.hears_one().await;
            }
        })
        .await;
        for format in ["update", "json", "text", "xml", "state-vector"] {
            let answer = server.get(&format!("/api/documents/{name}?format={format}")).await;
            assert_eq!(answer.status, 200, "{label}: {format}");
        }
        let word = format!("{number} ");
        typed.push_str(&word);
        alice.types(&word).await;
        bob.reads(&typed).await;
    }
    // What was let in can also be loaded again.
    let server = server.restart().await;
    for number in 0..inputs().len() {
        let answer = server.get(&format!("/api/documents/victim-{number}")).await;
        assert_eq!(answer.status, 200, "victim-{number}: {}", answer.text());
    }
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let mut framed = Vec::new();
    quire::lib0::write_bytes(&mut framed, bytes);
    framed
}

#[test]
fn a_refused_update_leaves_no_trace() {
    let mut document = Document::default();
    let doc = common::new_doc();
    document.receive(common::insertion(&doc, 0, "hello").into()).unwrap();
    let before = document.fingerprint().unwrap();
    let mut refused = 0;
    for (label, kind, updates) in inputs() {
        for update in updates.into_iter().filter(|_| kind.starts_with("update")) {
            let mut victim = Document::load(&[document.snapshot().unwrap().0]).unwrap();
            match victim.receive(update.into()) {
                Ok(_) => {}
                Err(UpdateError::Refused(_)) => {
                    refused += 1;
                    assert_eq!(victim.fingerprint().unwrap(), before, "{label}");
                    // And the next edit is taken in as if nothing had been.
                    let next = common::insertion(&common::new_doc(), 0, "next");
                    assert!(victim.receive(next.into()).unwrap().news.is_some(), "{label}");
                }
                Err(UpdateError::Broken(reason)) => panic!("{label} broke the engine: {reason}"),
            }
        }
    }
    assert!(refused >= 15, "only {refused} were refused");
}

//! Hocuspocus' protocol byte by byte: what goes wrong with one document on a connection, and nobody else notices.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use quire::{
    access::own,
    config::{Config, Secret, TokenRequest},
    level::Level,
};

use crate::common::{Raw, TestServer};

const SECRET: [u8; 48] = [7; 48];

/// The update that inserts "hello".
const HELLO: &[u8] = b"\x01\x01\x07\x00\x04\x01\x04text\x05hello\x00";

/// A frame for an address.
fn behind(address: &str, message: &[u8]) -> Vec<u8> {
    [&[address.len() as u8], address.as_bytes(), message].concat()
}

fn sync(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, kind, payload.len() as u8], payload].concat()
}

fn token(text: &str) -> Vec<u8> {
    let mut message = vec![2, 0];
    quire::lib0::write_bytes(&mut message, text.as_bytes());
    message
}

struct Client(Raw);

impl Client {
    async fn connect(server: &TestServer) -> Self {
        let raw = Raw::try_connect_to(server, "/hocuspocus", &[]).await;
        let mut client = Self(raw.unwrap_or_else(|refusal| panic!("{}", refusal.text())));
        // Never a close before the first frame.
        assert_eq!(client.0.hears_bytes().await, [0]);
        client
    }

    async fn says(&mut self, address: &str, message: &[u8]) {
        self.0.send(behind(address, message)).await;
    }

    /// The next frame that is for this address.
    async fn hears(&mut self, address: &str) -> Vec<u8> {
        loop {
            let frame = self.0.hears_bytes().await;
            if let Some(message) = frame.strip_prefix(&behind(address, &[])[..]) {
                return message.to_vec();
            }
        }
    }

    /// Waits for a frame that begins so, whatever comes before it.
    async fn awaits(&mut self, address: &str, beginning: &[u8]) -> Vec<u8> {
        loop {
            let message = self.hears(address).await;
            if message.starts_with(beginning) {
                return message;
            }
        }
    }

    /// Comes into a document, and has all of it.
    async fn joins(&mut self, address: &str, token_text: &str) {
        self.says(address, &token(token_text)).await;
        self.says(address, &sync(0, &[0])).await;
        assert_eq!(self.hears(address).await, b"\x02\x02\x0aread-write");
        self.awaits(address, &[0, 0]).await;
        self.awaits(address, &[0, 1]).await;
        self.says(address, &sync(1, &[0, 0])).await;
        self.awaits(address, &[8, 1]).await;
    }

    /// Is told that it is not wanted, and why.
    async fn is_refused(&mut self, address: &str) -> String {
        let message = self.awaits(address, &[2, 1]).await;
        String::from_utf8_lossy(&message[3..]).into_owned()
    }
}

#[tokio::test]
async fn what_is_wrong_with_one_document_does_not_touch_the_others() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    for document in ["good", "bad"] {
        client.joins(document, "").await;
    }
    for (wrong, reason) in [
        (sync(2, &[9, 9, 9]), "update refused"),
        (vec![6, 1, b'x'], "unknown message type 6"),
        (vec![0, 2, 200, 1], "malformed message"),
    ] {
        client.says("bad", &wrong).await;
        assert!(client.is_refused("bad").await.contains(reason), "{reason}");
        // It is not heard any more, and does not come in again, before it brings a token.
        client.says("bad", &sync(2, HELLO)).await;
        client.says("good", &sync(2, &[0, 0])).await;
        client.awaits("good", &[8, 1]).await;
        client.joins("bad", "").await;
    }
    client.says("good", &sync(2, HELLO)).await;
    client.awaits("good", &[8, 1]).await;
    assert_eq!(server.text_of("good").await, "hello");
    assert_eq!(server.get("/api/documents/bad?format=text").await.status, 404);
    client.says("", &token("")).await;
    assert!(client.is_refused("").await.contains("the document's name is empty"));
    client.0.send([5]).await;
    assert_eq!(client.0.is_closed().await.code, 4400.into());
}

#[tokio::test]
async fn who_has_left_a_document_does_not_come_back_with_a_farewell() {
    let server = TestServer::start().await;
    let (mut client, mut other) = (Client::connect(&server).await, Client::connect(&server).await);
    client.joins("d", "").await;
    other.joins("d", "").await;
    client.says("d", b"\x01\x06\x01\x07\x01\x02{}").await;
    other.awaits("d", &[1]).await;
    // Providers of version 2 leave, and then say so.
    client.says("d", &[7]).await;
    client.says("d", b"\x01\x08\x01\x07\x02\x04null").await;
    // After a moment, because it might have lost the line.
    assert_eq!(other.awaits("d", &[1]).await, b"\x01\x08\x01\x07\x01\x04null");
    client.joins("e", "").await;
    client.says("d", &[3]).await;
    other.says("d", &sync(2, HELLO)).await;
    other.awaits("d", &[8, 1]).await;
    client.says("e", &[3]).await;
    let heard = client.0.hears_bytes().await;
    assert!(heard.starts_with(b"\x01e\x01"), "it hears of a document that it has left: {heard:?}");
    // And when it comes again, all is as it was at first: it is told what it may, and what is saved.
    client.joins("d", "").await;
    client.says("d", &sync(2, HELLO)).await;
    client.awaits("d", &[8, 1]).await;
}

#[tokio::test]
async fn a_client_without_a_token_comes_in_where_nobody_is_asked() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    client.says("d", &sync(0, &[0])).await;
    client.awaits("d", &[0, 1]).await;
    client.says("d", &sync(1, HELLO)).await;
    client.awaits("d", &[8, 1]).await;
    assert_eq!(server.text_of("d").await, "hello");
}

#[tokio::test]
async fn what_comes_before_the_token_waits_for_it() {
    let secret = Secret::new(STANDARD.encode(SECRET));
    let server = TestServer::start_with(|config: &mut Config| {
        config.authentication.secret = Some(secret.clone());
    })
    .await;
    let request = TokenRequest {
        document: vec!["*".to_owned()],
        user: "alice".to_owned(),
        level: Level::Write,
        ttl: Duration::from_secs(60),
        data: server.folder.path().to_owned(),
        secret_file: None,
        secret: Some(secret),
    };
    let good = own::answer(request).unwrap();
    let mut client = Client::connect(&server).await;
    client.says("d", &sync(2, HELLO)).await;
    client.says("d", &token("wrong")).await;
    assert!(client.is_refused("d").await.contains("the token is not accepted"));
    // What came before a bad token is forgotten.
    assert_eq!(server.get("/metrics").await.status, 200);
    client.says("e", &sync(2, HELLO)).await;
    client.says("e", &token(&good)).await;
    client.says("e", &sync(0, &[0])).await;
    assert_eq!(client.hears("e").await, b"\x02\x02\x0aread-write");
    let step_2 = client.awaits("e", &[0, 1]).await;
    assert!(step_2.windows(5).any(|window| window == b"hello"), "{step_2:?}");
    client.says("e", &sync(1, &[0, 0])).await;
    client.awaits("e", &[8, 1]).await;
    client.joins("d", &good).await;
}

#[tokio::test]
async fn a_connection_has_a_limit_of_documents() {
    let server = TestServer::start_with(|config| config.limits.documents_per_connection = 3).await;
    let mut client = Client::connect(&server).await;
    for document in ["a", "b", "c"] {
        client.joins(document, "").await;
    }
    client.says("d", &token("")).await;
    let reason = client.is_refused("d").await;
    assert!(reason.contains("3 documents") && reason.contains("--max-documents-per-connection"), "{reason}");
    // One who leaves makes room.
    client.says("a", &[7]).await;
    client.joins("d", "").await;
    client.says("b", &sync(2, HELLO)).await;
    client.awaits("b", &[8, 1]).await;
    // Nobody knocks for ever at documents that do not open.
    for number in 0..4 {
        client.says(&format!("x{number}"), &token("")).await;
    }
    assert_eq!(client.0.is_closed().await.code, 4400.into());
}

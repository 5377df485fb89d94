//! What tests have in common: a server on a port and a folder of its own, and people who edit with yrs over
//! a real WebSocket. Every wait ends by itself.

pub mod cluster;
pub mod inputs;
pub mod proxy;
pub mod redis;
pub mod redis_node;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use futures_util::{SinkExt, StreamExt};
use quire::{
    Server, StopError,
    access::own,
    config::{Config, Secret, TokenRequest},
    level::Level,
    lib0::Reader,
    presence::State,
    protocol::{self, Message},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message as Frame, client::IntoClientRequest, protocol::CloseFrame},
};
use yrs::{
    Doc, GetString, OffsetKind, Options, ReadTxn, StateVector, Text, TextRef, Transact, Update, WriteTxn,
    updates::{decoder::Decode, encoder::Encode},
};

/// How long anything may take that usually takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server in this process.
pub struct TestServer {
    pub folder: TempDir,
    pub address: String,
    /// None where somebody else serves.
    serving: Option<Serving>,
}

struct Serving {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), StopError>>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_on(TempDir::new().unwrap(), Duration::from_secs(30)).await
    }

    pub async fn start_on(folder: TempDir, idle: Duration) -> Self {
        Self::start_in(folder, |config| config.idle = idle).await
    }

    /// A server with another configuration than the usual one.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(TempDir::new().unwrap(), change).await
    }

    /// The same on a folder that was used before.
    pub async fn start_in(folder: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { data: folder.path().to_owned(), ..Config::default() };
        change(&mut config);
        // Both ends of all connections, of all tests at once, are files of this process.
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let server = Server::new(&config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(async move { server.serve(listener, async { drop(stopped.await) }).await });
        Self { folder, address, serving: Some(Serving { stop, ended }) }
    }

    /// A server that somebody else runs.
    pub fn at(folder: TempDir, address: SocketAddr) -> Self {
        Self { folder, address: address.to_string(), serving: None }
    }

    /// Stops in good order, and gives the folder back.
    pub async fn stop(self) -> TempDir {
        if let Some(Serving { stop, ended }) = self.serving {
            drop(stop);
            within(ended).await.unwrap().unwrap();
        }
        self.folder
    }

    pub async fn restart(self) -> Self {
        let folder = self.stop().await;
        Self::start_on(folder, Duration::from_secs(30)).await
    }

    pub async fn get(&self, path: &str) -> Response {
        self.get_with(path, "").await
    }

    /// Sends a GET request with further header lines, each ended by CR LF.
    pub async fn get_with(&self, path: &str, headers: &str) -> Response {
        self.request("GET", path, headers).await
    }

    /// Sends a POST request with a body.
    pub async fn post(&self, path: &str, headers: &str, body: &[u8]) -> Response {
        self.request_with("POST", path, headers, body).await
    }

    pub async fn request(&self, method: &str, path: &str, headers: &str) -> Response {
        self.request_with(method, path, headers, &[]).await
    }

    pub async fn request_with(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = TcpStream::connect(&self.address).await.unwrap();
        // Who says another length means it.
        let length = match headers.to_ascii_lowercase().contains("content-length:") {
            true => String::new(),
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}{length}\r\n"
        );
        socket.write_all(&[request.as_bytes(), body].concat()).await.unwrap();
        let mut bytes = Vec::new();
        within(socket.read_to_end(&mut bytes)).await.unwrap();
        let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a header");
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Response { status, head: head.to_lowercase(), body: bytes[head_end + 4..].to_vec() }
    }

    pub async fn text_of(&self, document: &str) -> String {
        let response = self.get(&format!("/api/documents/{document}?format=text")).await;
        assert_eq!(response.status, 200, "{}", response.text());
        response.text()
    }
}

pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// The JSON of an answer.
pub fn body(answer: &Response) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no JSON but {}", answer.text()))
}

/// Whether an answer is a refusal with this reason.
#[track_caller]
pub fn said(answer: &Response, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.text().contains(reason), "{}", answer.text());
}

/// What signs tokens.
pub const SECRET: &str = "a secret of more than thirty-two bytes, for tests alone";

/// The header line of a body in JSON.
pub const JSON: &str = "Content-Type: application/json\r\n";

/// A server that asks for tokens asks for those that this signs.
pub fn secret() -> Secret {
    Secret::new(SECRET.to_owned())
}

/// A token that lasts for a while.
pub fn token(user: &str, document: &str, level: Level) -> String {
    token_for(user, document, level, Duration::from_secs(600))
}

/// A token.
pub fn token_for(user: &str, document: &str, level: Level, ttl: Duration) -> String {
    let request = TokenRequest {
        document: vec![document.to_owned()],
        user: user.to_owned(),
        level,
        ttl,
        data: PathBuf::new(),
        secret_file: None,
        secret: Some(secret()),
    };
    own::answer(request).unwrap()
}

/// The header line of a token for an application.
pub fn bearer(document: &str, level: Level) -> String {
    format!("Authorization: Bearer {}\r\n", token("app", document, level))
}

/// A WebSocket on which a test says and hears exactly what it wants.
pub struct Raw {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Raw {
    /// Connects to `/ws/` and what follows it.
    pub async fn connect(server: &TestServer, rest: &str) -> Self {
        Self::try_connect(server, rest, &[]).await.unwrap_or_else(|refusal| panic!("{}", refusal.text()))
    }

    /// Connects with further headers; gives the answer back where that is no WebSocket.
    pub async fn try_connect(
        server: &TestServer,
        rest: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Response> {
        Self::try_connect_to(server, &format!("/ws/{rest}"), headers).await
    }

    /// The same at any path.
    pub async fn try_connect_to(
        server: &TestServer,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Response> {
        let mut request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        match within(connect_async(request)).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(tungstenite::Error::Http(answer)) => {
                let head = answer.headers().iter();
                let head = head.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
                Err(Response {
                    status: answer.status().as_u16(),
                    head: head.collect(),
                    body: answer.into_body().unwrap_or_default(),
                })
            }
            Err(error) => panic!("no answer but {error}"),
        }
    }

    pub async fn send(&mut self, bytes: impl Into<Vec<u8>>) {
        within(self.socket.send(Frame::Binary(bytes.into().into()))).await.unwrap();
    }

    /// The next frame, as messages.
    pub async fn hears(&mut self) -> Message {
        let bytes = self.hears_bytes().await;
        let mut reader = Reader::new(&bytes);
        let message = Message::read(&mut reader).unwrap();
        assert!(reader.is_empty(), "one message per frame");
        message
    }

    pub async fn hears_bytes(&mut self) -> Vec<u8> {
        loop {
            match within(self.socket.next()).await {
                Some(Ok(Frame::Binary(bytes))) => return bytes.to_vec(),
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                other => panic!("no frame but {other:?}"),
            }
        }
    }

    /// Reads until the server closes the connection.
    pub async fn is_closed(&mut self) -> CloseFrame {
        loop {
            match within(self.socket.next()).await {
                Some(Ok(Frame::Close(Some(close)))) => return close,
                Some(Ok(_)) => {}
                other => panic!("no close frame but {other:?}"),
            }
        }
    }

    /// Nothing that was caused by what was sent before is on its way any more: the answer to a question is
    /// the next thing that is heard.
    pub async fn hears_nothing_more(&mut self) {
        self.send([3]).await;
        assert!(matches!(self.hears().await, Message::Awareness(_)), "something came before the answer");
    }

    /// Asks who is here, and waits for the answer.
    pub async fn is_answered(&mut self) {
        self.send([3]).await;
        while !matches!(self.hears().await, Message::Awareness(_)) {}
    }

    /// Takes the greeting, gives nothing, and has everything.
    pub async fn is_greeted(&mut self) {
        assert!(matches!(self.hears().await, Message::SyncStep1(_)));
        self.send(protocol::sync_step_2(Update::EMPTY_V1)).await;
    }

    pub async fn says_who_is_here(&mut self, states: &[State]) {
        self.send(protocol::awareness(states)).await;
    }
}

/// Somebody who edits the text `text` of a document.
pub struct Person {
    pub raw: Raw,
    pub doc: Doc,
    pub text: TextRef,
}

impl Person {
    /// Joins, and waits until she has the document in front of her.
    pub async fn joins(server: &TestServer, document: &str) -> Self {
        Self::joins_with(server, document, new_doc()).await
    }

    /// Joins with a document that was edited before.
    pub async fn joins_with(server: &TestServer, document: &str, doc: Doc) -> Self {
        let text = doc.get_or_insert_text("text");
        let mut person = Self { raw: Raw::connect(server, document).await, doc, text };
        let state_vector = person.doc.transact().state_vector().encode_v1();
        person.raw.send([&[0, 0, state_vector.len() as u8][..], &state_vector].concat()).await;
        while !person.hears_one().await {}
        person
    }

    /// Writes at the end of the text.
    pub async fn types(&mut self, words: &str) {
        let update = self.edit(|text, transaction| {
            let end = text.len(transaction);
            text.insert(transaction, end, words);
        });
        self.raw.send(protocol::update(&update)).await;
    }

    /// Edits without telling anybody.
    pub fn edit(&mut self, edit: impl FnOnce(&TextRef, &mut yrs::TransactionMut<'_>)) -> Vec<u8> {
        let mut transaction = self.doc.transact_mut();
        edit(&self.text, &mut transaction);
        transaction.encode_update_v1()
    }

    /// Waits until the whole text is this.
    pub async fn reads(&mut self, words: &str) {
        while self.sees() != words {
            self.hears_one().await;
        }
    }

    pub fn sees(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    /// Takes one message, and tells whether it was a sync step 2.
    pub async fn hears_one(&mut self) -> bool {
        let message = self.raw.hears().await;
        self.takes(message).await
    }

    /// Takes everything that the server has for her by now.
    pub async fn catches_up(&mut self) {
        self.raw.send([3]).await;
        loop {
            match self.raw.hears().await {
                Message::Awareness(_) => return,
                message => drop(self.takes(message).await),
            }
        }
    }

    async fn takes(&mut self, message: Message) -> bool {
        match message {
            Message::SyncStep1(known) => {
                let known = StateVector::decode_v1(&known.write()).unwrap();
                let update = self.doc.transact().encode_diff_v1(&known);
                self.raw.send(protocol::sync_step_2(&update)).await;
                false
            }
            Message::SyncStep2(update) => {
                self.applies(&update);
                true
            }
            Message::Update(update) => {
                self.applies(&update);
                false
            }
            Message::Awareness(_) | Message::QueryAwareness | Message::Stateless(_) => false,
        }
    }

    fn applies(&self, update: &[u8]) {
        self.doc.transact_mut().apply_update(Update::decode_v1(update).unwrap()).unwrap();
    }
}

/// A document as clients have it: with lengths in UTF-16.
pub fn new_doc() -> Doc {
    Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..Options::default() })
}

/// The update that inserts words into the text of a document.
pub fn insertion(doc: &Doc, at: u32, words: &str) -> Vec<u8> {
    let mut transaction = doc.transact_mut();
    let text = transaction.get_or_insert_text("text");
    text.insert(&mut transaction, at, words);
    transaction.encode_update_v1()
}

/// Waits for something that must come.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it took longer than 20 seconds")
}

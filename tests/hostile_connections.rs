//! What is done with connections alone, without a single harmful update, stops nobody else's work: requests that
//! never end, frames that never end, sockets that do nothing, names that mean something elsewhere.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::common::{Person, Raw, TestServer, cluster::Node, within};

/// How many sockets do nothing, where the system allows so many files.
const IDLE_SOCKETS: u64 = 10_000;

/// Two people can write to each other, without long pauses.
async fn people_are_served(alice: &mut Person, bob: &mut Person) {
    let start = Instant::now();
    alice.types("x").await;
    let words = alice.sees();
    bob.reads(&words).await;
    assert!(start.elapsed() < Duration::from_secs(5), "they had to wait for {:?}", start.elapsed());
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_given_up_and_others_are_served() {
    let server = TestServer::start().await;
    let (mut alice, mut bob) =
        (Person::joins(&server, "letter").await, Person::joins(&server, "letter").await);
    let start = Instant::now();
    let address = server.address.clone();
    let slow = tokio::spawn(async move {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /ws/letter HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.unwrap();
        loop {
            // An error: it was given up.
            if socket.write_all(b"a").await.is_err() {
                break;
            }
            let heard = timeout(Duration::from_millis(200), socket.read(&mut [0; 100])).await;
            if matches!(heard, Ok(Ok(0) | Err(_))) {
                break;
            }
        }
        start.elapsed()
    });
    // One that says nothing at all, not even the beginning of a request.
    let mut silent = TcpStream::connect(&server.address).await.unwrap();
    while !slow.is_finished() {
        people_are_served(&mut alice, &mut bob).await;
        sleep(Duration::from_millis(200)).await;
        assert!(start.elapsed() < Duration::from_secs(60), "it is never given up");
    }
    let took = slow.await.unwrap();
    assert!(took > Duration::from_secs(8) && took < Duration::from_secs(20), "it took {took:?}");
    assert!(matches!(within(silent.read(&mut [0; 100])).await, Ok(0) | Err(_)));
    people_are_served(&mut alice, &mut bob).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let server = TestServer::start().await;
    let mut socket = TcpStream::connect(&server.address).await.unwrap();
    let start = Instant::now();
    socket
        .write_all(b"POST /d/letter/update HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        .await
        .unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(40), socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    let took = start.elapsed();
    assert!(took > Duration::from_secs(8), "it took {took:?}");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let server = TestServer::start().await;
    let mut socket = TcpStream::connect(&server.address).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    let mut sent = 0;
    let line = format!("X-Long: {}", "a".repeat(8_000));
    // An error: it is refused.
    while sent < 10 << 20 && within(socket.write_all(line.as_bytes())).await.is_ok() {
        sent += line.len();
    }
    assert!(sent < 10 << 20, "ten megabytes of headers were taken");
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn half_a_request_does_not_hold_up_a_stop() {
    let server = TestServer::start().await;
    let mut socket = TcpStream::connect(&server.address).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    assert_eq!(server.get("/healthz").await.status, 200);
    // It fails where that takes longer than a stop may.
    server.stop().await;
}

fn fragment(bytes: Vec<u8>, first: bool, last: bool) -> Message {
    let kind = if first { Data::Binary } else { Data::Continue };
    Message::Frame(Frame::message(bytes, OpCode::Data(kind), last))
}

#[tokio::test]
async fn a_message_in_thousands_of_empty_fragments_is_a_message() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server, "letter").await;
    raw.is_greeted().await;
    within(raw.socket.feed(fragment(vec![3], true, false))).await.unwrap();
    for _ in 0..10_000 {
        within(raw.socket.feed(fragment(vec![], false, false))).await.unwrap();
    }
    within(raw.socket.send(fragment(vec![], false, true))).await.unwrap();
    assert!(matches!(raw.hears().await, quire::protocol::Message::Awareness(_)));
}

#[tokio::test]
async fn fragments_without_end_are_no_larger_than_a_frame_may_be() {
    let server = TestServer::start_with(|config| config.limits.frame_bytes = 1 << 20).await;
    let (mut sink, mut stream) = Raw::connect(&server, "letter").await.socket.split();
    let sends = async {
        within(sink.send(fragment(vec![0; 64 << 10], true, false))).await.unwrap();
        // An error: it is closed.
        while within(sink.send(fragment(vec![0; 64 << 10], false, false))).await.is_ok() {}
    };
    let closed = async {
        loop {
            match within(stream.next()).await {
                Some(Ok(Message::Close(Some(close)))) => return u16::from(close.code),
                Some(Ok(_)) => {}
                other => panic!("no close frame but {other:?}"),
            }
        }
    };
    let code = tokio::select! {
        code = closed => code,
        () = async { sends.await; std::future::pending().await } => unreachable!(),
    };
    assert_eq!(code, 1009);
}

#[tokio::test]
async fn empty_fragments_without_end_end_with_the_connection() {
    let server =
        TestServer::start_with(|config| config.limits.first_message_within = Duration::from_secs(3)).await;
    let (mut alice, mut bob) =
        (Person::joins(&server, "letter").await, Person::joins(&server, "letter").await);
    let (mut sink, mut stream) = Raw::connect(&server, "victim").await.socket.split();
    let flood = tokio::spawn(async move {
        let mut sent = 0_u64;
        let mut first = true;
        // An error: it is closed.
        while within(sink.feed(fragment(vec![], first, false))).await.is_ok() {
            first = false;
            sent += 1;
        }
        sent
    });
    let closed = tokio::spawn(async move {
        while let Some(Ok(frame)) = stream.next().await {
            if let Message::Close(Some(close)) = frame {
                return Some(u16::from(close.code));
            }
        }
        None
    });
    let start = Instant::now();
    while !closed.is_finished() {
        people_are_served(&mut alice, &mut bob).await;
        sleep(Duration::from_millis(50)).await;
        assert!(start.elapsed() < Duration::from_secs(20), "it goes on for ever");
    }
    let code = within(closed).await.unwrap();
    assert!(matches!(code, Some(4508) | None), "{code:?}");
    eprintln!("{} fragments were sent", within(flood).await.unwrap());
    people_are_served(&mut alice, &mut bob).await;
}

/// A WebSocket that has asked once who is here, without what a client keeps for one.
async fn idle_socket(server: &TestServer, document: &str) -> TcpStream {
    let mut socket = TcpStream::connect(&server.address).await.unwrap();
    let request = format!(
        "GET /ws/{document} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    // The frame is masked with zeros.
    let frame = [0x82, 0x81, 0, 0, 0, 0, 3];
    socket.write_all(&[request.as_bytes(), &frame].concat()).await.unwrap();
    let mut answer = [0; 12];
    within(socket.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_idle_sockets_keep_nobody_out() {
    // The other ends are files of the server, a process of its own with the same limit.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let sockets = IDLE_SOCKETS.min(files.saturating_sub(1_000));
    let node = Node::start_with(&[], &[]);
    let server = &node.server;
    let (before, start) = (node.memory(), Instant::now());
    let mut idle = Vec::new();
    for number in 0..sockets {
        idle.push(idle_socket(server, &format!("idle-{}", number % 100)).await);
    }
    eprintln!(
        "{sockets} idle sockets in {:.1} s, {:.1} KiB of the server each",
        start.elapsed().as_secs_f64(),
        (node.memory() - before) as f64 / 1024.0 / sockets as f64
    );
    let start = Instant::now();
    let (mut alice, mut bob) = (Person::joins(server, "letter").await, Person::joins(server, "letter").await);
    people_are_served(&mut alice, &mut bob).await;
    let mut newcomer = Person::joins(server, "idle-0").await;
    newcomer.types("hello").await;
    assert_eq!(within(server.get("/readyz")).await.status, 200);
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    assert_eq!(idle.len() as u64, sockets);
}

/// All files below a folder, and their names.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_name_that_means_something_elsewhere_is_a_name() {
    let server = TestServer::start().await;
    let mut neighbour = Person::joins(&server, "x").await;
    neighbour.types("mine").await;
    let before = files(server.folder.path());

    let long = "n".repeat(1_000);
    let names = [
        "__proto__",
        "constructor",
        "toString",
        "../../x",
        "..%5c..%5cx",
        "/x",
        "//",
        ".",
        "..",
        "%2e%2e%2fx",
        "x/",
        "x%20",
        "%25",
        "%2525",
        "quire.db",
        "'%22;DROP%20TABLE%20log",
        "$%7Bjndi%7D",
        "%F0%9F%92%A9",
        "%E2%80%AE",
        "a?echo=saved",
        &long,
    ];
    for name in names {
        let mut writer = Person::joins(&server, name).await;
        assert_eq!(writer.sees(), "", "{name} is a document of its own");
        writer.types(name).await;
        Person::joins(&server, name).await.reads(name).await;
    }

    // However it is written.
    Person::joins(&server, "..%2f..%2fx").await.reads("../../x").await;

    let too_long = "n".repeat(1_001);
    for name in ["%00", "a%00b", "%0a", "%7f", "%c2%80", "%ff", "%c3%28", "", &too_long] {
        let refusal =
            Raw::try_connect(&server, name, &[]).await.err().unwrap_or_else(|| panic!("{name:?} is taken"));
        let expected = if name.is_empty() { 404 } else { 400 };
        assert_eq!(refusal.status, expected, "{name:?}: {}", refusal.text());
        assert_eq!(refusal.header("content-type"), Some("application/problem+json"), "{name:?}");
    }

    neighbour.types(" still").await;
    Person::joins(&server, "x").await.reads("mine still").await;
    assert_eq!(files(server.folder.path()), before, "nothing else was written");
    assert_eq!(server.text_of("__proto__").await.trim_end(), "__proto__");
    let server = server.restart().await;
    Person::joins(&server, "../../x").await.reads("../../x").await;
    Person::joins(&server, "x").await.reads("mine still").await;
}

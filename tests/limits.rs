//! Each limit of connections holds, and only it: what is below is served, what is above is refused or slowed, and
//! hears which limit it was.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::SinkExt;
use quire::{Server, config::Config, protocol};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::common::{Raw, Response, TestServer, insertion, new_doc, within};

const FORWARDED: &str = "x-forwarded-for";

async fn come(server: &TestServer, from: &str) -> Result<Raw, Response> {
    Raw::try_connect(server, "letter", &[(FORWARDED, from)]).await
}

/// Tries again until there is a place: that one has left is noticed a moment later.
async fn comes_in_the_end(server: &TestServer, from: &str) -> Raw {
    let came = async {
        loop {
            match come(server, from).await {
                Ok(raw) => return raw,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    within(came).await
}

/// The refusal names the limit, its value and its flag, and was counted.
async fn is_refused(
    server: &TestServer,
    refused: Result<Raw, Response>,
    status: u16,
    flag: &str,
    value: &str,
) -> Response {
    let refusal = refused.err().expect("it is refused");
    assert_eq!(refusal.status, status, "{}", refusal.text());
    assert_eq!(refusal.header("content-type"), Some("application/problem+json"));
    let text = refusal.text();
    assert!(text.contains(&format!("--{flag}")) && text.contains(value), "{text}");
    assert!(refusals(server, flag).await > 0, "{flag} is counted");
    refusal
}

async fn refusals(server: &TestServer, flag: &str) -> usize {
    let start = format!("quire_refusals_total{{limit=\"{flag}\"}} ");
    let metrics = server.get("/metrics").await.text();
    metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_full_node_takes_nobody_until_somebody_leaves() {
    let server = TestServer::start_with(|config| config.limits.connections = 2).await;
    let mut alice = come(&server, "203.0.113.1").await.ok().expect("there is a place");
    let bob = come(&server, "203.0.113.2").await.ok().expect("there is a place");
    let refused = come(&server, "203.0.113.3").await;
    let refusal = is_refused(&server, refused, 503, "max-connections", "2 connections").await;
    let wait: u64 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!((1..60).contains(&wait));
    alice.is_answered().await;
    // Without a farewell.
    drop(bob);
    comes_in_the_end(&server, "203.0.113.3").await.is_answered().await;
    alice.is_answered().await;
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_others_have_theirs() {
    let server = TestServer::start_with(|config| config.limits.connections_per_address = 2).await;
    let mut first = come(&server, "203.0.113.1").await.ok().expect("there is a place");
    let _second = come(&server, "198.51.100.9, 203.0.113.1").await.ok().expect("there is a place");
    let refused = come(&server, "203.0.113.1").await;
    is_refused(&server, refused, 429, "max-connections-per-address", "2 connections").await;

    // One /64 is one address.
    let _third = come(&server, "2001:db8::1").await.ok().expect("there is a place");
    let _fourth = come(&server, "2001:db8::2").await.ok().expect("there is a place");
    let refused = come(&server, "[2001:db8::3]:50000").await;
    is_refused(&server, refused, 429, "max-connections-per-address", "2 connections").await;

    // What comes from the proxy itself is not limited.
    let mut own = Vec::new();
    for _ in 0..5 {
        own.push(Raw::connect(&server, "letter").await);
    }
    within(first.socket.close(None)).await.unwrap();
    comes_in_the_end(&server, "203.0.113.1").await.is_answered().await;
}

#[tokio::test]
async fn who_is_no_proxy_speaks_for_nobody() {
    let server = TestServer::start_with(|config| {
        config.limits.connections_per_address = 3;
        config.authentication.trusted_proxies.clear();
    })
    .await;
    let mut let_in = Vec::new();
    for from in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        let_in.push(come(&server, from).await.ok().expect("there is a place"));
    }
    let refused = come(&server, "203.0.113.4").await;
    is_refused(&server, refused, 429, "max-connections-per-address", "3 connections").await;
    let_in[0].is_answered().await;
}

#[tokio::test]
async fn an_address_keeps_only_so_many_sockets_that_ask_nothing() {
    let server = TestServer::start_with(|config| {
        config.limits.connections_per_address = 3;
        config.authentication.trusted_proxies.clear();
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(&server.address).await.unwrap());
    }
    let mut one_more = TcpStream::connect(&server.address).await.unwrap();
    let heard = within(one_more.read(&mut [0; 100])).await;
    assert!(matches!(heard, Ok(0) | Err(_)), "{heard:?}");
    // Half a request, so that it is seen to go on.
    silent[0].write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    silent.pop();
    let counted = async {
        loop {
            let mut socket = TcpStream::connect(&server.address).await.unwrap();
            // Errors: it is not let in yet.
            let _ = socket
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await;
            let mut answer = String::new();
            let _ = socket.read_to_string(&mut answer).await;
            if answer.starts_with("HTTP/1.1 200") {
                return answer;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let metrics = within(counted).await;
    assert!(metrics.contains("quire_refusals_total{limit=\"max-connections-per-address\"}"), "{metrics}");
    silent[0].write_all(b"Host: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    within(silent[0].read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn an_address_makes_only_so_many_new_connections_a_second() {
    let server = TestServer::start_with(|config| config.limits.new_connections_per_address = 1).await;
    let mut let_in = 0;
    // One more place for every second that passes.
    let refused = loop {
        match come(&server, "203.0.113.1").await {
            Ok(_) => let_in += 1,
            refused => break refused,
        }
        assert!(let_in < 100, "it is never refused");
    };
    assert!(let_in >= 10, "{let_in} is less than a burst");
    let refusal =
        is_refused(&server, refused, 429, "max-new-connections-per-address", "1 new connections").await;
    let wait: u64 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait));
    assert!(come(&server, "203.0.113.2").await.is_ok());
    sleep(Duration::from_secs(wait)).await;
    assert!(come(&server, "203.0.113.1").await.is_ok(), "it came again when it should");
}

#[tokio::test]
async fn who_sends_too_many_messages_is_read_more_slowly() {
    let server = TestServer::start_with(|config| config.limits.messages_per_second = 20).await;
    let (mut fast, mut other) = (Raw::connect(&server, "one").await, Raw::connect(&server, "two").await);
    let start = Instant::now();
    for _ in 0..200 {
        fast.is_answered().await;
    }
    let burst = start.elapsed();
    assert!(burst < Duration::from_secs(5), "a burst is not slowed: {burst:?}");
    // A frame without a message counts, and so do pings.
    for _ in 0..50 {
        fast.send([]).await;
        within(fast.socket.send(Frame::Ping(Default::default()))).await.unwrap();
    }
    let asked = Instant::now();
    other.is_answered().await;
    assert!(asked.elapsed() < Duration::from_secs(2), "others are not slowed");
    fast.is_answered().await;
    assert!(start.elapsed() > Duration::from_millis(4_900), "{:?}", start.elapsed());
}

#[tokio::test]
async fn who_sends_too_many_bytes_is_read_more_slowly() {
    let server = TestServer::start_with(|config| config.limits.bytes_per_second = 4_000).await;
    let mut writer = Raw::connect(&server, "novel").await;
    let doc = new_doc();
    let start = Instant::now();
    writer.send(protocol::update(&insertion(&doc, 0, &"a".repeat(30_000)))).await;
    writer.is_answered().await;
    let burst = start.elapsed();
    assert!(burst < Duration::from_secs(3), "a burst is not slowed: {burst:?}");
    writer.send(protocol::update(&insertion(&doc, 0, &"b".repeat(30_000)))).await;
    writer.is_answered().await;
    assert!(start.elapsed() > Duration::from_millis(4_900), "{:?}", start.elapsed());
    assert_eq!(server.text_of("novel").await.trim_end().len(), 60_000, "nothing is lost");
}

#[tokio::test]
async fn who_says_nothing_is_not_kept() {
    let server =
        TestServer::start_with(|config| config.limits.first_message_within = Duration::from_secs(2)).await;
    let mut talkative = Raw::connect(&server, "letter").await;
    talkative.is_answered().await;
    let (mut silent, mut empty) =
        (Raw::connect(&server, "letter").await, Raw::connect(&server, "letter").await);
    // Frames that say nothing are no messages.
    empty.send([]).await;
    within(empty.socket.send(Frame::Ping(Default::default()))).await.unwrap();
    for raw in [&mut silent, &mut empty] {
        let close = raw.is_closed().await;
        assert_eq!(u16::from(close.code), 4508);
        assert!(close.reason.contains("--first-message-within"), "{}", close.reason);
    }
    sleep(Duration::from_secs(1)).await;
    talkative.is_answered().await;
}

#[tokio::test]
async fn an_embedding_program_says_who_connects_or_has_no_limits_per_address() {
    for (tells, may_have) in [(true, 1), (false, 5)] {
        let folder = TempDir::new().unwrap();
        let mut config = Config { data: folder.path().to_owned(), ..Config::default() };
        config.limits.connections_per_address = 1;
        config.limits.connections = 5;
        config.authentication.trusted_proxies.clear();
        let embedded = Server::new(&config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = TestServer::at(folder, listener.local_addr().unwrap());
        let app = embedded.router();
        let serving = tokio::spawn(async move {
            match tells {
                true => axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await,
                false => axum::serve(listener, app).await,
            }
        });
        let mut let_in = Vec::new();
        while let Ok(raw) = Raw::try_connect(&server, "letter", &[]).await {
            let_in.push(raw);
        }
        assert_eq!(let_in.len(), may_have);
        serving.abort();
        embedded.shutdown().await.unwrap();
    }
}

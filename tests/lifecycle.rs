//! What an operator would complain about: a server that does not start, does not say why, or does not stop.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use quire::{Server, config::Config};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::common::{PATIENCE, Person, TestServer, within};

fn quire(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quire"));
    command.args(arguments).stdin(Stdio::null()).env_clear();
    command
}

fn output(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// A server process, and its log from when it listens on.
fn running(command: &mut Command) -> (Child, String, impl Iterator<Item = String> + use<>) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("listening")).expect("it listens");
    (child, line, lines)
}

fn ends(mut child: Child) -> Option<i32> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if std::time::Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_bad_setting_stops_the_start_and_says_what_would_be_right() {
    let file = TempDir::new().unwrap();
    let path = file.path().join("quire.toml");
    std::fs::write(&path, "idel = 5\n").unwrap();
    let path = path.to_str().unwrap();
    let cases = [
        (quire(&["--listen", "here"]), "--listen <ADDRESS:PORT>"),
        (quire(&["--lissen", "127.0.0.1:0"]), "'--listen'"),
        (quire(&["server"]), "unrecognized subcommand 'server'"),
        (quire(&["--log", "a=b=c"]), "examples: info, debug"),
        (quire(&["--config", path]), "unknown setting \"idel\""),
        (quire(&["--config", "/nowhere/quire.toml"]), "/nowhere/quire.toml"),
    ];
    for (mut command, expected) in cases {
        let (code, text) = output(&mut command);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(expected), "{expected} is not in: {text}");
    }
    let (code, text) = output(quire(&[]).env("QUIRE_LISEN", "127.0.0.1:0"));
    assert_eq!(code, Some(2));
    assert!(text.contains("QUIRE_LISEN") && text.contains("QUIRE_LISTEN"), "{text}");
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_build_that_sends_no_traces_says_so() {
    let (code, text) = output(&mut quire(&["--otlp", "http://127.0.0.1:4318"]));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("--otlp") && text.contains("--features otlp"), "{text}");
}

#[test]
fn the_environment_and_the_file_are_read_and_the_flag_wins() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("quire.toml");
    let data = folder.path().join("from-file");
    std::fs::write(&config, format!("data = {data:?}\nlisten = \"127.0.0.1:1\"\nlog-format = \"json\"\n"))
        .unwrap();
    let mut command = quire(&["serve", "--listen", "127.0.0.1:0"]);
    let (mut child, line, _log) =
        running(command.env("QUIRE_CONFIG", &config).env("QUIRE_LISTEN", "127.0.0.1:2"));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let listening = line["fields"]["message"].as_str().unwrap();
    assert!(!listening.ends_with(":1") && !listening.ends_with(":2"), "{listening}");
    assert!(data.join("quire.db").exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn two_servers_do_not_share_a_folder_or_an_address() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().to_str().unwrap();
    let (child, line, _log) = running(&mut quire(&["--listen", "127.0.0.1:0", "--data", data]));
    let (code, text) = output(&mut quire(&["--listen", "127.0.0.1:0", "--data", data]));
    assert_eq!(code, Some(1));
    assert!(text.contains(&format!("process {}", child.id())) && text.contains("--data"), "{text}");
    let address = line.split("http://").nth(1).unwrap().split_whitespace().next().unwrap();
    let other = TempDir::new().unwrap();
    let (code, text) = output(&mut quire(&["--listen", address, "--data", other.path().to_str().unwrap()]));
    assert_eq!(code, Some(1));
    assert!(text.contains(address) && text.contains("--listen"), "{text}");
    terminate(&child, "TERM");
    assert_eq!(ends(child), Some(0));
}

fn terminate(child: &Child, signal: &str) {
    let status =
        Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn both_signals_stop_it_in_good_order() {
    for signal in ["TERM", "INT"] {
        let folder = TempDir::new().unwrap();
        let data = folder.path().to_str().unwrap();
        let (child, _, log) = running(&mut quire(&["--listen", "127.0.0.1:0", "--data", data]));
        terminate(&child, signal);
        let log: Vec<_> = log.collect();
        assert!(log.iter().any(|line| line.contains("everything is saved")), "{log:?}");
        assert_eq!(ends(child), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn an_axum_application_can_embed_it() {
    let folder = TempDir::new().unwrap();
    let server = Server::new(&Config { data: folder.path().to_owned(), ..Config::default() }).unwrap();
    let app = axum::Router::new()
        .route("/own", axum::routing::get(async || "the application's own page"))
        .merge(server.router());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async { drop(stopped.await) });
    let serving = tokio::spawn(serving.into_future());
    let embedded = TestServer::at(folder, address);
    Person::joins(&embedded, "letter").await.types("hello").await;
    Person::joins(&embedded, "letter").await.reads("hello").await;
    assert_eq!(embedded.get("/own").await.text(), "the application's own page");
    drop(stop);
    within(serving).await.unwrap().unwrap();
    within(server.shutdown()).await.unwrap();
    // Dropped inside of the application's runtime.
    drop(server);
    let restarted = embedded.restart().await;
    assert_eq!(restarted.text_of("letter").await, "hello");
}

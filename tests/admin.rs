//! What whoever looks after the server would complain about: figures that are wrong or seen by others, and errors that
//! nobody tells.

use std::time::Duration;

use quire::{config::Config, level::Level};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::common::{
    PATIENCE, Person, Response, TestServer, bearer, insertion, new_doc, redis::RedisServer, secret,
};

fn body(answer: &Response) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no JSON but {}", answer.text()))
}

async fn ask(server: &TestServer, path: &str) -> Value {
    body(&server.get(path).await)
}

/// Asks until the answer is as it should be.
async fn ask_until(server: &TestServer, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = ask(server, path).await;
        if is_so(&answer) {
            return answer;
        }
        assert!(Instant::now() < until, "{path} answers {answer}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn names(answer: &Value) -> Vec<&str> {
    answer["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|document| document["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn only_who_may_administrate_everything_sees_the_node() {
    let server = TestServer::start_with(|config| {
        config.authentication.secret = Some(secret());
    })
    .await;
    for path in ["/api/nodes", "/api/open-documents", "/api/errors"] {
        let refused = async |token: &str, status: u16, reason: &str| {
            let answer = server.get_with(path, token).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            assert!(answer.text().contains(reason), "{path}: {}", answer.text());
        };
        refused("", 401, "a token is needed").await;
        refused("Authorization: Bearer nonsense\r\n", 401, "not accepted").await;
        refused(&bearer("*", Level::Write), 403, "Admin").await;
        refused(&bearer("team/*", Level::Admin), 403, "Admin").await;
        body(&server.get_with(path, &bearer("*", Level::Admin)).await);
        assert_eq!(server.post(path, &bearer("*", Level::Admin), b"").await.status, 405);
    }
    // The page has nothing of its own to hide, and asks for the token.
    for (path, kind) in [("/admin", "html"), ("/admin/admin.js", "javascript"), ("/admin/admin.css", "css")] {
        let page = server.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.header("content-type").unwrap().contains(kind), "{}", page.head);
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_busiest_or_the_largest_document_comes_first() {
    let server = TestServer::start().await;
    let fresh = ask(&server, "/api/nodes").await;
    assert_eq!((&fresh["node"]["id"], &fresh["others"]), (&Value::Null, &json!([])));
    assert_eq!(fresh["node"]["version"], env!("CARGO_PKG_VERSION"));
    let mut alice = Person::joins(&server, "busy").await;
    let _bob = Person::joins(&server, "busy").await;
    let mut cleo = Person::joins(&server, "large").await;
    cleo.types(&"x".repeat(5_000)).await;
    for _ in 0..20 {
        alice.types("a").await;
    }
    // Each edit may be a batch of its own, or several one.
    let edits = |answer: &Value, n: usize| answer["documents"][n]["edits"].as_u64().unwrap();
    let by_activity =
        ask_until(&server, "/api/open-documents", |answer| answer["open"] == 2 && edits(answer, 0) == 20)
            .await;
    assert_eq!(names(&by_activity), ["busy", "large"]);
    let busy = &by_activity["documents"][0];
    assert_eq!((&busy["sessions"], &busy["lastError"]), (&json!(2), &Value::Null));
    assert!((5.0..=20.0).contains(&busy["editsPerMinute"].as_f64().unwrap()), "{busy}");
    assert!(busy["changed"].as_u64().is_some_and(|changed| changed > 1_700_000_000_000), "{busy}");
    ask_until(&server, "/api/open-documents", |answer| answer["documents"][0]["unsaved"] == false).await;

    let by_size = ask_until(&server, "/api/open-documents?by=size", |answer| {
        answer["documents"][0]["bytes"].as_u64() >= Some(5_000)
    })
    .await;
    assert_eq!(names(&by_size), ["large", "busy"]);
    let one = ask(&server, "/api/open-documents?by=size&limit=1").await;
    assert_eq!((names(&one), &one["open"]), (vec!["large"], &json!(2)));
    for (query, reason) in
        [("limit=0", "limit=0"), ("limit=1001", "1000"), ("by=name", "by"), ("size=1", "size")]
    {
        let answer = server.get(&format!("/api/open-documents?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
        assert!(answer.text().contains(reason), "{query}: {}", answer.text());
    }
    let node = ask(&server, "/api/nodes").await["node"].clone();
    assert_eq!((&node["sessions"], &node["documents"], &node["edits"]), (&json!(3), &json!(2), &json!(21)));
    assert!(node["received"].as_u64() > Some(5_000) && node["sent"].as_u64() > Some(20), "{node}");
    assert!(node["memory"].as_u64() > Some(30_000) && node["uptime"].as_u64() > Some(0), "{node}");
    assert_eq!(
        (&node["draining"], &node["over"], &node["storeAway"]),
        (&json!(false), &json!([]), &Value::Null)
    );

    drop(cleo);
    ask_until(&server, "/api/nodes", |answer| answer["node"]["sessions"] == 2).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_know_each_other_and_what_cannot_be_saved_is_told() {
    let mut redis = RedisServer::start_durable();
    let on_redis = |config: &mut Config| config.redis = Some(redis.url());
    let (here, there) = (TestServer::start_with(on_redis).await, TestServer::start_with(on_redis).await);
    let id = |answer: &Value| answer["node"]["id"].as_str().unwrap().to_owned();
    let other = |answer: &Value| json!([{ "id": answer["node"]["id"], "late": false }]);
    let of_there = ask(&there, "/api/nodes").await;
    let of_here = ask_until(&here, "/api/nodes", |answer| answer["others"] == other(&of_there)).await;
    assert_ne!(id(&of_here), id(&of_there));
    ask_until(&there, "/api/nodes", |answer| answer["others"] == other(&of_here)).await;

    let mut alice = Person::joins(&here, "letter").await;
    alice.types("hello").await;
    Person::joins(&there, "letter").await.reads("hello").await;
    // What came from another node is activity here, too.
    ask_until(&there, "/api/open-documents", |answer| answer["documents"][0]["edits"] == 1).await;
    ask_until(&here, "/api/open-documents", |answer| answer["documents"][0]["unsaved"] == false).await;

    redis.kill();
    alice.types(", is anybody there?").await;
    let path = "/api/open-documents";
    let lost = ask_until(&here, path, |answer| !answer["documents"][0]["lastError"].is_null()).await;
    let letter = &lost["documents"][0];
    assert_eq!((&letter["name"], &letter["unsaved"]), (&json!("letter"), &json!(true)));
    let reason = letter["lastError"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("edits could not be saved"), "{reason}");
    ask_until(&here, "/api/nodes", |answer| answer["node"]["storeAway"].is_string()).await;
    redis.restart();
    let saved = ask_until(&here, path, |answer| answer["documents"][0]["unsaved"] == false).await;
    assert_eq!(saved["documents"][0]["lastError"], letter["lastError"], "it is told afterwards, too");
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_document_that_cannot_be_opened_is_told() {
    let server = TestServer::start_with(|config| config.idle = Duration::ZERO).await;
    let made = server.post("/api/documents/letter", "", &insertion(&new_doc(), 0, "hello")).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(ask(&server, "/api/errors").await, json!({ "errors": [] }));
    ask_until(&server, "/api/open-documents", |answer| answer["open"] == 0).await;
    let folder = server.stop().await;
    let database = Connection::open(folder.path().join("quire.db")).unwrap();
    assert_eq!(database.execute("UPDATE log SET record = x'01FF'", []).unwrap(), 1);
    drop(database);

    let server = TestServer::start_in(folder, |_| {}).await;
    assert_eq!(server.get("/api/documents/letter").await.status, 500);
    let errors = ask(&server, "/api/errors").await["errors"].clone();
    assert_eq!((errors.as_array().unwrap().len(), &errors[0]["name"]), (1, &json!("letter")));
    assert!(errors[0]["reason"].as_str().unwrap().starts_with("it cannot be opened: "), "{errors}");
    assert!(errors[0]["time"].as_u64() > Some(1_700_000_000_000), "{errors}");
    server.stop().await;
}

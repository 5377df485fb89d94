//! What people would complain about whose documents live on several nodes: text that is on one node and not on the
//! other, somebody who is shown and is not there, and anything that was saved and is gone; whatever happens to Redis,
//! to the network and to the nodes. Redis and the nodes are real processes.
//!
//! With `QUIRE_TEST_LONG=1` what is short otherwise takes as long as it does in life.

use std::{
    collections::HashMap,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time::sleep;

use crate::common::{
    Raw,
    cluster::{Client, HEALED, Node, Typing, agree, has_all, long, until},
    proxy::Proxy,
    redis::RedisServer,
};

/// The log of the document in most of these tests.
const LOG: &str = "quire:{letter}:l";

/// Leaves a log without its last entries, as a replica has it that was behind, and answers how many it had.
const LOSE_TAIL: &str = "
local all = redis.call('XRANGE', KEYS[1], '-', '+')
redis.call('DEL', KEYS[1])
for i = 1, #all - tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], all[i][1], unpack(all[i][2])) end
return #all";

/// People type for a moment.
async fn typing_for(millis: u64, clients: &[&Client]) {
    let typing = Typing::start(clients);
    sleep(Duration::from_millis(millis)).await;
    typing.stop().await;
}

/// Everybody agrees, nobody had to connect again, and who comes now on this node has everything too.
async fn all_is_well(clients: &[&Client], elsewhere: &Node) {
    agree(clients).await;
    let fresh = Client::joins(elsewhere, "letter", "fresh").await;
    agree(&[clients, &[&fresh]].concat()).await;
    for client in clients {
        assert_eq!(client.connections(), 1, "a client had to connect again");
    }
}

#[tokio::test]
async fn a_redis_that_may_forget_is_warned_of() {
    let forgetful = [
        (RedisServer::start(), "Redis keeps nothing on a disk"),
        (RedisServer::start_with(&["--save", "60 1000"]), "Redis writes to its disk only now and then"),
    ];
    for (redis, warning) in forgetful {
        let node = Node::start(&redis.url());
        until(HEALED, || node.log().contains(warning), || node.log()).await;
    }
    let durable = RedisServer::start_durable();
    let node = Node::start(&durable.url());
    // What it has to say of its Redis comes before what it saves there.
    let alice = Client::joins(&node, "letter", "alice").await;
    typing_for(500, &[&alice]).await;
    assert!(!node.log().contains("set appendonly"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_on_several_nodes_read_and_see_each_other() {
    let redis = RedisServer::start();
    let mut nodes = [Node::start(&redis.url()), Node::start(&redis.url()), Node::start(&redis.url())];
    let alice = Client::joins(&nodes[0], "letter", "alice").await;
    let bob = Client::joins(&nodes[1], "letter", "bob").await;
    typing_for(1_000, &[&alice, &bob]).await;
    let carol = Client::joins(&nodes[2], "letter", "carol").await;
    agree(&[&alice, &bob, &carol]).await;
    assert_eq!(carol.text(), nodes[0].server.text_of("letter").await);

    let everybody = [&alice, &bob, &carol];
    let all_shown = || {
        everybody
            .iter()
            .all(|one| everybody.iter().all(|other| one.id() == other.id() || one.shows(other.id())))
    };
    until(HEALED, all_shown, || "somebody is not shown".to_owned()).await;

    // One leaves in good order, and one with its node.
    let (bobs, carols) = (bob.id(), carol.id());
    bob.leaves();
    until(HEALED, || !alice.shows(bobs) && !carol.shows(bobs), || "bob is still shown".to_owned()).await;
    nodes[2].kill();
    let gone =
        until(Duration::from_secs(15), || !alice.shows(carols), || "carol is still shown".to_owned()).await;
    println!("who was on a killed node was gone after {gone:.1?}");
    // Nobody has flickered.
    for other in [bobs, carols] {
        assert_eq!(alice.came_and_went(other), (1, 1));
    }
    // She comes back on another node.
    carol.moves_to(&nodes[1]);
    until(HEALED, || carol.connections() == 2, || "carol is not back".to_owned()).await;
    // Stock clients show whom they were told gone only with a newer clock.
    carol.moves();
    until(HEALED, || alice.shows(carols) && carol.shows(alice.id()), || "carol is not shown".to_owned())
        .await;
    agree(&[&alice, &carol]).await;
    assert_eq!(alice.came_and_went(carols), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_while_redis_loses_connections_or_stands_still_reaches_everybody() {
    let redis = RedisServer::start();
    let nodes = [Node::start(&redis.url()), Node::start(&redis.url()), Node::start(&redis.url())];
    let alice = Client::joins(&nodes[0], "letter", "alice").await;
    let bob = Client::joins(&nodes[1], "letter", "bob").await;
    let people = [&alice, &bob];
    let standing_still = Duration::from_secs(if long() { 30 } else { 6 });
    for fault in ["kill pubsub", "kill normal", "pause", "stand still"] {
        println!("{fault}");
        let typing = Typing::start(&people);
        sleep(Duration::from_millis(300)).await;
        match fault {
            "kill pubsub" => drop(redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"])),
            "kill normal" => drop(redis.cli(&["CLIENT", "KILL", "TYPE", "normal"])),
            "pause" => {
                redis.cli(&["CLIENT", "PAUSE", "3000", "ALL"]);
                sleep(Duration::from_secs(3)).await;
            }
            _ => {
                redis.stop_signal();
                sleep(standing_still).await;
                redis.cont();
            }
        }
        sleep(Duration::from_millis(300)).await;
        typing.stop().await;
        println!("healed after {:.1?}", agree(&people).await);
        all_is_well(&people, &nodes[2]).await;
    }
    // Whom nobody heard of for half a minute may be gone, until she is heard of again.
    if !long() {
        assert_eq!(bob.came_and_went(alice.id()), (1, 0));
    }
    let shown = || bob.shows(alice.id()) && alice.shows(bob.id());
    until(HEALED, shown, || "they are not shown to each other".to_owned()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_has_forgotten_the_nodes_bring_back() {
    let mut redis = RedisServer::start();
    let nodes = [Node::start(&redis.url()), Node::start(&redis.url()), Node::start(&redis.url())];
    let alice = Client::joins(&nodes[0], "letter", "alice").await;
    let bob = Client::joins(&nodes[1], "letter", "bob").await;
    let people = [&alice, &bob];
    for (fault, meanwhile) in ["restart empty", "flush", "lose the log", "lose its tail"]
        .iter()
        .flat_map(|fault| [(*fault, false), (*fault, true)])
    {
        println!("{fault}, {}", if meanwhile { "while they type" } else { "while they wait" });
        typing_for(400, &people).await;
        if !meanwhile {
            agree(&people).await;
        }
        let typing = Typing::start(if meanwhile { &people } else { &[] });
        match fault {
            "restart empty" => redis.restart(),
            "flush" => assert_eq!(redis.cli(&["FLUSHALL"]), "OK"),
            "lose the log" => assert_eq!(redis.cli(&["DEL", LOG]), "1"),
            _ => assert!(redis.cli(&["EVAL", LOSE_TAIL, "1", LOG, "5"]).parse::<u32>().unwrap() > 5),
        }
        sleep(Duration::from_millis(300)).await;
        typing.stop().await;
        if !meanwhile && fault != "restart empty" {
            // Nothing tells the nodes, until one of them writes.
            alice.types();
        }
        println!("healed after {:.1?}", agree(&people).await);
        // What they have is on the way to Redis only when they agree; then it is soon there.
        let words = [alice.typed(), bob.typed()].concat();
        let begin = Instant::now();
        while !has_all(&stored_text(&redis).await, &words) {
            assert!(begin.elapsed() < HEALED, "nobody has brought the document back");
        }
        all_is_well(&people, &nodes[2]).await;
    }
}

/// The letter as somebody reads it who has never seen it; empty where there is none.
async fn stored_text(redis: &RedisServer) -> String {
    // No node starts while Redis pauses.
    redis.cli(&["PING"]);
    let response = Node::start(&redis.url()).server.get("/api/documents/letter?format=text").await;
    if response.status == 200 { response.text() } else { String::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_open_documents_are_edited_and_no_other_is_opened() {
    let mut redis = RedisServer::start_durable();
    let nodes = [Node::start(&redis.url()), Node::start(&redis.url())];
    let alice = Client::joins(&nodes[0], "letter", "alice").await;
    let bob = Client::joins(&nodes[0], "letter", "bob").await;
    let carol = Client::joins(&nodes[1], "letter", "carol").await;
    typing_for(300, &[&alice, &carol]).await;
    agree(&[&alice, &bob, &carol]).await;
    redis.kill();
    typing_for(300, &[&alice, &carol]).await;
    agree(&[&alice, &bob]).await;

    let node = &nodes[0].server;
    assert_eq!(Raw::connect(node, "another").await.is_closed().await.code, 1013.into());
    assert_eq!(node.get("/api/documents/another").await.status, 503);
    assert_eq!(node.get("/api/documents/letter?format=text").await.text(), alice.text());
    let ready = node.get("/readyz").await;
    let health: Value = serde_json::from_slice(&ready.body).unwrap();
    assert_eq!((ready.status, health["backend"].as_str()), (200, Some("away")), "{health}");

    redis.restart();
    agree(&[&alice, &bob, &carol]).await;
    all_is_well(&[&alice, &bob, &carol], &nodes[1]).await;
    let health: Value = serde_json::from_slice(&node.get("/readyz").await.body).unwrap();
    assert_eq!(health["backend"], "reachable");
    // Who has just been refused is refused for a moment longer.
    let begin = Instant::now();
    while node.get("/api/documents/another").await.status != 404 {
        assert!(begin.elapsed() < HEALED, "no other document is opened");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_forgets_a_nodes_connections_cuts_nobody_off() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address()).await;
    let nodes = [Node::start(&proxy.url()), Node::start(&redis.url())];
    let alice = Client::joins(&nodes[0], "letter", "alice").await;
    let bob = Client::joins(&nodes[1], "letter", "bob").await;
    let typing = Typing::start(&[&alice, &bob]);
    sleep(Duration::from_millis(500)).await;
    proxy.black_hole_existing();
    sleep(Duration::from_millis(500)).await;
    typing.stop().await;
    all_is_well(&[&alice, &bob], &nodes[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_a_replica_for_a_while_loses_nothing() {
    let (redis, other) = (RedisServer::start(), RedisServer::start());
    let nodes = [Node::start(&redis.url()), Node::start(&redis.url()), Node::start(&redis.url())];
    let alice = Client::joins(&nodes[0], "letter", "alice").await;
    let bob = Client::joins(&nodes[1], "letter", "bob").await;
    let typing = Typing::start(&[&alice, &bob]);
    sleep(Duration::from_millis(500)).await;
    redis.cli(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    // It has what the other one has: nothing.
    let is_empty = || redis.cli(&["DBSIZE"]) == "0";
    until(HEALED, is_empty, || "it is no replica".to_owned()).await;
    sleep(Duration::from_secs(1)).await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    sleep(Duration::from_millis(200)).await;
    typing.stop().await;
    all_is_well(&[&alice, &bob], &nodes[2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_takes_nothing_with_it_that_was_saved() {
    let redis = RedisServer::start();
    let mut nodes = [Node::start(&redis.url()), Node::start(&redis.url())];
    let alice = Client::joins(&nodes[0], "letter?echo=saved", "alice").await;
    let bob = Client::joins(&nodes[1], "letter", "bob").await;
    let typing = Typing::start(&[&alice, &bob]);
    sleep(Duration::from_secs(1)).await;
    nodes[0].kill();
    typing.stop().await;
    let saved = alice.saved();
    assert!(saved.len() > 5, "hardly anything was saved: {saved:?}");
    until(HEALED, || has_all(&bob.text(), &saved), || "what was saved is missing".to_owned()).await;
    // What was not is in her browser, and comes when she is back.
    alice.moves_to(&nodes[1]);
    agree(&[&alice, &bob]).await;
    let all_saved = || alice.saved().len() == alice.typed().len();
    until(HEALED, all_saved, || "what came late is not saved".to_owned()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_is_back_with_everybody_on_it() {
    let redis = RedisServer::start();
    let nodes = [Node::start(&redis.url()), Node::start(&redis.url()), Node::start(&redis.url())];
    let alice = Client::joins(&nodes[0], "letter", "alice").await;
    let bob = Client::joins(&nodes[1], "letter", "bob").await;
    until(HEALED, || bob.shows(alice.id()), || "alice is not shown".to_owned()).await;
    let typing = Typing::start(&[&alice, &bob]);
    sleep(Duration::from_millis(500)).await;
    nodes[0].stop_signal();
    sleep(Duration::from_secs(if long() { 20 } else { 8 })).await;
    nodes[0].cont();
    sleep(Duration::from_millis(300)).await;
    typing.stop().await;
    all_is_well(&[&alice, &bob], &nodes[2]).await;
    // Also when all who thought that she was gone have noticed.
    sleep(Duration::from_secs(5)).await;
    let shown = || bob.shows(alice.id()) && alice.shows(bob.id());
    until(HEALED, shown, || "they are not shown to each other".to_owned()).await;
    let (came, went) = bob.came_and_went(alice.id());
    assert!(came == went + 1 && went <= 1, "she came {came} times, and went {went} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_saved_is_there_after_redis_and_all_nodes_were_killed() {
    let mut redis = RedisServer::start_durable();
    let mut nodes = [Node::start(&redis.url()), Node::start(&redis.url())];
    let alice = Client::joins(&nodes[0], "letter?echo=saved", "alice").await;
    let bob = Client::joins(&nodes[1], "letter?echo=saved", "bob").await;
    let typing = Typing::start(&[&alice, &bob]);
    for _ in 0..2 {
        sleep(Duration::from_millis(700)).await;
        let before = (alice.saved().len(), bob.saved().len());
        redis.kill();
        sleep(Duration::from_millis(700)).await;
        redis.restart();
        let on = || alice.saved().len() > before.0 + 20 && bob.saved().len() > before.1 + 20;
        until(HEALED, on, || "nothing is saved any more".to_owned()).await;
    }
    redis.kill();
    nodes.iter_mut().for_each(Node::kill);
    typing.stop().await;
    let saved = [alice.saved(), bob.saved()].concat();
    redis.restart();
    let node = Node::start(&redis.url());
    let text = node.server.text_of("letter").await;
    let lost: Vec<_> = saved.iter().filter(|word| !text.contains(*word)).collect();
    assert!(lost.is_empty(), "of {} words that were saved these are lost: {lost:?}", saved.len());
    println!("{} words were saved, of {} typed", saved.len(), alice.typed().len() + bob.typed().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_costs_one_script_and_one_message_for_each_node() {
    const EDITS: usize = 40;
    let redis = RedisServer::start();
    let (mut nodes, mut clients) = (Vec::new(), Vec::new());
    let _without_the_document = Node::start(&redis.url());
    for count in if long() { &[1, 2, 4, 6][..] } else { &[1, 2, 4] } {
        while nodes.len() < *count {
            nodes.push(Node::start(&redis.url()));
            let name = format!("client{count}.{}.", nodes.len());
            clients.push(Client::joins(nodes.last().unwrap(), "letter", &name).await);
        }
        // The first edit begins the log, and what is said of those who came is said.
        clients[0].types();
        sleep(Duration::from_millis(700)).await;
        let listener = Listener::start(&redis, "quire:{letter}:u");
        let before = Calls::of(&redis);
        for edit in 0..EDITS {
            clients[edit % count].types();
            // Longer than edits are gathered for.
            sleep(Duration::from_millis(60)).await;
        }
        agree(&clients.iter().collect::<Vec<_>>()).await;
        // How far the log goes is told after a burst, by each who took part in it.
        sleep(Duration::from_millis(700)).await;
        let subscribed: usize =
            redis.cli(&["PUBSUB", "NUMSUB", "quire:{letter}:u"]).lines().last().unwrap().parse().unwrap();
        let calls = Calls::of(&redis).since(&before);
        let (records, others) = listener.stop();
        // Of the scripts only a node's lease looks at the set of nodes.
        let scripts = calls.of_command("evalsha") - calls.of_command("smembers");
        println!(
            "{count} nodes, {EDITS} edits: {} appends, {scripts} scripts (and {} leases), {records} messages \
             to each of {} nodes (and {others} others); {calls:?}",
            calls.of_command("xadd"),
            calls.of_command("smembers"),
            subscribed - 1,
        );
        assert_eq!(subscribed, count + 1, "each node hears each message once, and so does this test");
        assert_eq!((calls.of_command("xadd"), scripts, records), (EDITS, EDITS, EDITS));
        assert_eq!(calls.of_command("xrange"), 0, "a log was read that had been heard");
        assert!(others <= *count, "{others} messages beside those of edits");
    }
}

/// How often each command was called.
#[derive(Debug)]
struct Calls(HashMap<String, usize>);

impl Calls {
    fn of(redis: &RedisServer) -> Self {
        let stats = redis.cli(&["INFO", "commandstats"]);
        let read = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split_once(',')?.0.parse().ok()?))
        };
        Self(stats.lines().filter_map(read).collect())
    }

    fn since(&self, before: &Self) -> Self {
        let new = |(name, calls): (&String, &usize)| (name.clone(), calls - before.of_command(name));
        Self(self.0.iter().map(new).filter(|(_, calls)| *calls > 0).collect())
    }

    fn of_command(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// Hears a document's channel, as a node does.
struct Listener {
    redis: String,
    channel: String,
    hearing: JoinHandle<(usize, usize)>,
}

impl Listener {
    fn start(redis: &RedisServer, channel: &str) -> Self {
        let mut connection = ::redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        let name = channel.to_owned();
        let (is_ready, ready) = std::sync::mpsc::channel();
        let hearing = thread::spawn(move || {
            let mut channel = connection.as_pubsub();
            channel.subscribe(name).unwrap();
            is_ready.send(()).unwrap();
            let (mut records, mut others) = (0, 0);
            loop {
                match channel.get_message().unwrap().get_payload_bytes() {
                    b"stop" => return (records, others),
                    // What is in no log has no place in it.
                    [b'|', ..] => others += 1,
                    _ => records += 1,
                }
            }
        });
        ready.recv().unwrap();
        Self { redis: redis.url(), channel: channel.to_owned(), hearing }
    }

    /// How many edits it has heard, and how much else.
    fn stop(self) -> (usize, usize) {
        let mut connection = ::redis::Client::open(self.redis).unwrap().get_connection().unwrap();
        ::redis::cmd("PUBLISH").arg(&self.channel).arg("stop").exec(&mut connection).unwrap();
        self.hearing.join().unwrap()
    }
}

/// Runs for minutes, and only where there is time for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_of_faults_loses_anything() {
    if !long() {
        return;
    }
    let mut redis = RedisServer::start();
    let other = RedisServer::start();
    let proxy = Proxy::start(redis.address()).await;
    let mut nodes = [Node::start(&proxy.url()), Node::start(&redis.url()), Node::start(&redis.url())];
    let alice = Client::joins(&nodes[0], "letter", "alice").await;
    let bob = Client::joins(&nodes[1], "letter", "bob").await;
    let carol = Client::joins(&nodes[2], "letter", "carol").await;
    let people = [&alice, &bob, &carol];
    let begin = Instant::now();
    let mut dice = std::process::id() as usize;
    let mut story = Vec::new();
    while begin.elapsed() < Duration::from_secs(300) {
        let typing = Typing::start(&people);
        // Up to three faults at once.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        for number in 0..=(dice >> 60) % 3 {
            sleep(Duration::from_millis((dice >> 40) as u64 % 700)).await;
            let fault = (dice >> (24 + 5 * number)) % 12;
            story.push(fault);
            match fault {
                0 => drop(redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"])),
                1 => drop(redis.cli(&["CLIENT", "KILL", "TYPE", "normal"])),
                2 => drop(redis.cli(&["CLIENT", "PAUSE", "2000", "ALL"])),
                3 => drop(redis.cli(&["FLUSHALL"])),
                4 => drop(redis.cli(&["DEL", LOG])),
                5 => drop(redis.cli(&["EVAL", LOSE_TAIL, "1", LOG, "7"])),
                6 => redis.restart(),
                7 => {
                    redis.stop_signal();
                    sleep(Duration::from_secs(2)).await;
                    redis.cont();
                }
                8 => proxy.black_hole_existing(),
                9 => {
                    nodes[1].stop_signal();
                    sleep(Duration::from_secs(3)).await;
                    nodes[1].cont();
                }
                10 => {
                    // No node starts while Redis pauses.
                    redis.cli(&["PING"]);
                    nodes[2] = Node::start(&redis.url());
                    carol.moves_to(&nodes[2]);
                }
                _ => {
                    redis.cli(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
                    sleep(Duration::from_secs(1)).await;
                    redis.cli(&["REPLICAOF", "NO", "ONE"]);
                }
            }
        }
        sleep(Duration::from_millis(300)).await;
        typing.stop().await;
        // What was lost last may be noticed by the next who writes.
        people.iter().for_each(|one| one.types());
        println!("{story:?}");
        println!("healed after {:.1?}", agree(&people).await);
        story.clear();
        let words: Vec<_> = people.iter().flat_map(|one| one.typed()).collect();
        let compared = Instant::now();
        while !has_all(&stored_text(&redis).await, &words) {
            assert!(compared.elapsed() < HEALED, "Redis lacks what all have");
        }
        println!("stored after {:.1?}", compared.elapsed());
    }
}

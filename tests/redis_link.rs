//! The link to Redis against a real redis-server, with what happens to servers and networks: it is killed, stands
//! still, becomes a replica, or goes away without a word.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quire::backend::{
    BackendError, Position,
    redis::{
        link::Link,
        store::{Append, Commit, Committed, Entry, Event, Kept, Leases, Meta, Store},
    },
};
use tokio::time::sleep;

use crate::common::{
    proxy::Proxy,
    redis::{RedisServer, free_port},
    redis_node::{Node, PATIENCE, keys, noise, until},
};

fn at(epoch: u64, number: u64) -> Position {
    Position { epoch, number }
}

fn envelope(position: Position, envelope: &'static str) -> Entry {
    Entry { position, envelope: Some(envelope.into()) }
}

fn commit(epoch: u64, version: u64, through: Position, snapshot: impl Into<Bytes>) -> Commit {
    Commit {
        epoch,
        version,
        node: 7,
        through,
        stands_on: None,
        keep_from: Position { number: through.number + 1, ..through },
        snapshot: snapshot.into(),
        segment: None,
    }
}

#[tokio::test]
async fn a_log_begins_grows_and_is_fenced_by_its_epoch() {
    let redis = RedisServer::start();
    let node = Node::on(&redis.url()).await;
    let essay = keys("an {essay} about 100 %");
    assert_eq!(node.link.read(&essay).await.unwrap(), Kept::default());
    assert_eq!(node.append(&essay, 1, "early").await.unwrap(), Append::NoLog);
    assert_eq!(node.link.begin(&essay, 5).await.unwrap(), Some(5));
    assert_eq!(node.append(&essay, 5, "one").await.unwrap(), Append::Done { position: at(5, 1), entries: 2 });
    assert_eq!(node.append(&essay, 5, "two").await.unwrap(), Append::Done { position: at(5, 2), entries: 3 });
    assert_eq!(node.append(&essay, 4, "old").await.unwrap(), Append::OldEpoch);
    // It begins only once, and never in an epoch before one that it has been in.
    assert_eq!(node.link.begin(&essay, 3).await.unwrap(), Some(5));
    let log = vec![
        Entry { position: at(5, 0), envelope: None },
        envelope(at(5, 1), "one"),
        envelope(at(5, 2), "two"),
    ];
    let meta = Meta { epoch: 5, ..Meta::default() };
    assert_eq!(
        node.link.read(&essay).await.unwrap(),
        Kept { meta: meta.clone(), log: log.clone(), set_aside: vec![] }
    );
    assert_eq!(node.link.read_log(&essay, at(5, 1), 1).await.unwrap(), log[1..2]);
    assert_eq!(node.link.read_log(&essay, at(5, 1), 9).await.unwrap(), log[1..]);

    redis.cli(&["DEL", &essay.log()]);
    assert_eq!(node.append(&essay, 5, "lost").await.unwrap(), Append::NoLog);
    assert_eq!(node.link.begin(&essay, 6).await.unwrap(), Some(6));
    redis.cli(&["DEL", &essay.meta()]);
    assert_eq!(node.link.begin(&essay, 1).await.unwrap(), Some(6), "the log knows its epoch too");
    // Not written with an exponent.
    let late = (1 << 53) - 1;
    assert_eq!(node.link.begin(&keys("late"), late).await.unwrap(), Some(late));
    assert!(matches!(node.append(&keys("late"), late, "x").await, Ok(Append::Done { .. })));
}

#[tokio::test]
async fn every_byte_comes_back_as_it_was() {
    let redis = RedisServer::start();
    let node = Node::on(&redis.url()).await;
    let essay = keys("essay");
    node.link.begin(&essay, 1).await.unwrap();
    let all: Bytes = (0..=255).collect();
    let large: Bytes = noise(300_000);
    node.link.subscribe(&essay.channel()).await.unwrap();
    node.link.append(&essay, 1, all.clone(), all.clone()).await.unwrap();
    node.link.append(&essay, 1, large.clone(), "a notice".into()).await.unwrap();
    node.link.set_aside(&essay, "bad".into(), 2).await.unwrap();
    node.link.set_aside(&essay, all.clone(), 2).await.unwrap();
    node.link.set_aside(&essay, large.clone(), 2).await.unwrap();
    let kept = node.link.read(&essay).await.unwrap();
    assert_eq!(kept.log[1].envelope, Some(all.clone()));
    assert_eq!(kept.log[2].envelope, Some(large.clone()));
    assert_eq!(kept.set_aside, [all.clone(), large]);
    until("two messages", PATIENCE, || node.events().len() == 2).await;
    let payload = |payload: Bytes| Event::Message { channel: essay.channel().into(), payload };
    let first = [b"1-1|", &*all].concat();
    assert_eq!(node.events(), [payload(first.into()), payload("1-2|a notice".into())]);
}

#[tokio::test]
async fn every_append_is_heard_exactly_once() {
    let redis = RedisServer::start();
    let (writer, reader) = (Node::on(&redis.url()).await, Node::on(&redis.url()).await);
    let (essay, poem) = (keys("essay"), keys("poem"));
    for keys in [&essay, &poem] {
        writer.link.begin(keys, 1).await.unwrap();
    }
    reader.link.subscribe(&essay.channel()).await.unwrap();
    reader.link.subscribe(&essay.channel()).await.unwrap();
    let mut sent = Vec::new();
    for number in 1..=200 {
        writer.append(&essay, 1, &format!("update {number}")).await.unwrap();
        writer.append(&poem, 1, "not for here").await.unwrap();
        sent.push(format!("1-{number}|update {number}"));
    }
    assert_eq!(writer.publish(&essay, "the end").await.unwrap(), 1);
    sent.push("the end".to_owned());
    until("all messages", PATIENCE, || reader.messages(&essay).len() >= sent.len()).await;
    assert_eq!(reader.messages(&essay), sent);
    assert_eq!(reader.events().len(), sent.len(), "nothing else is heard");

    reader.link.unsubscribe(&essay.channel());
    until("nobody hears it", PATIENCE, || redis.cli(&["PUBSUB", "NUMSUB", &essay.channel()]).ends_with('0'))
        .await;
    // Left and heard again at once.
    for _ in 0..20 {
        reader.link.subscribe(&essay.channel()).await.unwrap();
        reader.link.unsubscribe(&essay.channel());
    }
    reader.link.subscribe(&essay.channel()).await.unwrap();
    reader.hears(&essay, "again", PATIENCE).await;
}

#[tokio::test]
async fn a_snapshot_takes_the_place_of_what_it_contains_once() {
    let redis = RedisServer::start();
    let node = Node::on(&redis.url()).await;
    let essay = keys("essay");
    node.link.begin(&essay, 1).await.unwrap();
    for text in ["one", "two", "three"] {
        node.append(&essay, 1, text).await.unwrap();
    }
    let snapshots = [0, 1, 100_000, 256 * 1024, 5 * 256 * 1024 + 1].map(noise);
    let mut before = None;
    for (version, snapshot) in snapshots.iter().enumerate() {
        let version = version as u64;
        let commit = commit(1, version, at(1, 2), snapshot.clone());
        assert_eq!(node.link.commit(&essay, commit.clone()).await.unwrap(), Committed::Done);
        // The same again: somebody was first.
        assert_eq!(node.link.commit(&essay, commit).await.unwrap(), Committed::Outrun);
        let kept = node.link.read(&essay).await.unwrap();
        assert_eq!((kept.meta.version, kept.meta.through), (version + 1, at(1, 2)));
        assert_eq!(kept.log, [envelope(at(1, 3), "three")]);
        assert_eq!(node.link.read_snapshot(&kept.meta.snapshot).await.unwrap().as_ref(), Some(snapshot));
        assert_eq!(redis.cli(&["TTL", &kept.meta.snapshot]), "-1", "it stays");
        if let Some(before) = before.replace(kept.meta.snapshot) {
            assert!(redis.cli(&["TTL", &before]).parse::<i64>().unwrap() > 100, "who reads it may go on");
        }
    }
    let lists = redis.cli(&["KEYS", "quire:{essay}:s:*"]);
    assert_eq!(lists.lines().count(), snapshots.len(), "those that were outrun are gone: {lists}");

    let key = node.link.read(&essay).await.unwrap().meta.snapshot;
    redis.cli(&["RPOP", &key]);
    assert_eq!(node.link.read_snapshot(&key).await.unwrap(), None, "a part of it is no snapshot");
    redis.cli(&["RPUSH", &key, "something else"]);
    assert!(node.link.read_snapshot(&key).await.unwrap_err().to_string().contains("damaged"));
    redis.cli(&["DEL", &key]);
    assert_eq!(node.link.read_snapshot(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_snapshot_of_another_log_is_refused() {
    let redis = RedisServer::start();
    let node = Node::on(&redis.url()).await;
    let essay = keys("essay");
    node.link.begin(&essay, 2).await.unwrap();
    node.append(&essay, 2, "head and tail").await.unwrap();
    let right = Commit { stands_on: Some((at(2, 1), "head".into())), ..commit(2, 0, at(2, 1), "snapshot") };
    let wrong = [
        Commit { epoch: 1, ..right.clone() },
        Commit { stands_on: Some((at(2, 1), "tail".into())), ..right.clone() },
        Commit { stands_on: Some((at(2, 2), "head".into())), ..right.clone() },
        Commit { stands_on: Some((at(2, 0), "1".into())), ..right.clone() },
    ];
    for commit in wrong {
        assert_eq!(
            node.link.commit(&essay, commit.clone()).await.unwrap(),
            Committed::OtherLog,
            "{commit:?}"
        );
    }
    assert_eq!(redis.cli(&["KEYS", "quire:{essay}:s:*"]), "");
    assert_eq!(node.link.read(&essay).await.unwrap().log.len(), 2);
    assert_eq!(node.link.commit(&essay, right).await.unwrap(), Committed::Done);
    assert_eq!(node.link.read(&essay).await.unwrap().log, []);
    assert_eq!(
        node.append(&essay, 2, "more").await.unwrap(),
        Append::Done { position: at(2, 2), entries: 1 },
        "positions go on"
    );
}

#[tokio::test]
async fn nodes_and_connections_are_counted_while_they_live() {
    let redis = RedisServer::start();
    let link = Node::on(&redis.url()).await.link;
    let (one, two) = (0xfedc_ba98_7654_3210, 2);
    assert_eq!(link.lease(one).await.unwrap(), Leases { times: 1, live: vec![one] });
    let mut live = link.lease(two).await.unwrap().live;
    live.sort();
    assert_eq!(live, [two, one]);
    redis.cli(&["DEL", "quire:{nodes}:2"]);
    let leases = Leases { times: 2, live: vec![one] };
    assert_eq!(link.lease(one).await.unwrap(), leases, "a lease that ran out");
    redis.cli(&["FLUSHALL"]);
    let leases = Leases { times: 1, live: vec![one] };
    assert_eq!(link.lease(one).await.unwrap(), leases, "all is forgotten");
    link.end_lease(one).await.unwrap();
    assert_eq!(redis.cli(&["KEYS", "*nodes*"]), "");

    let user = "{al%ice}";
    for (node, admitted) in [(one, true), (two, true), (one, false), (two, false)] {
        assert_eq!(link.admit(user, node, &[one, two], 2).await.unwrap(), admitted);
    }
    assert!(link.admit(user, one, &[one, two], 0).await.unwrap(), "no limit");
    assert!(link.admit("bob", one, &[one], 1).await.unwrap(), "somebody else");
    link.dismiss(user, one, false).await.unwrap();
    assert!(!link.admit(user, one, &[one, two], 2).await.unwrap());
    // The other node is dead.
    assert!(link.admit(user, one, &[], 2).await.unwrap());
    assert!(!link.admit(user, one, &[one, two], 2).await.unwrap());
    for _ in 0..3 {
        link.dismiss(user, one, false).await.unwrap();
    }
    link.dismiss("bob", one, true).await.unwrap();
    assert_eq!(redis.cli(&["KEYS", "quire:{u:*"]), "");
}

#[tokio::test]
async fn killed_connections_come_back_and_what_was_missed_is_said() {
    let redis = RedisServer::start();
    let node = Node::on(&redis.url()).await;
    let essay = keys("essay");
    node.link.begin(&essay, 1).await.unwrap();
    node.link.subscribe(&essay.channel()).await.unwrap();

    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    until("it says what it missed", Duration::from_secs(2), || node.missed_all() == 1).await;
    node.hears(&essay, "after a killed subscriber", Duration::from_secs(1)).await;

    redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    node.writes(&essay, Duration::from_secs(2)).await;
    node.hears(&essay, "after killed commands", Duration::from_secs(1)).await;
    assert_eq!(node.missed_all(), 1, "the subscriber was not touched");

    // A script that Redis does not know any more.
    redis.cli(&["SCRIPT", "FLUSH"]);
    assert!(matches!(node.append(&essay, 1, "x").await, Ok(Append::Done { .. })));
}

#[tokio::test]
async fn a_redis_that_was_killed_is_used_again_when_it_is_back() {
    let mut redis = RedisServer::start_durable();
    let node = Node::on(&redis.url()).await;
    let essay = keys("essay");
    node.link.begin(&essay, 1).await.unwrap();
    node.link.subscribe(&essay.channel()).await.unwrap();
    assert_eq!(node.link.away(), None);
    redis.kill();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        let call = Instant::now();
        let answer = node.append(&essay, 1, "lost").await;
        assert!(matches!(answer, Err(BackendError::Away(_))), "{answer:?}");
        assert!(call.elapsed() < Duration::from_millis(500), "nothing waits for it");
        sleep(Duration::from_millis(50)).await;
    }
    let reason = node.link.away().unwrap();
    assert!(reason.contains("refused"), "{reason}");
    // Wanted while it is away.
    let poem = keys("poem");
    assert!(matches!(node.link.subscribe(&poem.channel()).await, Err(BackendError::Away(_))));
    redis.restart();
    node.writes(&essay, Duration::from_secs(2)).await;
    until("it says what it missed", Duration::from_secs(2), || node.missed_all() > 0).await;
    assert_eq!(node.missed_all(), 1);
    node.hears(&essay, "after a restart", Duration::from_secs(1)).await;
    node.hears(&poem, "heard now", Duration::from_secs(1)).await;
    assert_eq!(node.link.away(), None);
    assert_eq!(node.link.read(&essay).await.unwrap().log.len(), 2);
}

#[tokio::test]
async fn a_redis_that_stands_still_keeps_nobody() {
    let redis = RedisServer::start();
    let node = Node::on(&redis.url()).await;
    let essay = keys("essay");
    node.link.begin(&essay, 1).await.unwrap();
    node.link.subscribe(&essay.channel()).await.unwrap();
    redis.stop_signal();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        let call = Instant::now();
        let (appended, published, begun) =
            tokio::join!(node.append(&essay, 1, "x"), node.publish(&essay, "x"), node.link.begin(&essay, 1));
        assert!(call.elapsed() < Duration::from_secs(2), "a call took {:?}", call.elapsed());
        assert!(appended.is_err() && published.is_err() && begun.is_err());
        sleep(Duration::from_millis(20)).await;
    }
    redis.cont();
    node.writes(&essay, Duration::from_secs(3)).await;
    node.hears(&essay, "after standing still", Duration::from_secs(3)).await;
}

#[tokio::test]
async fn a_connection_that_the_network_forgot_is_made_anew() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address()).await;
    let node = Node::on(&proxy.url()).await;
    let essay = keys("essay");
    node.link.begin(&essay, 1).await.unwrap();
    node.link.subscribe(&essay.channel()).await.unwrap();
    proxy.black_hole_existing();
    // Nothing is asked for, so that nothing but the link's own watch can find it out.
    let after = until("it is made anew", Duration::from_secs(8), || node.missed_all() == 1).await;
    println!("made anew after {after:?}");
    node.hears(&essay, "over a new connection", Duration::from_secs(1)).await;
    node.writes(&essay, Duration::from_secs(1)).await;
    assert!(node.link.read(&essay).await.is_ok(), "the third connection too");

    // With many commands it is found out by them.
    proxy.black_hole_existing();
    node.writes(&essay, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_master_that_becomes_a_replica_is_away_until_it_is_one_again() {
    let (redis, other) = (RedisServer::start(), RedisServer::start());
    let node = Node::on(&redis.url()).await;
    let essay = keys("essay");
    node.link.begin(&essay, 1).await.unwrap();
    node.link.subscribe(&essay.channel()).await.unwrap();
    redis.cli(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    let answer = node.append(&essay, 1, "x").await;
    assert!(matches!(answer, Err(BackendError::Away(_))), "{answer:?}");
    until("it says why", Duration::from_secs(2), || {
        node.link.away().is_some_and(|reason| reason.contains("replica"))
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    assert!(node.link.away().is_some());
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    node.writes(&essay, Duration::from_secs(2)).await;
    // It may hold something else now.
    until("it says what it missed", Duration::from_secs(2), || node.missed_all() == 1).await;
}

#[tokio::test]
async fn what_is_in_the_way_of_using_a_redis_is_said() {
    let error = async |url: &str| Link::connect(url).await.err().expect("it cannot be used").to_string();
    let nobody = free_port();
    for (url, text) in [
        ("http://127.0.0.1", "write it like redis://host:6379"),
        (&*format!("redis://127.0.0.1:{nobody}"), "is it running"),
        ("redis+unix:///no/such/socket", "is it running"),
    ] {
        let error = error(url).await;
        assert!(error.contains(text), "{error}");
    }

    let redis = RedisServer::start_with(&["--requirepass", "right"]);
    let at = redis.address();
    for (url, text) in [
        (format!("redis://{at}"), "write the user and the password into the URL"),
        (format!("redis://:wrong@{at}"), "write the user and the password into the URL"),
    ] {
        let error = error(&url).await;
        assert!(error.contains(text) && error.contains(&at) && !error.contains("wrong"), "{error}");
    }
    let url = format!("redis://:right@{at}/3");
    let node = Node::on(&url).await;
    node.link.begin(&keys("essay"), 1).await.unwrap();
    let cli = |words: &[&str]| redis.cli(&[&["--no-auth-warning", "-a", "right", "-n", "3"], words].concat());
    assert_eq!(cli(&["DBSIZE"]), "2", "the checks leave nothing behind");

    let rules = "ACL SETUSER quire on >q ~quire:* &quire:* +@read +@write +@pubsub +@scripting +@transaction \
                 +@connection +info";
    cli(&rules.split(' ').collect::<Vec<_>>());
    let url = format!("redis://quire:q@{at}");
    drop(Node::on(&url).await);
    for (rule, text) in [("-xadd", "xadd"), ("-evalsha", "evalsha"), ("resetchannels", "channel")] {
        cli(&["ACL", "SETUSER", "quire", rule]);
        let error = error(&url).await;
        assert!(error.contains(text) && error.contains("give the user these rules"), "{error}");
        cli(&[&["ACL", "SETUSER", "quire", "reset"][..], &rules.split(' ').skip(3).collect::<Vec<_>>()]
            .concat());
    }

    cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let error = error(&format!("redis://:right@{at}")).await;
    assert!(error.contains("set it to noeviction"), "{error}");
}

#[tokio::test]
async fn a_closed_link_answers_that_it_is_closed() {
    let redis = RedisServer::start();
    let node = Node::on(&redis.url()).await;
    let essay = keys("essay");
    node.link.subscribe(&essay.channel()).await.unwrap();
    node.link.close().await.unwrap();
    assert!(matches!(node.append(&essay, 1, "x").await, Err(BackendError::Closed)));
    assert!(matches!(node.link.read(&essay).await, Err(BackendError::Closed)));
    assert!(matches!(node.link.subscribe("another").await, Err(BackendError::Closed)));
    until("its connections are gone", PATIENCE, || redis.cli(&["CLIENT", "LIST"]).lines().count() == 1).await;
    assert!(node.link.away().is_some());

    let dropped = Node::on(&redis.url()).await;
    drop(dropped);
    until("its connections are gone", PATIENCE, || redis.cli(&["CLIENT", "LIST"]).lines().count() == 1).await;
}

#[tokio::test]
async fn a_hundred_thousand_channels_are_heard_again() {
    let redis = RedisServer::start();
    let node = Node::on(&redis.url()).await;
    let all: Vec<_> = (0..100_000).map(|number| keys(&format!("document {number}"))).collect();
    let begin = Instant::now();
    // The last answer of each thousand says that Redis is not more than so many behind.
    for some in all.chunks(1_000) {
        let heard: Vec<_> = some.iter().map(|keys| node.link.subscribe(&keys.channel())).collect();
        for heard in heard {
            heard.await.unwrap();
        }
    }
    println!("heard after {:?}", begin.elapsed());
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let after = until("they are heard again", Duration::from_secs(10), || node.missed_all() == 1).await;
    println!("heard again after {after:?}");
    let count = redis.cli(&["PUBSUB", "CHANNELS", "quire:{*"]);
    assert_eq!(count.lines().count(), all.len());
    node.hears(&all[99_999], "the last one", Duration::from_secs(1)).await;
}

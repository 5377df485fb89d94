//! The link to Redis against several redis-servers that elect a master among them, or share the keys.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use quire::{
    backend::{
        Exchange, Exchanged, Notification, Position,
        redis::{
            link::Link,
            store::{Append, Commit, Committed, Keys, Store},
        },
    },
    name::DocumentName,
};
use tokio::task::spawn_blocking;

use crate::common::{
    redis::{RedisCluster, RedisServer},
    redis_node::{Node, PATIENCE, keys, noise, until},
};

#[tokio::test]
async fn the_master_that_the_sentinels_elect_is_used() {
    let (mut master, replica) = (RedisServer::start(), RedisServer::start());
    replica.cli(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    let sentinels = [0; 3].map(|_| RedisServer::start_sentinel(&master, "main"));
    let hosts = sentinels.each_ref().map(RedisServer::address).join(",");
    let url = |name: &str| format!("redis-sentinel://{hosts}/{name}");
    let error = Link::connect(&url("other")).await.err().expect("there is no such master");
    assert!(error.to_string().contains("know no master other"), "{error}");
    let ready = || {
        let knows = |sentinel: &RedisServer| {
            let master = sentinel.cli(&["SENTINEL", "MASTER", "main"]);
            master.contains("num-slaves\n1\n") && master.contains("num-other-sentinels\n2\n")
        };
        replica.cli(&["INFO", "replication"]).contains("master_link_status:up") && sentinels.iter().all(knows)
    };
    until("they know each other", PATIENCE, ready).await;

    let node = Node::on(&url("main")).await;
    let essay = keys("essay");
    node.link.begin(&essay, 1).await.unwrap();
    node.append(&essay, 1, "one").await.unwrap();
    node.link.subscribe(&essay.channel()).await.unwrap();
    let replicated = || replica.cli(&["XLEN", &essay.log()]) == "2";
    until("it is replicated", PATIENCE, replicated).await;
    master.kill();
    let after = node.writes(&essay, PATIENCE).await;
    println!("written again after {after:?}");
    assert!(replica.cli(&["ROLE"]).starts_with("master"));
    until("it says what it missed", Duration::from_secs(2), || node.missed_all() == 1).await;
    node.hears(&essay, "from the new master", Duration::from_secs(1)).await;
    assert!(node.link.read(&essay).await.unwrap().log.len() > 2);

    // The old one comes back as a replica, and they change places while both are well.
    master.restart();
    let knows = || replica.cli(&["INFO", "replication"]).contains("connected_slaves:1");
    until("it is a replica", PATIENCE, knows).await;
    until("they agree to change", PATIENCE, || sentinels[0].cli(&["SENTINEL", "FAILOVER", "main"]) == "OK")
        .await;
    until("they have changed", PATIENCE, || master.cli(&["ROLE"]).starts_with("master")).await;
    let begin = Instant::now();
    until("the link has followed", PATIENCE, || node.missed_all() >= 2).await;
    println!("followed after {:?}", begin.elapsed());
    node.writes(&essay, Duration::from_secs(3)).await;
    node.hears(&essay, "from the first master", Duration::from_secs(3)).await;
}

/// Documents in all parts of a cluster, and the index of the master that has each.
fn documents(cluster: &RedisCluster) -> Vec<(Keys, usize)> {
    (0..30)
        .map(|number| keys(&format!("document {number}")))
        .map(|keys| (keys.clone(), cluster.owner(&keys.log())))
        .collect()
}

#[tokio::test]
async fn the_nodes_of_a_cluster_share_one_queue_of_notifications() {
    let cluster = RedisCluster::start(false);
    let nodes = [Node::on(&cluster.url()).await, Node::on(&cluster.url()).await];
    // More than what goes over the connection for small commands.
    let body = noise(100_000);
    let add = ["a", "b"].map(|id| Notification { id: id.to_owned(), body: body.clone(), tries: 0 });
    let exchange =
        |node: &Node, exchange: Exchange| node.link.exchange(Exchange { most: 9, claim: 1, ..exchange });
    let first = exchange(&nodes[0], Exchange { add: add.to_vec(), ..Exchange::default() }).await.unwrap();
    assert_eq!(first, Exchanged { dropped: 0, claimed: vec![add[0].clone()], waiting: 2 });
    let second = exchange(&nodes[1], Exchange::default()).await.unwrap();
    assert_eq!(second, Exchanged { dropped: 0, claimed: vec![add[1].clone()], waiting: 2 });
    let remove = vec!["a".to_owned(), "b".to_owned()];
    let none = exchange(&nodes[0], Exchange { remove, ..Exchange::default() }).await.unwrap();
    assert_eq!(none, Exchanged::default());
}

#[tokio::test]
async fn a_cluster_is_used_like_one_redis() {
    let cluster = RedisCluster::start(false);
    let (writer, reader) = (Node::on(&cluster.url()).await, Node::on(&cluster.url()).await);
    let documents = documents(&cluster);
    for (keys, _) in &documents {
        reader.link.subscribe(&keys.channel()).await.unwrap();
        writer.link.begin(keys, 1).await.unwrap();
        assert!(matches!(writer.append(keys, 1, "one").await, Ok(Append::Done { entries: 2, .. })));
        let position = Position { epoch: 1, number: 1 };
        let commit = Commit {
            epoch: 1,
            version: 0,
            node: 1,
            through: position,
            stands_on: Some((position, "one".into())),
            keep_from: position,
            snapshot: keys.log().into(),
            segment: None,
        };
        assert_eq!(writer.link.commit(keys, commit).await.unwrap(), Committed::Done);
        let kept = reader.link.read(keys).await.unwrap();
        let snapshot = reader.link.read_snapshot(&kept.meta.snapshot).await.unwrap();
        assert_eq!((kept.log.len(), snapshot), (1, Some(keys.log().into())));
        writer.link.set_aside(keys, "bad".into(), 3).await.unwrap();
        assert_eq!(writer.publish(keys, "the end").await.unwrap(), 1);
    }
    until("all is heard", PATIENCE, || reader.events().len() == 2 * documents.len()).await;
    for (keys, _) in &documents {
        assert_eq!(reader.messages(keys), ["1-1|one", "the end"]);
    }
    let deleted =
        |keys: &Keys| reader.messages(keys).iter().filter(|message| *message == "it was deleted").count();
    let kept = Duration::from_secs(60);
    for (keys, _) in &documents {
        let before = reader.link.read(keys).await.unwrap();
        assert!(writer.link.delete(keys, kept, "it was deleted".into()).await.unwrap());
        assert!(reader.link.read(keys).await.unwrap().meta.deleted);
        assert_eq!(writer.append(keys, 1, "late").await.unwrap(), Append::NoLog);
        assert_eq!(writer.link.begin(keys, 1).await.unwrap(), None);
        assert_eq!(writer.link.size(keys).await.unwrap(), None);
        assert!(writer.link.undelete(keys).await.unwrap());
        assert_eq!(reader.link.read(keys).await.unwrap(), before);
        assert!(writer.link.size(keys).await.unwrap().is_some_and(|size| size.bytes > 0));
        assert!(writer.link.delete(keys, kept, "it was deleted".into()).await.unwrap());
        assert!(writer.link.create(keys, None).await.unwrap());
        assert_eq!(writer.append(keys, 1, "late").await.unwrap(), Append::OldEpoch);
    }
    until("all deletions are heard", PATIENCE, || documents.iter().all(|(keys, _)| deleted(keys) == 2)).await;
    let names = ["a", "b/1", "b/2"].map(|name| DocumentName::new(name).unwrap());
    for name in &names {
        writer.link.enlist(name, true).await.unwrap();
    }
    assert_eq!(reader.link.names("b/", "", 10).await.unwrap(), ["b/1", "b/2"]);
    writer.link.enlist(&names[1], false).await.unwrap();
    assert_eq!(reader.link.names("", "a", 10).await.unwrap(), ["b/2"]);
    assert_eq!(writer.link.lease(7).await.unwrap().live, [7]);
    assert!(writer.link.admit("alice", 7, &[7], 1).await.unwrap());
    assert!(!writer.link.admit("alice", 8, &[7], 1).await.unwrap());

    // What was missed is told for the channels of that master, and for no others.
    cluster.masters[0].cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let missed = || documents.iter().all(|(keys, owner)| *owner != 0 || reader.missed(keys) == 1);
    until("it says what it missed", Duration::from_secs(2), missed).await;
    assert!(documents.iter().all(|(keys, owner)| *owner == 0 || reader.missed(keys) == 0));
    for (keys, _) in &documents {
        reader.hears(keys, "after a kill", Duration::from_secs(1)).await;
        reader.link.unsubscribe(&keys.channel());
    }
    until("nobody hears them", PATIENCE, || {
        let channels = |master: &RedisServer| master.cli(&["PUBSUB", "SHARDCHANNELS"]);
        cluster.masters.iter().all(|master| channels(master).is_empty())
    })
    .await;

    let one = cluster.masters[0].url();
    let error = Link::connect(&one).await.err().expect("it is not alone").to_string();
    assert!(error.contains("redis-cluster://"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_is_followed() {
    let cluster = Arc::new(RedisCluster::start(false));
    let node = Node::on(&cluster.url()).await;
    let documents = documents(&cluster);
    for (keys, _) in &documents {
        node.link.begin(keys, 1).await.unwrap();
        node.link.subscribe(&keys.channel()).await.unwrap();
    }
    let (moved, from) = &documents[0];
    let to = (from + 1) % 3;
    cluster.move_slot(&moved.log(), *from, to);
    let begin = Instant::now();
    // Nothing is asked for: Redis says itself that a channel went away. It is said more than once where the nodes
    // do not agree at first.
    until("it says what it missed", Duration::from_secs(3), || node.missed(moved) > 0).await;
    println!("followed a slot after {:?}", begin.elapsed());
    assert!(cluster.masters[to].cli(&["PUBSUB", "SHARDCHANNELS"]).contains(&moved.channel()));
    node.hears(moved, "from another master", Duration::from_secs(1)).await;
    node.writes(moved, Duration::from_secs(1)).await;
    assert_eq!(node.link.read(moved).await.unwrap().log.len(), 2);

    // With writing all the time, and back.
    let missed = node.missed(moved);
    let writing = async {
        for _ in 0..50 {
            node.writes(moved, Duration::from_secs(3)).await;
        }
    };
    let (log, from, moving) = (moved.log(), *from, cluster.clone());
    let moving = spawn_blocking(move || moving.move_slot(&log, to, from));
    let ((), moving) = tokio::join!(writing, moving);
    moving.unwrap();
    until("it says what it missed again", Duration::from_secs(3), || node.missed(moved) > missed).await;
    node.hears(moved, "from the first master", Duration::from_secs(1)).await;
    assert_eq!(node.link.read(moved).await.unwrap().log.len(), 52);
    for (keys, _) in &documents[1..] {
        assert_eq!(node.missed(keys), 0);
        node.hears(keys, "all the time", Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_dies_or_stands_still_is_replaced() {
    let mut cluster = RedisCluster::start(true);
    let node = Node::on(&cluster.url()).await;
    let documents = documents(&cluster);
    for (keys, _) in &documents {
        node.link.begin(keys, 1).await.unwrap();
        node.link.subscribe(&keys.channel()).await.unwrap();
    }
    let of =
        |master: usize| documents.iter().filter(move |(_, owner)| *owner == master).map(|(keys, _)| keys);
    for (fault, dead) in [("killed", 0), ("standing still", 1)] {
        match fault {
            "killed" => cluster.masters[dead].kill(),
            _ => cluster.masters[dead].stop_signal(),
        }
        let (one, others) = (of(dead).next().unwrap(), of(2));
        let others = async {
            for keys in others {
                let after = node.writes(keys, Duration::from_secs(1)).await;
                assert!(after < Duration::from_secs(1), "other masters take {after:?}");
            }
        };
        let (after, ()) = tokio::join!(node.writes(one, Duration::from_secs(10)), others);
        println!("{fault}: written again after {after:?}");
        let missed = || of(dead).all(|keys| node.missed(keys) >= 1);
        until("it says what it missed", Duration::from_secs(5), missed).await;
        join_all(of(dead).map(|keys| node.hears(keys, fault, Duration::from_secs(5)))).await;
        assert!(of(2).all(|keys| node.missed(keys) == 0));
        assert_eq!(node.link.away(), None);
    }
    cluster.masters[1].cont();
    for (keys, _) in &documents {
        node.writes(keys, Duration::from_secs(5)).await;
        node.hears(keys, "in the end", Duration::from_secs(5)).await;
    }
}

//! Keeps the connections: makes each anew for as long as it takes, hears all channels again, looks whether what is
//! published still arrives, and says when messages may have been missed.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value, cmd};
use tokio::{
    sync::watch,
    time::{self, MissedTickBehavior, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    super::store::Event,
    address::{Address, PushListener},
    channels::Channels,
    checks::{self, About, Obstacle},
    line::{Line, Up},
    scripts::Scripts,
    shards::Shared,
    wire::{Wire, read_bytes},
};

/// How often it is tried whether what is published arrives.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How long that may take: longer than a command, so that one without an answer is counted, and shorter than the
/// time to the next probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1_200);
/// So many probes that do not arrive, one after the other, mean that others do not arrive either.
const MAX_MISSES: u32 = 3;
/// A process that stood still for so long has lost its leases, and its connections may be of another time.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The first wait between two attempts to connect, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// When a channel is asked for again that another node of the cluster seemed to have.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A connection that lasted so long was a good one, and the waits begin anew.
const LASTING: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Small commands, which wait for each other.
    Command,
    /// Large ones, which others must not wait for.
    Bulk,
    /// Channels.
    Subscriber,
}

/// Whether a Redis is there, as was said in the log.
enum Presence {
    New,
    Here,
    AwaySince(Instant),
}

/// The connections, and what is known about them.
pub(super) struct Keeper {
    /// Where this Redis is.
    pub(super) address: Address,
    /// Small commands.
    pub(super) command: Arc<Line>,
    /// Large commands.
    pub(super) bulk: Arc<Line>,
    /// Channels.
    pub(super) subscriber: Arc<Line>,
    /// What is to be heard.
    pub(super) channels: Arc<Channels>,
    shared: Shared,
    /// It is not needed any more.
    pub(super) ended: CancellationToken,
    /// The channel on which this link hears itself.
    probe: Arc<str>,
    /// The latest probe that arrived.
    arrived: Arc<watch::Sender<u64>>,
    connections: AtomicU64,
    presence: Mutex<Presence>,
    missed: AtomicBool,
}

impl Keeper {
    pub(super) fn new(address: Address, shared: Shared) -> Self {
        let line = |seconds, patience| {
            Arc::new(Line::new(Duration::from_secs(seconds), patience, shared.wrong.clone()))
        };
        Self {
            address,
            command: line(1, 3),
            // Its answers are large, and one that does not come took long enough.
            bulk: line(10, 1),
            subscriber: line(2, 1),
            channels: Arc::default(),
            shared,
            ended: CancellationToken::new(),
            probe: format!("quire:probe:{:x}", random()).into(),
            arrived: Arc::new(watch::channel(0).0),
            connections: AtomicU64::new(1),
            presence: Mutex::new(Presence::New),
            missed: AtomicBool::new(false),
        }
    }

    /// Makes all connections for the first time, and sees whether this Redis can be used. The key is one that it
    /// has, and that nobody uses.
    pub(super) async fn open(&self, scripts: &Scripts, key: &str) -> Result<(), Obstacle> {
        let (mut up, about) = self.connect(Role::Command).await?;
        about.is_suitable(self.address.in_cluster)?;
        checks::may_do_everything(&mut up.wire, scripts, key).await?;
        about.warn_if_forgetful(&mut up.wire).await;
        self.command.raise(up)?;
        self.restore(Role::Bulk).await?;
        self.restore(Role::Subscriber).await?;
        *self.presence() = Presence::Here;
        Ok(())
    }

    /// Keeps the connections for ever.
    pub(super) async fn keep_all(&self) {
        let keep = |role| self.keep(role);
        tokio::join!(keep(Role::Command), keep(Role::Bulk), keep(Role::Subscriber), self.watch());
    }

    /// Keeps one connection for ever.
    async fn keep(&self, role: Role) {
        let mut wait = WAITS.0;
        loop {
            let since = Instant::now();
            let why = self.serve(role).await;
            self.lose(role, &why);
            if since.elapsed() > LASTING {
                wait = WAITS.0;
            }
            loop {
                // Many nodes lose the same Redis at the same moment, and should not come back at the same moment.
                sleep(wait.mul_f64(0.5 + random() as f64 / u64::MAX as f64 / 2.0)).await;
                wait = (wait * 2).min(WAITS.1);
                match self.restore(role).await {
                    Ok(()) => break,
                    Err(obstacle) => self.line(role).explain(obstacle.to_string()),
                }
                if self.address.in_cluster {
                    // Another one may be the master.
                    self.shared.wrong.notify_one();
                }
            }
            self.settle();
        }
    }

    /// Looks for ever whether the connections do what they are there for.
    async fn watch(&self) {
        let mut ticks = time::interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut misses, mut bulk_misses) = (0, 0);
        let mut last = Instant::now();
        for number in 1.. {
            ticks.tick().await;
            let late = last.elapsed().saturating_sub(PROBE_EVERY);
            last = Instant::now();
            if late > MAX_PAUSE {
                let why = format!("this node stood still for {late:.1?}");
                self.lines().into_iter().for_each(|line| line.give_up_any(&why));
                continue;
            }
            let is_another = timeout(PROBE_TIMEOUT, self.address.is_another());
            let (arrived, answered, is_another) =
                tokio::join!(self.probe(number), self.ping_bulk(), is_another);
            if is_another.unwrap_or(false) {
                self.lines().into_iter().for_each(|line| line.give_up_any("another Redis is the master now"));
            }
            misses = count_misses(misses, arrived);
            if misses == MAX_MISSES {
                misses = 0;
                // All of them: a network that has forgotten one has forgotten the others, and what waits on the one
                // for large commands would wait there for long.
                let why = "what is published does not arrive any more";
                self.lines().into_iter().for_each(|line| line.give_up_any(why));
            }
            bulk_misses = count_misses(bulk_misses, answered);
            if bulk_misses == MAX_MISSES {
                bulk_misses = 0;
                self.bulk.give_up_any("it does not answer any more");
            }
        }
    }

    /// Closes all connections for good.
    pub(super) fn close(&self) {
        self.ended.cancel();
        self.lines().into_iter().for_each(|line| line.close());
    }

    /// Lets go of all connections, because others do what they did.
    pub(super) fn retire(&self) {
        self.ended.cancel();
        self.lines().into_iter().for_each(|line| line.give_up_any("another Redis is the master now"));
    }

    /// Does what there is to do on a connection until it is lost, and answers why it is.
    async fn serve(&self, role: Role) -> String {
        let line = self.line(role);
        if role != Role::Subscriber {
            return line.lost().await;
        }
        loop {
            tokio::select! {
                biased;
                why = line.lost() => return why,
                () = self.channels.changed() => {}
            }
            let Some(batch) = self.channels.next() else { continue };
            match line.hear_channels(&batch.these, &batch.not_those).await {
                Ok(elsewhere) => {
                    for channel in self.channels.confirm(batch, &elsewhere) {
                        self.tell_missed(&channel);
                    }
                    if !elsewhere.is_empty() {
                        self.shared.wrong.notify_one();
                        sleep(ASK_AGAIN_AFTER).await;
                        self.channels.ask_again(elsewhere);
                    }
                }
                // The next connection asks for all channels.
                Err(failure) => line.give_up_any(&failure.to_string()),
            }
        }
    }

    fn lose(&self, role: Role, why: &str) {
        if role == Role::Subscriber {
            self.channels.forget();
            self.missed.store(true, Relaxed);
        }
        if role == Role::Command {
            // It may have fallen silent, and the one for large commands with it: a call on that waits for longer.
            self.bulk.give_up_any(why);
        }
        let mut presence = self.presence();
        if let Presence::Here = *presence {
            *presence = Presence::AwaySince(Instant::now());
            warn!(redis = self.address.name(), connection = ?role, why, "lost Redis, and try until it is back");
        }
    }

    async fn restore(&self, role: Role) -> Result<(), Obstacle> {
        let (up, _) = self.connect(role).await?;
        if role == Role::Subscriber {
            self.hear_all(&up.wire).await?;
        }
        self.line(role).raise(up)
    }

    async fn connect(&self, role: Role) -> Result<(Up, About), Obstacle> {
        let number = self.connections.fetch_add(1, Relaxed);
        let mut wire = self.address.connect(self.push_listener(role, number)).await?;
        let about = About::ask(&mut wire).await?;
        about.takes_writes()?;
        Ok((Up { wire, number, identity: about.identity() }, about))
    }

    async fn hear_all(&self, wire: &Wire) -> Result<(), Obstacle> {
        self.channels.forget();
        checks::within(wire.connection.clone().subscribe(&*self.probe)).await?;
        let mut all_elsewhere = Vec::new();
        while let Some(batch) = self.channels.next() {
            let elsewhere =
                checks::within(wire.clone().hear_channels(&batch.these, &batch.not_those)).await?;
            // What was missed is told for all channels together.
            self.channels.confirm(batch, &elsewhere);
            all_elsewhere.extend(elsewhere);
        }
        self.channels.ask_again(all_elsewhere);
        Ok(())
    }

    fn push_listener(&self, role: Role, number: u64) -> PushListener {
        let (line, channels, shared) = (self.line(role).clone(), self.channels.clone(), self.shared.clone());
        let (probe, arrived) = (self.probe.clone(), self.arrived.clone());
        Arc::new(move |push| match push.kind {
            PushKind::Disconnection => line.give_up(number, "Redis closed the connection"),
            PushKind::Message | PushKind::SMessage => {
                let Some((channel, payload)) = read_message(push) else { return };
                if *channel == *probe.as_bytes() {
                    let number = std::str::from_utf8(&payload).ok().and_then(|number| number.parse().ok());
                    arrived.send_replace(number.unwrap_or_default());
                } else if let Some(listener) = shared.listener.get() {
                    listener(Event::Message { channel, payload });
                }
            }
            // The answer to us, or the slot was taken away.
            PushKind::SUnsubscribe => {
                let Some(channel) = push.data.into_iter().next().and_then(read_bytes) else { return };
                if std::str::from_utf8(&channel).is_ok_and(|channel| channels.unheard(channel)) {
                    shared.wrong.notify_one();
                }
            }
            _ => {}
        })
    }

    /// When all connections are there again: whether they lead to the same Redis, and what was missed.
    fn settle(&self) {
        let lines = self.lines();
        let [Some(command), Some(bulk), Some(subscriber)] = lines.map(|line| line.identity()) else { return };
        let identities = [command, bulk, subscriber];
        let newest = identities.iter().max_by_key(|(number, _)| number).expect("there are three of them");
        let mut same = true;
        for (line, (number, identity)) in lines.into_iter().zip(&identities) {
            if *identity != newest.1 {
                line.give_up(*number, "Redis is another one than it was");
                same = false;
            }
        }
        if !same {
            return;
        }
        if self.missed.swap(false, Relaxed) {
            match self.address.in_cluster {
                // The channels of other nodes are none of its business.
                true => self.channels.wanted().into_iter().for_each(|channel| self.tell_missed(&channel)),
                false => self.tell(Event::MissedAll),
            }
        }
        match std::mem::replace(&mut *self.presence(), Presence::Here) {
            Presence::New => info!(redis = self.address.name(), "connected to another Redis"),
            Presence::Here => {}
            Presence::AwaySince(since) => {
                info!(redis = self.address.name(), after = ?since.elapsed(), "Redis is back");
            }
        }
    }

    fn tell_missed(&self, channel: &str) {
        self.tell(Event::Missed { channel: Bytes::copy_from_slice(channel.as_bytes()) });
    }

    fn tell(&self, event: Event) {
        if let Some(listener) = self.shared.listener.get() {
            listener(event);
        }
    }

    /// Whether what is published arrives; `None` where that cannot be tried.
    async fn probe(&self, number: u64) -> Option<bool> {
        if self.command.failure().is_some() || self.subscriber.failure().is_some() {
            return None;
        }
        let mut arrived = self.arrived.subscribe();
        let mut publish = cmd("PUBLISH");
        publish.arg(&*self.probe).arg(number);
        let there_and_back = async {
            self.command.ask::<u64>(&publish).await.is_ok()
                && arrived.wait_for(|it| *it >= number).await.is_ok()
        };
        Some(timeout(PROBE_TIMEOUT, there_and_back).await.unwrap_or(false))
    }

    /// Whether the connection for large commands answers; `None` where it is busy with one, or not there.
    async fn ping_bulk(&self) -> Option<bool> {
        if !self.bulk.is_idle() || self.bulk.failure().is_some() {
            return None;
        }
        Some(timeout(PROBE_TIMEOUT, self.bulk.ask::<Value>(&cmd("PING"))).await.is_ok())
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().expect("nothing panics while it is locked")
    }

    fn lines(&self) -> [&Line; 3] {
        [&self.command, &self.bulk, &self.subscriber]
    }

    fn line(&self, role: Role) -> &Arc<Line> {
        match role {
            Role::Command => &self.command,
            Role::Bulk => &self.bulk,
            Role::Subscriber => &self.subscriber,
        }
    }
}

/// How often in a row something was missing, where what could not be tried tells nothing.
fn count_misses(before: u32, is_there: Option<bool>) -> u32 {
    match is_there {
        Some(true) => 0,
        Some(false) => before + 1,
        None => before,
    }
}

fn read_message(push: PushInfo) -> Option<(Bytes, Bytes)> {
    let [channel, payload] = <[Value; 2]>::try_from(push.data).ok()?;
    Some((read_bytes(channel)?, read_bytes(payload)?))
}

/// Some number: good enough for names and for waiting.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(())
}

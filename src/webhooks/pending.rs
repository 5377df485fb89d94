//! What is held back for a moment, so that many edits are told as one change, and a version together with the name that
//! it gets at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::event::{Event, Version, What};
use crate::name::DocumentName;

/// Of how many documents something is held back; beyond that, everything is told at once.
const MAX_DOCUMENTS: usize = 100_000;
/// How many users of one change are named.
const MAX_USERS: usize = 100;
/// After how many pauses a change is told although people go on.
const LONGEST: u32 = 10;

/// What is held back.
pub(super) struct Pending {
    pause: Duration,
    documents: HashMap<DocumentName, Held>,
}

/// What is held back of one document.
struct Held {
    first: Instant,
    last: Instant,
    /// When it was changed last, and by whom.
    changed: Option<(SystemTime, BTreeSet<Arc<str>>)>,
    versions: Vec<(SystemTime, Version)>,
}

impl Pending {
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, documents: HashMap::new() }
    }

    /// Takes an event, and answers which ones are to be told now.
    pub(super) fn take(&mut self, Event { document, at, what }: Event, now: Instant) -> Vec<Event> {
        match what {
            What::Changed { users } => {
                let told = self.make_space();
                self.hold(document, now).change(at, users);
                told
            }
            What::Saved(version) => {
                let told = self.make_space();
                self.hold(document, now).save(at, version);
                told
            }
            // What happened before it is told before it.
            What::Deleted { .. } => {
                let held = self.documents.remove_entry(&document);
                held.into_iter().flat_map(events).chain([Event { document, at, what }]).collect()
            }
            What::Began { .. } | What::Ended { .. } => vec![Event { document, at, what }],
        }
    }

    fn make_space(&mut self) -> Vec<Event> {
        if self.documents.len() < MAX_DOCUMENTS { Vec::new() } else { self.all() }
    }

    fn hold(&mut self, document: DocumentName, now: Instant) -> &mut Held {
        let new = Held { first: now, last: now, changed: None, versions: Vec::new() };
        let held = self.documents.entry(document).or_insert(new);
        held.last = now;
        held
    }

    /// What has been held back for long enough.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Event> {
        let (pause, longest) = (self.pause, self.pause.saturating_mul(LONGEST));
        let is_due = |held: &Held| now - held.last >= pause || now - held.first >= longest;
        self.documents.extract_if(|_, held| is_due(held)).flat_map(events).collect()
    }

    /// Everything that is held back.
    pub(super) fn all(&mut self) -> Vec<Event> {
        self.documents.drain().flat_map(events).collect()
    }
}

impl Held {
    fn change(&mut self, at: SystemTime, by: BTreeSet<Arc<str>>) {
        let (last, users) = self.changed.get_or_insert((at, BTreeSet::new()));
        *last = at;
        users.extend(by);
        while users.len() > MAX_USERS {
            users.pop_last();
        }
    }

    fn save(&mut self, at: SystemTime, version: Version) {
        match self.versions.iter_mut().find(|(_, held)| held.id == version.id) {
            Some((_, held)) => *held = version,
            None => self.versions.push((at, version)),
        }
    }
}

/// What is told of a document, in this order.
fn events((document, held): (DocumentName, Held)) -> Vec<Event> {
    let changed = held.changed.map(|(at, users)| (at, What::Changed { users }));
    let versions = held.versions.into_iter().map(|(at, version)| (at, What::Saved(version)));
    let all = changed.into_iter().chain(versions);
    all.map(|(at, what)| Event { document: document.clone(), at, what }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(document: &str, user: &str) -> Event {
        let what = What::Changed { users: [Arc::from(user)].into() };
        Event { document: DocumentName::new(document).unwrap(), at: SystemTime::now(), what }
    }

    fn saved(id: &str, name: Option<&str>) -> Event {
        let version = Version { id: id.to_owned(), name: name.map(str::to_owned), users: Vec::new() };
        Event { what: What::Saved(version), ..changed("letter", "") }
    }

    #[test]
    fn a_change_is_told_after_a_pause_and_at_the_latest_after_ten() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pending = Pending::new(Duration::from_secs(2));
        pending.take(changed("letter", "bob"), at(0));
        pending.take(changed("letter", "alice"), at(1_900));
        assert_eq!(pending.due(at(3_800)), []);
        let told = pending.due(at(3_900));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].what, What::Changed { users: ["alice", "bob"].map(Arc::from).into() });
        for second in 0..20 {
            pending.take(changed("letter", "bob"), at(4_000 + second * 1_000));
            assert_eq!(pending.due(at(4_000 + second * 1_000)), []);
        }
        pending.take(changed("letter", "bob"), at(23_999));
        assert_eq!(pending.due(at(24_000)).len(), 1);
        assert_eq!(pending.all(), []);
    }

    #[test]
    fn what_happened_before_a_deletion_is_told_before_it() {
        let (now, mut pending) = (Instant::now(), Pending::new(Duration::from_secs(2)));
        pending.take(saved("0-1", None), now);
        pending.take(saved("0-1", Some("sent")), now);
        pending.take(changed("letter", "bob"), now);
        pending.take(changed("poem", "bob"), now);
        let deleted = Event { what: What::Deleted { user: None }, ..changed("letter", "") };
        let told: Vec<_> = pending.take(deleted.clone(), now).into_iter().map(|event| event.what).collect();
        let before = [changed("letter", "bob"), saved("0-1", Some("sent"))].map(|event| event.what);
        assert_eq!(told, [&before[..], &[deleted.what]].concat());
        assert_eq!(pending.all().len(), 1, "the other document's");
    }

    #[test]
    fn a_bounded_number_of_users_is_named() {
        let (now, mut pending) = (Instant::now(), Pending::new(Duration::ZERO));
        for user in 0..1_000 {
            pending.take(changed("letter", &user.to_string()), now);
        }
        let What::Changed { users } = &pending.due(now)[0].what else { panic!("no change") };
        assert_eq!(users.len(), MAX_USERS);
    }
}

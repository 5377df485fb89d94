//! What went wrong with documents lately, for whoever looks after the server: the newest of each document, of a bounded
//! number of them. The log has all of it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::name::DocumentName;

/// Documents of which it is known. Where the store fails it is many at once, and all for the same reason.
const MAX_DOCUMENTS: usize = 256;
/// The most characters of a reason: those of libraries may hold whole statements.
const MAX_REASON: usize = 500;

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// What, as a sentence.
    pub reason: String,
}

/// The newest trouble of each document on this node.
#[derive(Default)]
pub struct Troubles(Mutex<HashMap<DocumentName, Trouble>>);

impl Troubles {
    /// Something went wrong with a document. Where there are too many, the oldest is forgotten.
    pub fn note(&self, document: &DocumentName, reason: impl ToString) {
        let reason = reason.to_string().chars().take(MAX_REASON).collect();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        let mut troubles = self.lock();
        if troubles.len() >= MAX_DOCUMENTS && !troubles.contains_key(document) {
            let oldest = troubles.iter().min_by_key(|(_, trouble)| trouble.time);
            let oldest = oldest.map(|(document, _)| document.clone());
            oldest.and_then(|document| troubles.remove(&document));
        }
        troubles.insert(document.clone(), Trouble { time, reason });
    }

    /// All of them, newest first.
    pub fn all(&self) -> Vec<(DocumentName, Trouble)> {
        let mut all: Vec<_> =
            self.lock().iter().map(|(document, trouble)| (document.clone(), trouble.clone())).collect();
        all.sort_by(|(a, one), (b, other)| other.time.cmp(&one.time).then_with(|| a.cmp(b)));
        all
    }

    /// That of one document, if there was any.
    pub fn of(&self, document: &DocumentName) -> Option<Trouble> {
        self.lock().get(document).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DocumentName, Trouble>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_is_known_and_the_oldest_forgotten() {
        let troubles = Troubles::default();
        let name = |n: usize| DocumentName::new(&format!("letter {n}")).unwrap();
        troubles.note(&name(0), "a full disk");
        troubles.lock().get_mut(&name(0)).unwrap().time = 1;
        troubles.note(&name(1), "a full disk");
        troubles.note(&name(1), "ä".repeat(10_000));
        assert_eq!(troubles.of(&name(1)).unwrap().reason, "ä".repeat(MAX_REASON));
        assert_eq!(troubles.all().last().unwrap().0, name(0));
        (2..=MAX_DOCUMENTS).for_each(|n| troubles.note(&name(n), "a full disk"));
        assert_eq!((troubles.all().len(), troubles.of(&name(0))), (MAX_DOCUMENTS, None));
    }
}

//! A real paper, edit by edit: `automerge-paper`, 259,778 edits.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde::Deserialize;
use yrs::{
    ClientID, Doc, GetString, OffsetKind, Options, ReadTxn, StateVector, Text, Transact, Update,
    updates::decoder::Decode,
};

use crate::update::ranges;

/// How many letters were ever typed.
pub(crate) const CLOCKS: u64 = 182_315;

/// The paper as updates.
pub(crate) struct Paper {
    /// One for each edit.
    pub edits: Vec<Vec<u8>>,
    /// All of it at once.
    pub whole: Vec<u8>,
    text: String,
}

#[derive(Deserialize)]
struct Trace {
    txns: Vec<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    /// Position, how many letters are removed there, and what is inserted.
    patches: Vec<(u32, u32, String)>,
}

impl Paper {
    pub(crate) fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/traces/automerge-paper.json.gz");
        let mut json = String::new();
        let file = File::open(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        GzDecoder::new(file).read_to_string(&mut json)?;
        let trace: Trace = serde_json::from_str(&json)?;
        let doc = doc();
        let text = doc.get_or_insert_text("text");
        let mut edits = Vec::new();
        for (position, removed, inserted) in trace.txns.iter().flat_map(|transaction| &transaction.patches) {
            let mut transaction = doc.transact_mut();
            text.remove_range(&mut transaction, *position, *removed);
            text.insert(&mut transaction, *position, inserted);
            edits.push(transaction.encode_update_v1());
        }
        let transaction = doc.transact();
        let whole = transaction.encode_state_as_update_v1(&StateVector::default());
        ensure!(clocks(&whole) == CLOCKS, "{} is not the paper that it was", path.display());
        Ok(Self { text: text.get_string(&transaction), edits, whole })
    }

    /// Whether the updates bring this paper, to the last letter.
    pub(crate) fn is_made_by(&self, updates: &[Vec<u8>]) -> Result<bool> {
        let doc = doc();
        let text = doc.get_or_insert_text("text");
        for update in updates {
            doc.transact_mut().apply_update(Update::decode_v1(update)?)?;
        }
        Ok(text.get_string(&doc.transact()) == self.text)
    }
}

fn doc() -> Doc {
    // Yjs makes ids of 32 bits, yrs larger ones, which every block would repeat.
    let client_id = ClientID::new(0xcafe_f00d);
    Doc::with_options(Options { client_id, offset_kind: OffsetKind::Utf16, ..Options::default() })
}

/// How many clocks an update of text brings.
pub(crate) fn clocks(update: &[u8]) -> u64 {
    let mut clocks = 0;
    ranges(update, |_, _, length| clocks += length).expect("an update of text");
    clocks
}

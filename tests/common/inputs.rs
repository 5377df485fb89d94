//! The inputs that are known to harm a server that gives them to yrs: those of `tests/data/hostile`, and larger
//! ones that are made here as its README says.

use bytes::Bytes;
use quire::{lib0, protocol};

/// One attack on a fresh document.
pub struct Input {
    /// What it is.
    pub label: String,
    /// What its bytes are.
    pub kind: Kind,
    /// Its bytes: one update after the other, or one state vector.
    pub parts: Vec<Vec<u8>>,
}

/// What an attack's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Update,
    StateVector,
}

impl Input {
    /// The frames of a client that sends it.
    pub fn frames(&self) -> impl Iterator<Item = Bytes> {
        self.parts.iter().map(|part| match self.kind {
            Kind::Update => protocol::update(part),
            Kind::StateVector => {
                let mut frame = vec![0, 0];
                lib0::write_bytes(&mut frame, part);
                frame.into()
            }
        })
    }
}

/// All of them.
pub fn all() -> Vec<Input> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hostile/updates.tsv");
    let table = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let columns: Vec<_> = line.split('\t').collect();
        let kind = if columns[1] == "state_vector_v1" { Kind::StateVector } else { Kind::Update };
        Input { label: columns[0].to_owned(), kind, parts: columns[2].split(' ').map(decode_hex).collect() }
    };
    let mut inputs: Vec<_> = table.lines().skip(1).map(row).collect();
    let mut add = |label: &str, kind, parts| inputs.push(Input { label: label.to_owned(), kind, parts });
    for depth in [6_200, 30_000, 1_000_000] {
        add(&format!("values nested {depth} deep"), Kind::Update, vec![nested_values(depth)]);
    }
    for bytes in [1_001, 1_000_000] {
        let guid = subdocument(&vec![b'g'; bytes], &[118, 0]);
        add(&format!("a subdocument with a guid of {bytes} bytes"), Kind::Update, vec![guid]);
    }
    for depth in [64, 6_200, 1_000_000] {
        let meta = [&[118, 1, 4, b'm', b'e', b't', b'a'][..], &[117, 1].repeat(depth), &[126]].concat();
        let label = format!("a subdocument with options nested {depth} deep");
        add(&label, Kind::Update, vec![subdocument(b"g", &meta)]);
    }
    add("a subdocument with 50,000 options", Kind::Update, vec![subdocument(b"g", &many_options(50_000))]);
    add("100,000 subdocuments, and all of them deleted", Kind::Update, many_subdocuments(100_000));
    for depth in [101, 3_000, 8_000, 100_000] {
        add(&format!("types nested {depth} deep"), Kind::Update, vec![nested_types(depth)]);
    }
    for clients in [50_000, 100_000, 500_000] {
        add(
            &format!("a state vector of {clients} clients that collide"),
            Kind::StateVector,
            vec![colliding_clients(clients)],
        );
    }
    for clients in [4_096, 20_000, 100_000] {
        add(&format!("a chain of {clients} clients"), Kind::Update, vec![origin_chain(0..clients)]);
    }
    let chain = (0..5).map(|part| origin_chain(part * 4_000..(part + 1) * 4_000)).collect();
    add("a chain of 20,000 clients in five parts", Kind::Update, chain);
    add("4,096 clients at one place", Kind::Update, vec![same_place(0..4_096)]);
    let at_one_place = (0..4).map(|part| same_place(part * 4_000..(part + 1) * 4_000)).collect();
    add("16,000 clients at one place in four parts", Kind::Update, at_one_place);
    add("4,096 clients under one key", Kind::Update, vec![same_key(4_096)]);
    add("200,000 deletions of what is not there", Kind::Update, vec![many_deletions(200_000)]);
    add("200,000 collected blocks", Kind::Update, vec![collected_blocks(200_000)]);
    add("5,000,000 collected blocks", Kind::Update, vec![collected_blocks(5_000_000)]);
    inputs
}

fn decode_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// One array value in another, and so on.
fn nested_values(depth: usize) -> Vec<u8> {
    let mut update = vec![1, 1, 1, 0, 8, 1, 1, b't', 1];
    update.extend([117, 1].repeat(depth));
    update.extend([126, 0]);
    update
}

/// A subdocument in an array.
fn subdocument(guid: &[u8], options: &[u8]) -> Vec<u8> {
    let mut update = vec![1, 1, 1, 0, 9, 1, 1, b't'];
    lib0::write_bytes(&mut update, guid);
    update.extend(options);
    update.push(0);
    update
}

fn many_options(count: u64) -> Vec<u8> {
    let mut options = vec![118];
    lib0::write_uint(&mut options, count);
    for number in 0..count {
        lib0::write_bytes(&mut options, format!("{number}").as_bytes());
        options.push(126);
    }
    options
}

/// So many subdocuments in an array, one behind the other; and their deletion.
fn many_subdocuments(count: u64) -> Vec<Vec<u8>> {
    let mut update = vec![1];
    lib0::write_uint(&mut update, count);
    update.extend([1, 0]);
    for clock in 0..count {
        match clock {
            0 => update.extend([9, 1, 1, b't']),
            _ => {
                update.extend([0x89, 1]);
                lib0::write_uint(&mut update, clock - 1);
            }
        }
        update.extend([1, b'g', 118, 0]);
    }
    update.push(0);
    let mut deletion = vec![0, 1, 1, 1, 0];
    lib0::write_uint(&mut deletion, count);
    vec![update, deletion]
}

/// One shared array in another, and so on.
fn nested_types(depth: usize) -> Vec<u8> {
    let mut update = vec![1];
    lib0::write_uint(&mut update, depth as u64);
    update.extend([1, 0, 7, 1, 1, b't', 0]);
    for clock in 0..depth as u64 - 1 {
        update.extend([7, 0, 1]);
        lib0::write_uint(&mut update, clock);
        update.push(0);
    }
    update.push(0);
    update
}

/// A state vector whose clients all fall into one place of yrs's hash table.
fn colliding_clients(count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    lib0::write_uint(&mut bytes, count);
    for client in 0..count {
        lib0::write_uint(&mut bytes, (client << 32) & lib0::MAX_SAFE_INTEGER);
        bytes.push(1);
    }
    bytes
}

/// An update with one letter of each client, whose place `write` says.
fn letters(clients: std::ops::Range<u64>, write: impl Fn(&mut Vec<u8>, u64)) -> Vec<u8> {
    let mut update = Vec::new();
    lib0::write_uint(&mut update, clients.end - clients.start);
    for client in clients {
        update.push(1);
        lib0::write_uint(&mut update, client + 1);
        update.push(0);
        write(&mut update, client);
    }
    update.push(0);
    update
}

/// Each client's letter stands behind that of the client before it.
fn origin_chain(clients: std::ops::Range<u64>) -> Vec<u8> {
    letters(clients, |update, client| {
        match client {
            0 => update.extend([4, 1, 1, b't']),
            _ => {
                update.push(0x84);
                lib0::write_uint(update, client);
                update.push(0);
            }
        }
        update.extend([1, b'x']);
    })
}

/// All letters stand at the beginning.
fn same_place(clients: std::ops::Range<u64>) -> Vec<u8> {
    letters(clients, |update, _| update.extend([4, 1, 1, b't', 1, b'x']))
}

/// All values stand under one key.
fn same_key(clients: u64) -> Vec<u8> {
    letters(0..clients, |update, _| update.extend([0x28, 1, 1, b't', 1, b'k', 1, 120]))
}

fn many_deletions(count: u64) -> Vec<u8> {
    let mut update = vec![0, 1, 1];
    lib0::write_uint(&mut update, count);
    for index in 0..count {
        lib0::write_uint(&mut update, index * 2);
        update.push(1);
    }
    update
}

fn collected_blocks(count: usize) -> Vec<u8> {
    let mut update = vec![1];
    lib0::write_uint(&mut update, count as u64);
    update.extend([1, 0]);
    update.extend([0, 1].repeat(count));
    update.push(0);
    update
}

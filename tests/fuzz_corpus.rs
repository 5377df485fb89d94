//! What a fuzzer once found, and a short run of it from fixed seeds. `./dev fuzz` is the long one.

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;

use std::{fs, path::Path, thread};

use quire::lib0::write_bytes;

/// Sequences of updates from a seed.
const SEQUENCES: u64 = 10_000;
/// Real sessions with some bytes changed, from a seed.
const MUTATED: u64 = 1_000;
/// Decisions in one sequence.
const CHOICES: usize = 1_000;
/// As much as the server's threads have.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// Runs something on a thread like the server's.
fn with_stack(run: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Numbers that look random: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(count).collect()
    }
}

/// Says which seed it was when something fails.
struct Seed(&'static str, u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("this was {} with seed {}", self.0, self.1);
        }
    }
}

#[test]
fn what_was_found_once_is_harmless() {
    with_stack(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz");
        for (target, body) in bodies::TARGETS {
            let Ok(files) = fs::read_dir(folder.join(target)) else { continue };
            for file in files {
                let path = file.unwrap().path();
                eprintln!("{}", path.display());
                body(&fs::read(path).unwrap());
            }
        }
    });
}

#[test]
fn sequences_of_nearly_right_updates_are_harmless() {
    let (first, runs) = seeds(SEQUENCES);
    with_stack(move || {
        for seed in first..first + runs {
            let _said = Seed("a sequence", seed);
            let mut random = Random(seed);
            let len = 1 + random.below(CHOICES);
            bodies::document(&random.bytes(len));
        }
    });
}

#[test]
fn changed_bytes_of_a_real_session_are_harmless() {
    let (first, runs) = seeds(MUTATED);
    with_stack(move || {
        let session = bodies::split(bodies::SESSION);
        for seed in first..first + runs {
            let _said = Seed("a mutated session", seed);
            let mut random = Random(seed);
            let mut bytes = Vec::new();
            for update in &session {
                let mut update = update.to_vec();
                if random.below(8) == 0 {
                    mutate(&mut update, bodies::SESSION, &mut random);
                }
                write_bytes(&mut bytes, &update);
            }
            bodies::mutated(&bytes);
        }
    });
}

#[test]
fn nearly_right_frames_of_each_dialect_are_harmless() {
    let (first, runs) = seeds(SEQUENCES);
    with_stack(move || {
        for seed in first..first + runs {
            let _said = Seed("frames of a dialect", seed);
            let mut random = Random(seed);
            let mut bytes = vec![seed as u8];
            for _ in 0..2 + random.below(30) {
                let mut frame = if seed % 3 == 1 { b"\x01d".to_vec() } else { Vec::new() };
                match random.below(8) {
                    0 => frame.extend([0, 0, 1, 0]),
                    1 => frame.extend([0, 1, 2, 0, 0]),
                    2 | 3 => frame.extend(b"\0\x02\x0f\x01\x01\x07\x00\x04\x01\x01t\x05hello\x00"),
                    4 => frame.extend([102, 1, random.below(128) as u8]),
                    5 => frame.extend(b"\x02\0\x03tok"),
                    6 => frame.extend(b"\x05\x02hi"),
                    _ => frame.extend([1, 1, 0]),
                }
                if random.below(4) == 0 {
                    mutate(&mut frame, bodies::SESSION, &mut random);
                }
                write_bytes(&mut bytes, &frame);
            }
            bodies::dialect(&bytes);
        }
    });
}

#[test]
fn nearly_right_websocket_frames_are_read_as_the_library_reads_them() {
    let (first, runs) = seeds(SEQUENCES);
    for seed in first..first + runs {
        let _said = Seed("WebSocket frames", seed);
        let mut random = Random(seed);
        let mut bytes = vec![random.next() as u8];
        // Whether a message has begun that is not whole.
        let mut begun = false;
        for _ in 0..1 + random.below(12) {
            let (opcode, is_last) = match random.below(16) {
                0 | 1 => (9, true),
                2 => (10, true),
                3 if random.below(4) == 0 => (8, true),
                4 => (random.below(16) as u8, random.below(2) == 0),
                _ => (if begun { 0 } else { 1 + random.below(2) as u8 }, random.below(3) > 0),
            };
            begun = if opcode < 8 { !is_last } else { begun };
            let length = match random.below(12) {
                0 => 126 + random.below(500),
                1 => random.below(3),
                _ => random.below(20),
            };
            let payload = match opcode {
                8 if random.below(3) > 0 => {
                    let code: u16 =
                        [1000, 1001, 1002, 1005, 1006, 1015, 3000, 4400, 999, 5000][random.below(10)];
                    [&code.to_be_bytes()[..], b"why"].concat()
                }
                1 => vec![b'a' + (seed % 26) as u8; length],
                _ => random.bytes(length),
            };
            bytes.extend(masked_frame(opcode, is_last, &payload, &mut random));
        }
        if random.below(2) == 0 {
            mutate(&mut bytes, bodies::SESSION, &mut random);
        }
        bodies::websocket(&bytes);
    }
}

/// A client's frame; now and then its length is written longer than it must be.
fn masked_frame(opcode: u8, is_last: bool, payload: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = vec![opcode | if is_last { 0x80 } else { 0 }];
    match payload.len() {
        length @ 0..126 if random.below(8) > 0 => frame.push(0x80 | length as u8),
        length if random.below(4) > 0 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let mask = random.bytes(4);
    frame.extend(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Changes some bytes, or takes some out, or puts some in, of their own kind or from elsewhere.
fn mutate(bytes: &mut Vec<u8>, others: &[u8], random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = bytes[at].wrapping_add(random.below(3) as u8).wrapping_sub(1),
            3 if bytes.len() > 1 => drop(bytes.remove(at)),
            4 => bytes.insert(at, random.below(8) as u8),
            _ => {
                let len = 1 + random.below(8);
                let from = random.below(others.len() - len);
                bytes.splice(at..(at + len).min(bytes.len()), others[from..from + len].iter().copied());
            }
        }
    }
}

/// The seeds: others than usual where the environment asks for them (`QUIRE_FUZZ=<first>..<end>`).
fn seeds(usual: u64) -> (u64, u64) {
    let Ok(asked) = std::env::var("QUIRE_FUZZ") else { return (0, usual) };
    let (first, end) = asked.split_once("..").expect("first..end");
    let first = first.parse().expect("a number");
    (first, end.parse::<u64>().expect("a number") - first)
}

//! How many instructions the hot paths take, counted by callgrind, which does not mind what else the machine does. Fails
//! where one takes notably more than `benches/instructions.txt` says.
//!
//! `./dev guard`, or `./dev guard --write` to write that file anew. It is built in the dev profile, like the tests: it need
//! not be as fast as a server, only always the same.

mod paths;

use std::{
    collections::BTreeMap,
    env, fs,
    hint::black_box,
    io::ErrorKind,
    path::Path,
    process::{Command, ExitCode},
};

use tempfile::TempDir;

use self::paths::{APPEND, ON_ONE_THREAD};

/// The same allocator as in the server.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The counts that were accepted: first the compilers, then a line for each path.
const ACCEPTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
/// How many per cent more or less make no difference.
const TOLERANCE: f64 = 5.0;

/// Counts by the name of the path.
type Counts = BTreeMap<String, u64>;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let is_told = |word: &str| arguments.iter().any(|argument| argument == word);
    if is_told("walk-one-thread") {
        let typed = paths::typed();
        for (_, walk) in ON_ONE_THREAD {
            walk(&typed);
            callgrind_writes();
        }
        return ExitCode::SUCCESS;
    }
    if is_told("walk-append") {
        APPEND.1(&paths::typed());
        return ExitCode::SUCCESS;
    }
    let (compilers, counts) = (compilers(), count());
    if is_told("--write") {
        let lines = counts.iter().map(|(path, count)| format!("{path} {count}\n"));
        let text = format!("{compilers}\n{}", lines.collect::<String>());
        fs::write(ACCEPTED, &text).expect("benches/instructions.txt can be written");
        print!("benches/instructions.txt is now:\n{text}");
        return ExitCode::SUCCESS;
    }
    compare(&compilers, &counts)
}

/// Runs what is counted. Callgrind knows it by its name.
#[inline(never)]
fn callgrind_counts(run: impl FnOnce()) {
    black_box(run)();
    // So that the call is not the last thing here, and callgrind sees it end.
    black_box(());
}

/// Where callgrind writes down what it has counted; it knows this by its name, too.
#[inline(never)]
fn callgrind_writes() {
    black_box(());
}

/// The instructions that each path takes.
fn count() -> Counts {
    let folder = TempDir::new().expect("a folder");
    let profile = |walk: &str, part: usize| folder.path().join(format!("{walk}.{part}"));
    let watch = |walk: &str, how: [&str; 2]| {
        let watched = Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
            .args(how)
            .arg(format!("--callgrind-out-file={}", folder.path().join(walk).display()))
            .arg(env::current_exe().expect("its own path"))
            .arg(walk)
            .status();
        match watched {
            Ok(watched) => assert!(watched.success(), "the hot paths ended with {watched}"),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("valgrind is missing, which counts the instructions: apt-get install valgrind")
            }
            Err(error) => panic!("valgrind cannot be started: {error}"),
        }
    };
    watch("walk-one-thread", ["--toggle-collect=*callgrind_counts*", "--dump-before=*callgrind_writes*"]);
    // Toggled, it counts only the thread in which the function is: so all is counted, and what was before put aside.
    watch("walk-append", ["--dump-before=*callgrind_counts*", "--dump-before=*callgrind_writes*"]);
    let walks =
        ON_ONE_THREAD.iter().enumerate().map(|(number, (name, _))| (*name, "walk-one-thread", number + 1));
    let walks = walks.chain([(APPEND.0, "walk-append", 2)]);
    walks.map(|(name, walk, part)| (name.to_owned(), sum(&profile(walk, part)))).collect()
}

/// The instructions of the program itself. Those of the C library are left out: which of its functions for memory and
/// text are taken depends on the processor.
fn sum(profile: &Path) -> u64 {
    let program = env::current_exe().expect("its own path");
    let profile = fs::read_to_string(profile).expect("callgrind writes down each path");
    let (mut is_own, mut is_call, mut sum) = (false, false, 0);
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_own = Path::new(object) == program;
        } else if line.starts_with("calls=") {
            // The next line tells what the callee took, which is told with the callee itself.
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            if is_own && !is_call {
                let count = line.split(' ').nth(1).and_then(|count| count.parse::<u64>().ok());
                sum += count.expect("a line of a profile has a place and a count");
            }
            is_call = false;
        }
    }
    sum
}

/// What made the program, and for which processors: other compilers make other instructions of the same code, and some
/// libraries do more at once where they can.
fn compilers() -> String {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok();
        let text = output.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
        text.lines().next().unwrap_or("unknown").to_owned()
    };
    #[cfg(target_arch = "x86_64")]
    let width = if is_x86_feature_detected!("avx2") { " with AVX2" } else { "" };
    #[cfg(not(target_arch = "x86_64"))]
    let width = "";
    format!("{}, {}, {}{width}", version("rustc"), version("cc"), env::consts::ARCH)
}

/// Says which paths became slower or faster, and fails where one became slower.
fn compare(compilers: &str, counts: &Counts) -> ExitCode {
    let text = fs::read_to_string(ACCEPTED).unwrap_or_default();
    let (made_by, lines) = text.split_once('\n').unwrap_or_default();
    let accepted = lines.lines().filter_map(|line| line.split_once(' '));
    let accepted: BTreeMap<_, u64> =
        accepted.filter_map(|(path, count)| Some((path, count.parse().ok()?))).collect();
    let (mut slower, mut outdated) = (false, accepted.len() != counts.len());
    for (path, &count) in counts {
        let Some(&before) = accepted.get(path.as_str()) else {
            outdated = true;
            println!("{path:<12} {count:>11}  is not in benches/instructions.txt");
            continue;
        };
        let change = 100.0 * (count as f64 / before as f64 - 1.0);
        let verdict = match change {
            change if change > TOLERANCE => "  SLOWER",
            change if change < -TOLERANCE => "  faster",
            _ => "",
        };
        slower |= change > TOLERANCE;
        outdated |= change < -TOLERANCE;
        println!("{path:<12} {count:>11}  {change:>+6.1} % of {before}{verdict}");
    }
    if made_by != compilers {
        println!(
            "These are other compilers than those of benches/instructions.txt, so a difference says nothing and is no \
             failure.\nHere:  {compilers}\nThere: {made_by}\nWrite it anew with those that CI has: ./dev guard --write"
        );
        return ExitCode::SUCCESS;
    }
    if slower {
        println!(
            "What is marked takes more than {TOLERANCE} % more instructions than benches/instructions.txt says. Look what \
             your change adds there\n(valgrind --tool=callgrind and callgrind_annotate tell the functions). Where it is \
             worth that: ./dev guard --write, commit\nthe file with the change, and say why."
        );
        return ExitCode::FAILURE;
    }
    if outdated {
        println!(
            "Keep what was won: ./dev guard --write, and commit benches/instructions.txt with your change."
        );
    }
    ExitCode::SUCCESS
}

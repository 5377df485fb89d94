//! Tells the binary from which commit it is built, for `quire --version`.

use std::process::Command;

fn main() {
    // Only what is given to others is built anew for each commit.
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        println!("cargo::rerun-if-changed=build.rs");
        return;
    }
    println!("cargo::rerun-if-changed=.git/logs/HEAD");
    let asked = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    // There is no repository in a package, and perhaps no git.
    if let Some(commit) = asked.ok().filter(|asked| asked.status.success())
        && let Ok(commit) = String::from_utf8(commit.stdout)
    {
        // Not a name that begins with QUIRE_: cargo gives it to what it runs, and the server refuses settings that it
        // does not know.
        println!("cargo::rustc-env=BUILT_FROM_COMMIT={}", commit.trim());
    }
}

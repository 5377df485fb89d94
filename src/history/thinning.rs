//! Which versions are kept: at first one each so often, as they grow old one an hour, a day, and a month.

use std::time::Duration;

use super::Version;

const MINUTE: u64 = 60 * 1_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// From which age on how much time lies between two versions, youngest first.
const STEPS: [(u64, u64); 3] = [(DAY, HOUR), (7 * DAY, DAY), (90 * DAY, 30 * DAY)];
/// Versions that are joined after one compaction at most.
const AT_ONCE: usize = 64;

/// Versions that are to become one, which is the last of each group. Those with a name stay, and so does the newest.
pub(super) fn too_close(versions: &[Version], every: Duration, now: u64) -> Vec<&[Version]> {
    let mut groups = Vec::new();
    let (mut begin, mut joined) = (0, 0);
    for (at, pair) in versions.windows(2).enumerate() {
        let [version, next] = pair else { break };
        let slot = |version: &Version| slot(version, every.as_millis() as u64, now);
        let stays = version.about.name.is_some() || slot(version) != slot(next);
        if stays || joined >= AT_ONCE {
            groups.push(&versions[begin..=at]);
            begin = at + 1;
        } else {
            joined += 1;
        }
    }
    groups.push(&versions[begin..]);
    groups.retain(|group| group.len() > 1);
    groups
}

/// Which version it is of those of its age, of which one is kept.
fn slot(version: &Version, every: u64, now: u64) -> (u64, u64) {
    let age = now.saturating_sub(version.about.end);
    let step = STEPS.iter().rev().find(|(from, _)| age >= *from).map_or(every, |(_, step)| *step).max(1);
    (step, version.about.end / step)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{backend::Position, history::segment::About};

    const NOW: u64 = 1_000 * DAY;

    fn version(number: u64, end: u64, name: Option<&str>) -> Version {
        let about = About { end, name: name.map(str::to_owned), ..About::default() };
        Version { id: Position { epoch: 0, number }, about }
    }

    fn left(mut versions: Vec<Version>) -> Vec<Version> {
        loop {
            let groups = too_close(&versions, Duration::from_secs(600), NOW);
            if groups.is_empty() {
                return versions;
            }
            let gone = groups.iter().flat_map(|group| group.split_last().unwrap().1);
            let gone: HashSet<Position> = gone.map(|version| version.id).collect();
            versions.retain(|version| !gone.contains(&version.id));
        }
    }

    #[test]
    fn a_year_of_versions_becomes_few_and_the_young_ones_stay() {
        // One every ten minutes.
        let all: Vec<_> =
            (0..365 * 24 * 6).map(|n| version(n, NOW - 365 * DAY + n * 10 * MINUTE, None)).collect();
        let left = left(all);
        let of_age = |from: u64, to: u64| {
            left.iter().filter(|version| (from..to).contains(&(NOW - version.about.end))).count()
        };
        assert_eq!(of_age(0, DAY), 24 * 6 - 1);
        assert!((144..=146).contains(&of_age(DAY, 7 * DAY)), "{}", of_age(DAY, 7 * DAY));
        assert!((82..=85).contains(&of_age(7 * DAY, 90 * DAY)), "{}", of_age(7 * DAY, 90 * DAY));
        assert!((9..=11).contains(&of_age(90 * DAY, 400 * DAY)), "{}", of_age(90 * DAY, 400 * DAY));
        assert_eq!(left.last().unwrap().id.number, 365 * 24 * 6 - 1);
    }

    #[test]
    fn what_has_a_name_stays() {
        let old = |n: u64, name| version(n, NOW - 200 * DAY + n, name);
        let left = left(vec![
            old(0, None),
            old(1, Some("draft")),
            old(2, None),
            old(3, Some("final")),
            old(4, None),
        ]);
        let numbers: Vec<_> = left.iter().map(|version| version.id.number).collect();
        assert_eq!(numbers, [1, 3, 4]);
    }
}

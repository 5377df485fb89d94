//! What came of the runs, as one table: for people, and as JSON.

use std::fmt;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{figures::Figures, load::Scenario, servers::Server};

/// All rows, a scenario's together.
pub(crate) struct Table {
    pub rows: Vec<Row>,
}

/// A server in a scenario.
pub(crate) struct Row {
    pub scenario: Scenario,
    pub server: Server,
    pub outcome: Outcome,
}

/// What came of all runs of a server in a scenario.
pub(crate) enum Outcome {
    /// Medians; of what is missing, the most.
    Done(Figures),
    /// Why the first that failed did.
    Failed(String),
}

impl Outcome {
    pub(crate) fn of(runs: Vec<Result<Figures, String>>) -> Self {
        let runs: Vec<_> = match runs.into_iter().collect() {
            Ok(runs) => runs,
            Err(reason) => return Self::Failed(reason),
        };
        let names = runs[0].keys();
        Self::Done(names.map(|name| (name.clone(), middle(name, runs.iter().map(|run| run[name])))).collect())
    }
}

fn middle(name: &str, values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    if name == "missing" { values[values.len() - 1] } else { values[values.len() / 2] }
}

/// What the table says of a scenario: its title, and its figures with their units. The first is compared.
fn columns(scenario: Scenario) -> (&'static str, &'static [(&'static str, &'static str)]) {
    const FAN_OUT: &[(&str, &str)] = &[
        ("cpu_us_per_delivery", "µs CPU per delivery"),
        ("p50_ms", "ms p50"),
        ("p99_ms", "ms p99"),
        ("memory_mb", "MB"),
    ];
    const DOCUMENTS: &[(&str, &str)] = &[
        ("cpu_us_per_update", "µs CPU per update"),
        ("p50_ms", "ms p50"),
        ("p99_ms", "ms p99"),
        ("kib_per_document", "KiB per document with its two sessions"),
        ("joins_per_second", "joins/s"),
    ];
    const IDLE: &[(&str, &str)] = &[
        ("kib_per_session", "KiB per session"),
        ("sessions", "sessions"),
        ("joins_per_second", "joins/s"),
        ("cpu_us_per_join", "µs CPU per join"),
        ("idle_cpu_percent", "% of a core while idle"),
    ];
    const JOIN: &[(&str, &str)] = &[
        ("all_ms", "ms until all have it"),
        ("p50_ms", "ms p50"),
        ("cpu_ms", "ms CPU"),
        ("kb_per_join", "KB each"),
        ("memory_mb", "MB"),
    ];
    const PRESENCE: &[(&str, &str)] = &[
        ("cpu_us_per_move_and_reader", "µs CPU per move and reader"),
        ("p50_ms", "ms p50"),
        ("p99_ms", "ms p99"),
        ("seen_percent", "% of the moves seen"),
        ("memory_mb", "MB"),
    ];
    match scenario {
        Scenario::FanOut10 => ("fan-out, 10 members, 200 updates/s", FAN_OUT),
        Scenario::FanOut100 => ("fan-out, 100 members, 100 updates/s", FAN_OUT),
        Scenario::FanOut500 => ("fan-out, 500 members, 20 updates/s", FAN_OUT),
        Scenario::Ramp => (
            "highest rate at 100 members with p99 under 100 ms",
            &[
                ("updates_per_second", "updates/s"),
                ("deliveries_per_second", "deliveries/s"),
                ("cpu_us_per_delivery", "µs CPU per delivery"),
                ("p99_ms", "ms p99"),
                ("server_cpu_percent", "% of the server's core"),
                ("generator_cpu_percent", "% of the generator's"),
            ],
        ),
        Scenario::Documents1000 => ("1,000 documents, 2 people each, 1 update/s each", DOCUMENTS),
        Scenario::Documents5000 => ("5,000 documents, 2 people each, 1 update/s each", DOCUMENTS),
        Scenario::Idle5000 => ("5,000 idle sessions in 500 documents", IDLE),
        Scenario::Idle20000 => ("20,000 idle sessions in 500 documents", IDLE),
        Scenario::Paper | Scenario::JoinCold => ("the first joins a paper of 260,000 edits", JOIN),
        Scenario::Join50 => ("50 join it at once", JOIN),
        Scenario::Join200 => ("200 join it at once", JOIN),
        Scenario::Typing => (
            "the paper, typed",
            &[("cpu_us_per_edit", "µs CPU per edit"), ("seconds", "s"), ("grown_mb", "MB more")],
        ),
        Scenario::SlowReader => (
            "20 readers, 1 MiB/s, one stops reading",
            &[
                ("p99_ms", "ms p99 of the others"),
                ("before_p99_ms", "ms before"),
                ("grown_mb", "MB more"),
                ("written_mb", "MB were written"),
                ("catch_up_ms", "ms to catch up"),
                ("sent_away", "sent away"),
                ("cpu_percent", "% of a core"),
            ],
        ),
        Scenario::Churn => (
            "64 join and leave, 100 documents of 3,000 letters",
            &[
                ("cpu_us_per_join", "µs CPU per join"),
                ("joins_per_second", "joins/s"),
                ("p50_ms", "ms p50"),
                ("p99_ms", "ms p99"),
                ("memory_mb", "MB"),
            ],
        ),
        Scenario::Presence100 => ("100 people who move, once a second each", PRESENCE),
        Scenario::Presence500 => ("500 people who move, once a second each", PRESENCE),
        Scenario::Presence1000 => ("1,000 people who move, five times a second each", PRESENCE),
        Scenario::Saved => (
            "\"saved\", 100 documents, 1,000 updates/s",
            &[("p50_ms", "ms p50"), ("p99_ms", "ms p99"), ("cpu_us_per_update", "µs CPU per update")],
        ),
        Scenario::TwoNodes => ("fan-out, 100 members on two nodes over Redis, 100 updates/s", FAN_OUT),
    }
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// How many times Quire's figure a row's is, in what its scenario compares.
    fn ratio(&self, row: &Row) -> Option<f64> {
        let (name, _) = columns(row.scenario).1[0];
        let quire =
            self.rows.iter().find(|other| other.scenario == row.scenario && other.server == Server::Quire)?;
        match (&row.outcome, &quire.outcome) {
            (Outcome::Done(figures), Outcome::Done(quire)) => Some(figures[name] / quire[name]),
            _ => None,
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let row = |row: &Row| {
            let (figures, failure) = match &row.outcome {
                Outcome::Done(figures) => (json!(figures), Value::Null),
                Outcome::Failed(reason) => (Value::Null, json!(reason)),
            };
            json!({
                "scenario": row.scenario.to_possible_value().expect("no value is hidden").get_name(),
                "server": row.server.title(),
                "figures": figures,
                "failure": failure,
                "ratio": self.ratio(row),
            })
        };
        self.rows.iter().map(row).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Scenario | Server | Figures (the first is compared) | Times Quire's |")?;
        writeln!(f, "|---|---|---|---|")?;
        let mut last = None;
        for row in &self.rows {
            let (title, columns) = columns(row.scenario);
            let title = if last == Some(row.scenario) { "" } else { title };
            last = Some(row.scenario);
            let ratio = self.ratio(row).map_or_else(|| "–".to_owned(), number);
            let cell = match &row.outcome {
                Outcome::Done(figures) => {
                    let mut parts: Vec<_> = columns
                        .iter()
                        .map(|(name, unit)| format!("{} {unit}", number(figures[*name])))
                        .collect();
                    parts[0] = format!("**{}**", parts[0]);
                    let missing = figures.get("missing").copied().unwrap_or(0.0);
                    if missing > 0.0 {
                        parts.push(format!("**{} deliveries missing**", number(missing)));
                    }
                    parts.join(", ")
                }
                Outcome::Failed(reason) => {
                    format!("failed: {}", reason.lines().next().unwrap_or_default().replace('|', "/"))
                }
            };
            writeln!(f, "| {title} | {} | {cell} | {ratio} |", row.server.title())?;
        }
        Ok(())
    }
}

/// With as many digits as mean something.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..1.0 => format!("{value:.2}"),
        ..10.0 => format!("{value:.1}"),
        ..10_000.0 => format!("{value:.0}"),
        _ => {
            let digits = format!("{value:.0}");
            let mut grouped = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
    }
}

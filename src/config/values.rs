//! How settings are written: seconds, bytes, counts, filters.

use std::time::Duration;

use bytesize::ByteSize;
use tracing_subscriber::EnvFilter;

/// A whole number of seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).map_err(|_| "a number of seconds is needed, such as 30".to_owned())
}

/// A whole number of seconds that something may take; 0 is for ever.
pub(super) fn seconds_at_most(text: &str) -> Result<Duration, String> {
    seconds(text).map(|time| if time.is_zero() { Duration::MAX } else { time })
}

/// A whole number of days.
pub(super) fn days(text: &str) -> Result<Duration, String> {
    let days: u32 = text.parse().map_err(|_| "a number of days is needed, such as 30".to_owned())?;
    Ok(Duration::from_secs(24 * 60 * 60) * days)
}

/// A number of bytes, also as `16MiB`; 0 is none, and means no limit.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "a number of bytes is needed, such as 65536 or 16MiB".to_owned())?;
    Ok(no_limit_for_zero(usize::try_from(size.as_u64()).unwrap_or(usize::MAX)))
}

/// A count; 0 is none, and means no limit.
pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse().map(no_limit_for_zero).map_err(|_| "a whole number is needed".to_owned())
}

fn no_limit_for_zero(number: usize) -> usize {
    if number == 0 { usize::MAX } else { number }
}

/// A filter as `tracing` reads it.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    match text.parse::<EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; examples: info, debug, quire=debug,warn")),
    }
}

/// A value in a file as it would stand on the command line.
pub(super) fn of_file(value: toml::Value) -> Vec<String> {
    match value {
        toml::Value::Array(values) => values.into_iter().flat_map(of_file).collect(),
        toml::Value::String(text) => vec![text],
        other => vec![other.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_whole_and_zero_is_no_limit() {
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(seconds_at_most("0"), Ok(Duration::MAX));
        assert_eq!(seconds_at_most("20"), Ok(Duration::from_secs(20)));
        assert!(seconds_at_most("-1").is_err() && seconds_at_most("soon").is_err());
    }

    #[test]
    fn days_are_whole_and_zero_is_no_time() {
        assert_eq!(days("0"), Ok(Duration::ZERO));
        assert_eq!(days("30"), Ok(Duration::from_secs(2_592_000)));
        assert!(days("4294967295").is_ok() && days("4294967296").is_err());
        assert!(days("1.5").is_err() && days("-1").is_err());
    }

    #[test]
    fn bytes_have_units_and_zero_is_no_limit() {
        assert_eq!(bytes("16MiB"), Ok(16 << 20));
        assert_eq!(bytes("65536"), Ok(65_536));
        assert_eq!(bytes("0"), Ok(usize::MAX));
        assert!(bytes("-1").is_err() && bytes("big").is_err());
    }
}

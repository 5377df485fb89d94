//! Where traces of edits go, and how many edits are traced.

use std::str::FromStr;

use clap::Args;
use reqwest::Url;

/// Where traces of edits go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Traces {
    /// Send traces of edits to this collector, over OTLP (http://127.0.0.1:4318); only in builds with the feature otlp
    #[arg(id = "otlp", long = "otlp", env = "QUIRE_OTLP", value_name = "URL", hide_env_values = true, value_parser = address)]
    pub url: Option<Url>,
    /// Which share of all edits is traced, from 0 to 1
    #[arg(
        id = "otlp-sample",
        long = "otlp-sample",
        env = "QUIRE_OTLP_SAMPLE",
        value_name = "SHARE",
        default_value = "0.01"
    )]
    pub sample: Share,
}

/// A share of something: a number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

// It is always a number.
impl Eq for Share {}

impl Share {
    /// This share, if it is one.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for Share {
    fn default() -> Self {
        Self(0.01)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = text.parse().ok().and_then(Self::new);
        share.ok_or_else(|| "a number from 0 to 1 is needed, such as 0.01".to_owned())
    }
}

fn address(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        _ => Err("an address like http://127.0.0.1:4318 is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        assert_eq!("0".parse::<Share>().map(Share::get), Ok(0.0));
        assert_eq!("1".parse::<Share>().map(Share::get), Ok(1.0));
        assert_eq!("0.01".parse(), Ok(Share::default()));
        for text in ["-0.1", "1.1", "NaN", "inf", "1%", ""] {
            assert!(text.parse::<Share>().is_err_and(|error| error.contains("from 0 to 1")), "{text}");
        }
    }
}

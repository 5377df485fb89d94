//! The address that is told: how a notification is signed and sent (Standard Webhooks), and when it is tried again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use reqwest::{Client, StatusCode, Url, header, redirect::Policy};

/// How long an answer may take.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// After how many seconds it is tried again, each time (Standard Webhooks, "Retries"); then it is given up.
const AGAIN_AFTER: [u64; 9] =
    [5, 5 * 60, 30 * 60, 2 * 60 * 60, 5 * 60 * 60, 10 * 60 * 60, 14 * 60 * 60, 20 * 60 * 60, 24 * 60 * 60];

/// Who is told.
pub(super) struct Receiver {
    client: Client,
    url: Url,
    key: hmac::Key,
}

/// Why somebody was not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untold {
    /// It may go well another time.
    #[error("{0}")]
    Failed(String),
    /// The receiver wants to hear nothing more of it.
    #[error("it answered 410 Gone")]
    Unwanted,
}

impl Receiver {
    pub(super) fn new(url: Url, key: &[u8]) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .timeout(ANSWER_WITHIN)
            .redirect(Policy::none())
            .user_agent(concat!("quire/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, url, key: hmac::Key::new(hmac::HMAC_SHA256, key) })
    }

    /// The host, which is no secret, unlike the rest of an address.
    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Tells it once.
    pub(super) async fn tell(&self, id: &str, body: Bytes) -> Result<(), Untold> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", time)
            .header("webhook-signature", signature(&self.key, id, time, &body))
            .body(body);
        match request.send().await.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => Ok(()),
            Ok(StatusCode::GONE) => Err(Untold::Unwanted),
            Ok(status) => Err(Untold::Failed(format!("it answered {status}"))),
            Err(error) => Err(Untold::Failed(reason(error))),
        }
    }
}

/// What went wrong, without the address.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        reason = format!("{reason}: {error}");
        source = error.source();
    }
    reason
}

/// The signature of a notification that is sent at this time, in seconds since 1970.
fn signature(key: &hmac::Key, id: &str, time: u64, body: &[u8]) -> String {
    let signed = [format!("{id}.{time}.").as_bytes(), body].concat();
    format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(key, &signed)))
}

/// After how long a notification is tried again that was tried so often in vain; none where it is given up. It takes up
/// to a tenth longer, so that what failed together does not come together.
pub(super) fn again_after(tries: u32) -> Option<Duration> {
    let seconds = *AGAIN_AFTER.get(usize::try_from(tries).ok()?.checked_sub(1)?)?;
    let random = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    Some(Duration::from_secs(seconds).mul_f64(1.0 + random / 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_specification() {
        // The example of the reference libraries' own tests.
        let key = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn what_fails_is_tried_again_ten_times_in_all() {
        let all: Vec<Duration> = (1..).map_while(again_after).collect();
        assert_eq!(all.len(), 9);
        for (after, seconds) in all.iter().zip(AGAIN_AFTER) {
            let (least, most) = (Duration::from_secs(seconds), Duration::from_secs(seconds).mul_f64(1.1));
            assert!((least..=most).contains(after), "{after:?} for {seconds} s");
        }
        assert_eq!(again_after(0), None);
    }
}

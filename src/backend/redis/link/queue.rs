//! The queue of notifications, which all nodes share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    super::super::{Again, CLAIMED_FOR, Exchange, Exchanged, Notification},
    commands::Commands,
    line::Failure,
};

/// When each is due, what it says, and how often it was tried: in one slot of a cluster.
const KEYS: [&str; 3] = ["quire:{webhooks}:due", "quire:{webhooks}:bodies", "quire:{webhooks}:tries"];

/// Id, body and tries of each.
type Claimed = Vec<(String, Vec<u8>, u32)>;

impl Commands {
    pub(super) async fn exchange(&self, exchange: &Exchange) -> Result<Exchanged, Failure> {
        let Exchange { add, most, remove, again, claim } = exchange;
        let bytes = add.iter().map(|new| new.id.len() + new.body.len() + 16).sum::<usize>();
        let mut call = self.scripts.exchange.call(&KEYS, bytes + 64 * (remove.len() + again.len()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = |after: Duration| (now + after).as_millis() as u64;
        call.arg(at(Duration::ZERO)).arg(at(CLAIMED_FOR)).arg(most).arg(claim);
        call.arg(remove.len()).arg(again.len()).arg(remove);
        for Again { id, tries, after } in again {
            call.arg(id).arg(at(*after)).arg(tries);
        }
        for Notification { id, body, .. } in add {
            call.arg(id).arg(&**body);
        }
        let (dropped, waiting, claimed): (usize, usize, Claimed) =
            self.line(KEYS[0], bytes).run(&self.scripts.exchange, &call).await?;
        let claimed = claimed.into_iter();
        let claimed = claimed.map(|(id, body, tries)| Notification { id, body: body.into(), tries });
        Ok(Exchanged { dropped, claimed: claimed.collect(), waiting })
    }
}

//! Who is let in: how many connections there may be on this node and from one address, and how fast new ones may
//! come.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};
use ipnet::IpNet;

use super::{
    address::{Address, is_trusted},
    error::Problem,
};
use crate::{
    config::{Authentication, Limits},
    metrics::Metrics,
};

/// How many seconds' worth of new connections may come at once: everybody in a house comes back at the same moment.
const BURST_SECONDS: usize = 10;
/// When a node that is full is worth another try: places become free as people leave.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(5);
/// After so many requests the addresses are forgotten that have not come lately.
const FORGET_AFTER: usize = 4_096;

/// What is let in.
pub(crate) struct Admission {
    limits: Arc<Limits>,
    trusted_proxies: Vec<IpNet>,
    metrics: Arc<Metrics>,
    /// The connections that are no WebSockets, or not yet.
    plain: Arc<Mutex<Tally>>,
    websockets: Arc<Mutex<Tally>>,
    /// None where new connections are not limited.
    newcomers: Option<DefaultKeyedRateLimiter<Address>>,
    came: AtomicUsize,
}

/// How many connections there are.
#[derive(Debug, Default)]
struct Tally {
    all: usize,
    by_address: HashMap<Address, usize>,
}

/// A connection's place, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    tally: Arc<Mutex<Tally>>,
    address: Option<Address>,
}

/// Why somebody is not let in: the limit that is reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Connections(usize),
    ConnectionsPerAddress(usize),
    NewConnectionsPerAddress { limit: usize, wait: Duration },
}

impl Admission {
    pub(crate) fn new(limits: Arc<Limits>, authentication: &Authentication, metrics: Arc<Metrics>) -> Self {
        Self {
            newcomers: quota(limits.new_connections_per_address).map(DefaultKeyedRateLimiter::keyed),
            limits,
            trusted_proxies: authentication.trusted_proxies.clone(),
            metrics,
            plain: Arc::default(),
            websockets: Arc::default(),
            came: AtomicUsize::new(0),
        }
    }

    /// Whether a request came over TLS, as far as a trusted proxy says so.
    pub(crate) fn is_secure(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> bool {
        let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        is_https && peer.is_some_and(|peer| is_trusted(peer.to_canonical(), &self.trusted_proxies))
    }

    /// Lets a TCP connection in. One address may hold as many that are no WebSockets as it may hold WebSockets:
    /// nobody keeps the node's sockets for himself by sending nothing.
    pub(crate) fn admit_socket(&self, peer: IpAddr) -> Result<Place, Refusal> {
        let address = Address::of_peer(peer, &self.trusted_proxies);
        self.counted(take(&self.plain, address, usize::MAX, self.limits.connections_per_address))
    }

    /// Lets a WebSocket in. Where the peer is not known, only the node's own limit holds.
    pub(crate) fn admit_websocket(
        &self,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> Result<Place, Refusal> {
        let address = peer.and_then(|peer| Address::of_client(peer, headers, &self.trusted_proxies));
        let Limits { connections, connections_per_address, .. } = *self.limits;
        let came = address.map_or(Ok(()), |address| self.check_newcomer(address));
        self.counted(
            came.and_then(|()| take(&self.websockets, address, connections, connections_per_address)),
        )
    }

    /// The node's own limit of WebSockets, where it is reached.
    pub(crate) fn is_full(&self) -> Option<&'static str> {
        let limit = self.limits.connections;
        let all = self.websockets.lock().unwrap_or_else(PoisonError::into_inner).all;
        (all >= limit).then(|| Refusal::Connections(limit).flag())
    }

    fn check_newcomer(&self, address: Address) -> Result<(), Refusal> {
        let Some(newcomers) = &self.newcomers else { return Ok(()) };
        if self.came.fetch_add(1, Ordering::Relaxed) % FORGET_AFTER == FORGET_AFTER - 1 {
            newcomers.retain_recent();
            newcomers.shrink_to_fit();
        }
        newcomers.check_key(&address).map_err(|until| Refusal::NewConnectionsPerAddress {
            limit: self.limits.new_connections_per_address,
            wait: until.wait_time_from(DefaultClock::default().now()),
        })
    }

    fn counted(&self, admitted: Result<Place, Refusal>) -> Result<Place, Refusal> {
        admitted.inspect_err(|refusal| self.metrics.refused(refusal.flag()))
    }
}

/// So many a second, and a burst of them; none where there is no limit.
fn quota(per_second: usize) -> Option<Quota> {
    let at_least_one =
        |count: usize| NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
    let burst = at_least_one(per_second.saturating_mul(BURST_SECONDS));
    (per_second != usize::MAX).then(|| Quota::per_second(at_least_one(per_second)).allow_burst(burst))
}

/// Takes a place where there is one.
fn take(
    tally: &Arc<Mutex<Tally>>,
    address: Option<Address>,
    limit: usize,
    limit_per_address: usize,
) -> Result<Place, Refusal> {
    let mut counts = tally.lock().unwrap_or_else(PoisonError::into_inner);
    if counts.all >= limit {
        return Err(Refusal::Connections(limit));
    }
    if let Some(address) = address {
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= limit_per_address {
            return Err(Refusal::ConnectionsPerAddress(limit_per_address));
        }
        *of_address += 1;
    }
    counts.all += 1;
    Ok(Place { tally: tally.clone(), address })
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        let Some(address) = self.address else { return };
        if let Entry::Occupied(mut of_address) = counts.by_address.entry(address) {
            *of_address.get_mut() -= 1;
            if *of_address.get() == 0 {
                of_address.remove();
            }
        }
    }
}

impl Refusal {
    /// The limit's flag, as metrics name it.
    fn flag(&self) -> &'static str {
        match self {
            Self::Connections(_) => "max-connections",
            Self::ConnectionsPerAddress(_) => "max-connections-per-address",
            Self::NewConnectionsPerAddress { .. } => "max-new-connections-per-address",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let flag = self.flag();
        let (status, detail, wait) = match self {
            Self::Connections(limit) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("this node has {limit} connections, the most that it takes (--{flag})"),
                Some(FULL_RETRY_AFTER),
            ),
            Self::ConnectionsPerAddress(limit) => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "your address has {limit} connections, the most that one may have (--{flag}): close some"
                ),
                None,
            ),
            Self::NewConnectionsPerAddress { limit, wait } => (
                StatusCode::TOO_MANY_REQUESTS,
                format!("your address makes more than {limit} new connections a second (--{flag})"),
                Some(wait),
            ),
        };
        let problem = Problem::new(status, detail);
        match wait {
            // Whole seconds, and never before the time.
            Some(wait) => ([(header::RETRY_AFTER, wait.as_secs() + 1)], problem).into_response(),
            None => problem.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn admission(limits: Limits) -> Admission {
        let authentication =
            Authentication { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Default::default() };
        Admission::new(Arc::new(limits), &authentication, Arc::default())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let admission =
            admission(Limits { connections: 2, connections_per_address: 1, ..Default::default() });
        let enter = |peer: &str| admission.admit_websocket(Some(ip(peer)), &HeaderMap::new());
        let first = enter("203.0.113.1").unwrap();
        assert_eq!(enter("203.0.113.1").unwrap_err(), Refusal::ConnectionsPerAddress(1));
        let second = enter("203.0.113.2").unwrap();
        assert_eq!(enter("203.0.113.3").unwrap_err(), Refusal::Connections(2));
        drop(first);
        let first = enter("203.0.113.1").unwrap();
        drop((first, second));
        let tally = admission.websockets.lock().unwrap();
        assert_eq!((tally.all, tally.by_address.len()), (0, 0));
    }

    #[test]
    fn a_refused_one_leaves_nothing_behind() {
        let admission =
            admission(Limits { connections: 10, connections_per_address: 1, ..Default::default() });
        let enter = || admission.admit_websocket(Some(ip("203.0.113.1")), &HeaderMap::new());
        let place = enter().unwrap();
        assert!((0..20).all(|_| enter().is_err()));
        assert_eq!(admission.websockets.lock().unwrap().all, 1);
        drop(place);
        assert!(enter().is_ok());
    }

    #[test]
    fn a_proxy_and_an_unknown_peer_are_not_counted_as_one_address() {
        let limits =
            Limits { connections_per_address: 1, new_connections_per_address: 1, ..Default::default() };
        let admission = admission(limits);
        let enter = |peer| admission.admit_websocket(peer, &HeaderMap::new());
        let places: Vec<_> = [Some(ip("10.0.0.1")), None].into_iter().cycle().take(40).map(enter).collect();
        assert!(places.iter().all(Result::is_ok));
        let sockets: Vec<_> = (0..40).map(|_| admission.admit_socket(ip("10.0.0.1"))).collect();
        assert!(sockets.iter().all(Result::is_ok));
    }

    #[test]
    fn who_comes_too_fast_hears_when_to_come_again() {
        let admission = admission(Limits { new_connections_per_address: 1, ..Default::default() });
        let enter = |peer: &str| admission.admit_websocket(Some(ip(peer)), &HeaderMap::new());
        let let_in = (0..1_000).filter(|_| enter("203.0.113.1").is_ok()).count();
        // One more for each second that this took.
        assert!((10..30).contains(&let_in), "{let_in}");
        let response = enter("203.0.113.1").unwrap_err().into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert!(enter("203.0.113.2").is_ok());
    }

    #[test]
    fn addresses_that_do_not_come_again_are_forgotten() {
        // So many that one counts as recent for a microsecond.
        let admission = admission(Limits { new_connections_per_address: 1_000_000, ..Default::default() });
        for number in 0..3 * FORGET_AFTER as u32 {
            let peer = Ipv6Addr::from_bits((0x2001_0db8_0000_0000 + u128::from(number)) << 64);
            assert!(admission.admit_websocket(Some(peer.into()), &HeaderMap::new()).is_ok());
        }
        let remembered = admission.newcomers.as_ref().unwrap().len();
        assert!(remembered < 2 * FORGET_AFTER, "{remembered}");
    }
}

//! Whose connection it is: the address that limits count, also behind proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// What a proxy appends the address to from which it was reached.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Providers give every customer a network of this size, so one address in it says nothing.
const V6_NETWORK_BITS: u32 = 64;

/// Where somebody is: an IPv4 address, or a /64 network of IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Address(IpAddr);

impl Address {
    fn of(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(v6) => {
                let network = v6.to_bits() & (u128::MAX << (128 - V6_NETWORK_BITS));
                Ipv6Addr::from_bits(network).into()
            }
        })
    }

    /// Where the peer of a TCP connection is; nowhere where it is a trusted proxy, which speaks for many.
    pub(crate) fn of_peer(peer: IpAddr, trusted: &[IpNet]) -> Option<Self> {
        // A socket that takes both families gives IPv4 addresses as IPv6 ones.
        let peer = peer.to_canonical();
        (!is_trusted(peer, trusted)).then(|| Self::of(peer))
    }

    /// Where the client of a request is: the peer, or whom trusted proxies name. Nowhere where that is a trusted
    /// proxy itself.
    pub(crate) fn of_client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<Self> {
        let mut hop = peer.to_canonical();
        let named = headers.get_all(FORWARDED_FOR).iter();
        // A name that is no text is one that cannot be read.
        let named = named.flat_map(|value| value.to_str().unwrap_or("?").split(',')).map(str::trim);
        let mut named = named.filter(|name| !name.is_empty()).collect::<Vec<_>>().into_iter().rev();
        // Each hop names the one before it. What stands left of the first that is not trusted, that one may have
        // made up.
        while is_trusted(hop, trusted) {
            let name = named.next()?;
            match read(name) {
                Some(before) => hop = before,
                // Somebody whom the proxy cannot name. All of them are counted as one.
                None => return Some(Self::of(hop)),
            }
        }
        Some(Self::of(hop))
    }
}

/// Whether what this peer says of its clients is believed.
pub(crate) fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&ip))
}

/// Reads an address as proxies write it: alone, in brackets, or with a port.
fn read(name: &str) -> Option<IpAddr> {
    let with_port = || name.parse().map(|address: SocketAddr| address.ip()).ok();
    let in_brackets = || name.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    name.parse().ok().or_else(with_port).or_else(in_brackets).map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom a request counts for, where 10.0.0.0/8 and fd00::/8 are trusted.
    fn client(peer: &str, forwarded_for: &[&str]) -> Option<String> {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for value in forwarded_for {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let client = Address::of_client(peer.parse().unwrap(), &headers, &trusted);
        client.map(|Address(ip)| ip.to_string())
    }

    fn some(ip: &str) -> Option<String> {
        Some(ip.to_owned())
    }

    #[test]
    fn a_stranger_is_where_he_is_whatever_he_says() {
        assert_eq!(client("203.0.113.7", &[]), some("203.0.113.7"));
        assert_eq!(client("203.0.113.7", &["198.51.100.1"]), some("203.0.113.7"));
        assert_eq!(client("203.0.113.7", &["10.0.0.1"]), some("203.0.113.7"));
        assert_eq!(client("::ffff:203.0.113.7", &["10.0.0.1"]), some("203.0.113.7"));
    }

    #[test]
    fn a_trusted_proxy_names_its_client() {
        assert_eq!(client("10.0.0.1", &["203.0.113.7"]), some("203.0.113.7"));
        assert_eq!(client("::ffff:10.0.0.1", &["203.0.113.7"]), some("203.0.113.7"));
        assert_eq!(client("fd00::1", &["::ffff:203.0.113.7"]), some("203.0.113.7"));
        assert_eq!(client("10.0.0.1", &["203.0.113.7:50000"]), some("203.0.113.7"));
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:443"]), some("2001:db8::"));
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"]), some("2001:db8::"));
    }

    #[test]
    fn the_last_hop_that_is_not_trusted_counts() {
        // The client wrote the first one itself.
        assert_eq!(client("10.0.0.1", &["198.51.100.1, 203.0.113.7, 10.0.0.2"]), some("203.0.113.7"));
        assert_eq!(client("10.0.0.1", &["198.51.100.1", "203.0.113.7,10.0.0.2"]), some("203.0.113.7"));
        assert_eq!(client("10.0.0.1", &["10.0.0.9, 203.0.113.7 ,fd00::5"]), some("203.0.113.7"));
    }

    #[test]
    fn a_proxy_itself_is_nowhere() {
        assert_eq!(client("10.0.0.1", &[]), None);
        assert_eq!(client("fd00::1", &["", " , "]), None);
        assert_eq!(client("10.0.0.1", &["10.0.0.2, 10.0.0.3"]), None);
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        assert_eq!(Address::of_peer("::ffff:10.0.0.1".parse().unwrap(), &trusted), None);
        assert!(Address::of_peer("203.0.113.7".parse().unwrap(), &trusted).is_some());
    }

    #[test]
    fn whom_a_proxy_cannot_name_is_counted_with_the_others_of_whom_that_is_so() {
        assert_eq!(client("10.0.0.1", &["unknown"]), some("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &["203.0.113.7, unix:, 10.0.0.2"]), some("10.0.0.2"));
        assert_eq!(client("10.0.0.1", &["300.1.1.1"]), some("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &["fe80::1%eth0"]), some("10.0.0.1"));
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, axum::http::HeaderValue::from_bytes(b"\xff").unwrap());
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        assert!(Address::of_client("10.0.0.1".parse().unwrap(), &headers, &trusted).is_some());
    }

    #[test]
    fn an_ipv6_network_is_one_place() {
        let one = client("2001:db8:1:2:aaaa::1", &[]);
        assert_eq!(one, some("2001:db8:1:2::"));
        assert_eq!(one, client("10.0.0.1", &["2001:db8:1:2:bbbb::2"]));
        assert_ne!(one, client("2001:db8:1:3:aaaa::1", &[]));
        assert_ne!(client("203.0.113.7", &[]), client("203.0.113.8", &[]));
    }
}

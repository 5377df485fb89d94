//! Where Redis is, as a URL says it, and how a connection to it is made.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    PushInfo,
    aio::SendError,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::time::timeout;

use super::{checks::Obstacle, sentinel::Sentinels, wire::Wire};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Commands that wait to be written. Each is bounded in size, and leaves when its caller stops waiting.
const WAITING_COMMANDS: usize = 512;
/// Bytes that are written at once, at least where so many wait.
const WRITE_BYTES: usize = 64 * 1024;
/// Where Redis listens.
const PORT: u16 = 6_379;
/// Where a Sentinel listens.
const SENTINEL_PORT: u16 = 26_379;

/// What a URL leads to.
pub(super) enum Deployment {
    /// One Redis.
    One(Box<Address>),
    /// A cluster, of which these are some.
    Cluster(Vec<Address>),
}

/// Where a Redis is.
pub(super) struct Address {
    /// How to talk to it, and where it is unless somebody must be asked.
    node: ConnectionInfo,
    /// Who knows which Redis is the master.
    sentinels: Option<Sentinels>,
    /// Whether it is one of a cluster, whose channels are sharded.
    pub(super) in_cluster: bool,
}

/// Where what comes unasked goes. It never waits.
pub(super) type PushListener = Arc<dyn Fn(PushInfo) + Send + Sync>;

impl Deployment {
    /// Reads a URL, as [`Link::connect`](super::Link::connect) says it.
    pub(super) fn read(url: &str) -> Result<Self, Obstacle> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (scheme, kind) = scheme.split_once('-').unwrap_or((scheme, ""));
        if scheme == "rediss" {
            // Somebody else's choice of a provider is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        if kind.is_empty() {
            let address = Address { node: read_node(url)?, sentinels: None, in_cluster: false };
            return Ok(Self::One(Box::new(address)));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let at = authority.rfind('@').map_or(0, |at| at + 1);
        let (user, hosts) = authority.split_at(at);
        match kind {
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(Obstacle::Url(
                        "the master's name is missing behind the last host".to_owned(),
                    ));
                }
                let node = read_node(&format!("{scheme}://{user}sentinel/{database}"))?;
                let all = hosts.split(',').map(|host| read_node(&with_port(scheme, "", host, SENTINEL_PORT)));
                let sentinels = Sentinels::new(all.collect::<Result<_, _>>()?, master);
                Ok(Self::One(Box::new(Address { node, sentinels: Some(sentinels), in_cluster: false })))
            }
            "cluster" => {
                let node = |host| -> Result<_, Obstacle> {
                    let node = read_node(&with_port(scheme, user, host, PORT))?;
                    Ok(Address { node, sentinels: None, in_cluster: true })
                };
                Ok(Self::Cluster(hosts.split(',').map(node).collect::<Result<_, _>>()?))
            }
            _ => Err(Obstacle::Url(format!("there is no {scheme}-{kind}"))),
        }
    }

    /// The same as a person would write it, without its secrets.
    pub(super) fn name(&self) -> String {
        match self {
            Self::One(address) => address.name(),
            Self::Cluster(nodes) => nodes.iter().map(Address::name).collect::<Vec<_>>().join(", "),
        }
    }
}

impl Address {
    /// The same as a person would write it, without its secrets.
    pub(super) fn name(&self) -> String {
        match &self.sentinels {
            Some(sentinels) => sentinels.to_string(),
            None => self.node.addr().to_string(),
        }
    }

    /// Another Redis that is talked to in the same way. Without a host it is on the same one.
    pub(super) fn sibling(&self, host: &str, port: u16) -> Self {
        let node = self.node.clone().set_addr(sibling(self.node.addr(), host, port));
        Self { node, sentinels: None, in_cluster: self.in_cluster }
    }

    /// Whether new connections would go elsewhere than the last one.
    pub(super) async fn is_another(&self) -> bool {
        match &self.sentinels {
            Some(sentinels) => sentinels.has_another_master(&self.node).await,
            None => false,
        }
    }

    /// Makes a connection.
    pub(super) async fn connect(&self, listener: PushListener) -> Result<Wire, Obstacle> {
        let node = match &self.sentinels {
            Some(sentinels) => self.node.clone().set_addr(sentinels.master(&self.node).await?),
            None => self.node.clone(),
        };
        let address = node.addr().to_string();
        let client = Client::open(node)?;
        let config = AsyncConnectionConfig::new()
            // The client library has timeouts too, which would be a second timer for each call.
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(WAITING_COMMANDS)
            .set_write_backpressure_boundary(WRITE_BYTES)
            .set_push_sender(move |push| {
                listener(push);
                Ok::<_, SendError>(())
            });
        match timeout(CONNECT_TIMEOUT, client.get_multiplexed_async_connection_with_config(&config)).await {
            Ok(connection) => Ok(Wire { connection: connection?, sharded: self.in_cluster }),
            Err(_) => {
                Err(Obstacle::Unreachable(format!("{address} gives no answer within {CONNECT_TIMEOUT:?}")))
            }
        }
    }
}

/// The address of another Redis that is reached in the same way.
pub(super) fn sibling(address: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    match address.clone() {
        ConnectionAddr::Tcp(same, _) if host.is_empty() => ConnectionAddr::Tcp(same, port),
        ConnectionAddr::TcpTls { host: same, insecure, tls_params, .. } => {
            let host = if host.is_empty() { same } else { host.to_owned() };
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    }
}

fn with_port(scheme: &str, user: &str, host: &str, port: u16) -> String {
    match host.rsplit_once(':') {
        // Colons within brackets are an address's own.
        Some((_, after)) if !after.contains(']') => format!("{scheme}://{user}{host}"),
        _ => format!("{scheme}://{user}{host}:{port}"),
    }
}

/// How to talk to one Redis, or to one Sentinel.
fn read_node(url: &str) -> Result<ConnectionInfo, Obstacle> {
    let info = url.into_connection_info().map_err(|error| Obstacle::Url(error.to_string()))?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(Duration::from_secs(5));
    // What is heard comes over the same connection as answers only in the third protocol.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_tcp_settings(tcp).set_redis_settings(settings))
}

//! How much is taken from clients: each limit with its flag, its unit and its value unless told otherwise. No limit
//! is `usize::MAX`, or `Duration::MAX`.

use std::time::Duration;

use clap::Args;

use super::values::{bytes, count, seconds_at_most};

/// How much is taken from clients.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Limits {
    /// Largest WebSocket message from a client
    #[arg(id = "max-frame", long, env = "QUIRE_MAX_FRAME", value_name = "BYTES", default_value = "16MiB", value_parser = bytes)]
    pub frame_bytes: usize,
    /// Largest update from a client
    #[arg(id = "max-update", long, env = "QUIRE_MAX_UPDATE", value_name = "BYTES", default_value = "16MiB", value_parser = bytes)]
    pub update_bytes: usize,
    /// Largest document, as the update that holds all of it; then only deletions are taken
    #[arg(id = "max-document", long, env = "QUIRE_MAX_DOCUMENT", value_name = "BYTES", default_value = "128MiB", value_parser = bytes)]
    pub document_bytes: usize,
    /// Largest presence state (cursor, name, color) of one client
    #[arg(id = "max-presence", long, env = "QUIRE_MAX_PRESENCE", value_name = "BYTES", default_value = "64KiB", value_parser = bytes)]
    pub presence_bytes: usize,
    /// Most clients that are shown in one document; there may be more
    #[arg(id = "max-presences", long, env = "QUIRE_MAX_PRESENCES", value_name = "COUNT", default_value = "10000", value_parser = count)]
    pub presences: usize,
    /// Most WebSocket connections on this node
    #[arg(id = "max-connections", long, env = "QUIRE_MAX_CONNECTIONS", value_name = "COUNT", default_value = "50000", value_parser = count)]
    pub connections: usize,
    /// Most WebSocket connections of one user, on all nodes together
    #[arg(id = "max-connections-per-user", long, env = "QUIRE_MAX_CONNECTIONS_PER_USER", value_name = "COUNT", default_value = "5", value_parser = count)]
    pub connections_per_user: usize,
    /// Most WebSocket connections from one address to this node, and as many others; a trusted proxy's own are not counted
    #[arg(id = "max-connections-per-address", long, env = "QUIRE_MAX_CONNECTIONS_PER_ADDRESS", value_name = "COUNT", default_value = "1000", value_parser = count)]
    pub connections_per_address: usize,
    /// Most documents on one WebSocket connection, where clients may have several (Hocuspocus)
    #[arg(id = "max-documents-per-connection", long, env = "QUIRE_MAX_DOCUMENTS_PER_CONNECTION", value_name = "COUNT", default_value = "500", value_parser = count)]
    pub documents_per_connection: usize,
    /// Most new WebSocket connections from one address per second, ten times as many at once
    #[arg(id = "max-new-connections-per-address", long, env = "QUIRE_MAX_NEW_CONNECTIONS_PER_ADDRESS", value_name = "PER SECOND", default_value = "20", value_parser = count)]
    pub new_connections_per_address: usize,
    /// Most documents open on this node
    #[arg(id = "max-open-documents", long, env = "QUIRE_MAX_OPEN_DOCUMENTS", value_name = "COUNT", default_value = "100000", value_parser = count)]
    pub open_documents: usize,
    /// Most memory for open documents, estimated from their sizes: idle ones leave first
    #[arg(id = "max-memory", long, env = "QUIRE_MAX_MEMORY", value_name = "BYTES", default_value = "4GiB", value_parser = bytes)]
    pub memory_bytes: usize,
    /// Most messages from one connection per second, ten times as many at once; then it is read more slowly
    #[arg(id = "max-messages", long, env = "QUIRE_MAX_MESSAGES", value_name = "PER SECOND", default_value = "2000", value_parser = count)]
    pub messages_per_second: usize,
    /// Most bytes from one connection per second, ten times as many at once; then it is read more slowly
    #[arg(id = "max-bytes", long, env = "QUIRE_MAX_BYTES", value_name = "BYTES PER SECOND", default_value = "4MiB", value_parser = bytes)]
    pub bytes_per_second: usize,
    /// How long a connection may take to its first message
    #[arg(id = "first-message-within", long, env = "QUIRE_FIRST_MESSAGE_WITHIN", value_name = "SECONDS", default_value = "20", value_parser = seconds_at_most)]
    pub first_message_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 16 << 20,
            update_bytes: 16 << 20,
            document_bytes: 128 << 20,
            presence_bytes: 64 << 10,
            presences: 10_000,
            connections: 50_000,
            connections_per_user: 5,
            connections_per_address: 1_000,
            documents_per_connection: 500,
            new_connections_per_address: 20,
            open_documents: 100_000,
            memory_bytes: 4 << 30,
            messages_per_second: 2_000,
            bytes_per_second: 4 << 20,
            first_message_within: Duration::from_secs(20),
        }
    }
}

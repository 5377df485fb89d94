//! Why a session stopped; each reason has one WebSocket close code.
//!
//! 44xx: do not come back unchanged. 45xx and others: come back later.

/// Why a session stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The client closed the connection, or it was lost.
    Left,
    /// What the client sent breaks a rule: it would be refused again.
    Refused(String),
    /// A frame is larger than the limit.
    FrameTooLarge,
    /// The document's stored bytes cannot be read. They stay as they are.
    Unreadable(String),
    /// The store cannot be reached, and the document is not open.
    Away,
    /// The node is stopping.
    Stopping,
    /// The document is opened anew on this node.
    Reopening,
    /// The client did not take what it was sent.
    Stuck,
}

/// A close frame's reason may have 123 bytes (RFC 6455, section 5.5).
const MAX_REASON_BYTES: usize = 123;

impl End {
    /// The WebSocket close code.
    pub fn code(&self) -> u16 {
        match self {
            Self::Left => 1000,
            Self::Refused(_) => 4400,
            Self::FrameTooLarge => 1009,
            Self::Unreadable(_) => 1011,
            Self::Stopping | Self::Reopening => 1012,
            Self::Stuck | Self::Away => 1013,
        }
    }

    /// What the client's developer reads, cut to what a close frame can hold.
    pub fn reason(&self) -> &str {
        let reason = match self {
            Self::Left => "",
            Self::Refused(reason) | Self::Unreadable(reason) => reason,
            Self::FrameTooLarge => "a frame is larger than 16 MiB",
            Self::Away => "the store of the documents cannot be reached; try again in a moment",
            Self::Stopping => "the server is restarting",
            Self::Reopening => "the document is opened anew",
            Self::Stuck => "the connection did not take what it was sent",
        };
        &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_into_a_close_frame() {
        let long = End::Refused("ü".repeat(100));
        assert_eq!(long.reason(), "ü".repeat(61));
    }
}

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
    /// A frame is larger than so many bytes.
    FrameTooLarge(usize),
    /// The token is missing, not good, or good no longer.
    Unauthorized(String),
    /// The token does not allow it, or an administrator has ended the session.
    Forbidden(String),
    /// The document was deleted.
    Deleted,
    /// The document was deleted, and its name begun anew, while this node was not told.
    Recreated,
    /// The document has so many bytes that it takes no more.
    DocumentFull(usize),
    /// The client kept sending faster than it may.
    TooFast,
    /// The client said nothing after it had connected.
    Silent,
    /// The document's stored bytes cannot be read. They stay as they are.
    Unreadable(String),
    /// The store cannot be reached, and the document is not open.
    Away,
    /// The node, or somebody's share of it, is full; the text names the limit.
    Full(String),
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
            Self::FrameTooLarge(_) => 1009,
            Self::Unreadable(_) => 1011,
            Self::Stopping | Self::Reopening => 1012,
            Self::Stuck | Self::Away | Self::Full(_) => 1013,
            Self::Refused(_) => 4400,
            Self::Unauthorized(_) => 4401,
            Self::Forbidden(_) => 4403,
            Self::Deleted => 4404,
            Self::Recreated => 4409,
            Self::DocumentFull(_) => 4413,
            Self::Silent => 4508,
            Self::TooFast => 4529,
        }
    }

    /// What the client's developer reads, cut to what a close frame can hold.
    pub fn reason(&self) -> String {
        let mut reason = match self {
            Self::Left => String::new(),
            Self::Refused(reason)
            | Self::Unreadable(reason)
            | Self::Unauthorized(reason)
            | Self::Forbidden(reason)
            | Self::Full(reason) => reason.clone(),
            Self::FrameTooLarge(limit) => format!("a frame is larger than {limit} bytes (--max-frame)"),
            Self::Deleted => "the document was deleted".to_owned(),
            Self::Recreated => {
                "the document was deleted and begun anew: load it again, without what is here".to_owned()
            }
            Self::DocumentFull(limit) => {
                format!("the document has reached {limit} bytes and takes only deletions (--max-document)")
            }
            Self::TooFast => "too many messages or bytes a second (--max-messages, --max-bytes)".to_owned(),
            Self::Silent => {
                "no message came after the connection was made (--first-message-within)".to_owned()
            }
            Self::Away => "the store of the documents cannot be reached; try again in a moment".to_owned(),
            Self::Stopping => "the server is restarting".to_owned(),
            Self::Reopening => "the document is opened anew".to_owned(),
            Self::Stuck => "the connection did not take what it was sent".to_owned(),
        };
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        reason
    }

    /// All labels that there are.
    pub const LABELS: [&str; 16] = [
        "left",
        "refused",
        "frame_too_large",
        "unauthorized",
        "forbidden",
        "deleted",
        "recreated",
        "document_full",
        "too_fast",
        "silent",
        "unreadable",
        "away",
        "full",
        "stopping",
        "reopening",
        "stuck",
    ];

    /// The reason as a label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Refused(_) => "refused",
            Self::FrameTooLarge(_) => "frame_too_large",
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::Deleted => "deleted",
            Self::Recreated => "recreated",
            Self::DocumentFull(_) => "document_full",
            Self::TooFast => "too_fast",
            Self::Silent => "silent",
            Self::Unreadable(_) => "unreadable",
            Self::Away => "away",
            Self::Full(_) => "full",
            Self::Stopping => "stopping",
            Self::Reopening => "reopening",
            Self::Stuck => "stuck",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_into_a_close_frame() {
        let long = End::Refused("ü".repeat(100));
        assert_eq!(long.reason(), "ü".repeat(61));
        for end in [End::DocumentFull(usize::MAX), End::TooFast, End::Silent, End::FrameTooLarge(usize::MAX)]
        {
            assert!(end.reason().ends_with(')'), "{}", end.reason());
        }
        assert!(End::Recreated.reason().ends_with("what is here"));
    }
}

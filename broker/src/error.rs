//! Why a connection ended, and why a server did not start.
//!
//! What a client is *told* is the table of [`WireError`].

use menes_protocol::error::WireError;
use menes_protocol::parser::ParseError;
use thiserror::Error;

/// Why a connection ended, in the words of the monitoring endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum CloseReason {
    /// The client closed it.
    #[error("Client Closed")]
    ClientClosed,
    /// No valid CONNECT in time.
    #[error("Authentication Timeout")]
    AuthenticationTimeout,
    /// The TLS handshake failed, or took too long.
    #[error("TLS Handshake Failure")]
    TlsHandshakeError,
    /// Wrong or missing credentials.
    #[error("Authentication Failure")]
    AuthenticationViolation,
    /// Its credentials, or its account, ran out.
    #[error("Authentication Expired")]
    AuthenticationExpired,
    /// Its user was removed or changed.
    #[error("Credentials Revoked")]
    Revoked,
    /// More bytes waited for it than `max_pending`.
    #[error("Slow Consumer (Pending Bytes)")]
    SlowConsumerPendingBytes,
    /// It took nothing for `write_deadline`.
    #[error("Slow Consumer (Write Deadline)")]
    SlowConsumerWriteDeadline,
    /// Its socket failed while writing.
    #[error("Write Error")]
    WriteError,
    /// Its socket failed while reading.
    #[error("Read Error")]
    ReadError,
    /// It sent an `-ERR`.
    #[error("Parse Error")]
    ParseError,
    /// It did not answer pings.
    #[error("Stale Connection")]
    StaleConnection,
    /// It sent something that is no operation, or an operation with wrong arguments.
    #[error("Protocol Violation")]
    ProtocolViolation,
    /// It asked for a protocol level that does not exist.
    #[error("Bad Client Protocol Version")]
    BadClientProtocolVersion,
    /// One connection too many.
    #[error("Maximum Connections Exceeded")]
    MaxConnectionsExceeded,
    /// It has more subscriptions than its account allows by now.
    #[error("Maximum Subscriptions Exceeded")]
    MaxSubscriptionsExceeded,
    /// The account has as many connections as it may have.
    #[error("Maximum Account Connections Exceeded")]
    MaxAccountConnectionsExceeded,
    /// A message above `max_payload`.
    #[error("Maximum Message Payload Exceeded")]
    MaxPayloadExceeded,
    /// A line above `max_control_line`.
    #[error("Maximum Control Line Exceeded")]
    MaxControlLineExceeded,
    /// This server stops.
    #[error("Server Shutdown")]
    ServerShutdown,
    /// `no_responders` without headers.
    #[error("No Responders Requires Headers")]
    NoRespondersRequiresHeaders,
    /// An operator closed it.
    #[error("Kicked")]
    Kicked,
    /// It came through a proxy that is not trusted.
    #[error("Proxy Not Trusted")]
    ProxyNotTrusted,
    /// It did not come through a proxy, as its user must.
    #[error("Proxy Required")]
    ProxyRequired,
}

impl CloseReason {
    /// The reason that goes with a parser's refusal.
    pub(crate) const fn of_parse_error(error: ParseError) -> Self {
        match error {
            ParseError::MaxControlLine { .. } => Self::MaxControlLineExceeded,
            ParseError::MaxPayload { .. } => Self::MaxPayloadExceeded,
            ParseError::UnknownOperation
            | ParseError::PayloadEnd
            | ParseError::Arguments { .. }
            | ParseError::HeadersNotAgreed => Self::ProtocolViolation,
        }
    }

    /// The reason that goes with an `-ERR` after which the connection is closed.
    pub(crate) const fn of_wire_error(error: WireError<'_>) -> Self {
        match error {
            WireError::AuthenticationTimeout => Self::AuthenticationTimeout,
            WireError::UserAuthenticationRevoked => Self::Revoked,
            WireError::TlsRequired => Self::TlsHandshakeError,
            WireError::UserAuthenticationExpired | WireError::AccountAuthenticationExpired => {
                Self::AuthenticationExpired
            }
            WireError::MaxConnections | WireError::ConnectionThrottled => {
                Self::MaxConnectionsExceeded
            }
            WireError::MaxSubscriptions => Self::MaxSubscriptionsExceeded,
            WireError::MaxAccountConnections => Self::MaxAccountConnectionsExceeded,
            WireError::InvalidClientProtocol => Self::BadClientProtocolVersion,
            WireError::NoRespondersRequiresHeaders => Self::NoRespondersRequiresHeaders,
            WireError::StaleConnection => Self::StaleConnection,
            WireError::MaxPayload => Self::MaxPayloadExceeded,
            WireError::MaxControlLine => Self::MaxControlLineExceeded,
            WireError::UnknownOperation => Self::ProtocolViolation,
            _ => Self::AuthenticationViolation,
        }
    }

    /// Whether the client took its messages too slowly.
    pub(crate) const fn is_slow_consumer(self) -> bool {
        matches!(
            self,
            Self::SlowConsumerPendingBytes | Self::SlowConsumerWriteDeadline
        )
    }

    /// Whether what is queued for the client is thrown away.
    pub(crate) const fn drops_output(self) -> bool {
        matches!(
            self,
            Self::SlowConsumerPendingBytes | Self::SlowConsumerWriteDeadline | Self::WriteError
        )
    }
}

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listener could not be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A host name did not resolve.
    #[error("cannot resolve host {host:?}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: std::io::Error,
    },
    /// A thread or its runtime could not be made.
    #[error("cannot start a worker thread: {0}")]
    Worker(std::io::Error),
    /// TLS cannot be set up as asked.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The options contradict each other.
    #[error("{0}")]
    Options(String),
}

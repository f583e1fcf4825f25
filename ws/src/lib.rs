//! WebSocket for servers: an HTTP upgrade, then frames, given out as a plain byte stream.
//!
//! ```text
//! socket ─▶ upgrade ─▶ WsStream ─▶ AsyncRead + AsyncWrite, as if it were the socket
//! ```
//!
//! [`upgrade`] answers one HTTP request; [`WsStream`] carries bytes in binary frames. What the
//! bytes mean is the caller's. A frame is never held in memory: payload is unmasked where the
//! socket put it, in the caller's buffer, so no number from the network sizes an allocation, and
//! an idle connection costs a few hundred bytes.
//!
//! Messages may be compressed, each on its own; see the `deflate` module for its bounds.

mod deflate;
mod frame;
mod handshake;
mod origin;
mod stream;

pub use frame::{Control, Decoder, Limits, Rules, Violation};
pub use handshake::{Config, HttpRequest, UpgradeError, Upgraded, upgrade};
pub use origin::{Origin, OriginError, OriginRules, is_local_host};
pub use stream::WsStream;
pub use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue};
pub use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

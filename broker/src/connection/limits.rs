//! How long a publisher waits for a receiver that is far behind.

use std::time::Duration;

/// One wait; after it the receiver is looked at again.
pub const STALL: Duration = Duration::from_millis(2);
/// Longest time a publisher is held up after one read of its socket.
pub const MAX_STALL: Duration = Duration::from_millis(10);
/// Time to write what is queued when a connection ends.
pub const FLUSH_ON_CLOSE: Duration = Duration::from_millis(100);
/// Time during which bytes of a refused client are read and dropped, so that the refusal is not
/// overtaken by a reset of the connection.
pub const LINGER: Duration = Duration::from_millis(200);
/// Bytes read and dropped meanwhile, at most.
pub const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// Size of the buffer that the connections of a thread read into.
pub const READ_BYTES: usize = 256 * 1024;

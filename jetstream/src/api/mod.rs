//! The JetStream API: requests, replies and error codes.

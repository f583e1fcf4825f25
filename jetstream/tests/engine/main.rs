//! The engine through its public face: requests, messages and syncs in, answers out.

mod api;
mod backups;
mod batches;
mod consumers;
mod failures;
mod fast_batches;
mod limits;
mod origins;
mod publishes;
mod random_requests;
mod restarts;
mod server;
mod subjects;

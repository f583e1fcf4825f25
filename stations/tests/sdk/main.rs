//! The SDK contract, played against an engine made of maps.

mod bench;
mod crash;
mod people;
mod plans;
mod recorded;
mod replies;

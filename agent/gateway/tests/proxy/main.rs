//! The built `stoa-gateway` as a reverse proxy, from the outside: raw sockets on both sides, so
//! that every byte is ours.

mod admin;
mod collector;
mod configuration;
mod connections;
mod forwarding;
mod gateway;
mod hostile;
mod http2;
mod policies;
mod smuggling;
mod snapshots;
mod tls;
mod traces;
mod upstream;

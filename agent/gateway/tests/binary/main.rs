//! The built `stoa-gateway`, from the outside, without any privilege.

mod agent;
mod api;
mod configuration;
mod durability;
mod inline;
mod privacy;
mod server;

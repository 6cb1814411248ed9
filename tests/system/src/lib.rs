//! What the system tests share: marked traffic, real servers, and what the agent made of it.

#![forbid(unsafe_code)]

pub mod collector;
pub mod decisions;
pub mod jwks_server;
pub mod kafka;
pub mod keycloak;
pub mod markers;
pub mod observed;
pub mod planted;
pub mod proxy;
pub mod rate;
pub mod servers;
pub mod soak;
pub mod stage;
pub mod steering;
pub mod torture;

//! The policy engine: one request in, one decision out.
//!
//! Every door (redirected connections, the reverse proxy, `/authz`, MCP) makes a
//! [`RequestContext`](context::RequestContext) and asks the [`Engine`](engine::Engine) that the
//! current configuration built. The engine does no IO: keys, shared counters and a remote OPA come
//! through the traits of [`outside`] that the gateway implements.
//!
//! A policy is one file: its configuration, `build`, which refuses what it cannot keep to, and
//! `check`, which answers a [`Verdict`](decision::Verdict) and writes what it found into the
//! decision.
#![forbid(unsafe_code)]

pub mod circuit_breaker;
pub mod clock;
pub mod config;
pub mod connection_filter;
pub mod context;
pub mod contract;
pub mod counter_table;
pub mod counters;
pub mod decision;
pub mod engine;
pub mod error;
pub mod gcra;
pub mod guardrails;
pub mod identity;
pub mod moment;
pub mod outside;
pub mod plan;
pub mod quota;
pub mod rate_limit;
pub mod rego;
pub mod scopes;
pub mod sources;
pub mod tenant;
pub mod units;

//! The policy engine: one request in, one decision out.
//!
//! Every door (redirected connections, the reverse proxy, `/authz`, MCP) makes a
//! [`RequestContext`](context::RequestContext) and asks the [`Engine`](engine::Engine) that the
//! current configuration built. The engine does no IO: keys, shared counters and a remote OPA come
//! through traits that the gateway implements.
#![forbid(unsafe_code)]

pub mod config;
pub mod context;
pub mod decision;
pub mod engine;

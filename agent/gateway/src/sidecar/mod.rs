//! The decision doors: another gateway asks whether a request may go on, and forwards it itself.
//!
//! A question in any format becomes a [`Question`](question::Question), the engine of the current
//! configuration decides it, and the decision is written in the format of whoever asked:
//!
//! | who asks | how | file |
//! |---|---|---|
//! | any gateway | `POST /authz`, a JSON document | [`document`], [`answer`] |
//! | Envoy | gRPC `envoy.service.auth.v3.Authorization/Check` | [`envoy_grpc`] |
//! | Envoy | HTTP, the client's path behind a prefix | [`forwarded`] |
//! | nginx | `auth_request` to `/authz/nginx` | [`forwarded`] |
//! | Traefik, Caddy | forward-auth to `/authz/forward` | [`forwarded`] |
//! | Kong | its OPA plugin, or the handler in `charts/kong` | [`kong_opa`] |
//!
//! Whoever asks is believed what it says of the request and of the user: only listed addresses may
//! ask, by default this machine (the pod).

pub mod answer;
pub mod certificate;
pub mod counters;
pub mod decider;
pub mod document;
pub mod doors;
pub mod envoy_grpc;
pub mod forwarded;
pub mod identity_headers;
pub mod kong_opa;
pub mod observing;
pub mod own_routes;
pub mod question;
pub mod request_id;
pub mod server;
pub mod user_info;

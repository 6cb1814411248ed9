//! Settings of proxy mode. Routes, upstreams and policies are in the catalog.

use super::{
    ConfigError, Values,
    parse::{parse_bool, parse_number},
};

#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Where everything goes that no route of the catalog matches, `http://HOST:PORT`.
    pub upstream: Option<String>,
    pub transform_request: bool,
    pub transform_response: bool,
    /// Tenant, trace and correlation headers.
    pub inject_headers: bool,
    pub websocket_passthrough: bool,
    /// Idle connections kept for each upstream.
    pub connection_pool_size: usize,
}

impl ProxySettings {
    pub(super) fn read(values: &Values) -> Result<Self, ConfigError> {
        let flag = |key, default| -> Result<bool, ConfigError> {
            Ok(values.read(key, parse_bool)?.unwrap_or(default))
        };
        let pool = values.read("connection-pool-size", |t| parse_number(t, 0, 100_000))?;
        Ok(Self {
            upstream: values.read("upstream", |t| Ok(t.to_owned()))?,
            transform_request: flag("transform-request", false)?,
            transform_response: flag("transform-response", false)?,
            inject_headers: flag("inject-headers", true)?,
            websocket_passthrough: flag("websocket-passthrough", false)?,
            connection_pool_size: pool.and_then(|n| usize::try_from(n).ok()).unwrap_or(100),
        })
    }
}

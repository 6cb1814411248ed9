//! Settings of proxy mode. Routes, upstreams and policies are in the catalog.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use stoa_policy::{connection_filter::ConnectionLimit, gcra::Rate};

use super::{
    ConfigError, Values,
    parse::{parse_bool, parse_networks, parse_number, parse_path, parse_rate},
};
use crate::{catalog::ConnectionSettings, telemetry::access_log::Destination, worker};

#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Where everything goes that no route of the catalog matches, `http://HOST:PORT`.
    pub upstream: Option<String>,
    pub transform_request: bool,
    pub transform_response: bool,
    /// Tenant, trace and correlation headers.
    pub inject_headers: bool,
    pub websocket_passthrough: bool,
    /// Of a WebSocket connection, each way. `None`: as many as come.
    pub websocket_messages: Option<Rate>,
    /// Idle connections kept for each upstream.
    pub connection_pool_size: usize,
    pub workers: NonZeroUsize,
    /// The node's own `/health` and `/metrics`.
    pub admin: SocketAddr,
    pub max_connections: usize,
    /// How long what is under way may go on when the agent stops.
    pub drain: Duration,
    /// For a body that is needed whole before the request goes on.
    pub request_body: Duration,
    pub connections: ConnectionSettings,
    pub access_log: Destination,
    pub access_log_one_in: u64,
}

impl ProxySettings {
    pub(super) fn read(values: &Values, host: Option<IpAddr>) -> Result<Self, ConfigError> {
        let flag = |key, default| -> Result<bool, ConfigError> {
            Ok(values.read(key, parse_bool)?.unwrap_or(default))
        };
        let number = |key, least, most| values.read(key, |t| parse_number(t, least, most));
        let workers = number("workers", 1, 1024)?.and_then(|n| usize::try_from(n).ok());
        let admin_port = number("admin-port", 0, 65535)?.and_then(|n| u16::try_from(n).ok());
        let most = number("max-connections", 1, 1 << 20)?.and_then(|n| usize::try_from(n).ok());
        let is_metered = flag("ws-proxy-enabled", false)?;
        let pool = values.read("connection-pool-size", |t| parse_number(t, 0, 100_000))?;
        Ok(Self {
            upstream: values.read("upstream", |t| Ok(t.to_owned()))?,
            transform_request: flag("transform-request", false)?,
            transform_response: flag("transform-response", false)?,
            inject_headers: flag("inject-headers", true)?,
            websocket_passthrough: flag("websocket-passthrough", is_metered)?,
            websocket_messages: read_websocket_messages(values, is_metered)?,
            connection_pool_size: pool.and_then(|n| usize::try_from(n).ok()).unwrap_or(100),
            workers: workers.and_then(NonZeroUsize::new).unwrap_or_else(worker::default_count),
            admin: SocketAddr::new(
                host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                admin_port.unwrap_or(9090),
            ),
            max_connections: most.unwrap_or(65_536),
            drain: Duration::from_secs(number("drain-seconds", 0, 86_400)?.unwrap_or(30)),
            request_body: Duration::from_secs(
                number("request-body-seconds", 1, 86_400)?.unwrap_or(30),
            ),
            connections: read_connections(values)?,
            access_log: values
                .read("access-log", |t| Ok(parse_access_log(t)))?
                .unwrap_or(Destination::Stdout),
            access_log_one_in: number("access-log-one-in", 1, 1 << 32)?.unwrap_or(1),
        })
    }
}

/// A limit that somebody wrote holds, whether or not it is switched on.
fn read_websocket_messages(values: &Values, is_on: bool) -> Result<Option<Rate>, ConfigError> {
    let a_second = values.read("ws-proxy-rate-limit-per-second", parse_rate)?;
    let burst = values.read("ws-proxy-rate-limit-burst", |t| parse_number(t, 1, 1_000_000))?;
    if !is_on && a_second.is_none() && burst.is_none() {
        return Ok(None);
    }
    let a_second = Some(a_second.unwrap_or(100_000)).filter(|rate| *rate > 0);
    Ok(a_second.map(|rate| Rate::per_second(rate, burst.unwrap_or(50))))
}

fn read_connections(values: &Values) -> Result<ConnectionSettings, ConfigError> {
    let a_second = values.read("tcp-rate-limit-per-ip", parse_rate)?.filter(|rate| *rate > 0);
    let limit = a_second.map(|rate| Arc::new(ConnectionLimit::new(Rate::per_second(rate, 0))));
    let blocked = match values.given("ip-blocklist") {
        Some(given) => parse_networks(&given.values)
            .map_err(|reason| ConfigError::Value { origin: given.origin.clone(), reason })?,
        None => Vec::new(),
    };
    let blocked_file = values.read("ip-blocklist-file", parse_path)?;
    Ok(ConnectionSettings { blocked, blocked_file, limit })
}

fn parse_access_log(text: &str) -> Destination {
    match parse_bool(text) {
        Ok(true) => Destination::Stdout,
        Ok(false) => Destination::Off,
        Err(_) if text == "stdout" || text == "-" => Destination::Stdout,
        Err(_) => Destination::File(text.into()),
    }
}

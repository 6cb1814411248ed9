//! Where requests go.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::document::{Balance, UpstreamProtocol};

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Servers that answer alike.
#[derive(Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    pub balance: Balance,
    pub protocol: UpstreamProtocol,
    pub tls: Option<UpstreamTls>,
    pub send_proxy_protocol: bool,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
    /// Two upstreams with the same fingerprint may share connections; it outlives a reload.
    pub fingerprint: String,
}

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: Authority,
    /// Never 0.
    pub weight: u32,
}

#[derive(Clone)]
pub struct UpstreamTls {
    pub config: Arc<rustls::ClientConfig>,
    /// The name to verify; the endpoint's host if there is none.
    pub server_name: Option<rustls::pki_types::ServerName<'static>>,
}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTls").field("server_name", &self.server_name).finish()
    }
}

/// A host and a port to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Ip(IpAddr),
    Name(Arc<str>),
}

impl Authority {
    /// `HOST:PORT`, `[IPV6]:PORT`; the port may be absent where there is a default.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a host with a port; write orders:8080 or [fd00::1]:8080");
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                let host: Ipv6Addr = host.parse().map_err(|_| wrong())?;
                (Host::Ip(host.into()), port.strip_prefix(':'))
            }
            None => {
                let (host, port) = text.split_once(':').map_or((text, None), |(h, p)| (h, Some(p)));
                (parse_host(host).ok_or_else(wrong)?, port)
            }
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
            None => default_port.ok_or_else(wrong)?,
        };
        Ok(Self { host, port })
    }

    /// Where no look-up is needed.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match &self.host {
            Host::Ip(ip) => Some(SocketAddr::new(*ip, self.port)),
            Host::Name(_) => None,
        }
    }
}

fn parse_host(text: &str) -> Option<Host> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(Host::Ip(ip));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    (text.len() <= 253 && name.split('.').all(is_label)).then(|| Host::Name(text.into()))
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// `http://HOST:PORT` or `https://HOST:PORT`, and whether it is the latter.
pub fn parse_url(text: &str) -> Result<(Authority, bool), String> {
    let (rest, is_tls, port) = if let Some(rest) = text.strip_prefix("http://") {
        (rest, false, 80)
    } else if let Some(rest) = text.strip_prefix("https://") {
        (rest, true, 443)
    } else {
        return Err(format!(
            "`{text}` is not the URL of an upstream; write http://HOST:PORT or https://HOST:PORT"
        ));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err(format!(
            "`{text}` has a path; give scheme, host and port only, and `rewrite` in a route"
        ));
    }
    if rest.contains('@') {
        return Err("has a user in it; give scheme, host and port only".to_owned());
    }
    Authority::parse(rest, Some(port)).map(|authority| (authority, is_tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_scheme_host_and_port() {
        let shown = |text: &str| parse_url(text).map(|(a, tls)| (a.to_string(), tls));
        assert_eq!(shown("http://backend:8080"), Ok(("backend:8080".to_owned(), false)));
        assert_eq!(shown("http://10.0.0.1/"), Ok(("10.0.0.1:80".to_owned(), false)));
        assert_eq!(shown("https://[fd00::1]:8443"), Ok(("[fd00::1]:8443".to_owned(), true)));
        assert_eq!(shown("https://a.example."), Ok(("a.example.:443".to_owned(), true)));
        for text in [
            "backend:8080",
            "ftp://x",
            "http://",
            "http://a b",
            "http://x:0",
            "http://x:99999",
            "http://x/p",
            "http://u:p@x",
            "http://[::1",
            "http://a..b",
        ] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }
}

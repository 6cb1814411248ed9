//! From what is written to what is meant. Every error names the key, the reason and the remedy.

mod routes;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use stoa_policy::{
    connection_filter::{self, Blocklist, ConnectionFilter},
    engine::Engine,
};

use self::routes::{Scope, compile_hosts, compile_matches, tenant_header};
use super::{
    BuildEngine, Catalog, CatalogError, ConnectionSettings, Defaults, Listener, Paths, breakers,
    document::{Document, ListenerDocument, ListenerProtocol, UpstreamDocument},
    files::Files,
    routes::{Action, Backend, Changes, Rewrite, Route, RouteTable, Timeouts},
    upstreams::{
        Authority, CONNECT_TIMEOUT, Endpoint, IDLE_TIMEOUT, Upstream, UpstreamTls, parse_url,
    },
};
use crate::tls;

/// An error before its file is known: the key, and what is wrong with it.
pub(in crate::catalog) type Fault = (String, String);

pub(in crate::catalog) fn compile(
    file: &str,
    document: Document,
    defaults: &Defaults,
    build_engine: &BuildEngine,
    files: &mut Files,
) -> Result<Catalog, CatalogError> {
    let engine = build_engine(&document, files).map_err(|reason| CatalogError::Invalid {
        file: file.to_owned(),
        key: "policies".to_owned(),
        reason,
    })?;
    build(document, defaults, engine, files).map_err(|(key, reason)| CatalogError::Invalid {
        file: file.to_owned(),
        key,
        reason,
    })
}

fn build(
    document: Document,
    defaults: &Defaults,
    engine: Engine,
    files: &mut Files,
) -> Result<Catalog, Fault> {
    let mut listeners = Vec::new();
    for (i, listener) in document.listeners.iter().enumerate() {
        let listener = compile_listener(listener, i, files)?;
        if listeners.iter().any(|l: &Arc<Listener>| l.address == listener.address) {
            let reason = format!("is the second one on {}; give it another", listener.address);
            return Err((format!("listeners[{i}].address"), reason));
        }
        listeners.push(Arc::new(listener));
    }
    if listeners.is_empty() {
        listeners.push(Arc::new(Listener {
            name: "default".into(),
            address: defaults.listen,
            protocol: ListenerProtocol::Auto,
            tls: None,
            proxy_protocol_from: Vec::new(),
            trusted_proxies: Vec::new(),
        }));
    }
    let mut upstreams = Vec::new();
    let mut names = HashMap::new();
    for (name, upstream) in &document.upstreams {
        names.insert(name.as_str(), upstreams.len());
        upstreams.push(Arc::new(compile_upstream(name, upstream, files)?));
    }
    let mut routes = RouteTable::default();
    let scope =
        Scope { upstreams: &names, engine: &engine, default_set: engine.find("default"), defaults };
    for (i, route) in document.routes.iter().enumerate() {
        let at = format!("routes[{i}]");
        let hosts = compile_hosts(&route.hosts, &at)?;
        let patterns = compile_matches(&route.matches, &at)?;
        let route = scope.compile_route(route, i, &at)?;
        if routes.all.iter().any(|known| known.name == route.name) {
            return Err((format!("{at}.name"), "is the name of an earlier route too".to_owned()));
        }
        routes.add(&Arc::new(route), &hosts, &patterns);
    }
    if let Some(url) = &defaults.upstream {
        let document = UpstreamDocument::of_url(url);
        let upstream = compile_upstream("--upstream", &document, files)
            .map_err(|(_, reason)| ("upstream".to_owned(), reason))?;
        let backend = Backend { upstream: upstreams.len(), weight: 1 };
        upstreams.push(Arc::new(upstream));
        routes.add_fallback(Arc::new(Route {
            name: "--upstream".into(),
            index: routes.all.len(),
            tenant: defaults.tenant.as_str().into(),
            tenant_header: tenant_header(&defaults.tenant, "tenant")?,
            policies: scope.default_set,
            action: Action::Forward(vec![backend]),
            rewrite: Rewrite::default(),
            request: Changes::default(),
            response: Changes::default(),
            timeouts: Timeouts::default(),
            retries: None,
            mirrors: Vec::new(),
        }));
    }
    Ok(Catalog {
        breakers: breakers::collect(&routes, &upstreams, &engine)?,
        listeners,
        upstreams,
        routes,
        paths: Paths {
            encoded_slashes: document.paths.encoded_slashes,
            keep_double_slashes: document.paths.keep_double_slashes,
        },
        policies: document.policies,
        engine,
        connections: compile_filter(&defaults.connections, files)?,
    })
}

fn compile_filter(
    settings: &ConnectionSettings,
    files: &mut Files,
) -> Result<ConnectionFilter, Fault> {
    let mut blocked = settings.blocked.clone();
    if let Some(path) = &settings.blocked_file {
        let fault = |reason| ("ip_blocklist_file".to_owned(), reason);
        let name = path.display();
        let text = files.read_text(path).map_err(|error| {
            let remedy = "name a text file with an address or network on each line";
            fault(format!("names {name}, which cannot be read: {error}; {remedy}"))
        })?;
        let lines = connection_filter::parse_lines(&text)
            .map_err(|error| fault(format!("names {name}, which cannot be used: {error}")))?;
        blocked.extend(lines);
    }
    Ok(ConnectionFilter::new(Blocklist::new(blocked), settings.limit.clone()))
}

fn compile_listener(
    document: &ListenerDocument,
    index: usize,
    files: &mut Files,
) -> Result<Listener, Fault> {
    let at = format!("listeners[{index}]");
    let address = document
        .address
        .parse::<SocketAddr>()
        .ok()
        .or_else(|| {
            let port = document.address.strip_prefix(':').unwrap_or(&document.address);
            let port = port.parse().ok()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
        })
        .ok_or_else(|| {
            let given = &document.address;
            (
                format!("{at}.address"),
                format!("is `{given}`; write 0.0.0.0:8082, [::]:8082 or 8082"),
            )
        })?;
    let tls = match &document.tls {
        Some(tls) => Some(
            tls::server::configure(tls, document.protocol, files)
                .map_err(|error| (format!("{at}.tls"), error.to_string()))?,
        ),
        None => None,
    };
    Ok(Listener {
        name: document.name.as_deref().unwrap_or(&format!("listener-{index}")).into(),
        address,
        protocol: document.protocol,
        tls,
        proxy_protocol_from: document.proxy_protocol_from.clone(),
        trusted_proxies: document.trusted_proxies.clone(),
    })
}

fn compile_upstream(
    name: &str,
    document: &UpstreamDocument,
    files: &mut Files,
) -> Result<Upstream, Fault> {
    let at = format!("upstreams.{name}");
    let mut is_tls = document.tls.is_some();
    let mut endpoints = Vec::new();
    match (&document.url, document.endpoints.is_empty()) {
        (Some(url), true) => {
            let (address, is_https) = parse_url(url).map_err(|r| (format!("{at}.url"), r))?;
            if is_tls && !is_https {
                let reason = "is http although there is `tls`; write https".to_owned();
                return Err((format!("{at}.url"), reason));
            }
            is_tls = is_https;
            endpoints.push(Endpoint { address, weight: 1 });
        }
        (None, false) => {
            for (i, endpoint) in document.endpoints.iter().enumerate() {
                let address = Authority::parse(&endpoint.address, None)
                    .map_err(|reason| (format!("{at}.endpoints[{i}].address"), reason))?;
                let weight = endpoint.weight.unwrap_or(1);
                if weight > 0 {
                    endpoints.push(Endpoint { address, weight });
                }
            }
        }
        _ => {
            let reason = "needs either `url` or `endpoints`".to_owned();
            return Err((at, reason));
        }
    }
    if endpoints.is_empty() {
        return Err((at, "has no endpoint with a weight above 0".to_owned()));
    }
    let tls = match is_tls {
        false => None,
        true => {
            let given = document.tls.clone().unwrap_or_default();
            let server_name = match &given.server_name {
                Some(name) => {
                    Some(rustls::pki_types::ServerName::try_from(name.clone()).map_err(|_| {
                        (format!("{at}.tls.server_name"), format!("`{name}` is not a host name"))
                    })?)
                }
                None => None,
            };
            let config = tls::client::configure(&given, document.protocol, files)
                .map_err(|error| (format!("{at}.tls"), error.to_string()))?;
            Some(UpstreamTls { config, server_name })
        }
    };
    let fingerprint = format!("{document:?} {}", tls::client::identity(tls.as_ref()));
    Ok(Upstream {
        name: name.into(),
        endpoints,
        balance: document.balance,
        protocol: document.protocol,
        tls,
        send_proxy_protocol: document.send_proxy_protocol,
        connect_timeout: document.connect_timeout.map_or(CONNECT_TIMEOUT, |p| p.0),
        idle_timeout: document.idle_timeout.map_or(IDLE_TIMEOUT, |p| p.0),
        fingerprint,
    })
}

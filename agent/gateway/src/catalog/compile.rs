//! From what is written to what is meant. Every error names the key, the reason and the remedy.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;
use stoa_policy::{
    connection_filter::{self, Blocklist, ConnectionFilter},
    engine::{Engine, SetId},
};

use super::{
    BuildEngine, Catalog, CatalogError, ConnectionSettings, Defaults, Listener, Paths, breakers,
    document::{
        BodyDocument, ChangesDocument, Document, ListenerDocument, ListenerProtocol, MatchDocument,
        PathDocument, Period, RedirectDocument, RewriteDocument, RouteDocument, UpstreamDocument,
        ValueDocument,
    },
    files::Files,
    routes::{
        Action, Backend, Changes, HostPattern, Mirror, PathPattern, PathRewrite, Pattern, Redirect,
        Retries, Rewrite, Route, RouteTable, Timeouts, ValuePattern,
    },
    upstreams::{
        Authority, CONNECT_TIMEOUT, Endpoint, IDLE_TIMEOUT, Upstream, UpstreamTls, parse_url,
    },
};
use crate::tls;

/// An error before its file is known: the key, and what is wrong with it.
pub(super) type Fault = (String, String);

/// The most a body may have to be transformed.
const MOST_TRANSFORMED: usize = 64 << 20;

pub(super) fn compile(
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

struct Scope<'a> {
    upstreams: &'a HashMap<&'a str, usize>,
    engine: &'a Engine,
    default_set: Option<SetId>,
    defaults: &'a Defaults,
}

impl Scope<'_> {
    fn find_upstream(&self, name: &str, key: String) -> Result<usize, Fault> {
        self.upstreams.get(name).copied().ok_or_else(|| {
            let known: Vec<&str> = self.upstreams.keys().copied().collect();
            let hint = crate::config::layers::closest(name, known.iter().copied());
            (key, format!("names `{name}`, which is not in `upstreams`.{hint}"))
        })
    }

    fn compile_route(
        &self,
        document: &RouteDocument,
        index: usize,
        at: &str,
    ) -> Result<Route, Fault> {
        let tenant = document.tenant.as_deref().unwrap_or(&self.defaults.tenant);
        let policies = match &document.policies {
            Some(name) => Some(self.engine.find(name).ok_or_else(|| {
                let reason = format!("names `{name}`, which is not in `policies`");
                (format!("{at}.policies"), reason)
            })?),
            None => self.default_set,
        };
        let retries = match &document.retries {
            Some(retries) => Some(Retries {
                attempts: retries.attempts,
                statuses: compile_statuses(&retries.statuses, &format!("{at}.retries.statuses"))?,
                budget_percent: retries.budget_percent,
            }),
            None => None,
        };
        let mut mirrors = Vec::new();
        for (i, mirror) in document.mirrors.iter().enumerate() {
            let key = format!("{at}.mirrors[{i}]");
            let percent = mirror.percent.unwrap_or(100.0);
            if !(0.0..=100.0).contains(&percent) {
                return Err((format!("{key}.percent"), "is not from 0 to 100".to_owned()));
            }
            let upstream = self.find_upstream(&mirror.upstream, format!("{key}.upstream"))?;
            mirrors.push(Mirror { upstream, share: percent / 100.0 });
        }
        let period = |given: Option<Period>, default: Option<Duration>| match given {
            Some(Period(Duration::ZERO)) => None,
            Some(Period(period)) => Some(period),
            None => default,
        };
        let defaults = Timeouts::default();
        Ok(Route {
            name: document.name.as_deref().unwrap_or(&format!("route-{index}")).into(),
            index,
            tenant: tenant.into(),
            tenant_header: tenant_header(tenant, &format!("{at}.tenant"))?,
            policies,
            action: self.compile_action(document, at)?,
            rewrite: compile_rewrite(document.rewrite.as_ref(), at)?,
            request: compile_changes(&document.request, &format!("{at}.request"))?,
            response: compile_changes(&document.response, &format!("{at}.response"))?,
            timeouts: Timeouts {
                request: period(document.timeouts.request, defaults.request),
                upstream: period(document.timeouts.upstream, defaults.upstream),
                idle: period(document.timeouts.idle, defaults.idle),
            },
            retries,
            mirrors,
        })
    }

    fn compile_action(&self, document: &RouteDocument, at: &str) -> Result<Action, Fault> {
        let ways = [
            document.upstream.is_some(),
            !document.backends.is_empty(),
            document.redirect.is_some(),
        ];
        if ways.into_iter().filter(|given| *given).count() != 1 {
            let reason = "needs exactly one of `upstream`, `backends` and `redirect`".to_owned();
            return Err((at.to_owned(), reason));
        }
        if let Some(redirect) = &document.redirect {
            return compile_redirect(redirect, &format!("{at}.redirect")).map(Action::Redirect);
        }
        let mut backends = Vec::new();
        if let Some(name) = &document.upstream {
            let upstream = self.find_upstream(name, format!("{at}.upstream"))?;
            backends.push(Backend { upstream, weight: 1 });
        }
        for (i, backend) in document.backends.iter().enumerate() {
            let key = format!("{at}.backends[{i}].upstream");
            let upstream = self.find_upstream(&backend.upstream, key)?;
            backends.push(Backend { upstream, weight: backend.weight.unwrap_or(1) });
        }
        Ok(Action::Forward(backends))
    }
}

fn tenant_header(tenant: &str, key: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(tenant)
        .map_err(|_| (key.to_owned(), format!("`{tenant}` cannot be the name of a tenant")))
}

fn compile_statuses(given: &[u16], key: &str) -> Result<Vec<StatusCode>, Fault> {
    given
        .iter()
        .map(|status| {
            StatusCode::from_u16(*status)
                .ok()
                .filter(|s| s.as_u16() >= 400)
                .ok_or_else(|| (key.to_owned(), format!("has {status}; write 400 to 599")))
        })
        .collect()
}

fn compile_redirect(document: &RedirectDocument, key: &str) -> Result<Redirect, Fault> {
    let status = document.status.unwrap_or(302);
    if ![301, 302, 303, 307, 308].contains(&status) {
        return Err((
            format!("{key}.status"),
            format!("is {status}; write 301, 302, 303, 307 or 308"),
        ));
    }
    if let Some(scheme) = &document.scheme
        && !["http", "https"].contains(&scheme.as_str())
    {
        return Err((format!("{key}.scheme"), format!("is `{scheme}`; write http or https")));
    }
    if let Some(host) = &document.host {
        check_host(host).map_err(|reason| (format!("{key}.host"), reason))?;
    }
    Ok(Redirect {
        scheme: document.scheme.clone(),
        host: document.host.clone(),
        port: document.port,
        path: compile_path_rewrite(document.path.as_ref(), document.prefix.as_ref(), key)?,
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND),
    })
}

fn compile_rewrite(document: Option<&RewriteDocument>, at: &str) -> Result<Rewrite, Fault> {
    let Some(document) = document else { return Ok(Rewrite::default()) };
    let key = format!("{at}.rewrite");
    let host = match &document.host {
        Some(host) => {
            check_host(host).map_err(|reason| (format!("{key}.host"), reason))?;
            HeaderValue::from_str(host).ok()
        }
        None => None,
    };
    Ok(Rewrite {
        host,
        path: compile_path_rewrite(document.path.as_ref(), document.prefix.as_ref(), &key)?,
    })
}

fn check_host(host: &str) -> Result<(), String> {
    Authority::parse(host, Some(80)).map(|_| ()).map_err(|_| format!("`{host}` is not a host"))
}

fn compile_path_rewrite(
    path: Option<&String>,
    prefix: Option<&String>,
    key: &str,
) -> Result<PathRewrite, Fault> {
    let check = |path: &String| {
        let is_path = path.starts_with('/')
            && path.bytes().all(|b| b.is_ascii_graphic() && !b"?#\\\"<>^`{|}".contains(&b));
        match is_path {
            true => Ok(path.clone()),
            false => Err((key.to_owned(), format!("has the path `{path}`; write one from `/` on"))),
        }
    };
    match (path, prefix) {
        (Some(_), Some(_)) => {
            Err((key.to_owned(), "has both `path` and `prefix`; give one".to_owned()))
        }
        (Some(path), None) => check(path).map(PathRewrite::Whole),
        (None, Some(prefix)) => check(prefix).map(PathRewrite::Prefix),
        (None, None) => Ok(PathRewrite::Keep),
    }
}

/// Headers that say where a message ends or what a connection does are ours alone.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn compile_changes(document: &ChangesDocument, key: &str) -> Result<Changes, Fault> {
    let name = |text: &str, part: &str| {
        let name = text.parse::<HeaderName>().map_err(|_| {
            (format!("{key}.{part}"), format!("has `{text}`, which is not the name of a header"))
        })?;
        match OWN_HEADERS.contains(&name.as_str()) {
            true => Err((
                format!("{key}.{part}"),
                format!("has `{name}`, which the gateway itself writes; leave it out"),
            )),
            false => Ok(name),
        }
    };
    let pairs = |given: &BTreeMap<String, String>, part: &str| {
        given
            .iter()
            .map(|(text, value)| {
                let value = HeaderValue::from_str(value).map_err(|_| {
                    (format!("{key}.{part}.{text}"), "is not the value of a header".to_owned())
                })?;
                Ok((name(text, part)?, value))
            })
            .collect::<Result<Vec<_>, Fault>>()
    };
    if let Some(body) = &document.body {
        check_body(body, &format!("{key}.body"))?;
    }
    Ok(Changes {
        remove: document.remove.iter().map(|n| name(n, "remove")).collect::<Result<_, _>>()?,
        set: pairs(&document.set, "set")?,
        add: pairs(&document.add, "add")?,
        body: document.body.clone(),
    })
}

fn check_body(body: &BodyDocument, key: &str) -> Result<(), Fault> {
    let has_fields = !body.rename.is_empty() || !body.remove.is_empty() || !body.set.is_empty();
    if body.template.is_some() && has_fields {
        let reason = "has a `template` and changes of fields; give one or the other".to_owned();
        return Err((key.to_owned(), reason));
    }
    if body.max_bytes.is_some_and(|most| most > MOST_TRANSFORMED) {
        return Err((format!("{key}.max_bytes"), format!("is more than {MOST_TRANSFORMED}")));
    }
    if let Some(kind) = &body.content_type
        && HeaderValue::from_str(kind).is_err()
    {
        return Err((format!("{key}.content_type"), "is not the value of a header".to_owned()));
    }
    Ok(())
}

fn compile_hosts(given: &[String], at: &str) -> Result<Vec<HostPattern>, Fault> {
    if given.is_empty() {
        return Ok(vec![HostPattern::Any]);
    }
    given
        .iter()
        .map(|text| {
            let lower = text.to_ascii_lowercase();
            let (name, is_wildcard) =
                lower.strip_prefix("*.").map_or((lower.as_str(), false), |name| (name, true));
            if lower == "*" {
                return Ok(HostPattern::Any);
            }
            let is_ip = name.parse::<IpAddr>().is_ok()
                || name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).is_some();
            if (check_host(name).is_err() || name.contains(':')) && !is_ip {
                let reason =
                    format!("has `{text}`; write api.example.com or *.example.com, without port");
                return Err((format!("{at}.hosts"), reason));
            }
            Ok(match is_wildcard {
                true => HostPattern::Suffix(format!(".{name}")),
                false => HostPattern::Exact(name.trim_end_matches('.').to_owned()),
            })
        })
        .collect()
}

fn compile_matches(given: &[MatchDocument], at: &str) -> Result<Vec<Pattern>, Fault> {
    if given.is_empty() {
        let path = PathPattern::Prefix(String::new());
        return Ok(vec![Pattern { path, method: None, headers: vec![], query: vec![] }]);
    }
    given
        .iter()
        .enumerate()
        .map(|(i, document)| {
            let key = format!("{at}.matches[{i}]");
            let method = match &document.method {
                Some(method) => Some(Method::from_bytes(method.as_bytes()).map_err(|_| {
                    (format!("{key}.method"), format!("`{method}` is not a method"))
                })?),
                None => None,
            };
            let mut headers = Vec::new();
            for (name, value) in &document.headers {
                let parsed = name.parse::<HeaderName>().map_err(|_| {
                    (format!("{key}.headers"), format!("`{name}` is not the name of a header"))
                })?;
                headers.push((parsed, compile_value(value, &format!("{key}.headers.{name}"))?));
            }
            let mut query = Vec::new();
            for (name, value) in &document.query {
                let value = compile_value(value, &format!("{key}.query.{name}"))?;
                query.push((name.clone(), value));
            }
            let path = compile_path(document.path.as_ref(), &format!("{key}.path"))?;
            Ok(Pattern { path, method, headers, query })
        })
        .collect()
}

fn compile_path(document: Option<&PathDocument>, key: &str) -> Result<PathPattern, Fault> {
    let Some(PathDocument { exact, prefix, regex }) = document else {
        return Ok(PathPattern::Prefix(String::new()));
    };
    let check = |path: &str| match path.starts_with('/') {
        true => Ok(()),
        false => Err((key.to_owned(), format!("has `{path}`, which does not begin with `/`"))),
    };
    match (exact, prefix, regex) {
        (Some(exact), None, None) => {
            check(exact)?;
            Ok(PathPattern::Exact(exact.clone()))
        }
        (None, Some(prefix), None) => {
            check(prefix)?;
            Ok(PathPattern::Prefix(prefix.trim_end_matches('/').to_owned()))
        }
        (None, None, Some(regex)) => compile_regex(regex, key).map(PathPattern::Regex),
        _ => Err((key.to_owned(), "needs exactly one of `exact`, `prefix`, `regex`".to_owned())),
    }
}

fn compile_value(document: &ValueDocument, key: &str) -> Result<ValuePattern, Fault> {
    match document {
        ValueDocument::Exact(value) => Ok(ValuePattern::Exact(value.clone())),
        ValueDocument::Regex(regex) => compile_regex(&regex.regex, key).map(ValuePattern::Regex),
    }
}

/// A regex holds for the whole value.
fn compile_regex(regex: &str, key: &str) -> Result<Regex, Fault> {
    Regex::new(&format!("^(?:{regex})$"))
        .map_err(|e| (key.to_owned(), format!("has a regex that cannot be used: {e}")))
}

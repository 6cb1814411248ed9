//! A route: which requests take it, and what becomes of them.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;
use stoa_policy::engine::{Engine, SetId};

use super::Fault;
use crate::catalog::{
    Defaults,
    document::{
        BodyDocument, ChangesDocument, MatchDocument, PathDocument, Period, RedirectDocument,
        RewriteDocument, RouteDocument, ValueDocument,
    },
    routes::{
        Action, Backend, Changes, HostPattern, Mirror, PathPattern, PathRewrite, Pattern, Redirect,
        Retries, Rewrite, Route, Timeouts, ValuePattern,
    },
    upstreams::Authority,
};

/// The most a body may have to be transformed.
const MOST_TRANSFORMED: usize = 64 << 20;

/// What routes name.
pub(super) struct Scope<'a> {
    pub upstreams: &'a HashMap<&'a str, usize>,
    pub engine: &'a Engine,
    pub default_set: Option<SetId>,
    pub defaults: &'a Defaults,
}

impl Scope<'_> {
    fn find_upstream(&self, name: &str, key: String) -> Result<usize, Fault> {
        self.upstreams.get(name).copied().ok_or_else(|| {
            let known: Vec<&str> = self.upstreams.keys().copied().collect();
            let hint = crate::config::layers::closest(name, known.iter().copied());
            (key, format!("names `{name}`, which is not in `upstreams`.{hint}"))
        })
    }

    pub(super) fn compile_route(
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

pub(super) fn tenant_header(tenant: &str, key: &str) -> Result<HeaderValue, Fault> {
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

pub(super) fn compile_hosts(given: &[String], at: &str) -> Result<Vec<HostPattern>, Fault> {
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

pub(super) fn compile_matches(given: &[MatchDocument], at: &str) -> Result<Vec<Pattern>, Fault> {
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

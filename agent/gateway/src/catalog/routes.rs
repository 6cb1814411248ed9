//! Chooses a route. What matches and which of several wins is as for the HTTPRoute of Gateway API:
//! the exact host before the wildcard (the longer one first), the exact path before the longest
//! prefix, then a method, then more headers, then more query parameters, then the order in the
//! file. A regex over the path is between exact and prefix.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;
use stoa_policy::engine::SetId;

use super::document::BodyDocument;

/// What is done with the requests that it matches.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    /// Its place among the counters of routes.
    pub index: usize,
    pub tenant: Arc<str>,
    pub tenant_header: HeaderValue,
    pub policies: Option<SetId>,
    pub action: Action,
    pub rewrite: Rewrite,
    pub request: Changes,
    pub response: Changes,
    pub timeouts: Timeouts,
    pub retries: Option<Retries>,
    pub mirrors: Vec<Mirror>,
}

#[derive(Debug)]
pub enum Action {
    Forward(Vec<Backend>),
    Redirect(Redirect),
}

/// An upstream by its place in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    pub upstream: usize,
    /// 0: no request goes there.
    pub weight: u32,
}

#[derive(Debug)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub path: PathRewrite,
    pub status: StatusCode,
}

#[derive(Debug, Default)]
pub struct Rewrite {
    pub host: Option<HeaderValue>,
    pub path: PathRewrite,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathRewrite {
    #[default]
    Keep,
    Whole(String),
    /// Instead of the prefix that matched.
    Prefix(String),
}

/// Removed first, then set, then added.
#[derive(Debug, Default)]
pub struct Changes {
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub body: Option<BodyDocument>,
}

/// `None`: without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub request: Option<Duration>,
    pub upstream: Option<Duration>,
    pub idle: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request: Some(Duration::from_secs(30)),
            upstream: None,
            idle: Some(Duration::from_secs(60)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    pub attempts: u8,
    pub statuses: Vec<StatusCode>,
    pub budget_percent: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirror {
    pub upstream: usize,
    /// From 0 to 1.
    pub share: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Any,
    /// Lower case, without port.
    Exact(String),
    /// `.example.com` for `*.example.com`: one label or more before it.
    Suffix(String),
}

#[derive(Clone, Debug)]
pub enum PathPattern {
    Exact(String),
    /// Without the `/` at its end; empty for `/`.
    Prefix(String),
    Regex(Regex),
}

#[derive(Clone, Debug)]
pub enum ValuePattern {
    Exact(String),
    Regex(Regex),
}

impl ValuePattern {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(expected) => expected == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Pattern {
    pub path: PathPattern,
    pub method: Option<Method>,
    pub headers: Vec<(HeaderName, ValuePattern)>,
    pub query: Vec<(String, ValuePattern)>,
}

/// What a route is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Lower case, without port and final dot.
    pub host: &'a str,
    /// Normalised, as the upstream will get it.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

/// A route, and the bytes of the path that its prefix took.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    pub route: &'a Arc<Route>,
    pub prefix: usize,
    by: MatchedBy<'a>,
}

#[derive(Clone, Copy, Debug)]
enum MatchedBy<'a> {
    Exact,
    Regex(&'a Regex),
    Prefix,
}

impl Chosen<'_> {
    /// What of the configuration the path has matched: never more of what a client sent.
    pub fn pattern(&self, path: &str) -> String {
        match self.by {
            MatchedBy::Exact => path.to_owned(),
            MatchedBy::Regex(regex) => regex.as_str().to_owned(),
            MatchedBy::Prefix => format!("{}/*", path.get(..self.prefix).unwrap_or_default()),
        }
    }
}

#[derive(Debug, Default)]
pub struct RouteTable {
    exact_hosts: HashMap<String, PathTable>,
    /// The longest first.
    suffixes: Vec<(String, PathTable)>,
    any_host: PathTable,
    /// `--upstream`.
    pub fallback: Option<Arc<Route>>,
    /// By `Route::index`, the fallback included.
    pub all: Vec<Arc<Route>>,
}

#[derive(Debug, Default)]
struct PathTable {
    exact: HashMap<String, Vec<Entry>>,
    regexes: Vec<(Regex, Entry)>,
    prefixes: HashMap<String, Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    route: Arc<Route>,
    method: Option<Method>,
    headers: Vec<(HeaderName, ValuePattern)>,
    query: Vec<(String, ValuePattern)>,
}

impl RouteTable {
    /// Adds a route; those that were added earlier win where all else is equal.
    pub fn add(&mut self, route: &Arc<Route>, hosts: &[HostPattern], patterns: &[Pattern]) {
        self.all.push(Arc::clone(route));
        for host in hosts {
            let table = match host {
                HostPattern::Any => &mut self.any_host,
                HostPattern::Exact(name) => self.exact_hosts.entry(name.clone()).or_default(),
                HostPattern::Suffix(suffix) => {
                    let found = self.suffixes.iter().position(|(known, _)| known == suffix);
                    let at = found.unwrap_or_else(|| {
                        let at = self.suffixes.partition_point(|(s, _)| s.len() >= suffix.len());
                        self.suffixes.insert(at, (suffix.clone(), PathTable::default()));
                        at
                    });
                    &mut self.suffixes[at].1
                }
            };
            for pattern in patterns {
                table.add(route, pattern);
            }
        }
    }

    pub fn add_fallback(&mut self, route: Arc<Route>) {
        self.all.push(Arc::clone(&route));
        self.fallback = Some(route);
    }

    /// A route of the file; never the fallback.
    pub fn find(&self, asked: &Asked<'_>) -> Option<Chosen<'_>> {
        if let Some(found) = self.exact_hosts.get(asked.host).and_then(|t| t.find(asked)) {
            return Some(found);
        }
        for (suffix, table) in &self.suffixes {
            let is_under = asked.host.len() > suffix.len() && asked.host.ends_with(suffix.as_str());
            if is_under && let Some(found) = table.find(asked) {
                return Some(found);
            }
        }
        self.any_host.find(asked)
    }
}

impl PathTable {
    fn add(&mut self, route: &Arc<Route>, pattern: &Pattern) {
        let entry = Entry {
            route: Arc::clone(route),
            method: pattern.method.clone(),
            headers: pattern.headers.clone(),
            query: pattern.query.clone(),
        };
        let entries = match &pattern.path {
            PathPattern::Exact(path) => self.exact.entry(path.clone()).or_default(),
            PathPattern::Prefix(prefix) => self.prefixes.entry(prefix.clone()).or_default(),
            PathPattern::Regex(regex) => {
                // The longer says more.
                let rank = |r: &Regex, e: &Entry| (r.as_str().len(), e.rank());
                let new = rank(regex, &entry);
                let at = self.regexes.partition_point(|(r, e)| rank(r, e) >= new);
                self.regexes.insert(at, (regex.clone(), entry));
                return;
            }
        };
        let at = entries.partition_point(|known| known.rank() >= entry.rank());
        entries.insert(at, entry);
    }

    fn find(&self, asked: &Asked<'_>) -> Option<Chosen<'_>> {
        if let Some(entries) = self.exact.get(asked.path)
            && let Some(entry) = entries.iter().find(|e| e.matches(asked))
        {
            return Some(Chosen {
                route: &entry.route,
                prefix: asked.path.len(),
                by: MatchedBy::Exact,
            });
        }
        for (regex, entry) in &self.regexes {
            if regex.is_match(asked.path) && entry.matches(asked) {
                return Some(Chosen {
                    route: &entry.route,
                    prefix: asked.path.len(),
                    by: MatchedBy::Regex(regex),
                });
            }
        }
        if self.prefixes.is_empty() {
            return None;
        }
        let mut prefix = asked.path.strip_suffix('/').unwrap_or(asked.path);
        loop {
            if let Some(entries) = self.prefixes.get(prefix)
                && let Some(entry) = entries.iter().find(|e| e.matches(asked))
            {
                return Some(Chosen {
                    route: &entry.route,
                    prefix: prefix.len(),
                    by: MatchedBy::Prefix,
                });
            }
            prefix = prefix.rsplit_once('/')?.0;
        }
    }
}

impl Entry {
    /// Orders entries of the same host and path.
    fn rank(&self) -> (bool, usize, usize) {
        (self.method.is_some(), self.headers.len(), self.query.len())
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == asked.method)
            && self.headers.iter().all(|(name, pattern)| {
                let mut values = asked.headers.get_all(name).iter();
                values.any(|value| value.to_str().is_ok_and(|value| pattern.matches(value)))
            })
            && (self.query.is_empty() || self.matches_query(asked.query.unwrap_or("")))
    }

    fn matches_query(&self, query: &str) -> bool {
        self.query.iter().all(|(name, pattern)| {
            // Of a name that is repeated, the first counts, as Gateway API recommends.
            let first = query.split('&').find_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode_query(key) == *name).then(|| decode_query(value))
            });
            first.is_some_and(|value| pattern.matches(&value))
        })
    }
}

/// `application/x-www-form-urlencoded`.
pub fn decode_query(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut ahead = rest.clone();
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                        rest = ahead;
                    }
                    _ => bytes.push(b'%'),
                }
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;

//! The catalog's sections as they are written in the configuration file. Nothing is checked here
//! but the shape; [`super::compile`] gives it meaning.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error as _};
use stoa_policy::{config::Policies, plan::Plan};

use super::{additions::Additions, network::Network};

/// The top-level keys that are sections of the catalog; every other key is a setting.
pub const SECTIONS: &[&str] =
    &["listeners", "upstreams", "routes", "paths", "policies", "plans", "contracts"];

/// The sections. Keys beside them are settings, which `config` has checked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Document {
    pub listeners: Vec<ListenerDocument>,
    pub upstreams: BTreeMap<String, UpstreamDocument>,
    pub routes: Vec<RouteDocument>,
    pub paths: PathsDocument,
    pub policies: Policies,
    /// Beside the published ones, or instead of them.
    pub plans: BTreeMap<String, Plan>,
    /// Approved contracts by service: what a policy's `contract: {service: NAME}` means.
    pub contracts: BTreeMap<String, ContractDocument>,
    /// Not of the file: what the admin API added.
    #[serde(skip)]
    pub made: Additions,
}

/// A file of OpenAPI or UAC, by its path alone or by `file`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "the path of a file, or {file: PATH}")]
pub enum ContractDocument {
    Path(PathBuf),
    File(ContractFileDocument),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractFileDocument {
    pub file: PathBuf,
}

impl ContractDocument {
    pub fn file(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::File(ContractFileDocument { file }) => file,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerDocument {
    /// For logs and metrics.
    pub name: Option<String>,
    /// `IP:PORT`; the port alone listens on every address.
    pub address: String,
    #[serde(default)]
    pub protocol: ListenerProtocol,
    pub tls: Option<ListenerTlsDocument>,
    /// Connections from these networks begin with a PROXY protocol header; from others they never
    /// do.
    #[serde(default)]
    pub proxy_protocol_from: Vec<Network>,
    /// Proxies in front of this one, whose `Forwarded` and `X-Forwarded-*` are believed.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ListenerProtocol {
    /// HTTP/1.1 or HTTP/2, by ALPN or by the first bytes.
    #[default]
    Auto,
    Http1,
    Http2,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerTlsDocument {
    /// The first is for clients that name no server, or one that none is for.
    pub certificates: Vec<CertificateDocument>,
    /// PEM file of the authorities that sign client certificates.
    pub client_ca: Option<PathBuf>,
    #[serde(default)]
    pub client_certificate: ClientCertificateMode,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateDocument {
    /// PEM file: the certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM file.
    pub key: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificateMode {
    /// A client without one is let in, to be judged by the policies.
    Optional,
    #[default]
    Required,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamDocument {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: Option<String>,
    /// Several servers that answer alike, instead of `url`.
    #[serde(default)]
    pub endpoints: Vec<EndpointDocument>,
    #[serde(default)]
    pub balance: Balance,
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    pub tls: Option<UpstreamTlsDocument>,
    /// Each connection begins with a PROXY protocol version 2 header that names the client.
    #[serde(default)]
    pub send_proxy_protocol: bool,
    pub connect_timeout: Option<Period>,
    /// How long an unused connection is kept.
    pub idle_timeout: Option<Period>,
}

impl UpstreamDocument {
    /// One server, and the rest as it is by default.
    pub fn of_url(url: &str) -> Self {
        Self {
            url: Some(url.to_owned()),
            endpoints: Vec::new(),
            balance: Balance::default(),
            protocol: UpstreamProtocol::default(),
            tls: None,
            send_proxy_protocol: false,
            connect_timeout: None,
            idle_timeout: None,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointDocument {
    /// `HOST:PORT`.
    pub address: String,
    pub weight: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    #[default]
    RoundRobin,
    LeastRequest,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    #[default]
    Http1,
    /// Over TLS by ALPN, else with prior knowledge (h2c).
    Http2,
}

/// With an `https` URL, or with endpoints that speak TLS.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTlsDocument {
    /// PEM file of the authorities to believe, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The name that the server's certificate must have, if not that of the URL.
    pub server_name: Option<String>,
    /// PEM files of our own certificate, for a server that asks for one.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteDocument {
    pub name: Option<String>,
    pub tenant: Option<String>,
    /// A set of the `policies` section.
    pub policies: Option<String>,
    /// `api.example.com`, `*.example.com`; none: any.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// One of these must hold, each with all that it says; none: any request.
    #[serde(default)]
    pub matches: Vec<MatchDocument>,
    /// Short for one of `backends`.
    pub upstream: Option<String>,
    #[serde(default)]
    pub backends: Vec<BackendDocument>,
    pub redirect: Option<RedirectDocument>,
    pub rewrite: Option<RewriteDocument>,
    #[serde(default)]
    pub request: ChangesDocument,
    #[serde(default)]
    pub response: ChangesDocument,
    #[serde(default)]
    pub timeouts: TimeoutsDocument,
    pub retries: Option<RetriesDocument>,
    #[serde(default)]
    pub mirrors: Vec<MirrorDocument>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatchDocument {
    pub path: Option<PathDocument>,
    pub method: Option<String>,
    pub headers: BTreeMap<String, ValueDocument>,
    pub query: BTreeMap<String, ValueDocument>,
}

/// One of the three.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PathDocument {
    pub exact: Option<String>,
    /// Whole segments: `/a` holds `/a` and `/a/b`, not `/ab`.
    pub prefix: Option<String>,
    /// The whole path.
    pub regex: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum ValueDocument {
    Exact(String),
    Regex(RegexDocument),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegexDocument {
    /// The whole value.
    pub regex: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendDocument {
    pub upstream: String,
    pub weight: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedirectDocument {
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// The whole path.
    pub path: Option<String>,
    /// Instead of the prefix that matched.
    pub prefix: Option<String>,
    /// 301, 302, 303, 307 or 308 [302].
    pub status: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewriteDocument {
    /// Of the request that the upstream gets; else the client's is kept.
    pub host: Option<String>,
    pub path: Option<String>,
    pub prefix: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChangesDocument {
    pub set: BTreeMap<String, String>,
    pub add: BTreeMap<String, String>,
    pub remove: Vec<String>,
    /// Only with `transform_request` or `transform_response`.
    pub body: Option<BodyDocument>,
}

/// Changes of a JSON body. Fields are named by a path, `customer.address.0.street`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BodyDocument {
    /// The whole body anew: text in which `{{ path }}` stands for a field of the old one.
    pub template: Option<String>,
    pub rename: BTreeMap<String, String>,
    pub remove: Vec<String>,
    pub set: BTreeMap<String, serde_json::Value>,
    /// A longer body is refused [1 MiB].
    pub max_bytes: Option<usize>,
    /// Of what `template` makes.
    pub content_type: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsDocument {
    /// From the request's head to the response's, retries included [30s]; 0: none.
    pub request: Option<Period>,
    /// The same for one try.
    pub upstream: Option<Period>,
    /// Without a byte in either direction [60s]; 0: none.
    pub idle: Option<Period>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetriesDocument {
    /// After the first try.
    pub attempts: u8,
    /// Statuses that are worth another try, beside failed connections [502, 503, 504].
    #[serde(default = "retried_statuses")]
    pub statuses: Vec<u16>,
    /// Retries are at most so many percent of the requests of the last seconds [20].
    #[serde(default = "retry_budget_percent")]
    pub budget_percent: u8,
}

fn retried_statuses() -> Vec<u16> {
    vec![502, 503, 504]
}

fn retry_budget_percent() -> u8 {
    20
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorDocument {
    pub upstream: String,
    /// Of the requests [100].
    pub percent: Option<f64>,
}

/// How paths are read before a route is chosen.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PathsDocument {
    pub encoded_slashes: EncodedSlashes,
    /// `//` stays.
    pub keep_double_slashes: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlashes {
    /// `%2F` and `%5C` are refused: servers disagree on whether they separate segments.
    #[default]
    Reject,
    /// They pass as they are, and separate nothing here.
    Keep,
}

/// `30s`, `250ms`, `5m`, or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Seconds(f64),
            Text(String),
        }
        let text = match Given::deserialize(deserializer)? {
            Given::Seconds(seconds) => seconds.to_string(),
            Given::Text(text) => text,
        };
        parse_period(&text).map(Self).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is not a time; write 30s, 250ms, 5m or 1h"))
        })
    }
}

fn parse_period(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..)? {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let seconds = digits.trim().parse::<f64>().ok()? * factor;
    (0.0..=86_400.0 * 365.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_have_units() {
        for (text, expected) in [
            ("30s", Some(Duration::from_secs(30))),
            ("250ms", Some(Duration::from_millis(250))),
            ("1.5m", Some(Duration::from_secs(90))),
            ("7", Some(Duration::from_secs(7))),
            ("0", Some(Duration::ZERO)),
            ("-1s", None),
            ("5 parsecs", None),
            ("", None),
            ("NaN", None),
        ] {
            assert_eq!(parse_period(text), expected, "{text}");
        }
    }
}

//! What is configured: listeners, upstreams, routes and the policies they name, as one immutable
//! snapshot. It is filled from a file now; the data path does not know from where.

pub mod additions;
mod breakers;
mod compile;
pub mod document;
pub mod files;
pub mod live;
pub mod network;
pub mod routes;
pub mod upstreams;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use stoa_policy::{
    config::Policies,
    connection_filter::{ConnectionFilter, ConnectionLimit},
    engine::Engine,
};

use self::{
    additions::Additions,
    breakers::BreakerConfigs,
    document::{Document, EncodedSlashes, ListenerProtocol},
    files::Files,
    network::Network,
    routes::RouteTable,
    upstreams::Upstream,
};

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("cannot read {file}: {reason}")]
    Read { file: String, reason: String },
    #[error("{file} is not as it should be: {reason}")]
    Syntax { file: String, reason: String },
    #[error("{file}: `{key}` {reason}")]
    Invalid { file: String, key: String, reason: String },
    #[error("{0}")]
    Additions(#[from] additions::AdditionsError),
}

/// What the settings say, beside the file.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Where clients connect if the file has no listener.
    pub listen: SocketAddr,
    /// Of routes that name none.
    pub tenant: String,
    /// `--upstream`: where everything goes that no route matches.
    pub upstream: Option<String>,
    /// How often the files are looked at; `None`: only when somebody asks.
    pub look_every: Option<Duration>,
    pub connections: ConnectionSettings,
}

/// Which connections are not taken.
#[derive(Clone, Debug, Default)]
pub struct ConnectionSettings {
    pub blocked: Vec<IpNet>,
    /// More of them, a line each.
    pub blocked_file: Option<PathBuf>,
    pub limit: Option<Arc<ConnectionLimit>>,
}

/// Makes the engine of one configuration, or says what in it is wrong. What it reads through
/// [`Files`] is read again when it changes.
pub type BuildEngine = dyn Fn(&Document, &mut Files) -> Result<Engine, String> + Send + Sync;

/// One configuration. Nothing in it changes; a new one replaces it whole.
#[derive(Debug)]
pub struct Catalog {
    pub listeners: Vec<Arc<Listener>>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub routes: RouteTable,
    pub paths: Paths,
    pub policies: Policies,
    pub breakers: BreakerConfigs,
    pub engine: Engine,
    pub connections: ConnectionFilter,
}

#[derive(Debug)]
pub struct Listener {
    pub name: Arc<str>,
    pub address: SocketAddr,
    pub protocol: ListenerProtocol,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub proxy_protocol_from: Vec<Network>,
    pub trusted_proxies: Vec<Network>,
}

/// How paths are read, `proxy::target`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    pub encoded_slashes: EncodedSlashes,
    pub keep_double_slashes: bool,
}

impl Catalog {
    /// Reads the sections of `file`; without a file, what the settings say is all there is, beside
    /// what the admin API added.
    pub fn load(
        file: Option<&Path>,
        additions: &Additions,
        defaults: &Defaults,
        build_engine: &BuildEngine,
        files: &mut Files,
    ) -> Result<Self, CatalogError> {
        let (name, mut document) = match file {
            None => ("the settings".to_owned(), Document::default()),
            Some(path) => {
                let name = path.display().to_string();
                let text = files.read_text(path).map_err(|e| CatalogError::Read {
                    file: name.clone(),
                    reason: e.to_string(),
                })?;
                let document = Self::read(&name, &text)?;
                (name, document)
            }
        };
        additions.add_to(&mut document);
        compile::compile(&name, document, defaults, build_engine, files)
    }

    /// `name` is what errors call the text.
    pub fn parse(
        name: &str,
        text: &str,
        defaults: &Defaults,
        build_engine: &BuildEngine,
        files: &mut Files,
    ) -> Result<Self, CatalogError> {
        compile::compile(name, Self::read(name, text)?, defaults, build_engine, files)
    }

    fn read(name: &str, text: &str) -> Result<Document, CatalogError> {
        if text.trim().is_empty() {
            return Ok(Document::default());
        }
        serde_norway::from_str::<Option<Document>>(text).map(Option::unwrap_or_default).map_err(
            |e| CatalogError::Syntax {
                file: name.to_owned(),
                reason: without_value(&e.to_string()),
            },
        )
    }
}

/// A value of a wrong type may be a secret, and what is wrong with a file is shown to whoever asks
/// for the agent's health. By the messages of `serde::de::Unexpected`: `invalid type: integer
/// `4711`, expected a string at line 3`.
fn without_value(reason: &str) -> String {
    let found = ["invalid type: ", "invalid value: "].iter().find_map(|intro| {
        let start = reason.find(intro)? + intro.len();
        let end = start + reason.get(start..)?.rfind(", expected ")?;
        let quote = start + reason.get(start..end)?.find(['`', '"'])?;
        Some((reason.get(..quote)?.trim_end(), reason.get(end..)?))
    });
    found.map_or_else(|| reason.to_owned(), |(before, after)| format!("{before}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_without_the_value() {
        let of = |text: &str| Catalog::read("stoa.yaml", text).unwrap_err().to_string();
        let secret = "policies: {a: {identity: {methods: [{jwt: {hs256_secret: 8675309}}]}}}";
        for text in [secret, "routes: \"p, expected `x`\"", "upstreams: [hunter2]"] {
            let said = of(text);
            assert!(said.contains("stoa.yaml") && !said.contains("8675309"), "{said}");
            assert!(!said.contains("hunter2") && !said.contains("`x`"), "{said}");
        }
        let said = without_value("a.b: invalid type: integer `4711`, expected a string at line 3");
        assert_eq!(said, "a.b: invalid type: integer, expected a string at line 3");
        assert_eq!(without_value("unknown field `x`"), "unknown field `x`");
    }
}

//! What is configured: listeners, upstreams, routes and the policies they name, as one immutable
//! snapshot. It is filled from a file now; the data path does not know from where.

mod breakers;
mod compile;
pub mod document;
pub mod files;
pub mod live;
pub mod network;
pub mod routes;
pub mod upstreams;

use std::{net::SocketAddr, path::Path, sync::Arc};

use stoa_policy::{config::Policies, engine::Engine};

use self::{
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
    /// Reads the sections of `file`; without a file, what the settings say is all there is.
    pub fn load(
        file: Option<&Path>,
        defaults: &Defaults,
        build_engine: &BuildEngine,
        files: &mut Files,
    ) -> Result<Self, CatalogError> {
        let Some(path) = file else {
            return compile::compile(
                "the settings",
                Document::default(),
                defaults,
                build_engine,
                files,
            );
        };
        let name = path.display().to_string();
        let text = files
            .read_text(path)
            .map_err(|e| CatalogError::Read { file: name.clone(), reason: e.to_string() })?;
        Self::parse(&name, &text, defaults, build_engine, files)
    }

    /// `name` is what errors call the text.
    pub fn parse(
        name: &str,
        text: &str,
        defaults: &Defaults,
        build_engine: &BuildEngine,
        files: &mut Files,
    ) -> Result<Self, CatalogError> {
        let document = match text.trim().is_empty() {
            true => Document::default(),
            false => serde_norway::from_str::<Option<Document>>(text)
                .map_err(|e| CatalogError::Syntax { file: name.to_owned(), reason: e.to_string() })?
                .unwrap_or_default(),
        };
        compile::compile(name, document, defaults, build_engine, files)
    }
}

//! One typed configuration. Flags win over `STOA_*` variables, those over older names, those over
//! the file, that over the defaults.

mod kafka;
pub mod layers;
mod names;
mod parse;
pub mod policy;
pub mod proxy;
pub mod settings;
pub mod shadow;
pub mod sidecar;
pub mod telemetry;

use std::{
    ffi::OsString,
    io::IsTerminal,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{Arg, ArgAction, Command};

use layers::{Given, Layer};
use parse::{parse_bool, parse_log_level, parse_number, parse_path, parse_sources, parse_tenant};
use policy::PolicySettings;
use proxy::ProxySettings;
use settings::Kind;
use shadow::ShadowSettings;
use sidecar::SidecarSettings;
use stoa_policy::sources::Sources;
use telemetry::TelemetrySettings;

use crate::{
    admin::token::AdminToken,
    catalog::{ConnectionSettings, Defaults, live::LOOK_EVERY},
    redirect::RedirectConfig,
    telemetry::access_log::Destination,
};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Flags(#[from] clap::Error),
    #[error("`{name}` is not a variable of stoa-gateway.{hint} Valid ones: {}", .valid.join(", "))]
    UnknownVariable { name: String, hint: String, valid: Vec<&'static str> },
    #[error("`{key}` in {file} is not a setting.{hint} Valid ones: {valid}")]
    UnknownKey { key: String, file: String, hint: String, valid: String },
    #[error("cannot use the file {file}: {reason}")]
    BrokenFile { file: String, reason: String },
    #[error("{origin}: {reason}")]
    Value { origin: String, reason: String },
    #[error("{0}")]
    Contradiction(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What this agent does.
#[derive(Clone, Debug)]
pub enum Mode {
    Shadow(Box<ShadowSettings>),
    Proxy(Box<ProxySettings>),
    Sidecar(Box<SidecarSettings>),
}

impl Mode {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Shadow(_) => "shadow",
            Self::Proxy(_) => "proxy",
            Self::Sidecar(_) => "sidecar",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModeName {
    Shadow,
    Proxy,
    Sidecar,
}

impl ModeName {
    /// Whoever asks a sidecar is believed what it says of the user: by default only the same pod.
    fn default_host(self) -> IpAddr {
        IpAddr::V4(match self {
            Self::Sidecar => Ipv4Addr::LOCALHOST,
            Self::Proxy | Self::Shadow => Ipv4Addr::UNSPECIFIED,
        })
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Sidecar => 8081,
            Self::Proxy => 8082,
            Self::Shadow => 8083,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Config {
    pub mode: Mode,
    /// The HTTP API of the mode; in proxy mode, where clients connect if no listener is configured.
    pub listen: SocketAddr,
    pub tenant: String,
    pub state_dir: PathBuf,
    /// The policy set that variables and flags make.
    pub policy: PolicySettings,
    pub telemetry: TelemetrySettings,
    /// `None`: the admin API is off.
    pub admin_token: Option<AdminToken>,
    /// How often the configuration's files are looked at; `None`: only when somebody asks.
    pub look_every: Option<Duration>,
    /// Variables, and what else was asked for, that are known and do nothing in this build.
    pub without_effect: Vec<String>,
    /// `None`: nothing is steered.
    pub redirect: Option<RedirectConfig>,
    pub log_level: String,
    pub log_format: LogFormat,
    /// The file that was read, if any. Its catalog sections are read by `catalog`.
    pub file: Option<PathBuf>,
}

impl Config {
    /// What the catalog needs of it.
    pub fn defaults(&self) -> Defaults {
        let (upstream, connections) = match &self.mode {
            Mode::Proxy(proxy) => (proxy.upstream.clone(), proxy.connections.clone()),
            Mode::Shadow(_) | Mode::Sidecar(_) => (None, ConnectionSettings::default()),
        };
        Defaults {
            listen: self.listen,
            tenant: self.tenant.clone(),
            upstream,
            look_every: self.look_every,
            connections,
        }
    }
}

/// Reads flags, variables and the file that they name.
pub fn load(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let flags = read_flags(arguments)?;
    let variables: Vec<(String, String)> = variables.into_iter().collect();
    let without_effect = layers::without_effect(&variables);
    let variables = layers::read_variables(variables)?;
    let named = flags.get("config").or_else(|| variables.get("config")).cloned();
    let (file, path) = match named {
        Some(given) => {
            let path = PathBuf::from(given.values.first().cloned().unwrap_or_default());
            (read_named_file(&path)?, Some(path))
        }
        None => match find_default_file() {
            Some(path) => (read_named_file(&path)?, Some(path)),
            None => (Layer::new(), None),
        },
    };
    let mut config = Values { layers: [flags, variables, file] }.into_config()?;
    config.file = path;
    config.without_effect.splice(0..0, without_effect);
    Ok(config)
}

fn find_default_file() -> Option<PathBuf> {
    ["config.yaml", "config.yml", "/etc/stoa/config.yaml"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
}

fn read_named_file(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::BrokenFile {
        file: path.display().to_string(),
        reason: format!("{e}; name another with --config or STOA_CONFIG"),
    })?;
    layers::read_file(path, &text)
}

/// The command line, made from the table of settings.
pub fn command() -> Command {
    let mut command = Command::new("stoa-gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Watches HTTP traffic and writes each service's contract; serves it under policies")
        .long_about(
            "Watches the HTTP traffic of the services you name, without touching it, and writes \
             what it learns as OpenAPI 3.1 and UAC. Personal data is masked before anything is \
             kept, logged or shown.\n\n\
             Try it on a service of your own, then stop with Ctrl-C:\n\n  \
             stoa-gateway --mode shadow --watch api=port:8000\n\n\
             Without root, through a pass-through listener:\n\n  \
             stoa-gateway --capture inline --target http://127.0.0.1:8000 --inline-listen 127.0.0.1:9083\n\n\
             As a reverse proxy, with routes and policies from a file or for one upstream:\n\n  \
             stoa-gateway --mode proxy --upstream http://backend:8080",
        )
        .after_help(
            "Every setting is also a variable (in brackets) and a key of the YAML file (the \
             flag's name with `_` for `-`). Flags win over variables, variables over the file. \
             STOA_GATEWAY_SERVICE_HOST, STOA_GATEWAY_PORT=tcp://... and the like, which \
             Kubernetes sets for a service called stoa-gateway, are not configuration.",
        )
        .max_term_width(100);
    for setting in settings::all() {
        let help = match setting.variables.first() {
            Some(variable) => format!("{} [{variable}]", setting.help),
            None => setting.help.to_owned(),
        };
        let mut argument = Arg::new(setting.key)
            .long(setting.key)
            .value_name(setting.value_name)
            .help(help)
            .help_heading(setting.group);
        argument = argument.aliases(names::other_flags(setting.key));
        argument = match setting.kind {
            Kind::One => argument.action(ArgAction::Set),
            Kind::Many => argument.action(ArgAction::Append),
            Kind::Switch => argument
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        };
        command = command.arg(argument);
    }
    command
}

fn read_flags(arguments: impl IntoIterator<Item = OsString>) -> Result<Layer, ConfigError> {
    let matches = command().try_get_matches_from(arguments)?;
    let mut layer = Layer::new();
    for setting in settings::all() {
        if let Some(values) = matches.get_many::<String>(setting.key) {
            let origin = format!("--{}", setting.key);
            layer.insert(setting.key, Given { values: values.cloned().collect(), origin });
        }
    }
    Ok(layer)
}

/// The layers, strongest first.
struct Values {
    layers: [Layer; 3],
}

impl Values {
    /// Nothing was given.
    fn none() -> Self {
        Self { layers: [Layer::new(), Layer::new(), Layer::new()] }
    }

    fn given(&self, key: &str) -> Option<&Given> {
        debug_assert!(settings::all().any(|s| s.key == key), "no such setting: {key}");
        self.layers.iter().find_map(|layer| layer.get(key))
    }

    fn read<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(given) = self.given(key) else { return Ok(None) };
        let text = given.values.first().map_or("", String::as_str);
        parse(text.trim())
            .map(Some)
            .map_err(|reason| ConfigError::Value { origin: given.origin.clone(), reason })
    }

    fn read_all<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(given) = self.given(key) else { return Ok(Vec::new()) };
        given
            .values
            .iter()
            .map(|text| {
                parse(text.trim())
                    .map_err(|reason| ConfigError::Value { origin: given.origin.clone(), reason })
            })
            .collect()
    }

    fn read_sources(&self, key: &str) -> Result<Option<Sources>, ConfigError> {
        let Some(given) = self.given(key) else { return Ok(None) };
        parse_sources(&given.values)
            .map(Some)
            .map_err(|reason| ConfigError::Value { origin: given.origin.clone(), reason })
    }

    fn into_config(self) -> Result<Config, ConfigError> {
        let mode = self.read("mode", parse_mode)?.unwrap_or(ModeName::Shadow);
        let host = self.read("host", |t| {
            t.trim_start_matches('[')
                .trim_end_matches(']')
                .parse::<IpAddr>()
                .map_err(|_| format!("`{t}` is not an IP address"))
        })?;
        let port = self.read("port", |t| parse_number(t, 0, 65535))?;
        let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(mode.default_port());
        let state_dir = match self.read("state-dir", parse_path)? {
            Some(path) => path,
            None => default_state_dir()?,
        };
        let log_format = self.read("log-format", |t| match t.to_lowercase().as_str() {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("`{t}` is not a log format; valid ones: text, json")),
        })?;
        // What is only watched is nobody's use of this agent.
        let is_steered = self.given("redirect-socket").is_some();
        Ok(Config {
            mode: match mode {
                ModeName::Shadow => {
                    Mode::Shadow(Box::new(ShadowSettings::read(&self, &state_dir)?))
                }
                ModeName::Proxy => Mode::Proxy(Box::new(ProxySettings::read(&self, host)?)),
                ModeName::Sidecar => Mode::Sidecar(Box::new(SidecarSettings::read(&self)?)),
            },
            listen: SocketAddr::new(host.unwrap_or(mode.default_host()), port),
            tenant: self.read("tenant", parse_tenant)?.unwrap_or_else(|| "default".to_owned()),
            state_dir,
            policy: PolicySettings::read(&self, mode)?,
            telemetry: TelemetrySettings::read(&self)?,
            admin_token: self.read("admin-api-token", AdminToken::parse)?,
            look_every: self.read_look_every()?,
            without_effect: match mode {
                ModeName::Shadow if !is_steered && self.wants_metering()? => {
                    vec!["metering, where nothing is proxied, steered or decided".to_owned()]
                }
                _ => Vec::new(),
            },
            redirect: self.read_redirect(host)?,
            log_level: self
                .read("log-level", parse_log_level)?
                .unwrap_or_else(|| "info".to_owned()),
            log_format: log_format.unwrap_or_else(|| match std::io::stderr().is_terminal() {
                true => LogFormat::Text,
                false => LogFormat::Json,
            }),
            file: None,
        })
    }
}

impl Values {
    /// The documented default of metering is true, so only who says so expects it.
    fn wants_metering(&self) -> Result<bool, ConfigError> {
        let is_metered = self.read("metering-enabled", parse_bool)? == Some(true);
        Ok(is_metered || self.read("kafka-enabled", parse_bool)? == Some(true))
    }

    fn read_look_every(&self) -> Result<Option<Duration>, ConfigError> {
        let seconds = self.read("route-reload-interval-secs", |t| parse_number(t, 1, 86_400))?;
        let is_on = self.read("route-reload-enabled", parse_bool)?.unwrap_or(true);
        Ok(is_on.then(|| seconds.map_or(LOOK_EVERY, Duration::from_secs)))
    }

    fn read_redirect(&self, host: Option<IpAddr>) -> Result<Option<RedirectConfig>, ConfigError> {
        let Some(socket) = self.read("redirect-socket", parse_path)? else { return Ok(None) };
        let mut proxy = ProxySettings::read(self, host)?;
        // The application gets what its client sent, and answers it itself.
        proxy.transform_request = false;
        proxy.transform_response = false;
        proxy.inject_headers = false;
        proxy.websocket_passthrough = true;
        proxy.websocket_messages = None;
        if self.given("access-log").is_none() {
            proxy.access_log = Destination::Off;
        }
        let drain = self.read("redirect-drain-seconds", |t| parse_number(t, 0, 3600))?;
        Ok(Some(RedirectConfig {
            socket,
            drain: Duration::from_secs(drain.unwrap_or(30)),
            proxy: Arc::new(proxy),
        }))
    }
}

/// The modes of this build.
const BUILT: &str = "shadow, proxy, sidecar";

fn parse_mode(text: &str) -> Result<ModeName, String> {
    match text.to_lowercase().replace('_', "-").as_str() {
        "shadow" => Ok(ModeName::Shadow),
        "proxy" => Ok(ModeName::Proxy),
        "sidecar" => Ok(ModeName::Sidecar),
        mode @ ("edge-mcp" | "edgemcp" | "mcp") => {
            Err(format!("mode `{mode}` is not in this build, which has: {BUILT}. Use one of them"))
        }
        _ => Err(format!(
            "unknown mode `{text}`. Modes: edge-mcp, sidecar, proxy, shadow; this build has: {BUILT}"
        )),
    }
}

pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

fn default_state_dir() -> Result<PathBuf, ConfigError> {
    if is_root() {
        return Ok(PathBuf::from("/var/lib/stoa-gateway"));
    }
    let base = std::env::var_os("XDG_STATE_HOME")
        .filter(|p| !p.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state")));
    match base {
        Some(base) => Ok(base.join("stoa-gateway")),
        None => Err(ConfigError::Contradiction(
            "there is no home directory to keep state in: give --state-dir DIR".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests;

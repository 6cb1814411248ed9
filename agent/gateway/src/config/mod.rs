//! One typed configuration. Flags win over `STOA_*` variables, those over older names, those over
//! the file, that over the defaults.

pub mod layers;
pub mod settings;

use std::{
    ffi::OsString,
    io::IsTerminal,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Arg, ArgAction, Command};

use crate::capture::{
    CaptureMethod,
    watch::{self, NamedWatch},
};
use layers::{Given, Layer};
use settings::{Kind, SETTINGS};

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

/// What Inline capture connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub tenant: String,
    /// `None`: chosen at start, by what the kernel allows.
    pub capture: Option<CaptureMethod>,
    pub watches: Vec<NamedWatch>,
    pub target: Option<Target>,
    pub inline_listen: SocketAddr,
    pub service: Option<String>,
    pub interface: Option<String>,
    pub pcap: Option<PathBuf>,
    pub record: Option<PathBuf>,
    pub output: PathBuf,
    pub state_dir: PathBuf,
    pub min_requests: u64,
    pub analysis_window: Duration,
    pub retention: Duration,
    pub summary: bool,
    pub body_bytes: usize,
    pub ring_bytes: usize,
    pub memory_bytes: usize,
    pub max_connections: usize,
    /// `None`: only what nobody else wants (SCHED_IDLE).
    pub nice: Option<i32>,
    pub log_level: String,
    pub log_format: LogFormat,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

/// Reads flags, variables and the file that they name.
pub fn load(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let flags = read_flags(arguments)?;
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
        .about("Watches HTTP traffic and writes the contract of each service, with personal data masked")
        .long_about(
            "Watches the HTTP traffic of the services you name, without touching it, and writes \
             what it learns as OpenAPI 3.1 and UAC. Personal data is masked before anything is \
             kept, logged or shown.\n\n\
             Try it on a service of your own, then stop with Ctrl-C:\n\n  \
             stoa-gateway --mode shadow --watch api=port:8000\n\n\
             Without root, through a pass-through listener:\n\n  \
             stoa-gateway --capture inline --target http://127.0.0.1:8000 --inline-listen 127.0.0.1:9083",
        )
        .after_help(
            "Every setting is also a variable (in brackets) and a key of the YAML file (the \
             flag's name with `_` for `-`). Flags win over variables, variables over the file. \
             STOA_GATEWAY_SERVICE_HOST, STOA_GATEWAY_PORT=tcp://... and the like, which \
             Kubernetes sets for a service called stoa-gateway, are not configuration.",
        )
        .max_term_width(100);
    for setting in SETTINGS {
        let help = match setting.variables.first() {
            Some(variable) => format!("{} [{variable}]", setting.help),
            None => setting.help.to_owned(),
        };
        let mut argument = Arg::new(setting.key)
            .long(setting.key)
            .value_name(setting.value_name)
            .help(help)
            .help_heading(setting.group);
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
    for setting in SETTINGS {
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
    fn given(&self, key: &str) -> Option<&Given> {
        debug_assert!(SETTINGS.iter().any(|s| s.key == key), "no such setting: {key}");
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

    fn into_config(self) -> Result<Config, ConfigError> {
        self.read("mode", parse_mode)?;
        let host = self.read("host", |t| {
            t.trim_start_matches('[')
                .trim_end_matches(']')
                .parse::<IpAddr>()
                .map_err(|_| format!("`{t}` is not an IP address"))
        })?;
        let port = self.read("port", |t| parse_number(t, 0, 65535))?;
        let state_dir = match self.read("state-dir", parse_path)? {
            Some(path) => path,
            None => default_state_dir()?,
        };
        let output = self.read("output", parse_path)?.unwrap_or_else(|| match is_root() {
            true => PathBuf::from("/var/stoa/uac"),
            false => state_dir.join("contracts"),
        });
        let hours = self.read("analysis-window-hours", |t| parse_number(t, 1, 24 * 29))?;
        let days = self.read("retention-days", parse_retention)?;
        let log_format = self.read("log-format", |t| match t.to_lowercase().as_str() {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("`{t}` is not a log format; valid ones: text, json")),
        })?;
        let config = Config {
            listen: SocketAddr::new(
                host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                u16::try_from(port.unwrap_or(8083)).unwrap_or(8083),
            ),
            tenant: self.read("tenant", parse_tenant)?.unwrap_or_else(|| "default".to_owned()),
            capture: self.read("capture", |t| t.parse())?,
            watches: self.read_all("watch", |t| t.parse())?,
            target: self.read("target", parse_target)?,
            inline_listen: self
                .read("inline-listen", parse_listen)?
                .unwrap_or_else(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9083)),
            service: self
                .read("service", |t| watch::check_service_name(t).map(|()| t.to_owned()))?,
            interface: self.read("interface", |t| match t {
                "" => Err("the interface's name is empty".to_owned()),
                _ => Ok(t.to_owned()),
            })?,
            pcap: self.read("pcap", parse_path)?,
            record: self.read("record", parse_path)?,
            output,
            state_dir,
            min_requests: self
                .read("min-requests-for-uac", |t| parse_number(t, 1, u64::MAX))?
                .unwrap_or(100),
            analysis_window: Duration::from_secs(hours.unwrap_or(168) * 3600),
            retention: Duration::from_secs(days.unwrap_or(14) * 86_400),
            summary: self
                .read("summary", parse_bool)?
                .unwrap_or_else(|| std::io::stdout().is_terminal()),
            body_bytes: self.read("body-bytes", |t| parse_size(t, 0, 1 << 20))?.unwrap_or(16 << 10),
            ring_bytes: self
                .read("ring-bytes", |t| parse_size(t, 64 << 10, 1 << 30))?
                .unwrap_or(8 << 20),
            memory_bytes: self
                .read("memory-bytes", |t| parse_size(t, 1 << 20, 1 << 40))?
                .unwrap_or(24 << 20),
            max_connections: self
                .read("max-connections", |t| parse_number(t, 1, 1_000_000))?
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(4096),
            nice: self.read("nice", parse_niceness)?.flatten(),
            log_level: self
                .read("log-level", parse_log_level)?
                .unwrap_or_else(|| "info".to_owned()),
            log_format: log_format.unwrap_or_else(|| match std::io::stderr().is_terminal() {
                true => LogFormat::Text,
                false => LogFormat::Json,
            }),
            file: None,
        };
        refuse_contradictions(&config)?;
        Ok(config)
    }
}

fn refuse_contradictions(config: &Config) -> Result<(), ConfigError> {
    let refuse = |text: &str| Err(ConfigError::Contradiction(text.to_owned()));
    if config.interface.is_some() && config.pcap.is_some() {
        return refuse("--interface and --pcap exclude each other: give one of them");
    }
    if config.analysis_window > config.retention {
        return refuse(
            "the analysis window (--analysis-window-hours) is longer than what is kept \
             (--retention-days): shorten the one or lengthen the other",
        );
    }
    match config.capture {
        Some(CaptureMethod::Ebpf) if config.watches.is_empty() => refuse(
            "capture Ebpf needs to know what to watch: give --watch NAME=port:PORT, NAME=pid:PID \
             or NAME=cgroup:PATH",
        ),
        Some(CaptureMethod::Inline) if config.target.is_none() => {
            refuse("capture Inline needs --target http://HOST:PORT, where it passes traffic on to")
        }
        Some(CaptureMethod::PortMirror) if config.interface.is_none() && config.pcap.is_none() => {
            refuse("capture PortMirror needs --interface IF or --pcap FILE")
        }
        Some(method @ (CaptureMethod::Ebpf | CaptureMethod::Inline))
            if config.interface.is_some() || config.pcap.is_some() =>
        {
            Err(ConfigError::Contradiction(format!(
                "--interface and --pcap are for capture PortMirror, not for {method}"
            )))
        }
        None if config.watches.is_empty()
            && config.target.is_none()
            && config.interface.is_none()
            && config.pcap.is_none() =>
        {
            refuse(
                "nothing to watch: give --watch NAME=port:PORT (eBPF), or --target \
                 http://HOST:PORT (a pass-through listener, needs no privilege), or --interface \
                 IF, or --pcap FILE",
            )
        }
        _ => Ok(()),
    }
}

fn parse_mode(text: &str) -> Result<(), String> {
    match text.to_lowercase().replace('_', "-").as_str() {
        "shadow" => Ok(()),
        mode @ ("edge-mcp" | "edgemcp" | "mcp" | "sidecar" | "proxy") => {
            Err(format!("mode `{mode}` is not in this build, which has: shadow. Use --mode shadow"))
        }
        _ => Err(format!(
            "unknown mode `{text}`. Modes: edge-mcp, sidecar, proxy, shadow; this build has: shadow"
        )),
    }
}

fn parse_number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ if most == u64::MAX => Err(format!("`{text}` is not a number of {least} or more")),
        _ => Err(format!("`{text}` is not a number from {least} to {most}")),
    }
}

fn parse_niceness(text: &str) -> Result<Option<i32>, String> {
    if text == "idle" {
        return Ok(None);
    }
    match text.parse::<i32>() {
        Ok(number) if (0..=19).contains(&number) => Ok(Some(number)),
        _ => Err(format!("`{text}` is not `idle` or a number from 0 to 19")),
    }
}

fn parse_retention(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(days @ 1..=29) => Ok(days),
        Ok(days @ 30..) => Err(format!(
            "{days} days is refused: what was observed of people's traffic is kept for less than \
             30 days, even masked (data minimisation). Use 1 to 29"
        )),
        _ => Err(format!("`{text}` is not a number of days from 1 to 29")),
    }
}

/// `16384`, `16k`, `16KiB`, `16 MiB`, `1g`: powers of 1024.
fn parse_size(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let lower = text.to_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = lower.get(digits.len()..).unwrap_or("").trim();
    let factor = match unit {
        "" | "b" => 1_usize,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(format!("`{text}` is not a size; write for example 16KiB, 8MiB or 1GiB")),
    };
    let size = digits
        .parse::<usize>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or(format!("`{text}` is not a size; write for example 16KiB, 8MiB or 1GiB"))?;
    match (least..=most).contains(&size) {
        true => Ok(size),
        false => Err(format!("`{text}` is not between {least} and {most} bytes")),
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("the path is empty".to_owned()),
        _ => Ok(PathBuf::from(text)),
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is not an address with a port, such as 127.0.0.1:9083 or [::1]:9083")
    })
}

/// A tenant is a namespace's name (RFC 1123 label).
fn parse_tenant(text: &str) -> Result<String, String> {
    let is_valid = (1..=63).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    match is_valid && !text.starts_with('-') && !text.ends_with('-') {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is not a tenant's name: use a-z, 0-9 and `-`")),
    }
}

fn parse_log_level(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|e| format!("`{text}` is not a log level or filter ({e}); valid levels: error, warn, info, debug, trace"))
}

fn parse_target(text: &str) -> Result<Target, String> {
    let shape = "expected http://HOST:PORT";
    if text.starts_with("https://") {
        return Err(format!(
            "`{text}`: Inline passes bytes through and cannot read inside TLS; {shape}, behind \
             what terminates TLS"
        ));
    }
    let uri: http::Uri = match text.contains("://") {
        true => text.parse(),
        false => format!("http://{text}").parse(),
    }
    .map_err(|_| format!("`{text}` is not a URL: {shape}"))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!("`{text}` is not an http URL: {shape}"));
    }
    if uri.path_and_query().is_some_and(|p| p.as_str() != "/") {
        return Err(format!(
            "`{text}` has a path, but Inline passes bytes through unchanged: {shape}"
        ));
    }
    let authority = uri.authority().ok_or(format!("`{text}` names no host: {shape}"))?;
    if authority.as_str().contains('@') {
        return Err(format!("the URL has credentials in it, which Inline cannot use: {shape}"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err(format!("`{text}` names no host: {shape}"));
    }
    Ok(Target { host, port: authority.port_u16().unwrap_or(80) })
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

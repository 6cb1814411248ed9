//! Settings of shadow mode.

use std::{
    io::IsTerminal,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    ConfigError, Values, is_root,
    parse::{parse_bool, parse_listen, parse_number, parse_path, parse_size},
};
use crate::capture::{
    CaptureMethod,
    watch::{self, NamedWatch},
};

/// What Inline capture connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug)]
pub struct ShadowSettings {
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
}

impl ShadowSettings {
    pub(super) fn read(values: &Values, state_dir: &Path) -> Result<Self, ConfigError> {
        let output = values.read("output", parse_path)?.unwrap_or_else(|| match is_root() {
            true => PathBuf::from("/var/stoa/uac"),
            false => state_dir.join("contracts"),
        });
        let hours = values.read("analysis-window-hours", |t| parse_number(t, 1, 24 * 29))?;
        let days = values.read("retention-days", parse_retention)?;
        let settings = Self {
            capture: values.read("capture", |t| t.parse())?,
            watches: values.read_all("watch", |t| t.parse())?,
            target: values.read("target", parse_target)?,
            inline_listen: values
                .read("inline-listen", parse_listen)?
                .unwrap_or_else(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9083)),
            service: values
                .read("service", |t| watch::check_service_name(t).map(|()| t.to_owned()))?,
            interface: values.read("interface", |t| match t {
                "" => Err("the interface's name is empty".to_owned()),
                _ => Ok(t.to_owned()),
            })?,
            pcap: values.read("pcap", parse_path)?,
            record: values.read("record", parse_path)?,
            output,
            min_requests: values
                .read("min-requests-for-uac", |t| parse_number(t, 1, u64::MAX))?
                .unwrap_or(100),
            analysis_window: Duration::from_secs(hours.unwrap_or(168) * 3600),
            retention: Duration::from_secs(days.unwrap_or(14) * 86_400),
            summary: values
                .read("summary", parse_bool)?
                .unwrap_or_else(|| std::io::stdout().is_terminal()),
            body_bytes: values
                .read("body-bytes", |t| parse_size(t, 0, 1 << 20))?
                .unwrap_or(16 << 10),
            ring_bytes: values
                .read("ring-bytes", |t| parse_size(t, 64 << 10, 1 << 30))?
                .unwrap_or(8 << 20),
            memory_bytes: values
                .read("memory-bytes", |t| parse_size(t, 1 << 20, 1 << 40))?
                .unwrap_or(24 << 20),
            max_connections: values
                .read("max-connections", |t| parse_number(t, 1, 1_000_000))?
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(4096),
            nice: values.read("nice", parse_niceness)?.flatten(),
        };
        refuse_contradictions(&settings)?;
        Ok(settings)
    }
}

fn refuse_contradictions(settings: &ShadowSettings) -> Result<(), ConfigError> {
    let refuse = |text: &str| Err(ConfigError::Contradiction(text.to_owned()));
    if settings.interface.is_some() && settings.pcap.is_some() {
        return refuse("--interface and --pcap exclude each other: give one of them");
    }
    if settings.analysis_window > settings.retention {
        return refuse(
            "the analysis window (--analysis-window-hours) is longer than what is kept \
             (--retention-days): shorten the one or lengthen the other",
        );
    }
    match settings.capture {
        Some(CaptureMethod::Ebpf) if settings.watches.is_empty() => refuse(
            "capture Ebpf needs to know what to watch: give --watch NAME=port:PORT, NAME=pid:PID \
             or NAME=cgroup:PATH",
        ),
        Some(CaptureMethod::Inline) if settings.target.is_none() => {
            refuse("capture Inline needs --target http://HOST:PORT, where it passes traffic on to")
        }
        Some(CaptureMethod::PortMirror)
            if settings.interface.is_none() && settings.pcap.is_none() =>
        {
            refuse("capture PortMirror needs --interface IF or --pcap FILE")
        }
        Some(method @ (CaptureMethod::Ebpf | CaptureMethod::Inline))
            if settings.interface.is_some() || settings.pcap.is_some() =>
        {
            Err(ConfigError::Contradiction(format!(
                "--interface and --pcap are for capture PortMirror, not for {method}"
            )))
        }
        None if settings.watches.is_empty()
            && settings.target.is_none()
            && settings.interface.is_none()
            && settings.pcap.is_none() =>
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

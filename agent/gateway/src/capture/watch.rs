//! `--watch NAME=cgroup:PATH | pid:PID | port:PORT`.

use std::{fmt, path::PathBuf, str::FromStr};

use super::{WatchSpec, Watched};

/// One `--watch` value before services are numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedWatch {
    pub name: String,
    pub spec: WatchSpec,
}

const SHAPE: &str = "expected NAME=cgroup:PATH, NAME=pid:PID or NAME=port:PORT";

impl FromStr for NamedWatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, spec) = text.split_once('=').ok_or(format!("`{text}` has no `=`: {SHAPE}"))?;
        check_service_name(name)?;
        let (kind, value) = spec.split_once(':').ok_or(format!("`{spec}` has no `:`: {SHAPE}"))?;
        let spec = match kind {
            "cgroup" if value.is_empty() => {
                return Err(format!("the cgroup path is empty: {SHAPE}"));
            }
            "cgroup" => WatchSpec::Cgroup(PathBuf::from(value)),
            "pid" => match value.parse() {
                Ok(pid) if pid > 0 => WatchSpec::Pid(pid),
                _ => return Err(format!("`{value}` is not a process id: {SHAPE}")),
            },
            "port" => match value.parse() {
                Ok(port) if port > 0 => WatchSpec::Port(port),
                _ => return Err(format!("`{value}` is not a TCP port (1 to 65535): {SHAPE}")),
            },
            _ => return Err(format!("`{kind}` is not a kind of thing to watch: {SHAPE}")),
        };
        Ok(Self { name: name.to_owned(), spec })
    }
}

/// A service's name becomes a file name, a URL segment and a metric label: lower-case letters,
/// digits, `-`, `_` and `.`, at most 63, beginning with a letter or digit.
pub fn check_service_name(name: &str) -> Result<(), String> {
    let is_valid = (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
    if is_valid {
        return Ok(());
    }
    Err(format!(
        "`{name}` cannot name a service: use 1 to 63 of a-z, 0-9, `-`, `_` and `.`, beginning \
         with a letter or a digit"
    ))
}

/// Numbers the services: several specs of one name are one service.
pub fn number_services(watches: &[NamedWatch]) -> (Vec<String>, Vec<Watched>) {
    let mut names: Vec<String> = Vec::new();
    let watched = watches
        .iter()
        .map(|watch| {
            let place = names.iter().position(|n| *n == watch.name).unwrap_or_else(|| {
                names.push(watch.name.clone());
                names.len() - 1
            });
            Watched {
                service: u32::try_from(place).unwrap_or(u32::MAX),
                name: watch.name.clone(),
                spec: watch.spec.clone(),
            }
        })
        .collect();
    (names, watched)
}

impl fmt::Display for WatchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup:{}", path.display()),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Port(port) => write!(f, "port:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NamedWatch, String> {
        text.parse()
    }

    #[test]
    fn reads_each_kind() {
        assert_eq!(parse("api=port:8000").unwrap().spec, WatchSpec::Port(8000));
        assert_eq!(parse("api=pid:17").unwrap().spec, WatchSpec::Pid(17));
        let cgroup = parse("web.v2=cgroup:/sys/fs/cgroup/a=b:c").unwrap();
        assert_eq!(cgroup.name, "web.v2");
        assert_eq!(cgroup.spec, WatchSpec::Cgroup("/sys/fs/cgroup/a=b:c".into()));
    }

    #[test]
    fn names_what_is_wrong() {
        for (text, part) in [
            ("api", "has no `=`"),
            ("api=8000", "has no `:`"),
            ("api=port:0", "not a TCP port"),
            ("api=port:65536", "not a TCP port"),
            ("api=pid:-1", "not a process id"),
            ("api=tcp:80", "not a kind"),
            ("=port:80", "cannot name a service"),
            ("../x=port:80", "cannot name a service"),
            (".=port:80", "cannot name a service"),
            ("API=port:80", "cannot name a service"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn one_name_is_one_service() {
        let watches: Vec<_> =
            ["a=port:1", "b=port:2", "a=port:3"].iter().map(|t| parse(t).unwrap()).collect();
        let (names, watched) = number_services(&watches);
        assert_eq!(names, ["a", "b"]);
        assert_eq!(watched.iter().map(|w| w.service).collect::<Vec<_>>(), [0, 1, 0]);
    }
}

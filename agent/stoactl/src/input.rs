//! Files with traffic in them, told apart by how they begin.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
};

use stoa_wire::{ReaderConfig, exchange::Exchange, har, packet_file, segment::name_of_server};

use crate::Error;

/// What a file held beside its exchanges.
pub struct Outline {
    /// The name of the service behind each `Endpoints::service` number.
    pub names: Vec<String>,
    /// Why there might be no exchange.
    pub why_empty: String,
}

/// The names of the services of a file that names them (a recording, a HAR file), by number; they
/// are known at its end only, so it is read once for them. Empty for other files, and for
/// standard input.
pub fn read_names(path: &Path) -> Result<Vec<String>, Error> {
    /// The block type that every pcapng file begins with.
    const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let opened = |source| Error::Open { path: path.to_owned(), source };
    let mut start = Vec::new();
    File::open(path).map_err(opened)?.take(4096).read_to_end(&mut start).map_err(opened)?;
    if !is_json(&start) && !start.starts_with(&PCAPNG) {
        return Ok(Vec::new());
    }
    let config = ReaderConfig { hash_bodies: false, ..ReaderConfig::default() };
    let (outline, _) = read_with(path, &config, &mut drop)?;
    Ok(outline.names)
}

/// Reads the file at `path` (`-`: standard input), and says on stderr where it is damaged.
pub fn read(path: &Path, sink: &mut dyn FnMut(Exchange)) -> Result<Outline, Error> {
    let (outline, damage) = read_with(path, &ReaderConfig::offline(), sink)?;
    if let Some(damage) = damage {
        let _ = writeln!(io::stderr(), "stoactl: {} {damage}", path.display());
    }
    Ok(outline)
}

/// Also says where the file is damaged.
fn read_with(
    path: &Path,
    config: &ReaderConfig,
    sink: &mut dyn FnMut(Exchange),
) -> Result<(Outline, Option<String>), Error> {
    let opened = |source| Error::Open { path: path.to_owned(), source };
    let file: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let file = File::open(path).map_err(opened)?;
        if file.metadata().map_err(opened)?.is_dir() {
            return Err(opened(io::ErrorKind::IsADirectory.into()));
        }
        Box::new(file)
    };
    let mut file = BufReader::with_capacity(256 << 10, file);
    let start = file.fill_buf().map_err(opened)?;
    let is_har = is_json(start);
    let failed = |source| Error::Read { path: path.to_owned(), source };
    if is_har {
        let summary = har::read_har(file, config.clone(), sink).map_err(failed)?;
        let outline = Outline {
            names: unique(summary.services.iter().map(|url| name_of_url(url)).collect()),
            why_empty: format!(
                "{} entries, of which {} have no usable request",
                summary.entries, summary.skipped
            ),
        };
        return Ok((outline, None));
    }
    let summary = packet_file::read_capture(file, config.clone(), sink).map_err(failed)?;
    let damage = match (summary.truncated_at, summary.damaged_at) {
        (Some(at), _) => Some((at, "ends in the middle of a record")),
        (None, at) => at.map(|at| (at, "is damaged")),
    };
    let damage =
        damage.map(|(at, what)| format!("{what} at offset {at}; what came before it was used"));
    let names = summary.services.iter().enumerate().map(|(number, server)| {
        match summary.service_names.get(number) {
            Some(Some(name)) if is_service_name(name) => name.clone(),
            _ => name_of_server(*server),
        }
    });
    let packets = &summary.packets;
    let outline = Outline {
        names: unique(names.collect()),
        why_empty: format!(
            "{} packets, {} of them TCP, {} of a link type that is not read, {} connections of \
             which {} spoke something else than HTTP/1",
            packets.packets,
            packets.tcp_segments,
            packets.unsupported_link,
            summary.reader.flows_opened,
            summary.reader.flows_not_http
        ),
    };
    Ok((outline, damage))
}

/// JSON begins with `{`, after white space or a byte order mark.
fn is_json(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    start.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
}

/// What can be a file's name, a URL's segment and a metric's label.
pub fn is_service_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
}

/// `https://api.example.com` -> `api.example.com`; another port than the scheme's is kept.
fn name_of_url(url: &str) -> String {
    let (scheme, authority) = url.split_once("://").unwrap_or(("http", url));
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let plain: String = authority
        .strip_suffix(default_port)
        .unwrap_or(authority)
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .collect();
    let name: String =
        plain.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).chars().take(59).collect();
    if is_service_name(&name) { name } else { "service".to_owned() }
}

/// Gives the second of two equal names a number.
fn unique(names: Vec<String>) -> Vec<String> {
    let mut taken = std::collections::BTreeSet::new();
    names
        .into_iter()
        .map(|name| {
            let mut own = name.clone();
            let mut number = 2;
            while !taken.insert(own.clone()) {
                own = format!("{name}-{number}");
                number += 1;
            }
            own
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_files() {
        for (url, name) in [
            ("https://API.example.com:443", "api.example.com"),
            ("http://api.example.com:8080", "api.example.com-8080"),
            ("http://[::1]:80", "1-"),
            ("http://../../etc", "etc"),
            ("http://", "service"),
        ] {
            assert_eq!(name_of_url(url), name, "{url}");
        }
        let long = name_of_url(&format!("http://{}", "a".repeat(300)));
        assert!(is_service_name(&long));
    }

    #[test]
    fn equal_names_are_numbered() {
        let names = ["a", "a", "a-2", "a"].map(str::to_owned).to_vec();
        assert_eq!(unique(names), ["a", "a-2", "a-2-2", "a-3"]);
    }

    #[test]
    fn json_is_told_from_packets() {
        assert!(is_json(b"\xef\xbb\xbf\n {\"log\""));
        assert!(!is_json(&[0xd4, 0xc3, 0xb2, 0xa1]));
        assert!(!is_json(b""));
    }
}

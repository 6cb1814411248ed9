//! Paths below which a client certificate is needed, whoever else may vouch for the request.

use percent_encoding::percent_decode_str;

use crate::error::Refusal;

/// `/payments` alone, or `/payments/*`: it and all that is below it.
#[derive(Clone, Debug, Default)]
pub(super) struct RequiredPaths(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    segments: Vec<String>,
    is_prefix: bool,
}

impl RequiredPaths {
    pub(super) fn build(key: &str, patterns: &[String]) -> Result<Self, Refusal> {
        let build = |text: &String| {
            let (path, is_prefix) = match text.strip_suffix('*') {
                Some("") => ("/", true),
                Some(path) => (path, true),
                None => (text.as_str(), false),
            };
            let is_path = path.starts_with('/') && !path.contains(['*', '?', '#']);
            if !is_path || (is_prefix && !path.ends_with('/')) {
                return Err(Refusal::new(
                    key,
                    format!("has `{text}`, which is no path"),
                    "write /payments for one path, or /payments/* for it and all below it",
                ));
            }
            Ok(Pattern { text: text.clone(), segments: segments_of(path), is_prefix })
        };
        patterns.iter().map(build).collect::<Result<_, _>>().map(Self)
    }

    /// As they were written.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|pattern| pattern.text.as_str())
    }

    /// `path`: percent-encoded, without the query. Spellings that some server takes for a listed
    /// path count as it: rather one certificate too many.
    pub(super) fn contain(&self, path: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let segments = segments_of(path);
        self.0.iter().any(|pattern| {
            let length = pattern.segments.len();
            let is_long_enough = match pattern.is_prefix {
                true => segments.len() >= length,
                false => segments.len() == length,
            };
            is_long_enough && pattern.segments.iter().zip(&segments).all(|(a, b)| a == b)
        })
    }
}

/// Decoded, `.` and `..` resolved, empty ones and parameters (`;v=1`) left out. The proxy's own
/// paths are read by its rules before; of what another gateway asks about we know only what it
/// sends.
fn segments_of(path: &str) -> Vec<String> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut segments = Vec::new();
    for segment in decoded.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name.to_owned()),
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(patterns: &[&str]) -> Result<RequiredPaths, Refusal> {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        RequiredPaths::build("required_paths", &patterns)
    }

    #[test]
    fn a_path_is_found_however_it_is_written() {
        let required = paths(&["/v1/payments/*", "/transfer", "/a%20b"]).unwrap();
        for path in [
            "/v1/payments",
            "/v1/payments/",
            "/v1/payments/1/items",
            "/v1/%70ayments/1",
            "//v1//payments/1",
            "/v1/./payments/1",
            "/v2/../v1/payments/1",
            "/v2/%2e%2e/v1/payments",
            "/v1%2fpayments/1",
            "/v1/payments;a=b/1",
            "/v1\\payments\\1",
            "/transfer",
            "/transfer/",
            "/a%20b",
        ] {
            assert!(required.contain(path), "{path}");
        }
        for path in ["/", "/v1", "/v1/paymentsx", "/v1/Payments", "/transfer/1", "/x/transfer", "*"]
        {
            assert!(!required.contain(path), "{path}");
        }
    }

    #[test]
    fn a_star_is_every_path_and_no_pattern_is_none() {
        for star in ["*", "/*"] {
            let every = paths(&[star]).unwrap();
            assert!(every.contain("/") && every.contain("/a/b") && every.contain("*"), "{star}");
        }
        assert!(!paths(&[]).unwrap().contain("/"));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", "payments", "/a*", "/a/*/b", "/a?b", "/*/", "**"] {
            assert_eq!(paths(&[text]).unwrap_err().key, "required_paths", "{text}");
        }
    }
}

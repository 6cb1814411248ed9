//! Path templates of `OpenAPI` 3.1 section 4.8.8.2: literal segments before parameters.

use std::{cmp::Reverse, collections::HashMap};

use http::Method;
use percent_encoding::percent_decode_str;
use regex::Regex;

/// The operations of one path, by index.
pub(super) type Methods = Vec<(Method, usize)>;

#[derive(Debug, Default)]
pub(super) struct Templates {
    /// By how many segments they have, the most literal first.
    by_length: HashMap<usize, Vec<(Template, Methods)>>,
}

#[derive(Debug)]
pub(super) struct Template {
    segments: Vec<Segment>,
}

#[derive(Debug)]
enum Segment {
    Literal(String),
    Parameter,
    /// Text and parameters in one segment: `report-{year}.{format}`.
    Mixed(Regex),
}

impl Segment {
    /// Sorts literal before mixed before parameter.
    fn rank(&self) -> u8 {
        match self {
            Self::Literal(_) => 2,
            Self::Mixed(_) => 1,
            Self::Parameter => 0,
        }
    }
}

impl Template {
    /// With the names of its parameters in order. `None`: not a template.
    pub(super) fn parse(text: &str) -> Option<(Self, Vec<String>)> {
        let mut names = Vec::new();
        let segments = text
            .strip_prefix('/')?
            .split('/')
            .map(|segment| parse_segment(segment, &mut names))
            .collect::<Option<_>>()?;
        Some((Self { segments }, names))
    }

    /// The values of the parameters, in order.
    fn values(&self, segments: &[String]) -> Option<Vec<String>> {
        let mut values = Vec::new();
        for (pattern, segment) in self.segments.iter().zip(segments) {
            match pattern {
                Segment::Literal(literal) if literal == segment => {}
                Segment::Literal(_) => return None,
                Segment::Parameter if is_value(segment) => values.push(segment.clone()),
                Segment::Parameter => return None,
                Segment::Mixed(regex) => {
                    let found = regex.captures(segment)?;
                    values.extend(found.iter().skip(1).flatten().map(|m| m.as_str().to_owned()));
                }
            }
        }
        Some(values)
    }
}

/// A parameter is not empty and holds no `/`; `.` and `..` go elsewhere by RFC 3986 section 5.2.4.
fn is_value(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..") && !segment.contains(['/', '\\', '\0'])
}

fn parse_segment(segment: &str, names: &mut Vec<String>) -> Option<Segment> {
    let mut pattern = String::from("^");
    let mut literal = String::new();
    let mut rest = segment;
    let mut count = 0;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        if name.is_empty() || before.contains('}') {
            return None;
        }
        literal.push_str(before);
        pattern.push_str(&regex::escape(&decode(before)));
        pattern.push_str("([^/]+?)");
        names.push(name.to_owned());
        count += 1;
        rest = after;
    }
    literal.push_str(rest);
    pattern.push_str(&regex::escape(&decode(rest)));
    pattern.push('$');
    match (count, literal.is_empty()) {
        (0, _) => Some(Segment::Literal(decode(&literal))),
        (1, true) => Some(Segment::Parameter),
        _ => Regex::new(&pattern).ok().map(Segment::Mixed),
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl Templates {
    pub(super) fn insert(&mut self, template: Template, methods: Methods) {
        let same_length = self.by_length.entry(template.segments.len()).or_default();
        same_length.push((template, methods));
        same_length.sort_by_key(|(t, _)| {
            Reverse(t.segments.iter().map(Segment::rank).collect::<Vec<_>>())
        });
    }

    /// `path`: percent-encoded, from its `/`.
    pub(super) fn find(&self, path: &str) -> Option<(&Methods, Vec<String>)> {
        let segments: Vec<String> = path.strip_prefix('/')?.split('/').map(decode).collect();
        let same_length = self.by_length.get(&segments.len())?;
        same_length
            .iter()
            .find_map(|(template, methods)| Some((methods, template.values(&segments)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(templates: &[&str], path: &str) -> Option<(usize, Vec<String>)> {
        let mut all = Templates::default();
        for (i, text) in templates.iter().enumerate() {
            all.insert(Template::parse(text).unwrap().0, vec![(Method::GET, i)]);
        }
        all.find(path).map(|(methods, values)| (methods[0].1, values))
    }

    fn values(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn literal_segments_come_before_parameters() {
        let all = ["/orders/{id}", "/orders/mine", "/{kind}/mine", "/orders/{id}.pdf"];
        assert_eq!(find(&all, "/orders/17"), Some((0, values(&["17"]))));
        assert_eq!(find(&all, "/orders/mine"), Some((1, vec![])));
        assert_eq!(find(&all, "/bills/mine"), Some((2, values(&["bills"]))));
        assert_eq!(find(&all, "/orders/17.pdf"), Some((3, values(&["17"]))));
        assert_eq!(find(&all, "/orders"), None);
        assert_eq!(find(&all, "/orders/17/"), None);
        assert_eq!(find(&all, "/Orders/17"), None);
    }

    #[test]
    fn what_is_compared_is_decoded_and_goes_nowhere_else() {
        let all = ["/a b/{id}", "/"];
        assert_eq!(find(&all, "/a%20b/%C3%A9"), Some((0, values(&["é"]))));
        assert_eq!(find(&all, "/"), Some((1, vec![])));
        for path in [
            "/a%20b/",
            "/a%20b/..",
            "/a%20b/%2e%2E",
            "/a%20b/x%2fy",
            "/a%20b/x%5Cy",
            "/a%20b/%00",
            "",
            "x",
        ] {
            assert_eq!(find(&all, path), None, "{path}");
        }
    }

    #[test]
    fn several_parameters_share_a_segment() {
        let all = ["/r/{year}-{month}.{format}"];
        assert_eq!(find(&all, "/r/2026-11.csv"), Some((0, values(&["2026", "11", "csv"]))));
        assert_eq!(find(&all, "/r/2026.csv"), None);
        for broken in ["orders", "/{", "/{}", "/}{", "/a}{b}"] {
            assert!(Template::parse(broken).is_none(), "{broken}");
        }
    }
}

//! Representations: `/reports/{report}.{format}`, where an extension chooses how a thing is answered.
//!
//! Three formats of one stem are a choice that the service offers; one or two may be as many files.
//! A service that offers it for several stems is taken to offer it wherever two are seen.

use std::collections::{BTreeMap, BTreeSet};

use super::templates::UNBOUNDED;
use crate::{
    knowledge::{
        kept::{Key, Part},
        paths::{Child, PathNode},
        value::{StoredText, ValueStats},
    },
    observation::{Method, Text},
};

/// Formats of one stem that are a choice.
const MIN_FORMATS: usize = 3;
/// Stems with so many formats that make it the custom of the service.
const MIN_STEMS: usize = 3;

/// Extensions of data, documents and pictures, which one thing may be answered as. Those of
/// programs and of what is made from them (`.js`, `.css`, `.map`) are names.
const FORMATS: [&str; 48] = [
    "json", "xml", "csv", "tsv", "txt", "text", "html", "htm", "xhtml", "pdf", "yaml", "yml", "md",
    "rss", "atom", "ics", "vcf", "kml", "kmz", "gml", "gpx", "shp", "shpz", "geojson", "topojson",
    "wkt", "jsonld", "ndjson", "jsonl", "rdf", "ttl", "n3", "nt", "xls", "xlsx", "doc", "docx",
    "odt", "ods", "epub", "parquet", "png", "jpg", "jpeg", "gif", "webp", "svg", "rtf",
];

/// `.json` -> `json`
fn format_of(child: &Child) -> Option<&str> {
    let extension = child.suffix.as_ref()?.as_str().strip_prefix('.')?;
    let is_read = |m: &Method| matches!(m, Method::Get | Method::Head);
    let is_answer = child.node.children.iter().next().is_none()
        && child.node.children.overflow().is_none()
        && !child.node.methods.is_empty()
        && child.node.methods.keys().all(is_read);
    (is_answer && FORMATS.contains(&extension)).then_some(extension)
}

/// What the children of a place with extensions are representations of.
#[derive(Default)]
struct Stem<'a> {
    children: Vec<(Key, &'a Child)>,
    formats: BTreeSet<&'a str>,
    is_word: bool,
}

/// The stems of a place. All of a class that obviously varies are one.
fn stems(node: &PathNode) -> BTreeMap<Option<u64>, Stem<'_>> {
    let mut stems: BTreeMap<Option<u64>, Stem<'_>> = BTreeMap::new();
    for (key, child) in node.children.iter() {
        let Some(format) = format_of(child) else { continue };
        let stem = match child.values.distinct.listed() {
            _ if child.token.is_class => None,
            [one] => Some(one.hash),
            _ => Some(key.hash),
        };
        let stem = stems.entry(stem).or_default();
        stem.children.push((*key, child));
        stem.formats.insert(format);
        stem.is_word |= child.token.is_word && !child.token.is_class;
    }
    stems
}

/// What a service does all over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Custom {
    stems: usize,
}

impl Custom {
    pub fn of(root: &PathNode) -> Self {
        let mut custom = Self::default();
        custom.visit(root);
        custom
    }

    /// As deep as paths are kept.
    fn visit(&mut self, node: &PathNode) {
        self.stems += stems(node).values().filter(|s| s.formats.len() >= MIN_FORMATS).count();
        let overflow = node.children.overflow();
        node.children.iter().map(|(_, c)| c).chain(overflow).for_each(|c| self.visit(&c.node));
    }

    fn is_set(self) -> bool {
        self.stems >= MIN_STEMS
    }
}

/// A stem with all that it is answered as.
pub(super) struct Represented {
    pub keys: Vec<Key>,
    pub child: Child,
    pub formats: ValueStats,
}

/// The stems of a place whose extension is a parameter of its own.
pub(super) fn represented(
    node: &PathNode,
    custom: Custom,
    is_resource_level: bool,
) -> Vec<Represented> {
    let stems = stems(node);
    let offers = stems.values().any(|s| s.formats.len() >= MIN_FORMATS);
    let all: BTreeSet<&str> = stems.values().flat_map(|s| s.formats.iter().copied()).collect();
    if !offers && !(custom.is_set() && all.len() >= 2) {
        return Vec::new();
    }
    let is_one = |stem: &Stem<'_>| {
        stem.formats.len() >= 2 || (!is_resource_level && (custom.is_set() || !stem.is_word))
    };
    stems.into_values().filter(is_one).map(Represented::of).collect()
}

impl Represented {
    fn of(stem: Stem<'_>) -> Self {
        let mut child = Child::default();
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, of) in &stem.children {
            child.combine(of, UNBOUNDED);
            if let Some(format) = format_of(of) {
                *counts.entry(format).or_default() += of.token.count;
            }
        }
        child.suffix = None;
        // Of the list above, so that they are nobody's.
        let texts = counts.into_iter().map(|(format, n)| (StoredText(Text::admit(format)), n));
        Self {
            keys: stem.children.iter().map(|(key, _)| *key).collect(),
            formats: ValueStats::of_texts(texts),
            child,
        }
    }
}

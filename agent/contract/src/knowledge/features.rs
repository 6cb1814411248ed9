//! What an exchange shows of the structure of its bodies, as hashes: enough to tell whether two
//! places behave alike, at a hundredth of what their schemas take.

use super::{
    kept::Kind,
    token::{self, spread},
};
use crate::observation::{Content, Node, Text, Token};

/// Deeper keys are the same where those above are.
pub(crate) const MAX_DEPTH: u32 = 5;

/// The path to the root of a body.
pub(crate) const ROOT: u64 = 1;

/// The path to the items of an array.
pub(crate) fn item(path: u64) -> u64 {
    spread(path ^ 0x5b5d)
}

/// The path to a member; keys of a class that varies are one.
pub(crate) fn member(path: u64, kind: Kind, hash: u64) -> u64 {
    spread(path.rotate_left(9) ^ if kind == Kind::Class { 7 } else { hash })
}

/// A path as it is kept: the shallower, the smaller, so that sketches lose the deepest first.
pub(crate) fn feature(path: u64, depth: u32) -> u64 {
    (path >> 2) | u64::from(depth.min(3)) << 62
}

/// Visits the key paths of a body; of arrays those of the first item. Returns how many keys there
/// were, where the body has structure.
pub(crate) fn collect(content: &Content, visit: &mut impl FnMut(u64)) -> Option<u64> {
    Some(match content {
        Content::Json(node) => walk(node, ROOT, 0, visit),
        Content::JsonLines(nodes) => nodes.first().map_or(0, |n| walk(n, ROOT, 0, visit)),
        Content::Form { fields, .. } => {
            fields.iter().for_each(|(name, _)| visit(feature(key(ROOT, name), 0)));
            fields.len() as u64
        }
        Content::Multipart { parts, .. } => {
            parts.iter().for_each(|part| visit(feature(key(ROOT, &part.name), 0)));
            parts.len() as u64
        }
        _ => return None,
    })
}

/// Whether what `collect` looks at was seen whole: of a body that was cut, a key that is absent
/// proves nothing.
pub(crate) fn is_telling(content: &Content) -> bool {
    match content {
        Content::Json(node) => is_closed(node),
        Content::JsonLines(nodes) => nodes.first().is_none_or(is_closed),
        Content::Form { is_whole, .. } | Content::Multipart { is_whole, .. } => *is_whole,
        _ => true,
    }
}

fn is_closed(node: &Node) -> bool {
    match node {
        Node::Array { items, is_closed, .. } => items.first().map_or(*is_closed, self::is_closed),
        Node::Object { is_closed, .. } => *is_closed,
        _ => true,
    }
}

fn key(path: u64, name: &Token) -> u64 {
    let key = token::key(name, None);
    member(path, key.kind, key.hash)
}

fn walk(node: &Node, path: u64, depth: u32, visit: &mut impl FnMut(u64)) -> u64 {
    if depth > MAX_DEPTH {
        return 0;
    }
    match node {
        Node::Array { items, .. } => {
            let path = item(path);
            // Items are as deep as their array: a list of things shows what one thing shows.
            visit(feature(path, depth));
            items.first().map_or(0, |first| walk(first, path, depth, visit))
        }
        Node::Object { members, .. } => {
            for (name, value) in members.iter() {
                let path = key(path, name);
                visit(feature(path, depth));
                if matches!(value, Node::Array { .. } | Node::Object { .. }) {
                    walk(value, path, depth + 1, visit);
                }
            }
            members.len() as u64
        }
        _ => 0,
    }
}

/// Of a media type.
pub(crate) fn media(name: Option<&Text>) -> u64 {
    name.map_or(0, |name| token::mix(1, name.as_str()))
}

/// Equal for exchanges of like structure with a chance of their likeness, squared: two least
/// hashes of the names at the top of a body (MinHash: Broder, "On the resemblance and containment
/// of documents", 1997).
pub(crate) fn signature(content: &Content) -> u64 {
    let (kind, node) = match content {
        Content::Json(node) => (1, Some(node)),
        Content::JsonLines(nodes) => (2, nodes.first()),
        Content::Form { fields, .. } => return 3 << 16 | least(fields.iter().map(|(n, _)| n)),
        Content::Multipart { parts, .. } => return 4 << 16 | least(parts.iter().map(|p| &p.name)),
        Content::Empty => return 0,
        _ => return 5 << 16,
    };
    let (kind, node) = match node {
        Some(Node::Array { items, .. }) => (kind + 8, items.first()),
        node => (kind, node),
    };
    let mut least = Least::default();
    if let Some(node) = node {
        least.take_node(node, 0);
    }
    kind << 16 | least.bits()
}

/// Envelopes (`{"message": {"body": {..}}}`) are seen through.
const MAX_ENVELOPES: u32 = 2;

struct Least {
    one: u64,
    other: u64,
}

impl Default for Least {
    fn default() -> Self {
        Self { one: u64::MAX, other: u64::MAX }
    }
}

impl Least {
    fn take(&mut self, name: &Token) {
        if token::class(name).is_none() {
            let hash = spread(name.hash.0);
            self.one = self.one.min(hash);
            self.other = self.other.min(hash.rotate_left(23));
        }
    }

    fn take_node(&mut self, node: &Node, depth: u32) {
        if let Node::Object { members, .. } = node {
            for (name, value) in members.iter() {
                self.take(name);
                if depth < MAX_ENVELOPES && members.len() <= 3 {
                    self.take_node(value, depth + 1);
                }
            }
        }
    }

    fn bits(&self) -> u64 {
        (self.one ^ self.other >> 16) & 0xffff
    }
}

fn least<'a>(names: impl Iterator<Item = &'a Token>) -> u64 {
    let mut least = Least::default();
    names.for_each(|name| least.take(name));
    least.bits()
}

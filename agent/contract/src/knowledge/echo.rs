//! Values of a path that come back in the bodies: `/countries/PL` answers `{"code": "PL"}`. What
//! is named in a path and is data in a body is a value, and the name it has there is its name.

use crate::observation::{Content, Node, Observation, PathSegment, Text, Token};

/// Nodes looked at, per body.
const MAX_NODES: usize = 256;
const MAX_DEPTH: u32 = 3;

/// A segment that stands in a body, by its place in the path.
pub(super) struct Echo<'a> {
    pub at: usize,
    /// The member it stands under, where that has a text.
    pub name: Option<&'a Text>,
}

/// The segments that stand in the bodies of a success, each once for each name.
pub(super) fn find(observation: &Observation) -> Vec<Echo<'_>> {
    let mut search = Search { path: &observation.path, found: Vec::new(), left: MAX_NODES };
    let Some(response) = &observation.response else { return search.found };
    if !(200..300).contains(&response.status) || observation.path.is_empty() {
        return search.found;
    }
    if let Content::Json(node) = &response.body.content {
        search.walk(node, None, 0);
    }
    if let Content::Json(node) = &observation.request.content {
        search.left = MAX_NODES;
        search.walk(node, None, 0);
    }
    search.found
}

struct Search<'a> {
    path: &'a [PathSegment],
    found: Vec<Echo<'a>>,
    left: usize,
}

impl<'a> Search<'a> {
    fn walk(&mut self, node: &'a Node, name: Option<&'a Token>, depth: u32) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        match node {
            Node::String(value) => self.compare(value.hash.0, name),
            Node::Number(number) => {
                if let Some(hash) = number.hash {
                    self.compare(hash.0, name);
                }
            }
            // What one item of a list shows, the others show too.
            Node::Array { items, .. } if depth < MAX_DEPTH => {
                if let Some(first) = items.first() {
                    self.walk(first, name, depth + 1);
                }
            }
            Node::Object { members, .. } if depth < MAX_DEPTH => {
                for (name, member) in members.iter() {
                    self.walk(member, Some(name), depth + 1);
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self, hash: u64, name: Option<&'a Token>) {
        let Some(name) = name else { return };
        let name = name.text.as_ref();
        for (at, segment) in self.path.iter().enumerate() {
            let is_same = segment.token.hash.0 == hash && segment.suffix.is_none();
            if is_same
                && !name.is_some_and(|n| names_a_kind(n.as_str()))
                && !self.found.iter().any(|e| e.at == at && e.name == name)
            {
                self.found.push(Echo { at, name });
            }
        }
    }
}

/// Members whose value names what was called, rather than one thing of a kind: JSON:API has
/// `"type": "articles"` in what `/articles/1` answers.
fn names_a_kind(name: &str) -> bool {
    [
        "type",
        "kind",
        "object",
        "resource",
        "resourcetype",
        "model",
        "entity",
        "collection",
        "action",
        "operation",
        "method",
        "endpoint",
        "route",
        "path",
        "service",
        "function",
        "event",
        "message",
        "title",
        "scope",
        "rel",
    ]
    .iter()
    .any(|kind| {
        let name = name.trim_start_matches(['@', '_', '$']);
        name.bytes().filter(|b| *b != b'_').map(|b| b.to_ascii_lowercase()).eq(kind.bytes())
    })
}

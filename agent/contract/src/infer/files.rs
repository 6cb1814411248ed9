//! Places of files: `/files/{file}` for names with extensions, `/files/{path}` for whole trees.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{Candidate, Surroundings};
use crate::{
    knowledge::paths::{Child, PathNode},
    observation::Method,
};

/// Words for places where people put files of their own.
pub(super) fn is_collection(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "file",
        "asset",
        "static",
        "media",
        "upload",
        "download",
        "image",
        "attachment",
        "blob",
        "artifact",
        "raw",
        "img",
        "dist",
        "photo",
        "video",
        "css",
        "js",
        "font",
        "icon",
    ]
    .iter()
    .any(|word| text == *word || text.strip_suffix('s') == Some(word))
}

/// Whether the children with extensions are files of any name, each with its own: `logo.svg`,
/// `terms.html`. What `/reports/7.json` and `/reports/7.xml` have in common is the thing that two
/// representations are of.
pub(super) fn are_file_names(
    suffixes: &BTreeMap<&str, Vec<Candidate<'_>>>,
    surroundings: &Surroundings,
) -> bool {
    let mut stems: BTreeMap<u64, usize> = BTreeMap::new();
    let mut kinds = 0;
    for (suffix, candidates) in suffixes.iter().filter(|(suffix, _)| suffix.starts_with('.')) {
        kinds += usize::from(!suffix.is_empty());
        let mut own = BTreeSet::new();
        for candidate in candidates {
            // Values of a class that obviously varies are no names, nor are those too many to tell.
            if candidate.child.token.is_class || candidate.child.values.distinct.is_many {
                return false;
            }
            let is_read = |m: &Method| matches!(m, Method::Get | Method::Head);
            if !candidate.behaviour.methods().iter().all(is_read) {
                return false;
            }
            own.extend(candidate.child.values.distinct.listed().iter().map(|l| l.hash));
        }
        for stem in own {
            *stems.entry(stem).or_default() += 1;
        }
    }
    let alone = stems.values().filter(|n| **n == 1).count();
    let (least_kinds, least) = match surroundings.is_of_files {
        true => (2, 3),
        false if surroundings.is_resource_level || surroundings.follows_parameter => return false,
        false => (3, 5),
    };
    kinds >= least_kinds && alone >= least && alone * 4 >= stems.len() * 3
}

/// What is below a child, as far as it may be a tree of files.
#[derive(Default)]
struct Tree {
    /// Levels below the child at which something answers.
    depths: BTreeSet<u32>,
    leaves: usize,
    with_extension: usize,
    answers: u64,
    json: u64,
    is_read_only: bool,
}

const MAX_DEPTH: u32 = 24;

impl Tree {
    fn of(child: &Child) -> Self {
        let mut tree = Self { is_read_only: true, ..Self::default() };
        tree.take(child, 0);
        tree
    }

    fn take(&mut self, child: &Child, depth: u32) {
        if !child.node.methods.is_empty() {
            self.depths.insert(depth);
            self.leaves += 1;
            self.with_extension += usize::from(child.suffix.is_some());
        }
        for (method, stats) in &child.node.methods {
            self.is_read_only &= matches!(method, Method::Get | Method::Head);
            self.answers += stats.answers;
            self.json += stats.json_answers;
        }
        if depth < MAX_DEPTH {
            let overflow = child.node.children.overflow();
            let children = child.node.children.iter().map(|(_, c)| c).chain(overflow);
            children.for_each(|c| self.take(c, depth + 1));
        }
    }
}

/// Whether the children are a tree of files, read at several depths: then where one lies is one
/// value, slashes and all.
pub(super) fn is_tree(node: &PathNode, surroundings: &Surroundings) -> bool {
    if !surroundings.is_of_files || surroundings.is_resource_level {
        return false;
    }
    let overflow = node.children.overflow();
    let trees: Vec<Tree> =
        node.children.iter().map(|(_, c)| c).chain(overflow).map(Tree::of).collect();
    let depths: BTreeSet<u32> = trees.iter().flat_map(|t| &t.depths).copied().collect();
    let sum = |of: &dyn Fn(&Tree) -> usize| trees.iter().map(of).sum::<usize>();
    let (leaves, extensions) = (sum(&|t| t.leaves), sum(&|t| t.with_extension));
    let answers: u64 = trees.iter().map(|t| t.answers).sum();
    let json: u64 = trees.iter().map(|t| t.json).sum();
    trees.iter().all(|t| t.is_read_only)
        && depths.len() >= 2
        && leaves >= 4
        && extensions * 4 >= leaves * 3
        && json * 2 < answers
}

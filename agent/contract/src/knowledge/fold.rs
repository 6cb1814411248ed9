//! Making room: siblings that are many and alike become one before anything else is given up.
//!
//! `/repos/{owner}/{repo}` has full statistics under each owner and each repository as long as
//! there is room. They are values of a parameter for all that can be seen, so that their union
//! says as much.

use super::{
    kept::{Bounds, Kind},
    paths::{Child, MAX_SEGMENTS, PathNode},
};
use crate::infer::likeness::Behaviour;

/// Siblings of which fewer are alike stay apart.
const MIN_ALIKE: usize = 4;

/// Folds siblings of the shallowest places at which many are alike. Returns whether there were
/// any.
pub(super) fn fold_alike(paths: &mut PathNode, bounds: Bounds) -> bool {
    (0..MAX_SEGMENTS).any(|depth| fold_at(paths, depth, bounds))
}

fn fold_at(node: &mut PathNode, depth: usize, bounds: Bounds) -> bool {
    if depth > 0 {
        let mut is_any = false;
        for child in node.children.parts_mut() {
            is_any |= fold_at(&mut child.node, depth - 1, bounds);
        }
        return is_any;
    }
    if node.children.is_folded || !are_alike(node) {
        return false;
    }
    node.children.fold(bounds);
    true
}

fn are_alike(node: &PathNode) -> bool {
    let others: Vec<&Child> =
        node.children.iter().filter(|(k, _)| k.kind == Kind::Other).map(|(_, c)| c).collect();
    if others.len() < MIN_ALIKE {
        return false;
    }
    let behaviours: Vec<Behaviour> = others.iter().map(|c| Behaviour::of(&c.node)).collect();
    // Against the union, and without the suffix, which `{id}.json` keeps.
    let mut union = Behaviour::default();
    behaviours.iter().for_each(|b| union.absorb(b));
    let alike = behaviours
        .iter()
        .zip(&others)
        .filter(|(behaviour, child)| {
            child.suffix.is_none() && {
                let likeness = union.likeness(behaviour);
                likeness.is_informed && likeness.degree >= 0.35
            }
        })
        .count();
    alike >= MIN_ALIKE && alike * 4 >= others.len() * 3
}

//! Making room for details: as long as there is room, each guess of a template has details of its
//! own; where it is not what the templates turn out to be, the details of one become one.

use std::collections::BTreeMap;

use super::{ServiceStats, kept::Bounds, paths::PathNode};
use crate::infer::templates;

/// Details that were moved, and where to.
pub(super) type Aliases = BTreeMap<u64, u64>;

/// Unites the details that only one operation uses; notes where they went.
pub(super) fn compact(stats: &mut ServiceStats, bounds: Bounds, aliases: &mut Aliases) {
    let mut users: BTreeMap<u64, usize> = BTreeMap::new();
    let decided = templates::decide(stats);
    let endpoints = || decided.places.iter().flat_map(|p| p.methods.values());
    for endpoint in endpoints() {
        for (key, _) in endpoint.stats.details.iter() {
            *users.entry(*key).or_default() += 1;
        }
    }
    let mut moved = Aliases::new();
    for endpoint in endpoints() {
        let own = endpoint.stats.details.iter().map(|(key, _)| *key);
        let mut own =
            own.filter(|key| users.get(key) == Some(&1) && stats.details.get(*key).is_some());
        if let Some(first) = own.next() {
            moved.extend(own.map(|key| (key, first)));
        }
    }
    for (from, to) in &moved {
        stats.details.redirect(*from, *to, bounds);
    }
    redirect(&mut stats.paths, &moved);
    for to in aliases.values_mut() {
        *to = moved.get(to).copied().unwrap_or(*to);
    }
    aliases.extend(moved);
}

fn redirect(node: &mut PathNode, moved: &Aliases) {
    for stats in node.methods.values_mut() {
        stats.details.rename(|key| moved.get(key).copied().unwrap_or(*key));
    }
    node.children.parts_mut().for_each(|child| redirect(&mut child.node, moved));
}

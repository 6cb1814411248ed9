//! The trie of paths.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    counts::Counts,
    echo,
    endpoint::{MethodStats, Outcome},
    kept::{Bounds, Kept, Part},
    token::{self, TokenStats},
    value::{StoredText, ValueStats, keep_greater},
};
use crate::observation::{Method, Observation, PathSegment};

/// Segments beyond this depth are left out; an operation that deep is named by what is above.
pub(crate) const MAX_SEGMENTS: usize = 32;

/// Names of members in which a segment stood again that are told apart.
const MAX_ECHOES: usize = 6;

/// A tree of few methods allocates for eleven.
const METHODS_BYTES: usize = 11 * 16 + 24;

/// What is below a place of the path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PathNode {
    pub children: Kept<Child>,
    pub methods: BTreeMap<Method, Box<MethodStats>>,
}

/// A segment and what is below it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Child {
    pub token: TokenStats,
    /// Every sample's: the key tells suffixes apart. Not kept for the overflow.
    pub suffix: Option<StoredText>,
    /// Of the stem.
    pub values: ValueStats,
    /// Samples whose segment stood in a body, by the name of the member there; the least names are
    /// kept. Those without a name are counted under none.
    pub echoes: Counts<Option<StoredText>>,
    pub node: PathNode,
}

impl Part for Child {
    fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.token.combine(&other.token);
        keep_greater(&mut self.suffix, other.suffix.as_ref().map(|t| &t.0));
        self.values.combine(&other.values);
        self.echoes.combine(&other.echoes);
        self.echoes.truncate(MAX_ECHOES);
        self.node.combine(&other.node, bounds);
    }
    fn coarsen(&mut self, bounds: Bounds) {
        self.echoes.truncate(MAX_ECHOES);
        self.node.coarsen(bounds);
    }
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.token.bytes()
            + self.values.bytes()
            + self.echoes.bytes()
            + self.node.bytes()
            - size_of::<ValueStats>()
    }
}

impl PathNode {
    pub fn add(
        &mut self,
        observation: &Observation,
        outcome: Outcome,
        detail: u64,
        bounds: Bounds,
        grown: &mut usize,
    ) {
        let echoes = if outcome == Outcome::Success { echo::find(observation) } else { Vec::new() };
        let mut node = self;
        for (at, segment) in observation.path.iter().take(MAX_SEGMENTS).enumerate() {
            let child = node.descend(segment, bounds, grown);
            for echo in echoes.iter().filter(|e| e.at == at) {
                child.echoes.add(echo.name.cloned().map(StoredText), 1);
                child.echoes.truncate(MAX_ECHOES);
            }
            node = &mut child.node;
        }
        let stats = node.methods.entry(observation.method).or_insert_with(|| {
            *grown += size_of::<MethodStats>() + METHODS_BYTES + 512;
            Box::default()
        });
        stats.add(observation, outcome, detail, bounds, grown);
    }

    fn descend(&mut self, segment: &PathSegment, bounds: Bounds, grown: &mut usize) -> &mut Child {
        let key = token::key(&segment.token, segment.suffix.as_ref());
        let child = self.children.slot(key, bounds, grown);
        child.token.add(&segment.token);
        keep_greater(&mut child.suffix, segment.suffix.as_ref());
        child.values.add(&segment.value);
        child
    }

    pub fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.children.combine(&other.children, bounds);
        for (method, stats) in &other.methods {
            self.methods.entry(*method).or_default().combine(stats, bounds);
        }
    }

    pub fn coarsen(&mut self, bounds: Bounds) {
        self.children.coarsen(bounds);
        self.methods.values_mut().for_each(|m| m.coarsen(bounds));
    }

    pub fn bytes(&self) -> usize {
        let tree = if self.methods.is_empty() { 0 } else { METHODS_BYTES };
        self.children.bytes() + tree + self.methods.values().map(|m| m.bytes()).sum::<usize>()
    }

    /// Exchanges at and below this place.
    pub fn total(&self) -> u64 {
        let own: u64 = self.methods.values().map(|m| m.count).sum();
        let below: u64 = self.children.iter().map(|(_, c)| c.node.total()).sum();
        own + below + self.children.overflow().map_or(0, |o| o.node.total())
    }
}

//! Which segments are parameters: decided jointly, over the whole trie, from statistics only.
//!
//! The children of one place are judged together. Those of an obviously variable shape are the
//! parameter's values. The others form clusters of like behaviour, and each cluster collects
//! evidence for and against being values (see [`weigh`]); a positive sum makes it part of the
//! parameter. What stays static keeps its own subtree, so a static segment with a behaviour of
//! its own stands beside the parameter. All values of a parameter merge, subtrees included,
//! before the next level is judged.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    evidence::{Candidate, Established, Surroundings, clusters, member, telling, weigh},
    files,
    formats::{self, Custom, Represented},
    likeness::Behaviour,
};
use crate::{
    knowledge::{
        ServiceStats,
        counts::Counts,
        detail::Detail,
        endpoint::MethodStats,
        kept::{Bounds, Key},
        paths::{Child, PathNode},
        token,
        value::{StoredText, ValueStats},
    },
    observation::{Method, Personal},
};

/// Combining for rendering gives nothing up.
pub(crate) const UNBOUNDED: Bounds =
    Bounds { words: usize::MAX, others: usize::MAX, level: 0, depth: u32::MAX };

#[derive(Clone, Debug)]
pub(crate) enum Segment {
    Static(String),
    Parameter(Box<Variable>),
    /// `near.{format}`, `{report}.{format}`: the stem, and its formats.
    Represented(Box<Segment>, Box<ValueStats>),
}

impl Segment {
    fn is_parameter(&self) -> bool {
        matches!(self, Self::Parameter(_))
    }

    /// Whether it is a parameter that takes values with this suffix.
    fn takes(&self, suffix: &str, has_suffix: bool) -> bool {
        match self {
            Self::Static(_) => false,
            Self::Parameter(variable) => variable.suffix == suffix || !has_suffix,
            Self::Represented(stem, formats) => {
                let is_it = |text: &str| suffix.strip_prefix('.') == Some(text);
                stem.is_parameter()
                    && formats
                        .distinct
                        .listed()
                        .iter()
                        .any(|f| f.text.as_ref().is_some_and(|text| is_it(text.as_str())))
            }
        }
    }
}

/// A parameter of a path.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub values: ValueStats,
    pub suffix: String,
    /// Samples whose value came from an earlier response.
    pub produced: u64,
    /// The member of the bodies that the value stands under.
    pub member: Option<String>,
    /// Nothing says that it varies: its text was withheld.
    pub is_placeholder: bool,
    /// It spans segments.
    pub is_path: bool,
}

/// A place with operations.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub segments: Vec<Segment>,
    /// The least certain decision on the way.
    pub certainty: f64,
    pub has_trailing_slash: bool,
    pub methods: BTreeMap<Method, Endpoint>,
}

/// What is known of one method at a place.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub stats: MethodStats,
    /// Where the details of its failures are.
    misses: Counts<u64>,
}

impl Endpoint {
    /// Of the statuses of this place only.
    pub fn detail(&self, known: &ServiceStats) -> Detail {
        let mut detail = known.details.of(&self.stats.details, UNBOUNDED);
        detail.combine(&known.miss_details.of(&self.misses, UNBOUNDED), UNBOUNDED);
        detail.responses.retain(|status, _| self.stats.statuses.get(status) > 0);
        detail
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Decided {
    pub places: Vec<Place>,
    pub unmatched: u64,
    pub withheld: u64,
    pub undecided: u64,
}

pub(crate) fn decide(stats: &ServiceStats) -> Decided {
    let mut decided = Decided::default();
    let known = Known { stats, custom: Custom::of(&stats.paths) };
    walk(&known, &stats.paths, &stats.misses, &mut Vec::new(), 1.0, &mut decided);
    decided
}

/// What is known of the whole service.
struct Known<'a> {
    stats: &'a ServiceStats,
    custom: Custom,
}

fn walk(
    known: &Known<'_>,
    node: &PathNode,
    misses: &PathNode,
    prefix: &mut Vec<Segment>,
    certainty: f64,
    decided: &mut Decided,
) {
    settle_place(node, misses, prefix, certainty, decided);
    let groups = group(known, node, prefix, decided);
    let mut below: Vec<PathNode> = groups.iter().map(|_| PathNode::default()).collect();
    for (key, child) in misses.children.iter() {
        let suffix = child.suffix.as_ref().map_or("", |s| s.as_str());
        // Static beats parameter.
        let at = groups
            .iter()
            .position(|g| g.keys.contains(key))
            .or_else(|| groups.iter().position(|g| g.segment.takes(suffix, g.has_suffix)));
        let is_path = |g: &Group| matches!(&g.segment, Segment::Parameter(v) if v.is_path);
        let spans = at.and_then(|at| groups.get(at)).is_some_and(is_path);
        match at.and_then(|at| below.get_mut(at)) {
            Some(below) if spans => flatten(&child.node, below),
            Some(below) => below.combine(&child.node, UNBOUNDED),
            None => decided.unmatched += child.node.total(),
        }
    }
    if let Some(overflow) = misses.children.overflow() {
        let at = groups
            .iter()
            .position(|g| matches!(&g.segment, Segment::Parameter(v) if v.suffix.is_empty()));
        match at.and_then(|at| below.get_mut(at)) {
            Some(below) => below.combine(&overflow.node, UNBOUNDED),
            None => decided.unmatched += overflow.node.total(),
        }
    }
    for (group, misses) in groups.into_iter().zip(below) {
        prefix.push(group.segment);
        walk(known, &group.node, &misses, prefix, certainty.min(group.certainty), decided);
        prefix.pop();
    }
}

/// The operations of one place, with the failures of calls to it.
fn settle_place(
    node: &PathNode,
    misses: &PathNode,
    prefix: &[Segment],
    certainty: f64,
    decided: &mut Decided,
) {
    for (method, stats) in &misses.methods {
        if !node.methods.contains_key(method) {
            decided.unmatched += stats.count;
        }
    }
    if node.methods.is_empty() {
        return;
    }
    let (slashes, count) =
        node.methods.values().fold((0, 0), |(s, n), m| (s + m.trailing_slash, n + m.count));
    let methods = node
        .methods
        .iter()
        .map(|(method, stats)| {
            let mut stats = (**stats).clone();
            let mut misses_at = Counts::default();
            if let Some(failures) = misses.methods.get(method) {
                misses_at = failures.details.clone();
                // What succeeded and what failed is kept apart.
                let own = stats.details.clone();
                stats.combine(failures, UNBOUNDED);
                stats.details = own;
            }
            (*method, Endpoint { stats, misses: misses_at })
        })
        .collect();
    decided.places.push(Place {
        segments: prefix.to_vec(),
        certainty,
        has_trailing_slash: !prefix.is_empty() && slashes * 2 > count,
        methods,
    });
}

/// Children that are one segment of a template.
struct Group {
    segment: Segment,
    keys: BTreeSet<Key>,
    has_suffix: bool,
    certainty: f64,
    node: PathNode,
}

impl Group {
    /// `{id}:cancel`, `documents:search`
    fn is_called(&self) -> bool {
        match &self.segment {
            Segment::Static(text) => self.has_suffix && text.contains(':'),
            Segment::Parameter(variable) => variable.suffix.starts_with(':'),
            Segment::Represented(..) => false,
        }
    }

    /// Of parts of values nothing can be said of the whole.
    fn without_formats(mut self) -> Self {
        if let Segment::Parameter(variable) = &mut self.segment {
            variable.values.formats = Default::default();
            variable.values.distinct = Default::default();
            variable.member = None;
        }
        self
    }
}

fn group(
    known: &Known<'_>,
    node: &PathNode,
    prefix: &[Segment],
    decided: &mut Decided,
) -> Vec<Group> {
    let surroundings = Surroundings::of(known.stats, node, prefix);
    if files::is_tree(node, &surroundings) {
        return tree(node).into_iter().collect();
    }
    let represented = if surroundings.is_of_files {
        Vec::new()
    } else {
        formats::represented(node, known.custom, surroundings.is_resource_level)
    };
    let taken: BTreeSet<Key> = represented.iter().flat_map(|r| r.keys.iter().copied()).collect();
    let mut suffixes: BTreeMap<&str, Vec<Candidate<'_>>> = BTreeMap::new();
    for (key, child) in node.children.iter().filter(|(key, _)| !taken.contains(key)) {
        let suffix = child.suffix.as_ref().map_or("", |s| s.as_str());
        suffixes.entry(suffix).or_default().push(Candidate::of(*key, child));
    }
    if node.children.overflow().is_some() {
        suffixes.entry("").or_default();
    }
    let are_file_names = files::are_file_names(&suffixes, &surroundings);
    let mut groups = Vec::new();
    if are_file_names {
        let is_file = |suffix: &&str| suffix.starts_with('.');
        let named: Vec<&str> = suffixes.keys().copied().filter(is_file).collect();
        let mut values = Values::default();
        for suffix in named {
            let candidates = suffixes.remove(suffix).unwrap_or_default();
            candidates.iter().for_each(|candidate| values.take(candidate, 0.9));
        }
        groups.extend(values.into_group("").map(Group::without_formats));
    }
    for (suffix, candidates) in suffixes {
        let overflow = node.children.overflow().filter(|_| suffix.is_empty());
        group_suffix(suffix, candidates, overflow, &surroundings, &mut groups, decided);
    }
    let mut groups = join_suffixes(groups);
    groups.extend(group_represented(&represented, &surroundings, decided));
    groups
}

/// Stems that are answered in several formats, judged as any siblings are.
fn group_represented(
    represented: &[Represented],
    surroundings: &Surroundings,
    decided: &mut Decided,
) -> Vec<Group> {
    let first = |r: &Represented| r.keys.first().copied();
    let candidates: Vec<Candidate<'_>> =
        represented.iter().filter_map(|r| Some(Candidate::of(first(r)?, &r.child))).collect();
    let mut groups = Vec::new();
    if !candidates.is_empty() {
        group_suffix("", candidates, None, surroundings, &mut groups, decided);
    }
    for group in &mut groups {
        let firsts = std::mem::take(&mut group.keys);
        let mut formats = ValueStats::default();
        for one in represented.iter().filter(|r| first(r).is_some_and(|k| firsts.contains(&k))) {
            formats.combine(&one.formats);
            group.keys.extend(&one.keys);
        }
        let stem = std::mem::replace(&mut group.segment, Segment::Static(String::new()));
        group.segment = Segment::Represented(Box::new(stem), Box::new(formats));
        group.has_suffix = true;
    }
    groups
}

/// All that is below a place, as one parameter that spans segments.
fn tree(node: &PathNode) -> Option<Group> {
    let mut values = Values { is_path: true, ..Values::default() };
    for (key, child) in node.children.iter() {
        values.keys.insert(*key);
        values.merge(child, 0.9);
    }
    if let Some(overflow) = node.children.overflow() {
        values.merge(overflow, 0.9);
    }
    let mut flat = PathNode::default();
    flatten(&values.node, &mut flat);
    values.node = flat;
    values.into_group("").map(Group::without_formats)
}

fn flatten(node: &PathNode, into: &mut PathNode) {
    for (method, stats) in &node.methods {
        into.methods.entry(*method).or_default().combine(stats, UNBOUNDED);
    }
    let overflow = node.children.overflow();
    node.children.iter().map(|(_, c)| c).chain(overflow).for_each(|c| flatten(&c.node, into));
}

/// A suffix is structure where it is the only one, or where what answers differs (`{id}.json`,
/// `{id}.xml`) or what is done (`{id}:cancel`). Where values of several suffixes behave alike, it is
/// part of the value.
fn join_suffixes(groups: Vec<Group>) -> Vec<Group> {
    let is_parameter = |g: &Group| g.segment.is_parameter();
    let (called, groups): (Vec<_>, Vec<_>) = groups.into_iter().partition(Group::is_called);
    let (mut parameters, statics): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_parameter);
    let has_several = parameters.len() > 1 || statics.iter().filter(|g| g.has_suffix).count() > 0;
    if parameters.is_empty() || !has_several {
        parameters.extend(statics);
        parameters.extend(called);
        return parameters;
    }
    let mut whole = parameters.remove(0);
    let mut behaviour = Behaviour::of(&whole.node);
    let mut apart = Vec::new();
    for group in parameters.into_iter().chain(statics) {
        let own = Behaviour::of(&group.node);
        let likeness = behaviour.likeness(&own);
        let is_alike = likeness.degree >= 0.6 && (likeness.is_informed || is_parameter(&group));
        // Two parameters of one place would be one template under two names.
        let is_same = is_parameter(&group) && !group.has_suffix && !whole.has_suffix;
        if !is_same && (!group.has_suffix || !is_alike) {
            apart.push(group);
            continue;
        }
        behaviour.absorb(&own);
        whole.node.combine(&group.node, UNBOUNDED);
        whole.keys.extend(group.keys);
        whole.has_suffix = false;
        if let Segment::Parameter(variable) = &mut whole.segment {
            variable.suffix.clear();
            if let Segment::Parameter(other) = &group.segment {
                variable.values.combine(&other.values);
            }
            variable.member = None;
            variable.values.formats = Default::default();
        }
    }
    apart.insert(0, whole);
    apart.extend(called);
    apart
}

fn group_suffix(
    suffix: &str,
    candidates: Vec<Candidate<'_>>,
    overflow: Option<&Child>,
    surroundings: &Surroundings,
    groups: &mut Vec<Group>,
    decided: &mut Decided,
) {
    let (variable, named): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|c| c.child.token.is_class);
    let mut values = Values::default();
    let mut statics: BTreeMap<String, Group> = BTreeMap::new();
    for candidate in &variable {
        match fixed(candidate, surroundings) {
            Some(text) => stay(format!("{text}{suffix}"), suffix, candidate, 0.8, &mut statics),
            None => values.take(candidate, 0.97),
        }
    }
    if let Some(overflow) = overflow {
        values.take_overflow(overflow);
    }
    // The largest cluster first: what it settles is known to those after it.
    let mut clusters = clusters(named);
    clusters.sort_by_key(|c| std::cmp::Reverse(c.len()));
    let mut known = values.established();
    for cluster in clusters {
        let score = weigh(&cluster, known.as_ref(), overflow.is_some(), surroundings);
        if score > 0.0 {
            let are_identifiers = cluster.iter().all(|c| c.child.token.is_irregular);
            let known = known.get_or_insert_with(|| Established {
                behaviour: Behaviour::default(),
                are_identifiers,
            });
            known.are_identifiers &= are_identifiers;
            cluster.iter().for_each(|c| known.behaviour.absorb(&c.behaviour));
        }
        let certainty = 1.0 / (1.0 + (-score.abs()).exp());
        for candidate in &cluster {
            let text = candidate.child.token.text().map(|t| format!("{t}{suffix}"));
            match text {
                Some(text) if score <= 0.0 => {
                    decided.undecided += u64::from(score.abs() < 0.5);
                    stay(text, suffix, candidate, certainty, &mut statics);
                }
                // A static segment that has no name to be shown by, or a value.
                _ => {
                    if score <= 0.0 {
                        decided.withheld += 1;
                        values.placeholders += 1;
                    }
                    values.take(candidate, if score > 0.0 { certainty } else { 1.0 - certainty });
                }
            }
        }
    }
    groups.extend(statics.into_values());
    groups.extend(values.into_group(suffix));
}

fn stay(
    text: String,
    suffix: &str,
    candidate: &Candidate<'_>,
    certainty: f64,
    statics: &mut BTreeMap<String, Group>,
) {
    let group = statics.entry(text.clone()).or_insert_with(|| Group {
        segment: Segment::Static(text),
        keys: BTreeSet::new(),
        has_suffix: !suffix.is_empty(),
        certainty,
        node: PathNode::default(),
    });
    group.keys.insert(candidate.key);
    group.node.combine(&candidate.child.node, UNBOUNDED);
}

/// The text of a value that never varied, of a shape that usually does: a version
/// (`/api/2/users`, `/ws/1.1/albums`). Below a plural it is one item, called again and again.
fn fixed<'a>(candidate: &'a Candidate<'_>, surroundings: &Surroundings) -> Option<&'a str> {
    let child = candidate.child;
    let [one] = child.values.distinct.listed() else { return None };
    let is_fraction = candidate.key.hash == token::DECIMAL_CLASS;
    let is_fixed = child.token.count >= if is_fraction { 3 } else { 8 }
        && (is_fraction || !surroundings.follows_plural);
    if !is_fixed || child.token.is_personal {
        return None;
    }
    one.text.as_ref().map(|t| t.as_str()).or(child.token.text())
}

/// The values of the parameter, as they come together.
#[derive(Default)]
struct Values {
    node: PathNode,
    values: Option<ValueStats>,
    behaviour: Option<Behaviour>,
    keys: BTreeSet<Key>,
    produced: u64,
    echoes: Counts<Option<StoredText>>,
    telling: u64,
    members: u64,
    placeholders: u64,
    certainty: Option<f64>,
    is_path: bool,
}

impl Values {
    fn take(&mut self, candidate: &Candidate<'_>, certainty: f64) {
        self.keys.insert(candidate.key);
        self.behaviour.get_or_insert_default().absorb(&candidate.behaviour);
        self.merge(candidate.child, certainty);
    }

    /// What the values that obviously vary are to those beside them.
    fn established(&self) -> Option<Established> {
        let values = self.values.as_ref()?;
        // Secrets are not told apart; names of persons are no identifiers.
        let several =
            values.distinct.listed().len() as u64 + values.personal.get(&Personal::Secret);
        Some(Established {
            behaviour: self.behaviour.clone()?,
            are_identifiers: values.distinct.is_many || several >= 3,
        })
    }

    fn take_overflow(&mut self, child: &Child) {
        self.behaviour.get_or_insert_default().absorb(&Behaviour::of(&child.node));
        self.merge(child, 0.95);
    }

    fn merge(&mut self, child: &Child, certainty: f64) {
        self.node.combine(&child.node, UNBOUNDED);
        self.values.get_or_insert_default().combine(&child.values);
        self.produced += child.token.produced;
        self.echoes.combine(&child.echoes);
        self.telling += telling(child);
        self.members += 1;
        // The best established member establishes the parameter.
        self.certainty = Some(self.certainty.map_or(certainty, |c| c.max(certainty)));
    }

    fn into_group(self, suffix: &str) -> Option<Group> {
        let values = self.values?;
        let member = member(&self.echoes, self.telling);
        Some(Group {
            segment: Segment::Parameter(Box::new(Variable {
                values,
                suffix: suffix.to_owned(),
                produced: self.produced,
                member,
                is_placeholder: self.members == self.placeholders,
                is_path: self.is_path,
            })),
            keys: self.keys,
            has_suffix: !suffix.is_empty(),
            certainty: self.certainty.unwrap_or(0.5),
            node: self.node,
        })
    }
}

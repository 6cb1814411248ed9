//! The evidence that siblings are the values of a parameter, or names.

use std::collections::BTreeMap;

use super::{
    files,
    likeness::{Behaviour, Features, items_listed},
    names,
    templates::Segment,
};
use crate::{
    knowledge::{
        ServiceStats,
        counts::Counts,
        kept::Key,
        paths::{Child, PathNode},
        token::TokenStats,
        value::StoredText,
    },
    observation::Method,
};

/// One child before it is judged.
pub(super) struct Candidate<'a> {
    pub key: Key,
    pub child: &'a Child,
    pub behaviour: Behaviour,
}

impl<'a> Candidate<'a> {
    pub fn of(key: Key, child: &'a Child) -> Self {
        Self { key, child, behaviour: Behaviour::of(&child.node) }
    }
}

/// What is known already to be values of the place.
pub(super) struct Established {
    pub behaviour: Behaviour,
    /// They look like identifiers, no two of a name: numbers, UUIDs, `WK17`.
    pub are_identifiers: bool,
}

/// What is known of the parent.
pub(super) struct Surroundings {
    /// Nothing but prefixes (`api`, `v1`) stands before: resources are named here.
    pub is_resource_level: bool,
    pub follows_parameter: bool,
    pub follows_plural: bool,
    /// The parent's name is one of a place of files.
    pub is_of_files: bool,
    /// The parent lists or makes what is below it.
    is_collection: bool,
    /// What the parent lists, and what it answers itself.
    items: Vec<Features>,
    answer: Option<Features>,
}

impl Surroundings {
    pub fn of(known: &ServiceStats, node: &PathNode, prefix: &[Segment]) -> Self {
        let listed = node.methods.get(&Method::Get);
        let last = prefix.last();
        Self {
            is_resource_level: prefix
                .iter()
                .all(|s| matches!(s, Segment::Static(text) if names::is_prefix(text))),
            follows_parameter: matches!(last, Some(Segment::Parameter(_))),
            follows_plural: matches!(last, Some(Segment::Static(t)) if names::is_plural(t)),
            is_of_files: matches!(last, Some(Segment::Static(t)) if files::is_collection(t)),
            is_collection: listed.is_some() || node.methods.contains_key(&Method::Post),
            items: listed
                .into_iter()
                .flat_map(|get| get.details.iter().filter_map(|(key, _)| known.details.get(*key)))
                .flat_map(items_listed)
                .collect(),
            answer: Behaviour::of_methods(node).answers(Method::Get).cloned(),
        }
    }
}

/// The member under which a segment of most samples stands. Small numbers fall together by chance,
/// so that few samples say nothing, and neither do two members alike.
pub(super) fn member(echoes: &Counts<Option<StoredText>>, count: u64) -> Option<String> {
    let mut named: Vec<(u64, &str)> =
        echoes.iter().filter_map(|(name, n)| Some((n, name.as_ref()?.as_str()))).collect();
    named.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let (n, name) = *named.first()?;
    let is_alone = named.get(1).is_none_or(|(second, _)| second * 2 <= n);
    (n >= 3 && n * 2 >= count && is_alone).then(|| name.to_owned())
}

/// Exchanges whose bodies could have shown the segment: those at its place, where they have keys.
pub(super) fn telling(child: &Child) -> u64 {
    let own: u64 = child.node.methods.values().map(|m| m.keyed_answers).sum();
    if own > 0 { own } else { child.token.count }
}

/// Whether the segment comes back in the bodies of a good part of the exchanges.
fn is_echoed(child: &Child) -> bool {
    let most = child.echoes.iter().map(|(_, n)| n).max().unwrap_or(0);
    most > 0 && most * 3 >= telling(child)
}

/// Children that behave alike, in the order of their keys; those that are called what is done apart
/// from the others, where they are few beside them. Where nothing of structure can be
/// compared, children of the same methods and media types come together.
pub(super) fn clusters(candidates: Vec<Candidate<'_>>) -> Vec<Vec<Candidate<'_>>> {
    let mut clusters: Vec<(Behaviour, Vec<Candidate<'_>>)> = Vec::new();
    for candidate in candidates {
        let found = clusters.iter_mut().find_map(|(union, members)| {
            let seed = members.first()?.behaviour.likeness(&candidate.behaviour);
            let whole = union.likeness(&candidate.behaviour);
            let degree = seed.degree.max(whole.degree);
            let threshold = if seed.is_informed { 0.6 } else { 0.95 };
            let is_like = degree >= threshold && !union.is_apart(&candidate.behaviour);
            is_like.then_some((union, members))
        });
        match found {
            Some((union, members)) => {
                union.absorb(&candidate.behaviour);
                members.push(candidate);
            }
            None => clusters.push((candidate.behaviour.clone(), vec![candidate])),
        }
    }
    clusters.into_iter().flat_map(|(_, members)| without_commands(members)).collect()
}

fn is_compound_command(token: &TokenStats) -> bool {
    token.text().is_some_and(|text| names::is_command(text) && names::has_joint(text))
}

/// `get_by_name` beside names of things answers what they answer.
fn without_commands(members: Vec<Candidate<'_>>) -> Vec<Vec<Candidate<'_>>> {
    let count = members.iter().filter(|c| is_compound_command(&c.child.token)).count();
    if count == 0 || count * 3 > members.len() {
        return vec![members];
    }
    let (commands, others) = members.into_iter().partition(|c| is_compound_command(&c.child.token));
    vec![others, commands]
}

/// Words that stand for one certain resource beside those with an identifier, and behave as those.
fn is_singleton(text: &str) -> bool {
    matches!(
        text,
        "me" | "self"
            | "current"
            | "latest"
            | "mine"
            | "whoami"
            | "new"
            | "all"
            | "search"
            // Any of them, by Google's AIP-159; the caller's own.
            | "-"
            | "~"
            | "@me"
    )
}

/// Routes below that several members have, and whether most members have two of them.
fn shared_routes(cluster: &[Candidate<'_>]) -> (usize, bool) {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for route in cluster.iter().flat_map(|c| c.behaviour.routes()) {
        *counts.entry(*route).or_default() += 1;
    }
    counts.retain(|_, members| *members > 1);
    let shared = |c: &&Candidate<'_>| {
        c.behaviour.routes().iter().filter(|r| counts.contains_key(r)).count() >= 2
    };
    (counts.len(), cluster.iter().filter(shared).count() * 2 > cluster.len())
}

/// How alike answers are that may well be of one operation.
const UNIFORM: f64 = 0.8;
/// Members that answers show regularly, below which they are alike by chance.
const MIN_KEYS: usize = 3;

/// Three or more members each answer one thing of the same members, which is not what the parent
/// answers: things of one kind. Parts of a list (`/orders/open`) answer what the list answers.
fn is_uniform(cluster: &[Candidate<'_>], union: &Behaviour, surroundings: &Surroundings) -> bool {
    let Some(answer) = union.answers(Method::Get) else { return false };
    let is_like = |own: &Features| {
        own.regular() >= MIN_KEYS && own.regular_jaccard(answer) >= UNIFORM && !own.is_list()
    };
    let is_part = surroundings.answer.as_ref().is_some_and(|p| p.regular_jaccard(answer) >= 0.5);
    cluster.len() >= 3
        && !surroundings.is_resource_level
        && !is_part
        && cluster.iter().all(|c| c.behaviour.answers(Method::Get).is_some_and(is_like))
}

/// More siblings than these are values even where no new one comes.
const MAX_CLOSED: usize = 12;

/// The evidence that a cluster is values rather than names, as a sum; positive: values.
///
/// | evidence | weight |
/// |---|---|
/// | a vocabulary word; a version, of fewer than four or where resources are named; another token | -3; -4; -0.5 |
/// | words for one certain resource (`me`, `latest`), which behave as the others do | -4 |
/// | one value, with none like it, seen 5, 8, 30 times or more | -1, -2, -3 |
/// | letters with digits among them | +1.5 |
/// | something is done with it (`rex:feed`), and it is no word | +2 |
/// | resources are named here; after a parameter; after a plural, unless closed | -2.5; -1; +1 |
/// | all are deleted, below what lists or makes them; written as constants (`VALIDITY`) | +2; +1.5 |
/// | stands in the bodies as well | +3 |
/// | behaves as the known values do (structure compared); as a word, very much so | +2.5; +5 |
/// | the same, for what is done; for one or two words beside identifiers | +1; 0 |
/// | answers, and nothing is below it, where the known values are the reverse | -1.5 |
/// | behaves otherwise; calls methods they do not have, often | -2; -1, -2 |
/// | answers what the parent lists | +2 |
/// | came from earlier responses; as a word or where resources are named | +2; +1 |
/// | verbs; names as programs have them (`darkMode`) | -2.5; -1 |
/// | many exchanges show what none of the known values' do, or the reverse | -2 |
/// | five or more of the same resources below most members; as words | +2.5; +1.5 |
/// | the same where resources are named, three or more, below members that answer nothing | +2.5 |
/// | such members that are language tags | +4 |
/// | n members: structure compared, not compared | log2 n, half of it |
/// | the same, where all are seen often and none is new, and they are not uniform: words, others | 0, a quarter |
/// | three or more words alike after a plural | +1.5 |
/// | five or more members with two samples or fewer each | +1 |
/// | more siblings than are told apart, and not words | +2 |
pub(super) fn weigh(
    cluster: &[Candidate<'_>],
    known: Option<&Established>,
    has_overflow: bool,
    surroundings: &Surroundings,
) -> f64 {
    let n = cluster.len().max(1) as f64;
    let share = |is: &dyn Fn(&TokenStats) -> bool| {
        cluster.iter().filter(|c| is(&c.child.token)).count() as f64 / n
    };
    let named = |is: &dyn Fn(&str) -> bool| share(&|t| t.text().is_some_and(is));
    let words = share(&|t| t.is_word && !t.is_version);
    let is_wordy = words > 0.5;
    let mut behaviour = Behaviour::default();
    cluster.iter().for_each(|c| behaviour.absorb(&c.behaviour));
    let mut score = -0.5;
    score -= 2.5 * words;
    if cluster.len() < 4 || surroundings.is_resource_level {
        score -= 3.5 * share(&|t| t.is_version);
    }
    if let [one] = cluster
        && known.is_none()
    {
        score -= match one.child.token.count {
            0..5 => 0.0,
            5..8 => 1.0,
            8..30 => 2.0,
            _ => 3.0,
        };
    }
    let singletons = named(&is_singleton);
    score -= 4.0 * singletons;
    score -= 2.5 * named(&names::is_command);
    score -= named(&|t| names::is_camel(t) && !names::is_command(t));
    // Things of one kind have the same resources below them; operations seldom do.
    let (routes, is_most) = shared_routes(cluster);
    let has_resources = !surroundings.is_resource_level && is_most && routes >= 5;
    // Values keep coming; names are soon all there.
    let is_listed = behaviour
        .answers(Method::Get)
        .is_some_and(|answer| surroundings.items.iter().any(|item| item.jaccard(answer) >= 0.5));
    let produced = share(&|t| t.produced * 3 >= t.count);
    let echoed = cluster.iter().filter(|c| is_echoed(c.child)).count() as f64 / n;
    let is_uniform = is_uniform(cluster, &behaviour, surroundings);
    let is_closed = known.is_none()
        && !has_resources
        && !is_listed
        && !is_uniform
        && produced < 0.5
        && echoed < 0.5
        && !has_overflow
        && cluster.len() <= MAX_CLOSED
        // What is seen often and yet has no text is no structure.
        && cluster.iter().all(|c| c.child.token.count >= 5 && c.child.token.text().is_some());
    let is_called = |c: &&Candidate<'_>| {
        !c.child.token.is_word
            && c.child.suffix.as_ref().is_some_and(|s| s.as_str().starts_with(':'))
    };
    score += 2.0 * cluster.iter().filter(is_called).count() as f64 / n;
    score += 1.5 * share(&|t| t.is_irregular && !t.is_word && !t.is_version);
    if surroundings.is_resource_level {
        score -= 2.5;
        if cluster.len() > 1 && is_most && routes >= 2 && behaviour.methods().is_empty() {
            score += if routes >= 3 { 2.5 } else { 0.0 };
            score += 4.0 * named(&names::is_language_tag).min(1.0 - singletons);
        }
    } else if surroundings.follows_parameter {
        score -= 1.0;
    } else if surroundings.follows_plural && !is_closed {
        score += 1.0;
    }
    if cluster.len() > 1 && !surroundings.is_resource_level {
        score += if is_deleted(cluster, surroundings) { 2.0 } else { 0.0 };
        score += 1.5 * named(&is_constant);
    }
    if let Some(known) = known {
        score += weigh_against(known, &behaviour, cluster, surroundings, is_wordy, singletons);
    }
    if singletons == 0.0 {
        score += 3.0 * echoed;
        score += if is_listed { 2.0 } else { 0.0 };
    }
    score += produced * if is_wordy || surroundings.is_resource_level { 1.0 } else { 2.0 };
    let is_informed = cluster.len() > 1
        && cluster
            .first()
            .zip(cluster.get(1))
            .is_some_and(|(a, b)| a.behaviour.likeness(&b.behaviour).is_informed);
    score += n.log2()
        * match (is_closed, is_informed) {
            (true, _) if is_wordy => 0.0,
            (true, _) => 0.25,
            (false, true) => 1.0,
            (false, false) => 0.5,
        };
    if is_informed && is_wordy && cluster.len() >= 3 && surroundings.follows_plural && !is_closed {
        score += 1.5;
    }
    if has_resources {
        score += if is_wordy { 1.5 } else { 2.5 };
    }
    if cluster.len() >= 5 && cluster.iter().all(|c| c.child.token.count <= 2) {
        score += 1.0;
    }
    if has_overflow && !is_wordy {
        score += 2.0;
    }
    score
}

/// Each is deleted by itself, and what is above them lists or makes them: members of a collection.
fn is_deleted(cluster: &[Candidate<'_>], surroundings: &Surroundings) -> bool {
    surroundings.is_collection
        && cluster.iter().all(|c| c.child.node.methods.contains_key(&Method::Delete))
}

/// `VALIDITY`, `IN_TRANSIT`: as members of enumerations are written, and no names of resources.
fn is_constant(text: &str) -> bool {
    text.len() >= 3
        && text.bytes().any(|b| b.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
}

/// The part of the evidence that is beside values which are known as such.
fn weigh_against(
    known: &Established,
    behaviour: &Behaviour,
    cluster: &[Candidate<'_>],
    surroundings: &Surroundings,
    is_wordy: bool,
    singletons: f64,
) -> f64 {
    let mut score = 0.0;
    let are_identifiers = known.are_identifiers;
    let known = &known.behaviour;
    let likeness = known.likeness(behaviour);
    if likeness.is_informed && likeness.degree >= 0.6 {
        let commands = cluster.iter().filter(|c| is_compound_command(&c.child.token)).count();
        score += match (is_wordy, surroundings.is_resource_level) {
            _ if singletons > 0.0 => 0.0,
            (true, _) if are_identifiers && cluster.len() <= 2 => 0.0,
            _ if commands * 2 > cluster.len() => 1.0,
            (true, true) => 2.0,
            (true, false) => 5.0,
            (false, _) => 2.5,
        };
    } else if likeness.is_informed && likeness.degree < 0.4 {
        score -= 2.0;
    }
    if !known.methods().is_empty() && !behaviour.methods().is_subset(known.methods()) {
        let others = behaviour.methods().difference(known.methods());
        let calls: u64 = others
            .flat_map(|m| cluster.iter().filter_map(|c| c.child.node.methods.get(m)))
            .map(|stats| stats.count)
            .sum();
        score -= if calls >= 5 { 2.0 } else { 1.0 };
    }
    let is_named = cluster.iter().all(|c| c.child.token.text().is_some());
    if is_named
        && known.methods().is_empty()
        && !behaviour.methods().is_empty()
        && cluster.iter().all(|c| c.child.node.children.iter().next().is_none())
    {
        score -= 1.5;
    }
    if known.is_apart(behaviour) {
        score -= 2.0;
    }
    score
}

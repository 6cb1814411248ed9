//! How alike two places of the path trie behave: what they answer, what they take, what is below.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    knowledge::{
        detail::Detail,
        endpoint::MethodStats,
        features,
        kept::Kind,
        paths::PathNode,
        schema::SchemaStats,
        sketch::Sketch,
        token::{mix, spread},
    },
    observation::Method,
};

/// Features with the share of exchanges that showed them. All up to `known_to` are there.
#[derive(Clone, Debug)]
pub(crate) struct Features {
    counts: BTreeMap<u64, f64>,
    known_to: u64,
    samples: f64,
    /// Of the samples, those in which an absent feature was surely absent.
    whole: f64,
}

impl Default for Features {
    fn default() -> Self {
        Self { counts: BTreeMap::new(), known_to: u64::MAX, samples: 0.0, whole: 0.0 }
    }
}

impl Features {
    fn add<const K: usize>(&mut self, sketch: &Sketch<K>, samples: u64, whole: u64) {
        for (hash, count) in sketch.iter() {
            *self.counts.entry(hash).or_default() += f64::from(count);
        }
        self.known_to = self.known_to.min(sketch.known_to());
        self.samples += samples as f64;
        self.whole += whole as f64;
    }

    fn absorb(&mut self, other: &Self) {
        for (hash, count) in &other.counts {
            *self.counts.entry(*hash).or_default() += count;
        }
        self.known_to = self.known_to.min(other.known_to);
        self.samples += other.samples;
        self.whole += other.whole;
    }

    /// The body is a list.
    pub fn is_list(&self) -> bool {
        self.counts.contains_key(&features::feature(features::item(features::ROOT), 0))
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Sizes of both and of what they share, as far as both are known.
    fn overlap(&self, other: &Self) -> (f64, f64, f64) {
        let known_to = self.known_to.min(other.known_to);
        let size = |own: &Self| own.counts.range(..=known_to).count() as f64;
        let shared =
            self.counts.range(..=known_to).filter(|(h, _)| other.counts.contains_key(h)).count();
        (size(self), size(other), shared as f64)
    }

    /// As `overlap`, each feature weighed by how regularly it is shown, squared: what a few answers
    /// have beside what all have does not part them. Equal where all is always there.
    fn regular_overlap(&self, other: &Self) -> (f64, f64, f64) {
        let known_to = self.known_to.min(other.known_to);
        let size =
            |own: &Self| own.counts.range(..=known_to).map(|(_, c)| own.rate(*c).powi(2)).sum();
        let shared = self
            .counts
            .range(..=known_to)
            .filter_map(|(h, c)| Some(self.rate(*c) * other.rate(*other.counts.get(h)?)))
            .sum();
        (size(self), size(other), shared)
    }

    fn rate(&self, count: f64) -> f64 {
        if self.samples > 0.0 { (count / self.samples).min(1.0) } else { 1.0 }
    }

    /// How much both show of what either shows regularly, 0 to 1.
    pub fn regular_jaccard(&self, other: &Self) -> f64 {
        let (a, b, shared) = self.regular_overlap(other);
        if a + b == 0.0 { 0.0 } else { shared / (a + b - shared) }
    }

    /// How many are shown by half of the exchanges or more.
    pub fn regular(&self) -> usize {
        self.counts.values().filter(|c| self.rate(**c) >= 0.5).count()
    }

    pub fn jaccard(&self, other: &Self) -> f64 {
        let (a, b, shared) = self.overlap(other);
        if a + b == 0.0 { 0.0 } else { shared / (a + b - shared) }
    }

    /// How many features this one's exchanges show so regularly that the other's would have to
    /// show them too, were they of one operation, and do not; and how many are regular.
    fn apart(&self, other: &Self) -> (usize, usize) {
        let (mut apart, mut regular) = (0, 0);
        for (hash, count) in self.counts.range(..=other.known_to) {
            // By one exchange less than seen: a few samples are not yet a rule.
            let rate = (count / (self.samples + 1.0)).min(0.95);
            if rate >= 0.5 && (1.0 - rate).powf(other.whole) < 0.001 {
                regular += 1;
                apart += usize::from(!other.counts.contains_key(hash));
            }
        }
        (apart, regular)
    }
}

/// Answers of which half or more are JSON on one side, and none on the other.
const MIN_ANSWERS: u64 = 8;

/// What a place does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// Key paths of successful JSON responses, and of request bodies, by method.
    responses: BTreeMap<Method, Features>,
    requests: BTreeMap<Method, Features>,
    /// Names of query parameters.
    queries: BTreeMap<Method, Features>,
    /// Answers, and those of them that are JSON.
    answers: BTreeMap<Method, (u64, u64)>,
    methods: BTreeSet<Method>,
    media: BTreeSet<u64>,
    /// What is called below: paths with their methods. Words are kept and anything else is one,
    /// for it may be a value; paths without a word say nothing.
    routes: BTreeSet<u64>,
    /// The same from one level below: where the next segment is a value too, and happens to be a
    /// word (`/repos/acme/docs/issues`), whole routes differ and these do not.
    tails: BTreeSet<u64>,
    /// Key paths of what the children answer, all together.
    below: BTreeMap<Method, Features>,
}

/// The answer of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Likeness {
    /// 0 to 1.
    pub degree: f64,
    /// Structure was compared, not only methods and media types.
    pub is_informed: bool,
}

impl Behaviour {
    pub fn of(node: &PathNode) -> Self {
        let mut own = Self::of_methods(node);
        collect_routes(node, 1, false, 0, &mut own.routes);
        let overflow = node.children.overflow();
        for child in node.children.iter().map(|(_, c)| c).chain(overflow) {
            collect_routes(&child.node, 1, false, 0, &mut own.tails);
            for (method, stats) in &child.node.methods {
                own.below.entry(*method).or_default().add(
                    &stats.answered,
                    stats.keyed_answers,
                    stats.telling_answers,
                );
            }
        }
        own
    }

    /// Of what a place answers itself.
    pub fn of_methods(node: &PathNode) -> Self {
        let mut own = Self::default();
        for (method, stats) in &node.methods {
            own.methods.insert(*method);
            own.responses.entry(*method).or_default().add(
                &stats.answered,
                stats.keyed_answers,
                stats.telling_answers,
            );
            own.requests.entry(*method).or_default().add(
                &stats.asked,
                stats.keyed_requests,
                stats.telling_requests,
            );
            own.queries.insert(*method, queries(stats));
            own.answers.insert(*method, (stats.answers, stats.json_answers));
            own.media.extend(stats.media.iter().map(|(m, _)| spread(m ^ *method as u64)));
        }
        own
    }

    pub fn absorb(&mut self, other: &Self) {
        for (own, theirs) in [
            (&mut self.responses, &other.responses),
            (&mut self.requests, &other.requests),
            (&mut self.queries, &other.queries),
            (&mut self.below, &other.below),
        ] {
            for (method, features) in theirs {
                own.entry(*method).or_default().absorb(features);
            }
        }
        for (method, (answers, json)) in &other.answers {
            let own = self.answers.entry(*method).or_default();
            *own = (own.0 + answers, own.1 + json);
        }
        self.methods.extend(&other.methods);
        self.media.extend(&other.media);
        self.routes.extend(&other.routes);
        self.tails.extend(&other.tails);
    }

    /// Whether these cannot well be two samples of one operation: what most exchanges of one show,
    /// none of the other's does. One value's answers may all lack the same, so that keys count
    /// only where they are many; a parameter of the query belongs to the operation.
    pub fn is_apart(&self, other: &Self) -> bool {
        let both = |a: &BTreeMap<Method, Features>, b: &BTreeMap<Method, Features>| {
            let mut sum = (0, 0);
            for (method, own) in a {
                if let Some(theirs) = b.get(method) {
                    for (apart, regular) in [own.apart(theirs), theirs.apart(own)] {
                        sum = (sum.0 + apart, sum.1 + regular);
                    }
                }
            }
            sum
        };
        let bodies = [(&self.responses, &other.responses), (&self.requests, &other.requests)];
        bodies.into_iter().any(|(a, b)| {
            let (apart, regular) = both(a, b);
            apart >= 2 && apart * 3 >= regular
        }) || both(&self.queries, &other.queries).0 > 0
            || self.answers.iter().any(|(method, (answers, json))| {
                let (their_answers, their_json) =
                    other.answers.get(method).copied().unwrap_or_default();
                let is_apart = |json: u64, all: u64, none: u64| none == 0 && json * 2 >= all;
                *answers >= MIN_ANSWERS
                    && their_answers >= MIN_ANSWERS
                    && (is_apart(*json, *answers, their_json)
                        || is_apart(their_json, their_answers, *json))
            })
    }

    /// Compares what both show; what only one was seen doing is weak evidence of a difference.
    pub fn likeness(&self, other: &Self) -> Likeness {
        let mut weight = 0.0;
        let mut sum = 0.0;
        let mut is_informed = false;
        let mut compare = |a: &Features, b: &Features, w: f64| {
            let (x, y, shared) = a.regular_overlap(b);
            if x > 0.0 && y > 0.0 {
                weight += w;
                // Members that may be absent part few samples of one schema: half of the degree
                // is by the one that shows less.
                sum += w * 0.5 * (shared / (x + y - shared) + (shared / x.min(y)).min(1.0));
                is_informed = true;
            }
        };
        for (method, paths) in &self.responses {
            if let Some(theirs) = other.responses.get(method) {
                compare(paths, theirs, 2.0);
            }
        }
        for (method, paths) in &self.requests {
            if let Some(theirs) = other.requests.get(method) {
                compare(paths, theirs, 1.0);
            }
        }
        // Of two resources of a kind, few exchanges show each another part of what is below:
        // what is shared is held against the one that shows less.
        let mut contain = |least: f64, shared: f64, w: f64| {
            // Three routes in common are seldom chance.
            let w = if shared >= 3.0 { 3.0 * w } else { w };
            weight += w;
            sum += w * shared / least;
            is_informed = true;
        };
        let common = |a: &BTreeSet<u64>, b: &BTreeSet<u64>| {
            (a.len().min(b.len()) as f64, a.intersection(b).count() as f64)
        };
        let (least, shared) = common(&self.routes, &other.routes);
        let (least_tails, shared_tails) = common(&self.tails, &other.tails);
        if shared_tails >= MIN_TAILS && shared_tails * least > shared * least_tails {
            contain(least_tails, shared_tails, 1.5);
        } else if least > 0.0 {
            contain(least, shared, 1.5);
        }
        let (mut least, mut shared) = ((0.0, 0.0), 0.0);
        for method in self.below.keys().chain(other.below.keys()).collect::<BTreeSet<_>>() {
            let (a, b) = (self.below.get(method), other.below.get(method));
            let none = Features::default();
            let (x, y, z) = a.unwrap_or(&none).overlap(b.unwrap_or(&none));
            least = (least.0 + x, least.1 + y);
            shared += z;
        }
        if least.0 > 0.0 && least.1 > 0.0 {
            contain(f64::min(least.0, least.1), shared, 1.0);
        }
        let structural = [(&self.responses, &other.responses), (&self.requests, &other.requests)];
        // One answers JSON and the other, by the same method, does not.
        for (a, b) in structural {
            for method in self.methods.intersection(&other.methods) {
                let (x, y) = (a.get(method), b.get(method));
                if x.is_some_and(|s| !s.is_empty()) != y.is_some_and(|s| !s.is_empty()) {
                    weight += 0.5;
                }
            }
        }
        if !self.methods.is_empty() && !other.methods.is_empty() {
            weight += 0.5;
            let shared = self.methods.intersection(&other.methods).count() as f64;
            sum += 0.5 * shared / self.methods.len().min(other.methods.len()) as f64;
        }
        if !self.media.is_empty() && !other.media.is_empty() {
            weight += 0.5;
            let shared = self.media.intersection(&other.media).count() as f64;
            sum += 0.5 * shared / self.media.len().min(other.media.len()) as f64;
        }
        if weight == 0.0 {
            return Likeness { degree: 0.0, is_informed: false };
        }
        Likeness { degree: sum / weight, is_informed }
    }

    pub fn routes(&self) -> &BTreeSet<u64> {
        &self.routes
    }

    pub fn answers(&self, method: Method) -> Option<&Features> {
        self.responses.get(&method).filter(|s| !s.is_empty())
    }

    pub fn methods(&self) -> &BTreeSet<Method> {
        &self.methods
    }
}

fn queries(stats: &MethodStats) -> Features {
    let mut queries = Features {
        samples: stats.success as f64,
        whole: stats.success as f64,
        ..Features::default()
    };
    for (key, field) in stats.query.fields.iter() {
        queries.counts.insert(key.hash, field.present as f64);
    }
    queries
}

/// The key paths of a schema, as [`features::collect`] would visit them.
fn collect(schema: &SchemaStats, path: u64, depth: u32, into: &mut Features) {
    if depth > features::MAX_DEPTH {
        return;
    }
    if let Some(array) = &schema.arrays {
        let path = features::item(path);
        into.counts.insert(features::feature(path, depth), 1.0);
        if let Some(items) = &array.items {
            collect(&items.0, path, depth, into);
        }
    }
    if let Some(object) = &schema.objects {
        for (key, member) in object.members.iter() {
            let path = features::member(path, key.kind, key.hash);
            into.counts.insert(features::feature(path, depth), 1.0);
            collect(&member.schema, path, depth + 1, into);
        }
    }
}

const MAX_ROUTE_DEPTH: u32 = 5;
/// Tails in common that are seldom chance.
const MIN_TAILS: f64 = 5.0;

fn collect_routes(
    node: &PathNode,
    path: u64,
    has_word: bool,
    depth: u32,
    into: &mut BTreeSet<u64>,
) {
    if has_word {
        into.extend(node.methods.keys().map(|m| mix(path, "method") ^ *m as u64));
    }
    if depth >= MAX_ROUTE_DEPTH {
        return;
    }
    for (key, child) in node.children.iter() {
        let is_word = key.kind == Kind::Word;
        let path = if is_word { mix(path ^ key.hash, "/") } else { mix(path, "/*") };
        collect_routes(&child.node, path, has_word || is_word, depth + 1, into);
    }
    if let Some(overflow) = node.children.overflow() {
        collect_routes(&overflow.node, mix(path, "/*"), has_word, depth + 1, into);
    }
}

/// The key paths of the items of lists that a place answers to GET, where an item would be the
/// answer for one of its children: of the top-level array, or of arrays in the top-level object.
pub(crate) fn items_listed(detail: &Detail) -> Vec<Features> {
    let mut found = Vec::new();
    for (status, response) in &detail.responses {
        if !(200..300).contains(status) {
            continue;
        }
        for media in response.body.media.values() {
            let mut take = |schema: &SchemaStats| {
                if let Some(items) = schema.arrays.as_ref().and_then(|a| a.items.as_ref())
                    && items.0.objects.is_some()
                {
                    let mut paths = Features::default();
                    collect(&items.0, features::ROOT, 0, &mut paths);
                    found.push(paths);
                }
            };
            take(&media.schema);
            if let Some(object) = &media.schema.objects {
                object.members.iter().for_each(|(_, m)| take(&m.schema));
            }
        }
    }
    found
}

//! How alike two places of the path trie behave: what they answer, what they take, what is below.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    knowledge::{
        endpoint::BodyStats,
        kept::{Key, Kind},
        paths::PathNode,
        schema::SchemaStats,
        token::mix,
    },
    observation::Method,
};

/// What a place does, as sets of features.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// Key paths of successful JSON responses, and of request bodies, by method.
    responses: BTreeMap<Method, BTreeSet<u64>>,
    requests: BTreeMap<Method, BTreeSet<u64>>,
    methods: BTreeSet<Method>,
    media: BTreeSet<u64>,
    /// What is called below: paths with their methods. Words are kept and anything else is one,
    /// for it may be a value; paths without a word say nothing.
    routes: BTreeSet<u64>,
    /// Key paths of what the children answer, all together.
    below: BTreeSet<u64>,
}

/// The answer of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Likeness {
    /// 0 to 1.
    pub degree: f64,
    /// Structure was compared, not only methods and media types.
    pub is_informed: bool,
}

const MAX_DEPTH: u32 = 5;

impl Behaviour {
    pub fn of(node: &PathNode) -> Self {
        let mut own = Self::default();
        for (method, stats) in &node.methods {
            own.methods.insert(*method);
            for (status, response) in &stats.responses {
                if (200..300).contains(status) {
                    collect_body(&response.body, own.responses.entry(*method).or_default());
                    own.media.extend(
                        response
                            .body
                            .media
                            .keys()
                            .map(|m| mix(*method as u64, m.as_ref().map_or("", |m| m.as_str()))),
                    );
                }
            }
            collect_body(&stats.request, own.requests.entry(*method).or_default());
        }
        collect_routes(node, 1, false, 0, &mut own.routes);
        for (_, child) in node.children.iter() {
            own.collect_below(&child.node);
        }
        if let Some(overflow) = node.children.overflow() {
            own.collect_below(&overflow.node);
        }
        own
    }

    fn collect_below(&mut self, child: &PathNode) {
        for (method, stats) in &child.methods {
            let mut paths = BTreeSet::new();
            for (status, response) in &stats.responses {
                if (200..300).contains(status) {
                    collect_body(&response.body, &mut paths);
                }
            }
            self.below.extend(paths.into_iter().map(|p| mix(p, "below") ^ *method as u64));
        }
    }

    pub fn absorb(&mut self, other: &Self) {
        for (own, theirs) in
            [(&mut self.responses, &other.responses), (&mut self.requests, &other.requests)]
        {
            for (method, paths) in theirs {
                own.entry(*method).or_default().extend(paths);
            }
        }
        self.methods.extend(&other.methods);
        self.media.extend(&other.media);
        self.routes.extend(&other.routes);
        self.below.extend(&other.below);
    }

    /// Compares what both show; what only one was seen doing is weak evidence of a difference.
    pub fn likeness(&self, other: &Self) -> Likeness {
        let mut weight = 0.0;
        let mut sum = 0.0;
        let mut is_informed = false;
        let mut compare = |a: &BTreeSet<u64>, b: &BTreeSet<u64>, w: f64| {
            if !a.is_empty() && !b.is_empty() {
                weight += w;
                // Members that may be absent part few samples of one schema: half of the degree
                // is by the one that shows less.
                let least = a.len().min(b.len()) as f64;
                let contained = a.intersection(b).count() as f64 / least;
                sum += w * 0.5 * (jaccard(a, b) + contained);
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
        for (a, b, w) in [(&self.routes, &other.routes, 1.5), (&self.below, &other.below, 1.0)] {
            if !a.is_empty() && !b.is_empty() {
                let shared = a.intersection(b).count() as f64;
                // Three routes in common are seldom chance.
                let w = if shared >= 3.0 { 3.0 * w } else { w };
                weight += w;
                sum += w * shared / a.len().min(b.len()) as f64;
                is_informed = true;
            }
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

    pub fn answers(&self, method: Method) -> Option<&BTreeSet<u64>> {
        self.responses.get(&method).filter(|s| !s.is_empty())
    }

    pub fn methods(&self) -> &BTreeSet<Method> {
        &self.methods
    }
}

pub(crate) fn jaccard(a: &BTreeSet<u64>, b: &BTreeSet<u64>) -> f64 {
    let shared = a.intersection(b).count() as f64;
    let all = (a.len() + b.len()) as f64 - shared;
    if all == 0.0 { 0.0 } else { shared / all }
}

fn collect_body(body: &BodyStats, into: &mut BTreeSet<u64>) {
    for media in body.media.values() {
        if media.schema.count > 0 {
            collect(&media.schema, 1, 0, into);
        }
    }
}

/// Hashes of the key paths of a schema, with the types of its scalars left out: they vary.
fn collect(schema: &SchemaStats, path: u64, depth: u32, into: &mut BTreeSet<u64>) {
    if depth > MAX_DEPTH {
        return;
    }
    if let Some(array) = &schema.arrays {
        let path = mix(path, "[]");
        into.insert(path);
        if let Some(items) = &array.items {
            collect(&items.0, path, depth + 1, into);
        }
    }
    if let Some(object) = &schema.objects {
        let path = mix(path, "{}");
        for (key, member) in object.members.iter() {
            let path = mix(path ^ name_of(key), ".");
            into.insert(path);
            collect(&member.schema, path, depth + 1, into);
        }
    }
}

const MAX_ROUTE_DEPTH: u32 = 5;

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

fn name_of(key: &Key) -> u64 {
    if key.kind == Kind::Class { 7 } else { key.hash }
}

/// The key paths of the items of lists that a place answers to GET, where an item would be the
/// answer for one of its children: of the top-level array, or of arrays in the top-level object.
pub(crate) fn items_listed(node: &PathNode) -> Vec<BTreeSet<u64>> {
    let mut found = Vec::new();
    let Some(stats) = node.methods.get(&Method::Get) else { return found };
    for (status, response) in &stats.responses {
        if !(200..300).contains(status) {
            continue;
        }
        for media in response.body.media.values() {
            let mut take = |schema: &SchemaStats| {
                if let Some(items) = schema.arrays.as_ref().and_then(|a| a.items.as_ref())
                    && items.0.objects.is_some()
                {
                    let mut paths = BTreeSet::new();
                    collect(&items.0, 1, 0, &mut paths);
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

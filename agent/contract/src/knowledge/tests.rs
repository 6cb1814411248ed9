use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    described::{Noise, Traffic},
    observation::Method,
};

/// So small that every bound is hit.
const TIGHT: Limits = Limits { bytes: 24 << 10, words: 6, others: 4 };

/// Traffic with many siblings, members, values, statuses and media.
fn observations(seed: u64, count: usize) -> Vec<Observation> {
    let mut noise = Noise(seed | 1);
    let mut traffic = Traffic::default();
    (0..count)
        .map(|_| {
            let slug = noise.slug();
            let word = crate::described::WORDS[noise.below(38) as usize];
            let id = noise.below(1000);
            let target = match noise.below(6) {
                0 => format!("/{word}/{id}?{word}={slug}"),
                1 => format!("/users/{slug}/{word}"),
                2 => format!("/{slug}"),
                3 => format!("/api/{word}/{slug}.json"),
                4 => "/2024-01-02/x@y.z/".to_owned(),
                _ => format!("/{word}"),
            };
            let body =
                json!({ "id": id, word: slug.clone(), slug.clone(): [1.5, null, {word: true}] });
            let status = [200, 201, 302, 404, 401, 500][noise.below(6) as usize];
            let method = [Method::Get, Method::Post, Method::Options][noise.below(3) as usize];
            traffic.exchange(method, &target, Some(&body), status, Some(&body))
        })
        .collect()
}

fn learn(observations: &[Observation], limits: Limits) -> ServiceKnowledge {
    let mut known = ServiceKnowledge::new(limits);
    observations.iter().for_each(|o| known.record(o));
    known
}

fn union(parts: &[&ServiceKnowledge], limits: Limits) -> ServiceStats {
    let mut all = ServiceKnowledge::new(limits);
    parts.iter().for_each(|p| all.combine(p));
    all.stats
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn combining_is_commutative_and_associative_with_bounds_hit(
        seeds in prop::array::uniform3(any::<u64>()),
        sizes in prop::array::uniform3(0usize..120),
    ) {
        let [a, b, c] = [0, 1, 2].map(|i| learn(&observations(seeds[i], sizes[i]), TIGHT));
        let mut ab = a.clone();
        ab.combine(&b);
        let mut ba = b.clone();
        ba.combine(&a);
        prop_assert_eq!(&ab.stats, &ba.stats);
        let mut bc = b.clone();
        bc.combine(&c);
        ab.combine(&c);
        let mut a_bc = a.clone();
        a_bc.combine(&bc);
        prop_assert_eq!(&ab.stats, &a_bc.stats);
        prop_assert_eq!(union(&[&c, &a, &b], TIGHT), union(&[&b, &c, &a], TIGHT));
    }

    #[test]
    fn recording_is_combining_with_one(seed in any::<u64>(), size in 0usize..80) {
        // Bounds on siblings are hit, the limit of bytes is not: its level is the source's own.
        let limits = Limits { bytes: usize::MAX, ..TIGHT };
        let all = observations(seed, size);
        let mut combined = ServiceKnowledge::new(limits);
        for observation in &all {
            combined.combine(&learn(std::slice::from_ref(observation), limits));
        }
        prop_assert_eq!(combined.stats, learn(&all, limits).stats);
    }

    #[test]
    fn bytes_stay_within_the_limit(seed in any::<u64>()) {
        let limits = Limits { bytes: 600 << 10, words: 64, others: 32 };
        let mut known = ServiceKnowledge::new(limits);
        for observation in observations(seed, 600) {
            known.record(&observation);
        }
        prop_assert!(known.stats.level + known.stats.detail_level > 0, "the limit was not hit");
        prop_assert!(known.approximate_bytes() <= limits.bytes, "{}", known.approximate_bytes());
    }

    #[test]
    fn bytes_come_back_and_damage_is_an_error(seed in any::<u64>(), at in any::<prop::sample::Index>()) {
        let known = learn(&observations(seed, 60), TIGHT);
        let bytes = known.encode();
        let back = ServiceKnowledge::decode(&bytes, TIGHT).expect("its own bytes");
        prop_assert_eq!(&back.stats, &known.stats);
        let mut damaged = bytes.clone();
        damaged[at.index(bytes.len())] ^= 0x10;
        prop_assert!(ServiceKnowledge::decode(&damaged, TIGHT).is_err());
        prop_assert!(ServiceKnowledge::decode(&bytes[..at.index(bytes.len())], TIGHT).is_err());
    }

    #[test]
    fn no_bytes_make_decoding_panic(payload in prop::collection::vec(any::<u8>(), 0..400)) {
        // Behind a right checksum, as a hostile peer would send.
        let bytes = encoding::frame(&payload);
        let _ = ServiceKnowledge::decode(&bytes, TIGHT);
        let _ = Knowledge::decode(&bytes, TIGHT);
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        parts in prop::collection::vec((0u64..3, 0u64..3, 1u64..4, any::<u64>()), 3..8),
    ) {
        let parts: Vec<Knowledge> = parts
            .into_iter()
            .map(|(node, bucket, version, seed)| {
                let mut knowledge = Knowledge::new(TIGHT);
                let source = SourceId { node: format!("node-{node}"), bucket: bucket * 3600 };
                knowledge.put("shop", source, version, learn(&observations(seed, 5), TIGHT));
                knowledge
            })
            .collect();
        let merge = |order: &mut dyn Iterator<Item = &Knowledge>| {
            let mut all = Knowledge::new(TIGHT);
            order.for_each(|p| all.merge(p));
            all.encode()
        };
        let forward = merge(&mut parts.iter());
        prop_assert_eq!(&forward, &merge(&mut parts.iter().rev()));
        prop_assert_eq!(&forward, &merge(&mut parts.iter().chain(parts.iter())));
        let mut tail = Knowledge::new(TIGHT);
        parts.iter().skip(1).for_each(|p| tail.merge(p));
        let mut head = parts[0].clone();
        head.merge(&tail);
        prop_assert_eq!(&forward, &head.encode());
    }
}

#[test]
fn a_nest_of_bytes_is_refused_before_the_stack_ends() {
    // An array of an array of an array: each level is a few bytes.
    let mut stats = schema::SchemaStats::default();
    for _ in 0..400 {
        let items = Some(depth::Nested(std::mem::take(&mut stats)));
        stats.arrays = Some(Box::new(schema::ArrayStats { items, ..Default::default() }));
    }
    let bytes = postcard::to_stdvec(&stats).expect("serializes");
    assert!(postcard::from_bytes::<schema::SchemaStats>(&bytes).is_err());
    // And the depth is given back: a shallow one is read after it.
    let shallow = postcard::to_stdvec(&schema::SchemaStats::default()).expect("serializes");
    assert!(postcard::from_bytes::<schema::SchemaStats>(&shallow).is_ok());
}

#[test]
fn purging_forgets_what_was_last_seen_before() {
    let mut knowledge = Knowledge::default();
    let mut traffic = Traffic::default();
    for at in [1000, 5000, 9000] {
        let mut observation = traffic.exchange(Method::Get, "/users", None, 200, None);
        observation.at = at;
        knowledge.record("shop", "node", 1000, &observation);
    }
    assert_eq!(knowledge.purge_before(5000), 1);
    assert_eq!(knowledge.within("shop", Window::ALL).exchanges(), 2);
    assert_eq!(knowledge.within("shop", Window { from: 0, to: 6000 }).exchanges(), 1);
    assert_eq!(knowledge.purge_before(10_000), 2);
    assert!(knowledge.is_empty());
}

#[test]
fn decoding_tells_what_is_wrong() {
    assert_eq!(Knowledge::decode(b"", TIGHT), Err(DecodeError::NotStatistics));
    assert_eq!(
        Knowledge::decode(b"STKN\xff\xff", TIGHT),
        Err(DecodeError::Version { found: 0xffff })
    );
    let mut bytes = Knowledge::default().encode();
    *bytes.last_mut().expect("not empty") ^= 1;
    assert_eq!(Knowledge::decode(&bytes, TIGHT), Err(DecodeError::Damaged));
}

#[test]
fn failures_cannot_evict_what_succeeded() {
    let mut traffic = Traffic::default();
    let mut known = ServiceKnowledge::new(Limits { bytes: 64 << 10, words: 16, others: 8 });
    known.record(&traffic.exchange(Method::Get, "/gizmo", None, 200, None));
    let mut noise = Noise(7);
    for _ in 0..2000 {
        known.record(&traffic.exchange(
            Method::Get,
            &format!("/{}", noise.slug()),
            None,
            404,
            None,
        ));
    }
    assert_eq!(known.stats.paths.children.len(), 1);
}

#[test]
fn distinct_values_are_exact_while_few_and_cost_nothing_when_many() {
    let mut few = value::Distinct::default();
    let mut many = value::Distinct::default();
    for i in 0..20_000u64 {
        few.add(crate::described::hash(&(i % 12).to_string()), &None);
        many.add(crate::described::hash(&i.to_string()), &None);
    }
    assert_eq!(few.listed().len(), 12);
    assert!(few.is_saturated() && !many.is_saturated());
    assert_eq!((many.count, many.bytes()), (20_000, 0));
}

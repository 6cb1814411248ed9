//! Which partition a key belongs to: as Kafka's own producers choose it (`BuiltInPartitioner` on
//! `Utils.murmur2`), so that a tenant's events lie together whoever wrote them.

/// `partitions` is at least 1.
pub(super) fn partition_of(key: &[u8], partitions: usize) -> usize {
    // Its sign is dropped, as `Utils.toPositive` does.
    (murmur2(key) & 0x7fff_ffff) as usize % partitions.max(1)
}

fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Lengths wrap like Java's; keys are never that long.
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (i, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * i);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Kafka's `UtilsTest`.
    #[test]
    fn hashes_are_those_of_kafkas_producers() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    #[test]
    fn partitions_are_those_that_there_are() {
        assert!((0..500).all(|n: u32| partition_of(&n.to_be_bytes(), 7) < 7));
        assert_eq!(partition_of(b"acme", 1), 0);
    }
}

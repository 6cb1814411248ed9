//! Random numbers that need not be secret: identifiers of requests, choices among equals.

use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher, RandomState},
};

/// SplitMix64, seeded by the process' random state. One a worker.
#[derive(Debug)]
pub struct Random {
    state: Cell<u64>,
}

impl Default for Random {
    fn default() -> Self {
        Self { state: Cell::new(RandomState::new().build_hasher().finish()) }
    }
}

impl Random {
    pub fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `end` - 1; 0 where `end` is 0.
    pub fn below(&self, end: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// True in `share` of the cases, from 0 to 1.
    pub fn happens(&self, share: f64) -> bool {
        share >= 1.0 || (self.next() >> 11) as f64 / (1_u64 << 53) as f64 > 1.0 - share
    }
}

/// Writes `number` as 16 hexadecimal digits.
pub fn put_hex(out: &mut [u8; 16], number: u64) {
    for (i, digit) in out.iter_mut().enumerate() {
        let nibble = (number >> (60 - 4 * i)) & 15;
        *digit = b"0123456789abcdef"[usize::try_from(nibble).unwrap_or(0)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_and_stay_below() {
        let random = Random::default();
        assert_ne!(random.next(), random.next());
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
        assert!(random.happens(1.0) && !random.happens(0.0));
        let mut text = [0; 16];
        put_hex(&mut text, 0x0123_4567_89ab_cdef);
        assert_eq!(&text, b"0123456789abcdef");
    }
}

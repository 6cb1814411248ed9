//! Tokens that are text already, found again by their text without the keyed hash.
//!
//! Holds nothing that was not admitted. A table with one place for each slot: where two tokens
//! meet, the later one takes it, so that a collision costs the slow way and no more.

use crate::observation::Text;

/// A power of two. Interfaces have some hundred keys.
const SLOTS: usize = 512;

struct Slot<V> {
    place: u64,
    turn: u32,
    text: Text,
    value: V,
}

pub(super) struct Interned<V> {
    slots: Box<[Option<Slot<V>>]>,
    seed: [u64; 2],
}

impl<V> Interned<V> {
    pub fn new(seed: [u64; 2]) -> Self {
        Self { slots: Box::default(), seed: [seed[0], seed[1] | 1] }
    }

    #[inline]
    pub fn fingerprint(&self, bytes: &[u8]) -> u64 {
        mix(self.seed, 0, bytes)
    }

    /// Where the token would be.
    #[inline]
    pub fn slot(&self, place: u64, bytes: &[u8]) -> usize {
        let wide = mix(self.seed, place, bytes);
        (wide ^ wide >> 32) as usize & (SLOTS - 1)
    }

    /// The slot holds the token of this place, and the table that it is from has not turned since:
    /// that must see now and then what is in use.
    #[inline]
    pub fn is_at(&self, slot: usize, place: u64, turn: u32, bytes: &[u8]) -> bool {
        self.slots.get(slot).and_then(Option::as_ref).is_some_and(|slot| {
            slot.place == place
                && slot.turn == turn
                && is_same(slot.text.as_str().as_bytes(), bytes)
        })
    }

    #[inline]
    pub fn at(&self, slot: usize) -> Option<&V> {
        self.slots.get(slot)?.as_ref().map(|slot| &slot.value)
    }

    #[inline]
    pub fn get(&self, place: u64, turn: u32, bytes: &[u8]) -> Option<&V> {
        let slot = self.slot(place, bytes);
        if self.is_at(slot, place, turn, bytes) { self.at(slot) } else { None }
    }

    pub fn keep(&mut self, place: u64, turn: u32, text: &Text, value: V) {
        if self.slots.is_empty() {
            self.slots = (0..SLOTS).map(|_| None).collect();
        }
        let index = self.slot(place, text.as_str().as_bytes());
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(Slot { place, turn, text: text.clone(), value });
        }
    }
}

/// As `==`, without a call: tokens are short.
#[inline]
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    let ((a_words, a_tail), (b_words, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    a.len() == b.len()
        && read_tail(a_tail) == read_tail(b_tail)
        && a_words
            .iter()
            .zip(b_words)
            .all(|(a, b)| u64::from_le_bytes(*a) == u64::from_le_bytes(*b))
}

/// Spreads short tokens. Both the start and the factor are secret, so that nobody outside can make
/// two tokens meet.
#[inline]
fn mix([seed, factor]: [u64; 2], place: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ place ^ bytes.len() as u64;
    let mut fold = |word: u64| {
        let wide = u128::from(state ^ word) * u128::from(factor);
        state = wide as u64 ^ (wide >> 64) as u64;
    };
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        fold(u64::from_le_bytes(*word));
    }
    fold(read_tail(tail));
    state
}

/// Up to seven bytes as a number.
#[inline]
pub(super) fn read_tail(tail: &[u8]) -> u64 {
    let mut word = 0u64;
    let mut rest = tail;
    if let Some((four, after)) = rest.split_first_chunk::<4>() {
        word = u64::from(u32::from_le_bytes(*four));
        rest = after;
    }
    let mut at = if tail.len() >= 4 { 32 } else { 0 };
    if let Some((two, after)) = rest.split_first_chunk::<2>() {
        word |= u64::from(u16::from_le_bytes(*two)) << at;
        at += 16;
        rest = after;
    }
    if let [last] = rest {
        word |= u64::from(*last) << at;
    }
    word
}

//! What recent values turned out to be, by their keyed hash: values come again, and looking them
//! over costs more than hashing them. Holds hashes and classes, never bytes.

use super::field_name::Field;
use crate::observation::{Formats, Number, Personal, TokenHash};

/// A power of two.
const SLOTS: usize = 1024;

/// All that follows from a value's bytes and the field that it stands under.
#[derive(Clone, Copy)]
pub(super) struct Judgement {
    pub hash: TokenHash,
    pub field: Field,
    pub formats: Formats,
    pub length: u32,
    pub personal: Option<Personal>,
    pub number: Option<Number>,
}

/// One place for each slot; the later value takes it.
#[derive(Default)]
pub(super) struct Memo {
    slots: Box<[Option<Judgement>]>,
}

impl Memo {
    #[inline]
    pub fn get(&self, hash: TokenHash, field: Field) -> Option<&Judgement> {
        self.slots
            .get(slot(hash))?
            .as_ref()
            .filter(|judgement| judgement.hash == hash && judgement.field == field)
    }

    pub fn keep(&mut self, judgement: Judgement) {
        if self.slots.is_empty() {
            self.slots = vec![None; SLOTS].into();
        }
        if let Some(slot) = self.slots.get_mut(slot(judgement.hash)) {
            *slot = Some(judgement);
        }
    }
}

fn slot(hash: TokenHash) -> usize {
    hash.0 as usize & (SLOTS - 1)
}

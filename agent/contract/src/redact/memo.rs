//! What recent values turned out to be: values come again, and looking them over and hashing them
//! under the secret costs more than finding them here. Holds hashes, classes and admitted text,
//! never other bytes.
//!
//! Found by a fingerprint of 64 bits. Where two values had the same, one would pass for the other;
//! nothing raw can get out that way, because text is admitted only after the keyed hash of the very
//! bytes was compared.

use super::field_name::Field;
use crate::observation::Value;

/// A power of two.
const SLOTS: usize = 1024;

/// All that follows from a value's bytes and the field that it stands under.
#[derive(Clone)]
pub(super) struct Judged {
    /// As it leaves.
    pub value: Value,
    /// Whether it may be a member of an enumeration, from its looks and its field.
    pub may_be_member: bool,
    /// May name a thing in a path: short, and without blanks.
    pub may_name: bool,
}

impl Judged {
    /// Whether another sample can change nothing.
    fn is_settled(&self) -> bool {
        !self.may_be_member || self.value.text.is_some()
    }
}

/// What a value is looked up by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Print {
    pub bytes: u64,
    /// Stands for the field, as far as it makes a difference.
    pub place: u64,
}

impl Print {
    fn slot(self) -> usize {
        let wide = self.bytes ^ self.place;
        (wide ^ wide >> 32) as usize & (SLOTS - 1)
    }
}

/// Fields whose samples may become text are told apart by `salt`; of the others only what their
/// name says counts.
pub(super) fn place_of(field: Field, salt: u64) -> u64 {
    match field {
        Field::Open => salt,
        Field::Quiet => 1,
        Field::Name => 2,
        Field::Personal(class) => 3 + class as u64,
    }
}

struct Slot {
    print: Print,
    turn: u32,
    judged: Judged,
}

/// One place for each slot; the later value takes it.
#[derive(Default)]
pub(super) struct Memo {
    slots: Box<[Option<Slot>]>,
}

impl Memo {
    /// Of what needs nothing more. `turn` as of [`super::recurrence::Generations`]: what became
    /// text must be seen there now and then.
    #[inline]
    pub fn settled(&self, print: Print, turn: u32) -> Option<&Judged> {
        let slot = self.slots.get(print.slot())?.as_ref()?;
        let is_it = slot.print == print
            && slot.judged.is_settled()
            && (slot.turn == turn || slot.judged.value.text.is_none());
        is_it.then_some(&slot.judged)
    }

    /// Taken out, to be kept again.
    pub fn take(&mut self, print: Print) -> Option<Judged> {
        self.slots.get_mut(print.slot())?.take_if(|slot| slot.print == print).map(|s| s.judged)
    }

    pub fn keep(&mut self, print: Print, turn: u32, judged: Judged) {
        if self.slots.is_empty() {
            self.slots = (0..SLOTS).map(|_| None).collect();
        }
        self.slots[print.slot()] = Some(Slot { print, turn, judged });
    }
}

//! What objects of a kind look like: the names of their members in order, and what each name says of
//! the value under it. Services write the objects of one place of one body alike, so that the next
//! one is compared with the last instead of being read anew.
//!
//! Holds nothing but names that were admitted. Where the next object differs, it is read the long
//! way from there on.

use super::{admission::Meaning, field_name::Field, intern::is_same};
use crate::observation::{Names, Personal, Token};

/// A power of two.
const SETS: usize = 128;
/// Kinds remembered of one place: optional members make several.
const WAYS: usize = 4;
/// Objects with more members are data rather than structure.
const MAX_MEMBERS: usize = 48;

/// What stands around a value.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub depth: u32,
    pub meaning: Meaning,
    /// What is described here is a person.
    pub in_person: bool,
    /// The keys of this object name persons (`{"users": {"kim": ...}}`).
    pub keys_name_persons: bool,
    /// Which body of which endpoint, and below which names.
    pub path: u64,
}

impl Place {
    /// Where the value of a member stands. `in_person`: a member before it told that the object
    /// describes one.
    pub fn member(&self, token: &Token, meaning: Meaning, in_person: bool) -> Self {
        Self {
            depth: self.depth + 1,
            meaning,
            in_person: in_person || meaning.is_person,
            keys_name_persons: meaning.is_person_collection
                && meaning.is_person
                && meaning.is_plural,
            path: below(self.path, token.hash.0),
        }
    }

    pub fn item(&self) -> Self {
        Self {
            depth: self.depth + 1,
            keys_name_persons: false,
            path: below(self.path, 0x5b5d),
            ..*self
        }
    }
}

fn below(path: u64, own: u64) -> u64 {
    let key = (path ^ own).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    key ^ key >> 32
}

/// The member says that its object describes a person.
pub(super) fn tells_of_person(field: Field) -> bool {
    matches!(
        field,
        Field::Personal(Personal::Email | Personal::BirthDate | Personal::Ssn | Personal::Password)
    )
}

/// What is known once all members of an object were read.
#[derive(Clone, Copy, Default)]
pub(super) struct After {
    pub in_person: bool,
    /// The member whose value is a name: of a person, if the object describes one.
    pub unsure_name: Option<usize>,
}

/// One kind of object at one place.
pub(super) struct Layout {
    pub names: Names,
    /// Of the members' values.
    pub places: Box<[Place]>,
    pub after: After,
    /// Where the object stands, as far as it decides what its names mean.
    path: u64,
    depth: u32,
    in_person: bool,
    keys_name_persons: bool,
    turn: u32,
}

impl Layout {
    fn is_of(&self, place: &Place, turn: u32) -> bool {
        self.path == place.path
            && self.turn == turn
            && self.depth == place.depth
            && self.in_person == place.in_person
            && self.keys_name_persons == place.keys_name_persons
    }

    /// The length of the name at this index, where `text` begins with it and a quote. What was
    /// admitted needs no escapes, so that it is written as it is or is another.
    #[inline]
    pub fn begins(&self, index: usize, text: &[u8]) -> Option<usize> {
        let name = self.names.tokens().get(index)?.text.as_ref()?.as_str().as_bytes();
        let is_it = text.get(name.len()) == Some(&b'"')
            && text.get(..name.len()).is_some_and(|text| is_same(text, name));
        is_it.then_some(name.len())
    }
}

#[derive(Default)]
pub(super) struct Layouts {
    /// The latest last.
    // Boxed, since a kind is taken out and put back for each object.
    #[allow(clippy::vec_box, reason = "moving a box costs less than moving a kind")]
    sets: Box<[Vec<Box<Layout>>]>,
}

impl Layouts {
    /// The kind that this place had last, taken out while it is used.
    #[inline]
    pub fn take(&mut self, place: &Place, turn: u32) -> Option<Box<Layout>> {
        let set = self.sets.get_mut(set_of(place))?;
        let at = set.iter().rposition(|kind| kind.is_of(place, turn))?;
        Some(set.swap_remove(at))
    }

    /// Another kind that begins with the same `count` names, and has the one next that `text`
    /// begins with.
    pub fn take_like(
        &mut self,
        like: &Layout,
        count: usize,
        place: &Place,
        turn: u32,
        text: &[u8],
    ) -> Option<Box<Layout>> {
        let own = like.names.tokens();
        let set = self.sets.get_mut(set_of(place))?;
        let at = set.iter().rposition(|kind| {
            kind.is_of(place, turn)
                && kind.begins(count, text).is_some()
                && own.iter().zip(kind.names.tokens()).take(count).all(|(a, b)| a.hash == b.hash)
        })?;
        Some(set.swap_remove(at))
    }

    #[inline]
    pub fn put(&mut self, kind: Box<Layout>) {
        if self.sets.is_empty() {
            self.sets = (0..SETS).map(|_| Vec::new()).collect();
        }
        if let Some(set) = self.sets.get_mut(kind.path as usize & (SETS - 1)) {
            if set.len() >= WAYS {
                set.remove(0);
            }
            set.push(kind);
        }
    }

    /// What an object turned out to be, for the next one; the names as they are shared from then
    /// on, or as they were where objects cannot be expected to be alike.
    pub fn learn(
        &mut self,
        place: &Place,
        turn: u32,
        names: Vec<Token>,
        places: Vec<Place>,
        after: After,
    ) -> Result<Names, Vec<Token>> {
        let is_structure =
            (1..=MAX_MEMBERS).contains(&names.len()) && names.iter().all(|n| n.text.is_some());
        if !is_structure {
            return Err(names);
        }
        let names = Names::shared(names);
        let kind = Layout {
            names: names.clone(),
            places: places.into(),
            after,
            path: place.path,
            depth: place.depth,
            in_person: place.in_person,
            keys_name_persons: place.keys_name_persons,
            turn,
        };
        self.put(Box::new(kind));
        Ok(names)
    }
}

fn set_of(place: &Place) -> usize {
    place.path as usize & (SETS - 1)
}

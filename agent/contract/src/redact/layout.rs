//! What objects of a kind look like: the names of their members in order, and what each name says of
//! the value under it. Services write the objects of one place of one body alike, so that the next
//! one is compared with the last instead of being read anew.
//!
//! Holds nothing but names that were admitted. Where the next object differs, it is read the long
//! way from there on.

use super::{admission::Meaning, field_name::Field};
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
        Field::Personal(
            Personal::Email | Personal::BirthDate | Personal::Ssn | Personal::Password
        )
    )
}

/// One kind of object at one place.
pub(super) struct Layout {
    pub names: Names,
    /// Of the members' values.
    pub places: Box<[Place]>,
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
}

/// The kinds of one set, latest first, taken out while they are used.
pub(super) type Kinds = Vec<Layout>;

#[derive(Default)]
pub(super) struct Layouts {
    sets: Box<[Kinds]>,
}

impl Layouts {
    /// The kinds of this place; all others of the set are behind them. To be put back.
    #[inline]
    pub fn take(&mut self, place: &Place, turn: u32) -> (Kinds, Option<usize>) {
        let Some(set) = self.sets.get_mut(set_of(place)) else { return (Kinds::new(), None) };
        let kinds = std::mem::take(set);
        let first = kinds.iter().position(|kind| kind.is_of(place, turn));
        (kinds, first)
    }

    /// Another kind that begins with the same `count` names.
    pub fn find_like(
        kinds: &Kinds,
        index: usize,
        count: usize,
        place: &Place,
        turn: u32,
    ) -> Option<usize> {
        let own = kinds.get(index)?.names.tokens();
        let is_like = |kind: &Layout| {
            let theirs = kind.names.tokens();
            kind.is_of(place, turn)
                && theirs.len() > count
                && own.iter().zip(theirs).take(count).all(|(a, b)| a.hash == b.hash)
        };
        (index + 1..kinds.len()).find(|at| kinds.get(*at).is_some_and(is_like))
    }

    #[inline]
    pub fn put(&mut self, place: &Place, mut kinds: Kinds) {
        if self.sets.is_empty() {
            if kinds.is_empty() {
                return;
            }
            self.sets = (0..SETS).map(|_| Kinds::new()).collect();
        }
        if let Some(set) = self.sets.get_mut(set_of(place)) {
            // What was learnt meanwhile, of an object within, is of the same set by chance.
            kinds.append(set);
            kinds.truncate(WAYS);
            *set = kinds;
        }
    }

    /// What an object turned out to be, for the next one; the names as they are shared from then on.
    pub fn learn(
        kinds: &mut Kinds,
        place: &Place,
        turn: u32,
        names: Vec<Token>,
        places: Vec<Place>,
    ) -> Result<Names, Vec<Token>> {
        let is_structure =
            (1..=MAX_MEMBERS).contains(&names.len()) && names.iter().all(|n| n.text.is_some());
        if !is_structure {
            return Err(names);
        }
        kinds.retain(|kind| kind.turn == turn);
        let names = Names::shared(names);
        let kind = Layout {
            names: names.clone(),
            places: places.into(),
            path: place.path,
            depth: place.depth,
            in_person: place.in_person,
            keys_name_persons: place.keys_name_persons,
            turn,
        };
        kinds.insert(0, kind);
        Ok(names)
    }
}

fn set_of(place: &Place) -> usize {
    place.path as usize & (SETS - 1)
}

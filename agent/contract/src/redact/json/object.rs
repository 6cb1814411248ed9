//! Objects: compared with those that were at the same place before, and read by name where they
//! differ.

use super::{
    super::{
        admission::{Meaning, Role},
        field_name::Field,
        layout::{After, Layout, Place, tells_of_person},
    },
    Json, Stop, slice,
};
use crate::observation::{Members, Node, Personal, Token};

/// Room that an object gets with its first member; most have fewer.
const USUAL_MEMBERS: usize = 8;

/// An object while it is read.
#[derive(Default)]
struct Building {
    names: Vec<Token>,
    places: Vec<Place>,
    values: Vec<Node>,
    /// Hashes of the names so far, six bits of each: most names are surely no duplicates.
    seen: u64,
    after: After,
    has_twins: bool,
    left_out: bool,
}

impl Building {
    fn note(&mut self, token: &Token, meaning: Meaning) {
        self.seen |= 1 << (token.hash.0 & 63);
        self.after.in_person |= tells_of_person(meaning.field);
    }

    /// The first `count` members were those of `kind`.
    fn resume(&mut self, kind: &Layout, count: usize, in_person: bool) {
        self.names = kind.names.tokens().get(..count).unwrap_or_default().to_vec();
        self.places = kind.places.get(..count).unwrap_or_default().to_vec();
        self.after.in_person = in_person;
        for (at, (token, place)) in
            kind.names.tokens().iter().zip(&kind.places).take(count).enumerate()
        {
            self.note(token, place.meaning);
            if place.meaning.field == Field::Name {
                self.after.unsure_name = Some(at);
            }
        }
    }

    /// Of duplicate keys the last one counts, as nearly every parser has it.
    fn twin(&self, token: &Token) -> Option<usize> {
        if self.seen & 1 << (token.hash.0 & 63) == 0 {
            return None;
        }
        self.names.iter().position(|name| name.hash == token.hash)
    }
}

/// How the members of an object that was compared with others came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Closed,
    /// It goes on with a name, of another kind.
    Differs,
    Stopped,
}

impl Json<'_, '_> {
    pub(super) fn object(&mut self, place: &Place) -> Node {
        self.at += 1;
        let turn = self.admission.turn();
        let mut kind = self.layouts.take(place, turn);
        let mut building = Building::default();
        let mut ending = Ending::Differs;
        let mut is_at_name = false;
        while let Some(expected) = kind {
            if building.values.capacity() == 0 {
                building.values.reserve(expected.places.len());
            }
            ending = self.compare(&expected, is_at_name, &mut building.values);
            let count = building.values.len();
            if ending == Ending::Closed && count == expected.places.len() {
                let mut values = building.values;
                self.settle_name(expected.after, &mut values);
                let members = Members::shared(expected.names.clone(), values);
                self.layouts.put(expected);
                return Node::Object { members, is_closed: true };
            }
            is_at_name = ending == Ending::Differs;
            kind = if is_at_name {
                let text = self.bytes.get(self.at + 1..).unwrap_or_default();
                self.layouts.take_like(&expected, count, place, turn, text)
            } else {
                None
            };
            if kind.is_none() {
                building.resume(&expected, count, place.in_person);
            }
            self.layouts.put(expected);
        }
        let is_closed = match ending {
            Ending::Closed => true,
            Ending::Stopped => false,
            Ending::Differs => {
                building.after.in_person |= place.in_person;
                self.read_members(place, is_at_name, &mut building)
            }
        };
        let Building { names, places, mut values, after, has_twins, left_out, .. } = building;
        self.settle_name(after, &mut values);
        let is_regular = is_closed && !has_twins && !left_out && self.admission.turn() == turn;
        let names = if is_regular {
            self.layouts.learn(place, turn, names, places, after)
        } else {
            Err(names)
        };
        let members = match names {
            Ok(names) => Members::shared(names, values),
            Err(names) => Members::own(names, values),
        };
        Node::Object { members, is_closed: is_closed && !left_out }
    }

    /// A name in an object that turned out to describe a person is that person's.
    #[inline]
    fn settle_name(&mut self, after: After, values: &mut [Node]) {
        if after.in_person
            && let Some(Node::String(name)) = after.unsure_name.and_then(|i| values.get_mut(i))
            && name.personal.is_none()
        {
            name.personal = Some(Personal::Name);
            self.tally.mask(Personal::Name);
        }
    }

    /// Reads members as long as they are those of `kind`, from the one after the last of `values`.
    fn compare(&mut self, kind: &Layout, is_at_name: bool, values: &mut Vec<Node>) -> Ending {
        let mut is_at_name = is_at_name;
        loop {
            if !std::mem::take(&mut is_at_name) {
                match self.next_name(values.is_empty()) {
                    Some(true) => {}
                    Some(false) => return Ending::Closed,
                    None => return Ending::Stopped,
                }
            }
            let at = values.len();
            let text = self.bytes.get(self.at + 1..).unwrap_or_default();
            let (Some(length), Some(place)) = (kind.begins(at, text), kind.places.get(at)) else {
                return Ending::Differs;
            };
            self.at += length + 2;
            if !self.colon() {
                return Ending::Stopped;
            }
            values.push(Node::Null);
            if let Some(slot) = values.last_mut()
                && !self.value(place, slot)
            {
                values.pop();
                return Ending::Stopped;
            }
            if self.stop.is_some() {
                return Ending::Stopped;
            }
        }
    }

    /// To the quote of the next name: true; past the brace that ends the object: false.
    #[inline]
    fn next_name(&mut self, is_first: bool) -> Option<bool> {
        self.skip_blank();
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Some(false);
            }
            Some(b',') if !is_first => {
                self.at += 1;
                self.skip_blank();
                if self.peek() == Some(b'"') {
                    return Some(true);
                }
            }
            Some(b'"') if is_first => return Some(true),
            _ => {}
        }
        self.halt(Stop::Bad);
        None
    }

    /// To the value behind a name.
    #[inline]
    fn colon(&mut self) -> bool {
        self.skip_blank();
        if self.peek() != Some(b':') {
            self.halt(Stop::Bad);
            return false;
        }
        self.at += 1;
        self.skip_blank();
        if self.at >= self.bytes.len() {
            self.stop = Some(Stop::End);
        }
        self.stop.is_none()
    }

    /// Reads the members that are left. True where the object was seen to end.
    fn read_members(&mut self, place: &Place, is_at_name: bool, into: &mut Building) -> bool {
        let mut is_at_name = is_at_name;
        let mut is_first = into.values.is_empty();
        let role = if place.keys_name_persons { Role::NameOfPerson } else { Role::Name };
        while self.stop.is_none() {
            if !std::mem::take(&mut is_at_name) {
                match self.next_name(is_first) {
                    Some(true) => {}
                    Some(false) => return true,
                    None => break,
                }
            }
            is_first = false;
            let Some(raw) = self.string() else { break };
            if !self.colon() {
                break;
            }
            let unescaped = if raw.is_escaped { self.unescape(raw) } else { Vec::new() };
            let bytes = if raw.is_escaped { &unescaped } else { slice(self.bytes, raw) };
            let (token, mut meaning) = self.admission.token(role, bytes, self.tally);
            let twin = into.twin(&token);
            into.note(&token, meaning);
            if meaning.field == Field::Name && into.after.in_person {
                meaning.field = Field::Personal(Personal::Name);
            }
            if twin.is_none() && into.values.len() >= self.limits.members {
                into.left_out = true;
                self.skip_value(meaning);
                continue;
            }
            let inner = place.member(&token, meaning, into.after.in_person);
            let index = twin.unwrap_or(into.values.len());
            if let Some(twin) = twin {
                into.has_twins = true;
                let mut node = Node::Null;
                if !self.value(&inner, &mut node) {
                    break;
                }
                if let Some(slot) = into.values.get_mut(twin) {
                    *slot = node;
                }
            } else {
                if into.values.is_empty() {
                    into.names.reserve(USUAL_MEMBERS);
                    into.places.reserve(USUAL_MEMBERS);
                    into.values.reserve(USUAL_MEMBERS);
                }
                into.names.push(token);
                into.places.push(inner);
                into.values.push(Node::Null);
                if let Some(slot) = into.values.last_mut()
                    && !self.value(&inner, slot)
                {
                    into.names.pop();
                    into.values.pop();
                    break;
                }
            }
            if meaning.field == Field::Name {
                into.after.unsure_name = Some(index);
            }
        }
        false
    }
}

//! Statistics of JSON values at one place of a body, merged over all samples.

use serde::{Deserialize, Serialize};

use super::{
    depth::Nested,
    kept::{Bounds, Kept, Part, Version},
    token::{self, TokenStats},
    value::{NumberStats, ValueStats},
};
use crate::observation::{Members, Node, Personal, Token, Value};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SchemaStats {
    pub count: u64,
    pub nulls: u64,
    pub booleans: u64,
    pub numbers: Option<Box<NumberStats>>,
    pub strings: Option<Box<ValueStats>>,
    pub arrays: Option<Box<ArrayStats>>,
    pub objects: Option<Box<ObjectStats>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ArrayStats {
    pub count: u64,
    pub empty: u64,
    pub max_length: u32,
    pub items: Option<Nested<SchemaStats>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ObjectStats {
    pub count: u64,
    /// Objects of which all members were seen: only in these is absence evidence.
    pub closed: u64,
    pub members: Kept<MemberStats>,
    #[serde(skip)]
    plan: Plan,
}

/// Where the members of objects with the same names are counted, so that they need not be looked
/// up again. Only for speed: it is neither stored nor compared.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// Of [`crate::observation::Names`]; of the objects that came last, and of those that the
    /// places below are for.
    latest: u64,
    names: u64,
    version: Version,
    places: Vec<u32>,
}

impl PartialEq for Plan {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MemberStats {
    pub name: TokenStats,
    /// In closed objects.
    pub present: u64,
    pub schema: SchemaStats,
}

impl Part for MemberStats {
    fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.name.combine(&other.name);
        self.present += other.present;
        if let Some(deeper) = bounds.deeper() {
            self.schema.combine(&other.schema, deeper);
        }
    }
    fn coarsen(&mut self, bounds: Bounds) {
        if let Some(deeper) = bounds.deeper() {
            self.schema.coarsen(deeper);
        }
    }
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.bytes() + self.schema.bytes()
    }
}

impl SchemaStats {
    pub fn add(&mut self, node: &Node, bounds: Bounds, grown: &mut usize) {
        self.count += 1;
        match node {
            Node::Null => self.nulls += 1,
            Node::Bool => self.booleans += 1,
            Node::Number(number) => self.numbers.get_or_insert_with(grow(grown)).add(number),
            Node::String(value) => self.strings.get_or_insert_with(grow(grown)).add(value),
            Node::Array { items, length, .. } => {
                let array = self.arrays.get_or_insert_with(grow(grown));
                array.count += 1;
                array.empty += u64::from(*length == 0);
                array.max_length = array.max_length.max(*length);
                let Some(deeper) = bounds.deeper() else { return };
                for item in items {
                    array.items.get_or_insert_with(grow(grown)).0.add(item, deeper, grown);
                }
            }
            Node::Object { members, is_closed } => {
                let object = self.objects.get_or_insert_with(grow(grown));
                object.count += 1;
                object.closed += u64::from(*is_closed);
                let Some(deeper) = bounds.deeper() else { return };
                object.add_members(members, *is_closed, bounds, deeper, grown);
            }
        }
    }

    /// A field of a form: a string.
    pub fn add_string(&mut self, value: &Value, grown: &mut usize) {
        self.count += 1;
        self.strings.get_or_insert_with(grow(grown)).add(value);
    }

    pub fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.count += other.count;
        self.nulls += other.nulls;
        self.booleans += other.booleans;
        if let Some(theirs) = &other.numbers {
            self.numbers.get_or_insert_default().combine(theirs);
        }
        if let Some(theirs) = &other.strings {
            self.strings.get_or_insert_default().combine(theirs);
        }
        if let Some(theirs) = &other.arrays {
            let own = self.arrays.get_or_insert_default();
            own.count += theirs.count;
            own.empty += theirs.empty;
            own.max_length = own.max_length.max(theirs.max_length);
            if let Some((items, deeper)) = theirs.items.as_ref().zip(bounds.deeper()) {
                own.items.get_or_insert_default().0.combine(&items.0, deeper);
            }
        }
        if let Some(theirs) = &other.objects {
            let own = self.objects.get_or_insert_default();
            own.count += theirs.count;
            own.closed += theirs.closed;
            if bounds.deeper().is_some() {
                own.members.combine(&theirs.members, bounds);
            }
        }
    }

    pub fn coarsen(&mut self, bounds: Bounds) {
        let deeper = bounds.deeper();
        if let Some(array) = &mut self.arrays {
            match (&mut array.items, deeper) {
                (Some(items), Some(deeper)) => items.0.coarsen(deeper),
                _ => array.items = None,
            }
        }
        if let Some(objects) = &mut self.objects {
            match deeper {
                Some(_) => objects.members.coarsen(bounds),
                None => {
                    objects.members = Kept::default();
                    objects.plan = Plan::default();
                }
            }
        }
    }

    /// On the heap, beyond its own size.
    pub fn bytes(&self) -> usize {
        self.numbers.as_ref().map_or(0, |n| n.bytes())
            + self.strings.as_ref().map_or(0, |s| s.bytes())
            + self.arrays.as_ref().map_or(0, |a| {
                size_of::<ArrayStats>() + a.items.as_ref().map_or(0, |i| i.0.bytes())
            })
            + self.objects.as_ref().map_or(0, |o| {
                size_of::<ObjectStats>() + o.members.bytes() + o.plan.places.capacity() * 4
            })
    }

    /// The most frequent class of personal data, where a tenth of the scalars are of it.
    pub fn personal(&self) -> Option<Personal> {
        let numbers = self.numbers.iter().flat_map(|n| n.personal.iter());
        let strings = self.strings.iter().flat_map(|s| s.personal.iter());
        numbers
            .chain(strings)
            .filter(|(_, n)| *n * 10 >= self.count - self.nulls.min(self.count))
            .max_by_key(|(class, n)| (*n, std::cmp::Reverse(**class)))
            .map(|(class, _)| *class)
    }
}

impl ObjectStats {
    pub fn add_member(
        &mut self,
        name: &Token,
        is_closed: bool,
        bounds: Bounds,
        grown: &mut usize,
        add: impl FnOnce(&mut SchemaStats, &mut usize),
    ) {
        let key = token::key(name, None);
        let member = self.members.slot(key, bounds, grown);
        member.name.add(name);
        member.present += u64::from(is_closed);
        add(&mut member.schema, grown);
    }

    fn add_members(
        &mut self,
        members: &Members,
        is_closed: bool,
        bounds: Bounds,
        deeper: Bounds,
        grown: &mut usize,
    ) {
        let names = members.names().id();
        let plan = &self.plan;
        if names != 0 && plan.names == names && plan.version == self.members.version() {
            for (place, node) in plan.places.iter().zip(members.values()) {
                let Some(member) = self.members.at(*place) else { continue };
                // Of the same token, all but the number is known.
                member.name.count += 1;
                member.present += u64::from(is_closed);
                member.schema.add(node, deeper, grown);
            }
            return;
        }
        for (name, node) in members.iter() {
            self.add_member(name, is_closed, bounds, grown, |s, g| s.add(node, deeper, g));
        }
        // What comes twice in a row comes again.
        if names != 0 && std::mem::replace(&mut self.plan.latest, names) == names {
            let keys = members.names().tokens().iter().map(|name| token::key(name, None));
            let places: Option<Vec<u32>> = keys.map(|key| self.members.place(key)).collect();
            if let Some(places) = places {
                *grown += places.len() * size_of::<u32>();
                self.plan = Plan { latest: names, names, version: self.members.version(), places };
            }
        }
    }
}

/// Makes a default value and notes about what it and its sketch will take.
pub(crate) fn grow<T: Default>(grown: &mut usize) -> impl FnOnce() -> T {
    || {
        *grown += size_of::<T>() + 320;
        T::default()
    }
}

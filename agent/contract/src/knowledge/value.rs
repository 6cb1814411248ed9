//! Statistics of scalar values: type, formats, width, distinct values; never a value.

use serde::{Deserialize, Deserializer, Serialize};

use super::{counts::Counts, token};
use crate::observation::{Formats, Number, Personal, Text, TokenHash, Value};

/// Distinct values kept while they may still be all there are; once there were more, none is:
/// they are no enumeration.
pub(crate) const MAX_LISTED: usize = 16;
/// A value of more characters is no member of an enumeration: none is kept of a place that had one.
const MAX_LISTED_LENGTH: u32 = 48;
/// Nor is one of such a format.
const UNLISTED: Formats = Formats(
    Formats::DATE_TIME.0 | Formats::EMAIL.0 | Formats::UUID.0 | Formats::JWT.0 | Formats::URI.0,
);

/// [`Text`] at rest. The one way to make a text from something that is not an exchange: stored
/// statistics, whose text `redact` admitted when they were recorded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct StoredText(pub Text);

impl<'de> Deserialize<'de> for StoredText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self(Text::admit(&text)))
    }
}

impl StoredText {
    pub fn of(text: &Option<Text>) -> Option<Self> {
        text.clone().map(Self)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Which values, where they are few, with exact counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Distinct {
    /// Sorted by hash.
    listed: Vec<Listed>,
    /// There were more values than `MAX_LISTED`.
    pub is_many: bool,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub hash: u64,
    pub count: u64,
    pub text: Option<StoredText>,
}

impl Distinct {
    pub fn add(&mut self, hash: TokenHash, text: &Option<Text>) {
        self.count += 1;
        if !self.is_many {
            self.insert(hash.0, 1, text.as_ref());
            self.trim();
        }
    }

    fn insert(&mut self, hash: u64, count: u64, text: Option<&Text>) {
        match self.listed.binary_search_by_key(&hash, |l| l.hash) {
            Ok(at) => {
                if let Some(own) = self.listed.get_mut(at) {
                    own.count += count;
                    keep_greater(&mut own.text, text);
                }
            }
            Err(at) => {
                if self.listed.len() == self.listed.capacity() {
                    self.listed.reserve_exact(2);
                }
                self.listed.insert(at, Listed { hash, count, text: text.cloned().map(StoredText) });
            }
        }
    }

    /// From now on, and in every union, nothing is listed.
    fn give_up(&mut self) {
        self.is_many = true;
        self.trim();
    }

    fn trim(&mut self) {
        self.is_many |= self.listed.len() > MAX_LISTED;
        if self.is_many {
            self.listed = Vec::new();
        }
    }

    pub fn combine(&mut self, other: &Self) {
        self.count += other.count;
        self.is_many |= other.is_many;
        for l in &other.listed {
            self.insert(l.hash, l.count, l.text.as_ref().map(|t| &t.0));
        }
        self.trim();
    }

    /// The values themselves, where all are known.
    pub fn listed(&self) -> &[Listed] {
        &self.listed
    }

    /// Values seen exactly once, of those listed.
    pub fn singletons(&self) -> usize {
        self.listed.iter().filter(|l| l.count == 1).count()
    }

    /// Good-Turing: the chance that the next value is one not seen before is about the share of
    /// samples whose value was seen once.
    pub fn is_saturated(&self) -> bool {
        !self.is_many && (self.singletons() as f64) <= 0.02 * self.count as f64
    }

    pub fn bytes(&self) -> usize {
        self.listed.capacity() * size_of::<Listed>()
            + self
                .listed
                .iter()
                .filter_map(|l| l.text.as_ref())
                .map(|t| t.as_str().len() + 16)
                .sum::<usize>()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NumberStats {
    pub count: u64,
    pub fractional: u64,
    pub negative: u64,
    pub max_bits: u8,
    pub personal: Counts<Personal>,
}

impl NumberStats {
    pub fn add(&mut self, number: &Number) {
        self.count += 1;
        self.fractional += u64::from(!number.is_integer);
        self.negative += u64::from(number.is_negative);
        self.max_bits = self.max_bits.max(number.bits);
        if let Some(class) = number.personal {
            self.personal.add(class, 1);
        }
    }

    pub fn combine(&mut self, other: &Self) {
        self.count += other.count;
        self.fractional += other.fractional;
        self.negative += other.negative;
        self.max_bits = self.max_bits.max(other.max_bits);
        self.personal.combine(&other.personal);
    }

    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.personal.bytes()
    }
}

/// Of strings, and of all values that are written as strings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ValueStats {
    pub count: u64,
    pub empty: u64,
    /// Formats that every sample that was not empty has: one violation is enough.
    pub formats: Formats,
    pub min_length: u32,
    pub max_length: u32,
    /// Samples that spell a number.
    pub numbers: u64,
    pub negative: u64,
    pub max_bits: u8,
    pub distinct: Distinct,
    pub personal: Counts<Personal>,
}

impl Default for ValueStats {
    fn default() -> Self {
        Self {
            count: 0,
            empty: 0,
            formats: Formats::ALL,
            min_length: u32::MAX,
            max_length: 0,
            numbers: 0,
            negative: 0,
            max_bits: 0,
            distinct: Distinct::default(),
            personal: Counts::default(),
        }
    }
}

impl ValueStats {
    pub fn add(&mut self, value: &Value) {
        self.count += 1;
        if value.length == 0 {
            self.empty += 1;
        } else {
            self.formats = self.formats.intersection(value.formats);
        }
        self.min_length = self.min_length.min(value.length);
        self.max_length = self.max_length.max(value.length);
        if let Some(number) = &value.number {
            self.numbers += 1;
            self.negative += u64::from(number.is_negative);
            self.max_bits = self.max_bits.max(number.bits);
        }
        if value.personal.is_none() {
            self.distinct.add(value.hash, &value.text);
        }
        if value.length > MAX_LISTED_LENGTH || value.formats.0 & UNLISTED.0 != 0 {
            self.distinct.give_up();
        }
        if let Some(class) = value.personal {
            self.personal.add(class, 1);
        }
    }

    /// Of values that are known by their text, with how often each came.
    pub fn of_texts(texts: impl Iterator<Item = (StoredText, u64)>) -> Self {
        let mut own = Self::default();
        for (text, count) in texts {
            let length = u32::try_from(text.as_str().chars().count()).unwrap_or(u32::MAX);
            own.count += count;
            own.formats = Formats::default();
            own.min_length = own.min_length.min(length);
            own.max_length = own.max_length.max(length);
            own.distinct.count += count;
            own.distinct.insert(token::mix(0, text.as_str()), count, Some(&text.0));
        }
        own.distinct.trim();
        own
    }

    pub fn combine(&mut self, other: &Self) {
        self.count += other.count;
        self.empty += other.empty;
        self.formats = self.formats.intersection(other.formats);
        self.min_length = self.min_length.min(other.min_length);
        self.max_length = self.max_length.max(other.max_length);
        self.numbers += other.numbers;
        self.negative += other.negative;
        self.max_bits = self.max_bits.max(other.max_bits);
        self.distinct.combine(&other.distinct);
        self.personal.combine(&other.personal);
    }

    /// The formats that all samples have, where at least one sample is not empty.
    pub fn common_formats(&self) -> Formats {
        if self.count > self.empty { self.formats } else { Formats(0) }
    }

    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.distinct.bytes() + self.personal.bytes()
    }
}

/// The greater of both texts is kept, whatever the order; nearly always they are equal.
pub(super) fn keep_greater(own: &mut Option<StoredText>, other: Option<&Text>) {
    if let Some(other) = other
        && own.as_ref().is_none_or(|own| own.0 != *other && own.0 < *other)
    {
        *own = Some(StoredText(other.clone()));
    }
}

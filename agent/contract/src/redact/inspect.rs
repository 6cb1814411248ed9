//! The detectors for those who mask live traffic rather than observe it.

use super::{alphabet::Profile, detect, field_name, vocabulary};
use crate::observation::Personal;

/// The first class of personal data or secret that the value holds, by its looks.
pub fn class_of_value(value: &[u8]) -> Option<Personal> {
    detect::detect(value, Profile::of(value))
}

/// What the name of a field says its value is: `ssn`, `firstName`, `card_cvv`.
pub fn class_of_field(name: &str) -> Option<Personal> {
    field_name::classify(&vocabulary::split_words(name)).personal()
}

//! A bound on the depth of what is decoded: recursion must not exhaust the stack, whatever bytes
//! a store or a peer presents.

use std::cell::Cell;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A path of 64 segments above a schema of 64 levels is far beyond what `redact` admits.
const MAX_DEPTH: u32 = 192;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// A value that may hold values of its own kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Nested<T>(pub T);

impl<T: Serialize> Serialize for Nested<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Nested<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Gives the level back on every way out.
        struct Level;
        impl Drop for Level {
            fn drop(&mut self) {
                DEPTH.set(DEPTH.get().saturating_sub(1));
            }
        }
        DEPTH.set(DEPTH.get() + 1);
        let _level = Level;
        if DEPTH.get() > MAX_DEPTH {
            return Err(D::Error::custom("nested too deeply"));
        }
        T::deserialize(deserializer).map(Nested)
    }
}

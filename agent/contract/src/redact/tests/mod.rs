//! Tests of redaction as a whole, over exchanges built by hand.

mod admission;
mod bodies;
mod detectors;
pub(crate) mod exchange;
mod planted;
mod properties;
mod structure;
mod targets;

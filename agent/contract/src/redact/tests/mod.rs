//! Tests of redaction as a whole, over exchanges built by hand.

mod admission;
mod bodies;
mod detectors;
mod exchange;
mod planted;
mod properties;
mod structure;
mod targets;

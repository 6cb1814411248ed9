//! From HTTP exchanges to a contract that a person can read.
//!
//! `redact` turns a raw exchange into an [`observation::Observation`], which cannot hold a raw
//! value; everything after it (statistics, inference, rendering, storage) sees observations only.
#![forbid(unsafe_code)]

pub mod infer;
pub mod knowledge;
pub mod observation;
pub mod openapi;
pub mod redact;
pub mod summary;
pub mod uac;

#[cfg(test)]
mod described;

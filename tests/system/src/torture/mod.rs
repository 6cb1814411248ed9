//! Messages that two readers might understand differently, sent to several proxies by the side of
//! one another. The cases are data: `tests/torture/*.yaml`.

pub mod client;
pub mod corpus;
pub mod differences;
pub mod http2;
pub mod outcome;
pub mod proxies;
pub mod reading;
pub mod recorder;

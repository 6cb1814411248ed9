//! Proxy mode under mixed load and faults for as long as one likes: nothing may grow, nothing may
//! leak, and every request is accounted for.

pub mod client;
pub mod ledger;
pub mod upstream;
pub mod watch;

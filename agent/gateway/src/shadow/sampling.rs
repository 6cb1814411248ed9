//! Which exchanges are examined while the analysis is behind.
//!
//! Without a choice, a full ring decides, and it takes the rare with the frequent. Here the kinds
//! of exchanges that were examined often are only counted, but for one in so many, and the rare go
//! on being examined. A kind is a service, method, path without the segments that have digits, and
//! status. Its count is kept under a keyed hash, so that nobody can choose requests that collide.

use std::hash::{BuildHasher, Hasher, RandomState};

use stoa_wire::exchange::Exchange;

/// Kinds that are told apart; those that collide are one. 64 KiB.
const SLOTS: usize = 1 << 14;
/// A kind is well known when it was met so often.
const WELL_KNOWN: u32 = 512;
/// One in so many of a well-known kind is examined.
const ONE_IN: u32 = 64;

pub(super) struct Sampling {
    keys: RandomState,
    met: Box<[u32]>,
    is_behind: bool,
    is_over: bool,
}

impl Sampling {
    pub(super) fn new() -> Self {
        Self {
            keys: RandomState::new(),
            met: vec![0; SLOTS].into(),
            is_behind: false,
            is_over: false,
        }
    }

    /// Whether the analysis is behind: then not everything is examined.
    pub(super) fn set_behind(&mut self, is_behind: bool) {
        self.is_behind = is_behind;
    }

    /// There is no more time to examine anything.
    pub(super) fn only_count(&mut self) {
        self.is_over = true;
    }

    pub(super) fn should_examine(&mut self, exchange: &Exchange) -> bool {
        if self.is_over {
            return false;
        }
        let slot = usize::try_from(self.kind(exchange) % SLOTS as u64).unwrap_or_default();
        let Some(met) = self.met.get_mut(slot) else { return true };
        *met = met.wrapping_add(1).max(1);
        !self.is_behind || *met <= WELL_KNOWN || met.is_multiple_of(ONE_IN)
    }

    fn kind(&self, exchange: &Exchange) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u32(exchange.endpoints.service);
        hasher.write_u16(exchange.response.as_ref().map_or(0, |response| response.status));
        if let Some(request) = &exchange.request {
            hasher.write(request.method().as_bytes());
            let target = request.target();
            let path = target.split(|byte| *byte == b'?').next().unwrap_or(target);
            for segment in path.split(|byte| *byte == b'/') {
                hasher.write_u8(b'/');
                if !segment.iter().any(u8::is_ascii_digit) {
                    hasher.write(segment);
                }
            }
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use stoa_wire::{
        exchange::{Body, Message, Request},
        segment::{Endpoints, FlowId},
    };

    use super::*;

    fn get(path: &str) -> Exchange {
        let address = ([127, 0, 0, 1], 80).into();
        let head = format!("GET {path} HTTP/1.1\r\n\r\n");
        let target = 4..4 + u32::try_from(path.len()).unwrap();
        let message = Message {
            head: head.into_bytes().into(),
            headers: Vec::new(),
            minor: 1,
            trailers: Vec::new(),
            body: Body::default(),
        };
        Exchange {
            flow: FlowId(1),
            endpoints: Endpoints { client: address, server: address, service: 0 },
            started: 1,
            ended: 2,
            request: Some(Request { method: 0..3, target, message }),
            response: None,
            interim: Vec::new(),
            incomplete: Vec::new(),
            lost: Vec::new(),
        }
    }

    #[test]
    fn all_is_examined_where_there_is_time() {
        let mut sampling = Sampling::new();
        assert!((0..5000).all(|_| sampling.should_examine(&get("/orders"))));
    }

    #[test]
    fn at_the_end_nothing_is_examined() {
        let mut sampling = Sampling::new();
        sampling.only_count();
        assert!(!sampling.should_examine(&get("/orders")));
    }

    #[test]
    fn of_the_frequent_a_part_is_examined_and_of_the_rare_all() {
        let mut sampling = Sampling::new();
        sampling.set_behind(true);
        let (mut frequent, mut rare) = (0, 0);
        for n in 0..WELL_KNOWN * 65 {
            let target = format!("/orders/{n}?page={n}");
            frequent += u32::from(sampling.should_examine(&get(&target)));
            if n % 100 == 0 {
                rare += u32::from(sampling.should_examine(&get("/orders/search")));
            }
        }
        assert_eq!(frequent, WELL_KNOWN * 2, "the first, and one in 64 of 64 times as many");
        assert_eq!(rare, (WELL_KNOWN * 65).div_ceil(100));
    }
}

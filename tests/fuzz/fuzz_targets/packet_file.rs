//! Any file: no panic, and either an error that explains itself or a summary that adds up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stoa_wire::{ReaderConfig, read_capture};

fuzz_target!(|input: &[u8]| {
    let mut exchanges = 0;
    match read_capture(input, ReaderConfig::default(), &mut |_| exchanges += 1) {
        Ok(summary) => {
            let counters = &summary.reader;
            assert_eq!(counters.exchanges_complete + counters.exchanges_incomplete, exchanges);
            assert_eq!((counters.memory, counters.flows), (0, 0));
            assert!(counters.bytes_seen <= input.len() as u64 * 2);
            assert!(summary.truncated_at.is_none_or(|at| at <= input.len() as u64));
        }
        Err(error) => assert!(error.to_string().contains("; ")),
    }
});

//! Resident memory and open files of a process, over time.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use sandbox::pause;

/// Allocators give back late, and a worker's tables grow to their bound: so much is no leak.
const SLACK_KIB: u64 = 4 << 10;

/// Samples every second until told to stop, KiB.
pub fn memory(pid: u32, stop: &AtomicBool) -> Vec<u64> {
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident: Option<u64> = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        samples.extend(resident);
        pause(Duration::from_secs(1));
    }
    samples
}

pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// After a first quarter to warm up, the peak of the last quarter is that of the second.
pub fn assert_flat(samples: &[u64]) -> Result<()> {
    let quarter = samples.len() / 4;
    ensure!(quarter >= 2, "{} samples are too few", samples.len());
    let peak = |samples: &[u64]| samples.iter().copied().max().unwrap_or(0);
    let early = peak(&samples[quarter..2 * quarter]);
    let late = peak(&samples[3 * quarter..]);
    ensure!(
        late <= early + SLACK_KIB,
        "resident memory grew from {early} to {late} KiB: {samples:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_seen() {
        let flat: Vec<u64> = (0..40).map(|n| 20_000 + n % 3).collect();
        assert_flat(&flat).unwrap();
        let growing: Vec<u64> = (0..40).map(|n| 20_000 + n * 500).collect();
        assert!(assert_flat(&growing).is_err());
    }
}

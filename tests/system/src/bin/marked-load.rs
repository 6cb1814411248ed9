//! The parts of `cargo xtask bench capture` that need the tests' marked traffic.
//!
//! `marked-load nginx DIR` writes nginx's configuration and prints where it is;
//! `marked-load measure CGROUP ADDRESS RATE SECONDS DIR` prints one JSON object.

#![forbid(unsafe_code)]

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::json;
use system_tests::{rate, servers};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["nginx", dir] => {
            let config = servers::write_nginx(Path::new(dir))?;
            std::fs::write(Path::new(dir).join("bench.json"), servers::bench_json(1024))?;
            println!("{}", config.display());
        }
        ["measure", cgroup, address, rate, seconds, dir] => {
            let measured = rate::measure(
                Path::new(cgroup),
                address.parse()?,
                rate.parse()?,
                seconds.parse()?,
                Path::new(dir),
            )?;
            let verdict = &measured.verdict;
            println!(
                "{}",
                json!({
                    "sent": verdict.sent,
                    "whole": verdict.whole,
                    "over_budget": verdict.over_budget,
                    "partial": verdict.partial,
                    "missing": verdict.missing,
                    "wrong": verdict.wrong.len(),
                    "captured_percent": verdict.captured() * 100.0,
                    "lost": measured.lost,
                    "rate": measured.rate,
                    "passed_over": measured.passed_over,
                    "us_per_exchange":
                        measured.cpu.as_secs_f64() * 1e6 / measured.exchanges.max(1) as f64,
                })
            );
        }
        _ => bail!("usage: marked-load nginx DIR | measure CGROUP ADDRESS RATE SECONDS DIR"),
    }
    Ok(())
}

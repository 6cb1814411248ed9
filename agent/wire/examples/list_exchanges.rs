//! Lists the exchanges of a capture file, one JSON line each.
use std::fs::File;

use stoa_wire::{ReaderConfig, exchange_json, read_capture};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: list_exchanges FILE")?;
    let mut lines = Vec::new();
    let summary = read_capture(File::open(path)?, ReaderConfig::offline(), &mut |exchange| {
        let service = exchange.endpoints.server.to_string();
        lines.push(exchange_json::to_json(&exchange, &service).to_string());
    })?;
    lines.iter().for_each(|line| println!("{line}"));
    eprintln!("{summary:#?}");
    Ok(())
}

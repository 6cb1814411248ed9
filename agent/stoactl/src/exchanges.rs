//! `stoactl exchanges`: what the reader saw, one line an exchange.

use std::{io::Write, path::Path};

use stoa_wire::{exchange::Exchange, exchange_json, segment::name_of_server};

use crate::{Error, input};

pub fn run(file: &Path, as_json: bool, out: &mut impl Write) -> Result<(), Error> {
    let names = input::read_names(file)?;
    let mut printed: Result<(), std::io::Error> = Ok(());
    let mut count = 0_u64;
    let outline = input::read(file, &mut |exchange| {
        count += 1;
        if printed.is_ok() {
            let number = usize::try_from(exchange.endpoints.service).unwrap_or(usize::MAX);
            let service = match names.get(number) {
                Some(name) => name,
                None => &name_of_server(exchange.endpoints.server),
            };
            printed = match as_json {
                true => writeln!(out, "{}", exchange_json::to_json(&exchange, service)),
                false => writeln!(out, "{}", line_of(&exchange, service)),
            };
        }
    })?;
    printed?;
    if count == 0 {
        return Err(Error::NoExchange { path: file.to_owned(), why: outline.why_empty });
    }
    Ok(())
}

/// `127.0.0.1-8000  GET /orders/7 -> 200  0 B / 312 B  1.204 ms`, and what is missing.
fn line_of(exchange: &Exchange, service: &str) -> String {
    let (method, target) = match &exchange.request {
        // Escaped: a terminal must not obey what a client once sent.
        Some(request) => (request.method(), request.target().escape_ascii().to_string()),
        None => ("?", "?".to_owned()),
    };
    let status = exchange.response.as_ref().map_or("-".to_owned(), |r| r.status.to_string());
    let sent = exchange.request.as_ref().map_or(0, |r| r.message.body.length);
    let received = exchange.response.as_ref().map_or(0, |r| r.message.body.length);
    let micros = exchange.ended.saturating_sub(exchange.started) / 1000;
    let mut line = format!(
        "{service}  {method} {target} -> {status}  {sent} B / {received} B  {}.{:03} ms",
        micros / 1000,
        micros % 1000
    );
    if !exchange.incomplete.is_empty() {
        let reasons: Vec<_> = exchange.incomplete.iter().map(|r| r.name()).collect();
        line.push_str(&format!("  incomplete: {}", reasons.join(", ")));
    }
    if exchange.bytes_lost() > 0 {
        line.push_str(&format!("  {} B lost", exchange.bytes_lost()));
    }
    line
}

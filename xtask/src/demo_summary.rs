//! The inferred contract, as a person reads it.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use sandbox::{Summary, agent::Metric};
use serde_json::Value;

const METHODS: [&str; 8] = ["get", "head", "post", "put", "patch", "delete", "options", "trace"];

/// Prints the contract beside `summary.contract` as a table.
pub fn print(summary: &Summary, metrics: &[Metric]) -> Result<()> {
    let file = json_beside(&summary.contract);
    let text = fs::read(&file).with_context(|| format!("no contract at {}", file.display()))?;
    let contract: Value = serde_json::from_slice(&text)?;
    print_operations(&contract);
    print_masked_and_lost(metrics);
    println!("OpenAPI 3.1 and UAC: {}\n", file.parent().unwrap_or(&file).display());
    Ok(())
}

fn json_beside(contract: &Path) -> std::path::PathBuf {
    contract.with_extension("json")
}

fn print_operations(contract: &Value) {
    let mut rows = vec![
        ["OPERATION", "PARAMETERS", "BODY", "STATUSES", "AUTH", "SEEN", "CONFIDENCE"]
            .map(str::to_owned),
    ];
    for (path, item) in contract["paths"].as_object().into_iter().flatten() {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                rows.push(row(path, method, item, operation));
            }
        }
    }
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("  {}", cells.join("  ").trim_end());
    }
    println!();
}

fn row(path: &str, method: &str, item: &Value, operation: &Value) -> [String; 7] {
    let parameters: Vec<String> = [&item["parameters"], &operation["parameters"]]
        .into_iter()
        .flat_map(|list| list.as_array().into_iter().flatten())
        .filter_map(|parameter| {
            let name = parameter["name"].as_str()?;
            let kind = parameter["schema"]["format"]
                .as_str()
                .or_else(|| parameter["schema"]["type"].as_str())
                .unwrap_or("string");
            let mark = match parameter["in"].as_str()? {
                "query" => "?",
                "header" => "header ",
                "cookie" => "cookie ",
                _ => "",
            };
            Some(format!("{mark}{name}:{kind}"))
        })
        .collect();
    let body = if operation.get("requestBody").is_some() { "yes" } else { "" };
    let statuses: Vec<&str> =
        operation["responses"].as_object().into_iter().flatten().map(|(s, _)| s.as_str()).collect();
    let mut auth: Vec<&str> = operation["security"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .map(|schemes| schemes.keys().next().map_or("none", String::as_str))
        .collect();
    auth.dedup();
    let confidence = operation["x-stoa-confidence"].as_f64();
    let samples = operation["x-stoa-samples"].as_u64();
    [
        format!("{:<6} {path}", method.to_uppercase()),
        parameters.join(" "),
        body.to_owned(),
        statuses.join(" "),
        auth.join(" or "),
        samples.map_or_else(String::new, |n| n.to_string()),
        confidence.map_or_else(String::new, |c| format!("{c:.2}")),
    ]
}

/// What was masked by class, and what was lost by reason.
fn print_masked_and_lost(metrics: &[Metric]) {
    let by = |name: &str, label: &str| {
        let mut all: Vec<(&str, u64)> = metrics
            .iter()
            .filter(|metric| metric.name == name && metric.value > 0.0)
            .filter_map(|metric| Some((metric.label(label)?, metric.value as u64)))
            .collect();
        all.sort_by_key(|&(key, count)| (std::cmp::Reverse(count), key));
        all.iter().map(|(key, count)| format!("{key} {count}")).collect::<Vec<_>>().join(", ")
    };
    let or_nothing = |text: String| if text.is_empty() { "nothing".to_owned() } else { text };
    println!("Masked before anything was kept (values by class):");
    println!("  {}", or_nothing(by("stoa_shadow_masked_total", "class")));
    println!("Lost on the way to the agent (bytes by reason):");
    println!("  {}", or_nothing(by("stoa_capture_lost_bytes_total", "reason")));
    println!();
}

//! A contract as a table for a terminal.

use crate::{
    infer::{Contract, Operation, Place, Security},
    observation::Method,
};

const HEADINGS: [&str; 7] =
    ["METHOD", "TEMPLATE", "PARAMETERS", "AUTH", "STATUSES", "SAMPLES", "CONFIDENCE"];
/// Columns wider than this are cut with an ellipsis.
const MAX_WIDTH: usize = 60;

/// One line an operation: method, template, parameters, auth, statuses, samples, confidence;
/// then what was masked, lost and left out. Ends with a newline.
pub fn table(contract: &Contract) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(contract.operations.iter().map(row));
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push_str(&footnotes(contract));
    out
}

fn row(operation: &Operation) -> [String; 7] {
    let parameters: Vec<String> = operation
        .parameters
        .iter()
        .filter(|p| p.place != Place::Path)
        .map(|p| {
            let mark = if p.is_required { "" } else { "?" };
            match p.place {
                Place::Path | Place::Query => format!("{}{mark}", p.name),
                Place::Header => format!("{}{mark} (header)", p.name),
                Place::Cookie => format!("{}{mark} (cookie)", p.name),
            }
        })
        .collect();
    let statuses: Vec<String> = operation.responses.keys().map(u16::to_string).collect();
    [
        method(operation.method).to_owned(),
        cut(&operation.template),
        cut(&if parameters.is_empty() { "-".to_owned() } else { parameters.join(", ") }),
        auth(&operation.security),
        cut(&statuses.join(" ")),
        operation.provenance.samples.to_string(),
        format!("{:.2}", operation.confidence),
    ]
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Patch => "PATCH",
        Method::Delete => "DELETE",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Connect => "CONNECT",
        Method::Other => "OTHER",
    }
}

fn auth(security: &Security) -> String {
    if security.schemes.is_empty() {
        return "-".to_owned();
    }
    let joint = if security.is_conjunction { " + " } else { " | " };
    let mark = if security.is_optional { "?" } else { "" };
    format!("{}{mark}", security.schemes.join(joint))
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_WIDTH {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(MAX_WIDTH - 1).collect();
    short.push('…');
    short
}

fn footnotes(contract: &Contract) -> String {
    let tally = &contract.tally;
    let mut out = format!(
        "{} operations from {} exchanges ({} whole), confidence {:.2}\n",
        contract.operations.len(),
        tally.exchanges,
        tally.complete,
        contract.confidence
    );
    if tally.passed_over > 0 {
        out.push_str(&format!(
            "{} exchanges were only counted, because the node was busy\n",
            tally.passed_over
        ));
    }
    if !tally.personal.is_empty() {
        let classes: Vec<String> = tally
            .personal
            .iter()
            .map(|(class, n)| {
                let name = serde_json::to_value(class).ok();
                format!("{} {n}", name.as_ref().and_then(|v| v.as_str()).unwrap_or("other"))
            })
            .collect();
        out.push_str(&format!("masked: {}\n", classes.join(", ")));
    }
    if tally.bytes_lost > 0 {
        out.push_str(&format!("lost: {} bytes\n", tally.bytes_lost));
    }
    if tally.unmatched > 0 {
        out.push_str(&format!(
            "unmatched: {} failed calls to paths that never answered otherwise\n",
            tally.unmatched
        ));
    }
    if tally.withheld > 0 {
        out.push_str(&format!(
            "withheld: {} path segments seen too seldom to be named\n",
            tally.withheld
        ));
    }
    if tally.coarseness > 0 {
        out.push_str(&format!(
            "coarse: level {}; raise the byte limit to tell more apart\n",
            tally.coarseness
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        described::{Traffic, with_credential},
        infer::{InferOptions, infer},
        knowledge::ServiceKnowledge,
        observation::Credential,
    };

    #[test]
    fn a_line_says_all_of_an_operation_and_columns_align() {
        let mut traffic = Traffic::default();
        let mut known = ServiceKnowledge::default();
        for id in 0..12 {
            let target = format!("/users/{id}?page=1");
            let body = json!({ "email": "a@b.test" });
            let call = traffic.exchange(Method::Get, &target, None, 200, Some(&body));
            known.record(&with_credential(call, Credential::Jwt));
            known.record(&traffic.exchange(Method::Get, "/health", None, 200, None));
        }
        let table = table(&infer(&known, &InferOptions::default()));
        let lines: Vec<&str> = table.lines().collect();
        let line = lines.iter().find(|l| l.contains("{userId}")).expect("the operation");
        for cell in ["GET", "/users/{userId}", "page", "bearerAuth", "200", "12", "0.7"] {
            assert!(line.contains(cell), "{cell}: {line}");
        }
        assert_eq!(lines[0].find("TEMPLATE"), line.find("/users"));
        assert!(table.contains("masked: email 12"), "{table}");
        assert!(table.contains("2 operations from 24 exchanges"), "{table}");
    }
}

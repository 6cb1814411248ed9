//! What came of a case: what the client got, and what reached the upstream. Written in one line.

use super::reading::{self, Rest};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Statuses, with the body of those that an upstream made; at the end `waits` where nothing
    /// more came and the connection stayed open.
    pub answers: String,
    /// Method, target and length of the body; `...` where it has not ended.
    pub upstream: Vec<String>,
    /// Why the upstream's side cannot be trusted: readers find different requests in it.
    pub disagreement: Option<String>,
}

impl Outcome {
    /// `streams` is what the upstream got, a connection each.
    pub fn new(answers: String, streams: &[Vec<u8>]) -> Self {
        let mut upstream = Vec::new();
        let mut disagreement = None;
        for bytes in streams {
            if let Err(reason) = reading::agreed(bytes) {
                disagreement.get_or_insert(reason);
            }
            let found = reading::strictly(bytes);
            upstream.extend(found.messages.iter().map(describe));
            match &found.rest {
                Rest::Nothing => {}
                Rest::Head => upstream.push("half a head".to_owned()),
                Rest::Body(message) => upstream.push(format!("{}...", describe(message))),
                Rest::Garbage(at) => {
                    let line = bytes[*at..].split(|b| *b == b'\n').next().unwrap_or_default();
                    upstream.push(format!("garbage {}", line.trim_ascii_end().escape_ascii()));
                }
            }
        }
        Self { answers, upstream, disagreement }
    }

    /// For tables: without line breaks and without `|`.
    pub fn line(&self) -> String {
        let answers = if self.answers.is_empty() { "closed" } else { &self.answers };
        let mut line = match self.upstream.as_slice() {
            [] => answers.to_owned(),
            upstream => format!("{answers} <- {}", upstream.join(", ")),
        };
        if self.disagreement.is_some() {
            line.push_str(" (readers disagree)");
        }
        line.replace('|', "\\x7c")
    }
}

fn describe(message: &reading::Message) -> String {
    format!("{} {} {}", message.method, shortened(&message.target), message.body)
}

pub fn shortened(target: &str) -> String {
    match target.get(..20) {
        Some(begin) if target.len() > 60 => format!("{begin}[cut]"),
        _ => target.to_owned(),
    }
}

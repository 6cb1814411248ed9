//! What clients saw, and what proxy mode says it did. The two must be one.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Answers by the first digit of their status.
    pub classes: BTreeMap<u16, u64>,
    /// Answers that were not an upstream's, by the code in them.
    pub codes: BTreeMap<String, u64>,
    /// Answers that ended early.
    pub cut: u64,
    /// Answers that the client did not stay for: they may count as cut or not.
    pub abandoned: u64,
    /// What a client saw and should not have.
    pub wrong: Vec<String>,
}

impl Ledger {
    pub fn count(&mut self, status: u16) {
        *self.classes.entry(status / 100).or_default() += 1;
    }

    pub fn total(&self) -> u64 {
        self.classes.values().sum()
    }

    pub fn add(&mut self, other: Self) {
        for (class, count) in other.classes {
            *self.classes.entry(class).or_default() += count;
        }
        for (code, count) in other.codes {
            *self.codes.entry(code).or_default() += count;
        }
        self.cut += other.cut;
        self.abandoned += other.abandoned;
        self.wrong.extend(other.wrong);
    }
}

/// The proxy's side, from the text of `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    pub classes: BTreeMap<u16, u64>,
    pub codes: BTreeMap<String, u64>,
    pub cut: u64,
    pub idle: u64,
    pub active: u64,
}

impl Counted {
    pub fn read(metrics: &str) -> Self {
        let mut counted = Self::default();
        for line in metrics.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let value = value as u64;
            let label = |name: &str| series.split(&format!("{name}=\"")).nth(1)?.split('"').next();
            match series.split('{').next().unwrap_or_default() {
                "stoa_proxy_requests_total" => {
                    let class = label("status").and_then(|text| text.get(..1)?.parse().ok());
                    *counted.classes.entry(class.unwrap_or(0)).or_default() += value;
                }
                "stoa_proxy_failures_total" => {
                    let code = label("reason").unwrap_or_default().to_owned();
                    *counted.codes.entry(code).or_default() += value;
                }
                "stoa_proxy_cut_off_total" => counted.cut = value,
                "stoa_proxy_upstream_connections_idle" => counted.idle = value,
                "stoa_proxy_upstream_requests_active" => counted.active = value,
                _ => {}
            }
        }
        counted
    }

    /// Whether it is what the clients saw.
    pub fn agrees_with(&self, seen: &Ledger) -> Result<()> {
        ensure!(
            self.classes == seen.classes,
            "by status class, clients saw {:?} and the proxy counted {:?}",
            seen.classes,
            self.classes
        );
        // What the agent answers without having asked an upstream is in the classes only.
        let of_upstreams = |codes: &BTreeMap<String, u64>| {
            let of_upstreams = codes.iter().filter(|(code, _)| code.starts_with("upstream_"));
            of_upstreams.map(|(code, count)| (code.clone(), *count)).collect::<BTreeMap<_, _>>()
        };
        let (ours, theirs) = (of_upstreams(&self.codes), of_upstreams(&seen.codes));
        ensure!(ours == theirs, "by reason, clients saw {theirs:?} and the proxy counted {ours:?}");
        ensure!(
            (seen.cut..=seen.cut + seen.abandoned).contains(&self.cut),
            "clients saw {} answers cut off and left {}, and the proxy counted {}",
            seen.cut,
            seen.abandoned,
            self.cut
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_compared() {
        let text = "# HELP x\nstoa_proxy_requests_total{route=\"a\",status=\"2xx\"} 3\n\
                    stoa_proxy_requests_total{route=\"\",status=\"2xx\"} 1\n\
                    stoa_proxy_failures_total{reason=\"upstream_reset\"} 2\nstoa_proxy_cut_off_total 1\n";
        let counted = Counted::read(text);
        let mut seen = Ledger::default();
        for status in [200, 201, 204, 200] {
            seen.count(status);
        }
        seen.codes.insert("upstream_reset".to_owned(), 2);
        seen.abandoned = 1;
        counted.agrees_with(&seen).unwrap();
        seen.count(502);
        assert!(counted.agrees_with(&seen).is_err());
    }
}

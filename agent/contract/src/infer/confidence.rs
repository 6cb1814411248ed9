//! How sure a contract is of an operation.

use super::{Operation, Provenance};

/// Between 0 and 1: the product of
///
/// * samples: n / (n + 4): one sample gives 0.2, ten 0.71, a hundred 0.96;
/// * completeness: half, plus half of the share of exchanges that were seen whole;
/// * the certainty of the least certain segment of the template.
pub(crate) fn operation(provenance: &Provenance, template_certainty: f64) -> f64 {
    let n = provenance.samples as f64;
    let whole = if n > 0.0 { provenance.complete as f64 / n } else { 0.0 };
    round(n / (n + 4.0) * (0.5 + 0.5 * whole.min(1.0)) * template_certainty)
}

/// The operations' mean, weighted by the logarithm of their samples.
pub(crate) fn contract(operations: &[Operation]) -> f64 {
    let weight = |o: &Operation| (1.0 + o.provenance.samples as f64).ln();
    let all: f64 = operations.iter().map(weight).sum();
    if all == 0.0 {
        return 0.0;
    }
    round(operations.iter().map(|o| o.confidence * weight(o)).sum::<f64>() / all)
}

/// Three decimals: more would feign precision.
fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

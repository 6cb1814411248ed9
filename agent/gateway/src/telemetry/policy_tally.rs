//! What the policies did, as one worker counts it; a scrape adds the workers up.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use stoa_policy::decision::{Decision, Denial, Note, PolicyKind, Ran, ResponseDecision};

use super::counter::Counter;

const POLICIES: usize = PolicyKind::ALL.len();

/// What a policy said that is counted by its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Said {
    /// Refused the message.
    Denial,
    /// Saw something, and let the message pass.
    Note,
}

/// Codes are those of this build, so that the table stays as small as they are few.
type Codes = BTreeMap<(Said, PolicyKind, &'static str), u64>;

/// One worker's.
#[derive(Debug, Default)]
pub struct PolicyTally {
    runs: [Counter; POLICIES],
    nanoseconds: [Counter; POLICIES],
    codes: Mutex<Codes>,
}

impl PolicyTally {
    pub fn count(&self, decision: &Decision) {
        for Ran { policy, took } in &decision.ran {
            let at = *policy as usize;
            if let (Some(runs), Some(time)) = (self.runs.get(at), self.nanoseconds.get(at)) {
                runs.add(1);
                time.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            }
        }
        self.count_codes(decision.denial.as_ref(), &decision.notes);
    }

    pub fn count_response(&self, decision: &ResponseDecision) {
        self.count_codes(decision.denial.as_ref(), &decision.notes);
    }

    fn count_codes(&self, denial: Option<&Denial>, notes: &[Note]) {
        if denial.is_none() && notes.is_empty() {
            return;
        }
        // Only a scrape ever waits for it too.
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(denial) = denial {
            *codes.entry((Said::Denial, denial.policy, denial.code)).or_default() += 1;
        }
        for note in notes {
            *codes.entry((Said::Note, note.policy, note.code)).or_default() += 1;
        }
    }
}

/// The sum over workers.
#[derive(Debug, Default)]
pub struct PolicyTotals {
    /// How often each policy ran, and for how many nanoseconds altogether; by `PolicyKind::ALL`.
    pub ran: [(u64, u64); POLICIES],
    pub codes: Codes,
}

impl PolicyTotals {
    pub fn add(&mut self, tally: &PolicyTally) {
        let counters = tally.runs.iter().zip(&tally.nanoseconds);
        for (total, (runs, nanoseconds)) in self.ran.iter_mut().zip(counters) {
            total.0 += runs.get();
            total.1 = total.1.wrapping_add(nanoseconds.get());
        }
        for (key, count) in tally.codes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            *self.codes.entry(*key).or_default() += count;
        }
    }

    /// Adds those of another door.
    pub fn combine(&mut self, other: &Self) {
        for (total, (runs, nanoseconds)) in self.ran.iter_mut().zip(other.ran) {
            *total = (total.0 + runs, total.1.wrapping_add(nanoseconds));
        }
        for (key, count) in &other.codes {
            *self.codes.entry(*key).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;

    #[test]
    fn workers_are_added_up_by_policy_and_code() {
        let mut decision = Decision::default();
        decision.ran.push(Ran { policy: PolicyKind::Rego, took: Duration::from_nanos(300) });
        let quiet = PolicyTally::default();
        quiet.count(&decision);
        decision.denial = Some(Denial {
            policy: PolicyKind::Rego,
            status: StatusCode::FORBIDDEN,
            code: "policy_denied",
            reason: "".into(),
        });
        let busy = PolicyTally::default();
        busy.count(&decision);
        busy.count(&decision);
        let note = Note { policy: PolicyKind::Guardrails, code: "masked", detail: String::new() };
        busy.count_response(&ResponseDecision {
            notes: [note].into_iter().collect(),
            ..ResponseDecision::default()
        });
        let mut totals = PolicyTotals::default();
        totals.add(&quiet);
        totals.add(&busy);
        assert_eq!(totals.ran[PolicyKind::Rego as usize], (3, 900));
        assert_eq!(totals.ran[PolicyKind::Quota as usize], (0, 0));
        let codes: Vec<_> = totals.codes.into_iter().collect();
        assert_eq!(
            codes,
            [
                ((Said::Denial, PolicyKind::Rego, "policy_denied"), 2),
                ((Said::Note, PolicyKind::Guardrails, "masked"), 1),
            ]
        );
    }
}

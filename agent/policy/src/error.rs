//! Why a policy could not be built.

use std::fmt;

use crate::decision::PolicyKind;

/// What one policy says when it cannot be built. The engine adds the set's and the policy's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Below the policy's section: `jwt.audience`; empty for the section itself.
    pub key: String,
    pub reason: String,
    /// What the operator can do.
    pub remedy: String,
}

impl Refusal {
    pub fn new(
        key: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), reason: reason.into(), remedy: remedy.into() }
    }

    /// The same, seen from the section above.
    #[must_use]
    pub fn below(mut self, section: &str) -> Self {
        self.key = if self.key.is_empty() {
            section.to_owned()
        } else {
            format!("{section}.{}", self.key)
        };
        self
    }
}

/// A policy of a set that cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policies.{set}.{}{}{key}: {reason}; {remedy}", .policy.name(), if key.is_empty() { "" } else { "." })]
pub struct BuildError {
    pub set: String,
    pub policy: PolicyKind,
    pub key: String,
    pub reason: String,
    pub remedy: String,
}

/// All that is wrong, so that an operator mends it in one go. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildErrors(pub Vec<BuildError>);

impl fmt::Display for BuildErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for BuildErrors {}

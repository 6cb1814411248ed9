//! Scopes and roles that the identity must have.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use serde::Deserialize;

use crate::{
    decision::{Decision, Denial, PolicyKind, Verdict},
    error::Refusal,
};

/// Each list that is not empty must be met.
///
/// ```yaml
/// scopes:
///   any_of: [stoa:read, stoa:write]
///   all_of: [orders]
///   roles_any_of: [tenant-admin]
///   roles_all_of: []
/// ```
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ScopesConfig {
    /// At least one of these scopes.
    pub any_of: Vec<Arc<str>>,
    /// Every one of these scopes.
    pub all_of: Vec<Arc<str>>,
    /// At least one of these roles.
    pub roles_any_of: Vec<Arc<str>>,
    /// Every one of these roles.
    pub roles_all_of: Vec<Arc<str>>,
}

/// Compares what an identity may do with what a set demands.
#[derive(Debug)]
pub struct Scopes {
    config: ScopesConfig,
    reason: String,
    /// RFC 6750 section 3.1: `insufficient_scope` names the scopes that would do.
    challenge: HeaderValue,
}

impl Scopes {
    pub fn build(config: &ScopesConfig) -> Result<Self, Refusal> {
        let ScopesConfig { any_of, all_of, roles_any_of, roles_all_of } = config;
        let lists = [any_of, all_of, roles_any_of, roles_all_of];
        if lists.iter().all(|list| list.is_empty()) {
            return Err(Refusal::new(
                "",
                "demands nothing",
                "list scopes under any_of or all_of, or remove the section",
            ));
        }
        // RFC 6749 section 3.3: printable ASCII without blank, `"` and `\`.
        for scope in [any_of, all_of].into_iter().flatten() {
            let is_scope = !scope.is_empty()
                && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
            if !is_scope {
                return Err(Refusal::new(
                    "",
                    format!("`{scope}` cannot be a scope of a token"),
                    "write one scope an item, without blanks and quotes",
                ));
            }
        }
        let mut demands = Vec::new();
        for (what, list) in [
            ("one of", any_of),
            ("all of the scopes", all_of),
            ("one of the roles", roles_any_of),
            ("all of the roles", roles_all_of),
        ] {
            if !list.is_empty() {
                demands.push(format!("{what} [{}]", list.join(", ")));
            }
        }
        let scopes =
            all_of.iter().chain(any_of).map(AsRef::as_ref).collect::<Vec<&str>>().join(" ");
        let challenge = if scopes.is_empty() {
            "Bearer error=\"insufficient_scope\"".to_owned()
        } else {
            format!("Bearer error=\"insufficient_scope\", scope=\"{scopes}\"")
        };
        Ok(Self {
            config: config.clone(),
            reason: format!("Insufficient scopes: requires {}", demands.join(" and ")),
            challenge: HeaderValue::try_from(challenge).map_err(|_| {
                Refusal::new("", "cannot be written in a header", "use printable ASCII")
            })?,
        })
    }

    pub fn check(&self, decision: &mut Decision) -> Verdict {
        let (scopes, roles): (&[Arc<str>], &[Arc<str>]) =
            decision.identity.as_ref().map_or((&[], &[]), |who| (&who.scopes, &who.roles));
        let ScopesConfig { any_of, all_of, roles_any_of, roles_all_of } = &self.config;
        let is_met = (any_of.is_empty() || any_of.iter().any(|s| scopes.contains(s)))
            && all_of.iter().all(|s| scopes.contains(s))
            && (roles_any_of.is_empty() || roles_any_of.iter().any(|r| roles.contains(r)))
            && roles_all_of.iter().all(|r| roles.contains(r));
        if is_met {
            return Ok(());
        }
        decision.response_headers.push((WWW_AUTHENTICATE, self.challenge.clone()));
        Err(Denial {
            policy: PolicyKind::Scopes,
            status: StatusCode::FORBIDDEN,
            code: "insufficient_scope",
            reason: self.reason.clone().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Identity;

    fn list(items: &[&str]) -> Vec<Arc<str>> {
        items.iter().map(|item| Arc::from(*item)).collect()
    }

    fn decide(config: &ScopesConfig, scopes: &[&str], roles: &[&str]) -> (Verdict, Decision) {
        let identity = Identity { scopes: list(scopes), roles: list(roles), ..Identity::default() };
        let mut decision = Decision { identity: Some(Arc::new(identity)), ..Decision::default() };
        let verdict = Scopes::build(config).unwrap().check(&mut decision);
        (verdict, decision)
    }

    #[test]
    fn every_list_must_be_met() {
        let config = ScopesConfig {
            any_of: list(&["a", "b"]),
            all_of: list(&["c", "d"]),
            roles_any_of: list(&["r"]),
            roles_all_of: Vec::new(),
        };
        assert!(decide(&config, &["b", "c", "d"], &["r", "x"]).0.is_ok());
        assert!(decide(&config, &["c", "d"], &["r"]).0.is_err());
        assert!(decide(&config, &["a", "c"], &["r"]).0.is_err());
        assert!(decide(&config, &["a", "b", "c", "d"], &[]).0.is_err());
        // A role is no scope, and a scope no role.
        assert!(decide(&config, &["r"], &["a", "c", "d"]).0.is_err());
        assert!(decide(&config, &["A", "C", "D"], &["R"]).0.is_err());
    }

    #[test]
    fn nobody_has_no_scope() {
        let config = ScopesConfig { any_of: list(&["a"]), ..ScopesConfig::default() };
        let mut decision = Decision::default();
        assert!(Scopes::build(&config).unwrap().check(&mut decision).is_err());
    }

    #[test]
    fn the_refusal_names_what_would_do() {
        let config =
            ScopesConfig { any_of: list(&["stoa:read", "stoa:admin"]), ..ScopesConfig::default() };
        let (verdict, decision) = decide(&config, &["x"], &[]);
        let denial = verdict.unwrap_err();
        assert_eq!(denial.status, StatusCode::FORBIDDEN);
        assert_eq!(denial.reason, "Insufficient scopes: requires one of [stoa:read, stoa:admin]");
        let (name, value) = &decision.response_headers[0];
        assert_eq!(name, WWW_AUTHENTICATE);
        assert_eq!(value, "Bearer error=\"insufficient_scope\", scope=\"stoa:read stoa:admin\"");
    }

    #[test]
    fn a_section_that_demands_nothing_is_refused() {
        assert!(Scopes::build(&ScopesConfig::default()).is_err());
        let config = ScopesConfig { any_of: list(&["a b"]), ..ScopesConfig::default() };
        assert!(Scopes::build(&config).unwrap_err().reason.contains("`a b`"));
    }
}

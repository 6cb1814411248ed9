//! The tenant that a request belongs to.

use std::sync::Arc;

use http::{HeaderName, StatusCode};
use serde::Deserialize;

use crate::{
    context::RequestContext,
    decision::{Decision, Denial, PolicyKind, Verdict},
    error::Refusal,
    sources::Sources,
};

/// The identity's tenant counts first, then the route's, then a trusted header's. Where two of them
/// are known and differ, the request is refused: nobody reaches another tenant's route.
///
/// ```yaml
/// tenant:
///   required: true
///   allowed: [acme, globex]
///   header: {name: X-Tenant-ID, sources: [10.0.0.0/8]}
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct TenantConfig {
    /// Refuse requests of no tenant.
    pub required: bool,
    /// Only these; empty: any.
    pub allowed: Vec<Arc<str>>,
    /// A header that names the tenant, believed from the listed sources only. Sent by anybody else
    /// it is taken off the request.
    pub header: Option<TenantHeaderConfig>,
}

impl Default for TenantConfig {
    fn default() -> Self {
        Self { required: true, allowed: Vec::new(), header: None }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TenantHeaderConfig {
    #[serde(default = "default_header")]
    pub name: String,
    pub sources: Sources,
}

fn default_header() -> String {
    "X-Tenant-ID".to_owned()
}

/// Longer ones are nobody's tenant, and would be keys of tables.
const LONGEST_TENANT: usize = 253;

#[derive(Debug)]
pub struct Tenant {
    required: bool,
    allowed: Vec<Arc<str>>,
    header: Option<(HeaderName, Sources)>,
}

impl Tenant {
    pub fn build(config: &TenantConfig) -> Result<Self, Refusal> {
        let header = match &config.header {
            None => None,
            Some(header) => {
                let name = HeaderName::try_from(&header.name).map_err(|_| {
                    Refusal::new(
                        "header.name",
                        format!("`{}` is not a header's name", header.name),
                        "use letters, digits and `-`",
                    )
                })?;
                if header.sources.is_empty() {
                    return Err(Refusal::new(
                        "header.sources",
                        "is empty, so the header would never be believed",
                        "list the addresses of the gateways that set it, or remove `header`",
                    ));
                }
                Some((name, header.sources.clone()))
            }
        };
        Ok(Self { required: config.required, allowed: config.allowed.clone(), header })
    }

    pub fn check(&self, request: &RequestContext<'_>, decision: &mut Decision) -> Verdict {
        let of_identity = decision.identity.as_ref().and_then(|who| who.tenant.clone());
        let of_header = self.read_header(request, decision)?;
        let known = [of_identity.as_deref(), request.tenant, of_header];
        let mut known = known.into_iter().flatten();
        let Some(first) = known.next() else {
            return if self.required {
                deny("tenant_missing", "Missing tenant ID")
            } else {
                Ok(())
            };
        };
        if known.any(|other| other != first) {
            return deny("tenant_mismatch", "The tenant is not the one that this route belongs to");
        }
        if !self.allowed.is_empty() && !self.allowed.iter().any(|tenant| **tenant == *first) {
            return deny("tenant_not_allowed", "The tenant has no access here");
        }
        decision.tenant = Some(of_identity.clone().unwrap_or_else(|| Arc::from(first)));
        Ok(())
    }

    fn read_header<'a>(
        &self,
        request: &RequestContext<'a>,
        decision: &mut Decision,
    ) -> Result<Option<&'a str>, Denial> {
        let Some((name, sources)) = &self.header else { return Ok(None) };
        let mut values = request.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if !sources.contains(request.source) {
            decision.headers_to_remove.push(name.clone());
            return Ok(None);
        }
        // Two of them: whoever comes next may read the other one.
        let text = value.to_str().ok().map(str::trim).filter(|text| {
            !text.is_empty() && text.len() <= LONGEST_TENANT && values.next().is_none()
        });
        match text {
            Some(text) => Ok(Some(text)),
            None => Err(denial("tenant_malformed", "The tenant header is malformed")),
        }
    }
}

fn denial(code: &'static str, reason: &'static str) -> Denial {
    Denial {
        policy: PolicyKind::Tenant,
        status: StatusCode::FORBIDDEN,
        code,
        reason: reason.into(),
    }
}

fn deny(code: &'static str, reason: &'static str) -> Verdict {
    Err(denial(code, reason))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use serde_json::json;

    use super::*;
    use crate::{context::tests::request, decision::Identity};

    fn tenant(config: serde_json::Value) -> Tenant {
        Tenant::build(&serde_json::from_value(config).unwrap()).unwrap()
    }

    struct Case<'a> {
        identity: Option<&'a str>,
        route: Option<&'a str>,
        headers: &'a [&'static str],
        source: &'a str,
    }

    const NOBODY: Case<'_> =
        Case { identity: None, route: None, headers: &[], source: "10.0.0.1:1" };

    fn check(policy: &Tenant, case: &Case<'_>) -> (Result<Option<String>, &'static str>, Decision) {
        let identity = Identity { tenant: case.identity.map(Arc::from), ..Identity::default() };
        let mut decision = Decision { identity: Some(Arc::new(identity)), ..Decision::default() };
        let mut headers = HeaderMap::new();
        for value in case.headers {
            headers.append("x-tenant-id", HeaderValue::from_static(value));
        }
        let mut context = request(&headers);
        context.tenant = case.route;
        context.source = case.source.parse().unwrap();
        let verdict = policy.check(&context, &mut decision);
        let found = decision.tenant.as_deref().map(str::to_owned);
        (verdict.map(|()| found).map_err(|denial| denial.code), decision)
    }

    #[test]
    fn the_identity_then_the_route_then_the_header() {
        let policy = tenant(json!({"header": {"sources": ["10.0.0.0/8"]}}));
        let result = |case| check(&policy, &case).0;
        assert_eq!(result(Case { identity: Some("a"), ..NOBODY }), Ok(Some("a".into())));
        assert_eq!(result(Case { route: Some("b"), ..NOBODY }), Ok(Some("b".into())));
        assert_eq!(result(Case { headers: &["c"], ..NOBODY }), Ok(Some("c".into())));
        assert_eq!(result(NOBODY), Err("tenant_missing"));
        let all = Case { identity: Some("a"), route: Some("a"), headers: &["a"], ..NOBODY };
        assert_eq!(result(all), Ok(Some("a".into())));
    }

    #[test]
    fn two_that_differ_are_refused() {
        let policy = tenant(json!({"header": {"sources": ["10.0.0.0/8"]}}));
        let result = |case| check(&policy, &case).0;
        let mismatch = Err("tenant_mismatch");
        assert_eq!(result(Case { identity: Some("a"), route: Some("b"), ..NOBODY }), mismatch);
        assert_eq!(result(Case { identity: Some("a"), headers: &["b"], ..NOBODY }), mismatch);
        assert_eq!(result(Case { route: Some("a"), headers: &["b"], ..NOBODY }), mismatch);
        assert_eq!(result(Case { identity: Some("a"), route: Some("A"), ..NOBODY }), mismatch);
    }

    #[test]
    fn a_strangers_header_is_ignored_and_taken_off() {
        let policy = tenant(json!({"header": {"sources": ["10.0.0.0/8"]}}));
        let case = Case { headers: &["b"], source: "11.0.0.1:1", ..NOBODY };
        let (verdict, decision) = check(&policy, &case);
        assert_eq!(verdict, Err("tenant_missing"));
        assert_eq!(decision.headers_to_remove[0], "x-tenant-id");
    }

    #[test]
    fn a_header_sent_twice_or_empty_is_refused() {
        let policy = tenant(json!({"header": {"sources": ["10.0.0.0/8"]}, "required": false}));
        for headers in [&["a", "b"][..], &["a", "a"], &[""], &["  "]] {
            let (verdict, _) = check(&policy, &Case { headers, ..NOBODY });
            assert_eq!(verdict, Err("tenant_malformed"), "{headers:?}");
        }
    }

    #[test]
    fn without_a_header_configured_nobodys_header_counts() {
        let policy = tenant(json!({"required": false}));
        let (verdict, decision) = check(&policy, &Case { headers: &["b"], ..NOBODY });
        assert_eq!(verdict, Ok(None));
        assert!(decision.headers_to_remove.is_empty());
    }

    #[test]
    fn only_the_allowed_ones() {
        let policy = tenant(json!({"allowed": ["acme"]}));
        let result = |case| check(&policy, &case).0;
        assert_eq!(result(Case { identity: Some("acme"), ..NOBODY }), Ok(Some("acme".into())));
        let other = Case { identity: Some("acm"), ..NOBODY };
        assert_eq!(result(other), Err("tenant_not_allowed"));
    }

    #[test]
    fn a_header_that_nobody_may_send_is_refused() {
        let config = serde_json::from_value(json!({"header": {"sources": []}})).unwrap();
        assert_eq!(Tenant::build(&config).unwrap_err().key, "header.sources");
    }
}

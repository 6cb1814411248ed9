//! The header fields in which the upstream learns who asks. Their names follow the gateway that
//! passes them on (`STOA_UPSTREAM_TYPE`), so that services behind it find what they know already.

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use stoa_policy::decision::Identity;

use super::answer::Decided;
use crate::config::sidecar::UpstreamType;

pub type Fields = SmallVec<[(HeaderName, HeaderValue); 10]>;

/// Everything that a gateway's services may read an identity from. What a decision does not set is
/// removed, or a client could say it instead.
#[derive(Clone, Debug)]
pub struct Names {
    user: HeaderName,
    tenant: HeaderName,
    request_id: HeaderName,
    scopes: HeaderName,
    roles: HeaderName,
    email: Option<HeaderName>,
    consumer: Option<HeaderName>,
}

impl Names {
    pub fn of(gateway: UpstreamType, tenant: HeaderName) -> Self {
        let name = HeaderName::from_static;
        let common = Self {
            user: name("x-user-id"),
            tenant,
            request_id: name("x-request-id"),
            scopes: name("x-user-scopes"),
            roles: name("x-user-roles"),
            email: None,
            consumer: None,
        };
        match gateway {
            // webMethods and Envoy have none of their own.
            UpstreamType::Generic | UpstreamType::WebMethods | UpstreamType::Envoy => common,
            // Those that Kong's own authentication plugins set.
            UpstreamType::Kong => Self {
                user: name("x-authenticated-userid"),
                scopes: name("x-authenticated-scope"),
                roles: name("x-consumer-groups"),
                consumer: Some(name("x-consumer-username")),
                ..common
            },
            // Those that Apigee's adapter for Envoy sets.
            UpstreamType::Apigee => Self {
                scopes: name("x-apigee-scope"),
                email: Some(name("x-apigee-developeremail")),
                consumer: Some(name("x-apigee-clientid")),
                ..common
            },
        }
    }

    /// For the request that goes on, allowed as it is.
    pub fn to_set(&self, decided: &Decided) -> Fields {
        let decision = &decided.decision;
        let mut fields = Fields::new();
        let mut add = |name: &HeaderName, value: Option<HeaderValue>| {
            if let Some(value) = value {
                fields.push((name.clone(), value));
            }
        };
        if let Some(identity) = &decision.identity {
            add(&self.user, value_of(&identity.subject));
        }
        if let Some(tenant) = &decision.tenant {
            add(&self.tenant, value_of(tenant));
        }
        add(&self.request_id, Some(decided.request_id.clone()));
        if let Some(identity) = &decision.identity {
            add(&self.scopes, joined(&identity.scopes));
            add(&self.roles, joined(&identity.roles));
            let optional = [(&self.email, &identity.email), (&self.consumer, &identity.consumer)];
            for (name, text) in optional {
                if let (Some(name), Some(text)) = (name, text) {
                    add(name, value_of(text));
                }
            }
        }
        for field in &decision.headers_to_set {
            fields.push(field.clone());
        }
        fields
    }

    /// What the client must not say itself, beside what the policies took off. Never what is set:
    /// Envoy sets first and removes then.
    pub fn to_remove<'a>(
        &'a self,
        decided: &'a Decided,
        set: &'a Fields,
    ) -> impl Iterator<Item = &'a HeaderName> {
        let own = [&self.user, &self.tenant, &self.scopes, &self.roles];
        let own = own.into_iter().chain(&self.email).chain(&self.consumer);
        let removed = &decided.decision.headers_to_remove;
        own.filter(|name| !removed.contains(name))
            .chain(removed)
            .filter(|name| set.iter().all(|(known, _)| known != *name))
    }

    /// Whether an identity can be told to the upstream at all.
    pub fn is_tellable(identity: &Identity) -> bool {
        value_of(&identity.subject).is_some()
    }
}

/// UTF-8 in a field value is `obs-text` (RFC 9110 section 5.5): old, and passed on by everyone.
fn value_of(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

/// Comma-separated. An item with a comma in it would be read as two, so it is left out, as is one
/// that no header field can hold.
fn joined(items: &[std::sync::Arc<str>]) -> Option<HeaderValue> {
    let mut text = String::new();
    for item in items {
        let is_plain = !item.is_empty() && item.bytes().all(|b| b > b' ' && b != 0x7f && b != b',');
        if is_plain {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(item);
        }
    }
    if text.is_empty() { None } else { value_of(&text) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stoa_policy::decision::Decision;

    use super::*;

    fn decided(identity: Option<Identity>) -> Decided {
        let decision = Decision {
            identity: identity.map(Arc::new),
            tenant: Some(Arc::from("acme")),
            headers_to_remove: smallvec::smallvec![HeaderName::from_static("x-api-key")],
            ..Decision::default()
        };
        Decided { decision, request_id: HeaderValue::from_static("r-1") }
    }

    fn ann() -> Identity {
        Identity {
            subject: Arc::from("ann"),
            email: Some(Arc::from("a@b.c")),
            consumer: Some(Arc::from("app")),
            scopes: vec![Arc::from("a"), Arc::from("b,admin"), Arc::from("c\n"), Arc::from("d")],
            ..Identity::default()
        }
    }

    fn told(gateway: UpstreamType, identity: Option<Identity>) -> (Vec<String>, Vec<String>) {
        let names = Names::of(gateway, HeaderName::from_static("x-tenant-id"));
        let decided = decided(identity);
        let set = names.to_set(&decided);
        let removed = names.to_remove(&decided, &set).map(ToString::to_string).collect();
        let set = set.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        (set, removed)
    }

    #[test]
    fn what_is_not_set_is_removed() {
        let (set, removed) = told(UpstreamType::Generic, Some(ann()));
        assert_eq!(
            set,
            ["x-user-id: ann", "x-tenant-id: acme", "x-request-id: r-1", "x-user-scopes: a,d"]
        );
        assert_eq!(removed, ["x-user-roles", "x-api-key"]);
        let (_, removed) = told(UpstreamType::Generic, None);
        assert_eq!(removed, ["x-user-id", "x-user-scopes", "x-user-roles", "x-api-key"]);
    }

    #[test]
    fn each_gateway_has_its_names() {
        let (set, _) = told(UpstreamType::Kong, Some(ann()));
        assert!(set.contains(&"x-authenticated-userid: ann".to_owned()), "{set:?}");
        assert!(set.contains(&"x-consumer-username: app".to_owned()), "{set:?}");
        let (set, _) = told(UpstreamType::Apigee, Some(ann()));
        assert!(set.contains(&"x-apigee-clientid: app".to_owned()), "{set:?}");
        assert!(set.contains(&"x-apigee-developeremail: a@b.c".to_owned()), "{set:?}");
    }

    #[test]
    fn a_subject_that_no_field_holds_is_known() {
        assert!(Names::is_tellable(&ann()));
        assert!(!Names::is_tellable(&Identity { subject: Arc::from("a\r\nb"), ..ann() }));
    }
}

//! Settings of sidecar mode.

use http::HeaderName;
use stoa_policy::sources::Sources;

use super::{ConfigError, Values, parse::parse_sources};

/// The shape of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DecisionFormat {
    #[default]
    StatusCode,
    JsonBody,
    EnvoyExtAuthz,
    KongPlugin,
}

/// Whose gateway asks: it chooses the names of headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamType {
    #[default]
    Generic,
    WebMethods,
    Kong,
    Envoy,
    Apigee,
}

#[derive(Clone, Debug)]
pub struct SidecarSettings {
    pub upstream_type: UpstreamType,
    pub user_info_header: HeaderName,
    pub tenant_id_header: HeaderName,
    /// Whether one of the two was named, rather than left at its default.
    pub are_headers_named: bool,
    pub decision_format: DecisionFormat,
    /// Whose questions are answered.
    pub trusted_callers: Sources,
    /// Below it, Envoy's HTTP flavour sends the client's path. Ends without a slash.
    pub envoy_path_prefix: String,
}

/// What is answered on this port beside Envoy's questions. A client's path must not become one.
const OWN_PATHS: [&str; 7] =
    ["/", "/admin", "/health", "/ready", "/metrics", "/v1", "/envoy.service.auth.v3.Authorization"];

impl SidecarSettings {
    pub(super) fn read(values: &Values) -> Result<Self, ConfigError> {
        let decision_format =
            values.read("decision-format", parse_decision_format)?.unwrap_or_default();
        let are_headers_named =
            ["user-info-header", "tenant-id-header"].iter().any(|key| values.given(key).is_some());
        // In Envoy's format, all that is below /authz is Envoy's, as its users write it.
        let envoy_path_prefix = match decision_format {
            DecisionFormat::EnvoyExtAuthz => "/authz",
            _ => "/authz/envoy",
        };
        Ok(Self {
            are_headers_named,
            decision_format,
            trusted_callers: values.read_sources("trusted-callers")?.unwrap_or_else(loopback),
            envoy_path_prefix: values
                .read("envoy-path-prefix", parse_path_prefix)?
                .unwrap_or_else(|| envoy_path_prefix.to_owned()),
            upstream_type: values.read("upstream-type", parse_upstream_type)?.unwrap_or_default(),
            user_info_header: values
                .read("user-info-header", parse_header)?
                .unwrap_or(HeaderName::from_static("x-user-info")),
            tenant_id_header: values
                .read("tenant-id-header", parse_header)?
                .unwrap_or(HeaderName::from_static("x-tenant-id")),
        })
    }
}

fn loopback() -> Sources {
    parse_sources(&["127.0.0.0/8".to_owned(), "::1".to_owned()]).unwrap_or_default()
}

fn parse_path_prefix(text: &str) -> Result<String, String> {
    let prefix = text.trim_end_matches('/');
    let is_path =
        prefix.starts_with('/') && !prefix.bytes().any(|b| b <= b' ' || b"?#%".contains(&b));
    if !is_path {
        return Err(format!("`{text}` is not a path such as /authz/envoy"));
    }
    let is_taken = OWN_PATHS.iter().any(|own| {
        prefix == *own
            || prefix.strip_prefix(own).is_some_and(|rest| own.len() > 1 && rest.starts_with('/'))
    });
    match is_taken {
        false => Ok(prefix.to_owned()),
        true => Err(format!(
            "`{text}` is among the paths that this port answers itself: choose another, such as \
             /authz/envoy, and give Envoy the same as `path_prefix`"
        )),
    }
}

fn parse_header(text: &str) -> Result<HeaderName, String> {
    text.parse().map_err(|_| format!("`{text}` is not the name of a header"))
}

fn parse_upstream_type(text: &str) -> Result<UpstreamType, String> {
    match text.to_lowercase().as_str() {
        "generic" => Ok(UpstreamType::Generic),
        "webmethods" => Ok(UpstreamType::WebMethods),
        "kong" => Ok(UpstreamType::Kong),
        "envoy" => Ok(UpstreamType::Envoy),
        "apigee" => Ok(UpstreamType::Apigee),
        _ => Err(format!(
            "`{text}` is not a type of gateway; valid ones: generic, webmethods, kong, envoy, apigee"
        )),
    }
}

fn parse_decision_format(text: &str) -> Result<DecisionFormat, String> {
    match text.to_lowercase().replace(['-', '_'], "").as_str() {
        "statuscode" => Ok(DecisionFormat::StatusCode),
        "jsonbody" => Ok(DecisionFormat::JsonBody),
        "envoyextauthz" => Ok(DecisionFormat::EnvoyExtAuthz),
        "kongplugin" => Ok(DecisionFormat::KongPlugin),
        _ => Err(format!(
            "`{text}` is not a decision format; valid ones: StatusCode, JsonBody, EnvoyExtAuthz, \
             KongPlugin"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_of_a_client_can_be_our_own() {
        assert_eq!(parse_path_prefix("/authz/envoy/"), Ok("/authz/envoy".to_owned()));
        assert_eq!(parse_path_prefix("/check"), Ok("/check".to_owned()));
        for text in ["", "/", "authz", "/health", "/metrics/x", "/a b", "/a?b", "/v1"] {
            assert!(parse_path_prefix(text).is_err(), "{text}");
        }
    }
}

//! Settings of sidecar mode.

use http::HeaderName;

use super::{ConfigError, Values};

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
    pub decision_format: DecisionFormat,
}

impl SidecarSettings {
    pub(super) fn read(values: &Values) -> Result<Self, ConfigError> {
        Ok(Self {
            upstream_type: values.read("upstream-type", parse_upstream_type)?.unwrap_or_default(),
            user_info_header: values
                .read("user-info-header", parse_header)?
                .unwrap_or(HeaderName::from_static("x-user-info")),
            tenant_id_header: values
                .read("tenant-id-header", parse_header)?
                .unwrap_or(HeaderName::from_static("x-tenant-id")),
            decision_format: values
                .read("decision-format", parse_decision_format)?
                .unwrap_or_default(),
        })
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

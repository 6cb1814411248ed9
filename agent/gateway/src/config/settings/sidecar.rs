//! Settings of sidecar mode.

use super::{Kind, Setting, one};

const SIDECAR: &str = "Sidecar mode";

pub const SETTINGS: &[Setting] = &[
    one(
        "upstream-type",
        &["STOA_UPSTREAM_TYPE", "STOA_PRIMARY_GATEWAY", "SIDECAR_PRIMARY_GATEWAY"],
        "TYPE",
        SIDECAR,
        "Whose gateway asks: generic, webmethods, kong, envoy or apigee [default: generic]",
    ),
    one(
        "user-info-header",
        &["STOA_USER_INFO_HEADER"],
        "NAME",
        SIDECAR,
        "Header in which that gateway says who the user is [default: X-User-Info]",
    ),
    one(
        "tenant-id-header",
        &["STOA_TENANT_ID_HEADER"],
        "NAME",
        SIDECAR,
        "Header in which that gateway says whose tenant it is [default: X-Tenant-ID]",
    ),
    one(
        "decision-format",
        &["STOA_DECISION_FORMAT"],
        "FORMAT",
        SIDECAR,
        "StatusCode, JsonBody, EnvoyExtAuthz or KongPlugin [default: StatusCode]",
    ),
    Setting {
        key: "trusted-callers",
        variables: &["STOA_TRUSTED_CALLERS"],
        value_name: "CIDR",
        group: SIDECAR,
        help: "Addresses of gateways whose questions are answered, and whose word on the user is believed. Repeatable [default: 127.0.0.0/8 and ::1]",
        kind: Kind::Many,
    },
    one(
        "envoy-path-prefix",
        &["STOA_ENVOY_PATH_PREFIX"],
        "PATH",
        SIDECAR,
        "`path_prefix` of Envoy's HTTP ext_authz [default: /authz/envoy; /authz with decision format EnvoyExtAuthz]",
    ),
];

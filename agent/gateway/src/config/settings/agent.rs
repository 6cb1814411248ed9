//! Settings of every mode.

use super::{Kind, Setting, one};

const MODE: &str = "Mode and API";
const REDIRECT: &str = "Steering of workloads, in any mode";
const LOGS: &str = "Logs";

pub const SETTINGS: &[Setting] = &[
    one(
        "mode",
        &["STOA_GATEWAY_MODE", "STOA_MODE", "GATEWAY_MODE"],
        "MODE",
        MODE,
        "What this agent does. This build has: shadow, proxy, sidecar [default: shadow]",
    ),
    one(
        "host",
        &["STOA_HOST"],
        "IP",
        MODE,
        "Address of the HTTP API [default: sidecar 127.0.0.1, else 0.0.0.0]",
    ),
    one(
        "port",
        &["STOA_PORT", "GATEWAY_PORT"],
        "PORT",
        MODE,
        "Port of the HTTP API; 0 takes a free one [default: sidecar 8081, proxy 8082, shadow 8083]",
    ),
    one(
        "config",
        &["STOA_CONFIG"],
        "FILE",
        MODE,
        "YAML file with any of these settings [default: the first of config.yaml, config.yml, /etc/stoa/config.yaml]",
    ),
    one(
        "tenant",
        &["STOA_TENANT", "STOA_TENANT_ID"],
        "NAME",
        MODE,
        "Tenant that the contracts belong to [default: default]",
    ),
    one(
        "admin-api-token",
        &["STOA_ADMIN_API_TOKEN"],
        "TOKEN",
        MODE,
        "Who shows it may use the admin API, /admin/*; better a variable, which other users of the machine cannot see [default: the admin API answers 503]",
    ),
    Setting {
        key: "route-reload-enabled",
        variables: &["STOA_ROUTE_RELOAD_ENABLED"],
        value_name: "BOOL",
        group: MODE,
        help: "Reload what the file configures when it changes; without, SIGHUP and the admin API do [default: true]",
        kind: Kind::Switch,
    },
    one(
        "route-reload-interval-secs",
        &["STOA_ROUTE_RELOAD_INTERVAL_SECS"],
        "SECONDS",
        MODE,
        "How often the file, and those that it names, are looked at [default: 1]",
    ),
];

pub const LAST: &[Setting] = &[
    one(
        "redirect-socket",
        &["STOA_REDIRECT_SOCKET"],
        "FILE",
        REDIRECT,
        "Steer the workloads that are enrolled at this Unix socket (`stoactl workload`); an agent that is started with the same one takes over [default: nothing is steered]",
    ),
    one(
        "redirect-drain-seconds",
        &["STOA_REDIRECT_DRAIN_SECONDS"],
        "N",
        REDIRECT,
        "How long steered connections may go on when the agent is told to stop [default: 30]",
    ),
    one(
        "log-level",
        &["STOA_LOG_LEVEL", "GATEWAY_LOG_LEVEL"],
        "LEVEL",
        LOGS,
        "error, warn, info, debug, trace, or a filter such as `info,audit=off` [default: info]",
    ),
    one(
        "log-format",
        &["STOA_LOG_FORMAT"],
        "FORMAT",
        LOGS,
        "text or json [default: text on a terminal, else json]",
    ),
];

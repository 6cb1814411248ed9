//! Settings of proxy mode.

use super::{Kind, Setting, one};

const PROXY: &str = "Proxy mode";

pub const SETTINGS: &[Setting] = &[
    one(
        "upstream",
        &["STOA_UPSTREAM", "STOA_UPSTREAM_URL"],
        "URL",
        PROXY,
        "Where requests go that no route of the file matches, http://HOST:PORT",
    ),
    Setting {
        key: "transform-request",
        variables: &["STOA_TRANSFORM_REQUEST"],
        value_name: "BOOL",
        group: PROXY,
        help: "Apply the routes' transformations of requests [default: false]",
        kind: Kind::Switch,
    },
    Setting {
        key: "transform-response",
        variables: &["STOA_TRANSFORM_RESPONSE"],
        value_name: "BOOL",
        group: PROXY,
        help: "Apply the routes' transformations of responses [default: false]",
        kind: Kind::Switch,
    },
    Setting {
        key: "inject-headers",
        variables: &["STOA_INJECT_HEADERS"],
        value_name: "BOOL",
        group: PROXY,
        help: "Add tenant, trace and correlation headers [default: true]",
        kind: Kind::Switch,
    },
    Setting {
        key: "websocket-passthrough",
        variables: &["STOA_WEBSOCKET_PASSTHROUGH"],
        value_name: "BOOL",
        group: PROXY,
        help: "Pass WebSocket connections on [default: false]",
        kind: Kind::Switch,
    },
    one(
        "connection-pool-size",
        &["STOA_CONNECTION_POOL_SIZE"],
        "N",
        PROXY,
        "Idle connections kept for each upstream [default: 100]",
    ),
    one(
        "workers",
        &["STOA_WORKERS"],
        "N",
        PROXY,
        "Threads that serve, each with connections of its own [default: one a core]",
    ),
    one(
        "admin-port",
        &["STOA_ADMIN_PORT"],
        "PORT",
        PROXY,
        "Port of the node's own /admin, /health and /metrics; 0 takes a free one [default: 9090]",
    ),
    Setting {
        key: "ip-blocklist",
        variables: &["STOA_IP_BLOCKLIST"],
        value_name: "CIDR",
        group: PROXY,
        help: "Addresses and networks whose connections are refused, before TLS",
        kind: Kind::Many,
    },
    one(
        "ip-blocklist-file",
        &["STOA_IP_BLOCKLIST_FILE"],
        "FILE",
        PROXY,
        "More of them, one a line, comments after # or ;; read again when it changes",
    ),
    one(
        "tcp-rate-limit-per-ip",
        &["STOA_TCP_RATE_LIMIT_PER_IP"],
        "N",
        PROXY,
        "New connections a second of one address (of IPv6, of one /64); more are refused, before TLS; 0 is unlimited [default: 0]",
    ),
    one(
        "drain-seconds",
        &["STOA_DRAIN_SECONDS"],
        "SECONDS",
        PROXY,
        "How long requests under way may go on when the agent stops [default: 30]",
    ),
    one(
        "request-body-seconds",
        &["STOA_REQUEST_BODY_SECONDS"],
        "SECONDS",
        PROXY,
        "How long a client may take to send a body that is needed whole, for policies, transformations or mirrors; then it gets 408 [default: 30]",
    ),
    one(
        "access-log",
        &["STOA_ACCESS_LOG", "STOA_ACCESS_LOG_ENABLED"],
        "WHERE",
        PROXY,
        "A line of JSON for each answer: stdout (or true), off (or false), or a file, which is rotated at 64 MiB [default: stdout]",
    ),
    one(
        "access-log-one-in",
        &["STOA_ACCESS_LOG_ONE_IN"],
        "N",
        PROXY,
        "Log one answer in N, and every one of status 500 or above [default: 1]",
    ),
];

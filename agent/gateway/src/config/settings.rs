//! The table of settings: one line names a setting's flag, file key and variables, so that the
//! four ways to configure cannot drift apart.

/// One setting. The flag is `--key`; the key in a file is the same with `_` for `-`.
pub struct Setting {
    pub key: &'static str,
    /// The variable, then older names of it, the preferred first.
    pub variables: &'static [&'static str],
    pub value_name: &'static str,
    pub group: &'static str,
    pub help: &'static str,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    One,
    /// Repeatable as a flag, a list in a file, comma-separated in a variable.
    Many,
    /// `--key` alone means yes.
    Switch,
}

const fn one(
    key: &'static str,
    variables: &'static [&'static str],
    value_name: &'static str,
    group: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, variables, value_name, group, help, kind: Kind::One }
}

const MODE: &str = "Mode and API";
const CAPTURE: &str = "Capture: what to watch, and how";
const CONTRACTS: &str = "Contracts and what is kept";
const LIMITS: &str = "Budgets";
const PROXY: &str = "Proxy mode";
const SIDECAR: &str = "Sidecar mode";
const POLICIES: &str = "Policies of the set `default`, where the file has none";
const OUTSIDE: &str = "What policies ask: a real OPA, and Redis";
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
        "capture",
        &["STOA_CAPTURE_METHOD", "STOA_SHADOW_CAPTURE_SOURCE"],
        "METHOD",
        CAPTURE,
        "Ebpf, Inline or PortMirror [default: PortMirror with --interface or --pcap; else Ebpf where the kernel allows; else Inline with --target]",
    ),
    Setting {
        key: "watch",
        variables: &["STOA_WATCH"],
        value_name: "NAME=WHAT",
        group: CAPTURE,
        help: "A service to watch: NAME=port:PORT, NAME=pid:PID or NAME=cgroup:PATH. Repeatable; one NAME is one service",
        kind: Kind::Many,
    },
    one(
        "target",
        &["STOA_TARGET", "STOA_TARGET_URL", "SHADOW_TARGET_BACKEND"],
        "URL",
        CAPTURE,
        "Inline: where the pass-through listener connects to, http://HOST:PORT",
    ),
    one(
        "inline-listen",
        &["STOA_INLINE_LISTEN"],
        "ADDR:PORT",
        CAPTURE,
        "Inline: where clients connect instead [default: 127.0.0.1:9083]",
    ),
    one(
        "service",
        &["STOA_SERVICE"],
        "NAME",
        CAPTURE,
        "Inline: the service's name [default: the host name of --target, or `api`]",
    ),
    one(
        "interface",
        &["STOA_INTERFACE"],
        "IF",
        CAPTURE,
        "PortMirror: the network interface that receives the mirrored packets",
    ),
    one(
        "pcap",
        &["STOA_PCAP"],
        "FILE",
        CAPTURE,
        "PortMirror: a pcap or pcapng file instead of an interface",
    ),
    one(
        "record",
        &["STOA_RECORD"],
        "FILE",
        CAPTURE,
        "Also write what was captured, RAW and UNMASKED, to a pcapng file (for debugging; mode 0600)",
    ),
    one(
        "output",
        &["STOA_UAC_OUTPUT_DIR", "STOA_OUTPUT"],
        "DIR",
        CONTRACTS,
        "Where contracts are written [default: /var/stoa/uac as root, else `contracts` in the state directory]",
    ),
    one(
        "state-dir",
        &["STOA_STATE_DIR"],
        "DIR",
        CONTRACTS,
        "Where masked observations are kept [default: /var/lib/stoa-gateway as root, else ~/.local/state/stoa-gateway]",
    ),
    one(
        "min-requests-for-uac",
        &["STOA_MIN_REQUESTS_FOR_UAC"],
        "N",
        CONTRACTS,
        "Requests after which a service's contract is written [default: 100]",
    ),
    one(
        "analysis-window-hours",
        &["STOA_ANALYSIS_WINDOW_HOURS"],
        "HOURS",
        CONTRACTS,
        "How far back a contract looks [default: 168]",
    ),
    one(
        "retention-days",
        &["STOA_RETENTION_DAYS"],
        "DAYS",
        CONTRACTS,
        "Observations older than this are purged; 1 to 29 [default: 14]",
    ),
    Setting {
        key: "summary",
        variables: &["STOA_SUMMARY"],
        value_name: "BOOL",
        group: CONTRACTS,
        help: "Print a summary of the contracts when the agent stops [default: when stdout is a terminal]",
        kind: Kind::Switch,
    },
    one(
        "body-bytes",
        &["STOA_BODY_BYTES"],
        "SIZE",
        LIMITS,
        "Body bytes read per message and direction [default: 16KiB]",
    ),
    one(
        "ring-bytes",
        &["STOA_RING_BYTES"],
        "SIZE",
        LIMITS,
        "Buffer between the capture and the analysis [default: 8MiB]",
    ),
    one(
        "memory-bytes",
        &["STOA_MEMORY_BYTES"],
        "SIZE",
        LIMITS,
        "Memory for connections that are being read [default: 24MiB]",
    ),
    one(
        "max-connections",
        &["STOA_MAX_CONNECTIONS"],
        "N",
        LIMITS,
        "Connections served at once [default: Inline 4096, proxy mode 65536]",
    ),
    one(
        "nice",
        &["STOA_NICE"],
        "N",
        LIMITS,
        "Niceness of the analysis thread, 0 to 19, or idle: after the services [default: idle]",
    ),
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
        "Port of the node's own /health and /metrics; 0 takes a free one [default: 9090]",
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
    one(
        "keycloak-url",
        &["STOA_KEYCLOAK_URL", "KEYCLOAK_URL"],
        "URL",
        POLICIES,
        "Accept tokens of a Keycloak realm: its address as tokens name it",
    ),
    one(
        "keycloak-realm",
        &["STOA_KEYCLOAK_REALM", "KEYCLOAK_REALM"],
        "NAME",
        POLICIES,
        "The realm [default: stoa]",
    ),
    one(
        "keycloak-internal-url",
        &["STOA_KEYCLOAK_INTERNAL_URL"],
        "URL",
        POLICIES,
        "Where its keys are fetched, if not at its address",
    ),
    one(
        "keycloak-client-id",
        &["STOA_KEYCLOAK_CLIENT_ID", "KEYCLOAK_CLIENT_ID"],
        "NAME",
        POLICIES,
        "Tokens must be made for this audience, and its client roles count [default: any audience]",
    ),
    one(
        "jwt-secret",
        &["STOA_JWT_SECRET"],
        "TEXT",
        POLICIES,
        "Accept tokens that are signed with this secret (HS256), 32 bytes or more. Better a variable: flags are seen by every process",
    ),
    one(
        "jwt-issuer",
        &["STOA_JWT_ISSUER"],
        "TEXT",
        POLICIES,
        "Tokens must name this issuer [default: Keycloak's realm, or any with --jwt-secret]",
    ),
    Setting {
        key: "jwt-audience",
        variables: &["STOA_JWT_AUDIENCE"],
        value_name: "NAME",
        group: POLICIES,
        help: "Tokens must be made for one of these audiences; * for any [default: --keycloak-client-id]",
        kind: Kind::Many,
    },
    Setting {
        key: "mtls--enabled",
        variables: &["STOA_MTLS__ENABLED"],
        value_name: "BOOL",
        group: POLICIES,
        help: "Accept client certificates [default: false]",
        kind: Kind::Switch,
    },
    Setting {
        key: "mtls--trusted-proxies",
        variables: &["STOA_MTLS__TRUSTED_PROXIES"],
        value_name: "CIDR",
        group: POLICIES,
        help: "Proxies that verify client certificates and say so in headers",
        kind: Kind::Many,
    },
    Setting {
        key: "mtls--allowed-issuers",
        variables: &["STOA_MTLS__ALLOWED_ISSUERS"],
        value_name: "DN",
        group: POLICIES,
        help: "Issuers of client certificates [default: all that are verified]",
        kind: Kind::Many,
    },
    Setting {
        key: "mtls--tenant-from-dn",
        variables: &["STOA_MTLS__TENANT_FROM_DN"],
        value_name: "BOOL",
        group: POLICIES,
        help: "The certificate's organisation is the tenant [default: true]",
        kind: Kind::Switch,
    },
    one(
        "mtls--header-verify",
        &["STOA_MTLS__HEADER_VERIFY"],
        "NAME",
        POLICIES,
        "Header of those proxies [default: X-SSL-Client-Verify]",
    ),
    one(
        "mtls--header-fingerprint",
        &["STOA_MTLS__HEADER_FINGERPRINT"],
        "NAME",
        POLICIES,
        "Header of those proxies [default: X-SSL-Client-Fingerprint]",
    ),
    one(
        "mtls--header-subject-dn",
        &["STOA_MTLS__HEADER_SUBJECT_DN"],
        "NAME",
        POLICIES,
        "Header of those proxies [default: X-SSL-Client-S-DN]",
    ),
    one(
        "mtls--header-issuer-dn",
        &["STOA_MTLS__HEADER_ISSUER_DN"],
        "NAME",
        POLICIES,
        "Header of those proxies [default: X-SSL-Client-I-DN]",
    ),
    one(
        "mtls--header-serial",
        &["STOA_MTLS__HEADER_SERIAL"],
        "NAME",
        POLICIES,
        "Header of those proxies [default: X-SSL-Client-Serial]",
    ),
    one(
        "mtls--header-cert",
        &["STOA_MTLS__HEADER_CERT"],
        "NAME",
        POLICIES,
        "Header of those proxies [default: X-SSL-Client-Cert]",
    ),
    Setting {
        key: "guardrails-pii-enabled",
        variables: &["STOA_GUARDRAILS_PII_ENABLED"],
        value_name: "BOOL",
        group: POLICIES,
        help: "Look for personal data in bodies [default: false]",
        kind: Kind::Switch,
    },
    Setting {
        key: "guardrails-pii-redact",
        variables: &["STOA_GUARDRAILS_PII_REDACT"],
        value_name: "BOOL",
        group: POLICIES,
        help: "Mask it, rather than refuse the message [default: true]",
        kind: Kind::Switch,
    },
    one(
        "rate-limit-default",
        &["STOA_RATE_LIMIT_DEFAULT"],
        "N",
        POLICIES,
        "Requests of each tenant in a window [default: no limit; 1000 with --rate-limit-window-seconds]",
    ),
    one(
        "rate-limit-window-seconds",
        &["STOA_RATE_LIMIT_WINDOW_SECONDS"],
        "SECONDS",
        POLICIES,
        "That window [default: 60]",
    ),
    Setting {
        key: "quota-enforcement-enabled",
        variables: &["STOA_QUOTA_ENFORCEMENT_ENABLED"],
        value_name: "BOOL",
        group: POLICIES,
        help: "Hold each consumer to the limits and quotas of its plan [default: false]",
        kind: Kind::Switch,
    },
    one(
        "quota-default-rate-per-minute",
        &["STOA_QUOTA_DEFAULT_RATE_PER_MINUTE"],
        "N",
        POLICIES,
        "Requests a minute in the plan `standard`, of consumers without another; 0 is unlimited [default: 60]",
    ),
    one(
        "quota-default-daily-limit",
        &["STOA_QUOTA_DEFAULT_DAILY_LIMIT"],
        "N",
        POLICIES,
        "Requests a day in that plan, by UTC; 0 is unlimited [default: 10000]",
    ),
    Setting {
        key: "policy-enabled",
        variables: &["STOA_POLICY_ENABLED", "STOA_OPA_ENABLED", "OPA_ENABLED"],
        value_name: "BOOL",
        group: POLICIES,
        help: "Evaluate a Rego policy: that of --policy-path or of --opa-endpoint, else STOA's for scopes and roles [default: true with one of those two]",
        kind: Kind::Switch,
    },
    Setting {
        key: "policy-path",
        variables: &["STOA_POLICY_PATH"],
        value_name: "FILE",
        group: POLICIES,
        help: "Rego to evaluate in this process; read again when it changes. Repeatable",
        kind: Kind::Many,
    },
    one(
        "policy-query",
        &["STOA_POLICY_QUERY"],
        "RULE",
        POLICIES,
        "The rule of the policy, here or in OPA, that decides [default: data.stoa.authz.allow]",
    ),
    one(
        "cb-failure-threshold",
        &["STOA_CB_FAILURE_THRESHOLD"],
        "N",
        POLICIES,
        "Proxy mode: failures of an upstream within a minute after which it is left alone [default: never; 5 with another --cb-*]",
    ),
    one(
        "cb-reset-timeout-secs",
        &["STOA_CB_RESET_TIMEOUT_SECS"],
        "SECONDS",
        POLICIES,
        "For how long [default: 30]",
    ),
    one(
        "cb-success-threshold",
        &["STOA_CB_SUCCESS_THRESHOLD"],
        "N",
        POLICIES,
        "Requests that must then succeed, one at a time, before all go there again [default: 2]",
    ),
    one(
        "opa-endpoint",
        &["STOA_OPA_ENDPOINT", "OPA_ENDPOINT", "PROXY_OPA_ENDPOINT"],
        "URL",
        OUTSIDE,
        "Have this OPA decide, http://HOST:PORT",
    ),
    one(
        "opa-timeout-ms",
        &["STOA_OPA_TIMEOUT_MS"],
        "MS",
        OUTSIDE,
        "How long a request waits for it at most [default: 250]",
    ),
    one(
        "opa-fail-mode",
        &["STOA_OPA_FAIL_MODE"],
        "MODE",
        OUTSIDE,
        "While it does not answer: closed refuses requests, open lets them pass [default: closed]",
    ),
    one(
        "redis-url",
        &["STOA_REDIS_URL"],
        "URL",
        OUTSIDE,
        "Share limits and quotas with other nodes, redis://USER:PASSWORD@HOST:PORT/DB. With a password better a variable [default: each node counts for itself]",
    ),
    one(
        "redis-timeout-ms",
        &["STOA_REDIS_TIMEOUT_MS"],
        "MS",
        OUTSIDE,
        "How long a request waits for it at most [default: 20]",
    ),
    one(
        "redis-fail-mode",
        &["STOA_REDIS_FAIL_MODE"],
        "MODE",
        OUTSIDE,
        "While it does not answer: open lets each node count for itself, closed refuses what is limited [default: open]",
    ),
    Setting {
        key: "metering-enabled",
        variables: &["STOA_METERING_ENABLED", "METERING_ENABLED"],
        value_name: "BOOL",
        group: OUTSIDE,
        help: "Not in this build: with true, the agent says so when it starts, and meters nothing",
        kind: Kind::Switch,
    },
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

/// Variables (and, in lower case, file keys) of modes and parts that this build does not have.
/// One configuration serves every mode, so they are known here and without effect.
pub const OF_OTHER_MODES: &str = "
A2A_ENABLED A2A_MAX_AGENTS A2A_MAX_TASKS ADMIN_API_TOKEN ADVERTISE_URL AGENT_SESSION_TTL_SECS
API_PROXY__BACKENDS API_PROXY__ENABLED API_PROXY__REQUIRE_AUTH ATTESTATION_INTERVAL
AUDIT_SPOOL_CAPACITY_BYTES AUDIT_SPOOL_DIR AUDIT_SPOOL_HIGH_WATER_PCT AUDIT_SPOOL_SEGMENT_BYTES
AUTO_CREATE_MR AUTO_REGISTER BUDGET_CACHE_TTL_SECS BUDGET_ENFORCEMENT_ENABLED
CLASSIFICATION_ENFORCEMENT_ENABLED CONTROL_PLANE_API_KEY CONTROL_PLANE_URL DEPLOYMENT_MODE
DETAILED_TRACING DPOP__CLOCK_SKEW_SECS DPOP__ENABLED DPOP__JTI_CACHE_MAX DPOP__JTI_CACHE_TTL_SECS
DPOP__MAX_AGE_SECS DPOP__REQUIRED EBPF_DAEMON_URL ENVIRONMENT FALLBACK_CHAINS FALLBACK_ENABLED
FALLBACK_TIMEOUT_MS FEDERATION_CACHE_MAX_ENTRIES FEDERATION_CACHE_TTL_SECS FEDERATION_ENABLED
FEDERATION_UPSTREAMS GATEWAY_EXTERNAL_URL GATEWAY_PUBLIC_URL GATEWAY_UI_URL GITHUB_CATALOG_REPO
GITHUB_GITOPS_REPO GITHUB_ORG GITHUB_TOKEN GITHUB_WEBHOOK_SECRET GITLAB_API_URL GITLAB_PROJECT
GITLAB_PROJECT_ID GITLAB_TOKEN GITLAB_URL GIT_PROVIDER GRAPHQL_BRIDGE_ENABLED GRAPHQL_PROXY_ENABLED
GRPC_BRIDGE_ENABLED GRPC_PROXY_ENABLED GUARDRAILS_CONTENT_FILTER_ENABLED
GUARDRAILS_INJECTION_ENABLED HEARTBEAT_INTERVAL_SECS HEGEMON_BUDGET_DAILY_USD
HEGEMON_BUDGET_WARN_PCT HEGEMON_ENABLED IP_BLOCKLIST IP_BLOCKLIST_FILE K8S_ENABLED
KAFKA_BRIDGE_ENABLED KAFKA_BROKERS KAFKA_CNS_CONSUMER_GROUP KAFKA_CNS_ENABLED KAFKA_CNS_TOPICS
KAFKA_DEPLOY_PROGRESS_TOPIC KAFKA_ENABLED KAFKA_ERRORS_TOPIC KAFKA_METERING_TOPIC
KEYCLOAK_ADMIN_PASSWORD KEYCLOAK_CLIENT_SECRET LLM_DEFAULT_TIMEOUT_MS LLM_ENABLED LLM_PROXY_API_KEY
LLM_PROXY_ENABLED LLM_PROXY_METERING_URL LLM_PROXY_MISTRAL_API_KEY LLM_PROXY_MISTRAL_UPSTREAM_URL
LLM_PROXY_PROVIDER LLM_PROXY_SKIP_VALIDATION LLM_PROXY_TIMEOUT_SECS LLM_PROXY_UPSTREAM_URL
LLM_ROUTER__BUDGET_LIMIT_USD LLM_ROUTER__DEFAULT_STRATEGY LLM_ROUTER__ENABLED LLM_ROUTER__PROVIDERS
LLM_ROUTER__SUBSCRIPTION_MAPPING__MAP MAX_SESSIONS MCP_DISCOVERY_CACHE_MAX_ENTRIES
MCP_DISCOVERY_CACHE_TTL_SECS MCP_SESSION_TTL_MINUTES MEMORY_LIMIT_MB MTLS__HEADER_NOT_AFTER
MTLS__HEADER_NOT_BEFORE MTLS__REQUIRED_ROUTES MTLS__REQUIRE_BINDING NATIVE_TOOLS_ENABLED
OTEL_ENABLED OTEL_ENDPOINT OTEL_SAMPLE_RATE PLUGIN_SDK_ENABLED PROMPT_CACHE_MAX_ENTRIES
PROMPT_CACHE_TTL_SECS PROMPT_CACHE_WATCH_DIR PROMPT_GUARD_ACTION PROMPT_GUARD_ENABLED
PROXY_METRICS_ENABLED PROXY_TRACING_ENABLED QUOTA_SYNC_INTERVAL_SECS RAG_INJECTOR_ENABLED
RAG_MAX_CHUNKS RAG_MAX_CONTEXT_LENGTH RAG_SOURCE_TIMEOUT_MS ROUTE_RELOAD_ENABLED
ROUTE_RELOAD_INTERVAL_SECS SENDER_CONSTRAINT__DPOP_REQUIRED SENDER_CONSTRAINT__ENABLED
SENDER_CONSTRAINT__MTLS_REQUIRED SESSION_TIMEOUT SESSION_TIMEOUT_SECS SHADOW_GITLAB_PROJECT
SHADOW_MIN_SAMPLES SKILL_CACHE_TTL_SECS SKILL_CONTEXT_ENABLED SKILL_CONTEXT_HEADER
SKILL_CONTEXT_MAX_BYTES SNAPSHOT_BODY_MAX_BYTES SNAPSHOT_ENABLED SNAPSHOT_EXTRA_PII_PATTERNS
SNAPSHOT_MAX_AGE_SECS SNAPSHOT_MAX_COUNT SOAP_BRIDGE_ENABLED SOAP_PROXY_ENABLED SSE_KEEPALIVE
SSE_KEEPALIVE_INTERVAL SSE_KEEPALIVE_INTERVAL_SECS SUPERVISION_DEFAULT_TIER SUPERVISION_ENABLED
SUPERVISION_WEBHOOK_URL TARGET_GATEWAY_TYPE TARGET_GATEWAY_URL TCP_RATE_LIMIT_PER_IP
TOKEN_BUDGET_DEFAULT_LIMIT TOKEN_BUDGET_ENABLED TOKEN_BUDGET_WINDOW_HOURS TOOL_EXPANSION_MODE
TOOL_MAX_STALENESS_SECS TOOL_REFRESH_TTL_SECS TOPOLOGY TOPOLOGY_PROOF WEBSOCKET_ENABLED
WS_PROXY_ENABLED WS_PROXY_RATE_LIMIT_BURST WS_PROXY_RATE_LIMIT_PER_SECOND ZOMBIE_DETECTION_ENABLED
";

/// The setting that a file key or a variable names.
pub fn by_key(key: &str) -> Option<&'static Setting> {
    let dashed = key.replace('_', "-");
    SETTINGS
        .iter()
        .find(|s| s.key == dashed)
        .or_else(|| by_variable(&format!("STOA_{}", key.to_uppercase())))
}

/// Other names of flags, and the setting that each is.
const OTHER_FLAGS: &[(&str, &str)] = &[
    ("gateway-mode", "mode"),
    ("primary-gateway", "upstream-type"),
    ("upstream-url", "upstream"),
    ("opa-enabled", "policy-enabled"),
];

pub fn other_flags(key: &str) -> impl Iterator<Item = &'static str> {
    OTHER_FLAGS.iter().filter(move |(_, setting)| *setting == key).map(|(flag, _)| *flag)
}

pub fn by_variable(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.variables.contains(&name))
}

/// `name` is without its `STOA_`.
pub fn is_of_other_mode(name: &str) -> bool {
    OF_OTHER_MODES.split_whitespace().any(|known| known == name)
}

/// A file key such as `mtls`, whose values are nested.
pub fn is_section_of_other_mode(name: &str) -> bool {
    OF_OTHER_MODES
        .split_whitespace()
        .any(|known| known.split_once("__").is_some_and(|(section, _)| section == name))
}

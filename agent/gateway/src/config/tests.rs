use super::{shadow::Target, *};
use crate::capture::CaptureMethod;

fn load_with(flags: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let arguments = std::iter::once("stoa-gateway").chain(flags.iter().copied());
    load(
        arguments.map(OsString::from),
        variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
    )
}

fn error_of(flags: &[&str], variables: &[(&str, &str)]) -> String {
    load_with(flags, variables).expect_err("should be refused").to_string()
}

fn shadow_with(flags: &[&str], variables: &[(&str, &str)]) -> ShadowSettings {
    match load_with(flags, variables).unwrap().mode {
        Mode::Shadow(settings) => *settings,
        other => panic!("{other:?}"),
    }
}

const WATCH: &str = "--watch=api=port:8000";

#[test]
fn flags_win_over_variables_over_file_over_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stoa.yaml");
    std::fs::write(
        &file,
        "port: 1\nretention_days: 3\nmin_requests_for_uac: 5\nanalysis_window_hours: 24\nwatch: [api=port:80]\n",
    )
    .unwrap();
    let variables =
        [("STOA_CONFIG", file.to_str().unwrap()), ("STOA_PORT", "2"), ("STOA_RETENTION_DAYS", "4")];
    let config = load_with(&["--port", "3"], &variables).unwrap();
    assert_eq!(config.listen.port(), 3);
    let shadow = shadow_with(&["--port", "3"], &variables);
    assert_eq!(shadow.retention.as_secs(), 4 * 86_400);
    assert_eq!(shadow.min_requests, 5);
    assert_eq!(shadow.body_bytes, 16 << 10);
    assert_eq!(config.file.as_deref(), Some(file.as_path()));
}

#[test]
fn defaults_are_those_documented() {
    let config = load_with(&[WATCH], &[]).unwrap();
    assert_eq!(config.listen, "0.0.0.0:8083".parse().unwrap());
    let shadow = shadow_with(&[WATCH], &[]);
    assert_eq!(shadow.min_requests, 100);
    assert_eq!(shadow.analysis_window.as_secs(), 168 * 3600);
    assert_eq!(shadow.retention.as_secs(), 14 * 86_400);
    assert_eq!(shadow.capture, None);
}

#[test]
fn retention_of_thirty_days_or_more_is_refused_with_the_reason() {
    for days in ["30", "365"] {
        let error = error_of(&[WATCH], &[("STOA_RETENTION_DAYS", days)]);
        assert!(
            error.starts_with("STOA_RETENTION_DAYS: ") && error.contains("less than 30 days"),
            "{error}"
        );
    }
    assert!(load_with(&[WATCH, "--retention-days=29"], &[]).is_ok());
    assert!(error_of(&[WATCH, "--retention-days=0"], &[]).contains("1 to 29"));
}

#[test]
fn modes_that_are_absent_say_so() {
    for mode in ["edge-mcp", "edge_mcp", "mcp"] {
        let error = error_of(&[WATCH, "--mode", mode], &[]);
        assert!(error.contains("not in this build"), "{error}");
    }
    assert!(error_of(&[WATCH], &[("GATEWAY_MODE", "shadw")]).contains("unknown mode `shadw`"));
    assert!(load_with(&[WATCH, "--mode", "Shadow"], &[]).is_ok());
}

#[test]
fn a_sidecar_listens_on_this_machine_alone() {
    let config = load_with(&["--mode", "sidecar"], &[]).unwrap();
    assert_eq!(config.listen, "127.0.0.1:8081".parse().unwrap());
    let variables = [("STOA_GATEWAY_MODE", "sidecar"), ("STOA_HOST", "0.0.0.0")];
    assert_eq!(load_with(&[], &variables).unwrap().listen, "0.0.0.0:8081".parse().unwrap());
}

#[test]
fn capture_methods_are_read_in_any_spelling() {
    for text in ["port-mirror", "PortMirror", "port_mirror", "PORTMIRROR"] {
        let config = shadow_with(&["--capture", text, "--interface", "lo"], &[]);
        assert_eq!(config.capture, Some(CaptureMethod::PortMirror));
    }
    for text in ["EnvoyTap", "envoy-tap", "KafkaReplay"] {
        let error = error_of(&[WATCH], &[("STOA_CAPTURE_METHOD", text)]);
        assert!(error.contains("does not have yet"), "{error}");
    }
    assert!(
        error_of(&[WATCH, "--capture=tap"], &[]).contains("valid ones: Ebpf, Inline, PortMirror")
    );
}

#[test]
fn targets_that_inline_cannot_serve_are_refused() {
    for (target, part) in [
        ("https://a", "inside TLS"),
        ("ftp://a", "not an http URL"),
        ("http://a/base", "has a path"),
        ("http://u:p@a", "credentials"),
        ("http://", "not a URL"),
    ] {
        let error = error_of(&["--target", target], &[]);
        assert!(error.contains(part), "{target}: {error}");
    }
    let config = shadow_with(&["--target", "http://[::1]:81/"], &[]);
    assert_eq!(config.target, Some(Target { host: "::1".to_owned(), port: 81 }));
}

#[test]
fn a_password_in_the_target_is_not_repeated() {
    assert!(!error_of(&["--target", "http://u:hunter2@a"], &[]).contains("hunter2"));
}

#[test]
fn what_is_missing_is_named() {
    assert!(error_of(&[], &[]).contains("nothing to watch"));
    assert!(error_of(&["--capture=inline", WATCH], &[]).contains("--target"));
    assert!(error_of(&["--capture=ebpf"], &[]).contains("--watch"));
    assert!(error_of(&["--capture=portmirror"], &[]).contains("--interface"));
    assert!(error_of(&["--interface=lo", "--pcap=f"], &[]).contains("exclude"));
}

#[test]
fn help_names_every_setting_and_its_variable() {
    let help = command().render_long_help().to_string();
    for setting in settings::all() {
        assert!(help.contains(&format!("--{}", setting.key)), "{}", setting.key);
        assert!(help.contains(setting.variables[0]), "{}", setting.key);
    }
}

#[test]
fn the_command_is_consistent() {
    command().debug_assert();
}

#[test]
fn proxy_mode_has_the_documented_defaults() {
    let config = load_with(&["--mode", "proxy", "--upstream", "http://backend:8080"], &[]).unwrap();
    assert_eq!(config.listen, "0.0.0.0:8082".parse().unwrap());
    let Mode::Proxy(proxy) = config.mode else { panic!("{:?}", config.mode) };
    assert_eq!(proxy.upstream.as_deref(), Some("http://backend:8080"));
    assert_eq!(proxy.admin, "0.0.0.0:9090".parse().unwrap());
    assert_eq!(proxy.connection_pool_size, 100);
    let switches = [
        proxy.transform_request,
        proxy.transform_response,
        proxy.inject_headers,
        proxy.websocket_passthrough,
    ];
    assert_eq!(switches, [false, false, true, false]);
}

#[test]
fn messages_of_websockets_are_limited_where_somebody_says_so() {
    let read = |variables: &[(&str, &str)]| {
        let config = load_with(&["--mode=proxy"], variables).unwrap();
        let Mode::Proxy(proxy) = config.mode else { panic!("{:?}", config.mode) };
        let limit = proxy.websocket_messages.map(|rate| (rate.limit / 1000, rate.depth));
        (proxy.websocket_passthrough, limit)
    };
    let enabled = ("STOA_WS_PROXY_ENABLED", "true");
    let a_second = ("STOA_WS_PROXY_RATE_LIMIT_PER_SECOND", "7.0");
    let passthrough = ("STOA_WEBSOCKET_PASSTHROUGH", "true");
    assert_eq!(read(&[]), (false, None));
    assert_eq!(read(&[passthrough]), (true, None));
    assert_eq!(read(&[enabled]), (true, Some((100, 50))));
    assert_eq!(read(&[enabled, ("STOA_WEBSOCKET_PASSTHROUGH", "false")]), (false, Some((100, 50))));
    assert_eq!(read(&[passthrough, a_second]), (true, Some((7, 50))));
    assert_eq!(read(&[enabled, ("STOA_WS_PROXY_RATE_LIMIT_BURST", "3")]), (true, Some((100, 3))));
    assert_eq!(read(&[enabled, ("STOA_WS_PROXY_RATE_LIMIT_PER_SECOND", "0")]), (true, None));
}

/// What variables make of the set `default`, as the engine's configuration.
fn default_set(mode: &str, variables: &[(&str, &str)]) -> stoa_policy::config::PolicySetConfig {
    let config = load_with(&["--mode", mode], variables).unwrap();
    config.policy.default_set().cloned().unwrap_or_default()
}

#[test]
fn nothing_is_enforced_that_nobody_asked_for() {
    assert_eq!(default_set("proxy", &[]), stoa_policy::config::PolicySetConfig::default());
    let sidecar = default_set("sidecar", &[]);
    assert!(sidecar.identity.is_some() && sidecar.tenant.is_some());
    assert!(sidecar.rate_limit.is_none() && sidecar.quota.is_none() && sidecar.rego.is_none());
}

#[test]
fn policies_have_the_documented_defaults() {
    let limit = |variables: &[(&str, &str)]| {
        let tenant = default_set("proxy", variables).rate_limit.unwrap().tenant.unwrap();
        (tenant.requests, tenant.window_seconds)
    };
    assert_eq!(limit(&[("STOA_RATE_LIMIT_WINDOW_SECONDS", "60")]), (1000, 60));
    assert_eq!(limit(&[("STOA_RATE_LIMIT_DEFAULT", "5")]), (5, 60));

    let enforced = [("STOA_QUOTA_ENFORCEMENT_ENABLED", "true")];
    for mode in ["proxy", "sidecar"] {
        let set = default_set(mode, &enforced);
        assert_eq!(set.quota.unwrap().plan.as_deref(), Some("standard"));
        assert_eq!(set.rate_limit.unwrap().plan.as_deref(), Some("standard"));
    }
    let standard = |variables: &[(&str, &str)], configured: &str| {
        let policy = load_with(&["--mode=proxy"], variables).unwrap().policy;
        let plans = policy.plans(&serde_json::from_str(configured).unwrap());
        let (_, plan) = plans.of(None);
        (plan.requests_per_minute, plan.requests_per_day)
    };
    assert_eq!(standard(&[], "{}"), (60, 10_000));
    assert_eq!(standard(&[], r#"{"Standard": {"requests_per_day": 7}}"#), (0, 7));
    let changed =
        [("STOA_QUOTA_DEFAULT_RATE_PER_MINUTE", "3"), ("STOA_QUOTA_DEFAULT_DAILY_LIMIT", "4")];
    assert_eq!(standard(&changed, r#"{"Standard": {"requests_per_day": 7}}"#), (3, 4));

    let breaker = default_set("proxy", &[("STOA_CB_FAILURE_THRESHOLD", "5")]).circuit_breaker;
    assert_eq!(breaker, Some(stoa_policy::circuit_breaker::CircuitBreakerConfig::default()));
    assert_eq!(default_set("sidecar", &[("STOA_CB_FAILURE_THRESHOLD", "5")]).circuit_breaker, None);
}

#[test]
fn certificates_are_bound_and_required_as_the_documents_say() {
    let identity = |variables: &[(&str, &str)]| {
        let variables = [&[("STOA_MTLS__ENABLED", "true")], variables].concat();
        let identity = default_set("proxy", &variables).identity.unwrap();
        let mtls = identity.methods.iter().find_map(|method| method.mtls.clone()).unwrap();
        (identity.required, mtls)
    };
    let (is_required, mtls) = identity(&[]);
    assert!(is_required && !mtls.require_binding, "there are no tokens");
    let routes = ("STOA_MTLS__REQUIRED_ROUTES", "/payments/*, /transfer");
    let (is_required, mtls) = identity(&[routes]);
    assert!(!is_required, "elsewhere none is needed");
    assert_eq!(mtls.required_paths, ["/payments/*", "/transfer"]);
    let secret = ("STOA_JWT_SECRET", "a secret of the tests, long enough");
    let (is_required, mtls) = identity(&[secret, routes]);
    assert!(is_required && mtls.require_binding);
    let (_, mtls) = identity(&[secret, ("STOA_MTLS__REQUIRE_BINDING", "false")]);
    assert!(!mtls.require_binding);
    let proxies =
        [("STOA_MTLS__TRUSTED_PROXIES", "10.0.0.0/8"), ("STOA_MTLS__HEADER_NOT_AFTER", "X-Until")];
    let headers = identity(&proxies).1.from_headers.unwrap();
    assert_eq!(headers.not_after, "X-Until");
    assert_eq!(headers.not_before, "X-SSL-Client-NotBefore");
}

#[test]
fn proofs_are_checked_as_the_documents_say() {
    let identity = |variables: &[(&str, &str)]| {
        let secret = [("STOA_JWT_SECRET", "a secret of the tests, long enough")];
        default_set("proxy", &[&secret, variables].concat()).identity.unwrap()
    };
    assert_eq!(identity(&[("STOA_DPOP__REQUIRED", "true")]).dpop, None);
    let dpop = |variables: &[(&str, &str)]| identity(variables).dpop.unwrap();
    let enabled = ("STOA_DPOP__ENABLED", "true");
    assert_eq!(dpop(&[enabled]), stoa_policy::identity::dpop::DpopConfig::default());
    let dpop = dpop(&[
        enabled,
        ("STOA_DPOP__REQUIRED", "true"),
        ("STOA_DPOP__MAX_AGE_SECS", "60"),
        ("STOA_DPOP__CLOCK_SKEW_SECS", "0"),
        ("STOA_DPOP__JTI_CACHE_TTL_SECS", "90"),
        ("STOA_DPOP__JTI_CACHE_MAX", "7"),
    ]);
    let seconds = [dpop.max_age, dpop.clock_skew, dpop.remember_for].map(|span| span.0.as_secs());
    assert_eq!((dpop.required, seconds, dpop.remember), (true, [60, 0, 90], 7));
    let constrained = identity(&[
        ("STOA_SENDER_CONSTRAINT__ENABLED", "true"),
        ("STOA_SENDER_CONSTRAINT__MTLS_REQUIRED", "true"),
    ]);
    assert!(constrained.dpop.is_some_and(|dpop| !dpop.required));
    let constraint = constrained.sender_constraint;
    assert_eq!((constraint.dpop_required, constraint.mtls_required), (false, true));
}

#[test]
fn rego_runs_where_there_is_a_policy_or_somebody_says_so() {
    use stoa_policy::rego::RegoEngine;
    let engine = |variables: &[(&str, &str)]| {
        default_set("proxy", variables).rego.map(|rego| (rego.engine.unwrap(), rego.files.len()))
    };
    let (path, opa) = (("STOA_POLICY_PATH", "a.rego,b.rego"), ("OPA_ENDPOINT", "http://opa:8181"));
    assert_eq!(engine(&[path]), Some((RegoEngine::Embedded, 2)));
    assert_eq!(engine(&[opa]), Some((RegoEngine::Opa, 0)));
    assert_eq!(engine(&[("OPA_ENABLED", "true")]), Some((RegoEngine::Embedded, 0)));
    assert_eq!(engine(&[opa, ("OPA_ENABLED", "false")]), None);
    assert_eq!(engine(&[path, ("STOA_POLICY_ENABLED", "false")]), None);
}

#[test]
fn the_command_lines_of_the_documents_are_read() {
    let proxy =
        ["--mode=proxy", "--upstream=http://backend:8080", "--opa-endpoint=http://opa:8181"];
    let opa = load_with(&proxy, &[]).unwrap().policy.enforcement.opa.unwrap();
    assert_eq!(opa.endpoint, "http://opa:8181");
    let sidecar = ["--mode=sidecar", "--primary-gateway=kong", "--metering-enabled=true"];
    let config = load_with(&sidecar, &[]).unwrap();
    let Mode::Sidecar(settings) = &config.mode else { panic!("{:?}", config.mode) };
    assert_eq!(settings.upstream_type, sidecar::UpstreamType::Kong);
    assert!(config.telemetry.lacks_kafka && config.without_effect.is_empty());
    let config = load_with(&sidecar, &[("STOA_KAFKA_ENABLED", "true")]).unwrap();
    assert!(config.telemetry.kafka.unwrap().has_metering && !config.telemetry.lacks_kafka);
}

#[test]
fn kafka_is_off_unless_it_is_chosen_and_metering_then_is_on() {
    let proxy = |variables: &[(&str, &str)]| load_with(&["--mode=proxy"], variables).unwrap();
    let quiet = proxy(&[]);
    assert!(quiet.telemetry.kafka.is_none() && !quiet.telemetry.lacks_kafka);
    let on = ("STOA_KAFKA_ENABLED", "true");
    let kafka = proxy(&[on]).telemetry.kafka.unwrap();
    assert!(kafka.has_metering && !kafka.shows_email && !kafka.kafka.security.is_tls);
    assert_eq!(kafka.kafka.brokers[0].to_string(), "redpanda:9092");
    assert_eq!((&*kafka.metering_topic, &*kafka.errors_topic), ("stoa.metering", "stoa.errors"));
    let kafka = proxy(&[
        on,
        ("METERING_ENABLED", "false"),
        ("STOA_KAFKA_BROKERS", "a:1, [::1]:2"),
        ("STOA_KAFKA_METERING_TOPIC", "usage"),
        ("STOA_KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
        ("STOA_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512"),
        ("STOA_KAFKA_SASL_USERNAME", "stoa"),
        ("STOA_KAFKA_SASL_PASSWORD", "hunter2"),
    ]);
    assert!(!format!("{kafka:?}").contains("hunter2"));
    let kafka = kafka.telemetry.kafka.unwrap();
    assert!(!kafka.has_metering && kafka.kafka.security.is_tls);
    let brokers: Vec<_> = kafka.kafka.brokers.iter().map(ToString::to_string).collect();
    assert_eq!(brokers, ["a:1", "[::1]:2"]);
    let shadow = [WATCH, "--metering-enabled"];
    let shadow = load_with(&shadow, &[("STOA_KAFKA_CNS_ENABLED", "true")]).unwrap();
    let said = ["STOA_KAFKA_CNS_ENABLED", "metering, where nothing is proxied, steered or decided"];
    assert_eq!(shadow.without_effect, said);
}

#[test]
fn what_kafka_lacks_is_said_with_its_remedy() {
    for (variables, told) in [
        (&[("STOA_KAFKA_BROKERS", "kafka")][..], "STOA_KAFKA_BROKERS: `kafka` is not a broker"),
        (&[("STOA_KAFKA_BROKERS", "http://kafka:9092")], "HOST:PORT"),
        (&[("STOA_KAFKA_BROKERS", "kafka:0")], "HOST:PORT"),
        (&[("STOA_KAFKA_METERING_TOPIC", "a b")], "STOA_KAFKA_METERING_TOPIC"),
        (&[("STOA_KAFKA_SECURITY_PROTOCOL", "TLS")], "PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        (&[("STOA_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")], "STOA_KAFKA_SASL_USERNAME"),
        (&[("STOA_KAFKA_SASL_USERNAME", "stoa")], "STOA_KAFKA_SECURITY_PROTOCOL"),
        (&[("STOA_KAFKA_SASL_MECHANISM", "GSSAPI")], "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
    ] {
        let variables = [variables, &[("STOA_KAFKA_ENABLED", "true")]].concat();
        let error = error_of(&["--mode=proxy"], &variables);
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_password_is_not_shown() {
    let variables = [("STOA_REDIS_URL", "redis://:hunter2@redis:6379")];
    let config = load_with(&["--mode=proxy"], &variables).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn patterns_of_snapshots_are_read_and_refused_by_name() {
    let read = |given: &str| {
        let variables =
            [("STOA_SNAPSHOT_ENABLED", "true"), ("STOA_SNAPSHOT_EXTRA_PII_PATTERNS", given)];
        let snapshots = load_with(&["--mode=proxy"], &variables).unwrap().telemetry.snapshots;
        snapshots.unwrap().patterns.iter().map(|p| p.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(read("ACME-[0-9]+, X[0-9]"), ["ACME-[0-9]+", "X[0-9]"]);
    assert_eq!(read(r#"["A{2,4}", "b"]"#), ["A{2,4}", "b"]);
    assert_eq!(read("[]"), Vec::<String>::new());
    for (wrong, told) in [("A(", "`A(`"), ("a*", "matches nothing"), ("A{2,4}", "JSON list")] {
        let error = error_of(&["--mode=proxy"], &[("STOA_SNAPSHOT_EXTRA_PII_PATTERNS", wrong)]);
        assert!(error.starts_with("STOA_SNAPSHOT_EXTRA_PII_PATTERNS: "), "{error}");
        assert!(error.contains(told), "{error}");
    }
    let defaults = load_with(&["--mode=sidecar", "--snapshot-enabled"], &[]).unwrap();
    let snapshots = defaults.telemetry.snapshots.unwrap();
    assert_eq!((snapshots.most, snapshots.age.as_secs(), snapshots.body_bytes), (100, 3600, 4096));
    assert!(load_with(&["--mode=proxy"], &[]).unwrap().telemetry.snapshots.is_none());
}

#[test]
fn traces_need_an_endpoint_and_say_what_is_wrong_with_it() {
    let read = |flags: &[&str]| {
        let flags = [&["--mode=proxy"], flags].concat();
        load_with(&flags, &[]).unwrap()
    };
    let traces = read(&["--otel-endpoint=collector:4317"]).telemetry.traces.unwrap();
    assert_eq!(traces.endpoint.to_string(), "http://collector:4317/");
    assert_eq!((traces.sample_rate, traces.is_detailed, traces.is_of_proxy), (1.0, false, true));
    let off = ["--otel-endpoint=https://collector", "--otel-enabled=false"];
    assert!(read(&off).telemetry.traces.is_none());
    let asked_for = read(&["--otel-enabled"]);
    assert!(asked_for.telemetry.traces.is_none());
    assert!(asked_for.telemetry.lacks_endpoint && !read(&[]).telemetry.lacks_endpoint);
    for (variable, wrong, told) in [
        ("STOA_OTEL_ENDPOINT", "http://collector:4318/v1/traces", "4317"),
        ("STOA_OTEL_ENDPOINT", "ftp://collector", "not a collector's URL"),
        ("STOA_OTEL_SAMPLE_RATE", "1.5", "from 0 to 1"),
        ("STOA_OTEL_SAMPLE_RATE", "NaN", "from 0 to 1"),
    ] {
        let error = error_of(&["--mode=proxy"], &[(variable, wrong)]);
        assert!(error.starts_with(variable) && error.contains(told), "{error}");
    }
}

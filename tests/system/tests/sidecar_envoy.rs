//! Envoy asks the sidecar: `ext_authz` by gRPC and by HTTP.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use anyhow::{Result, ensure};
use sandbox::Process;
use serde_json::{Value, json};
use system_tests::{
    decisions::{
        Sidecar, Upstream, assert_enforced, from_pypi, policies, seen_of, send, token, wait_until,
    },
    stage,
};

/// A running Envoy, and where it listens.
struct Envoy {
    process: Process,
    address: SocketAddr,
}

impl Envoy {
    fn start(dir: &Path, filter: &Value, sidecar: &Sidecar, upstream: &Upstream) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?));
        let config = configuration(dir, address, filter, sidecar.address(), upstream.address);
        let file = dir.join("envoy.json");
        fs::write(&file, serde_json::to_string_pretty(&config)?)?;
        let mut command = Command::new(from_pypi("envoy")?);
        command.arg("-c").arg(file).args(["--concurrency", "1", "--disable-hot-restart"]);
        let mut process = Process::start("envoy", command, &dir.join("logs"))?;
        wait_until(&mut process, || std::net::TcpStream::connect(address).is_ok())?;
        Ok(Self { process, address })
    }
}

fn cluster(name: &str, address: SocketAddr, is_http2: bool) -> Value {
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": socket(address)}}]}]},
    });
    if is_http2 {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}});
    }
    cluster
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn configuration(
    dir: &Path,
    listen: SocketAddr,
    filter: &Value,
    sidecar: SocketAddr,
    upstream: SocketAddr,
) -> Value {
    let admin_set = json!({"envoy.filters.http.ext_authz": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        "check_settings": {"context_extensions": {"policy_set": "admin", "route": "admin"}}}});
    let log = json!({"name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": dir.join("access.log"),
        "log_format": {"text_format_source": {"inline_string":
            "%REQ(:PATH)% %RESPONSE_CODE% \
             %DYNAMIC_METADATA(envoy.filters.http.ext_authz:identity:subject)% \
             %DYNAMIC_METADATA(envoy.filters.http.ext_authz:tenant)% \
             %DYNAMIC_METADATA(envoy.filters.http.ext_authz:denied_by_policy)% \
             %DYNAMIC_METADATA(envoy.filters.http.ext_authz:policies_evaluated)%\n"}}}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "use_remote_address": true, "access_log": [log],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/admin"}, "route": {"cluster": "upstream"},
             "typed_per_filter_config": admin_set},
            {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]}]},
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": filter},
            {"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    json!({"static_resources": {
    "listeners": [{"name": "in", "address": socket(listen), "filter_chains": [{"filters": [
        {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
    "clusters": [
        cluster("upstream", upstream, false),
        cluster("authz-grpc", sidecar, true),
        cluster("authz-http", sidecar, false),
    ]}})
}

const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";

#[test]
fn envoy_asks_by_grpc() -> Result<()> {
    let dir = stage::directory("sidecar-envoy-grpc")?;
    let sidecar = Sidecar::start(&dir, &policies(), &[])?;
    let upstream = Upstream::start()?;
    let filter = json!({"@type": FILTER, "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz-grpc"}, "timeout": "5s"}});
    let mut envoy = Envoy::start(&dir, &filter, &sidecar, &upstream)?;
    assert_enforced(envoy.address, &upstream)?;

    // The route's context chooses among policy sets.
    let reader = token(&json!({"sub": "ann", "tenant": "acme", "scope": "stoa:read"}))?;
    let admin = token(&json!({"sub": "joe", "tenant": "acme", "scope": "stoa:admin"}))?;
    let (reader, admin) = (format!("Bearer {reader}"), format!("Bearer {admin}"));
    let reply = send(envoy.address, "GET", "/admin", &[("Authorization", &reader)])?;
    ensure!(reply.status == 403, "a reader got {} of /admin", reply.status);
    ensure!(reply.text().contains("\"policy\":\"scope_enforcement\""), "{}", reply.text());
    seen_of(&send(envoy.address, "GET", "/admin", &[("Authorization", &admin)])?)?;

    // The access log knows from dynamic metadata who asked, and what denied.
    let log = dir.join("access.log");
    let read = || fs::read_to_string(&log).unwrap_or_default();
    wait_until(&mut envoy.process, || read().contains("/admin 200"))?;
    let log = read();
    ensure!(log.contains("/admin 200 joe acme - [\"identity\",\"tenant\""), "{log}");
    ensure!(log.contains("/admin 403 ann acme scope_enforcement"), "{log}");
    ensure!(log.contains("/orders 401 - - identity"), "{log}");

    let denied = r#"stoa_decisions_total{format="envoy_grpc",outcome="denied",policy="scopes"}"#;
    ensure!(sidecar.metric(denied)? == 2.0, "two were denied for their scopes");
    sidecar.stop()
}

#[test]
fn envoy_asks_by_http() -> Result<()> {
    let dir = stage::directory("sidecar-envoy-http")?;
    let mut sidecar = Sidecar::start(&dir, &policies(), &[])?;
    let upstream = Upstream::start()?;
    let patterns = |names: &[&str]| json!({"patterns": names.iter().map(|name| json!({"exact": name})).collect::<Vec<_>>()});
    let service = json!({
        "server_uri": {"uri": "http://sidecar", "cluster": "authz-http", "timeout": "5s"},
        "path_prefix": "/authz/envoy",
        "authorization_response": {
            "allowed_upstream_headers":
                patterns(&["x-user-id", "x-tenant-id", "x-user-scopes", "x-user-roles"]),
            "allowed_client_headers": patterns(&["www-authenticate", "content-type"]),
        },
    });
    let allowed = patterns(&["authorization", "x-request-id", "x-forwarded-proto"]);
    let filter = json!({"@type": FILTER, "transport_api_version": "V3", "http_service": service,
        "allowed_headers": allowed});
    let envoy = Envoy::start(&dir, &filter, &sidecar, &upstream)?;
    assert_enforced(envoy.address, &upstream)?;

    // Paths that are doors of our own are still the client's.
    for path in ["/health", "/metrics", "/authz/nginx", "/../../health", "//health"] {
        let reply = send(envoy.address, "GET", path, &[])?;
        ensure!(reply.status == 401, "GET {path} without a token got {}", reply.status);
    }
    // Without an answer, Envoy denies.
    sidecar.process().signal("KILL")?;
    sidecar.process().wait(std::time::Duration::from_secs(5))?;
    let reader = token(&json!({"sub": "ann", "tenant": "acme", "scope": "stoa:read"}))?;
    let bearer = format!("Bearer {reader}");
    let reply = send(envoy.address, "GET", "/orders", &[("Authorization", &bearer)])?;
    ensure!(reply.status == 403, "without a sidecar it got {}", reply.status);
    Ok(())
}

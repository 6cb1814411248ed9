//! nginx `auth_request` and Caddy `forward_auth` ask the sidecar.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use anyhow::{Result, ensure};
use sandbox::Process;
use serde_json::json;
use system_tests::{
    decisions::{
        Sidecar, Upstream, assert_enforced, from_pypi, policies, seen_of, send, token, wait_until,
    },
    stage,
};

fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?)))
}

fn start_nginx(
    dir: &Path,
    sidecar: &Sidecar,
    upstream: &Upstream,
) -> Result<(Process, SocketAddr)> {
    let listen = free_address()?;
    let config = dir.join("nginx.conf");
    let (dir_name, sidecar, upstream) = (dir.display(), sidecar.address(), upstream.address);
    // A location that asks: the one of the documentation, with another set for /admin.
    let ask = |name: &str, place: &str| {
        format!(
            r#"
        location = /_authz{name} {{
            internal;
            proxy_pass http://{sidecar}/authz/nginx{place};
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Original-URI $request_uri;
            proxy_set_header X-Original-Host $http_host;
            proxy_set_header X-Original-Proto $scheme;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}"#
        )
    };
    let pass = |name: &str| {
        format!(
            r#"
            auth_request /_authz{name};
            auth_request_set $user $upstream_http_x_user_id;
            auth_request_set $tenant $upstream_http_x_tenant_id;
            auth_request_set $scopes $upstream_http_x_user_scopes;
            auth_request_set $roles $upstream_http_x_user_roles;
            auth_request_set $decided $upstream_http_x_stoa_decision_status;
            proxy_set_header X-User-ID $user;
            proxy_set_header X-Tenant-ID $tenant;
            proxy_set_header X-User-Scopes $scopes;
            proxy_set_header X-User-Roles $roles;
            proxy_pass http://{upstream};"#
        )
    };
    fs::write(
        &config,
        format!(
            r#"
daemon off;
worker_processes 1;
pid {dir_name}/nginx.pid;
user root;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {dir_name}/body;
    proxy_temp_path {dir_name}/proxy;
    fastcgi_temp_path {dir_name}/fastcgi;
    uwsgi_temp_path {dir_name}/uwsgi;
    scgi_temp_path {dir_name}/scgi;
    server {{
        listen {listen};
        error_page 403 = @denied;{default}{admin}
        location / {{{pass}
        }}
        location /admin {{{pass_admin}
        }}
        location @denied {{
            if ($decided = 429) {{ return 429; }}
            return 403;
        }}
    }}
}}
"#,
            default = ask("", ""),
            admin = ask("_admin", "/policy_set=admin"),
            pass = pass(""),
            pass_admin = pass("_admin"),
        ),
    )?;
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(&config);
    let mut process = Process::start("nginx", command, &dir.join("logs"))?;
    wait_until(&mut process, || std::net::TcpStream::connect(listen).is_ok())?;
    Ok((process, listen))
}

#[test]
fn nginx_asks_by_auth_request() -> Result<()> {
    let dir = stage::directory("sidecar-nginx")?;
    let sidecar = Sidecar::start(&dir, &policies(), &[])?;
    let upstream = Upstream::start()?;
    let (_nginx, address) = start_nginx(&dir, &sidecar, &upstream)?;
    assert_enforced(address, &upstream)?;

    let reader = token(&json!({"sub": "ann", "tenant": "acme", "scope": "stoa:read"}))?;
    let bearer = format!("Bearer {reader}");
    let reply = send(address, "GET", "/admin", &[("Authorization", &bearer)])?;
    ensure!(reply.status == 403, "a reader got {} of /admin", reply.status);
    // The client's own query is no part of the question's.
    let target = "/admin?policy_set=default";
    let reply = send(address, "GET", target, &[("Authorization", &bearer)])?;
    ensure!(reply.status == 403, "a reader got {} of {target}", reply.status);
    sidecar.stop()
}

#[test]
fn caddy_asks_by_forward_auth() -> Result<()> {
    let dir = stage::directory("sidecar-caddy")?;
    let sidecar = Sidecar::start(&dir, &policies(), &[])?;
    let upstream = Upstream::start()?;
    let listen = free_address()?;
    let file = dir.join("Caddyfile");
    let copied = "X-User-ID X-Tenant-ID X-User-Scopes X-User-Roles";
    fs::write(
        &file,
        format!(
            "{{\n\tadmin off\n\tpersist_config off\n\tauto_https off\n}}\nhttp://:{port} {{\n\
             \tbind 127.0.0.1\n\thandle /admin* {{\n\t\tforward_auth {sidecar} {{\n\t\t\turi \
             /authz/forward/policy_set=admin\n\t\t\tcopy_headers {copied}\n\t\t}}\n\t\t\
             reverse_proxy {upstream}\n\t}}\n\thandle {{\n\t\tforward_auth {sidecar} {{\n\t\t\turi \
             /authz/forward\n\t\t\tcopy_headers {copied}\n\t\t}}\n\t\treverse_proxy {upstream}\n\t}}\n\
             }}\n",
            port = listen.port(),
            sidecar = sidecar.address(),
            upstream = upstream.address,
        ),
    )?;
    let mut command = Command::new(from_pypi("caddy")?);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    command.env("HOME", &dir).env("XDG_DATA_HOME", &dir).env("XDG_CONFIG_HOME", &dir);
    let mut caddy = Process::start("caddy", command, &dir.join("logs"))?;
    wait_until(&mut caddy, || std::net::TcpStream::connect(listen).is_ok())?;
    assert_enforced(listen, &upstream)?;

    let reader = token(&json!({"sub": "ann", "tenant": "acme", "scope": "stoa:read"}))?;
    let admin = token(&json!({"sub": "joe", "tenant": "acme", "scope": "stoa:admin"}))?;
    let (reader, admin) = (format!("Bearer {reader}"), format!("Bearer {admin}"));
    let reply = send(listen, "GET", "/admin", &[("Authorization", &reader)])?;
    ensure!(reply.status == 403, "a reader got {} of /admin", reply.status);
    ensure!(reply.text().contains("Insufficient scopes"), "{}", reply.text());
    seen_of(&send(listen, "GET", "/admin", &[("Authorization", &admin)])?)?;
    sidecar.stop()
}

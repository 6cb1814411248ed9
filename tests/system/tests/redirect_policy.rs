//! HTTP of steered workloads goes through the policies, request by request.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sandbox::{Process, agent, http, http::Connection, pause};
use serde_json::{Value, json};
use system_tests::{
    markers::sha256,
    servers::{PORT, Server, python},
    stage,
    steering::{
        Control, KEY, Load, add_with, count, members, options_with, read_to_end, serve_seen,
        socket, start_with, stoactl, stop_agent,
    },
};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers");
const WITH_KEY: (&str, &str) = ("X-API-Key", KEY);

fn seen(reply: &http::Reply) -> Result<Value> {
    ensure!(reply.status == 200, "answered {}: {}", reply.status, reply.text());
    serde_json::from_slice(&reply.body).context("not what the server says")
}

/// Whether the server received this header field.
fn has(seen: &Value, name: &str) -> bool {
    let headers = seen["headers"].as_array().into_iter().flatten();
    headers.into_iter().any(|header| header[0] == name)
}

#[test]
fn each_request_is_decided() -> Result<()> {
    let dir = stage::directory("redirect-policy-each")?;
    let mut sandbox = stage::sandbox(&dir)?;
    serve_seen(&mut sandbox)?;
    let _agent = start_with(&dir, &members(""))?;
    add_with(&dir, "api", &sandbox, &["--policies", "members"])?;
    for v6 in [false, true] {
        let server = sandbox.socket(PORT, v6);
        let mut stream = TcpStream::connect(server)?;
        let client = stream.local_addr()?;
        let mut ask = |head: &str| -> Result<http::Reply> {
            stream.write_all(head.as_bytes())?;
            let mut kept = Connection::over(stream.try_clone()?);
            Ok(kept.receive(false)?)
        };
        // On one connection, whatever was said before on it.
        let denied = ask("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")?;
        ensure!(denied.status == 401, "{}", denied.text());
        let problem: Value = serde_json::from_slice(&denied.body)?;
        ensure!(problem["policy"] == "identity", "{problem}");
        let request = format!(
            "GET /b?x=1 HTTP/1.1\r\nHost: shop.example\r\nX-API-Key: {KEY}\r\n\
             X-Forwarded-For: 192.0.2.7\r\nX-Own: 1\r\n\r\n"
        );
        let answered = seen(&ask(&request)?)?;
        ensure!(
            answered["client"] == json!([client.ip().to_string(), client.port()]),
            "{answered}, and it was {client}"
        );
        ensure!(answered["target"] == "/b?x=1" && answered["version"] == "HTTP/1.1");
        let headers = answered["headers"].as_array().context("no headers")?;
        for kept in [["host", "shop.example"], ["x-forwarded-for", "192.0.2.7"], ["x-own", "1"]] {
            ensure!(headers.contains(&json!(kept)), "{kept:?} is not in {answered}");
        }
        for foreign in ["via", "x-forwarded-proto", "forwarded", "x-api-key", "x-tenant-id"] {
            ensure!(!has(&answered, foreign), "{foreign} is in {answered}");
        }
        ensure!(ask("GET /c HTTP/1.1\r\nHost: a\r\n\r\n")?.status == 401);
    }
    let server = sandbox.socket(PORT, false);
    let many: Vec<(u64, &str)> = vec![(2, "passed"), (4, "denied"), (6, "requests")];
    for (value, what) in many {
        let counted = count(&dir, "api", &format!("/requests/{what}"))?;
        ensure!(counted == value, "{what}: {counted}, not {value}");
    }
    ensure!(count(&dir, "api", "/connections/http1")? == 2);
    let listed = stoactl(&dir, &["list"])?;
    ensure!(listed.contains("DENIED") && listed.contains("members"), "{listed}");

    // A connection that the application ends with its answer is made anew for the next request.
    let mut kept = Connection::open(server)?;
    let mut ports = Vec::new();
    for _ in 0..3 {
        let answered = seen(&kept.exchange("GET", "/close", &[WITH_KEY], b"")?)?;
        ports.push(answered["client"][1].clone());
    }
    ensure!(ports.iter().all(|port| *port == ports[0]), "the client's port changed: {ports:?}");
    Ok(())
}

#[test]
fn what_http_can_do_still_works() -> Result<()> {
    let dir = stage::directory("redirect-policy-http")?;
    let mut sandbox = stage::sandbox(&dir)?;
    serve_seen(&mut sandbox)?;
    let _agent = start_with(&dir, &members(""))?;
    add_with(&dir, "api", &sandbox, &["--policies", "members"])?;
    let server = sandbox.socket(PORT, false);

    // Large bodies, of known and of unknown length.
    let body = vec![b'z'; 8 << 20];
    for framing in [http::Framing::ContentLength, http::Framing::Chunked] {
        let mut connection = Connection::open(server)?;
        connection.write(&http::request("POST", "/large", &[WITH_KEY], &body, framing))?;
        let answered = seen(&connection.receive(false)?)?;
        ensure!(answered["size"] == body.len() && answered["sha256"] == sha256(&body));
    }

    // The application is asked whether it wants the body; a client that is denied keeps it.
    let head = |key: &str| {
        format!(
            "PUT /x HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(sandbox::patience(Duration::from_secs(10))))?;
    stream.write_all(head(&format!("X-API-Key: {KEY}\r\n")).as_bytes())?;
    let interim = read_until(&mut stream, b"\r\n\r\n")?;
    ensure!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    stream.write_all(b"12345")?;
    let answered = seen(&Connection::over(stream).receive(false)?)?;
    ensure!(answered["size"] == 5, "{answered}");
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(sandbox::patience(Duration::from_secs(10))))?;
    stream.write_all(head("").as_bytes())?;
    ensure!(read_until(&mut stream, b"\r\n")?.starts_with("HTTP/1.1 401"));

    // HTTP/1.0, with and without keep-alive.
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(sandbox::patience(Duration::from_secs(10))))?;
    write!(stream, "GET /old HTTP/1.0\r\nX-API-Key: {KEY}\r\n\r\n")?;
    let answered = String::from_utf8(read_to_end(&stream)?)?;
    ensure!(answered.contains("200 OK") && answered.contains("/old"), "{answered}");

    // Two requests at once.
    let mut stream = TcpStream::connect(server)?;
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n\r\n");
    stream.write_all(format!("{}{}", one("/1"), one("/2")).as_bytes())?;
    let mut both = Connection::over(stream);
    for path in ["/1", "/2"] {
        ensure!(seen(&both.receive(false)?)?["target"] == path);
    }

    // Other protocols behind HTTP, for who is let in. None that is HTTP again.
    for (protocol, key, status) in [
        ("websocket", KEY, "101"),
        ("mirror", KEY, "101"),
        ("websocket", "wrong", "401"),
        ("h2c", KEY, "200"),
    ] {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(sandbox::patience(Duration::from_secs(10))))?;
        write!(
            stream,
            "GET /up HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nConnection: Upgrade\r\n\
             Upgrade: {protocol}\r\n\r\n"
        )?;
        let head = read_until(&mut stream, b"\r\n\r\n")?;
        ensure!(head.starts_with(&format!("HTTP/1.1 {status}")), "{protocol}: {head}");
        if status == "101" {
            stream.write_all(b"\x01\x02anything")?;
            let mut back = [0; 10];
            stream.read_exact(&mut back)?;
            ensure!(&back == b"\x01\x02anything");
        }
    }
    Ok(())
}

/// Reads up to and with `end`.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        bytes.extend(byte);
    }
    Ok(String::from_utf8(bytes)?)
}

#[test]
fn http2_with_prior_knowledge_goes_through_too() -> Result<()> {
    let dir = stage::directory("redirect-policy-http2")?;
    let mut sandbox = stage::sandbox(&dir)?;
    let script = Path::new(SCRIPTS).join("h2.js");
    let mut server = sandbox.command("node");
    server.arg(&script).args(["serve", &PORT.to_string()]);
    sandbox.serve("h2", server, PORT)?;
    let _agent = start_with(&dir, &members(""))?;
    add_with(&dir, "api", &sandbox, &["--policies", "members"])?;
    for v6 in [false, true] {
        let mut client = Command::new("node");
        client.arg(&script).args(["ask", &sandbox.address(v6).to_string(), &PORT.to_string(), KEY]);
        let said = sandbox::command::run(&mut client)?;
        let answers: Vec<Value> =
            said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        ensure!(answers.len() == 5, "{said}");
        for answer in &answers {
            if answer["n"] == 3 {
                ensure!(answer["status"] == 401, "{answer}");
                continue;
            }
            ensure!(answer["status"] == 200 && answer["trailer"] == "0", "{answer}");
            let seen: Value = serde_json::from_str(answer["text"].as_str().unwrap_or_default())?;
            ensure!(seen["client"] == answer["client"], "{answer}");
            ensure!(seen["sha256"] == sha256(&vec![b'x'; 300_000]), "{answer}");
        }
    }
    ensure!(count(&dir, "api", "/connections/http2")? == 2);
    ensure!(count(&dir, "api", "/requests/denied")? == 2);
    ensure!(count(&dir, "api", "/requests/passed")? == 8);
    Ok(())
}

#[test]
fn a_workload_names_its_policies_and_the_file_may_change_them() -> Result<()> {
    let dir = stage::directory("redirect-policy-sets")?;
    let mut sandbox = stage::sandbox(&dir)?;
    serve_seen(&mut sandbox)?;
    let file = dir.join("config.yaml");
    let agent = start_with(&dir, "policies: {}\n")?;
    let get = || http::get(sandbox.socket(PORT, false), "/x").map(|reply| reply.status);
    let until = |status: u16| -> Result<()> {
        let deadline = Instant::now() + sandbox::patience(Duration::from_secs(20));
        while get()? != status {
            ensure!(Instant::now() < deadline, "never {status}");
            pause(Duration::from_millis(50));
        }
        Ok(())
    };
    // None named, and no default: passes untouched.
    add_with(&dir, "api", &sandbox, &[])?;
    ensure!(get()? == 200);
    ensure!(count(&dir, "api", "/requests/requests")? == 0, "it went through policies");
    // A default.
    std::fs::write(&file, "policies: {default: {rate_limit: {source: {requests_per_minute: 2}}}}")?;
    until(429)?;
    ensure!(count(&dir, "api", "/requests/passed")? >= 2);
    // One that the file does not have: nothing passes, until it has.
    add_with(&dir, "api", &sandbox, &["--policies", "open"])?;
    ensure!(get()? == 503);
    ensure!(count(&dir, "api", "/requests/denied")? == 1);
    std::fs::write(&file, "policies: {open: {}}")?;
    until(200)?;
    // What cannot be read leaves in force what was.
    std::fs::write(&file, "policies: {open: {no such policy: 1}}")?;
    let deadline = Instant::now() + sandbox::patience(Duration::from_secs(20));
    while !agent.stderr().contains("configuration not reloaded") {
        ensure!(Instant::now() < deadline, "{}", agent.stderr());
        pause(Duration::from_millis(50));
    }
    ensure!(get()? == 200);
    Ok(())
}

#[test]
fn probes_of_the_node_pass_and_nothing_else_does() -> Result<()> {
    let dir = stage::directory("redirect-policy-probes")?;
    let mut sandbox = stage::sandbox(&dir)?;
    serve_seen(&mut sandbox)?;
    let _agent = start_with(&dir, &members(""))?;
    let node = [sandbox.host(false).to_string(), sandbox.host(true).to_string()];
    let probe = |address: &str| {
        add_with(
            &dir,
            "api",
            &sandbox,
            &["--policies", "members", "--probe", "8080/healthz?full=1", "--node-address", address],
        )
    };
    let ask = |v6: bool, method: &str, target: &str| -> Result<http::Reply> {
        let mut connection = Connection::open(sandbox.socket(PORT, v6))?;
        Ok(connection.exchange(method, target, &[("User-Agent", "kube-probe/1.37")], b"")?)
    };
    for (v6, address) in [false, true].into_iter().zip(&node) {
        probe(address)?;
        let answered = seen(&ask(v6, "GET", "/healthz?full=1")?)?;
        ensure!(answered["client"][0] == address.as_str(), "{answered}");
        let names: Vec<_> = answered["headers"].as_array().context("none")?.iter().collect();
        ensure!(names.len() == 2, "more than what was sent: {answered}");
        // Another method, another path, another query: no probe.
        for (method, target) in [
            ("POST", "/healthz?full=1"),
            ("GET", "/healthz"),
            ("GET", "/healthz?full=1&x"),
            ("GET", "/healthz/../orders"),
            ("GET", "/orders"),
        ] {
            let status = ask(v6, method, target)?.status;
            ensure!(status == 401, "{method} {target}: {status}");
        }
        // The other family's address is not named, so it is somebody else's.
        ensure!(ask(!v6, "GET", "/healthz?full=1")?.status == 401);
        ensure!(count(&dir, "api", "/requests/exempt")? == 1);
    }
    // Another port.
    add_with(
        &dir,
        "api",
        &sandbox,
        &["--policies", "members", "--probe", "8081/healthz", "--node-address", &node[0]],
    )?;
    ensure!(ask(false, "GET", "/healthz")?.status == 401);
    let refused = stoactl(&dir, &["add", "b", "--cgroup", "/", "--ports", "1", "--probe", "1/x"]);
    let said = format!("{:#}", refused.err().context("probes of nobody were accepted")?);
    ensure!(said.contains("--node-address"), "{said}");
    Ok(())
}

/// What an agent of shadow mode says of a service.
fn service_of(agent: &sandbox::Agent, name: &str) -> Result<Value> {
    let status = agent.json("/shadow/status")?;
    let services = status["services"].as_array().context("no services")?;
    Ok(services.iter().find(|s| s["service"] == name).context("not watched")?.clone())
}

#[test]
fn what_is_steered_is_observed_once_and_denied_as_denied() -> Result<()> {
    for watch in ["cgroup", "pid", "together"] {
        let dir = stage::directory(&format!("redirect-policy-capture-{watch}"))?;
        let mut sandbox = stage::sandbox(&dir)?;
        let pid = serve_seen(&mut sandbox)?;
        let recording = dir.join("recording.pcapng");
        let mut options = options_with(&dir, "agent", &members(""))?;
        options.capture = "Ebpf".to_owned();
        options = options.flag("--record", &recording);
        options.watch.push(match watch {
            "pid" => format!("shop=pid:{pid}"),
            _ => format!("shop=cgroup:{}", sandbox.cgroup().display()),
        });
        let mut agent = sandbox::Agent::start(&options)?;
        if watch == "together" {
            // The agent's own sockets are in what is watched.
            let pid = agent.process().pid().to_string();
            std::fs::write(sandbox.cgroup().join("cgroup.procs"), pid)?;
        }
        let mut before = Connection::open(sandbox.socket(PORT, false))?;
        before.exchange("GET", "/before/0", &[], b"")?;
        add_with(&dir, "shop-1", &sandbox, &["--policies", "members"])?;
        // A connection that is not steered is observed as ever.
        ensure!(before.exchange("GET", "/before/1", &[], b"")?.status == 200);
        let (mut passed, mut denied) = (0, 0);
        for v6 in [false, true] {
            let mut kept = Connection::open(sandbox.socket(PORT, v6))?;
            for n in 0..20 {
                let (path, key) = if n % 4 == 0 { ("denied", "wrong") } else { ("passed", KEY) };
                let path = format!("/{path}/{n}?v6={v6}");
                let status = kept.exchange("POST", &path, &[("X-API-Key", key)], b"{}")?.status;
                match status {
                    200 => passed += 1,
                    401 => denied += 1,
                    other => anyhow::bail!("{other}"),
                }
            }
        }
        ensure!((passed, denied) == (30, 10));
        let deadline = Instant::now() + sandbox::patience(Duration::from_secs(10));
        let told = loop {
            let told = service_of(&agent, "shop")?;
            if told["exchanges"].as_u64() >= Some(passed + 2) {
                break told;
            }
            ensure!(Instant::now() < deadline, "{watch}: {told}");
            pause(Duration::from_millis(100));
        };
        let by = json!([{ "policy": "identity", "status": 401, "requests": denied }]);
        ensure!(told["denied"] == json!({ "requests": denied, "by": by }), "{watch}: {told}");
        let metrics = agent.metrics()?;
        let name = "stoa_shadow_requests_denied_total";
        ensure!(agent::sum(&metrics, name, "service", "shop") == denied);
        let summary = agent.stop()?;
        let observed = system_tests::observed::exchanges(&recording)?;
        let targets: Vec<_> = observed.iter().filter_map(|e| e.target.clone()).collect();
        let mut once = targets.clone();
        once.sort();
        once.dedup();
        ensure!(once.len() == targets.len(), "{watch}: observed twice: {targets:?}");
        ensure!(targets.len() as u64 == passed + 2, "{watch}: {targets:?}");
        ensure!(targets.iter().all(|target| !target.contains("denied")), "{watch}: {targets:?}");
        ensure!(observed.iter().all(|e| e.is_complete && e.status == Some(200)), "{watch}");
        let contract = std::fs::read_to_string(&summary.contract)?;
        ensure!(contract.contains("/passed/") && !contract.contains("/denied"), "{contract}");
    }
    Ok(())
}

#[test]
fn an_upgrade_and_a_stop_fail_no_request_under_policies() -> Result<()> {
    let dir = stage::directory("redirect-policy-drain")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    let mut slow = stage::sandbox(&dir)?;
    serve_seen(&mut slow)?;
    let open = "policies: {open: {rate_limit: {route: {requests_per_second: 1000000}}}}\n";
    let mut first = start_with(&dir, open)?;
    for (name, place) in [("api", &sandbox), ("slow", &slow)] {
        add_with(&dir, name, place, &["--policies", "open", "--fail-mode", "closed"])?;
    }
    let load = Load::start(sandbox.socket(PORT, false), "/m/1");
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c8", "-d6s"]).arg(format!("http://{}/m/2", sandbox.socket(PORT, false)));
    let mut wrk = Process::start("wrk", wrk, &dir)?;
    load.wait_for(200)?;
    ensure!(count(&dir, "api", "/requests/passed")? > 0, "it does not go through the policies");
    let second = sandbox::Agent::start(&options_with(&dir, "second", open)?)?;
    load.wait_for(200)?;
    ensure!(count(&dir, "api", "/requests/passed")? > 0, "the second agent has no traffic");
    // The first ends when its connections have: the next answer on each is its last.
    ensure!(first.process().wait(Duration::from_secs(20))?.success(), "the first agent failed");
    ensure!(wrk.wait(Duration::from_secs(30))?.success());
    let said = wrk.stdout();
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "wrk: {said}");
    load.finish()?;

    // Told to stop in the middle of a request.
    let server = slow.socket(PORT, false);
    let asking = std::thread::spawn(move || http::get(server, "/slow?ms=1500"));
    let deadline = Instant::now() + sandbox::patience(Duration::from_secs(5));
    while count(&dir, "slow", "/connections/http1")? == 0 {
        ensure!(Instant::now() < deadline);
        pause(Duration::from_millis(10));
    }
    stop_agent(second)?;
    let reply = asking.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(reply.status == 200, "{}", reply.text());
    // Nothing is attached any more, closed or not: the operator has ended it.
    ensure!(http::get(server, "/x")?.status == 200);
    Ok(())
}

#[test]
fn what_is_done_is_counted_where_it_is_looked_for() -> Result<()> {
    let dir = stage::directory("redirect-policy-metrics")?;
    let mut sandbox = stage::sandbox(&dir)?;
    serve_seen(&mut sandbox)?;
    let agent = start_with(&dir, &members(""))?;
    add_with(&dir, "shop/api-1", &sandbox, &["--policies", "members"])?;
    let server = sandbox.socket(PORT, false);
    ensure!(http::get(server, "/x")?.status == 401);
    let mut connection = Connection::open(server)?;
    ensure!(connection.exchange("GET", "/x", &[WITH_KEY], b"")?.status == 200);
    // Not HTTP.
    let mut other = TcpStream::connect(server)?;
    other.write_all(b"\x00\x01\x02")?;
    other.shutdown(std::net::Shutdown::Write)?;
    let _ = read_to_end(&other);
    // No valid request.
    let mut invalid = TcpStream::connect(server)?;
    invalid.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")?;
    ensure!(read_until(&mut invalid, b"\r\n")?.contains("400"));
    // What no agent of HTTP has to do with.
    let mut datagrams = sandbox.command(python());
    datagrams.args([
        "-c",
        "import socket as s\nfor n in range(3): s.socket(s.AF_INET, s.SOCK_DGRAM)\n\
         s.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_ICMP)\n\
         try: s.socket(s.AF_INET, s.SOCK_STREAM, 132)\nexcept OSError: pass",
    ]);
    sandbox::command::run(&mut datagrams)?;
    let metrics = agent.metrics()?;
    let value = |name: &str, label: (&str, &str)| {
        let found = metrics.iter().find(|metric| {
            metric.name == name
                && metric.label("workload") == Some("shop/api-1")
                && metric.label(label.0) == Some(label.1)
        });
        found.map(|metric| metric.value as u64)
    };
    let wanted = [
        ("stoa_redirect_lookups_total", ("verdict", "steered"), 4),
        ("stoa_redirect_connections_total", ("outcome", "accepted"), 4),
        ("stoa_redirect_connections_total", ("outcome", "http1"), 3),
        ("stoa_redirect_connections_total", ("outcome", "other"), 1),
        ("stoa_redirect_requests_total", ("outcome", "passed"), 1),
        ("stoa_redirect_requests_total", ("outcome", "denied"), 1),
        ("stoa_redirect_requests_total", ("outcome", "invalid"), 1),
        ("stoa_redirect_sockets_left_alone_total", ("kind", "raw"), 1),
    ];
    for (name, label, expected) in wanted {
        let told = value(name, label);
        ensure!(told == Some(expected), "{name} {label:?}: {told:?}, not {expected}");
    }
    ensure!(value("stoa_redirect_sockets_left_alone_total", ("kind", "udp")) >= Some(3));
    // And gone with the workload.
    stoactl(&dir, &["remove", "shop/api-1"])?;
    ensure!(agent.metrics()?.iter().all(|metric| !metric.name.starts_with("stoa_redirect_")));
    Ok(())
}

#[test]
fn every_mode_can_steer() -> Result<()> {
    let dir = stage::directory("redirect-policy-modes")?;
    let mut sandbox = stage::sandbox(&dir)?;
    serve_seen(&mut sandbox)?;
    let server = sandbox.socket(PORT, false);
    for mode in ["proxy", "sidecar"] {
        let port = sandbox::free_port()?;
        let admin = sandbox::free_port()?;
        let file = dir.join("config.yaml");
        std::fs::write(&file, members(""))?;
        let mut command = Command::new(sandbox::binaries()?.join("stoa-gateway"));
        command.args(["--mode", mode, "--host", "127.0.0.1", "--port", &port.to_string()]);
        command.arg("--config").arg(&file).arg("--redirect-socket").arg(socket(&dir));
        if mode == "proxy" {
            command.args(["--admin-port", &admin.to_string(), "--upstream", "http://127.0.0.1:1"]);
        }
        let mut agent = Process::start(mode, command, &dir)?;
        let own = SocketAddr::from(([127, 0, 0, 1], if mode == "proxy" { admin } else { port }));
        let deadline = Instant::now() + sandbox::patience(Duration::from_secs(20));
        while !http::get(own, "/health/ready").is_ok_and(|reply| reply.status == 200) {
            ensure!(agent.is_running() && Instant::now() < deadline, "{}", agent.stderr());
            pause(Duration::from_millis(20));
        }
        let mut control = Control::open(&dir)?;
        let workload = json!({
            "name": "api", "cgroup": sandbox.cgroup(), "ports": [PORT], "policies": "members",
        });
        let answer = control.ask(&json!({ "op": "add", "workload": workload }))?;
        ensure!(answer["ok"] == true, "{answer}");
        ensure!(http::get(server, "/x")?.status == 401, "{mode}");
        let mut connection = Connection::open(server)?;
        ensure!(connection.exchange("GET", "/x", &[WITH_KEY], b"")?.status == 200, "{mode}");
        let metrics = http::get(own, "/metrics")?.text();
        ensure!(
            metrics.contains(
                r#"stoa_redirect_requests_total{workload="api",direction="inbound",outcome="denied"} 1"#
            ),
            "{mode}: {metrics}"
        );
        // The policies of the mode's own door are not for those that name none.
        let untouched = json!({ "name": "api", "cgroup": sandbox.cgroup(), "ports": [PORT] });
        ensure!(control.ask(&json!({ "op": "add", "workload": untouched }))?["ok"] == true);
        ensure!(http::get(server, "/x")?.status == 200, "{mode}");
        drop(connection);
        agent.signal("TERM")?;
        ensure!(agent.wait(Duration::from_secs(60))?.success(), "{mode}: {}", agent.stderr());
    }
    Ok(())
}

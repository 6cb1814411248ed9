//! Connections that a workload makes are steered, and it cannot tell.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sandbox::{Process, Sandbox, command, http};
use serde_json::{Value, json};
use system_tests::{
    servers::{PORT, Server, python},
    stage,
    steering::{add_with, count, start_with, stop_agent},
};

/// A server on the host that a workload calls: tells each client where it comes from, and keeps
/// what it was asked.
struct Called {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(IpAddr, String)>>>,
}

impl Called {
    fn start(ip: IpAddr, banner: &'static str) -> Result<Self> {
        let listener = TcpListener::bind((ip, 0))?;
        let address = listener.local_addr()?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let keep = Arc::clone(&keep);
                std::thread::spawn(move || answer(stream, banner, &keep));
            }
        });
        Ok(Self { address, asked })
    }

    fn asked(&self) -> Vec<(IpAddr, String)> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// HTTP/1.1 if it is that, else bytes back.
fn answer(
    mut stream: TcpStream,
    banner: &str,
    keep: &Mutex<Vec<(IpAddr, String)>>,
) -> std::io::Result<()> {
    let from = stream.peer_addr()?.ip();
    stream.set_read_timeout(Some(sandbox::patience(Duration::from_secs(10))))?;
    stream.write_all(banner.as_bytes())?;
    let mut read = Vec::new();
    let mut part = [0; 4096];
    loop {
        let n = stream.read(&mut part)?;
        read.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&read).into_owned();
        if text.contains(" HTTP/1.1\r\n") && text.ends_with("\r\n\r\n") {
            let body = format!("from {from}");
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
            keep.lock().unwrap_or_else(PoisonError::into_inner).push((from, text));
            read.clear();
        }
        if n == 0 {
            stream.write_all(&read)?;
            return Ok(());
        }
    }
}

/// Runs `calls.py` in the workload, as nobody.
fn call(sandbox: &Sandbox, how: &str, to: SocketAddr, send: &str) -> Result<String> {
    let mut calls = sandbox.command("setpriv");
    calls.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    calls.arg(python());
    calls.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/calls.py"));
    calls.args([how, &to.ip().to_string(), &to.port().to_string(), send]);
    command::run(&mut calls)
}

/// Of a workload that has no process at the moment.
fn netns_of(sandbox: &Sandbox) -> String {
    format!("/run/netns/{}", sandbox.namespace())
}

const GET: &str = r"GET /orders HTTP/1.1\r\nHost: shop.example\r\n\r\n";

#[test]
fn a_workload_is_told_whom_it_called() -> Result<()> {
    let dir = stage::directory("redirect-outbound")?;
    let sandbox = stage::sandbox(&dir)?;
    let v4 = Called::start(sandbox.host(false), "")?;
    let v6 = Called::start(sandbox.host(true), "")?;
    let agent = start_with(&dir, "policies: {}\n")?;
    add_with(&dir, "shop", &sandbox, &["--outbound", "--netns", &netns_of(&sandbox)])?;
    let cases = [
        ("4", &v4),
        ("6", &v6),
        ("mapped", &v4),
        ("bound", &v4),
        ("nonblocking", &v4),
        ("again", &v4),
    ];
    for (n, (how, called)) in cases.into_iter().enumerate() {
        let said = call(&sandbox, how, called.address, GET)?;
        let own = sandbox.address(called.address.is_ipv6());
        let peer = format!("{} {}\n", called.address.ip(), called.address.port());
        ensure!(said.starts_with(&peer), "{how}: getpeername told {said}, not {peer}");
        ensure!(said.ends_with(&format!("from {own}")), "{how}: {said}");
        let accepted = count(&dir, "shop", "/outbound/connections/accepted")?;
        ensure!(accepted == n as u64 + 1, "{how} is not steered");
    }
    ensure!(count(&dir, "shop", "/outbound/connections/http1")? == cases.len() as u64);

    // A program in C, by name.
    let url = format!("http://shop.example:{}/curl", v4.address.port());
    let mut curl = sandbox.command("curl");
    curl.args(["-s", "-w", " %{remote_ip}", "--noproxy", "*", "--resolve"]);
    curl.arg(format!("shop.example:{}:{}", v4.address.port(), v4.address.ip())).arg(&url);
    let said = command::run(&mut curl)?;
    ensure!(said.ends_with(&v4.address.ip().to_string()), "{said}");

    // What is not HTTP, whoever speaks first.
    let greeting = Called::start(sandbox.host(false), "5.7.99-server\n")?;
    let said = call(&sandbox, "4", greeting.address, r"\x01\x02\x03")?;
    ensure!(said.ends_with("5.7.99-server\n\x01\x02\x03"), "{said}");
    let said = call(&sandbox, "4", v4.address, "hello")?;
    ensure!(said.ends_with("hello"), "{said}");
    ensure!(count(&dir, "shop", "/outbound/connections/other")? == 2);

    // Nobody listens there: the workload is told, if not by connect() itself.
    let nobody = TcpListener::bind((sandbox.host(false), 0))?.local_addr()?;
    ensure!(call(&sandbox, "4", nobody, "x").is_err());
    ensure!(count(&dir, "shop", "/outbound/connections/unreachable")? == 1);
    stop_agent(agent)?;
    let accepted = v4.asked().len();
    ensure!(call(&sandbox, "4", v4.address, GET)?.ends_with(&sandbox.address(false).to_string()));
    ensure!(v4.asked().len() == accepted + 1, "it calls no more after the agent has stopped");
    Ok(())
}

#[test]
fn calls_go_through_policies_with_their_destination_known() -> Result<()> {
    let dir = stage::directory("redirect-outbound-policy")?;
    let sandbox = stage::sandbox(&dir)?;
    let allowed = Called::start(sandbox.host(false), "")?;
    let other = Called::start(sandbox.host(false), "")?;
    std::fs::write(
        dir.join("egress.rego"),
        format!(
            "package egress\nimport rego.v1\ndefault allow := false\nallow if {{\n\
             input.context.destination.port == {}\ninput.context.destination.address == \"{}\"\n\
             input.request.method == \"GET\"\n}}\n",
            allowed.address.port(),
            allowed.address.ip()
        ),
    )?;
    let policies = format!(
        "policies:\n  egress:\n    rego: {{files: [{}], query: data.egress.allow}}\n",
        dir.join("egress.rego").display()
    );
    let _agent = start_with(&dir, &policies)?;
    let netns = netns_of(&sandbox);
    let options = ["--outbound", "--outbound-policies", "egress", "--netns", netns.as_str()];
    add_with(&dir, "shop", &sandbox, &options)?;
    let said = call(&sandbox, "4", allowed.address, GET)?;
    ensure!(said.contains("200 OK") && said.contains("from "), "{said}");
    let (_, request) = allowed.asked().pop().context("it was not called")?;
    ensure!(request.to_lowercase().contains("host: shop.example"), "{request}");
    ensure!(!request.to_lowercase().contains("x-forwarded"), "{request}");
    let said = call(&sandbox, "4", other.address, GET)?;
    ensure!(said.contains(" 403 "), "{said}");
    ensure!(other.asked().is_empty(), "a denied call was made");
    let post = r"DELETE /orders HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    ensure!(call(&sandbox, "4", allowed.address, post)?.contains(" 403 "));
    ensure!(count(&dir, "shop", "/outbound/requests/passed")? == 1);
    ensure!(count(&dir, "shop", "/outbound/requests/denied")? == 2);
    Ok(())
}

/// A library's client and server, from the handshake to the close of RFC 6455.
#[test]
fn a_websocket_is_opened_through_the_agent_and_its_policies() -> Result<()> {
    let dir = stage::directory("redirect-outbound-websocket")?;
    let sandbox = stage::sandbox(&dir)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/websocket.py");
    let egress = dir.join("egress.rego");
    std::fs::write(
        &egress,
        "package egress\nimport rego.v1\ndefault allow := false\n\
         allow if input.request.path == \"/chat\"\n",
    )?;
    let policies = format!(
        "policies:\n  egress:\n    rego: {{files: [{}], query: data.egress.allow}}\n",
        egress.display()
    );
    let _agent = start_with(&dir, &policies)?;
    let netns = netns_of(&sandbox);
    // Without policies the agent reads nothing beyond the first bytes; with them it reads HTTP until
    // the protocol is switched.
    for (v6, policies, denied) in
        [(false, &[][..], None), (true, &["--outbound-policies", "egress"], Some(403))]
    {
        add_with(&dir, "shop", &sandbox, &[&["--outbound", "--netns", &netns], policies].concat())?;
        let host = sandbox.host(v6);
        let mut server = Command::new(python());
        server.arg(&script).args(["serve", &host.to_string()]);
        let server = Process::start("websocket", server, &dir)?;
        let to = SocketAddr::new(host, announced_port(&server)?);
        let ask = |path: &str| -> Result<Value> {
            let mut client = sandbox.command(python());
            client.arg(&script).args(["ask", &format!("ws://{to}{path}")]);
            Ok(serde_json::from_str(&command::run(&mut client)?)?)
        };
        let said = ask("/chat?room=1")?;
        ensure!(said["peer"] == json!([host, to.port()]), "{to} is not its peer: {said}");
        ensure!(said["from"] == sandbox.address(v6).to_string(), "{said}");
        ensure!(said["closed"] == json!([1000, "as asked"]), "{said}");
        let fields = said["fields"].as_array().context("no fields")?;
        let has = |name: &str| fields.iter().any(|field| field == name);
        ensure!(has("sec-websocket-key") && has("sec-websocket-extensions"), "{said}");
        ensure!(!has("x-forwarded-for") && !has("forwarded"), "{said}");
        let said = ask("/elsewhere")?;
        ensure!(said.get("refused").and_then(Value::as_u64) == denied, "{said}");
        let reached = server.stdout().contains("/elsewhere");
        ensure!(reached == denied.is_none(), "{}", server.stdout());
        ensure!(count(&dir, "shop", "/outbound/connections/http1")? == 2, "not steered");
        let judged = u64::from(denied.is_some());
        ensure!(count(&dir, "shop", "/outbound/requests/passed")? == judged);
        ensure!(count(&dir, "shop", "/outbound/requests/denied")? == judged);
    }
    Ok(())
}

/// Which port a server says that it has taken.
fn announced_port(server: &Process) -> Result<u16> {
    let deadline = Instant::now() + sandbox::patience(Duration::from_secs(10));
    loop {
        let said = server.stdout();
        if let Some((port, _)) = said.split_once('\n') {
            return Ok(port.parse()?);
        }
        ensure!(Instant::now() < deadline, "it says no port: {said}{}", server.stderr());
        sandbox::pause(Duration::from_millis(20));
    }
}

#[test]
fn calls_to_itself_and_a_dead_agent() -> Result<()> {
    let dir = stage::directory("redirect-outbound-own")?;
    for (mode, is_reached) in [("open", true), ("closed", false)] {
        let mut sandbox = stage::sandbox(&dir)?;
        Server::Python.start(&mut sandbox, &dir)?;
        let called = Called::start(sandbox.host(false), "")?;
        let mut agent = start_with(&dir, "policies: {}\n")?;
        add_with(&dir, "shop", &sandbox, &["--outbound", "--fail-mode", mode])?;
        let get = r"GET /m/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        for own in [sandbox.socket(PORT, false), SocketAddr::from(([127, 0, 0, 1], PORT))] {
            ensure!(call(&sandbox, "4", own, get)?.contains("200"), "{own}");
        }
        ensure!(call(&sandbox, "6", sandbox.socket(PORT, true), get)?.contains("200"));
        ensure!(count(&dir, "shop", "/outbound/connections/accepted")? == 0, "it was steered");
        ensure!(count(&dir, "shop", "/outbound/kernel/own")? == 3);
        ensure!(call(&sandbox, "4", called.address, GET)?.contains("from "));
        // Its own service is steered as ever.
        ensure!(http::get(sandbox.socket(PORT, false), "/m/2")?.status == 200);
        ensure!(count(&dir, "shop", "/connections/accepted")? == 1);
        agent.process().signal("KILL")?;
        agent.process().wait(Duration::from_secs(5))?;
        let after = call(&sandbox, "4", called.address, GET);
        ensure!(after.is_ok() == is_reached, "{mode}: {after:?}");
        let agent = start_with(&dir, "policies: {}\n")?;
        let said = call(&sandbox, "4", called.address, GET)?;
        ensure!(said.contains("from "), "{mode}: {said}");
        ensure!(count(&dir, "shop", "/outbound/connections/accepted")? == 1, "not steered again");
        stop_agent(agent)?;
        ensure!(call(&sandbox, "4", called.address, GET)?.contains("from "), "{mode}");
        ensure!(system_tests::steering::pins(&dir).is_empty());
    }
    Ok(())
}

#[test]
fn an_agent_does_not_lead_itself() -> Result<()> {
    let dir = stage::directory("redirect-outbound-agent")?;
    let sandbox = stage::sandbox(&dir)?;
    let mut agent = start_with(&dir, "policies: {}\n")?;
    std::fs::write(sandbox.cgroup().join("cgroup.procs"), agent.process().pid().to_string())?;
    let refused = add_with(&dir, "shop", &sandbox, &["--outbound", "--netns", &netns_of(&sandbox)]);
    let said = format!("{:#}", refused.err().context("it was enrolled")?);
    ensure!(said.contains("another cgroup"), "{said}");
    stop_agent(agent)?;
    // Nothing of it is left behind.
    let said: Value = Value::from(command::run(Command::new("ip").args([
        "netns",
        "exec",
        sandbox.namespace(),
        "ss",
        "-Hltn",
    ]))?);
    ensure!(said == "", "listeners are left: {said}");
    Ok(())
}

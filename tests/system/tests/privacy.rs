//! Nothing that was planted comes out of the agent anywhere.

use std::path::Path;

use anyhow::{Result, ensure};
use sandbox::{
    Agent, AgentOptions,
    http::{self, Connection, Framing},
};
use serde_json::json;
use system_tests::{
    observed::exchanges,
    planted::{self, Planted, Search, base64, percent},
    servers::PORT,
    stage,
};

/// Every API answer that the agent gives.
const API: [&str; 9] = [
    "/shadow/status",
    "/shadow/contracts",
    "/shadow/contracts/mirror",
    "/shadow/contracts/no-such-service",
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/no-such-page",
];

#[test]
fn planted_values_are_nowhere_in_what_the_agent_keeps_and_says() -> Result<()> {
    let dir = stage::directory("privacy")?;
    let mut sandbox = stage::sandbox(&dir)?;
    let mut node = sandbox.command("node");
    node.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/mirror.js"));
    node.arg(PORT.to_string());
    sandbox.serve("mirror", node, PORT)?;

    let planted = planted::values(40);
    let search = Search::new(&planted);
    let recording = dir.join("recording/all.pcapng");
    std::fs::create_dir_all(dir.join("recording"))?;
    let kept = dir.join("agent");
    let options = AgentOptions::ebpf(&kept)
        .watch_cgroup("mirror", sandbox.cgroup())
        .env("STOA_LOG_LEVEL", "trace")
        .flag("--record", &recording);
    let agent = Agent::start(&options)?;
    let mut connection = Connection::open(sandbox.socket(PORT, false))?;
    let mut sent = 0;
    // Several times over: what recurs must not thereby become structure.
    for _ in 0..4 {
        for value in &planted {
            sent += plant(&mut connection, value)?;
        }
    }
    // Two flushes of the store, and a contract while it runs.
    sandbox::pause(std::time::Duration::from_secs(5));
    let generate = http::request("POST", "/shadow/generate", &[], b"{}", Framing::ContentLength);
    let mut api = Connection::open(agent.api())?;
    api.write(&generate)?;
    let mut said = vec![("POST /shadow/generate".to_owned(), api.receive(false)?.body)];
    for target in API {
        for accept in ["application/json", "application/yaml", "*/*"] {
            let mut api = Connection::open(agent.api())?;
            let reply = api.exchange("GET", target, &[("Accept", accept)], b"")?;
            let head = format!("{:?}", reply.headers).into_bytes();
            said.push((format!("GET {target} as {accept}"), [reply.body, head].concat()));
        }
    }
    let summary = agent.stop()?;
    println!("{sent} requests; {}", summary.last_line);

    // The values were there to be seen: the search finds them in the raw recording, and the agent
    // read nearly all of it.
    let raw = std::fs::read(&recording)?;
    for value in &planted {
        let found = Search::new(std::slice::from_ref(value)).bytes("recording", &raw);
        ensure!(!found.is_empty(), "{value:?} was never captured: the test shows nothing");
    }
    let whole = exchanges(&recording)?.iter().filter(|exchange| exchange.is_complete).count();
    ensure!(whole >= sent * 99 / 100, "only {whole} of {sent} exchanges were read");
    ensure!(summary.operations > 0, "no contract came of it: {}", summary.last_line);

    let mut found = search.directory(&kept)?;
    for (place, bytes) in &said {
        found.extend(search.bytes(place, bytes));
    }
    ensure!(found.is_empty(), "{} leaks:\n{}", found.len(), found.join("\n"));
    stage::assert_contracts_are_valid(&kept.join("output"))
}

/// Sends the value in every position that a request and a response have.
fn plant(connection: &mut Connection, planted: &Planted) -> Result<usize> {
    let Planted { class, value } = planted;
    let encoded = percent(value);
    let is_name = matches!(*class, "person" | "street" | "password");
    let field = match *class {
        "person" => "full_name",
        "street" => "street",
        "password" => "password",
        "email" => "email",
        _ => "value",
    };
    let mut sent = 0;
    let mut send = |method: &str, target: &str, headers: &[(&str, &str)], body: &str| {
        sent += 1;
        connection.exchange(method, target, headers, body.as_bytes()).map(drop)
    };
    let json_type = ("Content-Type", "application/json");
    // As values: of a field that says what it is, nested, in a list, inside a longer text.
    let body = json!({
        field: value,
        "profile": {field: value, "tags": ["a", "b"]},
        "history": [{field: value}, {field: value}],
        "comment": format!("please call {value} back"),
    });
    send("POST", "/records", &[json_type], &body.to_string())?;
    send("POST", "/records", &[json_type, ("X-Status", "422")], &body.to_string())?;
    let form = format!("{field}={encoded}&page=2");
    send("POST", "/forms", &[("Content-Type", "application/x-www-form-urlencoded")], &form)?;
    let multipart = format!(
        "--b0und\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n--b0und--\r\n"
    );
    send(
        "POST",
        "/uploads",
        &[("Content-Type", "multipart/form-data; boundary=b0und")],
        &multipart,
    )?;
    send("POST", "/notes", &[("Content-Type", "text/plain")], &format!("about {value}"))?;
    send("POST", "/broken", &[json_type], &format!("{{\"{field}\": \"{value}"))?;
    send("GET", &format!("/search?{field}={encoded}&page=1"), &[], "")?;
    let cookie = format!("session={encoded}; theme=dark");
    send("GET", "/cookies", &[("Cookie", &cookie)], "")?;
    let set = format!("session={encoded}; Path=/");
    send("GET", "/cookies/set", &[("X-Mirror-Set-Cookie", &set)], "")?;
    send("GET", "/bearer", &[("Authorization", &format!("Bearer {value}"))], "")?;
    let basic = format!("Basic {}", base64(format!("user:{value}").as_bytes(), false));
    send("GET", "/basic", &[("Authorization", &basic)], "")?;
    send("GET", "/key", &[("X-Api-Key", value)], "")?;
    send("GET", &format!("/key?api_key={encoded}"), &[], "")?;
    if !is_name {
        // A name that nothing says is a name cannot be told from structure in these places.
        send("POST", "/maps", &[json_type], &json!({"by": {value.as_str(): 1}}).to_string())?;
        send("GET", &format!("/records/{encoded}"), &[], "")?;
        send("GET", &format!("/records/{encoded}/parts/7"), &[("X-Status", "404")], "")?;
        send("GET", &format!("/files/{encoded}.json"), &[], "")?;
        send("GET", &format!("/search?{encoded}=1"), &[], "")?;
        send("GET", "/headers", &[("X-Customer-Ref", value)], "")?;
        let location = format!("/records/{encoded}");
        send("POST", "/moved", &[("X-Status", "201"), ("X-Mirror-Location", &location)], "")?;
        send("GET", "/headers/back", &[("X-Mirror-X-Owner", value)], "")?;
    }
    Ok(sent)
}

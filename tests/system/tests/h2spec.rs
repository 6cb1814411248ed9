//! h2spec against proxy mode: HTTP/2 without TLS, on a listener that knows HTTP/1 too and on one that
//! does not, and over TLS by ALPN.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use sandbox::Process;
use system_tests::{decisions::wait_until, stage, torture::recorder::Recorder};

/// Listener and case that fails, and why that is right. One that passes is removed from here.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "auto",
        PREFACE,
        "what is no preface is a request of HTTP/1.1 there: it is answered 400, in HTTP/1.1, and the \
         connection is closed",
    ),
    (
        "http2",
        PREFACE,
        "the connection ends, as RFC 9113 section 3.4 wants it, but by a reset, since what came after \
         the wrong preface is not read; h2spec counts an orderly end only",
    ),
];
const PREFACE: &str = "http2/3.5: Sends invalid connection preface";

/// The cases of generic, http2 and hpack, strict ones included (h2spec 2.2.1).
const ALL: usize = 146;

struct Gateway {
    process: Process,
    auto: SocketAddr,
    http2: SocketAddr,
    tls: SocketAddr,
    /// Kept, so that there is an upstream.
    _upstream: Recorder,
}

fn start(dir: &Path) -> Result<Gateway> {
    let upstream = Recorder::start()?;
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    fs::write(dir.join("cert.pem"), key.cert.pem())?;
    fs::write(dir.join("key.pem"), key.signing_key.serialize_pem())?;
    let free = || Ok::<_, anyhow::Error>(SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?)));
    let (auto, http2, tls) = (free()?, free()?, free()?);
    let at = dir.display();
    let config = dir.join("config.yaml");
    fs::write(
        &config,
        format!(
            "listeners:\n\
             - {{name: auto, address: '{auto}'}}\n\
             - {{name: http2, address: '{http2}', protocol: http2}}\n\
             - {{name: tls, address: '{tls}', tls: {{certificates: [{{certificate: {at}/cert.pem, \
             key: {at}/key.pem}}]}}}}\n\
             upstreams: {{u: {{url: 'http://{}'}}}}\n\
             routes: [{{upstream: u}}]\n",
            upstream.address
        ),
    )?;
    let mut command = Command::new(sandbox::binaries()?.join("stoa-gateway"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STOA_") {
            command.env_remove(name);
        }
    }
    command.args(["--mode=proxy", "--workers=1", "--host=127.0.0.1", "--admin-port=0"]);
    command.args(["--access-log=off", "--config"]).arg(config);
    let mut process = Process::start("stoa", command, &dir.join("logs"))?;
    wait_until(&mut process, || {
        [auto, http2, tls].iter().all(|address| TcpStream::connect(address).is_ok())
    })?;
    Ok(Gateway { process, auto, http2, tls, _upstream: upstream })
}

/// Number of cases, and those that failed: `PACKAGE: NAME`.
fn run(dir: &Path, address: SocketAddr, more: &[&str]) -> Result<(usize, Vec<String>)> {
    let program = std::env::var_os("TEST_H2SPEC")
        .context("TEST_H2SPEC is not set: run this with `cargo xtask test`")?;
    let report = dir.join(format!("h2spec-{}.xml", address.port()));
    let mut command = Command::new(program);
    command.args(["--strict", "--timeout", "5", "--host", "127.0.0.1"]).args(more);
    command.args(["--port", &address.port().to_string(), "--junit-report"]).arg(&report);
    // It fails when a case does; which ones, the report says.
    let output = command.output()?;
    let text = fs::read_to_string(&report).with_context(|| {
        format!("h2spec wrote no report: {}", String::from_utf8_lossy(&output.stdout))
    })?;
    Ok(read_report(&text))
}

/// From JUnit's XML, where each case is a line of its own.
fn read_report(text: &str) -> (usize, Vec<String>) {
    let mut failed = Vec::new();
    let mut count = 0;
    for case in text.split("<testcase ").skip(1) {
        count += 1;
        let case = case.split("</testcase>").next().unwrap_or_default();
        let attribute = |name: &str| {
            let value = case.split(&format!("{name}=\"")).nth(1)?.split('"').next()?;
            Some(value.replace("&#39;", "'").replace("&#34;", "\"").replace("&amp;", "&"))
        };
        if case.contains("<failure") || case.contains("<error") {
            let (package, name) = (attribute("package"), attribute("classname"));
            failed.push(format!("{}: {}", package.unwrap_or_default(), name.unwrap_or_default()));
        }
    }
    (count, failed)
}

#[test]
fn h2spec_finds_nothing_new() -> Result<()> {
    let dir = stage::directory("h2spec")?;
    let mut gateway = start(&dir)?;
    let mut wrong = Vec::new();
    for (name, address, more) in [
        ("auto", gateway.auto, &[][..]),
        ("http2", gateway.http2, &[]),
        ("tls", gateway.tls, &["--tls", "--insecure"]),
    ] {
        let (count, failed) = run(&dir, address, more)?;
        ensure!(count >= ALL, "h2spec ran {count} cases over {name}, of {ALL}");
        let known: Vec<&str> =
            KNOWN.iter().filter(|(of, ..)| *of == name).map(|(_, case, _)| *case).collect();
        for case in failed.iter().filter(|case| !known.contains(&case.as_str())) {
            wrong.push(format!("{name}: failed: {case}"));
        }
        for case in known.iter().filter(|known| !failed.iter().any(|case| case == *known)) {
            wrong.push(format!("{name}: passes, and is listed as failing: {case}"));
        }
    }
    ensure!(gateway.process.is_running(), "the gateway ended:\n{}", gateway.process.stderr());
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn reports_are_read() {
    let text = "<testsuite name=\"a\"><testcase package=\"http2/3.5\" classname=\"Sends it\" time=\"1\">\
                </testcase><testcase package=\"generic/1\" classname=\"It&#39;s\"><failure>x</failure>\
                </testcase></testsuite>";
    assert_eq!(read_report(text), (2, vec!["generic/1: It's".to_owned()]));
}

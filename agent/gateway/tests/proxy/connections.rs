//! Connections that are refused right after accept.

use std::path::Path;

use crate::{
    gateway::{Client, Gateway, eventually, to_one},
    upstream::Upstream,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// Nothing is sent: whoever waits for a request, or for TLS, would keep the connection.
fn is_refused(gateway: &Gateway) -> bool {
    gateway.connect().is_closed()
}

fn is_served(gateway: &Gateway) -> bool {
    let mut client = gateway.connect();
    client.stream.set_nodelay(true).unwrap();
    // It may be closed already.
    let _ = std::io::Write::write_all(&mut client.stream, GET.as_bytes());
    client.head().is_some_and(|answer| answer.status == 200)
}

fn rejected(gateway: &Gateway, reason: &str) -> u64 {
    let name = format!("stoa_tcp_connections_rejected_pre_tls_total{{reason=\"{reason}\"}} ");
    let text = gateway.own("/metrics").text();
    let value = text.lines().find_map(|line| line.strip_prefix(&name)).expect(&name);
    value.parse().unwrap()
}

#[test]
fn a_listed_address_is_refused_before_tls() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
    std::fs::write(dir.path().join("x.pem"), key.cert.pem()).unwrap();
    std::fs::write(dir.path().join("x.key"), key.signing_key.serialize_pem()).unwrap();
    let upstream = Upstream::echo();
    let sections = to_one(
        upstream.address,
        "listeners: [{address: '127.0.0.1:0', tls: {certificates: [{certificate: DIR/x.pem, key: DIR/x.key}]}}]",
    );
    let gateway = Gateway::start_in(dir, &sections, &["--ip-blocklist=::1,127.0.0.1"]);
    assert!(is_refused(&gateway));
    assert_eq!(rejected(&gateway, "blocklist_ip"), 1);
    assert_eq!(rejected(&gateway, "blocklist_cidr"), 0);
    let metrics = gateway.own("/metrics").text();
    assert!(metrics.contains("stoa_proxy_tls_failures_total 0\n"), "{metrics}");
    assert_eq!(upstream.connection_count(), 0);
}

#[test]
fn the_file_is_read_again_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("blocked.txt");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("# nobody\n");
    let upstream = Upstream::echo();
    let flag = format!("--ip-blocklist-file={}", file.display());
    let gateway = Gateway::start_in(dir, &to_one(upstream.address, ""), &[&flag]);
    assert!(is_served(&gateway));
    write("192.0.2.0/24\n127.0.0.0/8 ; us\n");
    eventually("the list is in force", || (!is_served(&gateway)).then_some(()));
    assert!(rejected(&gateway, "blocklist_cidr") > 0);
    let reason = || {
        let ready = gateway.own("/health/ready").json();
        ready["configuration"]["reason"].as_str().map(str::to_owned)
    };
    write("192.0.2.0/24\n127.0.0.0/8\nexample.com\n");
    let told = eventually("the failure is told", reason);
    for part in ["ip_blocklist_file", "blocked.txt", "line 3", "`example.com`", "10.0.0.0/8"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert!(is_refused(&gateway), "the last good list stays");
    std::fs::remove_file(&file).unwrap();
    eventually("it is told", || reason().filter(|told| told.contains("cannot be read")));
    assert!(is_refused(&gateway), "the last good list stays");
    write("192.0.2.0/24\n");
    eventually("the list is in force", || is_served(&gateway).then_some(()));
}

#[test]
fn a_list_that_cannot_be_read_is_no_list_to_start_with() {
    let refused = |flag: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_stoa-gateway"))
            .env_clear()
            .args(["--mode=proxy", "--host=127.0.0.1", "--port=0", "--admin-port=0"])
            .args(["--upstream=http://127.0.0.1:1", flag])
            .output()
            .unwrap();
        assert!(!output.status.success(), "{flag}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused("--ip-blocklist=10.0.0.0/8,10.1");
    assert!(said.contains("--ip-blocklist") && said.contains("`10.1`"), "{said}");
    let nowhere = Path::new("/nowhere/blocked.txt");
    assert!(!nowhere.exists());
    let said = refused(&format!("--ip-blocklist-file={}", nowhere.display()));
    assert!(said.contains("/nowhere/blocked.txt") && said.contains("each line"), "{said}");
}

#[test]
fn an_address_has_so_many_connections_a_second() {
    let upstream = Upstream::echo();
    let gateway = Gateway::before(upstream.address, &["--tcp-rate-limit-per-ip=0.5"]);
    assert!(is_served(&gateway));
    assert!(is_refused(&gateway));
    assert!(rejected(&gateway, "rate_limit") > 0);
    eventually("two seconds have passed", || is_served(&gateway).then_some(()));
}

#[test]
fn behind_a_proxy_the_client_counts_that_it_names() {
    let upstream = Upstream::echo();
    let sections = to_one(
        upstream.address,
        "listeners: [{address: '127.0.0.1:0', proxy_protocol_from: [127.0.0.1]}]",
    );
    // The proxy's own address is none of a client's.
    let flags = ["--ip-blocklist=127.0.0.1,192.0.2.0/24", "--tcp-rate-limit-per-ip=1"];
    let gateway = Gateway::start(&sections, &flags);
    let ask = |source: [u8; 4]| {
        let mut client = Client::connect(gateway.address);
        let mut sent = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        sent.extend(source);
        sent.extend([192, 0, 2, 1, 0x10, 0, 0, 80]);
        sent.extend(GET.as_bytes());
        client.send(sent);
        client.head().map(|answer| answer.status)
    };
    assert_eq!(ask([192, 0, 2, 9]), None);
    assert_eq!(rejected(&gateway, "blocklist_cidr"), 1);
    assert_eq!(ask([198, 51, 100, 1]), Some(200));
    assert_eq!(ask([198, 51, 100, 2]), Some(200), "another client");
    assert_eq!(ask([198, 51, 100, 1]), None);
    assert_eq!(rejected(&gateway, "rate_limit"), 1);
}

//! TLS and mutual TLS that end here, and TLS towards upstreams.

use std::{fs, path::Path, sync::Arc};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    gateway::{Gateway, eventually},
    upstream::Upstream,
};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// `NAME.pem` and `NAME.key`.
    fn issue(&self, dir: &Path, name: &str, host: &str) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
    }

    fn write(&self, dir: &Path, name: &str) {
        fs::write(dir.join(name), self.issuer.pem()).unwrap();
    }
}

fn client(dir: &Path, certificate: Option<&str>, alpn: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(dir.join(format!("{name}.pem"))).unwrap()],
                PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn ask(gateway: &Gateway, connector: &TlsConnector, host: &str) -> std::io::Result<String> {
    ask_for(gateway, connector, host, "/t", "").await
}

/// `more` are lines of the head, each with its end.
async fn ask_for(
    gateway: &Gateway,
    connector: &TlsConnector,
    host: &str,
    path: &str,
    more: &str,
) -> std::io::Result<String> {
    let tcp = TcpStream::connect(gateway.address).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut stream = connector.connect(name, tcp).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test(flavor = "current_thread")]
async fn certificates_go_by_name_and_are_reloaded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let authority = Authority::new("test authority");
    authority.write(&path, "ca.pem");
    authority.issue(&path, "one", "one.example");
    authority.issue(&path, "two", "*.two.example");
    let upstream = Upstream::echo();
    let sections = format!(
        "listeners:\n- address: 127.0.0.1:0\n  tls:\n    certificates:\n\
         \x20   - {{certificate: DIR/one.pem, key: DIR/one.key}}\n\
         \x20   - {{certificate: DIR/two.pem, key: DIR/two.key}}\n\
         upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u}}]\n",
        upstream.address
    );
    let gateway = Gateway::start_in(dir, &sections, &[]);
    let connector = client(&path, None, "http/1.1");
    for host in ["one.example", "a.two.example"] {
        let text = ask(&gateway, &connector, host).await.unwrap();
        assert!(text.contains("x-forwarded-proto: https"), "{text}");
    }
    assert!(ask(&gateway, &connector, "other.example").await.is_err());
    // The first certificate is replaced by one for another name; then by a broken file.
    authority.issue(&path, "one", "renewed.example");
    let mut renewed = false;
    for _ in 0..100 {
        renewed = ask(&gateway, &connector, "renewed.example").await.is_ok();
        if renewed {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(renewed, "the new certificate is not served");
    fs::write(path.join("one.pem"), "broken").unwrap();
    eventually("the failure is told", || {
        let ready = gateway.own("/health/ready").json();
        (ready["configuration"]["state"] == "stale").then_some(())
    });
    ask(&gateway, &connector, "renewed.example").await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_client_without_the_right_certificate_is_not_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    authority.write(&path, "ca.pem");
    authority.issue(&path, "server", "server.example");
    authority.issue(&path, "client", "client.example");
    stranger.issue(&path, "stranger", "client.example");
    let upstream = Upstream::echo();
    let sections = format!(
        "listeners:\n- address: 127.0.0.1:0\n  tls:\n    client_ca: DIR/ca.pem\n    certificates:\n\
         \x20   - {{certificate: DIR/server.pem, key: DIR/server.key}}\n\
         upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u}}]\n",
        upstream.address
    );
    let gateway = Gateway::start_in(dir, &sections, &[]);
    for (certificate, is_let_in) in
        [(Some("client"), true), (None, false), (Some("stranger"), false)]
    {
        let asked = ask(&gateway, &client(&path, certificate, "http/1.1"), "server.example").await;
        assert_eq!(
            asked.is_ok_and(|text| text.starts_with("HTTP/1.1 200")),
            is_let_in,
            "{certificate:?}"
        );
    }
    assert_eq!(upstream.connection_count(), 1);
}

const SECRET: &str = "a secret of the tests, long enough";

/// As a line of a head.
fn token(claims: &str) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", part(br#"{"alg":"HS256"}"#), part(claims.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = part(hmac::sign(&key, signed.as_bytes()).as_ref());
    format!("Authorization: Bearer {signed}.{signature}\r\n")
}

#[tokio::test(flavor = "current_thread")]
async fn a_token_is_worth_nothing_without_the_certificate_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let authority = Authority::new("ours");
    authority.write(&path, "ca.pem");
    authority.issue(&path, "server", "server.example");
    authority.issue(&path, "one", "one.example");
    authority.issue(&path, "two", "two.example");
    let upstream = Upstream::echo();
    let sections = format!(
        "listeners:\n- address: 127.0.0.1:0\n  tls:\n    client_ca: DIR/ca.pem\n\
         \x20   client_certificate: optional\n    certificates:\n\
         \x20   - {{certificate: DIR/server.pem, key: DIR/server.key}}\n\
         upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u}}]\n",
        upstream.address
    );
    let secret = format!("--jwt-secret={SECRET}");
    let flags = ["--mtls--enabled", "--mtls--required-routes=/payments/*", &secret];
    let gateway = Gateway::start_in(dir, &sections, &flags);
    // RFC 8705 section 3.1.
    let der = CertificateDer::from_pem_file(path.join("one.pem")).unwrap();
    let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(&der));
    let bound =
        token(&format!(r#"{{"sub":"ann","exp":99999999999,"cnf":{{"x5t#S256":"{thumbprint}"}}}}"#));
    let unbound = token(r#"{"sub":"ann","exp":99999999999}"#);
    for (certificate, path_asked, token, expected) in [
        (Some("one"), "/t", &bound, "200"),
        (Some("one"), "/payments/1", &bound, "200"),
        (Some("two"), "/t", &bound, "token_bound"),
        (None, "/t", &bound, "token_bound"),
        (Some("one"), "/t", &unbound, "token_unbound"),
        (None, "/t", &unbound, "200"),
        (None, "/payments/1", &unbound, "certificate_missing"),
        (None, "/%70ayments/1", &bound, "certificate_missing"),
        (Some("two"), "/payments/1", &String::new(), "200"),
    ] {
        let connector = client(&path, certificate, "http/1.1");
        let answer =
            ask_for(&gateway, &connector, "server.example", path_asked, token).await.unwrap();
        let is_expected = match expected {
            "200" => answer.starts_with("HTTP/1.1 200 "),
            code => {
                answer.starts_with("HTTP/1.1 401 ")
                    && answer.contains(&format!("\"{code}\""))
                    && answer.to_lowercase().contains("\r\nwww-authenticate: bearer ")
            }
        };
        assert!(is_expected, "{certificate:?} {path_asked} {expected}: {answer}");
    }
    let metrics = gateway.own("/metrics").text();
    for line in [
        "stoa_mtls_binding_checks_total{result=\"match\"} 2\n",
        "stoa_mtls_binding_checks_total{result=\"mismatch\"} 2\n",
        "stoa_mtls_binding_checks_total{result=\"denied\"} 1\n",
        "stoa_mtls_validations_total{result=\"no_cert\"} 4\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn upstreams_are_verified() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    authority.write(&path, "ca.pem");
    stranger.write(&path, "other.pem");
    authority.issue(&path, "server", "server.example");
    let upstream = Upstream::echo();
    let inner_sections = format!(
        "listeners:\n- address: 127.0.0.1:0\n  tls: {{certificates: [{{certificate: DIR/server.pem, key: DIR/server.key}}]}}\n\
         upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u}}]\n",
        upstream.address
    );
    let inner = Gateway::start_in(dir, &inner_sections, &[]);
    let outer = |ca: &str, name: &str, protocol: &str| {
        Gateway::start(
            &format!(
                "upstreams:\n  u:\n    url: https://{}\n    protocol: {protocol}\n    tls: {{ca: {}, server_name: {name}}}\n\
                 routes: [{{upstream: u}}]",
                inner.address,
                path.join(ca).display()
            ),
            &[],
        )
    };
    for protocol in ["http1", "http2"] {
        assert_eq!(outer("ca.pem", "server.example", protocol).get("/").status, 200, "{protocol}");
    }
    for (ca, name) in [("other.pem", "server.example"), ("ca.pem", "else.example")] {
        let answer = outer(ca, name, "http1").get("/");
        assert_eq!((answer.status, answer.json()["code"].as_str()), (502, Some("upstream_tls")));
    }
}

#[test]
fn a_proxy_header_is_believed_from_listed_sources_only() {
    let upstream = Upstream::echo();
    let sections = |from: &str| {
        format!(
            "listeners: [{{address: '127.0.0.1:0', proxy_protocol_from: [{from}]}}]\n\
             upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u}}]",
            upstream.address
        )
    };
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, 9, 192, 0, 2, 1, 0x10, 0, 0, 80]);
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let gateway = Gateway::start(&sections("127.0.0.1"), &[]);
    let mut client = gateway.connect();
    client.send([&header[..], request].concat());
    assert!(client.answer().text().contains("x-forwarded-for: 192.0.2.9\r\n"));
    let mut client = gateway.connect();
    client.send(request);
    assert!(client.is_closed(), "a listed source must send the header");
    let gateway = Gateway::start(&sections("10.0.0.0/8"), &[]);
    let mut client = gateway.connect();
    client.send([&header[..], request].concat());
    assert_eq!(client.answer().status, 400, "from others it is no HTTP");
}

#[test]
fn an_upstream_is_told_the_client_by_a_proxy_header() {
    let upstream = Upstream::start(|connection| {
        let header = connection.take(28).unwrap();
        let head = connection.head().unwrap();
        let port = u16::from_be_bytes([header[24], header[25]]);
        assert!(header.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01"));
        let body = format!("{port} {}", head.line());
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    });
    let sections = format!(
        "upstreams: {{u: {{url: 'http://{}', send_proxy_protocol: true}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    );
    let gateway = Gateway::start(&sections, &[]);
    let mut client = gateway.connect();
    let port = client.stream.local_addr().unwrap().port();
    client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer().text(), format!("{port} GET /p HTTP/1.1"));
}

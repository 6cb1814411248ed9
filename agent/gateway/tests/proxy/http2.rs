//! HTTP/2 on either side.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{gateway::Gateway, upstream::Upstream};

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn connect(gateway: &Gateway) -> Sender {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: &str, uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(uri).body(Full::new(body.into())).unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn prior_knowledge_is_recognised_and_streams_share_nothing() {
    let upstream = Upstream::echo();
    let gateway = Gateway::before(upstream.address, &[]);
    let mut sender = connect(&gateway).await;
    let mut under_way = Vec::new();
    for i in 0..20 {
        let body = format!("body {i}");
        let sent = sender.send_request(request("POST", &format!("http://e.x/{i}"), body));
        under_way.push((i, sent));
    }
    for (i, sent) in under_way {
        let response = sent.await.unwrap();
        assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.starts_with(&format!("POST /{i} HTTP/1.1\r\nhost: e.x\r\n")), "{text}");
        assert!(text.ends_with(&format!("body {i}")), "{text}");
        assert!(text.contains("via: 2 stoa-gateway"), "{text}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_upstream_may_speak_http_2() {
    // The gateway itself is the HTTP/2 upstream of a second one.
    let upstream = Upstream::echo();
    let inner = Gateway::before(upstream.address, &[]);
    let sections = format!(
        "upstreams: {{u: {{url: 'http://{}', protocol: http2}}}}\nroutes: [{{upstream: u}}]",
        inner.address
    );
    let outer = Gateway::start(&sections, &[]);
    let text = outer.ask("POST /a HTTP/1.1\r\nHost: e.x\r\nContent-Length: 3\r\n\r\nabc").text();
    assert!(
        text.starts_with("POST /a HTTP/1.1\r\nhost: e.x\r\n") && text.ends_with("abc"),
        "{text}"
    );
    assert!(text.contains("via: 1.1 stoa-gateway, 2 stoa-gateway"), "{text}");
    let mut sender = connect(&outer).await;
    let response = sender.send_request(request("GET", "http://e.x/h2", "")).await.unwrap();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(text.starts_with(b"GET /h2 HTTP/1.1\r\n"));
}

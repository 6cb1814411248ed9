//! HTTP/2 on either side.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{gateway::Gateway, upstream::Upstream};

type Sender<B> = hyper::client::conn::http2::SendRequest<B>;

async fn connect<B>(gateway: &Gateway) -> Sender<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
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

/// A body of which nothing ever comes.
struct Never;

impl Body for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_body_that_never_comes_ends_its_stream_only() {
    let upstream = Upstream::echo();
    let more = ["--guardrails-pii-enabled", "--request-body-seconds=1"];
    let gateway = Gateway::before(upstream.address, &more);
    let mut sender = connect(&gateway).await;
    let ask = |method: &str| {
        let request = Request::builder().method(method).uri("http://e.x/");
        request.header("content-type", "application/json").body(Never).unwrap()
    };
    for _ in 0..2 {
        let response = sender.send_request(ask("POST")).await.unwrap();
        assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 408));
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&text).contains("request_body_late"));
    }
    assert_eq!(upstream.connection_count(), 0);
}

//! The service that `cargo xtask demo` watches: a small shop, as undocumented as most are.
//!
//! Nested resources, ids and slugs in paths, JWT and API key, pagination, gzip, errors, and
//! people's data everywhere. All of the data is made up.

#![forbid(unsafe_code)]

mod shop;

use std::{cell::RefCell, convert::Infallible, error::Error, io::Write, net::SocketAddr, rc::Rc};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use shop::{Answer, Call, Shop};

/// No request body of the shop is larger.
const LARGEST_BODY: usize = 64 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address: SocketAddr =
        std::env::args().nth(1).ok_or("usage: demo-service ADDRESS:PORT")?.parse()?;
    let listener = TcpListener::bind(address).await?;
    let shop = Rc::new(RefCell::new(Shop::stocked()));
    let tasks = tokio::task::LocalSet::new();
    tasks
        .run_until(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let shop = Rc::clone(&shop);
                tokio::task::spawn_local(async move {
                    let service = service_fn(move |request| serve(Rc::clone(&shop), request));
                    // A client that goes away is no concern of the shop's.
                    let _ =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        })
        .await
}

async fn serve(
    shop: Rc<RefCell<Shop>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await else {
        return Ok(render(Answer::problem(413, "The body is too large."), false));
    };
    let text = |name: header::HeaderName| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let accepts_gzip =
        text(header::ACCEPT_ENCODING).is_some_and(|codings| codings.contains("gzip"));
    let call = Call {
        method: head.method.to_string(),
        path: head.uri.path().split('/').skip(1).map(str::to_owned).collect(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        authorization: text(header::AUTHORIZATION),
        api_key: text(header::HeaderName::from_static("x-api-key")),
        body: body.to_bytes().to_vec(),
    };
    Ok(render(shop.borrow_mut().answer(&call), accepts_gzip))
}

fn render(answer: Answer, accepts_gzip: bool) -> Response<Full<Bytes>> {
    let mut response = Response::builder()
        .status(StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let mut body = Vec::new();
    if let Some(json) = &answer.body {
        let media_type =
            if answer.status < 400 { "application/json" } else { "application/problem+json" };
        response = response.header(header::CONTENT_TYPE, media_type);
        body = json.to_string().into_bytes();
        if accepts_gzip && body.len() > 512 {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            if encoder.write_all(&body).is_ok()
                && let Ok(encoded) = encoder.finish()
            {
                body = encoded;
                response = response.header(header::CONTENT_ENCODING, "gzip");
            }
        }
    }
    response.body(Full::new(body.into())).unwrap_or_default()
}

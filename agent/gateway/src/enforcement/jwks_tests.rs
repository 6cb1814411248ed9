use std::{convert::Infallible, io::Write, path::Path, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use stoa_policy::{
    context::{Body, Door, RequestContext},
    engine::Engine,
    outside::{KeyRing, KeyState, Outside},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::enforcement::authorities::Authorities;

/// What the policy crate's tests verify tokens with; made by PyJWT.
const RECORDED: &str = include_str!("../../../policy/tests/data/tokens.json");

fn recorded() -> serde_json::Value {
    serde_json::from_str(RECORDED).unwrap()
}

/// What a path answers.
async fn issuer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = |status: u16, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    };
    Ok(match request.uri().path() {
        "/jwks" => answer(200, recorded()["jwks"].to_string()),
        path if path.ends_with("/.well-known/openid-configuration") => {
            let host = request.headers()[header::HOST].to_str().unwrap();
            let here = format!("http://{host}");
            let (issuer, keys) = match path.split('/').nth(1) {
                Some("liar") => ("https://issuer.example".to_owned(), format!("{here}/jwks")),
                Some("lost") => (format!("{here}/lost"), format!("{here}/none")),
                _ => (format!("{here}/realm"), format!("{here}/jwks")),
            };
            let metadata = serde_json::json!({
                "issuer": issuer, "jwks_uri": keys, "response_types_supported": ["code"],
            });
            answer(200, metadata.to_string())
        }
        "/moved" => {
            let mut response = answer(302, String::new());
            response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/jwks"));
            response
        }
        "/long" => answer(200, " ".repeat(MOST_BYTES + 1)),
        "/silent" => std::future::pending().await,
        _ => answer(404, "nothing here".to_owned()),
    })
}

/// Serves until the test ends; the URL without a path.
async fn serve(tls: Option<TlsAcceptor>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let scheme = if tls.is_some() { "https" } else { "http" };
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                let server = hyper::server::conn::http1::Builder::new();
                // Clients of these tests hang up in the middle of things.
                let _ = match tls {
                    None => server.serve_connection(TokioIo::new(stream), service_fn(issuer)).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => {
                            server.serve_connection(TokioIo::new(stream), service_fn(issuer)).await
                        }
                        Err(_) => return,
                    },
                };
            });
        }
    });
    format!("{scheme}://localhost:{port}")
}

fn acceptor() -> (TlsAcceptor, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut authority = tempfile::NamedTempFile::new().unwrap();
    authority.write_all(made.cert.pem().as_bytes()).unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority)
}

fn client(authority: Option<&Path>) -> HttpClient {
    HttpClient::new(Authorities::load(authority).unwrap().client_config().unwrap())
}

async fn try_fetch(client: &HttpClient, url: String) -> Result<usize, String> {
    fetch(client, &url).await.map(|body| body.len())
}

#[tokio::test]
async fn keys_come_over_verified_tls_only() {
    let (tls, authority) = acceptor();
    let url = serve(Some(tls)).await;
    let trusting = client(Some(authority.path()));
    assert!(try_fetch(&trusting, format!("{url}/jwks")).await.is_ok());
    let strict = client(None);
    let reason = try_fetch(&strict, format!("{url}/jwks")).await.unwrap_err();
    assert!(reason.contains("certificate"), "{reason}");
    // The certificate names localhost, not the address.
    let other = url.replace("localhost", "127.0.0.1");
    assert!(try_fetch(&trusting, format!("{other}/jwks")).await.is_err());
}

#[tokio::test]
async fn what_is_no_key_set_is_told_apart() {
    let url = serve(None).await;
    let client = client(None);
    for (path, expected) in [("/moved", "redirects"), ("/none", "404"), ("/long", "longer than")] {
        let reason = try_fetch(&client, format!("{url}{path}")).await.unwrap_err();
        assert!(reason.contains(expected), "{reason}");
    }
    let uri = format!("{url}/silent").parse().unwrap();
    let late = client.get(uri, Duration::from_millis(50), 1000).await.unwrap_err();
    assert!(late.to_string().contains("no answer"), "{late}");
    // Nobody listens there any more.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let reason = try_fetch(&client, format!("http://127.0.0.1:{port}/")).await.unwrap_err();
    assert!(reason.contains("cannot connect"), "{reason}");
}

#[tokio::test]
async fn an_issuer_says_itself_where_its_keys_are() {
    let url = serve(None).await;
    let client = client(None);
    let ask =
        async |issuer: &str| fetch_keys(&client, &KeysAt::Issuer(format!("{url}/{issuer}"))).await;
    let direct = fetch(&client, &format!("{url}/jwks")).await.unwrap();
    assert_eq!(ask("realm").await.unwrap(), direct);
    for (issuer, expected) in [
        ("liar", "of the issuer `https://issuer.example`"),
        ("lost", "404"),
        ("realm/", "letter by letter"),
    ] {
        let reason = ask(issuer).await.unwrap_err();
        assert!(reason.contains(expected), "{issuer}: {reason}");
    }
}

/// The engine in a worker's own runtime, the fetches in another: a token is verified with keys that
/// came over the network.
#[test]
fn an_engine_verifies_with_fetched_keys() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = control.handle().clone();
    let thread = std::thread::spawn(move || control.block_on(stopped));
    let (address, mut addressed) = watch::channel(String::new());
    handle.spawn(async move { address.send(serve(None).await) });
    let worker = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let url =
        worker.block_on(async { addressed.wait_for(|url| !url.is_empty()).await.unwrap().clone() });

    let client = client(None);
    let fetcher = JwksFetcher::new(client, handle);
    let outside = Outside { keys: Arc::new(KeyRing::new(Arc::new(fetcher))), ..Outside::default() };
    let policies = serde_json::json!({"default": {"identity": {"methods": [{"jwt": {
        "issuer": "https://issuer.example", "audience": "orders", "jwks_url": format!("{url}/jwks"),
    }}]}}});
    let engine = Engine::build(&serde_json::from_value(policies).unwrap(), &outside).unwrap();
    let set = engine.find("default").unwrap();
    for algorithm in ["RS256", "PS512", "ES512", "EdDSA"] {
        let token = recorded()["tokens"][algorithm].as_str().unwrap().to_owned();
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert(header::AUTHORIZATION, value);
        let request = RequestContext {
            door: Door::Proxy,
            method: &http::Method::GET,
            scheme: "http",
            authority: "orders.example",
            path: "/",
            query: None,
            headers: &headers,
            source: ([192, 0, 2, 1], 4711).into(),
            destination: None,
            client_certificate: None,
            stated: None,
            route: None,
            tenant: None,
            upstream: None,
            body: Body::Unread,
        };
        let decision = worker.block_on(engine.decide(set, &request));
        assert!(decision.is_allowed(), "{algorithm}: {:?}", decision.denial);
    }
    let states: Vec<KeyState> = outside.keys.states();
    assert_eq!((states[0].fetches, states[0].failures), (1, 0));
    drop(stop);
    assert!(thread.join().unwrap().is_err(), "the runtime ran until now");
}

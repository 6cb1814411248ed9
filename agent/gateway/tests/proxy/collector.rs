//! A collector of OpenTelemetry: OTLP over gRPC, by the published messages.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use tonic::{Request, Response, Status, server::UnaryService};

#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

pub struct Collector {
    pub address: SocketAddr,
    received: Received,
}

impl UnaryService<ExportTraceServiceRequest> for Received {
    type Response = ExportTraceServiceResponse;
    type Future = Ready<Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<ExportTraceServiceRequest>) -> Self::Future {
        self.0.lock().unwrap().push(request.into_inner());
        ready(Ok(Response::new(ExportTraceServiceResponse::default())))
    }
}

impl Collector {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let received = Received::default();
        let service = received.clone();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, service.clone()));
                }
            });
        });
        Self { address, received }
    }

    pub fn spans(&self) -> Vec<Span> {
        let requests = self.received.0.lock().unwrap();
        let scopes = requests.iter().flat_map(|r| &r.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|scope| scope.spans.iter().cloned()).collect()
    }

    /// Of the last batch.
    pub fn resource(&self) -> Vec<KeyValue> {
        let requests = self.received.0.lock().unwrap();
        requests.last().unwrap().resource_spans[0].resource.clone().unwrap().attributes
    }
}

async fn serve(stream: tokio::net::TcpStream, received: Received) {
    let service = service_fn(move |request: http::Request<Incoming>| {
        let received = received.clone();
        async move {
            let path = request.uri().path();
            assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
            let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
            Ok::<_, Infallible>(grpc.unary(received, request).await)
        }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// As text, whatever it is.
pub fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

//! Builds exchanges as the reader would yield them.

use stoa_wire::{
    exchange::{Body, Exchange, Header, Message, Partial, Request, Response},
    segment::{Endpoints, FlowId},
};

/// Names and values, in order.
type Headers = Vec<(String, Vec<u8>)>;

#[derive(Clone, Default)]
pub struct Build {
    pub flow: u64,
    pub method: String,
    pub target: Vec<u8>,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub partial: Option<Partial>,
    pub response: Option<(u16, Headers, Vec<u8>)>,
}

impl Build {
    pub fn new(method: &str, target: impl AsRef<[u8]>) -> Self {
        Self { flow: 1, method: method.into(), target: target.as_ref().to_vec(), ..Self::default() }
    }

    pub fn flow(mut self, flow: u64) -> Self {
        self.flow = flow;
        self
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    pub fn body(mut self, media_type: &str, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self.header("Content-Type", media_type)
    }

    pub fn cut(mut self) -> Self {
        self.partial = Some(Partial::Limit);
        self
    }

    pub fn json(self, body: &str) -> Self {
        self.body("application/json", body)
    }

    pub fn answer(mut self, status: u16, media_type: &str, body: impl AsRef<[u8]>) -> Self {
        let headers = vec![("Content-Type".to_owned(), media_type.as_bytes().to_vec())];
        self.response = Some((status, headers, body.as_ref().to_vec()));
        self
    }

    pub fn answer_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (_, headers, _) = self.response.get_or_insert_with(|| (200, Vec::new(), Vec::new()));
        headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    pub fn make(&self) -> Exchange {
        let address = ([127, 0, 0, 1], 80).into();
        let start = [self.method.as_bytes(), b" ", &self.target, b" HTTP/1.1\r\n"].concat();
        let method_end = self.method.len() as u32;
        let target_end = method_end + 1 + self.target.len() as u32;
        Exchange {
            flow: FlowId(self.flow),
            endpoints: Endpoints { client: address, server: address, service: 0 },
            started: 1_700_000_000_000_000_000,
            ended: 1_700_000_000_001_000_000,
            request: Some(Request {
                method: 0..method_end,
                target: method_end + 1..target_end,
                message: message(start, &self.headers, &self.body, self.partial),
            }),
            response: self.response.as_ref().map(|(status, headers, body)| Response {
                status: *status,
                message: message(b"HTTP/1.1 200 OK\r\n".to_vec(), headers, body, self.partial),
            }),
            interim: Vec::new(),
            incomplete: Vec::new(),
            lost: Vec::new(),
        }
    }
}

fn message(
    start: Vec<u8>,
    headers: &[(String, Vec<u8>)],
    body: &[u8],
    partial: Option<Partial>,
) -> Message {
    let mut head = start;
    let mut spans = Vec::new();
    for (name, value) in headers {
        let name_start = head.len() as u32;
        head.extend_from_slice(name.as_bytes());
        let name_end = head.len() as u32;
        head.extend_from_slice(b": ");
        let value_start = head.len() as u32;
        head.extend_from_slice(value);
        spans
            .push(Header { name: (name_start, name_end), value: (value_start, head.len() as u32) });
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Message {
        head: head.into(),
        headers: spans,
        minor: 1,
        trailers: Vec::new(),
        body: Body {
            length: body.len() as u64,
            content: body.to_vec().into(),
            partial,
            ..Body::default()
        },
    }
}

//! A connection to one broker: a request, then its answer.

use std::{io, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    error::ParseResponseErrorCode,
    messages::{
        ApiKey, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse,
        ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
        SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    Address, KafkaError, Mechanism, Sasl,
    sasl::{self, Scram},
};

const CLIENT: &str = "stoa-gateway";
/// With TLS and SASL.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// A broker may take its own time for replicas (`timeout_ms` of a produce request).
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// What we ask for is short: a broker that announces more is none.
const LONGEST_ANSWER: usize = 16 << 20;

/// A request in the version that is spoken here.
pub(super) trait Ask: Encodable + HeaderVersion {
    const KEY: ApiKey;
    const VERSION: i16;
    type Answer: Decodable + HeaderVersion;
}

impl Ask for MetadataRequest {
    const KEY: ApiKey = ApiKey::Metadata;
    const VERSION: i16 = 4;
    type Answer = MetadataResponse;
}

impl Ask for ProduceRequest {
    const KEY: ApiKey = ApiKey::Produce;
    const VERSION: i16 = 7;
    type Answer = ProduceResponse;
}

impl Ask for InitProducerIdRequest {
    const KEY: ApiKey = ApiKey::InitProducerId;
    const VERSION: i16 = 1;
    type Answer = InitProducerIdResponse;
}

impl Ask for SaslHandshakeRequest {
    const KEY: ApiKey = ApiKey::SaslHandshake;
    const VERSION: i16 = 1;
    type Answer = SaslHandshakeResponse;
}

impl Ask for SaslAuthenticateRequest {
    const KEY: ApiKey = ApiKey::SaslAuthenticate;
    const VERSION: i16 = 1;
    type Answer = SaslAuthenticateResponse;
}

trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Transport for T {}

pub(super) struct Connection {
    broker: Address,
    stream: Box<dyn Transport>,
    /// Of the next request.
    correlation: i32,
}

impl Connection {
    pub(super) async fn open(
        broker: &Address,
        tls: Option<&Arc<ClientConfig>>,
        sasl: Option<&Sasl>,
    ) -> Result<Self, KafkaError> {
        let opening = async {
            let connect = |source| KafkaError::Connect { broker: broker.clone(), source };
            let tcp = TcpStream::connect((broker.host.as_str(), broker.port)).await;
            let tcp = tcp.map_err(connect)?;
            tcp.set_nodelay(true).map_err(connect)?;
            let stream: Box<dyn Transport> = match tls {
                None => Box::new(tcp),
                Some(config) => {
                    let name = ServerName::try_from(broker.host.clone())
                        .map_err(|_| KafkaError::ServerName(broker.host.clone()))?;
                    let connector = TlsConnector::from(Arc::clone(config));
                    Box::new(connector.connect(name, tcp).await.map_err(connect)?)
                }
            };
            let mut connection = Self { broker: broker.clone(), stream, correlation: 0 };
            if let Some(sasl) = sasl {
                connection.authenticate(sasl).await?;
            }
            Ok(connection)
        };
        let late = || KafkaError::Late { broker: broker.clone(), within: CONNECTED_WITHIN };
        timeout(CONNECTED_WITHIN, opening).await.unwrap_or_else(|_| Err(late()))
    }

    pub(super) fn broker(&self) -> &Address {
        &self.broker
    }

    /// A connection that failed is of no further use: an answer may still come.
    pub(super) async fn ask<A: Ask>(&mut self, request: &A) -> Result<A::Answer, KafkaError> {
        let correlation = self.correlation;
        self.correlation = correlation.wrapping_add(1);
        let encoded = encode(request, correlation).map_err(|reason| self.protocol(reason))?;
        let exchange = async {
            self.stream.write_all(&encoded).await?;
            self.stream.flush().await?;
            let length = usize::try_from(self.stream.read_i32().await?).unwrap_or(usize::MAX);
            if length > LONGEST_ANSWER {
                return Err(io::Error::other("its answer is too long to be one"));
            }
            let mut answer = BytesMut::zeroed(length);
            self.stream.read_exact(&mut answer).await?;
            Ok(answer.freeze())
        };
        match timeout(ANSWERED_WITHIN, exchange).await {
            Ok(Ok(answer)) => {
                decode::<A>(answer, correlation).map_err(|reason| self.protocol(reason))
            }
            Ok(Err(source)) => Err(KafkaError::Io { broker: self.broker.clone(), source }),
            Err(_) => {
                Err(KafkaError::Late { broker: self.broker.clone(), within: ANSWERED_WITHIN })
            }
        }
    }

    async fn authenticate(&mut self, sasl: &Sasl) -> Result<(), KafkaError> {
        let mechanism = sasl.mechanism.name();
        let handshake =
            SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
        let answer = self.ask(&handshake).await?;
        if answer.error_code.is_err() {
            let offered: Vec<_> = answer.mechanisms.iter().map(StrBytes::as_str).collect();
            let offered = offered.join(", ");
            return Err(KafkaError::Mechanism { broker: self.broker.clone(), mechanism, offered });
        }
        if sasl.mechanism == Mechanism::Plain {
            return self.prove(sasl::plain(sasl)).await.map(drop);
        }
        let broker = self.broker.clone();
        let unproven = |reason| KafkaError::Authentication { broker: broker.clone(), reason };
        let mut scram = Scram::new(sasl).map_err(unproven)?;
        let challenge = self.prove(scram.first()).await?;
        let proof = scram.last(&challenge).map_err(unproven)?;
        let signature = self.prove(proof).await?;
        scram.verify(&signature).map_err(unproven)
    }

    async fn prove(&mut self, message: Vec<u8>) -> Result<Bytes, KafkaError> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
        let answer = self.ask(&request).await?;
        match answer.error_code.err() {
            None => Ok(answer.auth_bytes),
            Some(error) => {
                let reason =
                    answer.error_message.map_or_else(|| error.to_string(), |m| m.to_string());
                Err(KafkaError::Authentication { broker: self.broker.clone(), reason })
            }
        }
    }

    fn protocol(&self, reason: String) -> KafkaError {
        KafkaError::Protocol { broker: self.broker.clone(), reason }
    }
}

/// With its length before it.
fn encode<A: Ask>(request: &A, correlation: i32) -> Result<BytesMut, String> {
    let mut encoded = BytesMut::new();
    encoded.put_i32(0);
    let header = RequestHeader::default()
        .with_request_api_key(A::KEY as i16)
        .with_request_api_version(A::VERSION)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT)));
    header
        .encode(&mut encoded, A::header_version(A::VERSION))
        .and_then(|()| request.encode(&mut encoded, A::VERSION))
        .map_err(|error| error.to_string())?;
    let length = i32::try_from(encoded.len() - 4).map_err(|_| "a request is too long")?;
    if let Some(place) = encoded.first_chunk_mut() {
        *place = length.to_be_bytes();
    }
    Ok(encoded)
}

fn decode<A: Ask>(mut answer: Bytes, correlation: i32) -> Result<A::Answer, String> {
    let version = A::Answer::header_version(A::VERSION);
    let header = ResponseHeader::decode(&mut answer, version).map_err(|error| error.to_string())?;
    if header.correlation_id != correlation {
        return Err("it answers another request".to_owned());
    }
    let decoded = A::Answer::decode(&mut answer, A::VERSION).map_err(|error| error.to_string())?;
    match answer.has_remaining() {
        false => Ok(decoded),
        true => Err("its answer goes on".to_owned()),
    }
}

//! PROXY protocol version 2: who the client is, said by the proxy in front of us, or by us to an
//! upstream. `ppp` reads and writes the header.

use std::{io, net::SocketAddr, time::Duration};

use ppp::v2::{Addresses, Builder, Command, Header, IPv4, IPv6, Protocol, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::connection::Origin;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;
/// Addresses and what else a sender may add (TLVs).
const MOST: usize = 4096;
const WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ProxyProtocolError {
    #[error("no PROXY protocol header of version 2 came first")]
    Missing,
    #[error("the PROXY protocol header did not come in time")]
    Timeout,
    #[error("the PROXY protocol header cannot be read: {0}")]
    Malformed(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Source and destination as the header says; `None` for a connection of the sender itself
/// (LOCAL) or of a family that is not IP. Exactly the header is read.
pub async fn receive(
    stream: &mut TcpStream,
) -> Result<Option<(SocketAddr, SocketAddr)>, ProxyProtocolError> {
    timeout(WITHIN, read(stream)).await.map_err(|_| ProxyProtocolError::Timeout)?
}

async fn read(
    stream: &mut TcpStream,
) -> Result<Option<(SocketAddr, SocketAddr)>, ProxyProtocolError> {
    let mut header = vec![0; FIXED];
    stream.read_exact(&mut header).await?;
    if !header.starts_with(SIGNATURE) {
        return Err(ProxyProtocolError::Missing);
    }
    let length = match header.as_slice() {
        [.., high, low] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    if length > MOST {
        return Err(ProxyProtocolError::Malformed(format!("it is {length} bytes long")));
    }
    header.resize(FIXED + length, 0);
    stream.read_exact(header.get_mut(FIXED..).unwrap_or_default()).await?;
    let header = Header::try_from(header.as_slice())
        .map_err(|e| ProxyProtocolError::Malformed(e.to_string()))?;
    if header.command == Command::Local {
        return Ok(None);
    }
    Ok(match header.addresses {
        Addresses::IPv4(a) => Some((
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
        Addresses::IPv6(a) => Some((
            (a.source_address, a.source_port).into(),
            (a.destination_address, a.destination_port).into(),
        )),
        _ => None,
    })
}

/// Says who the client is, before anything else.
pub async fn send(stream: &mut TcpStream, origin: &Origin) -> io::Result<()> {
    stream.write_all(&encode(origin.source, origin.local)?).await
}

fn encode(source: SocketAddr, destination: SocketAddr) -> io::Result<Vec<u8>> {
    let addresses = match (source, destination) {
        (SocketAddr::V4(s), SocketAddr::V4(d)) => {
            Addresses::IPv4(IPv4::new(*s.ip(), *d.ip(), s.port(), d.port()))
        }
        (s, d) => {
            let v6 = |ip: std::net::IpAddr| match ip {
                std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                std::net::IpAddr::V6(ip) => ip,
            };
            Addresses::IPv6(IPv6::new(v6(s.ip()), v6(d.ip()), s.port(), d.port()))
        }
    };
    Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, addresses).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_is_sent_is_received_and_nothing_more_is_read() {
        for (source, destination) in
            [("192.0.2.1:1000", "192.0.2.2:80"), ("[2001:db8::1]:1000", "[2001:db8::2]:80")]
        {
            let addresses = (source.parse().unwrap(), destination.parse().unwrap());
            let (mut client, mut server) = pair().await;
            client.write_all(&encode(addresses.0, addresses.1).unwrap()).await.unwrap();
            client.write_all(b"GET").await.unwrap();
            assert_eq!(receive(&mut server).await.unwrap(), Some(addresses));
            let mut rest = [0; 3];
            server.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"GET");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        for text in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\n"] {
            let (mut client, mut server) = pair().await;
            client.write_all(text.as_bytes()).await.unwrap();
            let error = receive(&mut server).await.unwrap_err();
            assert!(matches!(error, ProxyProtocolError::Missing), "{error}");
        }
    }
}

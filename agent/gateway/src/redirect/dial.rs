//! The connection to the application, made inside its network namespace in the client's name.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::{
    error::RedirectError,
    namespace::Namespace,
    programs::{Introduction, Peers},
};

const TIMEOUT: Duration = Duration::from_secs(20);
/// Ports tried when the client's own is taken.
const ATTEMPTS: u32 = 16;

/// Connected; to an application, which is told of the client for as long as this lives.
pub struct Dialed {
    pub stream: TcpStream,
    /// How much of [`Next::Now`] has gone already.
    pub sent: usize,
    _introduction: Option<Introduction>,
}

/// What follows once the application is connected.
#[derive(Clone, Copy, Debug)]
pub enum Next<'a> {
    /// Perhaps nothing: the application may be the first to speak.
    Unknown,
    /// Bytes, once it has been decided what to make of them.
    Soon,
    /// These.
    Now(&'a [u8]),
}

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The application does not accept, or its namespace is gone.
    #[error("{0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    Introduce(#[from] RedirectError),
    #[error("no port is free for it")]
    NoPort,
}

pub async fn dial(
    namespace: &Namespace,
    netns: u64,
    peers: &Peers,
    (client, application): (SocketAddr, SocketAddr),
    next: Next<'_>,
) -> Result<Dialed, DialError> {
    let ip = source_for(client.ip(), application.ip());
    for attempt in 0..ATTEMPTS {
        // The client's port first: the client's own kernel has made it unique.
        let port = if attempt == 0 { client.port() } else { next_port() };
        let from = SocketAddr::new(ip, port);
        let socket = match namespace.enter(|| new_socket(from))?.and_then(|s| bind(s, from, next)) {
            Ok(socket) => socket,
            Err(e) if is_taken(&e) => continue,
            Err(e) => return Err(e.into()),
        };
        // Before it is connected: over loopback the application may accept at once.
        let Some(introduction) = peers.introduce(netns, from, application, client)? else {
            continue;
        };
        match connect(socket, application, next).await {
            Ok((stream, sent)) => {
                return Ok(Dialed { stream, sent, _introduction: Some(introduction) });
            }
            Err(e) if is_taken(&e) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(DialError::NoPort)
}

/// Connects to what a workload was connecting to, from where the workload would have.
pub async fn dial_out(namespace: &Namespace, to: SocketAddr) -> Result<Dialed, DialError> {
    let socket = namespace.enter(|| {
        let socket = new_socket(to)?;
        socket.set_tcp_nodelay(true)?;
        io::Result::Ok(socket)
    })??;
    let socket = TcpSocket::from_std_stream(socket.into());
    // The kernel gives up by itself, as it would for the workload.
    let stream = socket.connect(to).await?;
    Ok(Dialed { stream, sent: 0, _introduction: None })
}

/// Gives also how much of what is next was sent.
///
/// Over loopback the kernel has shaken hands by the time that `connect` returns, although it says
/// `EINPROGRESS`: what is to be sent can be sent then, and that it was says that there is a
/// connection.
async fn connect(
    socket: Socket,
    application: SocketAddr,
    next: Next<'_>,
) -> io::Result<(TcpStream, usize)> {
    match socket.connect(&application.into()) {
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
        other => other?,
    }
    let sent = match next {
        Next::Now(bytes) if !bytes.is_empty() => match socket.send(bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            sent => Some(sent?),
        },
        _ => None,
    };
    let stream = TcpStream::from_std(socket.into())?;
    if sent.is_none() {
        let connected = tokio::time::timeout(TIMEOUT, stream.writable());
        connected.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok((stream, sent.unwrap_or_default()))
}

/// A loopback address: `steer` lets it pass, and a port that was just in use can be used again
/// after a second (`tcp_tw_reuse` is on for loopback), where others are blocked for a minute.
///
/// In IPv4 each client gets one of 127.64.0.0/10, so that clients with the same port do not meet.
/// Never 127.0.0.1, which some applications trust: should one ask the kernel in a way that the
/// cgroup's programs do not see, it is not told that.
fn source_for(client: IpAddr, application: IpAddr) -> IpAddr {
    if application.is_ipv6() {
        return Ipv6Addr::LOCALHOST.into();
    }
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    let host = u32::try_from(hasher.finish() % ((1 << 22) - 2)).unwrap_or_default() + 1;
    (Ipv4Addr::new(127, 64, 0, 0) | Ipv4Addr::from_bits(host)).into()
}

/// In the range that Linux itself takes ports from.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    32768 + NEXT.fetch_add(1, Ordering::Relaxed) % (60999 - 32768)
}

/// One system call: each connection has one, and some are for one request.
fn new_socket(for_family_of: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new_raw(Domain::for_address(for_family_of), kind, Some(Protocol::TCP))
}

fn bind(socket: Socket, from: SocketAddr, next: Next<'_>) -> io::Result<Socket> {
    // Several connections may have one port, as long as they go to different ones.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    if !matches!(next, Next::Unknown) {
        // The handshake's last segment waits for the first bytes and goes with them (a fifth of a
        // second at most, `tcp_rcv_synsent_state_process`): the application, too, is woken once.
        socket.set_tcp_quickack(false)?;
    }
    socket.bind(&from.into())?;
    Ok(socket)
}

fn is_taken(error: &io::Error) -> bool {
    // EACCES: a port below 1024, and no CAP_NET_BIND_SERVICE.
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_one_loopback_address_and_it_is_not_localhost() {
        for n in 0..=255 {
            let client = IpAddr::from([10, 0, 0, n]);
            let source = source_for(client, IpAddr::from([10, 1, 0, 1]));
            assert_eq!(source, source_for(client, IpAddr::from([10, 1, 0, 2])));
            let IpAddr::V4(v4) = source else { panic!("{source}") };
            assert!(v4.octets()[0] == 127 && (64..128).contains(&v4.octets()[1]), "{v4}");
        }
        let v6 = source_for("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        assert_eq!(v6, IpAddr::V6(Ipv6Addr::LOCALHOST));
    }
}

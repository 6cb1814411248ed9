//! One steered connection: found out what it speaks, then served.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{io, net::TcpStream, sync::watch};

use super::{
    detect::{Look, Protocol},
    dial::{DialError, Dialed, Next, dial, dial_out},
    enforcement::{Begun, Enforcer},
    programs::Peers,
    relay::{End, read_what_came, relay, reset, write_all},
    workload::{Counts, Direction, Phase, Workload},
};

/// How long a client that has begun may take to show what it speaks. One that says nothing may take
/// as long as it likes.
const PATIENCE: Duration = Duration::from_secs(2);
const READ: usize = 8 << 10;

/// Counted as open for as long as this lives.
struct Open<'a>(&'a Counts);

impl<'a> Open<'a> {
    fn new(counts: &'a Counts) -> Self {
        Counts::add(&counts.open);
        Self(counts)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves until both sides have ended, or the workload is cut.
pub async fn serve(
    client: TcpStream,
    from: SocketAddr,
    peers: Peers,
    enforcer: Enforcer,
    workload: Arc<Workload>,
    direction: Direction,
    mut phase: watch::Receiver<Phase>,
) {
    let counts = workload.counts_of(direction);
    let _open = Open::new(counts);
    Counts::add(&counts.accepted);
    let Ok(to) = client.local_addr() else {
        // Gone before it was accepted.
        Counts::add(&counts.broken);
        return;
    };
    let to = match (&workload.outbound, direction) {
        (Some(outgoing), Direction::Outbound) => outgoing.destinations.take(from),
        _ => (!workload.listeners.contains(&to)).then_some(to),
    };
    let Some(to) = to else {
        Counts::add(&counts.direct);
        reset(&client);
        return;
    };
    let client = Rc::new(client);
    tokio::select! {
        () = carry(&client, &peers, &enforcer, &workload, direction, from, to) => {}
        _ = phase.wait_for(|phase| *phase == Phase::Cut) => {
            Counts::add(&counts.broken);
            reset(&client);
        }
    }
}

async fn carry(
    client: &Rc<TcpStream>,
    peers: &Peers,
    enforcer: &Enforcer,
    workload: &Arc<Workload>,
    direction: Direction,
    from: SocketAddr,
    to: SocketAddr,
) {
    let counts = workload.counts_of(direction);
    let policies_for = |protocol, is_server_first: bool| match protocol {
        Protocol::Http1 | Protocol::Http2 if !is_server_first => {
            enforcer.policies_of(workload, direction)
        }
        _ => None,
    };
    let mut look = Look::default();
    let mut first = Vec::new();
    let Ok(at_once) = look_at_once(client, &mut look, &mut first) else {
        reset(client);
        Counts::add(&counts.broken);
        return;
    };
    let at_once = at_once.map(|protocol| (protocol, policies_for(protocol, false)));
    let next = match &at_once {
        None => Next::Unknown,
        Some((_, Some(_))) => Next::Soon,
        Some((_, None)) => Next::Now(&first),
    };
    let application = match connect(workload, direction, peers, (from, to), next).await {
        Ok(dialed) => dialed,
        Err(error) => {
            tracing::debug!(workload = workload.spec.name, %to, %error, "not reachable");
            Counts::add(&counts.unreachable);
            reset(client);
            return;
        }
    };
    let looked = match at_once {
        Some((protocol, policies)) => {
            Ok((Looked { protocol, is_server_first: false, rest: None }, policies))
        }
        None => look_on(client, &application, look, &mut first).await.map(|looked| {
            let policies = policies_for(looked.protocol, looked.is_server_first);
            (looked, policies)
        }),
    };
    let end = match looked {
        Ok((Looked { protocol, is_server_first, rest }, policies)) => {
            Counts::add(match protocol {
                Protocol::Http1 => &counts.http1,
                Protocol::Http2 => &counts.http2,
                Protocol::Tls => &counts.tls,
                Protocol::Other => &counts.other,
            });
            if is_server_first {
                Counts::add(&counts.server_first);
            }
            if let Some(policies) = policies {
                let client = Rc::clone(client);
                let begun = Begun {
                    client,
                    application,
                    protocol,
                    first,
                    from,
                    to,
                    workload,
                    direction,
                    peers,
                };
                // Apart, so that connections that only pass do not have room for it.
                return Box::pin(enforcer.serve(begun, policies)).await;
            }
            let unsent = first.get(application.sent..).unwrap_or_default();
            match write_all(&application.stream, unsent).await {
                Ok(()) => {
                    drop(first);
                    relay(client, &application.stream, rest).await
                }
                Err(_) => {
                    reset(client);
                    End::Broken
                }
            }
        }
        Err(_) => {
            reset(client);
            reset(&application.stream);
            End::Broken
        }
    };
    match end {
        End::Done => {}
        End::Broken => Counts::add(&counts.broken),
        End::LateHttp => {
            Counts::add(&counts.late_http);
            tracing::warn!(
                workload = workload.spec.name, client = %from,
                "a connection that had passed as no HTTP turned out to be HTTP, and was cut"
            );
        }
    }
}

/// To where the connection was going: the application, or what the application calls.
pub(super) async fn connect(
    workload: &Workload,
    direction: Direction,
    peers: &Peers,
    (from, to): (SocketAddr, SocketAddr),
    next: Next<'_>,
) -> Result<Dialed, DialError> {
    let namespace = &workload.place.namespace;
    match direction {
        Direction::Inbound => dial(namespace, workload.netns, peers, (from, to), next).await,
        Direction::Outbound => dial_out(namespace, to).await,
    }
}

struct Looked {
    protocol: Protocol,
    is_server_first: bool,
    /// Where the client could still turn out to speak HTTP.
    rest: Option<Look>,
}

/// Most clients have begun to speak by the time that they are accepted, and that decides.
fn look_at_once(
    client: &TcpStream,
    look: &mut Look,
    first: &mut Vec<u8>,
) -> io::Result<Option<Protocol>> {
    let Some(came) = read_what_came(client, READ)? else { return Ok(None) };
    *first = came;
    // One that has nothing to say, and has said so, says nothing more.
    let is_over = first.is_empty().then_some(Protocol::Other);
    Ok(is_over.or_else(|| look.see(first)))
}

/// Reads until it is clear what the client speaks; what was read is in `first`.
async fn look_on(
    client: &TcpStream,
    application: &Dialed,
    mut look: Look,
    first: &mut Vec<u8>,
) -> io::Result<Looked> {
    let patience = tokio::time::sleep(PATIENCE);
    tokio::pin!(patience);
    let mut has_application_spoken = false;
    loop {
        tokio::select! {
            biased;
            readable = client.readable() => readable?,
            spoken = has_spoken(&application.stream), if first.is_empty() && !has_application_spoken => {
                has_application_spoken = true;
                if spoken? == Speech::Other {
                    return Ok(Looked { protocol: Protocol::Other, is_server_first: true, rest: Some(look) });
                }
                // An HTTP/2 server may send its settings before the client's preface.
                continue;
            }
            () = &mut patience, if !first.is_empty() => {
                let protocol = look.when_out_of_patience();
                return Ok(Looked { protocol, is_server_first: false, rest: Some(look) });
            }
        }
        if first.is_empty() {
            patience.as_mut().reset(tokio::time::Instant::now() + PATIENCE);
        }
        let begin = first.len();
        first.resize(begin + READ, 0);
        let read = match client.try_read(first.get_mut(begin..).unwrap_or_default()) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                first.truncate(begin);
                continue;
            }
            other => other?,
        };
        first.truncate(begin + read);
        let decided = look.see(first.get(begin..).unwrap_or_default());
        if let Some(protocol) = decided {
            return Ok(Looked { protocol, is_server_first: false, rest: None });
        }
        if read == 0 {
            // It has said all it will.
            return Ok(Looked { protocol: Protocol::Other, is_server_first: false, rest: None });
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    Http2Settings,
    Other,
}

/// Waits for the application to say something, and leaves it unread.
async fn has_spoken(application: &TcpStream) -> io::Result<Speech> {
    // RFC 9113 section 3.4: a server's preface is a SETTINGS frame on stream 0, not an
    // acknowledgement; section 4.1: length, type, flags, stream.
    let mut header = [0; 9];
    let read = application.peek(&mut header).await?;
    let [_, _, _, kind, flags, stream @ ..] = header;
    let is_settings = read == header.len() && kind == 4 && flags == 0 && stream == [0; 4];
    Ok(if is_settings { Speech::Http2Settings } else { Speech::Other })
}

//! The control socket: for root alone, one registry behind it.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use super::{
    error::RedirectError,
    protocol::{Envelope, LINE, OPERATOR, Reply, Request},
    registry::Registry,
};

/// Controllers and operators at a time.
const CLIENTS: usize = 64;
const SWEEP: Duration = Duration::from_secs(5);
/// How long the agent that has taken over may take to hang up.
const FAREWELL: Duration = Duration::from_secs(5);

/// A request on its way to the registry.
struct Asked {
    client: u64,
    request: Request,
    source: String,
    named: BTreeSet<String>,
    answer: oneshot::Sender<Reply>,
}

enum Message {
    Asked(Box<Asked>),
    Gone(u64),
}

/// Why serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Stopped,
    /// Another agent has everything now.
    HandedOver,
}

/// Listens beside `path` and then takes its place, so that there is always someone to answer.
pub(super) fn bind(path: &Path) -> Result<UnixListener, RedirectError> {
    let failed = |what: &'static str| {
        let path = path.to_owned();
        move |source| RedirectError::File { what, path, source }
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(failed("cannot listen at"))?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&beside, path))
        .map_err(failed("cannot put the socket at"))?;
    Ok(listener)
}

/// Answers until it is told to stop, or another agent has taken over.
pub(super) async fn serve(
    listener: UnixListener,
    registry: &mut Registry,
    mut stop: watch::Receiver<bool>,
) -> Ended {
    let (sender, mut messages) = mpsc::channel::<Message>(CLIENTS);
    let mut clients = JoinSet::new();
    let mut numbers = 0;
    let mut sweep = tokio::time::interval(SWEEP);
    // The client that is taking over: nothing may change meanwhile.
    let mut heir = None;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ended::Stopped,
            _ = sweep.tick() => if heir.is_none() { registry.sweep() },
            Some(_) = clients.join_next() => {}
            accepted = listener.accept(), if clients.len() < CLIENTS => {
                let Ok((stream, _)) = accepted else { continue };
                if !is_allowed(&stream) {
                    tracing::warn!("a process of another user was refused at the control socket");
                    continue;
                }
                numbers += 1;
                let (sender, number) = (sender.clone(), numbers);
                clients.spawn_local(async move {
                    if let Err(error) = converse(stream, number, &sender).await {
                        tracing::debug!(%error, "a control connection ended");
                    }
                    let _ = sender.send(Message::Gone(number)).await;
                });
            }
            Some(message) = messages.recv() => match message {
                Message::Gone(client) => {
                    if heir == Some(client) {
                        tracing::warn!("the agent that was taking over is gone; this one goes on");
                        heir = None;
                    }
                }
                Message::Asked(asked) => {
                    let is_done = matches!(asked.request, Request::TakenOver) && heir == Some(asked.client);
                    answer(registry, *asked, &mut heir).await;
                    if is_done {
                        // Until it has read the answer and hung up. What others ask now is not
                        // answered: they find the other agent when they ask again.
                        let hung_up = async {
                            while let Some(message) = messages.recv().await {
                                if matches!(message, Message::Gone(client) if Some(client) == heir) {
                                    break;
                                }
                            }
                        };
                        let _ = tokio::time::timeout(FAREWELL, hung_up).await;
                        return Ended::HandedOver;
                    }
                }
            },
        }
    }
}

/// Root, or the user that the agent runs as.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

async fn answer(registry: &mut Registry, asked: Asked, heir: &mut Option<u64>) {
    let Asked { client, request, source, named, answer } = asked;
    let changes = matches!(
        request,
        Request::Add { .. } | Request::Remove { .. } | Request::RemoveAll | Request::SnapshotEnd
    );
    let reply = if changes && heir.is_some() {
        Reply::failed(RedirectError::HandingOver)
    } else {
        match request {
            Request::Hello { .. } | Request::Keep { .. } => Reply::done(),
            Request::Add { workload } => match registry.enrol(workload, &source, None).await {
                Ok(()) => Reply::done(),
                Err(error) => Reply::failed(error),
            },
            Request::Remove { name } => match registry.remove(&name) {
                Ok(()) => Reply::done(),
                Err(error) => Reply::failed(error),
            },
            Request::RemoveAll => Reply { removed: Some(registry.remove_all()), ..Reply::done() },
            Request::SnapshotEnd => {
                Reply { removed: Some(registry.keep_only(&source, &named)), ..Reply::done() }
            }
            Request::List => Reply { workloads: Some(registry.list()), ..Reply::done() },
            Request::TakeOver if heir.is_some_and(|heir| heir != client) => {
                Reply::failed(RedirectError::HandingOver)
            }
            Request::TakeOver => {
                *heir = Some(client);
                Reply { handed: Some(registry.export()), ..Reply::done() }
            }
            Request::TakenOver if *heir == Some(client) => {
                registry.hand_over();
                Reply::done()
            }
            Request::TakenOver => Reply::failed("`take_over` comes first"),
        }
    };
    let _ = answer.send(reply);
}

async fn converse(
    stream: UnixStream,
    client: u64,
    registry: &mpsc::Sender<Message>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut source = OPERATOR.to_owned();
    // What this connection has named, for `snapshot_end`.
    let mut named = BTreeSet::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(LINE).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n");
        let (id, reply) = match serde_json::from_slice::<Envelope>(&line) {
            Ok(Envelope { id, request }) => {
                match &request {
                    Request::Hello { source: given } => source = given.clone(),
                    Request::Add { workload } => {
                        named.insert(workload.name.clone());
                    }
                    Request::Keep { name } => {
                        named.insert(name.clone());
                    }
                    Request::Remove { name } => {
                        named.remove(name);
                    }
                    _ => {}
                }
                let is_end = matches!(request, Request::SnapshotEnd);
                let (answer, answered) = oneshot::channel();
                let asked = Asked {
                    client,
                    request,
                    source: source.clone(),
                    named: if is_end { std::mem::take(&mut named) } else { BTreeSet::new() },
                    answer,
                };
                if registry.send(Message::Asked(Box::new(asked))).await.is_err() {
                    return Ok(());
                }
                let Ok(reply) = answered.await else { return Ok(()) };
                (id, reply)
            }
            Err(error) => (None, Reply::failed(format!("not a request: {error}"))),
        };
        let mut text = serde_json::to_vec(&Reply { id, ..reply })?;
        text.push(b'\n');
        writer.write_all(&text).await?;
        if !is_whole {
            // The end of the stream, or of what is read of one line: what follows is no request.
            return Ok(());
        }
    }
}

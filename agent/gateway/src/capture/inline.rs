//! Inline capture: a pass-through listener in front of `--target`. Bytes pass unchanged, in both
//! directions, half-closes included; a copy goes to the analysis.
//!
//! The analysis never slows the data path: the hand-off is bounded in messages and bytes, and
//! what does not fit is counted and told to the reader as a gap.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use stoa_wire::segment::{Direction, Endpoints, Event, FlowId, Loss, Nanos, Segment};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Semaphore, mpsc, watch},
};

use super::{CaptureError, CaptureSource, ServiceCounters};
use crate::config::shadow::Target;

/// Messages that may wait for the analysis.
const QUEUE_MESSAGES: usize = 8192;
/// Events handed on by one `drain`, so that the analysis gets to its other duties.
const EVENTS_PER_DRAIN: usize = 4096;
/// A stream's first byte has number 1 where its SYN has 0, as a recording of it shows.
const FIRST_SEQ: u32 = 1;
const READ_BUFFER: usize = 16 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub struct InlineConfig {
    pub listen: SocketAddr,
    pub target: Target,
    pub service: u32,
    pub max_connections: usize,
    /// Payload bytes that may wait for the analysis.
    pub queue_bytes: usize,
}

/// The owner of the listener's thread; lives on the analysis thread.
pub struct InlineSource {
    service: u32,
    description: Vec<String>,
    address: SocketAddr,
    queue: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    due_segments: AtomicU64,
    due_bytes: AtomicU64,
    captured_segments: AtomicU64,
    captured_bytes: AtomicU64,
    lost_segments: AtomicU64,
    lost_bytes: AtomicU64,
    connections: AtomicU64,
    connections_refused: AtomicU64,
    connect_errors: AtomicU64,
    is_finished: AtomicBool,
}

enum Message {
    Open { flow: FlowId, at: Nanos, endpoints: Endpoints },
    Data { flow: FlowId, direction: Direction, at: Nanos, seq: u32, bytes: Bytes },
    Lost { flow: FlowId, direction: Direction, at: Nanos, seq: u32, len: u32 },
    End { flow: FlowId, direction: Direction, at: Nanos, seq: u32 },
    Close { flow: FlowId, at: Nanos },
}

impl InlineSource {
    /// Listens, and starts the thread that passes bytes through.
    pub fn start(config: InlineConfig) -> Result<Self, CaptureError> {
        let refused = |source| CaptureError::Listen { address: config.listen.to_string(), source };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(refused)?;
        let listener = std::net::TcpListener::bind(config.listen).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let (sender, queue) = mpsc::channel(QUEUE_MESSAGES);
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::default());
        let description = vec![
            format!(
                "Inline: clients that connect to {address} are passed through to {}:{}, byte for byte",
                config.target.host, config.target.port
            ),
            "Inline: only connections made through this listener are seen; no privilege needed"
                .to_owned(),
        ];
        let service = config.service;
        let tap = Tap { queue: sender, shared: Arc::clone(&shared), config: Arc::new(config) };
        let thread = std::thread::Builder::new()
            .name("inline".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => tap.serve(listener, stopped).await,
                        Err(error) => {
                            tracing::error!(%error, "Inline: the listener cannot be used");
                            tap.shared.is_finished.store(true, Ordering::Release);
                        }
                    }
                });
            })
            .map_err(|e| CaptureError::Stopped(format!("no thread for the listener: {e}")))?;
        Ok(Self { service, description, address, queue, shared, stop, thread: Some(thread) })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl CaptureSource for InlineSource {
    fn describe(&self) -> Vec<String> {
        self.description.clone()
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Event<'_>)) -> Result<usize, CaptureError> {
        let mut count = 0;
        while count < EVENTS_PER_DRAIN {
            let Ok(message) = self.queue.try_recv() else { break };
            count += 1;
            match message {
                Message::Open { flow, at, endpoints } => {
                    emit(Event::Open { flow, at, endpoints, from_start: true });
                }
                Message::Data { flow, direction, at, seq, bytes } => {
                    self.shared.queued_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
                    emit(Event::Segment(segment(flow, direction, at, seq, &bytes, false)));
                }
                Message::Lost { flow, direction, at, seq, len } => {
                    emit(Event::Lost { flow, direction, at, seq, len, reason: Loss::RingFull });
                }
                Message::End { flow, direction, at, seq } => {
                    emit(Event::Segment(segment(flow, direction, at, seq, &[], true)));
                }
                Message::Close { flow, at } => emit(Event::Close { flow, at }),
            }
        }
        Ok(count)
    }

    fn counters(&self) -> Vec<ServiceCounters> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let lost_segments = read(&self.shared.lost_segments);
        vec![ServiceCounters {
            service: self.service,
            due_segments: read(&self.shared.due_segments),
            due_bytes: read(&self.shared.due_bytes),
            captured_segments: read(&self.shared.captured_segments),
            captured_bytes: read(&self.shared.captured_bytes),
            lost: match lost_segments {
                0 => Vec::new(),
                _ => vec![(Loss::RingFull, lost_segments, read(&self.shared.lost_bytes))],
            },
            shed_exchanges: 0,
        }]
    }

    fn refresh(&mut self) -> Result<(), CaptureError> {
        match self.shared.is_finished.load(Ordering::Acquire) && !*self.stop.borrow() {
            true => Err(CaptureError::Stopped("the Inline listener ended".to_owned())),
            false => Ok(()),
        }
    }

    fn stop(&mut self) {
        self.stop.send_replace(true);
    }

    fn is_stopped(&self) -> bool {
        self.shared.is_finished.load(Ordering::Acquire) && self.queue.is_empty()
    }

    fn source_counters(&self) -> Vec<(&'static str, u64)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("inline_connections", read(&self.shared.connections)),
            ("inline_connections_refused", read(&self.shared.connections_refused)),
            ("inline_connect_errors", read(&self.shared.connect_errors)),
            (
                "inline_queued_bytes",
                u64::try_from(self.shared.queued_bytes.load(Ordering::Relaxed)).unwrap_or(u64::MAX),
            ),
        ]
    }
}

impl Drop for InlineSource {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        // Unblocks senders that wait to report the end of a connection.
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn segment<'a>(
    flow: FlowId,
    direction: Direction,
    at: Nanos,
    seq: u32,
    data: &'a [u8],
    fin: bool,
) -> Segment<'a> {
    Segment {
        flow,
        direction,
        at,
        seq,
        ack: None,
        syn: false,
        fin,
        rst: false,
        len: u32::try_from(data.len()).unwrap_or(u32::MAX),
        data,
        missing: None,
    }
}

fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What every connection's task shares.
#[derive(Clone)]
struct Tap {
    queue: mpsc::Sender<Message>,
    shared: Arc<Shared>,
    config: Arc<InlineConfig>,
}

impl Tap {
    async fn serve(self, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(self.config.max_connections));
        let mut flows = 0_u64;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
            let (client, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // EMFILE and the like: the listener is still good.
                    tracing::warn!(%error, "Inline: a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                self.shared.connections_refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    limit = self.config.max_connections,
                    "Inline: too many connections at once, one was refused; raise --max-connections"
                );
                continue;
            };
            flows += 1;
            let tap = self.clone();
            let flow = FlowId(flows);
            tokio::spawn(async move {
                tap.pass_connection(flow, client, peer).await;
                drop(permit);
            });
        }
        drop(listener);
        // Connections that are open when the agent stops get a moment to end by themselves.
        let all = u32::try_from(self.config.max_connections).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(Duration::from_secs(1), permits.acquire_many(all)).await;
        self.shared.is_finished.store(true, Ordering::Release);
    }

    async fn pass_connection(&self, flow: FlowId, mut client: TcpStream, peer: SocketAddr) {
        let Target { host, port } = &self.config.target;
        let connect = TcpStream::connect((host.as_str(), *port));
        let mut server = match tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        {
            Ok(server) => server,
            Err(error) => {
                let failures = self.shared.connect_errors.fetch_add(1, Ordering::Relaxed) + 1;
                // The first of each power of two, so that a target that is down fills no disk.
                if failures.is_power_of_two() {
                    tracing::error!(
                        target_host = %host, target_port = port, %error, failures,
                        "Inline: cannot connect to the target; the client's connection was reset. Is it running, and is --target right?"
                    );
                }
                reset(&client);
                return;
            }
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        let server_address =
            server.peer_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], *port)));
        let endpoints =
            Endpoints { client: peer, server: server_address, service: self.config.service };
        let is_open = self.queue.try_send(Message::Open { flow, at: now(), endpoints }).is_ok();

        let mut requests = self.direction(flow, Direction::ToServer, is_open);
        let mut responses = self.direction(flow, Direction::ToClient, is_open);
        let ended = {
            let (client_read, client_write) = client.split();
            let (server_read, server_write) = server.split();
            tokio::try_join!(
                pass_bytes(client_read, server_write, &mut requests),
                pass_bytes(server_read, client_write, &mut responses),
            )
        };
        if ended.is_err() {
            // One side was reset or went away: the other learns of it in the same way.
            reset(&client);
            reset(&server);
        }
        requests.report_gap();
        responses.report_gap();
        if is_open {
            // May wait: the connection is over, so nobody is held up.
            let _ = self.queue.send(Message::Close { flow, at: now() }).await;
        }
    }

    fn direction(&self, flow: FlowId, direction: Direction, is_open: bool) -> OneWay {
        OneWay { tap: self.clone(), flow, direction, is_open, next_seq: FIRST_SEQ, gap: None }
    }
}

/// Closing a socket with linger 0 sends RST (socket(7)).
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Copies until the end of the stream, then passes the half-close on.
async fn pass_bytes(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    observer: &mut OneWay,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        let n = from.read(&mut buffer).await?;
        let Some(data) = buffer.get(..n).filter(|data| !data.is_empty()) else { break };
        // Before it is written, so that a request is queued before its response can exist.
        observer.see(data);
        to.write_all(data).await?;
    }
    observer.end();
    to.shutdown().await
}

/// One direction of one connection, as the analysis is told of it.
struct OneWay {
    tap: Tap,
    flow: FlowId,
    direction: Direction,
    /// False where the queue had no room even for the connection's beginning.
    is_open: bool,
    next_seq: u32,
    /// First sequence number and length of bytes that were passed on and not handed over.
    gap: Option<(u32, u32)>,
}

impl OneWay {
    fn see(&mut self, data: &[u8]) {
        let shared = &self.tap.shared;
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let seq = self.next_seq;
        self.next_seq = seq.wrapping_add(len);
        shared.due_segments.fetch_add(1, Ordering::Relaxed);
        shared.due_bytes.fetch_add(u64::from(len), Ordering::Relaxed);
        if self.hand_over(seq, data) {
            let shared = &self.tap.shared;
            shared.captured_segments.fetch_add(1, Ordering::Relaxed);
            shared.captured_bytes.fetch_add(u64::from(len), Ordering::Relaxed);
            return;
        }
        let shared = &self.tap.shared;
        shared.lost_segments.fetch_add(1, Ordering::Relaxed);
        shared.lost_bytes.fetch_add(u64::from(len), Ordering::Relaxed);
        self.gap = match self.gap {
            // A gap is at most 1 GiB long, so that sequence numbers stay comparable.
            Some((start, so_far)) if so_far < 1 << 30 => Some((start, so_far + len)),
            _ => Some((seq, len)),
        };
    }

    /// False where there is no room.
    fn hand_over(&mut self, seq: u32, data: &[u8]) -> bool {
        if !self.is_open || !self.report_gap() {
            return false;
        }
        let shared = &self.tap.shared;
        let queued = shared.queued_bytes.fetch_add(data.len(), Ordering::Relaxed);
        let has_room = queued.saturating_add(data.len()) <= self.tap.config.queue_bytes;
        let message = || Message::Data {
            flow: self.flow,
            direction: self.direction,
            at: now(),
            seq,
            bytes: Bytes::copy_from_slice(data),
        };
        let is_sent = has_room && self.tap.queue.try_send(message()).is_ok();
        if !is_sent {
            shared.queued_bytes.fetch_sub(data.len(), Ordering::Relaxed);
        }
        is_sent
    }

    /// Tells the reader that it need not wait for the bytes of a gap. False where there is a gap
    /// and no room to tell of it.
    fn report_gap(&mut self) -> bool {
        let Some((seq, len)) = self.gap else { return true };
        let message =
            Message::Lost { flow: self.flow, direction: self.direction, at: now(), seq, len };
        let is_sent = self.is_open && self.tap.queue.try_send(message).is_ok();
        if is_sent {
            self.gap = None;
        }
        is_sent
    }

    fn end(&mut self) {
        if self.is_open && self.report_gap() {
            let (flow, direction, seq) = (self.flow, self.direction, self.next_seq);
            // Where there is no room, the connection's close says the same a little later.
            let _ = self.tap.queue.try_send(Message::End { flow, direction, at: now(), seq });
        }
    }
}

#[cfg(test)]
mod tests;

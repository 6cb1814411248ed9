//! The analysis thread: drains the source, reads, redacts, records. It is the only owner of the
//! source, the reader and the book; others ask it by message and get a copy.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{JoinHandle, Thread},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use stoa_contract::knowledge::ServiceKnowledge;
use stoa_wire::{
    Counters, Reader, ReaderConfig,
    recording::Recorder,
    segment::{Event, name_of_server},
};
use tokio::sync::oneshot;

use super::{
    book::{Book, Tally},
    intake::Intake,
    keeper::Keeper,
    pace::Pace,
    priority,
};
use crate::capture::{CaptureSource, ServiceCounters, port_mirror::MirroredServices};

const PUBLISH_EVERY: Duration = Duration::from_millis(250);
const FLUSH_EVERY: Duration = Duration::from_millis(1500);
/// How long what is under way may take to end when the agent stops, and what was captured may be
/// examined.
const STOP_WITHIN: Duration = Duration::from_secs(5);
const RECORD_LIMIT: u64 = 1 << 30;
/// Written at once: a write for each few exchanges costs more than reading them.
const RECORD_BUFFER: usize = 256 << 10;

/// Where exchanges come from.
pub enum Feed {
    Live(Box<dyn CaptureSource>),
    /// A pcap or pcapng file, read once from beginning to end.
    File {
        path: PathBuf,
        services: MirroredServices,
    },
}

/// What the analysis is doing, as of at most a quarter of a second ago.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub tallies: BTreeMap<u32, Tally>,
    pub counters: Vec<ServiceCounters>,
    pub source_counters: Vec<(&'static str, u64)>,
    pub reader: Counters,
    pub knowledge_bytes: usize,
    /// Names the state of the numbers: where it is the same, nothing was recorded in between.
    pub events: u64,
    /// The file that was to be read has been read.
    pub is_finished: bool,
    /// Why nothing more is captured.
    pub failure: Option<String>,
}

/// What is held in memory of one service; the store has the rest, in other parts.
pub struct LiveCopy {
    pub part: String,
    pub knowledge: ServiceKnowledge,
}

enum Request {
    Copy { service: String, reply: oneshot::Sender<LiveCopy> },
    Stop,
}

/// The analysis, as the rest of the agent holds it.
#[derive(Clone)]
pub struct AnalysisHandle {
    requests: mpsc::SyncSender<Request>,
    thread: Thread,
    published: Arc<Published>,
}

#[derive(Default)]
struct Published {
    snapshot: Mutex<Arc<Snapshot>>,
    is_over: AtomicBool,
}

impl AnalysisHandle {
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.published.snapshot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A copy of what is held of a service. `None` once the analysis has ended.
    pub async fn copy(&self, service: &str) -> Option<LiveCopy> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Copy { service: service.to_owned(), reply };
        self.requests.try_send(request).ok()?;
        self.thread.unpark();
        answer.await.ok()
    }

    pub fn stop(&self) {
        // The queue is drained every few milliseconds; it is full only for a moment.
        let _ = self.requests.send(Request::Stop);
        self.thread.unpark();
    }

    pub fn is_over(&self) -> bool {
        self.published.is_over.load(Ordering::Acquire)
    }
}

pub struct AnalysisConfig {
    pub reader: ReaderConfig,
    /// `None`: only what nobody else wants.
    pub nice: Option<i32>,
    pub record: Option<PathBuf>,
}

struct Analysis {
    book: Book,
    keeper: Keeper,
    requests: mpsc::Receiver<Request>,
    published: Arc<Published>,
    recorder: Option<EventFile>,
    last_publish: Instant,
    last_flush: Instant,
    events: u64,
    /// To whoever wakes: the thread is of the idle class.
    gives_way: bool,
    is_stopping: bool,
    is_finished: bool,
    failure: Option<String>,
}

/// Starts the thread.
pub fn start(
    config: AnalysisConfig,
    feed: Feed,
    book: Book,
    keeper: Keeper,
) -> io::Result<(AnalysisHandle, JoinHandle<()>)> {
    let recorder = match &config.record {
        Some(path) => Some(EventFile::make(path)?),
        None => None,
    };
    let (sender, requests) = mpsc::sync_channel(64);
    // Services that are watched are known before the thread's first round.
    let first = Snapshot { tallies: book.tallies(), ..Snapshot::default() };
    let published =
        Arc::new(Published { snapshot: Mutex::new(Arc::new(first)), ..Published::default() });
    let analysis = Analysis {
        book,
        keeper,
        requests,
        published: Arc::clone(&published),
        recorder,
        last_publish: Instant::now(),
        last_flush: Instant::now(),
        events: 0,
        gives_way: config.nice.is_none(),
        is_stopping: false,
        is_finished: false,
        failure: None,
    };
    let nice = config.nice;
    let over = Arc::clone(&published);
    let thread = std::thread::Builder::new().name("analysis".to_owned()).spawn(move || {
        if let Err(error) = priority::give_way(nice) {
            tracing::warn!(error, "the analysis thread keeps its priority");
        }
        let run = std::panic::AssertUnwindSafe(|| analysis.run(feed, config.reader));
        if std::panic::catch_unwind(run).is_err() {
            tracing::error!("the analysis thread failed; nothing more is captured");
        }
        over.is_over.store(true, Ordering::Release);
    })?;
    let handle = AnalysisHandle { requests: sender, thread: thread.thread().clone(), published };
    Ok((handle, thread))
}

impl Analysis {
    fn run(mut self, feed: Feed, config: ReaderConfig) {
        let (counters, source) = match feed {
            Feed::Live(source) => self.run_live(source, config),
            Feed::File { path, services } => (self.run_file(&path, services, config), None),
        };
        if let Some(recorder) = self.recorder.take() {
            recorder.finish();
        }
        self.flush_all();
        self.publish(&counters, source.as_deref());
    }

    fn run_live(
        &mut self,
        mut source: Box<dyn CaptureSource>,
        config: ReaderConfig,
    ) -> (Counters, Option<Box<dyn CaptureSource>>) {
        let mut reader = Reader::new(config);
        let mut last_second = Instant::now();
        let mut stopping_since = None;
        let mut pace = Pace::new(self.gives_way);
        let mut intake = Intake::new(Instant::now());
        self.publish(reader.counters(), Some(source.as_ref()));
        loop {
            let drained = self.drain(source.as_mut(), &mut reader);
            self.answer();
            if self.is_stopping {
                let since = *stopping_since.get_or_insert_with(|| {
                    source.stop();
                    // On a busy node a thread that gives way to all others would not get to the
                    // end of what was captured.
                    if let Err(error) = priority::compete() {
                        tracing::debug!(error, "the analysis thread keeps its priority");
                    }
                    Instant::now()
                });
                if drained == 0 && source.is_stopped() {
                    break;
                }
                if since.elapsed() > STOP_WITHIN {
                    if !source.is_stopped() {
                        // Connections that go on.
                        break;
                    }
                    // What is left has an end. It is read, so that all of it is counted.
                    self.book.only_count();
                }
            }
            if last_second.elapsed() >= Duration::from_secs(1) {
                last_second = Instant::now();
                let book = &mut self.book;
                reader.expire(now_nanos(), &mut |exchange| book.record(&exchange));
                if self.failure.is_none()
                    && let Err(error) = source.refresh()
                {
                    tracing::warn!(%error, "capture");
                }
            }
            let now = Instant::now();
            if !self.is_stopping && intake.is_due(now) {
                // What it goes by is published, so that it is asked for once.
                let published = self.publish(reader.counters(), Some(source.as_ref()));
                let read = published.reader.exchanges();
                let shed = published.counters.iter().map(|c| c.shed_exchanges).sum();
                source.sample(intake.note(now, read, shed, pace.are_cpus_short()));
            }
            self.tend(reader.counters(), Some(source.as_ref()));
            // What is left at the end has to be read in time.
            if drained == 0 || !self.is_stopping {
                pace.rest(drained);
                self.book.set_behind(pace.is_far_behind() || intake.is_limited());
            }
        }
        let book = &mut self.book;
        reader.finish(&mut |exchange| book.record(&exchange));
        (reader.counters().clone(), Some(source))
    }

    /// Returns the number of events.
    fn drain(&mut self, source: &mut dyn CaptureSource, reader: &mut Reader) -> usize {
        if self.failure.is_some() {
            return 0;
        }
        let Self { book, recorder, .. } = self;
        let drained = source.drain(&mut |event| {
            // A source that was given no names finds services by their address.
            if let Event::Open { endpoints, .. } = &event
                && !book.has_service(endpoints.service)
            {
                book.name_service(endpoints.service, &name_of_server(endpoints.server));
            }
            if let Some(recorder) = recorder.as_mut() {
                recorder.record(event, book);
            }
            reader.push(event, &mut |exchange| book.record(&exchange));
        });
        match drained {
            Ok(count) => {
                self.events += count as u64;
                count
            }
            Err(error) => {
                tracing::error!(%error, "capture ended; what was captured is kept");
                self.failure = Some(error.to_string());
                0
            }
        }
    }

    fn run_file(
        &mut self,
        path: &Path,
        mut services: MirroredServices,
        config: ReaderConfig,
    ) -> Counters {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => {
                self.failure = Some(format!("cannot open {}: {error}", path.display()));
                return Counters::default();
            }
        };
        let mut count = 0_u64;
        let read =
            stoa_wire::read_capture(io::BufReader::new(file), config, &mut |mut exchange| {
                let Some(number) = services.number(exchange.endpoints.server) else { return };
                if !self.book.has_service(number) {
                    self.book.name_service(number, &name_of_server(exchange.endpoints.server));
                }
                exchange.endpoints.service = number;
                self.book.record(&exchange);
                self.events += 1;
                count += 1;
                if count.is_multiple_of(256) {
                    self.answer();
                    self.tend(&Counters::default(), None);
                }
            });
        let counters = match read {
            Ok(summary) => {
                if summary.truncated_at.or(summary.damaged_at).is_some() {
                    tracing::warn!(
                        file = %path.display(),
                        "the capture file is cut off or damaged; what came before that was used"
                    );
                }
                summary.reader
            }
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "capture file");
                self.failure = Some(format!("{}: {error}", path.display()));
                Counters::default()
            }
        };
        self.is_finished = true;
        self.publish(&counters, None);
        while !self.is_stopping {
            self.answer();
            self.tend(&counters, None);
            std::thread::park_timeout(Duration::from_millis(50));
        }
        counters
    }

    fn answer(&mut self) {
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Copy { service, reply } => {
                    let knowledge = self.book.copy(&service);
                    let _ = reply.send(LiveCopy { part: self.book.part(), knowledge });
                }
                Request::Stop => self.is_stopping = true,
            }
        }
    }

    /// What is due every now and then.
    fn tend(&mut self, counters: &Counters, source: Option<&dyn CaptureSource>) {
        if self.last_publish.elapsed() >= PUBLISH_EVERY {
            self.publish(counters, source);
        }
        if self.last_flush.elapsed() >= FLUSH_EVERY && self.keeper.is_idle() {
            let now = now_seconds();
            if self.keeper.take_failure() {
                self.book.forget_written();
            }
            let began = Instant::now();
            let changes = self.book.take_changes(now);
            if self.book.should_start_part(now) {
                if self.keeper.write_and_wait(changes) {
                    self.book.start_part(now);
                } else {
                    self.book.forget_written();
                }
            } else if !changes.is_empty() && !self.keeper.write(changes) {
                self.book.forget_written();
            }
            // At most a twentieth of the time goes into encoding.
            self.last_flush = Instant::now() + began.elapsed() * 20;
        }
    }

    fn flush_all(&mut self) {
        if self.keeper.take_failure() {
            self.book.forget_written();
        }
        let changes = self.book.take_changes(now_seconds());
        if !self.keeper.write_and_wait(changes) {
            tracing::error!("the last observations could not be written to the store");
        }
    }

    fn publish(&mut self, reader: &Counters, source: Option<&dyn CaptureSource>) -> Arc<Snapshot> {
        self.last_publish = Instant::now();
        let snapshot = Arc::new(Snapshot {
            tallies: self.book.tallies(),
            counters: source.map(CaptureSource::counters).unwrap_or_default(),
            source_counters: source.map(CaptureSource::source_counters).unwrap_or_default(),
            reader: reader.clone(),
            knowledge_bytes: self.book.memory(),
            events: self.events,
            is_finished: self.is_finished,
            failure: self.failure.clone(),
        });
        *self.published.snapshot.lock().unwrap_or_else(PoisonError::into_inner) =
            Arc::clone(&snapshot);
        snapshot
    }
}

/// `--record`: what was captured, raw, for the one who debugs; stops at a size.
struct EventFile {
    recorder: Option<Recorder<Limited>>,
    path: PathBuf,
    named: std::collections::BTreeSet<u32>,
}

struct Limited {
    file: BufWriter<File>,
    left: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.left = self.left.saturating_sub(written as u64);
        match self.left {
            0 => Err(io::Error::other("it has reached 1 GiB")),
            _ => Ok(written),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl EventFile {
    fn make(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| {
            io::Error::new(e.kind(), format!("--record {}: {e}", path.display()))
        })?;
        let recorder = Recorder::new(Limited {
            file: BufWriter::with_capacity(RECORD_BUFFER, file),
            left: RECORD_LIMIT,
        })?;
        tracing::warn!(
            file = %path.display(),
            "recording RAW traffic, with whatever personal data is in it; at most 1 GiB"
        );
        Ok(Self { recorder: Some(recorder), path: path.to_owned(), named: Default::default() })
    }

    fn record(&mut self, event: Event<'_>, book: &Book) {
        let Some(recorder) = &mut self.recorder else { return };
        let mut write = || {
            if let Event::Open { endpoints, .. } = &event
                && self.named.insert(endpoints.service)
                && let Some(name) = book.name_of(endpoints.service)
            {
                recorder.name_service(endpoints.service, name)?;
            }
            recorder.record(event)
        };
        if let Err(error) = write() {
            tracing::error!(file = %self.path.display(), %error, "recording stopped");
            self.recorder = None;
        }
    }

    fn finish(self) {
        if let Some(recorder) = self.recorder
            && let Err(error) = recorder.finish()
        {
            tracing::error!(file = %self.path.display(), %error, "recording is not whole");
        }
    }
}

pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

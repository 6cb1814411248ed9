//! Against a real redis-server, on a Unix socket: no port is taken from anybody.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use stoa_policy::{counters::Subject, gcra::Rate};
use tempfile::TempDir;

use super::*;

struct Server {
    child: Child,
    dir: TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let child = Self::spawn(dir.path());
        Self { child, dir }
    }

    fn spawn(dir: &Path) -> Child {
        let socket = dir.join("redis.sock");
        let words = ["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"];
        let child = Command::new("redis-server")
            .args(words)
            .arg(&socket)
            .current_dir(dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server of Debian's package redis-server: `cargo xtask setup`");
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not start");
            std::thread::yield_now();
        }
        child
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.dir.path().join("redis.sock").display())
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _ = std::fs::remove_file(self.dir.path().join("redis.sock"));
    }

    fn restart(&mut self) {
        self.child = Self::spawn(self.dir.path());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Wide, for a machine that runs other tests too.
const PATIENT: RedisOptions =
    RedisOptions { timeout: Duration::from_secs(2), on_loss: OnLoss::Open };

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn start(url: &str, options: RedisOptions) -> Result<SharedInRedis, RedisUrlError> {
    let authorities = Authorities::load(None).unwrap();
    SharedInRedis::start(url, options, &authorities, &Handle::current())
}

async fn wait_until(shared: &SharedInRedis, is_answering: bool) {
    let wait = async {
        while shared.is_answering() != is_answering {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(Duration::from_secs(20), wait).await.unwrap();
}

fn draw<'a>(subject: Subject<'a>, rates: &'a [Rate]) -> Draw<'a> {
    Draw { set: "default", tenant: "acme", subject, rates }
}

async fn admitted(shared: &SharedInRedis, draws: &[Draw<'_>], times: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..times {
        let answers = shared.take(draws).await.unwrap();
        assert_eq!(answers.len(), draws.iter().map(|draw| draw.rates.len()).sum::<usize>());
        admitted += usize::from(answers.iter().all(|a| matches!(a, Answer::Admitted { .. })));
    }
    admitted
}

#[test]
fn two_nodes_share_one_limit() {
    let server = Server::start();
    let runtime = runtime();
    runtime.block_on(async {
        let node = || start(&server.url(), PATIENT).unwrap();
        let (one, two) = (node(), node());
        wait_until(&one, true).await;
        wait_until(&two, true).await;
        // An hour, so that no time on a busy machine makes room.
        let rates = [Rate::new(10, 3600, 0), Rate::new(1000, 86_400, 0)];
        let draws = [draw(Subject::Consumer("a"), &rates)];
        assert_eq!(admitted(&one, &draws, 6).await, 6);
        assert_eq!(admitted(&two, &draws, 6).await, 4);
        let Answer::Refused { retry_after, .. } = one.take(&draws).await.unwrap()[0] else {
            panic!("admitted")
        };
        let seconds = retry_after.as_secs();
        assert!((300..=360).contains(&seconds), "{seconds}");
        // What one limit refuses takes nothing from another.
        let tenant = [Rate::new(12, 3600, 0)];
        let both = [draws[0], draw(Subject::Tenant, &tenant)];
        assert_eq!(admitted(&one, &both, 5).await, 0);
        assert_eq!(admitted(&one, &[draw(Subject::Tenant, &tenant)], 20).await, 12);
    });
}

#[test]
fn two_nodes_share_one_quota() {
    let server = Server::start();
    let runtime = runtime();
    runtime.block_on(async {
        let node = || start(&server.url(), PATIENT).unwrap();
        let (one, two) = (node(), node());
        wait_until(&one, true).await;
        wait_until(&two, true).await;
        let count = |day, number| Count {
            set: "default",
            tenant: "acme",
            subject: Subject::Consumer("a"),
            day: Period { limit: day, number, ends_in: 100 },
            month: Period { limit: 0, number: 1, ends_in: 100 },
        };
        let used = async |node: &SharedInRedis, count| node.count(&[count]).await.unwrap()[0];
        let one_used = used(&one, count(3, 7)).await;
        assert_eq!(one_used, Used { day: 1, month: 1, is_admitted: true });
        assert!(used(&two, count(3, 7)).await.is_admitted);
        assert!(used(&one, count(3, 7)).await.is_admitted);
        let refused = used(&two, count(3, 7)).await;
        assert_eq!(refused, Used { day: 3, month: 3, is_admitted: false });
        // The next day; the month goes on.
        let next = used(&two, count(3, 8)).await;
        assert_eq!(next, Used { day: 1, month: 4, is_admitted: true });
    });
}

#[test]
fn a_lost_redis_is_counted_and_heals_by_itself() {
    let mut server = Server::start();
    let runtime = runtime();
    runtime.block_on(async {
        let shared = start(&server.url(), PATIENT).unwrap();
        wait_until(&shared, true).await;
        let rates = [Rate::new(10, 3600, 0)];
        let draws = [draw(Subject::Tenant, &rates)];
        assert_eq!(admitted(&shared, &draws, 2).await, 2);
        server.kill();
        for _ in 0..3 {
            let asked = Instant::now();
            assert_eq!(shared.take(&draws).await.unwrap_err(), Unavailable);
            assert!(asked.elapsed() < PATIENT.timeout + Duration::from_secs(1));
        }
        assert!(!shared.is_answering());
        assert_eq!((shared.losses(), shared.unanswered()), (1, 3));
        server.restart();
        wait_until(&shared, true).await;
        // It forgot: kept in memory only, its counters begin anew.
        assert_eq!(admitted(&shared, &draws, 20).await, 10);
        assert_eq!(shared.losses(), 1);
    });
}

#[test]
fn a_redis_that_hangs_costs_no_more_than_the_timeout() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("deaf.sock");
    // It accepts, by its backlog, and never says a word.
    let _deaf = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        let options = RedisOptions { timeout: Duration::from_millis(20), on_loss: OnLoss::Closed };
        let url = format!("redis+unix://{}", socket.display());
        let shared = start(&url, options).unwrap();
        let rates = [Rate::new(10, 3600, 0)];
        for _ in 0..50 {
            let draws = [draw(Subject::Tenant, &rates)];
            let asked = time::timeout(Duration::from_secs(1), shared.take(&draws)).await;
            assert_eq!(asked.unwrap().unwrap_err(), Unavailable);
        }
        assert_eq!(shared.unanswered(), 50);
        assert_eq!(shared.on_loss(), OnLoss::Closed);
    });
}

#[test]
fn what_is_no_address_is_refused() {
    let runtime = runtime();
    let error = runtime.block_on(async { start("http://x", PATIENT) }).unwrap_err();
    assert!(error.to_string().contains("redis://HOST:PORT"), "{error}");
}

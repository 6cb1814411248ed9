//! The torture corpus, sent to proxy mode, Envoy and nginx by the side of one another.
//!
//! Of proxy mode: every case ends as the corpus says; what reaches the upstream is read alike by
//! every reader, and is what proxy mode says it has sent. Of the others: where they do otherwise,
//! `tests/torture/DIFFERENCES.md` says so and why.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use sandbox::pause;
use system_tests::{
    stage,
    torture::{
        client,
        corpus::{self, Http2Case, RequestCase, ResponseCase, bytes_of},
        differences::{self, Observed},
        http2,
        outcome::Outcome,
        proxies::{Kind, Proxy},
        recorder::Script,
    },
};

/// One case's outcome, and the bytes that reached the upstream.
type Ran = (Outcome, Vec<u8>);

/// Runs all cases at each proxy, the three at once.
fn run<C: Sync>(
    dir: &Path,
    cases: &[C],
    case: impl Fn(&Proxy, &C) -> Result<Ran> + Sync,
) -> Result<[Vec<Ran>; 3]> {
    let at = |kind: Kind, name: &str| -> Result<Vec<Ran>> {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir)?;
        let mut proxy = Proxy::start(kind, &dir)?;
        let ran = cases.iter().map(|one| case(&proxy, one)).collect::<Result<Vec<_>>>();
        ensure!(proxy.process.is_running(), "{name} ended:\n{}", proxy.process.stderr());
        let ran = ran?;
        if kind == Kind::Ours {
            assert_counted(&proxy, &ran)?;
        }
        Ok(ran)
    };
    thread::scope(|scope| {
        let ours = scope.spawn(|| at(Kind::Ours, "ours"));
        let envoy = scope.spawn(|| at(Kind::Envoy, "envoy"));
        let nginx = scope.spawn(|| at(Kind::Nginx, "nginx"));
        let join = |handle: thread::ScopedJoinHandle<'_, Result<Vec<Ran>>>| {
            handle.join().map_err(|_| anyhow!("a thread panicked"))?
        };
        Ok([join(ours)?, join(envoy)?, join(nginx)?])
    })
}

/// What proxy mode says it has sent is what has arrived.
fn assert_counted(proxy: &Proxy, ran: &[Ran]) -> Result<()> {
    let mut arrived: Vec<String> = ran
        .iter()
        .flat_map(|(outcome, _)| &outcome.upstream)
        .filter_map(|text| text.rsplit_once(' '))
        .map(|(request, _)| request.split('?').next().unwrap_or_default().to_owned())
        .collect();
    arrived.sort();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut counted = proxy.counted()?;
        counted.sort();
        if counted == arrived {
            return Ok(());
        }
        if Instant::now() > deadline {
            let only = |these: &[String], others: &[String]| {
                let mut left = others.to_vec();
                these
                    .iter()
                    .filter(|text| match left.iter().position(|other| other == *text) {
                        Some(at) => {
                            left.remove(at);
                            false
                        }
                        None => true,
                    })
                    .cloned()
                    .collect::<Vec<_>>()
            };
            return Err(anyhow!(
                "counted {} requests, and {} arrived; only counted: {:?}; only arrived: {:?}",
                counted.len(),
                arrived.len(),
                only(&counted, &arrived),
                only(&arrived, &counted)
            ));
        }
        pause(Duration::from_millis(20));
    }
}

/// Compares with what the corpus expects, and then with the list of differences.
fn judge(
    section: &str,
    names: &[&str],
    expected: &[String],
    ran: &[Vec<Ran>; 3],
    mut wrong: Vec<String>,
) -> Result<()> {
    let [ours, envoy, nginx] = ran;
    let knows_nginx = differences::knows_this_nginx()?;
    let mut observed = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let line = ours[i].0.line();
        if line != expected[i] {
            wrong.push(format!("{name}: expected `{}`, observed `{line}`", expected[i]));
        }
        if let Some(reason) = &ours[i].0.disagreement {
            wrong.push(format!("{name}: readers disagree: {reason}"));
        }
        observed.push(Observed {
            case: (*name).to_owned(),
            ours: line,
            envoy: envoy[i].0.line(),
            nginx: knows_nginx.then(|| nginx[i].0.line()),
        });
    }
    let differences = differences::check(section, &observed);
    if let Err(error) = &differences {
        println!("{error:#}");
    }
    ensure!(
        wrong.is_empty(),
        "{} cases of {} went wrong:\n{}",
        wrong.len(),
        names.len(),
        wrong.join("\n")
    );
    differences
}

fn line(answers: &str, upstream: &[String]) -> String {
    let upstream = upstream.to_vec();
    Outcome { answers: answers.to_owned(), upstream, disagreement: None }.line()
}

/// Texts that got through and must not, or did not and must.
fn passed(name: &str, bytes: &[u8], never: &[String], passes: &[String]) -> Vec<String> {
    let seen = bytes.to_ascii_lowercase();
    let has = |text: &String| {
        let text = bytes_of(text).unwrap_or_default().to_ascii_lowercase();
        seen.windows(text.len()).any(|window| window == text)
    };
    let wrong =
        never.iter().filter(|text| has(text)).map(|text| format!("{name}: {text:?} got through"));
    let missing =
        passes.iter().filter(|text| !has(text)).map(|text| format!("{name}: {text:?} is missing"));
    wrong.chain(missing).collect()
}

fn assert_names_are_unique(names: &[&str]) -> Result<()> {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    ensure!(sorted.len() == names.len(), "two cases have one name");
    Ok(())
}

#[test]
fn requests_are_counted_as_upstreams_count_them() -> Result<()> {
    let dir = stage::directory("torture-requests")?;
    let cases: Vec<RequestCase> = corpus::read("requests.yaml")?;
    let names: Vec<&str> = cases.iter().map(|case| case.case.as_str()).collect();
    assert_names_are_unique(&names)?;
    let ran = run(&dir, &cases, |proxy, case| {
        let bytes = bytes_of(&case.send).with_context(|| case.case.clone())?;
        proxy.recorder.begin(None);
        let received = client::send(proxy.address, &bytes)?;
        let streams = proxy.recorder.end()?;
        let answers = received.describe(bytes.starts_with(b"HEAD "));
        Ok((Outcome::new(answers, &streams), streams.concat()))
    })?;
    let expected: Vec<String> =
        cases.iter().map(|case| line(&case.answers, &case.upstream)).collect();
    let wrong = cases
        .iter()
        .zip(&ran[0])
        .flat_map(|(case, (_, bytes))| passed(&case.case, bytes, &case.never, &case.passes))
        .collect();
    judge("Requests", &names, &expected, &ran, wrong)
}

#[test]
fn hostile_upstreams_harm_one_answer_at_most() -> Result<()> {
    let dir = stage::directory("torture-responses")?;
    let cases: Vec<ResponseCase> = corpus::read("responses.yaml")?;
    let names: Vec<&str> = cases.iter().map(|case| case.case.as_str()).collect();
    assert_names_are_unique(&names)?;
    let ran = run(&dir, &cases, |proxy, case| {
        let send = case.send.as_deref().unwrap_or("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let send = bytes_of(send)?;
        let answer = bytes_of(&case.answer).with_context(|| case.case.clone())?;
        proxy.recorder.begin(Some(Script { answer, then: case.then, is_early: case.is_early }));
        let received = client::send(proxy.address, &send)?;
        let streams = proxy.recorder.end()?;
        let answers = received.describe(send.starts_with(b"HEAD "));
        let mut outcome = Outcome::new(answers, &streams);
        // How much of a body has come when the answer overtakes it is a matter of chance.
        for request in &mut outcome.upstream {
            if let Some((begin, _)) = request.rsplit_once(' ').filter(|_| request.ends_with("..."))
            {
                *request = format!("{begin} ...");
            }
        }
        // What the upstream got is not what these cases are about, but for the count.
        let disagreement = outcome.disagreement.take();
        ensure!(disagreement.is_none() || proxy.kind != Kind::Ours, "{disagreement:?}");
        Ok((outcome, received.bytes))
    })?;
    let expected: Vec<String> = cases
        .iter()
        .zip(&ran[0])
        .map(|(case, (outcome, _))| line(&case.answers, &outcome.upstream))
        .collect();
    let wrong = cases
        .iter()
        .zip(&ran[0])
        .flat_map(|(case, (_, bytes))| passed(&case.case, bytes, &case.never, &[]))
        .collect();
    judge("Responses", &names, &expected, &ran, wrong)
}

#[test]
fn http2_is_not_a_way_around() -> Result<()> {
    let dir = stage::directory("torture-http2")?;
    let cases: Vec<Http2Case> = corpus::read("http2.yaml")?;
    let names: Vec<&str> = cases.iter().map(|case| case.case.as_str()).collect();
    assert_names_are_unique(&names)?;
    let ran = run(&dir, &cases, |proxy, case| {
        proxy.recorder.begin(None);
        let answers = http2::send(proxy.http2, &case.streams).with_context(|| case.case.clone())?;
        let streams = proxy.recorder.end()?;
        Ok((Outcome::new(answers, &streams), streams.concat()))
    })?;
    let expected: Vec<String> =
        cases.iter().map(|case| line(&case.answers, &case.upstream)).collect();
    let wrong = cases
        .iter()
        .zip(&ran[0])
        .flat_map(|(case, (_, bytes))| passed(&case.case, bytes, &case.never, &[]))
        .collect();
    judge("HTTP/2", &names, &expected, &ran, wrong)
}

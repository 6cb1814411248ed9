//! `cargo xtask test --kernel 6.1`: the tests of steering and capture on a kernel of Debian, in qemu.
//!
//! Without hardware help, so it takes minutes and needs no privilege on the host. What is tested is
//! what kernels differ in: whether the programs are accepted, and whether each hook does what the
//! agent makes of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Result, ensure};
use sandbox::command;
use serde_json::Value;

use crate::{
    ebpf, guest, interrupt,
    kernel_package::Kernel,
    provision, setup,
    test::Totals,
    workspace::{PROFILE, build, cargo},
};

pub struct Options {
    /// Such as `6.1`.
    pub kernel: String,
    pub profile: String,
    /// Only tests whose name, or whose program's, contains this.
    pub filter: Option<String>,
}

/// Programs of tests/system whose tests run in the guest.
const PROGRAMS: [&str; 6] =
    ["redirect", "redirect_policy", "redirect_outbound", "lifecycle", "completeness", "sampling"];

/// What could run there too and does not, and why.
const LEFT_OUT: [(&str, &str); 3] = [
    ("a_thousand_workloads_come_and_go", "a thousand loads take too long there"),
    ("without_root_it_says_what_is_missing", "it loads nothing"),
    ("servers_answer_marked_traffic", "it is about the tests' servers"),
];

/// What `cargo xtask test --only kernel` runs, on [`KERNEL`]: each hook once.
const SHORT: [&str; 7] = [
    "the_application_sees_the_true_client",
    "a_killed_agent_fails_as_was_asked_for",
    "what_is_not_http_passes_untouched",
    "what_is_steered_is_observed_once_and_denied_as_denied",
    "a_workload_is_told_whom_it_called",
    "what_the_kernel_lacks_is_said_at_start",
    "a_service_is_watched_by_its_cgroup",
];
const KERNEL: &str = "6.1";

/// How much slower than hardware the guest may be.
const SLOWNESS: u32 = 15;

/// All of it, on the kernel that is named.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    ebpf::run()?;
    interrupt::catch()?;
    let totals = match &options.filter {
        Some(text) => tests(options, |program, test| {
            [program, test].iter().any(|n| n.contains(text.as_str()))
        })?,
        None => tests(options, |_, _| true)?,
    };
    println!("\n{} passed, {} failed", totals.passed, totals.failed);
    ensure!(totals.failed == 0, "{} failed on Linux {}", totals.failed, options.kernel);
    Ok(())
}

/// The part of `cargo xtask test`, for who asks for it.
pub fn short() -> Result<Totals> {
    let options = Options { kernel: KERNEL.to_owned(), profile: PROFILE.to_owned(), filter: None };
    let totals = tests(&options, |_, test| SHORT.contains(&test))?;
    ensure!(totals.passed + totals.failed >= SHORT.len() as u64, "not all of {SHORT:?} are there");
    Ok(totals)
}

fn tests(options: &Options, is_wanted: impl Fn(&str, &str) -> bool) -> Result<Totals> {
    let tools = [
        provision::IP,
        provision::NGINX,
        provision::APACHE,
        provision::NODE,
        provision::WRK,
        provision::SETPRIV,
        provision::CURL,
        provision::PYTHON,
    ];
    provision::tools(&tools)?;
    provision::tools(&provision::GUEST)?;
    let kernel = Kernel::fetch(&options.kernel)?;
    let binaries = build(&options.profile)?;
    let mut chosen = Vec::new();
    let mut left_out = BTreeMap::from(LEFT_OUT);
    let mut reasons = Vec::new();
    let mut all = 0;
    for (name, program) in build_tests(&options.profile)? {
        let mut here = Vec::new();
        for test in tests_of(&program)? {
            if let Some(why) = left_out.remove(test.as_str()) {
                reasons.push(format!("  {name} {test}: {why}"));
                continue;
            }
            all += 1;
            if is_wanted(&name, &test) {
                here.push(test);
            }
        }
        chosen.push((program, here));
    }
    ensure!(left_out.is_empty(), "no such tests: {:?}", left_out.keys());
    let wanted: usize = chosen.iter().map(|(_, tests)| tests.len()).sum();
    ensure!(wanted > 0, "no test has such a name");

    println!("\n== steering and capture on Linux {}, in qemu", kernel.release);
    if wanted < all {
        println!(
            "{wanted} of {all} tests; all of them, on this kernel or another: \
             `cargo xtask test --kernel {}`",
            options.kernel
        );
    }
    println!("of the tests of steering and capture, never run in qemu:\n{}", reasons.join("\n"));
    let started = Instant::now();
    let mut totals = Totals::default();
    let ended = guest::run(&kernel, &script(&binaries, &chosen)?, |line| {
        println!("{line}");
        totals.add(Totals::read(line).unwrap_or_default());
    });
    interrupt::check()?;
    // What did not get to run has failed.
    totals.failed = totals.failed.max(wanted as u64 - totals.passed.min(wanted as u64));
    if let Err(error) = ended {
        println!("\n{error:#}");
        totals.failed = totals.failed.max(1);
    }
    println!("Linux {} took {} s", kernel.release, started.elapsed().as_secs());
    Ok(totals)
}

/// Built, and not run: by name.
fn build_tests(profile: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo();
    command.args(["test", "--profile", profile, "-p", "system-tests", "--no-run", "--quiet"]);
    for name in PROGRAMS {
        command.args(["--test", name]);
    }
    let said = command::run(command.arg("--message-format=json"))?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs: BTreeMap<_, _> = messages
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            let program = message["executable"].as_str()?.into();
            PROGRAMS.contains(&name.as_str()).then_some((name, program))
        })
        .collect();
    ensure!(programs.len() == PROGRAMS.len(), "cargo has built {:?} only", programs.keys());
    Ok(programs)
}

fn tests_of(program: &Path) -> Result<Vec<String>> {
    let said = command::run(Command::new(program).arg("--list"))?;
    let tests = said.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(tests.map(str::to_owned).collect())
}

/// What the guest does with its root: says what its kernel gives and lacks, then tests.
fn script(binaries: &Path, chosen: &[(PathBuf, Vec<String>)]) -> Result<String> {
    let python = provision::python()?;
    let (binaries, python) = (binaries.display(), python.display());
    let mut script = format!(
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp\n\
         export TMPDIR=/tmp TEST_BINARIES='{binaries}' TEST_PYTHON='{python}'\n\
         export TEST_SLOWNESS={SLOWNESS}\n\
         '{binaries}/stoa-gateway' --mode shadow --watch self=port:1 --state-dir /tmp/state \
         --output /tmp/state --host 127.0.0.1 --port 8083 --log-format text \
         --redirect-socket /tmp/first.sock > /tmp/first.log 2>&1 &\n\
         agent=$!\n\
         for i in $(seq 120); do\n\
         kill -0 $agent 2> /dev/null && ! grep -q ' ready ' /tmp/first.log && sleep 1\n\
         done\n\
         kill -TERM $agent 2> /dev/null\n\
         wait $agent\n\
         grep -v Starting /tmp/first.log | sed 's/^[^ ]* *//'\n"
    );
    for (program, tests) in chosen {
        if !tests.is_empty() {
            script.push_str(&format!(
                "'{}' --test-threads=1 --color never --exact {}\n",
                program.display(),
                tests.join(" ")
            ));
        }
    }
    Ok(script)
}

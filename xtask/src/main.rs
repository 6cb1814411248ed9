//! The developer's commands: `cargo xtask VERB`. Each does its own set-up.

#![forbid(unsafe_code)]

mod bench;
mod bench_proxy;
mod bench_redirect;
mod ci;
mod demo;
mod demo_summary;
mod ebpf;
mod guest;
mod interrupt;
mod kernel;
mod kernel_package;
mod provision;
mod setup;
mod soak;
mod test;
mod workspace;
mod wrk;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::prelude::*;

const HELP: &str = "\
Commands for developers of stoa-gateway. Each does its own set-up; the second time it is silent.

Usage: cargo xtask VERB [OPTIONS]

Verbs:
  demo            Watch a small service with the agent and show the contract it infers (15 s)
    --inline        without eBPF, as it is without root
  test            Run all tests: unit, system (needs root) and inference accuracy
    --only PART     unit, policy, system or inference; kernel is run only when asked for
    --filter TEXT   only tests whose name contains TEXT
    --kernel X.Y    instead: steering and capture on that kernel of Debian, in qemu (30 min);
                    then --filter may follow, and
    --profile NAME  what the agent is built as [default: quick]
  bench capture   What watching costs: nginx saturated, with and without the agent, and tcpdump
    --pairs N       runs of each kind [default: 5]
    --seconds N     length of a run [default: 8]
    --long          also 10 million exchanges on one agent, for its memory
    --profile NAME  what the agent is built as [default: release]
  bench proxy     Proxy mode beside nginx, HAProxy and Envoy, one worker each
    --rounds N      runs of each kind [default: 3]
    --seconds N     length of a run [default: 5]
  soak            Proxy mode under mixed load and faults; nothing may grow, leak or be lost
    --minutes N     how long [default: 30]
    --stream-gb N   size of one message each way meanwhile [default: 10]
  bench redirect  A steered service beside itself, and beside iptables REDIRECT to Envoy
    --rounds N      runs of each kind [default: 5]
    --seconds N     length of a run [default: 5]
    --profile NAME  what the agent is built as [default: release]
  install         Build the agent and stoactl with the kernel side, and put both into cargo's bin
  setup           Install the toolchains and programs that the other verbs need, and say why
  ebpf            Build the kernel side
  ci              Everything that must pass before a change goes in: test, format, lints, licences

Options:
  -h, --help      This text
";

enum Verb {
    Demo { by_inline: bool },
    Test(test::Options),
    TestOnKernel(kernel::Options),
    BenchCapture(bench::Options),
    BenchProxy(bench_proxy::Options),
    Soak(soak::Options),
    BenchRedirect(bench_redirect::Options),
    Install,
    Setup,
    Ebpf,
    Ci,
    Help,
}

fn main() -> ExitCode {
    match parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Verb> {
    let mut parser = lexopt::Parser::from_env();
    let verb = match parser.next()? {
        None | Some(Short('h') | Long("help")) => return Ok(Verb::Help),
        Some(Value(verb)) => verb.string()?,
        Some(other) => return Err(other.unexpected().into()),
    };
    let mut verb = match verb.as_str() {
        "demo" => Verb::Demo { by_inline: false },
        "test" => Verb::Test(test::Options::default()),
        "bench" => match parser.next()? {
            Some(Value(what)) if what == "capture" => Verb::BenchCapture(bench::Options::default()),
            Some(Value(what)) if what == "proxy" => {
                Verb::BenchProxy(bench_proxy::Options::default())
            }
            Some(Value(what)) if what == "redirect" => {
                Verb::BenchRedirect(bench_redirect::Options::default())
            }
            _ => bail!("bench what? There are: bench capture, bench proxy, bench redirect"),
        },
        "soak" => Verb::Soak(soak::Options::default()),
        "install" => Verb::Install,
        "setup" => Verb::Setup,
        "ebpf" => Verb::Ebpf,
        "ci" => Verb::Ci,
        "help" => return Ok(Verb::Help),
        other => bail!(
            "no verb `{other}`; there are: demo, test, bench capture, bench proxy, bench redirect, soak, install, setup, ebpf, ci"
        ),
    };
    while let Some(argument) = parser.next()? {
        match (&mut verb, argument) {
            (_, Short('h') | Long("help")) => return Ok(Verb::Help),
            (Verb::Demo { by_inline }, Long("inline")) => *by_inline = true,
            (Verb::Test(options), Long("only")) => {
                options.only = Some(parser.value()?.string()?.parse()?);
            }
            (Verb::Test(options), Long("filter")) => {
                options.filter = Some(parser.value()?.string()?);
            }
            (Verb::Test(_), Long("kernel")) => {
                verb = Verb::TestOnKernel(kernel::Options {
                    kernel: parser.value()?.string()?,
                    profile: workspace::PROFILE.to_owned(),
                    filter: None,
                });
            }
            (Verb::TestOnKernel(options), Long("profile")) => {
                options.profile = parser.value()?.string()?;
            }
            (Verb::TestOnKernel(options), Long("filter")) => {
                options.filter = Some(parser.value()?.string()?);
            }
            (Verb::BenchCapture(options), Long("pairs")) => {
                options.pairs = parser.value()?.parse()?;
            }
            (Verb::BenchCapture(options), Long("seconds")) => {
                options.seconds = parser.value()?.parse()?;
            }
            (Verb::BenchCapture(options), Long("long")) => options.is_long = true,
            (Verb::BenchCapture(options), Long("profile")) => {
                options.profile = parser.value()?.string()?;
            }
            (Verb::BenchProxy(options), Long("rounds")) => {
                options.rounds = parser.value()?.parse()?;
            }
            (Verb::BenchProxy(options), Long("seconds")) => {
                options.seconds = parser.value()?.parse()?;
            }
            (Verb::Soak(options), Long("minutes")) => options.minutes = parser.value()?.parse()?,
            (Verb::Soak(options), Long("stream-gb")) => {
                options.stream_gigabytes = parser.value()?.parse()?;
            }
            (Verb::BenchRedirect(options), Long("rounds")) => {
                options.rounds = parser.value()?.parse()?;
            }
            (Verb::BenchRedirect(options), Long("seconds")) => {
                options.seconds = parser.value()?.parse()?;
            }
            (Verb::BenchRedirect(options), Long("profile")) => {
                options.profile = parser.value()?.string()?;
            }
            (_, other) => return Err(other.unexpected().into()),
        }
    }
    Ok(verb)
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Demo { by_inline } => demo::run(by_inline),
        Verb::Test(options) => test::run(&options),
        Verb::TestOnKernel(options) => kernel::run(&options),
        Verb::BenchCapture(options) => bench::run(&options),
        Verb::BenchProxy(options) => bench_proxy::run(&options),
        Verb::Soak(options) => soak::run(&options),
        Verb::BenchRedirect(options) => bench_redirect::run(&options),
        Verb::Install => {
            setup::run()?;
            ebpf::run()?;
            workspace::install()
        }
        Verb::Setup => {
            setup::run()?;
            provision::everything()
        }
        Verb::Ebpf => {
            setup::run()?;
            ebpf::run()
        }
        Verb::Ci => ci::run(),
        Verb::Help => {
            print!("{HELP}");
            Ok(())
        }
    }
}

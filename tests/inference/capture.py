"""Ways to watch a service's traffic: the gateway itself (eBPF or Inline), or tcpdump."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import inferrer
from service_process import await_answer, free_port, stop


class CaptureFailed(Exception):
    pass


def can_tcpdump() -> bool:
    return os.geteuid() == 0 and shutil.which("tcpdump") is not None


@contextmanager
def tcpdump(port: int, file: Path):
    """Records the packets of a loopback port into `file`."""
    log = file.with_suffix(".tcpdump.log")
    with open(log, "wb") as out:
        command = ["tcpdump", "-i", "lo", "-s", "0", "-B", "65536", "-U", "-w", str(file), "tcp", "port", str(port)]
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        while "listening on" not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CaptureFailed(f"tcpdump did not start: {log.read_text(errors='replace')[-300:]}")
            time.sleep(0.05)
        yield file
        # Packets wait up to a second in the kernel's buffer.
        time.sleep(1.5)
    finally:
        stop(process)


class Gateway:
    """A running `stoa-gateway --mode shadow`."""

    def __init__(self, port: int, output: Path, log: Path):
        self.port, self.output, self.log = port, output, log

    def call(self, method: str, path: str, body: dict | None = None, accept: str = "application/json") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Accept": accept, "Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()

    def generate(self, service: str) -> inferrer.Produced:
        """Asks for the contract as soon as the agent has seen everything, and collects its files."""
        time.sleep(1.5)
        status, body = self.call("POST", "/shadow/generate", {"service": service})
        if status >= 300:
            raise CaptureFailed(f"POST /shadow/generate answered {status}: {body[:300]!r}; see {self.log}")
        return inferrer.collect(self.output)


@contextmanager
def gateway(method: str, service: str, port: int, work: Path, *options: str):
    """Yields the agent and the port that clients shall use."""
    binary = os.environ.get("STOA_GATEWAY")
    if not binary:
        raise CaptureFailed("STOA_GATEWAY is not set: it names the stoa-gateway binary, which `cargo build -p stoa-gateway` makes")
    output, log, own, front = work / "contracts", work / "gateway.log", free_port(), port
    shutil.rmtree(work, ignore_errors=True)
    output.mkdir(parents=True)
    command = [binary, "--mode", "shadow", "--capture", method, "--host", "127.0.0.1", "--port", str(own), "--output", str(output)]
    command += ["--state-dir", str(work / "state"), *options]
    if method == "Inline":
        front = free_port()
        command += ["--target", f"http://127.0.0.1:{port}", "--inline-listen", f"127.0.0.1:{front}", "--service", service]
    else:
        command += ["--watch", f"{service}=port:{port}"]
    # Its own variables would configure it, and it refuses `STOA_` names that it does not know.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STOA")}
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, env=environment)
    try:
        await_answer(process, own, log, "/health", 20)
        yield Gateway(own, output, log), front
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                stop(process)

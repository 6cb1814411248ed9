#!/usr/bin/env python3
"""Compares an inferred OpenAPI document with the published one, on what the traffic exercised.

    compare.py published.json inferred.json traffic.har [--least operations.recall=0.97] [--faults]

The published document is the truth for what is documented, the traffic for what could be known:
an operation counts when it answered below 400 at least once, a parameter or a property when it was
sent at least once. Names of path parameters are normalised (`{id}` is `{*}`).
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from score import Report, table, unmet
from specification import VARIABLE, Document, Operation, essence, normalise, type_names
from traffic import Exchange, read_har, read_json

# Absence is evidence from this many samples on (required flags, enumerations).
ENOUGH = 20
# OpenAPI 3.1, section 4.8.12.1: parameters of these names shall be ignored.
NOT_PARAMETERS = {"accept", "content-type", "authorization"}
# What HTTP itself, clients, proxies and tracing add to any request: in a contract only where published.
TRANSPORT = {
    "host", "user-agent", "connection", "content-length", "transfer-encoding", "accept-encoding", "cache-control", "pragma", "cookie", "origin",
    "referer", "date", "te", "upgrade", "via", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "x-request-id",
    "traceparent", "tracestate", "baggage", "b3",
}
FORMATS = {
    "date-time": re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"),
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "uuid": re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
    "email": re.compile(r"[^@\s]+@[^@\s]+"),
    "uri": re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:\S+"),
    "ipv4": re.compile(r"\d{1,3}(\.\d{1,3}){3}"),
    "ipv6": re.compile(r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*"),
}


@dataclass
class Seen:
    """What the traffic showed of one property, beside what the published schema says of it."""

    schema: dict
    is_required: bool = False
    parents: int = 0
    types: set[str] = field(default_factory=set)
    nulls: int = 0
    strings: set[str] = field(default_factory=set)
    count: int = 0


@dataclass
class Body:
    """The observed properties of a request body, or of the responses of one status."""

    seen: dict[str, Seen] = field(default_factory=dict)
    # Pointers that the traffic showed and the published document does not have.
    undocumented: set[str] = field(default_factory=set)
    is_form: bool = False


def json_type(value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def values_schema(flat: dict):
    """The schema of a map's values, or `None` where the object is not a typed map."""
    values = flat.get("additionalProperties")
    return values if isinstance(values, dict) and values else None


class Comparison:
    def __init__(self, published: Document, inferred: Document, traffic: list[Exchange]):
        self.published, self.inferred, self.traffic = published, inferred, traffic
        self.report = Report()
        self.exchanges: dict[str, list[Exchange]] = {}
        self.operations: dict[str, Operation] = {o.key: o for o in published.operations}
        self.undocumented: list[Exchange] = []
        for e in traffic:
            operation = published.match(e.method, e.path)
            if operation:
                self.exchanges.setdefault(operation.key, []).append(e)
            elif 200 <= e.status < 400:
                self.undocumented.append(e)
        self.exercised = {k for k, es in self.exchanges.items() if any(is_success(e) for e in es)}
        self.found = {o.key: o for o in inferred.operations}

    def run(self) -> Report:
        right = self._operations()
        self._path_parameters()
        for key in sorted(right):
            ours, theirs = self.found[key], self.operations[key]
            good = [e for e in self.exchanges[key] if is_success(e)]
            self._parameters(key, theirs, ours, good)
            seen = {str(e.status) for e in self.exchanges[key] if e.status}
            have = {s for s in ours.responses if s != "default"}
            self.report.score("statuses", seen & have, seen, have, key)
            self._security(key, theirs, ours, good)
            self._bodies(key, theirs, ours)
        return self.report

    def _operations(self) -> set[str]:
        right = self.exercised & set(self.found)
        templates = {normalise(o.template) for o in self.published.operations}
        real = {f"{e.method} {e.path.rstrip('/') or '/'}" for e in self.undocumented}
        # Neither right nor wrong: documented but never answered below 400; HEAD and OPTIONS of a
        # documented path; a literal path that answered and is documented nowhere.
        neutral = {
            key
            for key, o in self.found.items()
            if key in self.operations or (o.method in ("HEAD", "OPTIONS") and normalise(o.template) in templates) or key in real
        }
        self.report.score("operations", right, self.exercised, right | (set(self.found) - neutral))
        return right

    def _path_parameters(self) -> None:
        truth, hit, wrong, broken = set(), set(), set(), set()
        for key in self.exercised:
            theirs = self.operations[key].template.rstrip("/").split("/")
            name = normalise(self.operations[key].template)
            for path in {e.path for e in self.exchanges[key] if is_success(e)}:
                ours = self.inferred.match(key.split(" ")[0], path)
                template = ours.template if ours else self.inferred.match_template(path)
                segments = (template or "").rstrip("/").split("/")
                for i, segment in enumerate(theirs):
                    is_ours = template is not None and i < len(segments) and bool(VARIABLE.search(segments[i]))
                    if VARIABLE.search(segment):
                        truth.add((name, i))
                        (hit if is_ours else broken).add((name, i))
                    elif is_ours:
                        wrong.add((name, i))
        right = hit - broken
        self.report.score("path parameters", right, truth, right | wrong)

    def _parameters(self, key: str, theirs: Operation, ours: Operation, good: list[Exchange]) -> None:
        documented = {n for p, n in theirs.parameters if p == "query"}
        keys = {tuple(s.split(" ", 2)[1:]) for s in self.published.schemes.values() if s.startswith("apiKey ")}
        values: dict[tuple[str, str], list[str]] = {}
        repeated: set[tuple[str, str]] = set()
        present: dict[tuple[str, str], int] = {}
        for e in good:
            names = [n for n, _ in e.query]
            repeated |= {("query", n) for n in names if names.count(n) > 1}
            pairs = [("query", n, v) for n, v in e.query] + [("header", n.lower(), v) for n, v in e.request_headers]
            for place, name, value in pairs:
                values.setdefault((place, name), []).append(value)
            for place, name in {(p, n) for p, n, _ in pairs}:
                present[place, name] = present.get((place, name), 0) + 1
        schemes = {tuple(s.split(" ", 2)[1:]) for alternative in ours.security for s in alternative if s.startswith("apiKey ")}
        found_keys = {k for k in ours.parameters if k[0] in ("query", "header") and k[1] not in NOT_PARAMETERS}
        for place, measure in (("query", "query parameters"), ("header", "header parameters")):
            sent = {k for k in values if k[0] == place and k not in keys and k[1] not in NOT_PARAMETERS}
            if place == "query":
                truth = {k for k in sent if k[1] in documented or k[1].split("[")[0] in documented}
                real = sent
            else:
                truth = {k for k in sent if k in theirs.parameters}
                real = {k for k in sent if k[1] not in TRANSPORT}
            have = {k for k in found_keys if k[0] == place and k not in keys}
            # A key may be documented as a plain parameter; as a credential it is found as well.
            have |= truth & schemes
            right = truth & have
            # A documented parameter that only failing requests sent, and an undocumented one that
            # was really sent, are neither right nor wrong.
            have -= {k for k in have - right if k in theirs.parameters or k in real}
            self.report.score(measure, right, truth, have, key)
            for k in sorted(right):
                parameter = theirs.parameters.get(k) or theirs.parameters.get((place, k[1].split("[")[0]))
                if parameter and k in theirs.parameters and k in ours.parameters:
                    self._parameter_type(key, parameter.schema, ours.parameters[k].schema, values[k], k in repeated, k)
                    self._enum((key, *k), parameter.schema, ours.parameters[k].schema, values[k])
            if place == "query" and len(good) >= ENOUGH:
                for k in sorted(k for k in right if k in theirs.parameters and k in ours.parameters):
                    is_always = present[k] >= len(good)
                    self._required("required query", (key, *k), theirs.parameters[k].is_required, ours.parameters[k].is_required, is_always)
        self._path_types(key, theirs, ours, good)

    def _path_types(self, key: str, theirs: Operation, ours: Operation, good: list[Exchange]) -> None:
        pairs = zip(VARIABLE.findall(theirs.template), VARIABLE.findall(ours.template))
        places = [i for i, s in enumerate(theirs.template.split("/")) if VARIABLE.search(s)]
        for (their, our), i in zip(pairs, places):
            theirs_parameter = theirs.parameters.get(("path", their[1:-1]))
            ours_parameter = ours.parameters.get(("path", our[1:-1]))
            if theirs_parameter and ours_parameter:
                values = [s[i] for e in good if i < len(s := e.path.split("/"))]
                self._parameter_type(key, theirs_parameter.schema, ours_parameter.schema, values, False, ("path", our))

    def _parameter_type(self, key, theirs, ours, values, is_repeated: bool, name) -> None:
        theirs, ours = self.published.flatten(theirs), self.inferred.flatten(ours)
        want, have = type_names(theirs) - {"null"}, type_names(ours) - {"null"}
        if want & {"array", "object"}:
            # Without a repeated name an array looks like a string on the wire.
            if not is_repeated:
                return
        elif want == {"string"} and all(re.fullmatch(r"-?\d+(\.\d+)?|true|false", v) for v in values):
            return
        elif want == {"integer"} and any(re.fullmatch(r"-?\d*\.\d+", v) for v in values):
            return
        elif want == {"number"} and all(re.fullmatch(r"-?\d+", v) for v in values):
            want = have if have <= {"integer", "number"} else want
        if not want or not values:
            return
        is_right = want == have
        truth = {(*name, "/".join(sorted(want)))}
        self.report.score("parameter types", truth if is_right else set(), truth, {(*name, "/".join(sorted(have)))}, key)

    def _security(self, key: str, theirs: Operation, ours: Operation, good: list[Exchange]) -> None:
        truth = set()
        for e in good:
            authorization = e.header("authorization")
            if authorization:
                kind = authorization.split(" ")[0].lower()
                truth.add(kind if kind in ("bearer", "basic", "digest") else "authorization")
            cookies = {c.split("=")[0].strip() for c in (e.header("cookie") or "").split(";")}
            for scheme in self.published.schemes.values():
                parts = scheme.split(" ", 2)
                if parts[0] != "apiKey" or parts[2] == "authorization":
                    continue
                place, name = parts[1], parts[2]
                if place == "header" and e.header(name) or place == "cookie" and name in cookies:
                    truth.add(scheme)
                elif place == "query" and any(n == name for n, _ in e.query):
                    truth.add(scheme)
        have = set()
        for alternative in ours.security:
            for scheme in alternative:
                is_plain = scheme in ("bearer", "basic", "digest") or scheme.startswith("apiKey ")
                is_other = not is_plain or scheme == "apiKey header authorization"
                if tuple(scheme.split(" ", 2)[1:]) in theirs.parameters:
                    continue
                have.add("authorization" if is_other else scheme)
        self.report.score("security", truth & have, truth, have, key)

    def _required(self, measure: str, at: tuple, is_published: bool, is_ours: bool, is_always: bool) -> None:
        """What is published as optional and was never left out cannot be told from what is required,
        nor can what is published as required and was left out."""
        if is_published == is_always or is_ours == is_published:
            must, has = ({at} if is_published and is_always else set()), ({at} if is_ours and not (is_published and not is_always) else set())
            self.report.score(measure, must & has, must, has)

    def _bodies(self, key: str, theirs: Operation, ours: Operation) -> None:
        bodies: dict[str, Body] = {}
        for e in self.exchanges[key]:
            if is_success(e):
                self._observe_request(bodies, theirs, e)
            documented = pick_response(theirs, e.status)
            schema = pick_media(documented, e.response_header("content-type"))
            value = read_json(e.response_body)
            if schema is not None and value is not ...:
                self._observe(bodies.setdefault(str(e.status), Body()), "", schema, value, None)
        for where, body in bodies.items():
            contents = ours.request if where == "request" else ours.responses.get(where, {})
            schema = next((s for m, s in contents.items() if ("json" in m) != body.is_form), None)
            have: dict[str, tuple[dict, bool]] = {}
            if schema is not None:
                self._enumerate(have, body, "", schema, False, ())
            measure = "request properties" if where == "request" else "response properties"
            truth = {p for p in body.seen if p}
            found = {p for p in have if p and p not in body.undocumented and not self._is_open(body, p)}
            right = truth & found
            self.report.score(measure, right, truth, found, f"{key} {where}")
            for pointer in sorted(right | ({""} & set(have) & set(body.seen))):
                self._property((key, where, pointer), body, pointer, *have[pointer])

    def _observe_request(self, bodies: dict[str, Body], theirs: Operation, e: Exchange) -> None:
        media = essence(e.header("content-type"))
        schema = pick_media(theirs.request, media)
        if schema is None or not e.request_body:
            return
        if media == "application/x-www-form-urlencoded":
            value = dict(parse_qsl(e.request_body.decode("utf-8", "replace"), keep_blank_values=True))
            bodies.setdefault("request", Body(is_form=True))
        else:
            value = read_json(e.request_body)
        if value is not ... and (value is not None):
            self._observe(bodies.setdefault("request", Body()), "", schema, value, None)

    def _observe(self, body: Body, pointer: str, schema, value, is_required: bool | None, depth: int = 0) -> None:
        flat = self.published.flatten(schema)
        seen = body.seen.setdefault(pointer, Seen(flat, bool(is_required)))
        seen.count += 1
        seen.types.add(json_type(value))
        seen.nulls += value is None
        if isinstance(value, str) and len(seen.strings) < 2000:
            seen.strings.add(value)
        if depth > 12:
            return
        if isinstance(value, list):
            items = flat.get("items")
            for item in value:
                if isinstance(items, dict) and items:
                    self._observe(body, pointer + "/*", items, item, None, depth + 1)
                else:
                    self._note_undocumented(body, pointer + "/*", item)
        elif isinstance(value, dict):
            properties = flat.get("properties") or {}
            required = flat.get("required") if isinstance(flat.get("required"), list) else []
            seen.parents += 1
            rest = values_schema(flat)
            for name, child in value.items():
                at = f"{pointer}/{escape(name)}"
                if name in properties:
                    self._observe(body, at, properties[name], child, name in required, depth + 1)
                elif rest is not None:
                    self._observe(body, pointer + "/{}", rest, child, None, depth + 1)
                else:
                    self._note_undocumented(body, at, child)

    def _note_undocumented(self, body: Body, pointer: str, value) -> None:
        body.undocumented.add(pointer)
        if isinstance(value, list):
            for item in value:
                self._note_undocumented(body, pointer + "/*", item)
        elif isinstance(value, dict):
            for name, child in value.items():
                self._note_undocumented(body, f"{pointer}/{escape(name)}", child)

    def _is_open(self, body: Body, pointer: str) -> bool:
        """Below an object or an array whose members the published schema leaves free."""
        while pointer:
            pointer = pointer.rpartition("/")[0]
            seen = body.seen.get(pointer)
            if seen is None:
                if pointer in body.undocumented:
                    return True
                continue
            flat = seen.schema
            return not flat.get("properties") and values_schema(flat) is None and not flat.get("items")
        return False

    def _enumerate(self, have: dict, body: Body, pointer: str, schema, is_required: bool, stack: tuple) -> None:
        """All property pointers of an inferred schema. Members of what is published as a map, when
        inferred one by one, are one pointer `/{literal}`."""
        flat = self.inferred.flatten(schema)
        have[pointer] = (flat, is_required)
        if len(stack) > 14 or len(have) > 20000:
            return
        stack = (*stack, pointer)
        if isinstance(flat.get("items"), dict):
            self._enumerate(have, body, pointer + "/*", flat["items"], False, stack)
        seen = body.seen.get(pointer)
        is_map = seen is not None and values_schema(seen.schema) is not None
        documented = (seen.schema.get("properties") or {}) if seen else {}
        required = flat.get("required") or []
        for name, child in (flat.get("properties") or {}).items():
            if is_map and name not in documented:
                have[pointer + "/{literal}"] = (self.inferred.flatten(child), False)
            else:
                self._enumerate(have, body, f"{pointer}/{escape(name)}", child, name in required, stack)
        rest = values_schema(flat)
        if rest is not None:
            self._enumerate(have, body, pointer + "/{}", rest, False, stack)

    def _property(self, at: tuple, body: Body, pointer: str, ours: dict, is_required: bool) -> None:
        seen = body.seen[pointer]
        want, have, observed = type_names(seen.schema) - {"null"}, type_names(ours) - {"null"}, seen.types - {"null"}
        if "enum" in seen.schema and not want:
            want = {json_type(v) for v in seen.schema["enum"]} - {"null"}
        widened = want | ({"integer"} if "number" in want else set())
        if want and observed and observed <= widened and not body.is_form:
            is_right = have in (want, observed) or (have <= {"integer", "number"} and have and observed == {"integer"} and "number" in want)
            wanted, got = {(pointer, "/".join(sorted(want)))}, {(pointer, "/".join(sorted(have)) or "any")}
            self.report.score("types", wanted if is_right else set(), wanted, wanted if is_right else got, f"{at[0]} {at[1]}")
        parent, _, name = pointer.rpartition("/")
        if pointer and name not in ("*", "{}") and parent in body.seen and body.seen[parent].parents >= ENOUGH:
            self._required("required", at, seen.is_required, is_required, seen.count >= body.seen[parent].parents)
        nulls, nullable = ({at} if seen.nulls else set()), ({at} if "null" in type_names(ours) else set())
        self.report.score("nullable", nulls & nullable, nulls, nullable)
        self._enum(at, seen.schema, ours, list(seen.strings), seen.count)
        self._format(at, seen, ours)

    def _enum(self, at: tuple, theirs, ours, values: list[str], count: int | None = None) -> None:
        theirs, ours = self.published.flatten(theirs), self.inferred.flatten(ours)
        want = theirs.get("enum") or ([theirs["const"]] if "const" in theirs else None)
        have = ours.get("enum") or ([ours["const"]] if "const" in ours else None)
        want = {str(v) for v in want if v is not None} if want else None
        have = {str(v) for v in have if v is not None} if have else None
        observed = set(values)
        if want and not observed <= want:
            return
        is_due = bool(want) and (count or len(values)) >= ENOUGH
        is_right = bool(want and have and have <= want and observed <= have)
        if is_right or is_due or have:
            thing = {at}
            truth = thing if is_due or is_right else set()
            self.report.score("enum", thing if is_right else set(), truth, thing if have else set())

    def _format(self, at: tuple, seen: Seen, ours: dict) -> None:
        want, have = seen.schema.get("format"), ours.get("format")
        holds = lambda name: all(FORMATS[name].fullmatch(v) for v in seen.strings)
        want = want if want in FORMATS and seen.strings and holds(want) else None
        have = have if have in FORMATS else None
        if want == have and want:
            self.report.score("format", {at}, {at}, {at})
        elif want or (have and not (seen.strings and holds(have))):
            named = lambda f: {(*at, f)} if f else set()
            self.report.score("format", set(), named(want), named(have))


def is_success(e: Exchange) -> bool:
    return 200 <= e.status < 400


def escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def pick_response(operation: Operation, status: int) -> dict[str, dict]:
    for name in (str(status), f"{status // 100}XX", f"{status // 100}xx", "default"):
        if name in operation.responses:
            return operation.responses[name]
    return {}


def pick_media(contents: dict[str, dict], media_type: str | None) -> dict | None:
    media = essence(media_type)
    if media in contents:
        return contents[media]
    for name, schema in contents.items():
        if name == "*/*" or ("json" in name and "json" in media):
            return schema
    return None


def compare(published: Document, inferred: Document, traffic: list[Exchange]) -> Report:
    return Comparison(published, inferred, traffic).run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", help="OpenAPI 2.0, 3.0 or 3.1, JSON or YAML")
    parser.add_argument("inferred", help="OpenAPI 3.1, JSON or YAML")
    parser.add_argument("traffic", help="HAR file of the exchanges that the inference saw")
    parser.add_argument("--least", action="append", default=[], metavar="MEASURE.QUANTITY=VALUE", help="fail below this, as operations.recall=0.97; repeatable")
    parser.add_argument("--faults", action="store_true", help="list every difference")
    args = parser.parse_args()
    report = compare(Document.load(args.published), Document.load(args.inferred), read_har(args.traffic))
    print(table({args.inferred: report}))
    if args.faults:
        print("\n".join(report.faults))
    failed = unmet(report, {k: float(v) for k, _, v in (item.rpartition("=") for item in args.least)})
    for line in failed:
        print(f"below threshold: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

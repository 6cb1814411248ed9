"""An OpenAPI document, 2.0 to 3.1, read into one form that two documents can be compared in."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
VARIABLE = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Parameter:
    place: str  # query, header, path or cookie
    name: str  # header names in lower case (RFC 9110, section 5.1)
    is_required: bool
    schema: dict


@dataclass
class Operation:
    method: str  # upper case
    template: str  # with the base path, `/users/{id}`
    parameters: dict[tuple[str, str], Parameter] = field(default_factory=dict)
    # Schema of the request body by media type (essence).
    request: dict[str, dict] = field(default_factory=dict)
    is_request_required: bool = False
    # status ("200", "4XX", "default") -> media type -> schema
    responses: dict[str, dict[str, dict]] = field(default_factory=dict)
    # Alternatives, each a set of normalised schemes that are needed together.
    security: list[frozenset[str]] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.method} {normalise(self.template)}"


def normalise(template: str) -> str:
    """`/users/{id}.json` and `/users/{name}.json` are the same template: `/users/{*}.json`."""
    return VARIABLE.sub("{*}", template.rstrip("/") or "/")


def essence(media_type: str | None) -> str:
    return (media_type or "").split(";")[0].strip().lower()


class Document:
    """One OpenAPI document. `operations` has them in the order of the document."""

    def __init__(self, raw: dict):
        self.raw = raw
        self.is_v2 = str(raw.get("swagger", "")).startswith("2")
        self.schemes = self._schemes()
        self.base_path = self._base_path(raw)
        self.operations: list[Operation] = []
        for path, item in (raw.get("paths") or {}).items():
            item = self.resolve(item)
            if not isinstance(item, dict):
                continue
            for method in METHODS:
                if isinstance(item.get(method), dict):
                    self.operations.append(self._operation(path, method, item))
        self._patterns = [(operation, *compile_template(operation.template)) for operation in self.operations]

    @classmethod
    def load(cls, path: str | Path) -> Document:
        text = Path(path).read_text(encoding="utf-8")
        if str(path).endswith((".yaml", ".yml")):
            import yaml

            return cls(yaml.safe_load(text))
        return cls(json.loads(text))

    def resolve(self, node):
        """Follows `$ref` inside the document; what cannot be followed is an empty schema."""
        for _ in range(32):
            if not (isinstance(node, dict) and isinstance(node.get("$ref"), str)):
                return node
            target = self.raw
            if not node["$ref"].startswith("#/"):
                return {}
            for step in node["$ref"][2:].split("/"):
                step = unquote(step).replace("~1", "/").replace("~0", "~")
                if isinstance(target, list) and step.isdigit() and int(step) < len(target):
                    target = target[int(step)]
                elif isinstance(target, dict) and step in target:
                    target = target[step]
                else:
                    return {}
            node = target
        return {}

    def match(self, method: str, path: str) -> Operation | None:
        """The operation that a request belongs to; literal segments win over parameters."""
        best, best_rank = None, None
        path = path.rstrip("/") or "/"
        for operation, pattern, rank in self._patterns:
            if operation.method == method and (best_rank is None or rank > best_rank) and pattern.fullmatch(path):
                best, best_rank = operation, rank
        return best

    def match_template(self, path: str) -> str | None:
        """The template that a path belongs to, whatever the method."""
        best, best_rank = None, None
        path = path.rstrip("/") or "/"
        for operation, pattern, rank in self._patterns:
            if (best_rank is None or rank > best_rank) and pattern.fullmatch(path):
                best, best_rank = operation.template, rank
        return best

    def flatten(self, schema) -> dict:
        """One schema with `$ref` and `allOf` followed and the branches of `oneOf`/`anyOf` united.

        Properties are united; what is required in a union is what every branch requires.
        """
        return self._flatten(schema, 0)

    def _flatten(self, schema, depth: int) -> dict:
        schema = self.resolve(schema)
        if not isinstance(schema, dict) or depth > 8:
            return {}
        if not any(k in schema for k in ("allOf", "oneOf", "anyOf")):
            return schema
        out = {k: v for k, v in schema.items() if k not in ("allOf", "oneOf", "anyOf")}
        for part in schema.get("allOf") or []:
            part = self._flatten(part, depth + 1)
            for key, value in part.items():
                if key == "properties":
                    out["properties"] = {**value, **(out.get("properties") or {})}
                elif key == "required" and isinstance(value, list):
                    out["required"] = sorted(set(out.get("required") or []) | set(value))
                else:
                    out.setdefault(key, value)
        branches = [self._flatten(b, depth + 1) for b in [*(schema.get("oneOf") or []), *(schema.get("anyOf") or [])]]
        if branches:
            out = self._unite(out, branches)
        return out

    def _unite(self, out: dict, branches: list[dict]) -> dict:
        out = dict(out)
        types: set[str] = set(type_names(out))
        properties = dict(out.get("properties") or {})
        solid = [b for b in branches if type_names(b) - {"null"}]
        objects = [b for b in solid if "object" in type_names(b)]
        for branch in branches:
            types |= type_names(branch)
            for name, value in (branch.get("properties") or {}).items():
                if name in properties and properties[name] != value:
                    properties[name] = {"anyOf": [properties[name], value]}
                else:
                    properties[name] = value
            if branch.get("nullable"):
                types.add("null")
            if "items" in branch:
                out.setdefault("items", branch["items"])
            if "additionalProperties" in branch:
                out.setdefault("additionalProperties", branch["additionalProperties"])
        if len(solid) == 1:
            for key in ("enum", "format", "const"):
                if key in solid[0]:
                    out.setdefault(key, solid[0][key])
        elif solid and all("enum" in b for b in solid):
            out.setdefault("enum", [v for b in solid for v in b["enum"]])
        if objects:
            common = set.intersection(*(set(b.get("required") or []) for b in objects))
            out["required"] = sorted(set(out.get("required") or []) | common)
        if properties:
            out["properties"] = properties
        if types:
            out["type"] = sorted(types)
        return out

    def _base_path(self, holder: dict) -> str:
        if self.is_v2:
            return (holder.get("basePath") or "").rstrip("/")
        servers = holder.get("servers") or []
        if not servers or not isinstance(servers[0], dict):
            return ""
        url = servers[0].get("url") or ""
        for name, variable in (servers[0].get("variables") or {}).items():
            url = url.replace("{" + name + "}", str((variable or {}).get("default", "")))
        return urlsplit(url).path.rstrip("/") if "://" in url or url.startswith("//") else url.rstrip("/")

    def _schemes(self) -> dict[str, str]:
        if self.is_v2:
            named = self.raw.get("securityDefinitions") or {}
        else:
            named = (self.raw.get("components") or {}).get("securitySchemes") or {}
        return {name: scheme_name(self.resolve(scheme)) for name, scheme in named.items()}

    def _operation(self, path: str, method: str, item: dict) -> Operation:
        raw = item[method]
        # A path or an operation may have servers of its own (OpenAPI 3.1, section 4.8.9).
        base = self.base_path
        if not self.is_v2:
            for holder in (raw, item):
                if holder.get("servers"):
                    base = self._base_path(holder)
                    break
        template = re.sub(r"/{2,}", "/", (base + path).split("?")[0].split("#")[0])
        operation = Operation(method.upper(), template)
        form: dict[str, dict] = {}
        required_form: list[str] = []
        for parameter in [*(item.get("parameters") or []), *(raw.get("parameters") or [])]:
            parameter = self.resolve(parameter)
            place, name = parameter.get("in"), parameter.get("name")
            if place == "body":
                media = raw.get("consumes") or self.raw.get("consumes") or ["application/json"]
                operation.request = {essence(m): parameter.get("schema") or {} for m in media}
                operation.is_request_required = bool(parameter.get("required"))
            elif place == "formData" and name:
                form[name] = parameter
                if parameter.get("required"):
                    required_form.append(name)
            elif place and name:
                schema = parameter if self.is_v2 else parameter.get("schema")
                if schema is None:
                    contents = list((parameter.get("content") or {}).values())
                    schema = contents[0].get("schema") if contents else {}
                name = name.lower() if place == "header" else name
                operation.parameters[place, name] = Parameter(place, name, bool(parameter.get("required")), schema or {})
        if form:
            media = raw.get("consumes") or self.raw.get("consumes") or ["application/x-www-form-urlencoded"]
            schema = {"type": "object", "properties": form, "required": required_form}
            operation.request = {essence(m): schema for m in media}
        if not self.is_v2:
            body = self.resolve(raw.get("requestBody") or {})
            operation.is_request_required = bool(body.get("required"))
            for media, content in (body.get("content") or {}).items():
                operation.request[essence(media)] = (content or {}).get("schema") or {}
        for status, response in (raw.get("responses") or {}).items():
            response = self.resolve(response) or {}
            if self.is_v2:
                media = raw.get("produces") or self.raw.get("produces") or ["application/json"]
                contents = {essence(m): response["schema"] for m in media} if response.get("schema") else {}
            else:
                contents = {essence(m): (c or {}).get("schema") or {} for m, c in (response.get("content") or {}).items()}
            operation.responses[str(status)] = contents
        security = raw.get("security", self.raw.get("security")) or []
        for alternative in security:
            if isinstance(alternative, dict):
                operation.security.append(frozenset(self.schemes.get(name, name) for name in alternative))
        return operation


def type_names(schema: dict) -> set[str]:
    """The declared JSON types of a flat schema; guessed from its keywords where it has none."""
    declared = schema.get("type")
    if isinstance(declared, str):
        names = {declared}
    elif isinstance(declared, list):
        names = {str(t) for t in declared}
    elif "properties" in schema or "additionalProperties" in schema:
        names = {"object"}
    elif "items" in schema:
        names = {"array"}
    else:
        names = set()
    # httpbin's own description spells it so.
    names = {"integer" if n == "int" else n for n in names}
    if schema.get("nullable") and names:
        names.add("null")
    return names


def scheme_name(scheme: dict) -> str:
    """What of a security scheme can be told from a request: `bearer`, `basic`, `apiKey query key`.

    OAuth 2 and OpenID Connect look like any bearer token on the wire (RFC 6750, section 2.1).
    """
    kind = scheme.get("type")
    if kind in ("oauth2", "openIdConnect"):
        return "bearer"
    if kind == "basic":
        return "basic"
    if kind == "http":
        return str(scheme.get("scheme", "")).lower()
    if kind == "apiKey":
        name = str(scheme.get("name", ""))
        place = str(scheme.get("in", ""))
        name = name.lower() if place == "header" else name
        return f"apiKey {place} {name}"
    return str(kind)


def compile_template(template: str) -> tuple[re.Pattern[str], tuple]:
    """A pattern for the paths of a template, and a rank by which the more literal template wins."""
    template = template.rstrip("/") or "/"
    pattern, rank = "", []
    for i, segment in enumerate(template.split("/")):
        if i:
            pattern += "/"
        at = 0
        for hole in VARIABLE.finditer(segment):
            pattern += re.escape(segment[at : hole.start()]) + r"[^/]+?"
            at = hole.end()
        pattern += re.escape(segment[at:])
        literal = VARIABLE.sub("", segment)
        rank.append((literal == segment, len(literal)))
    return re.compile(pattern), tuple(rank)

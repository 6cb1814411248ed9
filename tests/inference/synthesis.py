"""Values from JSON schemas: conformant, varied, and the same for the same seed."""

from __future__ import annotations

import base64
import random
import re
import string
import uuid

from specification import Document, type_names

FIRST = "ada alan barbara claude donald edsger frances grace hedy ivan joan katherine linus margaret niklaus olga pavel radia sofia tim".split()
LAST = "allen backus dijkstra engelbart goldberg hamilton hopper johnson kay keller knuth lamport lovelace perlman ritchie shannon turing wirth".split()
NOUNS = "amber anchor atlas basin beacon birch canyon cedar copper coral delta ember falcon fern forest garden granite harbor hazel island jasper lagoon lantern maple meadow mesa nectar oak opal orchard pebble pine prairie quartz raven ridge river saffron sierra slate summit thicket topaz tundra valley violet willow zephyr".split()
ADJECTIVES = "blue bold brave bright calm clever cold crisp deep early eager fair fast fine gentle grand green happy keen kind late light lucky mellow modern nimble noble plain prime proud quick quiet rapid red rich sharp silent simple sleek soft solid steady swift true vivid warm wild wise young".split()
CITIES = "Paris,Lyon,Oslo,Bergen,Kraków,Lisboa,Porto,Turin,Ghent,Zürich,Aarhus,Vilnius,Tallinn,Austin,Denver,Kyoto,Osaka,Recife,Lima,Quito".split(",")
COUNTRIES = "FR DE NO PL PT IT BE CH DK LT EE US JP BR PE EC ES SE FI NL".split()
CURRENCIES = "EUR USD GBP CHF NOK PLN JPY BRL".split()
LOCALES = "en en-US fr-FR de-DE nb-NO pl-PL pt-BR it ja-JP es-ES".split()
SENTENCES = (
    "Delivered to the side door.", "Needs a second look before the release.", "Works as described", "The customer asked for a callback",
    "Replaced after two years; see the invoice", "Annual maintenance", "Ships in two parts.", "No further action", "Created from the import of March",
)


def slug(rng: random.Random) -> str:
    words = [rng.choice(ADJECTIVES), rng.choice(NOUNS)]
    if rng.random() < 0.4:
        words.append(rng.choice(NOUNS))
    if rng.random() < 0.15:
        words.append(str(rng.randint(2, 30)))
    return "-".join(words)


def opaque(rng: random.Random, length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(rng.choice(alphabet) for _ in range(length))


def date(rng: random.Random) -> str:
    return f"{rng.randint(2019, 2026)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def date_time(rng: random.Random) -> str:
    fraction = f".{rng.randint(0, 999):03}" if rng.random() < 0.3 else ""
    return f"{date(rng)}T{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}{fraction}Z"


def make_uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def url(rng: random.Random) -> str:
    return f"https://{rng.choice(NOUNS)}.example.com/{rng.choice(NOUNS)}/{rng.randint(1, 9999)}"


def email(rng: random.Random) -> str:
    return f"{rng.choice(FIRST)}.{rng.choice(LAST)}{rng.randint(1, 99)}@example.{rng.choice(['com', 'org', 'net'])}"


# Identifiers that services give their things, by kind.
IDENTIFIERS = {
    "integer": lambda rng: rng.randint(1, 10 ** rng.choice([3, 5, 7])),
    "uuid": make_uuid,
    "slug": slug,
    "name": lambda rng: rng.choice([rng.choice(NOUNS), rng.choice(FIRST) + rng.choice(LAST), rng.choice(ADJECTIVES) + "_" + rng.choice(NOUNS)]),
    "code": lambda rng: opaque(rng, rng.randint(2, 4), string.ascii_uppercase) + rng.choice(["", "-", ""]) + str(rng.randint(1, 9999)),
    "object id": lambda rng: f"{rng.getrandbits(96):024x}",
    "opaque": lambda rng: opaque(rng, 16),
    "prefixed": lambda rng: f"obj_{opaque(rng, 14)}",
    "ulid": lambda rng: "01J" + opaque(rng, 23, "0123456789ABCDEFGHJKMNPQRSTVWXYZ"),
    "date": date,
}

STRING_FORMATS = {
    "date-time": date_time,
    "date": date,
    "time": lambda rng: f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}",
    "uuid": make_uuid,
    "guid": make_uuid,
    "email": email,
    "uri": url,
    "url": url,
    "ipv4": lambda rng: ".".join(str(rng.randint(1, 254)) for _ in range(4)),
    "ipv6": lambda rng: ":".join(f"{rng.getrandbits(16):x}" for _ in range(8)),
    "hostname": lambda rng: f"{rng.choice(NOUNS)}.example.com",
    "byte": lambda rng: base64.b64encode(rng.randbytes(12)).decode(),
    "password": lambda rng: opaque(rng, 12),
    "binary": lambda rng: opaque(rng, 20),
}

# What people put in a string field of some name, where the schema does not say.
NAMED = (
    (re.compile(r"e-?mail", re.I), email),
    (re.compile(r"(url|uri|href|link|image|avatar|website|homepage)$", re.I), url),
    (re.compile(r"(_at|At|date|Date|timestamp|created|updated|modified|_on|since|until|from|to)$"), date_time),
    (re.compile(r"(phone|mobile|fax)", re.I), lambda rng: f"+33 6 {rng.randint(10, 99)} {rng.randint(10, 99)} {rng.randint(10, 99)} {rng.randint(10, 99)}"),
    (re.compile(r"currency", re.I), lambda rng: rng.choice(CURRENCIES)),
    (re.compile(r"country", re.I), lambda rng: rng.choice(COUNTRIES)),
    (re.compile(r"(locale|language|lang)$", re.I), lambda rng: rng.choice(LOCALES)),
    (re.compile(r"city|town", re.I), lambda rng: rng.choice(CITIES)),
    (re.compile(r"(first|given)_?name", re.I), lambda rng: rng.choice(FIRST).title()),
    (re.compile(r"(last|family|sur)_?name", re.I), lambda rng: rng.choice(LAST).title()),
    (re.compile(r"(description|comment|note|message|text|body|summary|details?|reason|content)", re.I), lambda rng: rng.choice(SENTENCES)),
    (re.compile(r"(slug|handle)", re.I), slug),
    (re.compile(r"(title|label|subject|name)$", re.I), lambda rng: f"{rng.choice(ADJECTIVES).title()} {rng.choice(NOUNS)}"),
    (re.compile(r"(hash|checksum|sha|digest|etag)", re.I), lambda rng: f"{rng.getrandbits(160):040x}"),
    (re.compile(r"(token|secret|cursor|key)$", re.I), lambda rng: opaque(rng, 24)),
    (re.compile(r"(^|_)(uu)?id$|Id$|ID$"), lambda rng: opaque(rng, 16)),
    (re.compile(r"version", re.I), lambda rng: f"{rng.randint(0, 4)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}"),
    (re.compile(r"(amount|price|total|balance)$", re.I), lambda rng: f"{rng.randint(1, 999)}.{rng.randint(0, 99):02}"),
)


class Synthesizer:
    """Makes instances of the schemas of one document.

    Whether an optional property is usually sent is a habit of the property, not of the instance:
    `presence` remembers one probability for each.
    """

    def __init__(self, document: Document, seed: str):
        self.document = document
        self.seed = seed
        self.presence: dict[tuple[int, str], float] = {}
        self.budget = 0
        # Flattening follows references and unions, which is slow; schemas are never changed, so
        # a schema is known by its address while the document lives.
        self.flat: dict[int, dict] = {}
        # Keeps what `flat` knows by address alive.
        self.kept: list[dict] = []

    def flatten_branch(self, schema, rng: random.Random) -> dict:
        """A flat schema with one branch of its unions chosen."""
        document = self.document
        for _ in range(8):
            schema = document.resolve(schema)
            if not isinstance(schema, dict):
                return {}
            branches = [b for b in [*(schema.get("oneOf") or []), *(schema.get("anyOf") or [])] if isinstance(b, dict)]
            branches = [b for b in branches if type_names(document.resolve(b)) != {"null"} and "not" not in b]
            if not branches:
                break
            rest = {k: v for k, v in schema.items() if k not in ("oneOf", "anyOf", "allOf", "discriminator")}
            parts = [*(schema.get("allOf") or []), rest, rng.choice(branches)]
            schema = {"allOf": parts}
            break
        if "allOf" not in schema:
            return schema
        key = id(schema)
        if key in self.flat:
            return self.flat[key]
        flat = document.flatten(schema)
        if "oneOf" not in flat and not any("oneOf" in document.resolve(p) or "anyOf" in document.resolve(p) for p in schema["allOf"]):
            self.flat[key] = flat
            self.kept.append(schema)
        return flat

    def make(self, schema, rng: random.Random, name: str = ""):
        self.budget = 400
        return self._make(schema, rng, name, 0)

    def _make(self, schema, rng: random.Random, name: str, depth: int):
        flat = self.flatten_branch(schema, rng)
        self.budget -= 1
        types = type_names(flat)
        if "null" in types and len(types) > 1 and rng.random() < 0.15:
            return None
        if "const" in flat:
            return flat["const"]
        enum = [v for v in flat.get("enum") or [] if v is not None]
        kinds = sorted(types - {"null"})
        if enum and kinds not in (["array"], ["object"]):
            # Some members of an enumeration are common, some rare.
            return enum[min(int(rng.expovariate(0.5)), len(enum) - 1)]
        kind = rng.choice(kinds) if kinds else ("null" if types == {"null"} else None)
        if kind == "object":
            return self._object(flat, rng, name, depth)
        if kind == "array":
            return self._array(flat, rng, name, depth)
        if kind in ("integer", "number"):
            return self._number(flat, rng, name, kind)
        if kind == "boolean":
            return rng.random() < 0.5
        if kind == "null":
            return None
        if kind is None:
            # Untyped: a service sends one type there all the same.
            return self._string({}, rng, name)
        return self._string(flat, rng, name)

    def is_sent(self, flat: dict, name: str, rng: random.Random) -> bool:
        key = (id(flat.get("properties")), name)
        if key not in self.presence:
            habit = random.Random(f"{self.seed}/{name}/{len(self.presence)}")
            self.presence[key] = habit.choice([0.3, 0.6, 0.8, 0.9])
        return rng.random() < self.presence[key]

    def _object(self, flat: dict, rng: random.Random, name: str, depth: int) -> dict:
        out = {}
        properties = flat.get("properties") or {}
        required = set(flat.get("required") if isinstance(flat.get("required"), list) else [])
        for key, schema in properties.items():
            is_due = key in required
            if not is_due and (depth > 4 or self.budget < 0 or not self.is_sent(flat, key, rng)):
                continue
            if depth > 9:
                continue
            out[key] = self._make(schema, rng, key, depth + 1)
        rest = flat.get("additionalProperties")
        if isinstance(rest, dict) and rest and depth <= 4 and self.budget > 0:
            for _ in range(rng.randint(0 if properties else 1, 4)):
                out.setdefault(rng.choice([slug, lambda r: r.choice(LOCALES), lambda r: r.choice(NOUNS)])(rng), self._make(rest, rng, name, depth + 1))
        return out

    def _array(self, flat: dict, rng: random.Random, name: str, depth: int) -> list:
        least = flat.get("minItems") if isinstance(flat.get("minItems"), int) else 0
        most = flat.get("maxItems") if isinstance(flat.get("maxItems"), int) else 6
        length = min(max(rng.choice([0, 1, 1, 2, 3, 5]), min(least, 10)), max(most, least))
        if (depth > 4 or self.budget < 0) and not least:
            length = 0
        return [self._make(flat.get("items") or {}, rng, singular(name), depth + 1) for _ in range(length)]

    def _number(self, flat: dict, rng: random.Random, name: str, kind: str):
        low = flat.get("minimum") if isinstance(flat.get("minimum"), (int, float)) else 0
        high = flat.get("maximum") if isinstance(flat.get("maximum"), (int, float)) else low + rng.choice([50, 5000, 200000])
        low, high = max(low, -1e12), min(high, 1e12)
        if high < low:
            high = low
        if kind == "integer" or flat.get("format") in ("int32", "int64"):
            if re.search(r"(_at|At|time|Time|timestamp)$", name) and high > 1e9:
                return rng.randint(1_600_000_000, 1_790_000_000)
            return rng.randint(int(low), int(high))
        return round(rng.uniform(low, min(high, low + 1000)), 2)

    def _string(self, flat: dict, rng: random.Random, name: str) -> str:
        if flat.get("format") in STRING_FORMATS:
            return STRING_FORMATS[flat["format"]](rng)
        if isinstance(flat.get("example"), str) and rng.random() < 0.2:
            return flat["example"]
        for pattern, make in NAMED:
            if pattern.search(name):
                value = make(rng)
                break
        else:
            value = rng.choice([lambda: rng.choice(NOUNS), lambda: f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}", lambda: opaque(rng, 10), lambda: slug(rng)])()
        most = flat.get("maxLength")
        return value[:most] if isinstance(most, int) and most > 0 else value


def singular(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word

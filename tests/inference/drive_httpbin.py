"""A scripted client of httpbin, over what its own `/spec.json` documents."""

from __future__ import annotations

import base64
import hashlib
import random
import re

from service_client import Client
from synthesis import FIRST, NOUNS, make_uuid, opaque, slug

PLAIN = (
    "/brotli", "/cache", "/cookies", "/deflate", "/deny", "/encoding/utf8", "/gzip", "/headers", "/html", "/image", "/image/jpeg", "/image/png",
    "/image/svg", "/image/webp", "/ip", "/json", "/robots.txt", "/user-agent", "/uuid", "/xml",
)
NOISE = ("/wp-login.php", "/.env", "/admin/config.php", "/.git/config", "/phpmyadmin/", "/api/v1/pods")


def drive(client: Client, rounds: int, seed: str = "httpbin") -> None:
    rng = random.Random(seed)
    for turn in range(rounds):
        calls = [lambda p=p: client.send("GET", p, headers=image_accept(p)) for p in PLAIN]
        calls += [lambda m=m: body_call(client, rng, m) for m in ("POST", "PUT", "PATCH", "DELETE")]
        calls += [lambda: client.send("GET", "/get", query={"page": rng.randint(1, 30), "q": rng.choice(NOUNS)})]
        calls += [lambda m=m: anything(client, rng, m) for m in ("GET", "POST", "PUT", "PATCH", "DELETE")]
        calls += [lambda m=m: client.send(m, f"/status/{rng.choice([200, 201, 204, 301, 304, 400, 404, 418, 429, 500, 503])}") for m in ("GET", "POST", "PUT", "PATCH", "DELETE")]
        calls += [lambda m=m: client.send(m, f"/delay/{rng.choice(['0', '0', '0.01', '0.02'])}") for m in ("GET", "POST", "PUT", "PATCH", "DELETE")]
        calls += [lambda p=p: client.send("GET", f"/{p}/{rng.randint(1, 12)}") for p in ("redirect", "relative-redirect", "absolute-redirect", "stream")]
        calls += [lambda p=p: client.send("GET", f"/{p}/{rng.randint(16, 4096)}") for p in ("bytes", "stream-bytes", "range")]
        calls += [lambda: client.send("GET", f"/cache/{rng.choice([30, 60, 300, 3600])}"), lambda: client.send("GET", f"/links/{rng.randint(2, 12)}/{rng.randint(0, 1)}")]
        calls += [lambda: client.send("GET", "/base64/" + base64.urlsafe_b64encode(slug(rng).encode()).decode())]
        calls += [lambda: conditional(client, rng), lambda: redirects(client, rng), lambda: cookies(client, rng)]
        calls += [lambda: basic(client, rng, "basic-auth"), lambda: basic(client, rng, "hidden-basic-auth"), lambda: bearer(client, rng)]
        calls += [lambda n=n: digest(client, rng, n) for n in range(3)]
        calls += [lambda m=m: client.send(m, "/response-headers", query={"freeform": rng.choice(NOUNS)}) for m in ("GET", "POST")]
        calls += [lambda: client.send("GET", "/drip", query={"duration": 0, "numbytes": rng.randint(1, 50), "code": 200, "delay": 0})]
        calls += [lambda: client.send("GET", rng.choice(NOISE))]
        rng.shuffle(calls)
        for call in calls:
            call()


def image_accept(path: str) -> dict[str, str]:
    return {"Accept": "image/png"} if path == "/image" else {}


def person(rng: random.Random) -> dict:
    return {"name": rng.choice(FIRST).title(), "age": rng.randint(18, 80), "tags": rng.sample(NOUNS, 2), "id": make_uuid(rng)}


def body_call(client: Client, rng: random.Random, method: str) -> None:
    path = "/" + method.lower()
    if rng.random() < 0.5:
        client.send(method, path, body=person(rng))
    else:
        client.send(method, path, form={"custname": rng.choice(FIRST), "size": rng.choice(["small", "medium", "large"])})


def anything(client: Client, rng: random.Random, method: str) -> None:
    body = None if method in ("GET", "DELETE") else person(rng)
    client.send(method, "/anything", body=body)
    client.send(method, f"/anything/{slug(rng)}", body=body)


def conditional(client: Client, rng: random.Random) -> None:
    tag = opaque(rng, 10)
    client.send("GET", f"/etag/{tag}")
    client.send("GET", f"/etag/{tag}", headers={"If-None-Match": tag})
    client.send("GET", f"/etag/{tag}", headers={"If-Match": opaque(rng, 10)})
    client.send("GET", "/cache", headers={"If-None-Match": tag})


def redirects(client: Client, rng: random.Random) -> None:
    url = f"https://{rng.choice(NOUNS)}.example.com/"
    client.send("GET", "/redirect-to", query={"url": url} | ({"status_code": rng.choice([301, 302, 307])} if rng.random() < 0.5 else {}))
    for method in ("POST", "PUT"):
        client.send(method, "/redirect-to", form={"url": url, "status_code": rng.choice([302, 307])})
    for method in ("PATCH", "DELETE"):
        client.send(method, "/redirect-to", query={"url": url})


def cookies(client: Client, rng: random.Random) -> None:
    name = rng.choice(["theme", "session_hint", "lang", "ab-test", "basket"])
    client.send("GET", f"/cookies/set/{name}/{rng.choice(NOUNS)}")
    client.send("GET", "/cookies/set", query={"freeform": rng.choice(NOUNS)})
    client.send("GET", "/cookies/delete", query={"freeform": ""})


def basic(client: Client, rng: random.Random, kind: str) -> None:
    user, password = rng.choice(FIRST) + str(rng.randint(1, 99)), opaque(rng, 9)
    wrong = rng.random() < 0.2
    token = base64.b64encode(f"{user}:{'x' if wrong else password}".encode()).decode()
    client.send("GET", f"/{kind}/{user}/{password}", headers={"Authorization": f"Basic {token}"})


def bearer(client: Client, rng: random.Random) -> None:
    client.send("GET", "/bearer", headers={} if rng.random() < 0.2 else {"Authorization": f"Bearer {opaque(rng, 40)}"})


def digest(client: Client, rng: random.Random, extra: int) -> None:
    """RFC 7616: the first answer is 401 with the nonce, the second is 200."""
    user, password = rng.choice(FIRST) + str(rng.randint(1, 99)), opaque(rng, 8)
    algorithm = rng.choice(["MD5", "SHA-256"])
    protection, stale = rng.choice(["auth", "auth", "auth-int"]), rng.choice(["never", "3", "10"])
    path = f"/digest-auth/{protection}/{user}/{password}" + ("", f"/{algorithm}", f"/{algorithm}/{stale}")[extra]
    first = client.send("GET", path)
    challenge = first.response_header("www-authenticate") or ""
    fields = dict(re.findall(r'(\w+)="?([^",]+)"?', challenge))
    make = hashlib.sha256 if fields.get("algorithm") == "SHA-256" else hashlib.md5
    join = lambda *parts: make(":".join(parts).encode()).hexdigest()
    nonce, count, own = fields.get("nonce", ""), "00000001", opaque(rng, 8)
    secret = join(user, fields.get("realm", ""), password)
    request = ("GET", path, make(b"").hexdigest()) if protection == "auth-int" else ("GET", path)
    answer = join(secret, nonce, count, own, protection, join(*request))
    header = (
        f'Digest username="{user}", realm="{fields.get("realm", "")}", nonce="{nonce}", uri="{path}", qop={protection}, nc={count}, cnonce="{own}", '
        f'response="{answer}", opaque="{fields.get("opaque", "")}", algorithm={fields.get("algorithm", "MD5")}'
    )
    cookie = (first.response_header("set-cookie") or "").split(";")[0]
    client.send("GET", path, headers={"Authorization": header, "Cookie": f"{cookie}; fake=fake_value"})

"""A scripted client of Jupyter Server: files by name, checkpoints, settings, terminals.

Paths in its contents API may have several segments, which no OpenAPI template can say; the client
keeps its files at the top, as its own specification assumes.
"""

from __future__ import annotations

import random
from urllib.parse import quote

from service_client import Client
from synthesis import NOUNS, slug
from traffic import read_json

TOKEN = "jupyter-test-token"
SECTIONS = ("notebook", "common", "terminal", "edit", "tree", "rstudio", "codecell", "markdown")


def notebook(rng: random.Random) -> dict:
    cell = {"cell_type": "code", "execution_count": None, "id": f"{rng.getrandbits(32):08x}", "metadata": {}, "outputs": [], "source": f"print({rng.randint(1, 99)})"}
    return {"type": "notebook", "format": "json", "content": {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}}


def drive(client: Client, rounds: int, seed: str = "jupyter") -> None:
    rng = random.Random(seed)
    client.headers["Authorization"] = f"token {TOKEN}"
    files: list[str] = []
    for turn in range(rounds):
        folder = f"{rng.choice(NOUNS)}-{turn}"
        client.send("PUT", f"/api/contents/{folder}", body={"type": "directory"})
        client.send("POST", f"/api/contents/{folder}", body={"type": rng.choice(["notebook", "file"])} if turn % 2 else {"ext": ".txt", "type": "file"})
        name = slug(rng) + rng.choice([".ipynb", ".txt", ".md", ".csv"])
        body = notebook(rng) if name.endswith(".ipynb") else {"type": "file", "format": "text", "content": f"{slug(rng)}\n"}
        client.send("PUT", f"/api/contents/{name}", body=body)
        files.append(name)
        for file in rng.sample(files, min(3, len(files))):
            client.send("GET", f"/api/contents/{quote(file)}", query={"content": rng.choice([0, 1]), "type": "notebook" if file.endswith(".ipynb") else "file"} if rng.random() < 0.7 else None)
        client.send("GET", f"/api/contents/missing-{slug(rng)}.txt")
        checkpoints(client, rng.choice(files))
        if turn % 3 == 2:
            old = files.pop(rng.randrange(len(files)))
            new = slug(rng) + old[old.rindex(".") :]
            client.send("PATCH", f"/api/contents/{quote(old)}", body={"path": new})
            files.append(new)
        if turn % 4 == 3:
            client.send("DELETE", f"/api/contents/{quote(files.pop(rng.randrange(len(files))))}")
        section = rng.choice(SECTIONS)
        client.send("PATCH", f"/api/config/{section}", body={rng.choice(["theme", "fontSize", "lineNumbers"]): rng.choice(["dark", "light"])})
        client.send("GET", f"/api/config/{section}")
        terminals(client, turn)
        for path in ("/api/", "/api/kernelspecs", "/api/kernels", "/api/sessions", "/api/me", "/api/status", "/api/spec.yaml"):
            client.send("GET", path)
        if rng.random() < 0.3:
            client.send("GET", rng.choice(["/api/contents", "/api/terminals"]), headers={"Authorization": ""})


def checkpoints(client: Client, file: str) -> None:
    path = f"/api/contents/{quote(file)}/checkpoints"
    client.send("POST", path)
    client.send("GET", path)
    client.send("POST", f"{path}/checkpoint")


def terminals(client: Client, turn: int) -> None:
    listed = read_json(client.send("GET", "/api/terminals").response_body)
    if turn % 3:
        return
    made = read_json(client.send("POST", "/api/terminals").response_body)
    client.send("GET", f"/api/terminals/{made['name']}")
    # A few stay open, so that names go beyond the first.
    if len(listed) > 4:
        client.send("DELETE", f"/api/terminals/{listed[turn % len(listed)]['name']}")

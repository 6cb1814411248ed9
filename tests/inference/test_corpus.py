#!/usr/bin/env python3
"""Tests of the traffic generator: `python3 -m unittest test_corpus`."""

import hashlib
import json
import tempfile
import unittest
from pathlib import Path

from compare import Comparison
from corpus import Service, list_documents, lose
from specification import Document
from traffic import read_har, write_har

ITEM = {"type": "object", "required": ["id", "name"], "properties": {"id": {"type": "string", "format": "uuid"}, "name": {"type": "string"}, "note": {"type": "string", "nullable": True}, "tags": {"type": "array", "items": {"type": "string"}}}}
SHOP = {
    "openapi": "3.0.0",
    "servers": [{"url": "https://shop.example/v2"}],
    "security": [{"k": []}],
    "components": {"securitySchemes": {"k": {"type": "apiKey", "in": "query", "name": "api_key"}}, "schemas": {"Item": ITEM}},
    "paths": {
        "/items": {
            "get": {
                "parameters": [{"in": "query", "name": "limit", "schema": {"type": "integer", "maximum": 50}}],
                "responses": {"200": {"description": "", "content": {"application/json": {"schema": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Item"}}}}}},
            },
            "post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}}}, "responses": {"201": {"description": ""}}},
        },
        "/items/{itemId}": {
            "get": {
                "parameters": [{"in": "path", "name": "itemId", "required": True, "schema": {"type": "string", "format": "uuid"}}],
                "responses": {"200": {"description": "", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}}}},
            }
        },
    },
}


def traffic(seed: str = "s", samples: int = 12):
    return Service(Document(SHOP), seed, samples).run()


class Generator(unittest.TestCase):
    def test_a_seed_gives_the_same_traffic_and_another_gives_other(self):
        self.assertEqual(traffic("a"), traffic("a"))
        self.assertNotEqual([e.url for e in traffic("a")], [e.url for e in traffic("b")])

    def test_every_operation_succeeds_at_least_once_and_scanners_never(self):
        comparison = Comparison(Document(SHOP), Document(SHOP), traffic(samples=3))
        self.assertEqual(comparison.exercised, {"GET /v2/items", "POST /v2/items", "GET /v2/items/{*}"})
        self.assertEqual(comparison.undocumented, [])

    def test_lists_show_the_ids_that_are_asked_for(self):
        shown, asked = set(), set()
        for e in traffic(samples=30):
            if e.status == 200 and e.path == "/v2/items":
                shown |= {item["id"] for item in json.loads(e.response_body)}
            elif e.status == 200:
                asked.add(e.path.rpartition("/")[2])
        self.assertGreater(len(asked & shown), len(asked) / 2)

    def test_a_thing_is_the_same_each_time(self):
        bodies: dict[str, set] = {}
        for e in traffic(samples=40):
            if e.status == 200 and e.path != "/v2/items":
                bodies.setdefault(e.path, set()).add(e.response_body)
        self.assertTrue(any(len(b) == 1 for b in bodies.values()))
        self.assertEqual({len(b) for b in bodies.values()}, {1})

    def test_credentials_are_sent_except_to_be_refused(self):
        for e in traffic(samples=40):
            if e.path.startswith("/v2"):
                self.assertEqual(any(n == "api_key" for n, _ in e.query), e.status != 401)

    def test_loss_cuts_bodies_and_tells_their_length(self):
        whole = traffic(samples=40)
        lossy = lose(whole, 0.5, "s")
        cut = [(a, b) for a, b in zip(whole, lossy) if not b.is_whole]
        self.assertGreater(len(cut), 10)
        for a, b in cut:
            if b.response_length is not None:
                self.assertEqual(b.response_length, len(a.response_body))
                self.assertTrue(a.response_body.startswith(b.response_body or b""))

    def test_a_har_file_gives_back_what_was_written(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "t.har"
            lossy = lose(traffic(), 0.5, "s")
            write_har(path, lossy)
            back = read_har(path)
        self.assertEqual([(e.method, e.url, e.status, e.response_body, e.response_length) for e in lossy], [(e.method, e.url, e.status, e.response_body, e.response_length) for e in back])


class HeldOut(unittest.TestCase):
    def test_vendors_kept_for_acceptance_are_never_listed(self):
        names = [f"vendor{i}.example" for i in range(40)]
        with tempfile.TemporaryDirectory() as folder:
            for i, name in enumerate(names):
                if i % 2:
                    (Path(folder) / name).mkdir()
                    (Path(folder) / name / "api.json").write_text("{}")
                else:
                    (Path(folder) / f"{name}.json").write_text("{}")
            listed = {vendor for vendor, _ in list_documents(Path(folder))}
        kept = {n for n in names if hashlib.sha256(n.encode()).hexdigest()[0] in "0123"}
        self.assertTrue(kept)
        self.assertEqual(listed, set(names) - kept)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""Tests of the comparer on small documents made by hand: `python3 -m unittest test_compare`."""

import json
import unittest

from compare import compare
from score import Report, Score, unmet
from specification import Document, normalise
from traffic import Exchange, _entry, _exchange


def published(**operation) -> Document:
    user = {
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": {"type": "integer"},
            "nick": {"type": "string"},
            "state": {"type": "string", "enum": ["on", "off", "idle"]},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
    }
    ok = {"200": {"description": "", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/User"}}}}}
    return Document(
        {
            "openapi": "3.0.0",
            "servers": [{"url": "https://x.example/api"}],
            "components": {"schemas": {"User": user}, "securitySchemes": {"k": {"type": "apiKey", "in": "header", "name": "X-Key"}}},
            "paths": {
                "/users": {"get": {"parameters": [{"in": "query", "name": "page", "required": True, "schema": {"type": "integer"}}, {"in": "query", "name": "q", "schema": {"type": "string"}}], "responses": {"200": {"description": ""}}}},
                "/users/{id}": {"parameters": [{"in": "path", "name": "id", "required": True, "schema": {"type": "integer"}}], "get": {"security": [{"k": []}], "responses": ok, **operation}},
                "/users/me": {"get": {"responses": ok}},
                "/unused": {"get": {"responses": ok}},
            },
        }
    )


def inferred(paths: dict, **rest) -> Document:
    return Document({"openapi": "3.1.0", "paths": paths, **rest})


def get(path: str, body=None, status: int = 200, headers=()) -> Exchange:
    sent = None if body is None else json.dumps(body).encode()
    return Exchange("GET", "http://x.example/api" + path, [*headers], None, status, [("Content-Type", "application/json")], sent)


def answer(schema: dict, *statuses: str) -> dict:
    return {s: {"description": "", "content": {"application/json": {"schema": schema}}} for s in (statuses or ("200",))}


def score(report: Report, measure: str) -> tuple[int, int, int]:
    s = report.scores[measure]
    return s.right, s.invented, s.missed


class Operations(unittest.TestCase):
    def test_names_of_parameters_do_not_matter_and_base_paths_are_joined(self):
        ours = inferred({"/users/{userId}": {"get": {"responses": {}}}}, servers=[{"url": "http://10.0.0.1/api"}])
        self.assertEqual(score(compare(published(), ours, [get("/users/7")]), "operations"), (1, 0, 0))

    def test_an_operation_that_only_failed_is_not_due(self):
        ours = inferred({"/api/users/{id}": {"get": {}}})
        self.assertEqual(score(compare(published(), ours, [get("/users/7", status=404)]), "operations"), (0, 0, 0))

    def test_a_literal_template_wins_over_a_parameter(self):
        ours = inferred({"/api/users/{id}": {"get": {}}})
        report = compare(published(), ours, [get("/users/7"), get("/users/me")])
        self.assertEqual(score(report, "operations"), (1, 0, 1))

    def test_an_unmerged_parameter_is_invented_operations(self):
        ours = inferred({"/api/users/7": {"get": {}}, "/api/users/8": {"get": {}}})
        report = compare(published(), ours, [get("/users/7"), get("/users/8")])
        self.assertEqual(score(report, "operations"), (0, 2, 1))
        self.assertEqual(score(report, "path parameters"), (0, 0, 1))

    def test_scanner_noise_is_invented_and_a_real_undocumented_path_is_not(self):
        ours = inferred({"/wp-login.php": {"get": {}}, "/api/healthz": {"get": {}}})
        report = compare(published(), ours, [get("/healthz"), Exchange("GET", "http://x.example/wp-login.php", status=404)])
        self.assertEqual(score(report, "operations"), (0, 1, 0))

    def test_a_static_segment_made_a_parameter(self):
        ours = inferred({"/api/{thing}/{id}": {"get": {}}})
        report = compare(published(), ours, [get("/users/7")])
        self.assertEqual(score(report, "path parameters"), (1, 1, 0))

    def test_partial_segments(self):
        self.assertEqual(normalise("/a/{b}.json/"), "/a/{*}.json")
        self.assertNotEqual(normalise("/a/{b}.json"), normalise("/a/{b}"))


class Parameters(unittest.TestCase):
    def ours(self, *parameters: dict) -> Document:
        return inferred({"/api/users": {"get": {"parameters": list(parameters), "responses": answer({})}}})

    def test_only_what_was_sent_is_due(self):
        report = compare(published(), self.ours({"in": "query", "name": "page", "schema": {"type": "integer"}}), [get("/users?page=1")])
        self.assertEqual(score(report, "query parameters"), (1, 0, 0))
        self.assertEqual(score(report, "parameter types"), (1, 0, 0))

    def test_missed_and_invented(self):
        report = compare(published(), self.ours({"in": "query", "name": "ghost"}), [get("/users?page=1&q=a")])
        self.assertEqual(score(report, "query parameters"), (0, 1, 2))

    def test_required_needs_enough_requests(self):
        page = {"in": "query", "name": "page", "schema": {"type": "string"}}
        self.assertEqual(score(compare(published(), self.ours(page), [get("/users?page=x1")] * 19), "required query"), (0, 0, 0))
        report = compare(published(), self.ours(page), [get("/users?page=x1")] * 20)
        self.assertEqual(score(report, "required query"), (0, 0, 1))
        self.assertEqual(score(report, "parameter types"), (0, 1, 1))

    def test_statuses_come_from_the_traffic(self):
        ours = inferred({"/api/users": {"get": {"responses": answer({}, "200", "500")}}})
        report = compare(published(), ours, [get("/users"), get("/users", status=429)])
        self.assertEqual(score(report, "statuses"), (1, 1, 1))

    def test_headers_of_transport_are_no_parameters_and_real_ones_may_be(self):
        found = [{"in": "header", "name": "X-Tenant"}, {"in": "header", "name": "X-Request-Id"}]
        report = compare(published(), self.ours(*found), [get("/users", headers=[("X-Tenant", "a"), ("X-Request-Id", "b")])])
        self.assertEqual(score(report, "header parameters"), (0, 1, 0))

    def test_security(self):
        schemes = {"securitySchemes": {"a": {"type": "apiKey", "in": "header", "name": "x-key"}, "b": {"type": "http", "scheme": "bearer"}}}
        ours = inferred({"/api/users/{id}": {"get": {"security": [{"a": []}, {"b": []}], "responses": {}}}}, components=schemes)
        report = compare(published(), ours, [get("/users/1", headers=[("X-Key", "s3")])])
        self.assertEqual(score(report, "security"), (1, 1, 0))


class Bodies(unittest.TestCase):
    def report(self, schema: dict, *bodies) -> Report:
        ours = inferred({"/api/users/{id}": {"get": {"responses": answer(schema)}}})
        return compare(published(), ours, [get(f"/users/{i}", body) for i, body in enumerate(bodies)])

    def test_properties_types_and_undocumented_ones(self):
        schema = {"type": "object", "properties": {"id": {"type": "string"}, "extra": {"type": "string"}, "ghost": {}}}
        report = self.report(schema, {"id": 1, "nick": "a", "extra": "b"})
        self.assertEqual(score(report, "response properties"), (1, 1, 1))
        self.assertEqual(score(report, "types"), (1, 1, 1))

    def test_a_type_as_narrow_as_the_values_is_right(self):
        schema = {"type": "object", "properties": {"id": {"type": "integer"}, "nick": {"type": "string"}}}
        document = published()
        document.raw["components"]["schemas"]["User"]["properties"]["id"]["type"] = "number"
        ours = inferred({"/api/users/{id}": {"get": {"responses": answer(schema)}}})
        self.assertEqual(score(compare(document, ours, [get("/users/1", {"id": 1})]), "types"), (2, 0, 0))
        self.assertEqual(score(compare(document, ours, [get("/users/1", {"id": 1.5})]), "types"), (1, 1, 1))

    def test_a_map_spelt_out_is_wrong(self):
        spelt = {"type": "object", "properties": {"labels": {"type": "object", "properties": {"x": {}, "y": {}}}}}
        report = self.report(spelt, {"id": 1, "labels": {"x": "1", "y": "2"}})
        # labels is right; `/labels/{literal}` is invented; id and `/labels/{}` are missed.
        self.assertEqual(score(report, "response properties"), (1, 1, 2))
        as_map = {"properties": {"labels": {"type": "object", "additionalProperties": {"type": "string"}}}}
        report = self.report(as_map, {"labels": {"x": "1", "y": "2"}})
        self.assertEqual(score(report, "response properties"), (2, 0, 0))

    def test_array_items(self):
        schema = {"properties": {"tags": {"type": "array", "items": {"type": "integer"}}}}
        report = self.report(schema, {"tags": ["a"]})
        self.assertEqual(score(report, "response properties"), (2, 0, 0))
        self.assertIn("missed types: GET /api/users/{*} 200 /tags/* string", report.faults)

    def test_required_flags(self):
        schema = {"type": "object", "required": ["nick"], "properties": {"id": {"type": "integer"}, "nick": {"type": "string"}}}
        # nick is optional and was left out once; id is required and never was.
        bodies = [{"id": 1, "nick": "a"}] * 20 + [{"id": 1}]
        self.assertEqual(score(self.report(schema, *bodies), "required"), (0, 1, 1))
        # Optional and always there looks like required: no fault.
        self.assertEqual(score(self.report(schema, *bodies[:20]), "required"), (0, 0, 1))

    def test_nullability_is_what_was_seen(self):
        schema = {"properties": {"id": {"type": ["integer", "null"]}, "nick": {"type": "string"}}}
        self.assertEqual(score(self.report(schema, {"id": 1, "nick": None}), "nullable"), (0, 1, 1))

    def test_enumerations(self):
        bodies = [{"id": i, "state": "on" if i % 2 else "off", "nick": "n"} for i in range(20)]
        right = {"properties": {"state": {"type": "string", "enum": ["off", "on"]}}}
        self.assertEqual(score(self.report(right, *bodies), "enum"), (1, 0, 0))
        wrong = {"properties": {"state": {"type": "string"}, "nick": {"type": "string", "enum": ["n"]}}}
        self.assertEqual(score(self.report(wrong, *bodies), "enum"), (0, 1, 1))


class Thresholds(unittest.TestCase):
    def test_below_and_not_measured_are_not_met(self):
        report = Report()
        report.scores["operations"] = Score(right=9, invented=0, missed=1)
        self.assertEqual(unmet(report, {"operations.recall": 0.9, "operations.precision": 1.0}), [])
        self.assertEqual(len(unmet(report, {"operations.recall": 0.91, "types.f1": 0.1})), 2)
        with self.assertRaises(ValueError):
            unmet(report, {"operation.recall": 0.9})


class Har(unittest.TestCase):
    def test_a_cut_body_keeps_its_length(self):
        e = get("/users/1", {"id": 1})
        e.response_length, e.response_body = len(e.response_body), e.response_body[:4]
        back = _exchange(_entry(e))
        self.assertEqual((back.response_body, back.response_length, back.request_length), (b'{"id', 9, None))


class Version2(unittest.TestCase):
    def test_form_body_and_base_path(self):
        raw = {
            "swagger": "2.0",
            "basePath": "/v1",
            "securityDefinitions": {"b": {"type": "basic"}},
            "paths": {"/p": {"post": {"security": [{"b": []}], "parameters": [{"in": "formData", "name": "size", "type": "string"}], "responses": {"200": {"description": ""}}}}},
        }
        operation = Document(raw).operations[0]
        self.assertEqual(operation.key, "POST /v1/p")
        self.assertEqual(list(operation.request["application/x-www-form-urlencoded"]["properties"]), ["size"])
        self.assertEqual(operation.security, [frozenset({"basic"})])


if __name__ == "__main__":
    unittest.main()

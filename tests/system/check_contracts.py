"""Checks every contract below the given directories with validators that know nothing of us.

OpenAPI documents with openapi-spec-validator, UACs with jsonschema against the published schema;
YAML and JSON of one contract must say the same. Ends with 1 at the first contract that fails.
"""

import json
import sys
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

ROOT = Path(__file__).resolve().parents[2]


def uac_schema():
    found = sorted((ROOT / "agent" / "contract").rglob("uac-contract-v1.schema.json"))
    if len(found) != 1:
        sys.exit(f"expected one uac-contract-v1.schema.json below agent/contract, found {len(found)}")
    schema = json.loads(found[0].read_text())
    Draft202012Validator.check_schema(schema)
    return schema


class Yaml(yaml.CSafeLoader):
    """YAML 1.2 has no timestamps (core schema, section 10.3); PyYAML still reads them as YAML 1.1."""


Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def check_openapi(document, place):
    for error in OpenAPIV31SpecValidator(document).iter_errors():
        sys.exit(f"{place}: {error.message} at {list(error.absolute_path)}")
    ids = [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict) and "operationId" in operation
    ]
    if len(ids) != len(set(ids)):
        sys.exit(f"{place}: operationId twice")


def check_uac(document, place, schema):
    for error in Draft202012Validator(schema, format_checker=FormatChecker()).iter_errors(document):
        sys.exit(f"{place}: {error.message} at {list(error.absolute_path)}")


def main():
    documents = uacs = 0
    schema = uac_schema()
    for directory in sys.argv[1:]:
        for file in sorted(Path(directory).rglob("*.openapi.json")):
            document = json.loads(file.read_text())
            check_openapi(document, file)
            twin = file.with_suffix(".yaml")
            if yaml.load(twin.read_text(), Loader=Yaml) != document:
                sys.exit(f"{twin} and {file} differ")
            documents += 1
        for file in sorted(Path(directory).rglob("*.uac.json")):
            check_uac(json.loads(file.read_text()), file, schema)
            uacs += 1
    if not documents:
        sys.exit(f"no contract below {sys.argv[1:]}")
    print(f"{documents} OpenAPI documents and {uacs} UACs are valid")


main()

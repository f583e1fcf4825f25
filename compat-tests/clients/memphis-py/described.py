"""What the management API answers, held against its own OpenAPI document: each answer has a status,
a type and a form that the document has, and what was accepted was described."""

import functools
import json
import re
import urllib.parse

import jsonschema
from openapi_spec_validator import validate

BASE = "/api/v1"


class Document:
    def __init__(self, text):
        self.document = json.loads(text)
        validate(self.document)
        self.paths = [(re.compile("".join("[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", path)) + "$"), operations)
                      for path, operations in self.document["paths"].items()]
        # What is written out comes before what stands for anything.
        self.paths.sort(key=lambda known: known[0].pattern.count("[^/]+"))

    @functools.cache
    def _validator(self, schema):
        return jsonschema.Draft202012Validator({**json.loads(schema), "components": self.document["components"]})

    def _keeps(self, what, value, schema):
        for error in self._validator(json.dumps(schema, sort_keys=True)).iter_errors(value):
            raise AssertionError(f"{what} is not as described: {error.json_path} {error.message}")

    def operation(self, method, path):
        for pattern, operations in self.paths:
            if pattern.match(path) and method.lower() in operations:
                return operations[method.lower()]
        return None

    def hold(self, method, path, body, kind, status, text, fields):
        """One exchange."""
        what = f"{method} {path}: {status}"
        path = urllib.parse.urlparse(path).path.rstrip("/")
        operation = self.operation(method, path)
        if operation is None:
            if status not in (404, 405):
                raise AssertionError(f"{what}: the document has no such operation")
            operation = {"responses": {"default": self.document["components"]["responses"]["problem"]}}
        answer = operation["responses"].get(str(status))
        if answer is None:
            if status < 400:
                raise AssertionError(f"{what} is not described")
            answer = self.document["components"]["responses"]["problem"]
        elif kind == "application/json" and isinstance(body, (dict, list)):
            described = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "schema" in described:
                self._keeps(f"what was accepted by {what}", body, described["schema"])
        content = answer.get("content", {})
        given = fields.get("content-type", "").split(";")[0]
        if not content and not text:
            return
        if given not in content:
            raise AssertionError(f"{what} is of type {given!r}, described are {list(content)}")
        if given in ("application/json", "application/problem+json"):
            self._keeps(what, json.loads(text), content[given]["schema"])

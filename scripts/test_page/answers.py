"""Compares a server's answers with its OpenAPI document: each is what its schema says, and has no field that the schema does not have.

    answers.py BASE
"""

import json
import sys
import urllib.error
import urllib.request

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

BASE = sys.argv[1]
NAMES = {"prompt_logprobs": 1, "return_token_ids": True, "max_tokens": 4}
MESSAGES = [{"role": "user", "content": "What is the largest planet?"}]
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
COMPLETIONS = [
    {},
    {"max_tokens": 4, "logprobs": 2, "echo": True, "n": 2},
    NAMES,
    {"stop": ["a", "e"]},
    {"logprobs": 0, "stream": True},
    {**STREAM, "logprobs": 1, "return_token_ids": True},
]
CHATS = [{}, {"max_tokens": 4, "logprobs": True, "top_logprobs": 2}, NAMES, {"stream": True}, {**STREAM, "logprobs": True}]


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


DOCUMENT = json.loads(ask("openapi.json"))
REGISTRY = Registry().with_resource("urn:api", Resource.from_contents(DOCUMENT, default_specification=DRAFT202012))


def resolve(schema):
    while "$ref" in schema:
        at = DOCUMENT
        for name in schema["$ref"].removeprefix("#/").split("/"):
            at = at[name.replace("~1", "/")]
        schema = at
    return schema


def unknown(value, schemas, path="answer"):
    """The fields of a value that none of its schemas has."""
    schemas = [resolve(schema) for schema in schemas]
    for schema in schemas:
        for part in ("allOf", "anyOf", "oneOf"):
            schemas.extend(resolve(one) for one in schema.get(part, []))
    if isinstance(value, list):
        items = [schema["items"] for schema in schemas if "items" in schema]
        return [field for index, one in enumerate(value) for field in unknown(one, items, f"{path}[{index}]")]
    if not isinstance(value, dict):
        return []
    found = []
    for name, inner in value.items():
        of = [schema["properties"][name] for schema in schemas if name in schema.get("properties", {})]
        of += [schema["additionalProperties"] for schema in schemas if "additionalProperties" in schema]
        found += unknown(inner, of, f"{path}.{name}") if of else [f"{path}.{name}"]
    return found


def check(what, answer, schema):
    validator = Draft202012Validator({"$ref": "urn:api" + schema}, registry=REGISTRY)
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(answer)]
    problems += unknown(answer, [{"$ref": schema}])
    assert not problems, f"{what}: {problems}\n{json.dumps(answer)}"


def generation(path, body, name):
    text = ask(path, body)
    if not body.get("stream"):
        check(f"{path} {body}", json.loads(text), f"#/components/schemas/{name}")
        return
    events = [frame.removeprefix("data: ") for frame in text.split("\n\n") if frame.startswith("data: {")]
    assert len(events) > 2, text
    for event in events:
        check(f"{path} {body}", json.loads(event), f"#/components/schemas/{name}Chunk")


for more in COMPLETIONS:
    generation("v1/completions", {"prompt": "Jupiter is", **more}, "Completion")
for more in CHATS:
    generation("v1/chat/completions", {"messages": MESSAGES, **more}, "ChatCompletion")
check("models", json.loads(ask("v1/models")), "#/components/schemas/ModelList")
check("a model", json.loads(ask("v1/models/demo")), "#/components/schemas/Model")
for path, body in [("nowhere", None), ("v1/completions", {}), ("v1/completions", {"prompt": "a", "n": 0}), ("v1/embeddings", {})]:
    check(path, json.loads(ask(path, body)), "#/components/schemas/Error")
inline = "#/paths/~1ui~1model.json/get/responses/200/content/application~1json/schema"
check("ui/model.json", json.loads(ask("ui/model.json")), inline)
for path in ("live", "startup", "ready", "health"):
    check(path, json.loads(ask(path)), "#/components/responses/Status/content/application~1json/schema")

"""The OpenAPI document, held against the application by schemathesis: every check, valid and invalid requests."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import PIL.Image
import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events
from werkzeug.serving import WSGIRequestHandler, make_server

from jobs import providers
from jobs.settings import Settings
from jobs.view import JobView
from webhooks.api.models import Batch
from webhooks.openapi import document

KEY = "the-api-key-of-a-test"


def picture() -> bytes:
    """A small PNG."""
    content = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), "navy").save(content, "PNG")
    return content.getvalue()


# What no schema can say: which text or file is an image, and which key is fresh.
_IMAGES = st.sampled_from(["https://example.com/a%20lake.png", base64.b64encode(picture()).decode()])
schemathesis.openapi.format("image-source", _IMAGES)
for _kind in ("jpeg", "png", "webp", "gif"):
    schemathesis.openapi.media_type(f"image/{_kind}", st.just(picture()))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Gives each valid request an idempotency key of its own, for its body is another one."""
    if case.meta.generation.mode.is_positive and "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = str(uuid.uuid4())


def config(examples: int) -> SchemathesisConfig:
    """All checks, all phases, valid and invalid data, the same every time."""
    return SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "generation": {"mode": "all", "max-examples": examples, "database": "none"},
            "auth": {"openapi": {"key": {"bearer": KEY}}},
            "checks": {"enabled": True},
            "suppress-health-check": ["all"],
            "continue-on-failure": True,
        }
    )


@pytest.fixture
def url(new_app: Callable[..., Flask], settings: Settings) -> Iterator[str]:
    """A receiver that may be told plain http URLs, and whose streams are short."""
    allowed = settings.model_copy(update={"allowed_private_networks": ("127.0.0.0/8",)})
    app = new_app(settings=allowed, stream_seconds=0.05)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


class Quiet(WSGIRequestHandler):
    """Speaks HTTP/1.1 and says nothing."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Nothing."""


def faults(event: Any) -> Iterator[str]:
    """What an event of the run says is wrong."""
    if isinstance(event, events.NonFatalError | events.FatalError):
        yield f"{type(event).__name__}: {getattr(event, 'value', None) or event.exception!r}"[:1000]
    if isinstance(event, events.ScenarioFinished):
        recorder = event.recorder
        for id, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info:
                    asked = recorder.cases[id].value.as_curl_command()[:1000]
                    answered = recorder.interactions[id].response
                    yield f"{event.phase.value} {check.name}: {asked}\n{answered.status_code} {answered.content[:500]!r}"


def test_the_application_does_what_the_document_says(url: str) -> None:
    schema = schemathesis.openapi.from_url(
        f"{url}/openapi.json", config=config(int(os.environ.get("API_EXAMPLES", "5")))
    )
    asked, wrong, phases = 0, [], set()
    for event in engine.from_schema(schema).execute():
        wrong += faults(event)
        if isinstance(event, events.ScenarioFinished):
            asked += len(event.recorder.cases)
            phases.add(event.phase.value)

    assert not wrong, "\n\n".join(wrong[:10])
    assert asked > 500
    assert {"examples", "coverage", "fuzzing", "stateful"} <= phases


class TestTheDocument:
    def test_is_valid(self) -> None:
        OpenAPIV31SpecValidator(document()).validate()

    def test_holds_a_variant_of_a_new_job_for_each_operation(self) -> None:
        found = document()["components"]["schemas"]["NewJob"]["discriminator"]["mapping"]

        assert set(found) == set(providers.operation_names())

    def test_knows_every_route_below_v1(self, app: Flask) -> None:
        served = {
            (method.lower(), re.sub(r"<(\w+)>", r"{\1}", rule.rule))
            for rule in app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
            if rule.rule.startswith("/v1")
        }

        assert served == {(method, path) for path, methods in document()["paths"].items() for method in methods}

    def test_needs_no_key(self, client: FlaskClient) -> None:
        answer = client.get("/openapi.json")

        assert (answer.status_code, answer.json["openapi"]) == (200, "3.1.0")

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            (path, name)
            for path in ("/v1/jobs", "/v1/batches")
            for name in document()["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
        ],
    )
    def test_has_examples_that_run(self, api: Any, path: str, name: str) -> None:
        body = document()["paths"][path]["post"]["requestBody"]["content"]["application/json"]

        answer = api.post(path, json=body["examples"][name]["value"])

        assert answer.status_code == 202
        (JobView if path == "/v1/jobs" else Batch).model_validate(answer.json)


class TestThePage:
    def test_runs_nothing_but_its_own(self, client: FlaskClient) -> None:
        answer = client.get("/docs")

        policy, page = answer.headers["Content-Security-Policy"], answer.text
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for tag, directive in (("style", "style-src"), ("script", "script-src")):
            inside = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
            assert inside
            digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
            assert f"{directive} 'sha256-{digest}'" in policy
        assert not re.search(r"https?://", page)
        assert not re.search(r"\son\w+=|<script [^>]*src|style=", page)
        assert "innerHTML" not in page

    def test_its_script_draws_every_operation(self, client: FlaskClient) -> None:
        script = re.search(r"<script>(.*?)</script>", client.get("/docs").text, re.DOTALL)
        assert script
        if shutil.which("node") is None:
            pytest.skip("no Node on this machine")
        program = f"const served = {client.get('/openapi.json').text};\n{STAGE}\n{script[1]}\n{PLAY}"

        ran = subprocess.run(["node", "-"], input=program, text=True, capture_output=True, check=False)

        assert ran.returncode == 0, ran.stderr
        drawn, asked = map(json.loads, ran.stdout.splitlines())
        assert drawn == [
            operation["operationId"] for path in document()["paths"].values() for operation in path.values()
        ]
        assert [asked["url"], asked["method"], asked["headers"]["Authorization"]] == ["v1/jobs", "POST", "Bearer a-key"]
        assert json.loads(asked["body"])["operation"] in providers.operation_names()


#: as much of a browser's document as the page needs
STAGE = """
class Element {
  constructor(tag) { this.tag = tag; this.children = []; this.listeners = {}; this.dataset = {}; this.textContent = ""; this.value = ""; }
  append(...children) { this.children.push(...children); }
  setAttribute(name, value) { if (name.startsWith("data-")) this.dataset[name.slice(5)] = value; }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  get all() { return this.children.flatMap((child) => child instanceof Element ? [child, ...child.all] : []); }
  querySelectorAll() { return this.all.filter((one) => one.tag === "input" && one.dataset.in); }
  querySelector(what) { return this.all.find((one) => what === "textarea" ? one.tag === what : one.type === "file"); }
}
for (const name of ["className", "id", "hidden", "type", "name", "placeholder", "title", "spellcheck", "accept"]) Element.prototype[name] = undefined;
const byId = { about: new Element("p"), routes: new Element("main"), key: new Element("input") };
byId.key.value = "a-key";
globalThis.location = { hash: "", href: "http://127.0.0.1/docs" };
globalThis.document = { createElement: (tag) => new Element(tag), getElementById: (id) => byId[id] };
globalThis.fetch = async (url, options) => {
  if (url !== "openapi.json") console.log(JSON.stringify({ url, ...options }));
  return { status: 200, statusText: "", headers: new Headers({ "content-type": "application/json" }), json: async () => served };
};
"""
PLAY = """
setTimeout(() => {
  if (!byId.about.textContent.includes("Version")) throw new Error(byId.about.textContent);
  console.log(JSON.stringify(byId.routes.children.map((one) => one.id)));
  const form = byId.routes.children.find((one) => one.id === "enqueue").all.find((one) => one.tag === "form");
  form.listeners.submit({ preventDefault: () => {} });
}, 50);
"""

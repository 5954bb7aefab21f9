"""The exchanges with the vendors: each file below `payloads/<provider>/` is one, and a test takes them by their kind.

A test that asks for `submit_payload` runs once for each file with `"exchange": "submit"`; likewise `poll`, `callback`,
`remint`, `signature`, `call`, `params`, `options` and `abilities`. `source` says where an exchange is known from: `seed`
(the vendor's page of the operation), `docs` (other public pages) or `inferred`; none was had from a live service.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs import providers
from jobs.providers._contract import Context, InputImage, Operation, Response

_PAYLOADS = Path(__file__).parent / "payloads"
_SUFFIX = "_payload"


def _recorded() -> list[tuple[str, dict[str, Any]]]:
    files = sorted(_PAYLOADS.glob("*/*.json"))
    return [(f"{file.parent.name}/{file.stem}", json.loads(file.read_text("utf-8"))) for file in files]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture in metafunc.fixturenames:
        if fixture.endswith(_SUFFIX):
            kind = fixture.removesuffix(_SUFFIX)
            found = [pytest.param(payload, id=name) for name, payload in _recorded() if payload["exchange"] == kind]
            metafunc.parametrize(fixture, found)


class Recording:
    """What a payload file says, as the values of the contract."""

    def operation(self, payload: Mapping[str, Any]) -> Operation:
        return providers.operation(payload["operation"])

    def options(self, payload: Mapping[str, Any]) -> Any:
        vendor = payload["operation"].partition(".")[0]
        return providers.provider(vendor).options.model_validate(payload.get("options", {}))

    def request(self, payload: Mapping[str, Any]) -> Any:
        """The example of the operation's request model, with the payload's own `params` over it."""
        model = self.operation(payload).request
        return model.model_validate(self.example(model) | payload.get("params", {}))

    def example(self, model: Any) -> dict[str, Any]:
        """The request model's own example: the one that its JSON schema shows."""
        found: dict[str, Any] = model.model_json_schema()["examples"][0]
        return found

    def response(self, payload: Mapping[str, Any]) -> Response:
        given = payload["response"]
        return Response(given["status"], given.get("headers", {}), self.body(given))

    def body(self, given: Mapping[str, Any]) -> bytes:
        """`text` byte for byte (for what is no JSON), else `body` as JSON."""
        return given["text"].encode() if "text" in given else json.dumps(given["body"]).encode()

    def context(self, payload: Mapping[str, Any]) -> Context:
        return Context(
            attempt_key="j1-1",
            callback_url=payload.get("callback_url"),
            api_key="the-key",
            inputs={
                name: InputImage(base64.b64decode(given["content"]), given["content_type"], given["filename"])
                for name, given in payload.get("inputs", {}).items()
            },
            options=self.options(payload),
        )


@pytest.fixture(scope="session")
def recording() -> Recording:
    return Recording()

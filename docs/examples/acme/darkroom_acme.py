"""Acme: https://api.acme.example

Paintings from a prompt (`acme.paint`). A submit is answered with an id; the painting comes by poll and by signed callback.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote

from pydantic import ConfigDict, Field, SecretStr

from jobs.providers import (
    Abilities,
    Call,
    Charged,
    Code,
    Context,
    Cost,
    Failed,
    Image,
    InvalidCallback,
    OperationDefaults,
    Provider,
    ProviderOptions,
    Report,
    Request,
    Response,
    Running,
    Succeeded,
    Unit,
    bearer,
    error_message,
    failed_by_status,
    parsing,
    quoted,
    unreadable,
)

#: how long a result URL works
_URL_LIFE_SECONDS = 7200.0


class Options(ProviderOptions):
    """`ACME_...` in the environment."""

    #: how long a submit may take
    timeout_seconds: float = Field(default=30.0, gt=0, le=600, examples=["30"])
    #: the secret that signs callbacks; without it only the token in the callback's URL is checked
    webhook_secret: SecretStr = Field(default=SecretStr(""), examples=["a-long-random-string"])


class Paint(Request):
    """Paintings of a prompt."""

    operation: ClassVar[str] = "acme.paint"
    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "a lake at dawn", "count": 2}]})

    prompt: str = Field(min_length=1, description="What to paint.")
    count: int = Field(default=1, ge=1, le=4, strict=True, description="Number of paintings, 1 to 4.")


class _Paint(OperationDefaults):
    name = Paint.operation
    request: type[Request] = Paint
    deadline_seconds = 600.0

    def abilities(self, request: Paint, *, has_callback: bool, options: Options) -> Abilities:
        return Abilities(poll=True, callback=has_callback)

    def images_expected(self, request: Paint) -> int:
        return request.count

    def price(self, request: Paint) -> Cost | None:
        return Cost(0.05 * request.count, Unit.USD)

    def submit(self, request: Paint, context: Context) -> Call:
        callback = {"webhook": context.callback_url} if context.callback_url else {}
        return Call(
            "POST",
            "/v1/paintings",
            headers=bearer(context),
            json=request.params() | callback,
            timeout_seconds=context.options.timeout_seconds,
        )

    def read_answer(self, request: Paint, response: Response) -> Report:
        if not response.ok:
            return failed_by_status(response, error_message("Acme", response))
        return _painting(parsing.mapping(response.document())) or unreadable("Acme", response)

    def poll(self, external_id: str, context: Context) -> Call:
        return Call("GET", f"/v1/paintings/{quote(external_id, safe='')}", headers=bearer(context))

    def read_poll(self, request: Paint, response: Response) -> Report | None:
        return _painting(parsing.mapping(response.document())) if response.ok else None

    def read_callback(self, body: Any) -> Report:
        if report := _painting(parsing.mapping(body)):
            return report
        raise InvalidCallback("expected a painting")


def _painting(body: Mapping[str, Any]) -> Report | None:
    """A painting that is finished, failed or in progress; None for anything else."""
    painting_id = parsing.identifier(body.get("id"))
    if painting_id is None:
        return None
    if body.get("status") == "failed":
        message = quoted("Acme failed the painting", parsing.reason(body))
        return Failed(Code.PROVIDER_ERROR, message, retryable=True, charged=Charged.UNKNOWN, external_id=painting_id)
    urls = [parsing.url(item) for item in parsing.items(body.get("images"))]
    if not urls:
        return Running(painting_id)
    images = tuple(
        Image(index, url=url, life_seconds=_URL_LIFE_SECONDS) if url else Image(index, refused=Code.RESULT_REJECTED)
        for index, url in enumerate(urls)
    )
    return Succeeded(images, painting_id)


def verify(options: Options, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Check `Acme-Signature`, the HMAC-SHA256 of the body in hex, if `ACME_WEBHOOK_SECRET` is set."""
    secret = options.webhook_secret.get_secret_value()
    given = next((value for name, value in headers.items() if name.lower() == "acme-signature"), "")
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if secret and not hmac.compare_digest(expected.encode(), given.encode()):
        raise InvalidCallback("the signature does not match ACME_WEBHOOK_SECRET")


provider = Provider(
    name="acme",
    default_base_url="https://api.acme.example",
    operations={_Paint.name: _Paint()},
    options=Options,
    verify=verify,
)

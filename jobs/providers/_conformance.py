"""The conformance suite: checks a provider by the contract and by recorded exchanges with it, its payload files.

The tests and `darkroom providers check` run the same checks. `docs/how-to/add-a-provider.md` describes the payload files.
Each check raises `Nonconformity` with one sentence that says what to change.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from ..errors import InvalidCallback, InvalidRequest
from ..report import Charged, Failed, Image, Report, Running, Succeeded
from ._contract import Abilities, Call, Context, InputImage, Operation, Provider, Response, examples

#: the longest message of a failure, in characters
_MAX_MESSAGE = 400
_REPORTS = {Running: "running", Succeeded: "succeeded", Failed: "failed"}
#: 2xx bodies that are not a documented answer of any provider
_UNREADABLE = (
    "",
    "<html>Bad gateway</html>",
    '{"images": [{"id": "a", "image_u',
    "[" * 5000,
    "null",
    "[]",
    "{}",
    '"ok"',
)
#: 2xx bodies that hold no image and do not say what was charged
_WITHOUT_IMAGES = ('{"images": []}', '{"data": null}', '{"data": []}', '{"error": "strange"}', '{"success": false}')
#: values of an unexpected kind, in place of a usual one
_HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    float("nan"),
    "",
    "\ud800",
    "{",
    "https://[",
    [],
    {},
    [[]],
    {"x": {}},
)


class Nonconformity(AssertionError):
    """A provider does not keep the contract, or a payload file is wrong or missing. The message is one sentence."""


@dataclass(frozen=True)
class Check:
    """One thing that a provider must do."""

    #: what is checked, for example `submit-accepted.json` or `acme.paint: its abilities`
    title: str
    #: raises Nonconformity
    run: Callable[[], None]


def checks(provider: Provider, folder: Path) -> list[Check]:
    """All checks of a provider whose payload files are in `folder`."""
    try:
        exchanges = read_exchanges(provider, folder)
    except Nonconformity as error:
        return [Check(f"{provider.name}: its payload files", partial(_require, str(error), is_there=False))]
    found = [Check(f"{provider.name}: its name, settings and secret", partial(check_provider, provider))]
    for operation in provider.operations.values():
        found.append(Check(f"{operation.name}: its request", partial(check_request, operation)))
        found.append(Check(f"{operation.name}: answers without images", partial(check_is_not_free, operation)))
        found.append(Check(f"{operation.name}: ids in paths", partial(check_paths, provider, operation)))
    for sentence, is_there in requirements(provider, exchanges):
        found.append(
            Check(sentence.partition(": ")[2], partial(_require, f"add {folder}/{sentence}", is_there=is_there))
        )
    found += [Check(exchange.file.name, partial(check_exchange, exchange)) for exchange in exchanges]
    return found


def _require(sentence: str, *, is_there: bool) -> None:
    if not is_there:
        raise Nonconformity(sentence)


# Payload files ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exchange:
    """One payload file, and what it says as values of the contract."""

    provider: Provider
    file: Path
    data: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """`submit`, `poll`, `callback`, `remint`, `call`, `params`, `options`, `abilities` or `signature`."""
        return str(self.data.get("exchange"))

    @property
    def operation(self) -> Operation:
        name = self.data.get("operation")
        if name in self.provider.operations:
            return self.provider.operations[str(name)]
        known = ", ".join(self.provider.operations)
        raise Nonconformity(f"{self.file}: change `operation`: {name!r} is not one of {known}")

    @cached_property
    def options(self) -> Any:
        return self.provider.options.model_validate(self.data.get("options", {}))

    @cached_property
    def request(self) -> Any:
        """The example of the operation's request model, with the file's own `params` over it."""
        model = self.operation.request
        return model.model_validate(examples(self.operation)[0] | self.data.get("params", {}))

    @property
    def response(self) -> Response:
        """`text` byte for byte (for a body that is not JSON), else `body` as JSON."""
        given = self.data["response"]
        body = given["text"] if "text" in given else json.dumps(given["body"])
        return Response(given["status"], given.get("headers", {}), body.encode())

    @property
    def report(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.data.get("report", {})
        return found

    def context(self) -> Context:
        inputs = {
            name: InputImage(base64.b64decode(given["content"]), given["content_type"], given["filename"])
            for name, given in self.data.get("inputs", {}).items()
        }
        return Context("j1-1", self.data.get("callback_url"), "the-key", inputs, self.options)


def read_exchanges(provider: Provider, folder: Path) -> list[Exchange]:
    """The payload files of a folder. Raises Nonconformity for a file that is not a JSON object."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            data = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise Nonconformity(f"{file}: correct the JSON: {error}") from None
        if not isinstance(data, dict):
            raise Nonconformity(f"{file}: write a JSON object with `operation` and `exchange`")
        found.append(Exchange(provider, file, data))
    return found


# What must be there -----------------------------------------------------------------------------------------------


def requirements(provider: Provider, exchanges: Sequence[Exchange]) -> Iterator[tuple[str, bool]]:
    """The payload files that a provider needs: `pattern: what it is`, and whether there is one."""
    for name, operation in provider.operations.items():
        mine = [exchange for exchange in exchanges if exchange.data.get("operation") == name]
        yield f"call-*.json: the call of a submit of {name}", _has(mine, "call", of="submit")
        yield f"submit-*.json: an answer to a submit of {name}", _has(mine, "submit")
        refused = any(one.kind == "submit" and one.report.get("type") == "failed" for one in mine)
        yield f"submit-refused-*.json: an answer that refuses a submit of {name}", refused
        succeeded = any(one.report.get("type") == "succeeded" for one in mine)
        yield f"{{submit,poll,callback}}-succeeded-*.json: a result with the images of {name}", succeeded
        yield f"abilities-*.json: what an attempt of {name} is able to do", _has(mine, "abilities")
        yield f"params-*.json: parameters of {name} that are accepted and refused", _has(mine, "params")
        yield from _requirements_by_ability(provider, operation, mine)
    of_all = next(iter(provider.operations), provider.name)
    if provider.options.model_fields:
        yield f"options-*.json: options of {provider.name} that are refused", _has(exchanges, "options")
    if provider.verify:
        for accepted in (True, False):
            word = "accepted" if accepted else "refused"
            found = any(one.kind == "signature" and one.data.get("accepted") is accepted for one in exchanges)
            yield f"signature-{word}-*.json: a callback of {of_all} whose signature is {word}", found


def _requirements_by_ability(
    provider: Provider, operation: Operation, mine: Sequence[Exchange]
) -> Iterator[tuple[str, bool]]:
    name = operation.name
    recorded = (case for one in mine if one.kind == "abilities" for case in one.data.get("cases", []))
    able = {ability for case in recorded for ability in case.get("able", [])}
    request = _example(operation)
    for has_callback in (True, False):
        found = operation.abilities(request, has_callback=has_callback, options=provider.options())
        able |= {ability for ability, is_able in asdict(found).items() if is_able}
    if able & {"poll", "lookup"}:
        yield f"call-poll-*.json: the call of a poll of {name}", _has(mine, "call", of="poll")
        yield f"poll-*.json: an answer to a poll of {name}", _has(mine, "poll")
    if "callback" in able:
        good = any(one.kind == "callback" and one.report.get("type") != "invalid" for one in mine)
        strange = any(one.kind == "callback" and one.report.get("type") == "invalid" for one in mine)
        yield f"callback-*.json: the body of a callback of {name}", good
        yield f"callback-invalid-*.json: a body that is not a callback of {name}", strange
    if operation.remint(Image(0, external_id="a1"), Context("j1-1", options=provider.options())):
        yield f"call-remint-*.json: the call for a fresh URL of {name}", _has(mine, "call", of="remint")
        yield f"remint-*.json: an answer with a fresh URL of {name}", _has(mine, "remint")


def _example(operation: Operation) -> Any:
    return operation.request.model_validate(examples(operation)[0])


def _has(exchanges: Sequence[Exchange], kind: str, **data: str) -> bool:
    return any(one.kind == kind and data.items() <= one.data.items() for one in exchanges)


# Checks of the contract -------------------------------------------------------------------------------------------


def check_provider(provider: Provider) -> None:
    """Its URL, its operations' names, and an example for each option."""
    name, url = provider.name, provider.default_base_url
    if not url.startswith("https://") or url.endswith("/"):
        raise Nonconformity(
            f"change default_base_url of {name}: {url!r} must begin with https:// and not end in a slash"
        )
    for field, info in provider.options.model_fields.items():
        if not info.examples:
            raise Nonconformity(f"add examples=[...] to the option {field} of {name}, for the message of a wrong value")
        provider.options.model_validate({field: info.examples[0]})
    secret = provider.options.model_fields.get("webhook_secret")
    if provider.verify and (secret is None or not isinstance(secret.default, SecretStr)):
        raise Nonconformity(f"add webhook_secret: SecretStr to the options of {name}: `verify` checks callbacks by it")


def check_request(operation: Operation) -> None:
    """The request model: descriptions, an example, and what the operation says of it."""
    model = operation.request
    for field, info in model.model_fields.items():
        if not info.description:
            raise Nonconformity(f"add description=... to {model.__name__}.{field}: the reference and OpenAPI show it")
    if unknown := set(model.image_rules) - set(model.model_fields):
        raise Nonconformity(
            f"remove {', '.join(sorted(unknown))} from {model.__name__}.image_rules: there is no such field"
        )
    request: Any = _example(operation)
    if model.model_validate(request.params()) != request:
        raise Nonconformity(f"change {model.__name__}: its params() are another request when they are read again")
    price = operation.price(request)
    if price is not None and price.amount <= 0:
        raise Nonconformity(
            f"return None from price() of {operation.name} when the price is unknown, not {price.amount}"
        )
    if operation.images_expected(request) < 1 or operation.deadline_seconds <= 0:
        raise Nonconformity(f"expect at least one image from {operation.name}, and set deadline_seconds above 0")


def check_is_not_free(operation: Operation) -> None:
    """A 2xx without images that is not a documented refusal may have been charged."""
    request = _example(operation)
    for text in (*_UNREADABLE, *_WITHOUT_IMAGES):
        report = operation.read_answer(request, Response(200, {}, text.encode()))
        if text in _UNREADABLE and not isinstance(report, Failed):
            raise Nonconformity(
                f"fail in read_answer of {operation.name} for a 200 with {text[:40]!r}: see unreadable()"
            )
        if isinstance(report, Failed) and report.charged is Charged.NO:
            raise Nonconformity(
                f"say charged=Charged.UNKNOWN in read_answer of {operation.name} for a 200 with {text[:40]!r}: "
                "only a refusal that the provider documents is free"
            )


def check_paths(provider: Provider, operation: Operation) -> None:
    """An id that the provider sent never leaves its place in a path."""
    context = Context("j1-1", None, "the-key", {}, provider.options())
    for external_id in ("../../v1/keys", "a b", "x?y=1", "a/b", "%2e%2e", "é"):
        calls = [operation.remint(Image(0, external_id=external_id), context)]
        with suppress(NotImplementedError):
            calls.append(operation.poll(external_id, context))
        for call in filter(None, calls):
            if external_id in call.path:
                raise Nonconformity(f"quote the id in the path of {operation.name}: {call.path}")


def check_report(report: Report | None, where: str) -> None:
    """What Darkroom relies on in every report, for any answer of the provider."""
    json.dumps(plain(report)).encode()
    for image in report.images if isinstance(report, Succeeded) else ():
        if [image.url, image.content, image.refused].count(None) != 2:
            raise Nonconformity(f"set exactly one of url, content and refused on image {image.index} of {where}")
    if isinstance(report, Failed) and not (0 < len(report.message) <= _MAX_MESSAGE and report.message.isprintable()):
        raise Nonconformity(f"make the message of {where} with error_message() or quoted(): one printable line")


# Checks of the payload files --------------------------------------------------------------------------------------


def check_exchange(exchange: Exchange) -> None:
    """What the provider makes of a payload file is what the file says."""
    check = KINDS.get(exchange.kind)
    if check is None:
        raise Nonconformity(f"{exchange.file}: change `exchange`: {exchange.kind!r} is not one of {', '.join(KINDS)}")
    try:
        check(exchange)
    except KeyError as missing:
        raise Nonconformity(
            f"{exchange.file}: add `{missing.args[0]}`: an exchange of kind {exchange.kind} has it"
        ) from None
    except (InvalidRequest, ValidationError) as error:
        raise Nonconformity(f"{exchange.file}: correct its params or options: {' '.join(str(error).split())}") from None


def check_submit(exchange: Exchange) -> None:
    """The answer means what the file says, and a field that is absent or strange never makes it free."""
    operation, request, response = exchange.operation, exchange.request, exchange.response
    report = operation.read_answer(request, response)
    _same(exchange, "report", plain(report), exchange.data["report"])
    may_be_charged = response.ok and not (isinstance(report, Failed) and report.charged is Charged.NO)
    for body in spoiled(exchange.data["response"].get("body")):
        changed = Response(response.status, {}, json.dumps(body).encode())
        found = operation.read_answer(request, changed)
        check_report(found, f"an answer like {exchange.file}")
        if may_be_charged and isinstance(found, Failed) and found.charged is Charged.NO:
            raise Nonconformity(
                f"say charged=Charged.UNKNOWN when {exchange.file} is changed to {json.dumps(body)[:200]}"
            )


def check_poll(exchange: Exchange) -> None:
    """The answer to a poll means what the file says, and no change of it breaks the reading."""
    operation, request = exchange.operation, exchange.request
    _same(exchange, "report", plain(operation.read_poll(request, exchange.response)), exchange.data["report"])
    for body in spoiled(exchange.data["response"].get("body")):
        changed = Response(200, {}, json.dumps(body).encode())
        check_report(operation.read_poll(request, changed), f"a poll like {exchange.file}")


def check_callback(exchange: Exchange) -> None:
    """The callback means what the file says; `invalid`: it is refused."""
    operation, body = exchange.operation, exchange.data["body"]
    try:
        found = plain(operation.read_callback(body))
    except InvalidCallback:
        found = {"type": "invalid"}
    _same(exchange, "report", found, exchange.data["report"])
    for changed in spoiled(body):
        with suppress(InvalidCallback):
            check_report(operation.read_callback(changed), f"a callback like {exchange.file}")


def check_remint(exchange: Exchange) -> None:
    """The fresh URL is read."""
    image = exchange.operation.read_remint(exchange.response)
    _same(exchange, "image", image and _without_nulls(asdict(image)), exchange.data["image"])


def check_call(exchange: Exchange) -> None:
    """The call of a submit, a poll or a remint is the recorded one, byte for byte."""
    operation, context = exchange.operation, exchange.context()
    call: Call | None
    match exchange.data["of"]:
        case "poll":
            call = operation.poll(exchange.data["external_id"], context)
        case "remint":
            call = operation.remint(Image(0, external_id=exchange.data["external_id"]), context)
        case _:
            call = operation.submit(exchange.request, context)
    _same(exchange, "call", call and plain_call(call), exchange.data["call"])


def check_params(exchange: Exchange) -> None:
    """Parameters are accepted, refused by the name of their field, or missed by it."""
    model, good = exchange.operation.request, examples(exchange.operation)[0]
    for params in exchange.data["accepted"]:
        model.model_validate({name: value for name, value in (good | params).items() if value is not None})
    for case in exchange.data["refused"]:
        if case["field"] not in _refused_fields(model, good | case["params"]):
            raise Nonconformity(f"{exchange.file}: refuse {case['params']} by the field {case['field']}")
    for field in exchange.data["required"]:
        if field not in _refused_fields(model, {name: value for name, value in good.items() if name != field}):
            raise Nonconformity(f"{exchange.file}: refuse a request without {field}")


def check_options(exchange: Exchange) -> None:
    """A malformed option is refused by its name."""
    for given in exchange.data["refused"]:
        if not set(given) <= _refused_fields(exchange.provider.options, given):
            raise Nonconformity(f"{exchange.file}: refuse the options {given}")


def check_abilities(exchange: Exchange) -> None:
    """An attempt is able to do what the file says, with and without a callback URL."""
    for case in exchange.data["cases"]:
        one = Exchange(exchange.provider, exchange.file, {**exchange.data, **case})
        found = one.operation.abilities(one.request, has_callback=case["has_callback"], options=one.options)
        able = sorted(name for name, is_able in asdict(found).items() if is_able)
        known = set(Abilities.__dataclass_fields__)
        if unknown := set(case["able"]) - known:
            raise Nonconformity(
                f"{exchange.file}: change {', '.join(unknown)}: abilities are {', '.join(sorted(known))}"
            )
        _same(exchange, f"cases (has_callback={case['has_callback']}).able", able, sorted(case["able"]))


def check_signature(exchange: Exchange) -> None:
    """`verify` accepts or refuses the callback, as the file says."""
    if exchange.provider.verify is None:
        raise Nonconformity(f"{exchange.file}: add verify=... to the provider: it has a payload of a signature")
    now = datetime.fromisoformat(exchange.data["now"])
    try:
        exchange.provider.verify(exchange.options, exchange.data["headers"], exchange.data["text"].encode(), now)
        accepted = True
    except InvalidCallback:
        accepted = False
    _same(exchange, "accepted", accepted, exchange.data["accepted"])


#: the kinds of payload files, and what checks each
KINDS: Mapping[str, Callable[[Exchange], None]] = {
    "submit": check_submit,
    "poll": check_poll,
    "callback": check_callback,
    "remint": check_remint,
    "call": check_call,
    "params": check_params,
    "options": check_options,
    "abilities": check_abilities,
    "signature": check_signature,
}


# Values as a payload file writes them -----------------------------------------------------------------------------


def plain(report: Report | None) -> dict[str, Any]:
    """A report as a payload file writes it: no nulls, bytes in base64, times in ISO 8601; `nothing` for None."""
    if report is None:
        return {"type": "nothing"}
    found: dict[str, Any] = _without_nulls(asdict(report))
    return {"type": _REPORTS[type(report)]} | found


def plain_call(call: Call) -> dict[str, Any]:
    """A call as a payload file writes it: without empty fields, files as name, file name, type and base64."""
    found = {
        "method": call.method,
        "path": call.path,
        "headers": dict(call.headers),
        "json": call.json,
        "form": call.form and dict(call.form),
        "files": [
            [part.name, part.filename, part.content_type, base64.b64encode(part.content).decode()]
            for part in call.files
        ],
        "timeout_seconds": call.timeout_seconds,
    }
    return {name: value for name, value in found.items() if value}


def spoiled(value: Any) -> Iterator[Any]:
    """The JSON value with each of its nodes, one at a time, replaced by each unexpected value; or left out."""
    yield from _HOSTILE
    nodes = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in nodes:
        for changed in spoiled(inner):
            copy = value.copy()
            copy[key] = changed
            yield copy
        copy = value.copy()
        del copy[key]
        yield copy


def _without_nulls(value: Any) -> Any:
    """Without the fields that are not set: nulls, and flags of a failure that are false."""
    if isinstance(value, Mapping):
        unset = {name for name in ("not_sent", "not_now") if value.get(name) is False}
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None and name not in unset}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, StrEnum):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _refused_fields(model: Any, given: Mapping[str, Any]) -> set[str]:
    try:
        model.model_validate(given)
    except InvalidRequest as error:
        return {one.field for one in error.errors}
    except ValidationError as error:
        return {".".join(str(part) for part in one["loc"]) for one in error.errors()}
    return set()


def _same(exchange: Exchange, path: str, found: Any, expected: Any) -> None:
    """Raises Nonconformity at the first difference."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in {**expected, **found}:
            _same(exchange, f"{path}.{name}", found.get(name), expected.get(name))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            _same(exchange, f"{path}.{index}", one, other)
    elif found != expected:
        raise Nonconformity(f"{exchange.file}: {path} is {found!r}, but the file says {expected!r}")

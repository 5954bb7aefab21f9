"""`darkroom providers`: which providers there are, and whether one keeps the contract."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import httpx
from PIL import Image as Pillow

from .. import providers
from ..errors import SettingsError
from ..image_file import measure
from ..providers import Call, Context, InputImage, Operation, Response, _conformance
from ..report import Cost, Failed, Report, Running, Succeeded
from ..request import LocalImage, Request
from ..settings import ProviderSettings, provider_settings
from .console import columns, complain, err, note, out, print_json, show
from .request_arguments import read_request
from .words import amount

#: where the payload files of the providers in this repository are
PAYLOADS = Path("tests/jobs/providers/payloads")
#: between two polls of a real call
_POLL_SECONDS = 2.0
#: the longest side of the input images that are drawn for a real call, in pixels
_DRAWN_SIDE = 512


@click.group("providers", invoke_without_command=True, short_help="List the providers, or check one.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def providers_group(context: click.Context, as_json: bool) -> int | None:
    """List the providers, or check one: its contract, its payload files, and one real call."""
    if context.invoked_subcommand:
        return None
    rows = []
    for name in providers.names():
        key, module = "set" if provider_settings(name).is_enabled else "not set", providers.sources()[name][0].value
        rows += [(name, operation, key, module) for operation in providers.provider(name).operations]
    if as_json:
        print_json([dict(zip(("provider", "operation", "key", "module"), row, strict=True)) for row in rows])
    else:
        show(columns(rows, ("provider", "operation", "key", "module")))
    for sentence in providers.faults().values():
        complain(sentence)
    return 1 if providers.faults() else 0


@providers_group.command()
@click.argument("name")
@click.option("--payloads", type=click.Path(path_type=Path), help=f"Its payload files; default: {PAYLOADS}/NAME.")
@click.option("--call", "with_call", is_flag=True, help="Make one real call as well, which costs money.")
@click.option("--operation", "operation_name", help="The operation to call; default: the only one.")
@click.option("-p", "pairs", multiple=True, metavar="NAME=VALUE", help="A field of the call, over the example's.")
@click.option("--yes", is_flag=True, help="Do not ask before the call.")
def check(
    name: str,
    payloads: Path | None,
    with_call: bool,
    operation_name: str | None,
    pairs: tuple[str, ...],
    yes: bool,
) -> int:
    """Check a provider against the contract. Exit 1 if a check fails.

    \b
    darkroom providers check acme --payloads payloads
    ACME_API_KEY=... darkroom providers check acme --call -p prompt="a lake at dawn"
    """
    checks = _conformance.checks(providers.provider(name), payloads or PAYLOADS / name)
    failed = 0
    for one in checks:
        try:
            one.run()
        except _conformance.Nonconformity as nonconformity:
            failed += 1
            click.echo(str(nonconformity))
    note(f"{name}: {failed} of {len(checks)} checks failed" if failed else f"{name}: {len(checks)} checks passed")
    if failed or not with_call:
        return 1 if failed else 0
    try:
        return _call_once(_operation(name, operation_name), provider_settings(name), pairs, yes=yes)
    except httpx.ConnectError as error:
        complain(f"cannot connect, nothing was sent: {error}")
    except httpx.HTTPError as error:
        complain(f"no answer ({error or type(error).__name__}): the call may have been charged")
    return 1


def _operation(name: str, chosen: str | None) -> Operation:
    operations = providers.provider(name).operations
    if chosen is None and len(operations) == 1:
        return next(iter(operations.values()))
    if chosen is not None and chosen in operations:
        return operations[chosen]
    raise click.UsageError(f"choose one with --operation: {', '.join(operations)}")


# One real call ----------------------------------------------------------------------------------------------------


def _call_once(operation: Operation, settings: ProviderSettings, pairs: tuple[str, ...], *, yes: bool) -> int:
    """Submit once, without a callback URL, poll where the provider can be polled, and print what it reports."""
    name = operation.name.partition(".")[0]
    if not settings.is_enabled:
        raise SettingsError(f"{name.upper()}_API_KEY", "is not set, and --call needs it", "...")
    request, inputs = _with_inputs(_request(operation, pairs))
    cost = operation.price(request)
    note(f"this submits {operation.name} once to {settings.base_url}; expected cost: {_price(cost)}")
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    key = settings.api_key.get_secret_value()
    context = Context(f"check-{time.time_ns()}", None, key, inputs, settings.options)
    able = operation.abilities(request, has_callback=False, options=settings.options)
    report: Report | None = operation.read_answer(request, _send(operation.submit(request, context), settings))
    deadline = time.monotonic() + operation.deadline_seconds
    running = report
    while isinstance(running, Running) and able.poll and running.external_id and time.monotonic() < deadline:
        note(f"running: {running.external_id}")
        time.sleep(_POLL_SECONDS)
        report = operation.read_poll(request, _send(operation.poll(running.external_id, context), settings))
        if not isinstance(report, Running | None):
            break
    return _show(report)


def _request(operation: Operation, pairs: tuple[str, ...]) -> Request:
    """The model's example with a drawn image in each image field, and what `-p` says over both."""
    model = operation.request
    given = {pair.partition("=")[0] for pair in pairs}
    fields: dict[str, Any] = dict(providers.examples(operation)[0])
    file = io.BytesIO()
    gradient = Pillow.linear_gradient("L").resize((_DRAWN_SIDE, _DRAWN_SIDE))
    Pillow.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).save(file, "PNG")
    image = LocalImage(file.getvalue())
    for field in set(model.image_rules) - given:
        fields[field] = [image] if isinstance(fields.get(field), list) else image
    return read_request(operation.name, pairs, defaults=fields)


def _with_inputs(request: Request) -> tuple[Request, Mapping[str, InputImage]]:
    """The request with a reference for each image that is sent as bytes, and those images."""
    inputs: dict[str, InputImage] = {}
    references: dict[str, str] = {}
    for path, rule, image in request.images():
        if isinstance(image, LocalImage):
            content = image.content
        elif rule.wants_bytes:
            content = httpx.get(image, follow_redirects=True, timeout=60).raise_for_status().content
        else:
            continue
        facts = measure(content, max_bytes=rule.max_bytes)
        references[path] = f"input:{path}"
        inputs[references[path]] = InputImage(
            content, facts.content_type, f"{path.replace('.', '-')}.{facts.extension}"
        )
    return request.with_images(references), inputs


def _send(call: Call, settings: ProviderSettings) -> Response:
    files = [(part.name, (part.filename, part.content, part.content_type)) for part in call.files]
    answer = httpx.request(
        call.method,
        settings.base_url + call.path,
        headers=dict(call.headers),
        json=call.json,
        data=dict(call.form) if call.form else None,
        files=files or None,
        timeout=call.timeout_seconds,
    )
    return Response(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content)


def _show(report: Report | None) -> int:
    match report:
        case Succeeded(images, _, cost):
            out().print(f"succeeded: {len(images)} image(s), cost: {_price(cost)}", markup=False)
            for image in images:
                where = image.url or (f"{len(image.content)} bytes" if image.content else f"refused: {image.refused}")
                out().print(f"  {image.index}: {where}", markup=False, soft_wrap=True)
            return 0
        case Failed(code, message):
            err().print(
                f"failed: {code}: {message} (charged: {report.charged})", style="red", markup=False, soft_wrap=True
            )
            return 1
    err().print(
        "no result: the provider accepted the call and would send a callback, which needs a stack", markup=False
    )
    return 1


def _price(cost: Cost | None) -> str:
    return amount(cost) if cost else "unknown"

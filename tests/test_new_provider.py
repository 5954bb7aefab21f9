"""A provider that Darkroom has never heard of works everywhere once its file and its payload files are there.

The provider is the example of `docs/how-to/add-a-provider.md`. Once it is dropped into a copy of the packages, once it is an
installed distribution of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "acme"
PAYLOADS = Path("tests/jobs/providers/payloads")
SECRET = "the-secret-of-acme"

pytestmark = pytest.mark.journey


# The provider's API -----------------------------------------------------------------------------------------------


@dataclass
class Acme:
    """The API of the example: a painting whose prompt speaks of a callback is only finished by one."""

    url: str = ""
    submitted: list[dict[str, Any]] = field(default_factory=list)
    #: what our receiver answered to callbacks
    answers: list[int] = field(default_factory=list)

    def painting(self, painting_id: str) -> dict[str, Any]:
        prompt = self.submitted[int(painting_id)]["prompt"]
        return {"id": painting_id, "status": "painting"} if "callback" in prompt else self.finished(painting_id)

    def finished(self, painting_id: str) -> dict[str, Any]:
        return {"id": painting_id, "status": "done", "images": [f"{self.url}/files/{painting_id}.png"]}

    def submit(self, body: dict[str, Any]) -> dict[str, Any]:
        painting_id = str(len(self.submitted))
        self.submitted.append(body)
        if "callback" in body["prompt"]:
            threading.Timer(0.5, self._call_back, [body["webhook"], painting_id]).start()
        return {"id": painting_id, "status": "queued"}

    def _call_back(self, url: str, painting_id: str) -> None:
        content = json.dumps(self.finished(painting_id)).encode()
        for secret in ("another-secret", SECRET):
            signature = hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
            headers = {"acme-signature": signature, "content-type": "application/json"}
            self.answers.append(httpx.post(url, content=content, headers=headers, trust_env=False).status_code)


def handler(acme: Acme) -> type[BaseHTTPRequestHandler]:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "tomato").save(file, "PNG")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._answer(202, acme.submit(json.loads(self.rfile.read(int(self.headers["content-length"])))))

        def do_GET(self) -> None:
            if self.path.startswith("/files/"):
                self._answer(200, file.getvalue())
            else:
                self._answer(200, acme.painting(self.path.rpartition("/")[2]))

        def _answer(self, status: int, body: Any) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: Any) -> None:
            """Nothing: pytest shows what matters."""

    return Handler


@pytest.fixture
def acme() -> Iterator[Acme]:
    """The provider's API on a free port."""
    api = Acme()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(api)) as server:
        api.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield api
        server.shutdown()
        thread.join()


# Where it is installed --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installation:
    """Darkroom with one provider more: what Python imports, and where commands run."""

    path: Path
    folder: Path

    @property
    def environ(self) -> Mapping[str, str]:
        """Nothing of Darkroom's own is set."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
        return {**kept, "PYTHONPATH": str(self.path), "HOME": str(self.folder), "TMPDIR": str(self.folder)}

    def python(self, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**self.environ, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    def darkroom(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """Stdout of a command that has to work."""
        done = self.python("-m", "jobs.cli", *arguments, environ=environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def dropped_in(folder: Path) -> Installation:
    """A copy of the packages and of the providers' tests, with the example as `jobs/providers/acme.py`."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("jobs", "worker", "webhooks", "tests/jobs/providers"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for file in (ROOT / "pyproject.toml", *(ROOT / "tests").glob("*.py")):
        shutil.copy(file, folder / file.relative_to(ROOT))
    shutil.copy(EXAMPLE / "darkroom_acme.py", folder / "jobs/providers/acme.py")
    shutil.copytree(EXAMPLE / "payloads", folder / PAYLOADS / "acme")
    return Installation(folder, folder)


def distributed(folder: Path) -> Installation:
    """What an installer leaves of the example's distribution: the module, its name and its entry point."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    installed = folder / "site-packages"
    info = installed / f"darkroom_acme-{project['version']}.dist-info"
    info.mkdir(parents=True)
    shutil.copy(EXAMPLE / "darkroom_acme.py", installed)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = project["entry-points"].items()
    sections = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in names.items()) for group, names in entries]
    (info / "entry_points.txt").write_text("\n".join(sections))
    return Installation(installed, folder)


@pytest.fixture(params=[dropped_in, distributed])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    installed: Installation = request.param(tmp_path)
    return installed


# What works then --------------------------------------------------------------------------------------------------

#: a stack in a process of its own, until its stdin ends; it prints its settings as one line of JSON
STACK = """
import json, sys
from pathlib import Path
from jobs.embedded import free_port
from jobs.embedded.files import write_env_file
from jobs.embedded.stack import Stack

port = free_port()
given = {**json.loads(sys.argv[1]), "DARKROOM_PUBLIC_URL": f"http://127.0.0.1:{port}"}
with Stack(Path("stack"), given, port=port) as stack:
    print(json.dumps({**stack.environ, "URL": stack.url}), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def stack(installation: Installation, acme: Acme) -> Iterator[Mapping[str, str]]:
    """The settings of a running stack whose workers and receiver know the provider."""
    given = {
        "ACME_API_KEY": "the-key-of-acme",
        "ACME_BASE_URL": acme.url,
        "ACME_WEBHOOK_SECRET": SECRET,
        "DARKROOM_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
    }
    command = [sys.executable, "-c", STACK, json.dumps(given)]
    with subprocess.Popen(
        command,
        cwd=installation.folder,
        env=installation.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        line = process.stdout.readline()
        assert line, "the stack did not start"
        yield json.loads(line)
        process.stdin.close()


def test_it_renders_by_poll_and_by_signed_callback_and_shows_everywhere(
    installation: Installation, acme: Acme, stack: Mapping[str, str]
) -> None:
    def enqueue(prompt: str) -> Any:
        arguments = ("enqueue", "acme.paint", "-p", f"prompt={prompt}", "--wait", "--json")
        return json.loads(installation.darkroom(*arguments, environ=stack).splitlines()[-1])

    polled, called_back = enqueue("by poll"), enqueue("by callback")

    assert [job["status"] for job in (polled, called_back)] == ["succeeded", "succeeded"]
    assert [len(job["artifacts"]) for job in (polled, called_back)] == [1, 1]
    assert acme.answers == [403, 200]  # the one that another secret signed is refused

    findings = json.loads(installation.darkroom("doctor", "--json", environ=stack))["findings"]
    assert {one["name"]: one["state"] for one in findings}["acme"] == "ok"
    document = httpx.get(f"{stack['URL']}/openapi.json", trust_env=False).text
    assert "acme.paint" in document
    assert "What to paint." in document


def test_it_is_among_the_operations_the_providers_and_the_settings(installation: Installation) -> None:
    assert "acme.paint" in installation.darkroom("operations")
    assert "What to paint." in " ".join(installation.darkroom("operations", "acme.paint").split())
    assert re.search(r"^acme +acme\.paint +not set", installation.darkroom("providers"), re.MULTILINE)

    wrong = {"ACME_API_KEY": "k", "ACME_TIMEOUT_SECONDS": "soon"}
    refused = installation.python("-m", "jobs.cli", "providers", environ=wrong)
    assert refused.returncode == 2
    assert "ACME_TIMEOUT_SECONDS" in refused.stderr


def test_one_real_call_is_made_without_a_stack(installation: Installation, acme: Acme) -> None:
    environ = {"ACME_API_KEY": "the-key-of-acme", "ACME_BASE_URL": acme.url}
    arguments = ("--payloads", str(EXAMPLE / "payloads"), "--call", "--yes", "-p", "prompt=by poll")

    printed = installation.darkroom("providers", "check", "acme", *arguments, environ=environ)

    assert "succeeded: 1 image" in printed
    assert [one["prompt"] for one in acme.submitted] == ["by poll"]


def test_the_demo_runs_without_it(installation: Installation) -> None:
    done = installation.python("-m", "jobs.cli", "demo", "--json")

    assert done.returncode == 0, done.stderr
    assert "acme.paint" not in json.loads(done.stdout.splitlines()[-1])["operations"]
    assert "acme" in done.stderr


# The conformance suite --------------------------------------------------------------------------------------------


def conformance(copy: Installation) -> subprocess.CompletedProcess[str]:
    few = {"HYPOTHESIS_PROFILE": "fuzz", "FUZZ_EXAMPLES": "20"}
    arguments = ("-p", "no:cacheprovider", "--no-header", "-k", "acme or payload", "tests/jobs/providers")
    return copy.python("-m", "pytest", *arguments, environ=few)


def test_the_tests_run_over_its_payload_files(tmp_path: Path) -> None:
    done = conformance(dropped_in(tmp_path))

    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is None or int(passed[1]) > len(list((EXAMPLE / "payloads").iterdir()))


def test_a_missing_payload_file_fails_one_test_with_one_sentence(tmp_path: Path) -> None:
    copy = dropped_in(tmp_path)
    (tmp_path / PAYLOADS / "acme" / "submit-refused.json").unlink()

    done = conformance(copy)

    assert done.returncode == 1
    failures = done.stdout.partition("= FAILURES =")[2].partition("short test summary")[0].splitlines()[1:-1]
    assert [line for line in failures if not line.startswith("_")] == [
        f"add {PAYLOADS}/acme/submit-refused-*.json: an answer that refuses a submit of acme.paint"
    ]


# What cannot be used ----------------------------------------------------------------------------------------------

#: modules that are offered as providers, by the name under which they are, and the sentence about each
_UNUSABLE = {
    "missing": (None, "missing cannot be loaded from module_of_missing: No module named 'module_of_missing'"),
    "raising": ("1 / 0", "raising cannot be loaded from module_of_raising: division by zero"),
    "unfinished": ("def (", "unfinished cannot be loaded from module_of_unfinished: invalid syntax"),
    "empty": ("", "module_of_empty holds no `provider`: add provider = Provider(name='empty', ...)"),
    "renamed": (
        "from darkroom_acme import provider",
        "module_of_renamed is installed as renamed, but its provider is named acme",
    ),
    "Ac.me": ("", "'Ac.me' (module_of_Ac_me) must be lower-case letters and digits, for example acme"),
    "deepmode": (
        "raise AssertionError",
        "the name deepmode is taken more than once: jobs.providers.deepmode and module_of_deepmode; jobs.providers.deepmode is used; "
        "rename or uninstall the other",
    ),
    "idle": ("provider = made(operations={})", "idle has no operation: add one to `operations`"),
    "misnamed": (
        "provider = made(operations={'acme.paint': operation()})",
        "the key in `operations`, `name` and the request's `operation` must be the same, misnamed.<service>, and not 'acme.paint'",
    ),
    "unshown": (
        "provider = made(operations={'unshown.paint': operation(model_config={'json_schema_extra': {}})})",
        "add an example to Model: model_config = ConfigDict(json_schema_extra={'examples': [...]})",
    ),
    "wronglyshown": (
        "provider = made(operations={'wronglyshown.paint': operation(__annotations__={'size': int})})",
        "correct the example of Model: size: required",
    ),
    "undecided": (
        "class Options(ProviderOptions):\n    region: str\nprovider = made(options=Options)",
        "give region of the options of undecided a valid default",
    ),
    "shadowing": (
        "provider = made(operations={'shadowing.paint': operation(__annotations__={'params': int}, params=1)})",
        "rename the field params of Model: every request has a method of that name; write the provider's name in submit()",
    ),
}
_MADE = """
import warnings
from jobs.providers import *
from jobs.providers import OperationDefaults, Provider, ProviderOptions, Request
warnings.simplefilter("ignore")  # pydantic's own, of a field that hides a method

def operation(**fields):
    found = OperationDefaults()
    extra = {{"json_schema_extra": {{"examples": [{{}}]}}}}
    name = fields.get("operation", "{name}.paint")
    found.name = name
    found.request = type("Model", (Request,), {{"operation": name, "model_config": extra, "__module__": __name__, **fields}})
    return found

def made(**fields):
    given = {{"name": "{name}", "default_base_url": "https://api.test", "options": ProviderOptions}}
    return Provider(**{{**given, "operations": {{"{name}.paint": operation()}}, **fields}})
"""


def offered(site_packages: Path, name: str, module: str, code: str | None, distribution: str = "") -> None:
    """What an installer leaves of a distribution whose entry point is this module with this code."""
    info = site_packages / f"{distribution or module}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution or module}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[darkroom.providers]\n{name} = {module}\n")
    if code is not None:
        (site_packages / f"{module}.py").write_text(code)


@pytest.fixture
def crowded(tmp_path: Path) -> Installation:
    """The example beside many distributions that cannot be used."""
    installed = distributed(tmp_path)
    for name, (code, _) in _UNUSABLE.items():
        module = f"module_of_{name.replace('.', '_')}"
        made = f"{_MADE.format(name=name)}\n{code}" if code and "made(" in code else code
        offered(installed.path, name, module, made)
    return installed


def test_what_cannot_be_used_is_said_in_a_sentence_each(crowded: Installation) -> None:
    done = crowded.python("-m", "jobs.cli", "providers", environ={"COLUMNS": "300"})

    assert done.returncode == 1
    assert re.search(r"^acme +acme\.paint", done.stdout, re.MULTILINE)
    assert re.search(r"^deepmode +deepmode\.generate +not set +jobs\.providers\.deepmode", done.stdout, re.MULTILINE)
    said = [line.removeprefix("error: ") for line in done.stderr.splitlines()]
    expected = [words for _, (_, words) in sorted(_UNUSABLE.items())]
    assert [words in one for words, one in zip(expected, said, strict=True)] == [True] * len(said), said


#: prints what a producer, a worker and a receiver make of the providers, as one line of JSON
_EVERYWHERE = """
import json
import jobs, webhooks
from darkroom_acme import Paint
from jobs import callback_url, providers
from jobs.settings import Settings, enabled_providers
from webhooks import openapi
from worker import process

enabled = enabled_providers()
process.check(Settings.read(), enabled)
document = openapi.document_json().decode()
path = callback_url.callback_url("/webhooks", "raising", "0" * 32, 1, ["a-secret"])
with webhooks.create_app() as receiver:
    callbacks = [receiver.test_client().post(one).status_code for one in (path, "/webhooks/raising/x", "/webhooks/nobody/x")]
try:
    providers.operation("raising.paint")
except providers.InvalidProvider as error:
    refused = str(error)
print(json.dumps({
    "enqueued": jobs.enqueue(Paint(prompt="a lake")).operation,
    "refused": refused,
    "enabled": sorted(enabled),
    "documented": [name for name in ("acme.paint", "deepmode.generate", "raising") if name in document],
    "listed": [one.name for one in jobs.operations() if one.provider in ("acme", "raising")],
    "callbacks": callbacks,
}))
"""


def test_nobody_is_stopped_by_what_cannot_be_used(crowded: Installation, redis_url: str) -> None:
    environ = {
        "ACME_API_KEY": "k",
        "RAISING_API_KEY": "k",
        "DARKROOM_REDIS_URL": redis_url,
        "DARKROOM_SECRET_KEYS": "a-secret",
        "DARKROOM_STORAGE_URL": f"file://{crowded.folder}/images",
    }

    done = crowded.python("-c", _EVERYWHERE, environ=environ)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "enqueued": "acme.paint",
        "refused": "raising cannot be loaded from module_of_raising: division by zero",
        "enabled": ["acme"],
        "documented": ["acme.paint", "deepmode.generate"],
        "listed": ["acme.paint"],
        "callbacks": [503, 403, 404],  # the provider sends it again when it is repaired
    }
    said = "a provider cannot be used: raising cannot be loaded from module_of_raising: division by zero"
    assert said in done.stderr

    findings = json.loads(crowded.python("-m", "jobs.cli", "doctor", "--json", environ=environ).stdout)["findings"]
    states = {one["name"]: one["state"] for one in findings}
    assert (states["acme"], states["raising"]) == ("warning", "broken")


def test_neither_of_two_distributions_with_one_name_is_used(tmp_path: Path) -> None:
    installed = distributed(tmp_path)
    offered(installed.path, "acme", "other_acme", "raise AssertionError('it was imported')")

    done = installed.python("-m", "jobs.cli", "providers", environ={"COLUMNS": "300"})

    assert done.returncode == 1
    assert "deepmode.generate" in done.stdout
    assert "acme.paint" not in done.stdout
    [sentence] = done.stderr.splitlines()
    assert "the name acme is taken more than once: " in sentence
    assert {"other_acme", "darkroom_acme"} <= set(re.findall(r"\w+", sentence))
    assert "; none of them is used; rename or uninstall all but one" in sentence


def test_a_provider_of_this_package_keeps_its_name(tmp_path: Path) -> None:
    copy = dropped_in(tmp_path / "copy")
    both = f"{copy.path}{os.pathsep}{distributed(tmp_path / 'dist').path}"

    done = copy.python("-m", "jobs.cli", "providers", environ={"PYTHONPATH": both, "COLUMNS": "300"})

    assert re.search(r"^acme +acme\.paint +not set +jobs\.providers\.acme$", done.stdout, re.MULTILINE)
    assert "the name acme is taken more than once: jobs.providers.acme and darkroom_acme" in done.stderr
    assert "; jobs.providers.acme is used; rename or uninstall the other" in done.stderr


def test_a_provider_is_imported_only_when_it_is_asked_for(tmp_path: Path) -> None:
    program = """
import sys
from jobs import providers
assert "acme" in providers.sources()
assert "darkroom_acme" not in sys.modules
assert providers.operation("acme.paint").name == "acme.paint"
"""
    done = distributed(tmp_path).python("-c", program)

    assert done.returncode == 0, done.stderr

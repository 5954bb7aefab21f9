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


# Names ------------------------------------------------------------------------------------------------------------


def test_a_name_that_is_taken_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    copy = dropped_in(tmp_path / "copy")
    both = f"{copy.path}{os.pathsep}{distributed(tmp_path / 'dist').path}"

    done = copy.python("-m", "jobs.cli", "providers", environ={"PYTHONPATH": both})

    assert done.returncode == 1
    assert "two providers are named acme: jobs.providers.acme and darkroom_acme" in done.stderr


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("acme = no_such_module", "acme cannot be loaded from no_such_module"),
        ("acme = json", "json holds no `provider`"),
        ("other = darkroom_acme", "darkroom_acme is installed as other, but its provider is named acme"),
        ("Ac.me = darkroom_acme", "'Ac.me' (darkroom_acme) must be lower-case letters and digits"),
    ],
)
def test_an_installed_provider_that_cannot_be_used_is_named(tmp_path: Path, entry: str, sentence: str) -> None:
    installation = distributed(tmp_path)
    [file] = installation.path.glob("*/entry_points.txt")
    file.write_text(f"[darkroom.providers]\n{entry}\n")

    done = installation.python("-m", "jobs.cli", "providers")

    assert done.returncode == 1
    assert sentence in done.stderr


def test_a_provider_is_imported_only_when_it_is_asked_for(tmp_path: Path) -> None:
    program = """
import sys
from jobs import providers
assert "acme" in providers.names()
assert "darkroom_acme" not in sys.modules
assert providers.operation("acme.paint").name == "acme.paint"
"""
    done = distributed(tmp_path).python("-c", program)

    assert done.returncode == 0, done.stderr

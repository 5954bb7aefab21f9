"""Everything at DEBUG, with canaries for secrets, through success and failure; then all output is searched for them."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from PIL import Image
from redis import Redis

from jobs import Job, Status, callback_url
from jobs.embedded import Command, free_port
from jobs.providers import aimlapi, chainhub, deepmode, phota
from jobs.queue import queue_name
from jobs.state.record import json_of
from jobs.view import JobView

pytestmark = pytest.mark.journey

PROMPT = "a canary sings of plums"
#: texts that must be in no output, by name
CANARIES: Mapping[str, str] = {
    "a key of the API": "canary-of-the-api-key",
    "a key that signs": "canary-of-the-secret-key",
    "the key of DeepMode": "canary-of-deepmode",
    "the key of ChainHub": "canary-of-chainhub",
    "the key of Phota": "canary-of-phota",
    "the key of AIML": "canary-of-aimlapi",
    "the secret of the storage": "wJalr-the-secret",
    "the secret of webhooks out": "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5",
    "the query of a webhook_url": "canary-of-the-notify-url",
    "the query of an input": "canary-of-the-input-url",
    "a prompt": PROMPT,
}


def noise(seed: int) -> bytes:
    """An image whose base64 is unlike any other."""
    source = random.Random(seed)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (48, 48), source.randbytes(48 * 48 * 3)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = noise(1)


@dataclass
class Output:
    """All output, by its source."""

    said: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, text: str) -> None:
        self.said[name] = self.said.get(name, "") + text

    def holding(self, canary: str) -> list[str]:
        """The sources that hold it, with the text around it."""
        forms = {canary, json.dumps(canary)[1:-1], canary.replace(" ", "+"), canary.replace(" ", "%20")}
        return [
            f"{name}: …{text[max(0, text.index(form) - 200) : text.index(form) + 80]}…"
            for name, text in self.said.items()
            for form in forms
            if form in text
        ]


@dataclass
class Listening:
    """Everything that is published in Redis, such as Celery's events."""

    redis: Redis
    heard: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen in a thread during the block."""
        thread = threading.Thread(target=self.listen)
        thread.start()
        try:
            yield
        finally:
            self.over.set()
            thread.join()

    def listen(self) -> None:
        with self.redis.pubsub() as listener:
            listener.psubscribe("*")
            while not self.over.is_set():
                message = listener.get_message(timeout=0.1)
                if message and message["type"] == "pmessage":
                    self.heard.append(readable(message["data"]))


def readable(data: bytes) -> str:
    """A message with its base64 decoded, which kombu uses for bodies."""
    text = data.decode(errors="replace")
    return text + "".join(_unpacked(run) for run in re.findall(r"[A-Za-z0-9+/]{24,}={0,2}", text))


def _unpacked(run: str) -> str:
    with contextlib.suppress(ValueError):
        return "\n" + base64.b64decode(run, validate=True).decode(errors="replace")
    return ""


@pytest.fixture(scope="module")
def site(sites: Any, bucket: Any, new_vendors: Any) -> Any:
    """A site whose secrets are all canaries, and providers that log each request."""
    port = free_port()
    keys = {f"{name.upper()}_API_KEY": f"canary-of-{name}" for name in ("deepmode", "chainhub", "phota", "aimlapi")}
    given = {
        **keys,
        "DARKROOM_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "DARKROOM_API_KEYS": CANARIES["a key of the API"],
        "DARKROOM_SECRET_KEYS": CANARIES["a key that signs"],
        "DARKROOM_WEBHOOK_SECRETS": f"whsec_{CANARIES['the secret of webhooks out']}",
        "PHOTA_ASYNC": "true",
    }
    return sites.new("canaries", given, vendors=new_vendors("canaries", "--verbose"), storage=bucket.storage())


def at_debug(site: Any, name: str, program: str, *arguments: str) -> Any:
    """Start Python with all logging on."""
    begin = "import logging; logging.basicConfig(level=logging.DEBUG); "
    command = [sys.executable, "-c", begin + program, *arguments]
    return site.processes.start(Command(f"{name}-canaries", command, site.environ, site.folder))


GRANIAN = "import sys; sys.argv[0] = 'granian'; from granian.cli import entrypoint; entrypoint()"
APP = "import logging\nlogging.basicConfig(level=logging.DEBUG)\nfrom webhooks import create_app\n"


def started(site: Any) -> Sequence[Any]:
    """The worker and the receiver, and its access log, at DEBUG."""
    (site.folder / "canary_app.py").write_text(APP)
    url = site.environ["DARKROOM_PUBLIC_URL"]
    options = ["--interface", "wsgi", "--port", url.rpartition(":")[2], "--log-level", "debug", "--access-log"]
    receiver = at_debug(site, "receiver", GRANIAN, *options, "--factory", "canary_app:create_app")
    celery = "import sys; sys.argv[0] = 'celery'; from celery.__main__ import main; main()"
    worker = at_debug(site, "worker", celery, "-A", "worker", "worker", "--loglevel", "DEBUG", "-E")
    site.await_workers(worker)
    receiver.await_ready(lambda: _is_up(f"{url}/healthz"))
    return worker, receiver


def _is_up(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, trust_env=False, timeout=2).is_success
    return False


def told(site: Any, request: Any, *faults: str) -> Job:
    """The job once it is final, with a webhook to an address that is not allowed."""
    return site.run(request, *faults, webhook_url="http://169.254.169.254/hook?token=canary-of-the-notify-url")  # type: ignore[no-any-return]


def jobs_of_all_kinds(site: Any) -> Iterator[Job]:
    """Success and failure at each provider, with images by URL and inside answers, by callbacks and in answers."""
    face = {"identity_image": PICTURE, "artwork_image": PICTURE, "mask_image": PICTURE, "prompt": PROMPT}
    reve = aimlapi.ReveRemix(image_urls=[PICTURE], prompt=PROMPT, convert_base64_to_url=False)
    generate = deepmode.Generate(model_id="m", prompt=PROMPT)
    ideogram = chainhub.IdeogramRemix(image_file=PICTURE, prompt=PROMPT)
    remix = phota.Remix(
        input_image=PICTURE,
        prompt=PROMPT,
        reference_image="https://example.com/style.jpg",
        num_output_images=2,
        output_format="jpg",
        response_mode="urls",
    )
    away = "https://169.254.169.254/a.png?sig=canary-of-the-input-url"
    yield told(site, generate)
    yield told(site, deepmode.FaceIdRemix(**face, mode="sync"))
    yield told(site, ideogram)
    yield told(site, remix)
    yield told(site, reve)
    yield told(site, generate, "400@deepmode*1")
    yield told(site, generate, "401@deepmode*1")
    yield told(site, generate, "result-redirect@deepmode*1")
    yield told(site, ideogram, "task-failed@chainhub*1")
    yield told(site, remix, "moderated@phota*1")
    yield told(site, reve, "api-key-500@aimlapi*1")
    yield told(site, reve, "drop@aimlapi*1")
    yield told(site, reve, "not-json@aimlapi*1")
    yield told(site, deepmode.FaceIdRemix(**{**face, "mask_image": away}))


def problems(site: Any, job: Job) -> Iterator[str]:
    """The answers of the receiver to wrong requests that hold a prompt."""
    base = site.environ["DARKROOM_PUBLIC_URL"]
    keys = [CANARIES["a key that signs"]]
    paths = callback_url.callback_url("/webhooks", job.provider, job.id, 1, keys), "/webhooks/deepmode/a.1.b"
    body = json.dumps({"nobody": "understands", "prompt": PROMPT, "picture": base64.b64encode(PICTURE).decode()})
    bearer = {"Authorization": f"Bearer {CANARIES['a key of the API']}"}
    with httpx.Client(base_url=base, trust_env=False, timeout=10) as client:
        yield from (client.post(path, content=body).text for path in paths)
        yield client.get(f"/v1/jobs/{job.id}", headers=bearer).text
        yield client.get(f"/v1/jobs/{job.id}", headers={"Authorization": f"Bearer {bearer['Authorization']}x"}).text
        wrong = {"operation": "deepmode.generate", "params": {"prompt": PROMPT, "num_images": PROMPT}}
        yield client.post("/v1/jobs", headers=bearer, json=wrong).text


def commands(site: Any, job: Job) -> Iterator[str]:
    """The output of the command line, at DEBUG."""
    program = "import logging; logging.basicConfig(level=logging.DEBUG); from jobs.cli import main; main()"
    for arguments in (
        ["get", job.id],
        ["get", job.id, "--json"],
        ["deliveries", job.id],
        ["list", "--json"],
        ["doctor"],
    ):
        command = [sys.executable, "-c", program, *arguments]
        environ = {"PATH": "/usr/bin:/bin", **site.environ}
        ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=40, check=False)
        yield ended.stdout + ended.stderr


def stored(redis: Redis) -> Iterator[tuple[str, str]]:
    """Each key of Redis and its value."""
    reads = {
        "string": redis.get,
        "list": lambda key: redis.lrange(key, 0, -1),
        "set": redis.smembers,
        "zset": lambda key: redis.zrange(key, 0, -1),
        "hash": redis.hgetall,
    }
    for key in redis.scan_iter():
        yield key.decode(), repr(reads[redis.type(key).decode()](key))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Run:
    output: Output
    jobs: Sequence[Job]
    #: the processes' logs, by name
    logs: Mapping[str, str]


@pytest.fixture(scope="module")
def run(site: Any) -> Run:
    """Everything, once."""
    output, listening = Output(), Listening(site.redis)
    with listening.listening():
        jobs, logs = everything(site, output)
    output.add("Celery's events", "\n".join(listening.heard))
    for name, text in logs.items():
        output.add(f"the log of the {name}", text)
    return Run(output, jobs, logs)


def everything(site: Any, output: Output) -> tuple[Sequence[Job], Mapping[str, str]]:
    """Run everything, and return the jobs and the processes' logs."""
    message = site.darkroom.enqueue(aimlapi.ReveRemix(image_urls=[PICTURE], prompt=PROMPT))
    output.add("Celery's message", "".join(map(readable, site.redis.lrange(queue_name("aimlapi"), 0, -1))))
    processes = started(site)
    jobs = [site.wait(message), *jobs_of_all_kinds(site)]
    callback = next(job for job in jobs if job.provider == "deepmode")
    output.add("answers of HTTP", "\n".join(problems(site, callback)))
    output.add("the command line", "\n".join(commands(site, callback)))
    jobs = [site.darkroom.get(job.id) for job in jobs]
    output.add("reprs", "\n".join(map(repr, jobs)))
    output.add("the JSON of jobs", "\n".join(JobView.of(job).model_dump_json() for job in jobs))
    output.add(
        "timelines and ledgers", "\n".join(repr((job.timeline, job.attempts, job.error, job.missing)) for job in jobs)
    )
    for key, value in stored(site.redis):
        if not key.startswith("darkroom:job:"):
            output.add(f"Redis: {key}", key + value)
    for process in reversed(processes):
        site.processes.stop(process)
    logs = [process.log for process in processes] + [processes[0].log.with_name("sandbox-canaries.log")]
    return jobs, {log.stem: log.read_text(errors="replace") for log in logs}


def test_the_run_met_success_and_failure_and_was_logged_in_full(run: Run) -> None:
    assert [job.status for job in run.jobs].count(Status.SUCCEEDED) >= 6
    assert {job.error.code.value for job in run.jobs if job.error} >= {"invalid_request", "unauthorized", "moderated"}
    assert "POST /deepmode" in run.logs["sandbox-canaries"]
    for name in ("worker-canaries", "receiver-canaries"):
        assert "DEBUG" in run.logs[name]
    assert "botocore" in run.logs["worker-canaries"]
    assert "task-received" in run.output.said["Celery's events"]
    assert "deepmode" in run.output.said["answers of HTTP"]
    assert all(job.id in run.output.said["the JSON of jobs"] for job in run.jobs)


@pytest.mark.parametrize("name", CANARIES)
def test_a_secret_is_in_no_output(run: Run, name: str) -> None:
    assert run.output.holding(CANARIES[name]) == []


def test_no_bytes_of_an_image_are_in_any_output(run: Run) -> None:
    encoded = base64.b64encode(PICTURE).decode()
    pieces = [encoded[at : at + 24] for at in range(120, len(encoded) - 24, 24)]
    raw = [repr(PICTURE[at : at + 12])[2:-1] for at in range(60, len(PICTURE) - 12, 12)]
    for name, text in run.output.said.items():
        assert not [piece for piece in (*pieces, *raw) if piece in text], name


def test_no_callback_token_is_in_any_output(run: Run) -> None:
    for job in run.jobs:
        for number in (1, 2):
            token = callback_url.sign(job.provider, job.id, number, [CANARIES["a key that signs"]])
            assert run.output.holding(token.rpartition(".")[2]) == []


def test_no_signature_of_a_providers_url_is_in_any_output(run: Run) -> None:
    for name, text in run.output.said.items():
        assert not re.search(r"[?&](?:sig|se)=[^…\s]", text), name


def test_only_an_artifacts_own_url_carries_a_signature_of_ours(run: Run) -> None:
    """Only those who may read a job get URLs of its images."""
    meant = ("the JSON of jobs", "answers of HTTP", "the command line")
    for name, text in run.output.said.items():
        assert name in meant or "X-Amz-Signature=" not in text, name


def test_prompts_are_only_in_the_parameters_of_the_record(run: Run, site: Any) -> None:
    for job in run.jobs:
        record = json.loads(json_of(site.redis.get(f"darkroom:job:{job.id}")))
        assert record.pop("params")["prompt"] == PROMPT
        assert PROMPT not in json.dumps(record)

"""compose.yaml: its promises, and each of its command lines, run on this machine with other hosts and ports."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import logs, providers
from jobs.embedded import Command, Process, Processes
from jobs.embedded import free_port as any_free_port
from jobs.embedded import redis as embedded_redis
from jobs.sandbox import VENDORS
from jobs.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SECRETS = {
    "DARKROOM_SECRET_KEYS": "a-secret-of-the-composed",
    "DARKROOM_API_KEYS": "a-key-of-the-composed",
    "REDIS_PASSWORD": "5ec4e7",
    "S3_SECRET_ACCESS_KEY": "5ec4e75ec4e7",
}
OURS = ("worker", "webhooks", "bucket", "sandbox")
LASTING = ("redis", "s3", "worker", "webhooks", "sandbox")

_REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:[-?+])((?:[^${}]|\$\{[^{}]*\})*))?\})")


#: where the image has our packages
PACKAGES_OF_THE_IMAGE = "/app/.venv/lib/python3.11/site-packages"


class MissingVariable(Exception):
    """A variable that compose requires."""


def interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    """The value as compose reads it: `$$`, `${A}`, `${A:-x}`, `${A:?x}` and `${A:+x}`, nested ones too."""
    if isinstance(value, dict):
        return {key: interpolated(inner, environ) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, environ) for inner in value]
    return _REFERENCE.sub(lambda found: _resolved(found, environ), value) if isinstance(value, str) else value


def _resolved(found: re.Match[str], environ: Mapping[str, str]) -> str:
    escaped, name, operator, word = found.groups()
    if escaped:
        return "$"
    value = environ.get(name, "")
    if operator == ":?" and not value:
        raise MissingVariable(f"{name} {word}")
    if (operator == ":-" and not value) or (operator == ":+" and value):
        return str(interpolated(word, environ))
    return value


def composed(environ: Mapping[str, str] = SECRETS) -> dict[str, Any]:
    """The services, with this environment; a variable without a value is passed on from it."""
    services = interpolated(yaml.safe_load((ROOT / "compose.yaml").read_text())["services"], environ)
    for service in services.values():
        given = service.get("environment", {})
        given.update({name: environ.get(name, "") for name, value in given.items() if value is None})
    return dict(services)


def seconds(duration: str) -> float:
    """Of a duration such as `90s` or `1m30s`."""
    return sum(float(number) * {"s": 1, "m": 60}[unit] for number, unit in re.findall(r"(\d+)([sm])", duration))


def dockerfile() -> str:
    """The inline Dockerfile that our services are built from."""
    return str(composed()["worker"]["build"]["dockerfile_inline"])


# --- what the file says --------------------------------------------------------------------------------------------


def test_granians_log_is_configured_by_a_file_of_the_image() -> None:
    assert "FROM python:3.11-" in dockerfile()
    packages, file = composed()["webhooks"]["environment"]["GRANIAN_LOG_CONFIG"].split("/jobs/")
    assert packages == PACKAGES_OF_THE_IMAGE
    assert ROOT / "jobs" / file == logs.GRANIAN_CONFIG


@pytest.mark.parametrize("name", SECRETS.keys() - {"DARKROOM_API_KEYS"})
def test_without_a_secret_nothing_starts(name: str) -> None:
    with pytest.raises(MissingVariable, match=rf"{name} is not set; docs/how-to/deploy-with-compose.md"):
        composed({other: value for other, value in SECRETS.items() if other != name})


def test_no_secret_is_written_in_the_file() -> None:
    for service in composed().values():
        for name, value in service.get("environment", {}).items():
            assert not name.endswith(("_KEY", "_KEYS", "_SECRET")) or value in {"", *SECRETS.values()}


def test_every_service_has_a_health_check_and_is_restarted() -> None:
    services = composed()
    assert set(services) == {"redis", "s3", "bucket", "worker", "webhooks", "sandbox"}
    for name in LASTING:
        assert services[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        assert services[name]["restart"] == "unless-stopped"
    assert services["bucket"]["restart"] == "on-failure"


def test_redis_writes_a_file_and_evicts_nothing() -> None:
    command = composed()["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--requirepass"] == SECRETS["REDIS_PASSWORD"]
    assert re.fullmatch(r"redis:7\.\d+\.\d+-alpine", composed()["redis"]["image"])


def test_the_store_has_atomic_conditional_writes() -> None:
    release = re.fullmatch(r"chrislusf/seaweedfs:(\d+)\.(\d+)", composed()["s3"]["image"])
    assert release
    # Conditional PUTs became atomic after 4.17.
    assert (int(release[1]), int(release[2])) >= (4, 18)


def test_ports_are_published_to_this_machine_only() -> None:
    for service in composed().values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_workers_can_be_scaled() -> None:
    worker = composed()["worker"]
    assert not {"container_name", "ports", "hostname"} & worker.keys()


@pytest.mark.parametrize("name", ["worker", "webhooks"])
def test_worker_and_receiver_wait_for_redis_and_the_bucket(name: str) -> None:
    services = composed()
    assert services[name]["depends_on"] == {
        "redis": {"condition": "service_healthy"},
        "bucket": {"condition": "service_completed_successfully"},
    }
    assert services["bucket"]["depends_on"] == {"s3": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", ["worker", "webhooks"])
def test_what_waits_for_a_store_outlives_the_container(name: str) -> None:
    service = composed()[name]
    assert service["volumes"] == [f"spool:{service['environment']['DARKROOM_SPOOL_DIR']}"]


def test_a_worker_has_time_to_finish_its_calls() -> None:
    worker = composed()["worker"]
    assert worker["stop_signal"] == "SIGTERM"
    assert seconds(worker["stop_grace_period"]) > float(worker["environment"]["DARKROOM_DRAIN_SECONDS"]) + 10


def test_a_worker_can_be_given_more_time_to_finish_its_calls() -> None:
    worker = composed({**SECRETS, "DARKROOM_DRAIN_SECONDS": "600", "WORKER_STOP_GRACE_PERIOD": "11m"})["worker"]
    assert worker["environment"]["DARKROOM_DRAIN_SECONDS"] == "600"
    assert seconds(worker["stop_grace_period"]) == 660


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_privileges(name: str) -> None:
    service = composed()[name]
    assert service["init"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_image_installs_the_lock_file_and_does_not_run_as_root() -> None:
    lines = dockerfile().splitlines()
    assert re.fullmatch(r"FROM python:3\.1[1-9]-slim\S*", [line for line in lines if line.startswith("FROM")][-1])
    syncs = [line for line in lines if "uv sync" in line]
    assert len(syncs) == 2
    assert all("--frozen" in line and "--no-dev" in line for line in syncs)
    assert lines[-1] == "USER darkroom"
    assert "$PATH" in dockerfile()


def test_the_image_copies_files_that_exist() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile(), re.MULTILINE)
    assert {name for names in copied for name in names.split()} == {
        *("pyproject.toml", "uv.lock", "README.md", "LICENSE", "jobs", "worker", "webhooks")
    }
    assert all((ROOT / name).exists() for names in copied for name in names.split())


@pytest.mark.parametrize("name", ["worker", "webhooks"])
def test_every_setting_reaches_the_container(name: str) -> None:
    assert {f"DARKROOM_{field.upper()}" for field in Settings.model_fields} <= composed()[name]["environment"].keys()


def test_the_worker_gets_the_settings_of_providers_and_the_receiver_only_their_webhook_secrets() -> None:
    services = composed()
    for name in VENDORS:
        fields = {"api_key", "base_url", *providers.provider(name).options.model_fields}
        settings = {f"{name.upper()}_{field.upper()}" for field in fields}
        assert settings <= services["worker"]["environment"].keys()
        received = settings & services["webhooks"]["environment"].keys()
        assert received == {setting for setting in settings if setting.endswith("_WEBHOOK_SECRET")}


def test_without_the_profile_the_real_providers_are_called() -> None:
    environment = composed({**SECRETS, "PHOTA_API_KEY": "real"})["worker"]["environment"]
    assert environment["PHOTA_API_KEY"] == "real"
    assert environment["DARKROOM_ALLOWED_PRIVATE_NETWORKS"] == ""
    for name in VENDORS:
        assert environment[f"{name.upper()}_BASE_URL"] == ""
    assert composed()["sandbox"]["profiles"] == ["sandbox"]


def test_with_the_profile_no_real_provider_is_called_even_with_a_real_key() -> None:
    environment = composed({**SECRETS, "COMPOSE_PROFILES": "sandbox", "PHOTA_API_KEY": "real"})["worker"]["environment"]
    assert environment["DARKROOM_PUBLIC_URL"] == "http://webhooks:8080"
    for name in VENDORS:
        assert environment[f"{name.upper()}_API_KEY"]
        assert environment[f"{name.upper()}_BASE_URL"] == f"http://sandbox:8085/{name}"


# --- what its command lines do -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Local:
    """The services of compose.yaml on this machine, with other hosts, ports and folders."""

    services: Mapping[str, Any]
    processes: Processes
    folder: Path

    def environ(self, name: str) -> dict[str, str]:
        # As in a container, where the engine sets it.
        known = {"HOSTNAME": socket.gethostname(), "PATH": _path()}
        return known | self.services[name].get("environment", {})

    def start(self, name: str, arguments: Sequence[str] = ()) -> Process:
        command = Command(name, [*self.services[name]["command"], *arguments], self.environ(name), self.folder)
        return self.processes.start(command)

    def is_healthy(self, name: str) -> bool:
        kind, *test = self.services[name]["healthcheck"]["test"]
        done = self.run(name, ["sh", "-c", *test] if kind == "CMD-SHELL" else test)
        return done.returncode == 0

    def run(self, name: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, **self.environ(name)}
        return subprocess.run(arguments, env=environ, cwd=self.folder, capture_output=True, text=True, timeout=60)


def _path() -> str:
    redis = Path(embedded_redis.resolve().path).parent  # type: ignore[union-attr]
    return f"{Path(sys.executable).parent}:{redis}:{os.environ['PATH']}"


def _replaced(value: Any, replacements: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(inner, replacements) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, replacements) for inner in value]
    if not isinstance(value, str) or value in replacements:
        return replacements.get(value, value)
    for old, new in replacements.items():
        value = value.replace(old, new) if ":" in old or "/" in old else value
    return value


@pytest.fixture(scope="module")
def local(s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """The composed services, with the sandbox, started in their order."""
    folder = tmp_path_factory.mktemp("composed")
    redis, webhooks, sandbox = (any_free_port() for _ in range(3))
    replacements = {
        "redis:6379": f"127.0.0.1:{redis}",
        "http://s3.localhost:8333": s3_server,
        "http://webhooks:8080": f"http://127.0.0.1:{webhooks}",
        "http://sandbox:8085": f"http://127.0.0.1:{sandbox}",
        "127.0.0.1:8080": f"127.0.0.1:{webhooks}",
        "127.0.0.1:8085": f"127.0.0.1:{sandbox}",
        "0.0.0.0": "127.0.0.1",
        "8080": str(webhooks),
        "8085": str(sandbox),
        "/var/spool/darkroom": str(folder / "spool"),
        f"{PACKAGES_OF_THE_IMAGE}/": f"{ROOT}/",
        "redis-cli ping": f"redis-cli -p {redis} ping",
    }
    environ = {**SECRETS, "COMPOSE_PROFILES": "sandbox", "DARKROOM_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8"}
    with Processes(folder / "logs") as processes:
        one = Local(_replaced(composed(environ), replacements), processes, folder)
        one.services["redis"]["healthcheck"]["test"][1] = f"redis-cli -p {redis} ping | grep -q PONG"
        _start(one, "redis", ["--port", str(redis), "--bind", "127.0.0.1", "--dir", str(folder)])
        made = one.run("bucket", one.services["bucket"]["command"])
        assert made.returncode == 0, made.stderr
        for name in ("sandbox", "webhooks", "worker"):
            _start(one, name)
        yield one


def _start(one: Local, name: str, arguments: Sequence[str] = ()) -> None:
    executable = shutil.which(one.services[name]["command"][0], path=_path())
    assert executable
    one.services[name]["command"][0] = executable
    one.start(name, arguments).await_ready(lambda: one.is_healthy(name))


@pytest.mark.journey
def test_every_command_line_runs_and_its_health_check_says_so(local: Local) -> None:
    for name in ("redis", "webhooks", "sandbox", "worker"):
        assert local.is_healthy(name), name


@pytest.mark.journey
def test_creating_the_bucket_again_changes_nothing(local: Local) -> None:
    assert local.run("bucket", local.services["bucket"]["command"]).returncode == 0


@pytest.mark.journey
def test_the_ten_lines_of_the_readme_run_as_they_stand(local: Local) -> None:
    lines = re.split(r"```python.*\n", README, maxsplit=1)[1].split("```", 1)[0]
    assert len(lines.splitlines()) <= 10
    done = local.run("worker", [sys.executable, "-c", lines])
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^http://\S+$", done.stdout, re.MULTILINE)) == 3


@pytest.mark.journey
def test_doctor_finds_no_problem(local: Local) -> None:
    done = local.run("worker", ["darkroom", "doctor"])
    assert done.returncode == 0, done.stdout


@pytest.mark.journey
def test_each_service_ends_within_its_grace_period_and_is_unhealthy_then(local: Local) -> None:
    for process in reversed(local.processes.running):
        grace = seconds(local.services[process.name]["stop_grace_period"])
        began = time.monotonic()
        local.processes.stop(process, seconds=grace)
        assert time.monotonic() - began < grace, process.name
        # Pinging a dead worker takes as long as its timeout.
        assert process.name == "worker" or not local.is_healthy(process.name), process.name

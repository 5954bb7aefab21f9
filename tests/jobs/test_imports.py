"""The public face, and what it costs to import it."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import jobs

PUBLIC = [
    "Artifact",
    "Attempt",
    "ChargePossible",
    "Charged",
    "Code",
    "Cost",
    "DarkroomError",
    "Delivery",
    "Event",
    "Failure",
    "FieldError",
    "IdempotencyConflict",
    "ImageInput",
    "InvalidRequest",
    "Job",
    "JobNotFound",
    "JsonValue",
    "Missing",
    "NewJob",
    "NotPossible",
    "OnUnknown",
    "Operation",
    "OperationField",
    "Outcome",
    "Page",
    "RedisUnavailable",
    "Request",
    "SettingsError",
    "Status",
    "StorageError",
    "Unavailable",
    "Unit",
    "cancel",
    "enqueue",
    "enqueue_many",
    "get",
    "list",
    "operations",
    "redeliver",
    "retry",
    "wait",
    "watch",
]

#: what a backend pays for only when it uses it
HEAVY = ("httpx", "httpcore", "flask", "boto3", "botocore", "PIL", "uvloop", "fakeredis", "rich", "granian")


def test_the_public_names_are_these() -> None:
    assert sorted(jobs.__all__) == sorted(PUBLIC)


def test_every_public_name_is_there_and_documented() -> None:
    for name in jobs.__all__:
        assert getattr(jobs, name).__doc__, name


def test_nothing_else_is_public() -> None:
    names = {
        name for name, value in vars(jobs).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert names == set(jobs.__all__)


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after this statement."""
    script = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    )


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return loaded_by("import jobs")


@pytest.mark.parametrize("name", HEAVY)
def test_importing_jobs_loads_no(loaded: set[str], name: str) -> None:
    assert not {module for module in loaded if module.split(".")[0] == name}


def test_importing_jobs_loads_no_provider(loaded: set[str]) -> None:
    assert not {module for module in loaded if module.startswith("jobs.providers.") and "._" not in module}


def test_importing_jobs_loads_neither_worker_nor_receiver_nor_sandbox(loaded: set[str]) -> None:
    packages = ("worker", "webhooks", "jobs.sandbox", "jobs.embedded", "jobs.cli")
    assert not {module for module in loaded if module.startswith(packages)}


def test_importing_one_provider_loads_no_other() -> None:
    loaded = loaded_by("from jobs.providers import deepmode")
    providers = {name for name in loaded if name.startswith("jobs.providers.") and "._" not in name}
    assert providers == {"jobs.providers.deepmode"}


@pytest.mark.parametrize("module", ["errors", "report", "job", "providers._contract", "callback_url"])
def test_a_pure_module_reaches_for_nothing_outside(module: str) -> None:
    """Loaded by itself, past the package's own face."""
    script = (
        "import sys, types; package = types.ModuleType('jobs'); package.__path__ = [sys.argv[1]]; "
        f"sys.modules['jobs'] = package; import jobs.{module}; print(*sys.modules)"
    )
    folder = jobs.__path__[0]
    run = subprocess.run([sys.executable, "-c", script, folder], check=True, capture_output=True, text=True)
    framework = {"celery", "kombu", "redis", "httpx", "flask", "boto3", "PIL"}
    assert not framework & {name.split(".")[0] for name in run.stdout.split()}

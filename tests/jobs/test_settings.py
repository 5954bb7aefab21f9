"""The environment: what is right by default, and what stops the process at its start with a name and an example."""

from __future__ import annotations

import socketserver
import threading
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote

import pytest

from jobs.errors import RedisUnavailable, SettingsError
from jobs.settings import (
    STACK_FILE,
    STACK_FOLDER,
    Settings,
    current,
    enabled_providers,
    provider_settings,
    stack_environment,
)
from jobs.state.connection import connect
from jobs.state.repository import Repository

MALFORMED = {
    "DARKROOM_REDIS_URL": [
        "http://localhost",
        "localhost:6379",
        "amqp://guest@host//",
        "unix:///run/redis",
        "redis://h:port",
    ],
    "DARKROOM_BROKER_URL": ["rabbitmq", "amqp://guest:p#ss@rabbitmq//"],
    "DARKROOM_STORAGE_URL": ["s3://", "s3:bucket", "gs://bucket", "/var/pictures", "file://folder/relative"],
    "DARKROOM_PUBLIC_URL": ["darkroom.example.com", "ftp://darkroom.example.com", "https://"],
    "DARKROOM_ALLOWED_PRIVATE_NETWORKS": ["localhost", "10.0.0.0/99", "10.0.0.0/8;127.0.0.0/8"],
    "DARKROOM_RETENTION_SECONDS": ["a week", "-1", "59"],
    "DARKROOM_MAX_CALLS_IN_FLIGHT": ["0", "many"],
    "DARKROOM_MAX_IMAGE_BYTES": ["1", "-5"],
    "DARKROOM_DRAIN_SECONDS": ["-1", "soon"],
    "DARKROOM_WEBHOOK_EVENTS": ["done"],
    "DARKROOM_RATE_LIMIT": ["600", "0/minute", "600/fortnight", "-1/second"],
    "DARKROOM_WEBHOOK_SECRETS": ["whsec_short", "not-a-webhook-secret-at-all"],
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set."""
    import os

    for name in list(os.environ):
        if name.startswith(("DARKROOM_", "DEEPMODE_", "CHAINHUB_", "PHOTA_", "AIMLAPI_")):
            monkeypatch.delenv(name)


def test_the_defaults_are_those_of_one_machine() -> None:
    settings = Settings.read()
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert (settings.broker, settings.broker_is_redis) == (settings.redis_url, True)
    assert settings.storage_url == f"file://{Path.home()}/.local/share/darkroom"
    assert settings.retention_seconds == 7 * 86400
    assert (settings.secret_keys, settings.api_keys, settings.allowed_private_networks) == ((), (), ())
    assert (settings.public_url, settings.callback_base) == ("", None)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, bad in MALFORMED.items() for value in bad])
def test_a_malformed_setting_is_named_with_an_example_that_works(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        Settings.read()
    assert error.value.name == name
    message, _, example = str(error.value).partition(f"; for example {name}=")
    assert message.startswith(f"{name}: ")
    monkeypatch.setenv(name, example)
    Settings.read()


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_has_an_example_that_works(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    field = Settings.model_fields[name]
    monkeypatch.setenv(f"DARKROOM_{name.upper()}", str((field.examples or [field.default])[0]))
    Settings.read()


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_RETENTION_SECONDS", "")
    monkeypatch.setenv("DARKROOM_SECRET_KEYS", "")
    assert Settings.read() == Settings.read().model_copy(update={"retention_seconds": 7 * 86400, "secret_keys": ()})


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_SECRET_KEYS", " the-first-key , the-second-key,")
    monkeypatch.setenv("DARKROOM_ALLOWED_PRIVATE_NETWORKS", "127.0.0.1/8, ::1/128")
    settings = Settings.read()
    assert settings.signing_keys() == ("the-first-key", "the-second-key")
    assert settings.allowed_private_networks == (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@pytest.mark.parametrize("password", ["17#canary", "canary#17", "17/canary", "17?canary", "can[ary", "canary:#17", "#"])
def test_a_password_that_is_not_percent_encoded_is_refused_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", f"redis://:{password}@redis.example:6379/0")
    with pytest.raises(SettingsError, match=r"not a valid Redis URL; percent-encode .* # as %23") as error:
        Settings.read()
    problem = error.value.problem.removesuffix("for example # as %23, / as %2F and @ as %40")
    assert not any(part in problem for part in ("canary", "17", "can", "ary"))
    monkeypatch.setenv("DARKROOM_REDIS_URL", f"redis://:{quote(password, safe='')}@redis.example:6379/0")
    assert connect(Settings.read().redis_url).connection_pool.connection_kwargs["password"] == password


def test_no_secret_is_in_a_repr_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_SECRET_KEYS", "canary-of-the-secret-key")
    monkeypatch.setenv("DARKROOM_API_KEYS", "canary-of-the-api-key")
    monkeypatch.setenv("DEEPMODE_API_KEY", "canary-of-the-vendor-key")
    assert "canary" not in repr(Settings.read()) + repr(provider_settings("deepmode"))
    monkeypatch.setenv("DARKROOM_WEBHOOK_SECRETS", "canary")
    with pytest.raises(SettingsError) as error:
        Settings.read()
    assert "canary" not in str(error.value)


def test_callbacks_need_a_public_url_and_a_key_that_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_PUBLIC_URL", "https://darkroom.example/")
    with pytest.raises(SettingsError, match="DARKROOM_SECRET_KEYS: not set; for example"):
        _ = Settings.read().callback_base
    monkeypatch.setenv("DARKROOM_SECRET_KEYS", "a-key-that-signs")
    assert Settings.read().callback_base == "https://darkroom.example/webhooks"


def test_another_broker_is_another_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_BROKER_URL", "amqp://guest@rabbitmq//")
    assert (Settings.read().broker, Settings.read().broker_is_redis) == ("amqp://guest@rabbitmq//", False)


def test_celery_gets_the_database_that_is_in_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", "redis://:p%40ss@redis:6379?db=3")
    assert (Settings.read().broker, Settings.read().broker_is_redis) == ("redis://:p%40ss@redis:6379/3", True)


def test_space_around_a_value_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", " redis://redis:6379/1 ")
    monkeypatch.setenv("DARKROOM_PUBLIC_URL", "https://darkroom.example.com/ ")
    monkeypatch.setenv("DARKROOM_SECRET_KEYS", "a-key-that-signs")
    settings = Settings.read()
    assert (settings.redis_url, settings.callback_base) == (
        "redis://redis:6379/1",
        "https://darkroom.example.com/webhooks",
    )
    assert provider_settings("phota", {"PHOTA_BASE_URL": " http://127.0.0.1:9 "}).base_url == "http://127.0.0.1:9"


def test_the_environment_is_read_again_only_when_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = current()
    assert current() is first
    monkeypatch.setenv("DARKROOM_RETENTION_SECONDS", "120")
    assert current().retention_seconds == 120


# --- providers --------------------------------------------------------------------------------------------------------


def test_a_provider_is_enabled_when_its_key_is_set() -> None:
    assert enabled_providers({}) == {}
    assert set(enabled_providers({"PHOTA_API_KEY": "k", "AIMLAPI_API_KEY": "  "})) == {"phota"}


@pytest.mark.parametrize(
    ("name", "base_url"),
    [
        ("deepmode", "https://api.deepmode.ai"),
        ("chainhub", "https://api.chainhub.tech"),
        ("phota", "https://api.photalabs.com"),
        ("aimlapi", "https://api.aimlapi.com"),
    ],
)
def test_base_urls_default_to_the_real_hosts(name: str, base_url: str) -> None:
    assert provider_settings(name, {}).base_url == base_url


def test_a_provider_elsewhere_and_its_options() -> None:
    found = provider_settings(
        "phota", {"PHOTA_API_KEY": "k", "PHOTA_BASE_URL": "http://127.0.0.1:9000/", "PHOTA_ASYNC": "true"}
    )
    assert (found.base_url, found.options.is_async, found.is_enabled) == ("http://127.0.0.1:9000", True, True)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"PHOTA_BASE_URL": "localhost:9000"}, "PHOTA_BASE_URL"),
        ({"PHOTA_ASYNC": "perhaps"}, "PHOTA_ASYNC"),
        ({"PHOTA_TIMEOUT_SECONDS": "0"}, "PHOTA_TIMEOUT_SECONDS"),
    ],
)
def test_a_malformed_setting_of_a_provider_is_named(environ: dict[str, str], name: str) -> None:
    with pytest.raises(SettingsError) as error:
        provider_settings("phota", environ)
    assert error.value.name == name
    assert f"for example {name}=" in str(error.value)


# --- the stack of this folder -----------------------------------------------------------------------------------------


@pytest.fixture
def stack(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a stack runs, as far as its Redis and its file go; it is the current folder."""
    (tmp_path / STACK_FOLDER).mkdir()
    (tmp_path / STACK_FOLDER / STACK_FILE).write_text(
        f"DARKROOM_REDIS_URL={redis_url}\nDARKROOM_STORAGE_URL='file:///of the stack'\nDARKROOM_WEBHOOK_URL=\n"
        "DARKROOM_RETENTION_SECONDS=120\nDARKROOM_FUTURE_SETTING=1\nPATH=/nowhere\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_finds_the_stack_that_runs_in_its_folder(
    stack: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (current().redis_url, current().storage_url) == (redis_url, "file:///of the stack")
    assert current().retention_seconds == 120
    monkeypatch.setenv("DARKROOM_RETENTION_SECONDS", "240")
    assert current().retention_seconds == 240
    assert "PATH" not in stack_environment()


def test_with_a_redis_url_the_stack_is_not_used(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_REDIS_URL", "redis://redis:6379/1")
    assert (current().redis_url, current().retention_seconds) == ("redis://redis:6379/1", 7 * 86400)


@pytest.mark.parametrize("text", ["", "DARKROOM_REDIS_URL='", "DARKROOM_REDIS_URL=redis://127.0.0.1:{port}/0", "\x00"])
def test_a_stack_that_has_ended_is_ignored(stack: Path, free_port: int, text: str) -> None:
    (STACK_FOLDER / STACK_FILE).write_text(text.format(port=free_port))
    assert stack_environment() == {}
    assert current().redis_url == "redis://127.0.0.1:6379/0"


def test_another_stack_in_the_same_folder_is_noticed(stack: Path) -> None:
    assert current().retention_seconds == 120
    file = STACK_FOLDER / STACK_FILE
    text = file.read_text().replace("=120", "=180")
    file.unlink()
    file.write_text(text)
    assert current().retention_seconds == 180


def test_an_error_about_redis_says_what_names_it(stack: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file = STACK_FOLDER / STACK_FILE
    text = f"DARKROOM_REDIS_URL=redis://127.0.0.1:{free_port}/0\n"
    with socketserver.TCPServer(("127.0.0.1", free_port), PongOnce) as server:
        file.write_text(text)
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        assert current().redis_url == f"redis://127.0.0.1:{free_port}/0"
        answering.join()
    with pytest.raises(RedisUnavailable, match=rf"127.0.0.1:{free_port}/0 .* \.darkroom/env of `darkroom up` names it"):
        Repository.open(current().redis_url, retention_seconds=60).now()
    file.unlink()
    monkeypatch.setenv("DARKROOM_REDIS_URL", f"redis://127.0.0.1:{free_port}/0")
    with pytest.raises(RedisUnavailable, match="check that it is running and that DARKROOM_REDIS_URL names it"):
        Repository.open(current().redis_url, retention_seconds=60).now()


class PongOnce(socketserver.BaseRequestHandler):
    """A Redis that answers one PING."""

    def handle(self) -> None:
        """Reads and answers."""
        self.request.recv(64)
        self.request.sendall(b"+PONG\r\n")


# --- what they mean --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_says_what_it_means(name: str) -> None:
    field = Settings.model_fields[name]
    assert field.description
    if name.endswith("_seconds"):
        assert "in seconds" in field.description
    if "bytes" in name:
        assert "in bytes" in field.description

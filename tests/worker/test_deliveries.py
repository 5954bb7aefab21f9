"""What jobs tell of themselves: how a message looks, who can verify it, and that nobody waits for a dead receiver."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from raw_server import listening, on_the_loop
from standardwebhooks import Webhook, WebhookVerificationError

from jobs import Job, Status, schedule, transitions
from jobs.darkroom import Darkroom
from jobs.delivery import GIVE_UP_AFTER
from jobs.providers import deepmode
from jobs.settings import Settings
from jobs.view import JobView
from worker.deliveries import TIMEOUT_SECONDS, WebhookSender, signed_headers
from worker.host_limiter import HostLimiter
from worker.transport import Transport
from worker.updates import Updates

OLD, NEW = "whsec_b2xkIHNlY3JldCBvbGQgc2VjcmV0IG9sZCBzZWNyZXQ=", "whsec_bmV3IHNlY3JldCBuZXcgc2VjcmV0IG5ldyBzZWNyZXQ="
ACCEPTED = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass
class Receiver:
    """Somebody's endpoint: what it answers, and the messages that came."""

    #: None: it never answers
    answer: bytes | None
    port: int = 0
    connections: int = 0
    messages: list[tuple[Mapping[str, str], str]] = field(default_factory=list)

    def url(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/hook?token=a-secret"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.messages.append((headers, body.decode()))
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving(answer: bytes | None = ACCEPTED) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer)
    async with listening(receiver.serve) as receiver.port:
        yield receiver


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=redis_url,
        storage_url=f"file://{tmp_path}",
        webhook_secrets=f"{NEW},{OLD}",
        allowed_private_networks="127.0.0.1/32",
    )


@pytest.fixture
def darkroom(settings: Settings) -> Darkroom:
    return Darkroom.open(settings)


async def in_a_thread(call: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(call)


async def loopback(host: str, port: int) -> list[Any]:
    """A resolver by which every name is this machine's."""
    return [ip_address("127.0.0.1")]


def a_sender(darkroom: Darkroom, **options: Any) -> WebhookSender:
    """To be made on the loop."""
    transport = Transport(
        allowed_networks=darkroom.settings.allowed_private_networks, resolver=options.pop("resolver", loopback)
    )
    updates = Updates(darkroom.repository, in_a_thread)
    return WebhookSender(darkroom, transport, updates, in_a_thread, darkroom.repository.now, **options)


def ended(darkroom: Darkroom, url: str, **options: Any) -> Job:
    """A job that has come to an end of which it is to tell."""
    request = deepmode.Generate(model_id="m", prompt="a lake at dawn")
    return darkroom.cancel(darkroom.enqueue(request, webhook_url=url, **options).id)


async def delivered(darkroom: Darkroom, job: Job, **options: Any) -> Job:
    """The job after one look at its deliveries."""
    await a_sender(darkroom, **options).deliver(job)
    return darkroom.get(job.id)


# What goes out


@on_the_loop
async def test_the_message_is_the_jobs_json_and_its_receiver_is_told_once(darkroom: Darkroom) -> None:
    async with receiving() as receiver:
        job = ended(darkroom, receiver.url(), metadata={"user": "42"})
        told = await delivered(darkroom, job)
        assert schedule.due_deliveries(told, darkroom.repository.now()) == ()
        await a_sender(darkroom).deliver(told)
    ((headers, body),) = receiver.messages
    message = json.loads(body)
    assert message == JobView.of(job).model_dump(mode="json")
    assert (message["id"], message["status"], message["metadata"]) == (job.id, "canceled", {"user": "42"})
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == told.deliveries[0].id
    assert (told.deliveries[0].delivered_at is not None, told.deliveries[0].log[0].status) == (True, 204)


@on_the_loop
async def test_the_message_holds_neither_the_request_nor_the_secret_of_the_url(darkroom: Darkroom) -> None:
    async with receiving() as receiver:
        await delivered(darkroom, ended(darkroom, receiver.url()))
    assert "a lake at dawn" not in receiver.messages[0][1]
    assert "a-secret" not in receiver.messages[0][1]


@pytest.mark.parametrize("secret", [OLD, NEW])
@on_the_loop
async def test_pythons_standardwebhooks_verifies_it_by_either_secret(darkroom: Darkroom, secret: str) -> None:
    async with receiving() as receiver:
        job = ended(darkroom, receiver.url())
        await delivered(darkroom, job)
    headers, body = receiver.messages[0]
    assert Webhook(secret).verify(body, dict(headers))["id"] == job.id
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.replace("canceled", "succeeded"), dict(headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, {**headers, "webhook-id": "msg_of_another"})
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_c3RyYW5nZXIgc3RyYW5nZXIgc3RyYW5nZXI=").verify(body, dict(headers))


def test_npms_standardwebhooks_verifies_it_by_either_secret(
    darkroom: Darkroom, verified_by_npm: Callable[[str, Mapping[str, str], str], dict[str, Any]]
) -> None:
    messages: list[tuple[Mapping[str, str], str]] = []

    @on_the_loop
    async def received() -> None:
        async with receiving() as receiver:
            await delivered(darkroom, ended(darkroom, receiver.url(), metadata={"who": "größer — 无效"}))
        messages.extend(receiver.messages)

    received()
    headers, body = messages[0]
    for secret in (OLD, NEW):
        assert verified_by_npm(secret, headers, body) == {"payload": json.loads(body)}
        assert verified_by_npm(secret, headers, body.replace("canceled", "succeeded")).keys() == {"refused"}
    assert verified_by_npm("whsec_c3RyYW5nZXIgc3RyYW5nZXIgc3RyYW5nZXI=", headers, body).keys() == {"refused"}


def test_the_signature_of_a_fixed_message_never_changes() -> None:
    """The example of the specification, as the public libraries' own tests have it."""
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signed_headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


@on_the_loop
async def test_a_try_later_is_the_same_message_signed_again(darkroom: Darkroom) -> None:
    async with receiving(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n") as receiver:
        job = await delivered(darkroom, ended(darkroom, receiver.url()))
        assert (job.deliveries[0].is_open, job.deliveries[0].log[0].status) == (True, 503)
        receiver.answer = ACCEPTED
        job = await delivered(darkroom, darkroom.redeliver(job.id))
    (first, first_body), (second, second_body) = receiver.messages
    assert first["webhook-id"] == second["webhook-id"]
    assert first_body != second_body, "its log has grown"
    assert json.loads(first_body)["updated_at"] == json.loads(second_body)["updated_at"]
    assert not job.deliveries[0].is_open
    for headers, body in receiver.messages:
        Webhook(NEW).verify(body, dict(headers))


@on_the_loop
async def test_what_a_job_came_to_is_told_in_its_order(darkroom: Darkroom) -> None:
    async with receiving() as receiver:
        url = receiver.url()
        job = darkroom.enqueue(
            deepmode.Generate(model_id="m", prompt="p"), webhook_url=url, webhook_events=["submitting", "canceled"]
        )
        darkroom.advance(job.id, lambda job, now: transitions.submitting(transitions.claimed(job, "w", now), "w", now))
        job = await delivered(darkroom, darkroom.cancel(job.id))
    assert [headers["webhook-id"] for headers, _ in receiver.messages] == [item.id for item in job.deliveries]
    assert [item.event for item in job.deliveries] == ["submitting", "canceled"]


# What goes wrong


@on_the_loop
async def test_a_redirect_is_not_followed(darkroom: Darkroom) -> None:
    async with receiving() as other:
        moved = b"HTTP/1.1 307 Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % other.url().encode()
        async with receiving(moved) as receiver:
            job = await delivered(darkroom, ended(darkroom, receiver.url()))
    assert (job.deliveries[0].log[0].status, job.deliveries[0].is_open) == (307, True)
    assert (len(receiver.messages), other.connections) == (1, 0)


@on_the_loop
async def test_what_a_receiver_answers_besides_its_status_does_not_matter(darkroom: Darkroom) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    async with receiving(answer) as receiver:
        job = await delivered(darkroom, ended(darkroom, receiver.url()))
    assert (job.deliveries[0].is_open, job.deliveries[0].log[0].status) == (False, 200)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.2", "loopback"),
        ("169.254.169.254", "link-local"),
        ("[::ffff:7f00:2]", "loopback"),
        ("2130706434", "loopback"),
        ("10.0.0.1", "private"),
        ("93.184.215.14", "plain http"),
    ],
)
@on_the_loop
async def test_no_message_goes_where_it_must_not(darkroom: Darkroom, host: str, why: str) -> None:
    from jobs.address_guard import resolve

    job = await delivered(darkroom, ended(darkroom, f"http://{host}/hook?token=a-secret"), resolver=resolve)
    assert why in str(job.deliveries[0].log[0].problem)
    assert "a-secret" not in repr(job)
    assert job.deliveries[0].is_open, "the operator may open the network"


@on_the_loop
async def test_nothing_is_sent_unsigned(darkroom: Darkroom, settings: Settings) -> None:
    bare = replace(darkroom, settings=settings.model_copy(update={"webhook_secrets": ()}))
    async with receiving() as receiver:
        job = await delivered(bare, ended(darkroom, receiver.url()))
    assert receiver.connections == 0
    assert "DARKROOM_WEBHOOK_SECRETS is not set" in str(job.deliveries[0].log[0].problem)


@on_the_loop
async def test_whatever_breaks_is_a_try_that_failed_and_not_one_that_never_ends(darkroom: Darkroom) -> None:
    class Broken(Transport):
        async def send(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("token=a-secret")

    job = ended(darkroom, "http://app.example.com/hook?token=a-secret")
    await replace(a_sender(darkroom), transport=Broken()).deliver(job)
    delivery = darkroom.get(job.id).deliveries[0]
    assert (delivery.tries, delivery.log[0].problem) == (1, "it could not be sent: RuntimeError")


@on_the_loop
async def test_a_job_that_is_forgotten_meanwhile_breaks_nothing(darkroom: Darkroom, redis: Any) -> None:
    async with receiving() as receiver:
        job = ended(darkroom, receiver.url())
        redis.flushdb()
        await a_sender(darkroom).deliver(job)
    assert len(receiver.messages) == 1


def test_a_wait_and_a_try_are_over_before_another_worker_may_begin() -> None:
    from jobs.state.repository import SWEEP_LEASE_SECONDS

    assert HostLimiter().wait_seconds + TIMEOUT_SECONDS < SWEEP_LEASE_SECONDS


# Beside a dead receiver


@on_the_loop
async def test_two_hundred_jobs_of_a_dead_receiver_delay_nobody_elses(darkroom: Darkroom) -> None:
    async with receiving(None) as dead, receiving() as live:
        ended_jobs = [ended(darkroom, dead.url("dead.test")) for _ in range(200)]
        theirs = [ended(darkroom, live.url("live.test")) for _ in range(40)]
        sender = a_sender(darkroom, hosts=HostLimiter(wait_seconds=0.3))
        waiting = [asyncio.create_task(sender.deliver(job)) for job in ended_jobs]
        await asyncio.sleep(0)
        began = time.monotonic()
        await asyncio.gather(*(sender.deliver(job) for job in theirs))
        took = time.monotonic() - began
        await asyncio.sleep(0.6)
        put_off = [darkroom.get(job.id).deliveries[0] for job in ended_jobs]
        assert dead.connections == 2, "so many limiter has a host that nobody knows"
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert took < 2
    assert {darkroom.get(job.id).deliveries[0].log[0].status for job in theirs} == {204}
    later = [item for item in put_off if item.next_at > item.created_at]  # type: ignore[operator]
    assert len(later) == 198
    assert all(item.tries == 0 for item in later)


@on_the_loop
async def test_however_many_dead_hosts_are_named_those_that_answered_keep_their_places() -> None:
    limiter = HostLimiter(wait_seconds=0.05)
    limiter.record("live.test", answered=True)
    async with contextual(limiter, [f"dead-{n}.test" for n in range(64)]) as taken:
        assert all(taken)
        async with limiter.slot("another.test") as free:
            assert not free
        async with limiter.slot("live.test") as free:
            assert free


@on_the_loop
async def test_a_host_that_answered_has_more_places_until_it_does_not() -> None:
    limiter = HostLimiter(wait_seconds=0.01)
    for answered, count in ((True, 8), (False, 2), (True, 8)):
        limiter.record("app.test", answered=answered)
        async with contextual(limiter, ["app.test"] * 10) as taken:
            assert taken.count(True) == count


@on_the_loop
async def test_who_waits_gets_the_place_that_is_left() -> None:
    limiter, order = HostLimiter(), []

    async def use(number: int) -> None:
        async with limiter.slot("app.test") as free:
            assert free
            order.append(number)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(use(number) for number in range(20)))
    assert order == list(range(20))
    assert limiter == HostLimiter()


@asynccontextmanager
async def contextual(limiter: HostLimiter, hosts: list[str]) -> AsyncIterator[list[bool]]:
    """Takes a place at each host at the same time, and says which were had."""
    got: list[Awaitable[bool]] = []
    done = asyncio.Event()

    async def hold(host: str, had: asyncio.Future[bool]) -> None:
        async with limiter.slot(host) as free:
            had.set_result(free)
            await done.wait()

    async with asyncio.TaskGroup() as group:
        for host in hosts:
            had = asyncio.get_running_loop().create_future()
            group.create_task(hold(host, had))
            got.append(had)
        yield list(await asyncio.gather(*got))
        done.set()


# Over the day


def test_a_message_that_nobody_takes_is_given_up_after_a_day_and_the_record_may_go(darkroom: Darkroom) -> None:
    job = ended(darkroom, "https://app.example.com/hook")
    assert schedule.due_at(darkroom.repository.get(job.id)) is not None
    from jobs.delivery import Try

    late = datetime.now(UTC) + GIVE_UP_AFTER + timedelta(minutes=1)
    done = darkroom.advance(
        job.id, lambda job, _: transitions.delivery_tried(job, job.deliveries[0].id, Try(late, status=500))
    ).after
    assert (schedule.is_complete(done), schedule.due_at(done), done.status) == (True, None, Status.CANCELED)

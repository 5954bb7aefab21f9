"""`python -m jobs.sandbox`: the vendors as a process."""

import logging

import click

from .faults import VOCABULARY, UnknownFault
from .server import Sandbox
from .world import Latency


@click.command(short_help="Play the vendors on one local port.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8085, show_default=True, help="0 takes a free one")
@click.option("--fault", "faults", multiple=True, help="name[=value][%chance][@vendor][*times]; may be repeated")
@click.option("--latency", default="0", show_default=True, help="seconds of work, as 2 or as 1-9")
@click.option("--state", type=click.Path(dir_okay=False), help="file that keeps the books over a restart")
@click.option("--result-life", type=float, help="seconds that a result URL works; by default as each vendor's")
@click.option("--api-key", help="the only key accepted; by default every key but `wrong`")
@click.option("--webhook-secret", "secrets", multiple=True, help="vendor=secret; may be repeated")
@click.option("--public-url", help="scheme and authority of result URLs; by default as the client called")
@click.option("--image-size", default=512, show_default=True, help="longest side in pixels")
@click.option("--seed", default=0, show_default=True, help="makes chances and drawn latencies repeatable")
@click.option("--list-faults", is_flag=True, help="print the vocabulary of faults")
@click.option("--verbose", is_flag=True, help="log one line a request")
def main(
    host: str,
    port: int,
    faults: tuple[str, ...],
    latency: str,
    state: str | None,
    result_life: float | None,
    api_key: str | None,
    secrets: tuple[str, ...],
    public_url: str | None,
    image_size: int,
    seed: int,
    list_faults: bool,
    verbose: bool,
) -> None:
    """Play DeepMode, ChainHub, Phota Labs and AIML API on one local port."""
    if list_faults:
        click.echo(vocabulary())
        return
    if verbose:
        logging.basicConfig(format="%(asctime)s %(message)s")
        logging.getLogger("jobs.sandbox").setLevel(logging.INFO)
    try:
        sandbox = Sandbox(
            host,
            port,
            faults=faults,
            latency_seconds=read_latency(latency),
            state=state,
            result_life_seconds=result_life,
            api_key=api_key,
            webhook_secrets=dict(one.split("=", 1) for one in secrets),
            public_url=public_url,
            image_size=image_size,
            seed=seed,
        )
    except (UnknownFault, ValueError) as error:
        raise click.BadParameter(str(error)) from None
    sandbox.run_forever(_announce)


def vocabulary() -> str:
    """Every fault with its default value and what it does, one a line."""
    rows = []
    for kind in VOCABULARY.values():
        name = kind.name if kind.default is None else f"{kind.name}={kind.default}"
        rows.append(f"{name:<26} {kind.help}")
    return "\n".join(rows)


def read_latency(text: str) -> Latency:
    """Seconds as `2`, or bounds as `1-9`; raises `ValueError`."""
    least, dash, most = text.partition("-")
    return (float(least), float(most)) if dash else float(least)


def _announce(sandbox: Sandbox) -> None:
    click.echo(f"sandbox at {sandbox.url}")
    for name, value in sandbox.environment.items():
        click.echo(f"export {name}={value}")


if __name__ == "__main__":
    main()

"""`python -m jobs.sandbox`: the vendors as a process."""

import errno
import logging

import click

from .faults import VOCABULARY, UnknownFault
from .server import Sandbox
from .world import Latency

#: The message when another program listens on the port.
PORT_TAKEN = "the port is taken: another program listens on it; choose another one with --port"


def vocabulary() -> str:
    """Every fault with its default value and what it does, one a line."""
    rows = []
    for kind in VOCABULARY.values():
        name = kind.name if kind.default is None else f"{kind.name}={kind.default}"
        rows.append(f"{name:<26} {kind.help}")
    return "\n".join(rows)


def serve(sandbox: Sandbox) -> None:
    """Print the address and the variables that make Darkroom call it, and serve until interrupted."""

    def announce(ready: Sandbox) -> None:
        click.echo(f"sandbox at {ready.url}")
        for name, value in ready.environment.items():
            click.echo(f"export {name}={value}")

    try:
        sandbox.run_forever(announce)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise click.ClickException(PORT_TAKEN) from None


def read_latency(text: str) -> Latency:
    """Seconds as `2`, or bounds as `1-9`; raises `ValueError`."""
    least, dash, most = text.partition("-")
    return (float(least), float(most)) if dash else float(least)


@click.command(short_help="Play the vendors on one local port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8085, show_default=True, help="Port to listen on; 0 chooses a free one.")
@click.option(
    "--fault", "faults", multiple=True, metavar="FAULT", help="Arm name[=value][%chance][@vendor][*times]; repeatable."
)
@click.option(
    "--latency", default="0", show_default=True, help="Seconds that a submission takes: 2, or 1-9 for a random number."
)
@click.option("--state", type=click.Path(dir_okay=False), help="Keep the ledger in this file, to survive a restart.")
@click.option("--result-life", type=float, help="Seconds that a result URL is valid; default: as long as the vendor's.")
@click.option("--api-key", help="Accept only this key; default: accept every key but `wrong`.")
@click.option(
    "--webhook-secret", "secrets", multiple=True, metavar="VENDOR=SECRET", help="Sign a vendor's callbacks; repeatable."
)
@click.option("--public-url", help="Scheme and authority of result URLs; default: those that the client called.")
@click.option("--image-size", default=512, show_default=True, help="Longest side of an image, in pixels.")
@click.option("--seed", default=0, show_default=True, help="Seed of all random numbers, to repeat a run.")
@click.option("--list-faults", is_flag=True, help="List the faults and exit.")
@click.option("--verbose", is_flag=True, help="Log one line for each request.")
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
    """Play DeepMode, ChainHub, Phota Labs and AIML API on one local port, with faults on request."""
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
    serve(sandbox)


if __name__ == "__main__":
    main()

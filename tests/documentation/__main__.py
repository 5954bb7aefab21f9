"""`make docs`: writes what the documentation shows of the code: the reference of the command line, of Python and of the settings, and the picture of the demo."""

from __future__ import annotations

from jobs import providers

from . import cli_reference, demo_picture, python_reference, settings_reference


def main() -> None:
    """Writes the files that are made from the code."""
    cli_reference.PAGE.write_text(cli_reference.written(cli_reference.PAGE.read_text()))
    python_reference.PAGE.write_text(python_reference.written(providers.names()))
    settings_reference.PAGE.write_text(settings_reference.written(providers.names()))
    demo_picture.PICTURE.write_text(demo_picture.drawn())


if __name__ == "__main__":
    main()

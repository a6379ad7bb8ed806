"""The command ``carousel``: thin verbs over the tasks. :mod:`carousel.cli.main` is where it starts."""

__all__: list[str] = []

"""Commands whose options are one typed class instead of a list of parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

Options = TypeVar("Options")


def command_of(run: Callable[[Options], None], options: type[Options]) -> Callable[..., None]:
    """A function that typer takes for a command, with an option for each field of a dataclass.

    The fields are annotated as typer wants its parameters to be (``Annotated[int,
    typer.Option(…)]``); the command has the name and the docstring of ``run``, which is called
    with the options as they were given.
    """

    def command(**given: Any) -> None:
        run(options(**given))

    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(options)  # type: ignore[arg-type]  # a dataclass, which has no type
    ]
    command.__name__, command.__doc__ = run.__name__, run.__doc__
    command.__annotations__ = hints
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command

"""The public face: complete, importable, documented, and cheap to import."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import alc_backend
from tests.docs.blocks import ROOT

NAMES = [name for name in alc_backend.__all__ if name != "__version__"]
API = ROOT / "docs/api.md"


def test_what_type_checkers_see_is_what_is_there():
    """The imports for type checkers name each public name, from the module that it comes from."""
    tree = ast.parse(Path(alc_backend.__file__).read_text("utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in checked.body for alias in node.names}
    assert sorted(seen) == sorted(NAMES)
    for name, module in seen.items():
        assert getattr(alc_backend, name) is getattr(sys.modules[module], name)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_class_and_function_has_a_docstring(name):
    value = getattr(alc_backend, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__doc__


def test_the_page_documents_every_public_name_once():
    documented = re.findall(r"^::: alc_backend\.(\w+)$", API.read_text("utf-8"), re.M)
    assert sorted(documented) == sorted(NAMES)


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public functions and classes, and the public methods and properties of the latter."""
    for name in NAMES:
        value = getattr(alc_backend, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        for member, method in vars(value).items() if inspect.isclass(value) else ():
            if isinstance(method, property):
                method = method.fget
            elif isinstance(method, cached_property):
                method = method.func
            elif isinstance(method, classmethod | staticmethod):
                method = method.__func__
            if inspect.isfunction(method) and (member == "__init__" or member[0] != "_"):
                yield f"{name}.{member}", method


def classes_in(annotation: Any) -> Iterator[type]:
    """The classes of this package that an annotation mentions."""
    if isinstance(annotation, list):
        arguments = annotation
    else:
        arguments = typing.get_args(annotation)
        if isinstance(annotation, type) and annotation.__module__.startswith("alc_backend"):
            yield annotation
    for argument in arguments:
        yield from classes_in(argument)


def test_the_face_is_complete():
    """Whatever class a public signature mentions is public as well."""
    public = {value for name in NAMES if inspect.isclass(value := getattr(alc_backend, name))}
    mentioned = {
        (where, found)
        for where, function in public_callables()
        for name, annotation in typing.get_type_hints(function).items()
        for found in classes_in(annotation)
        if name[0] != "_"
    }
    assert len({found for _, found in mentioned}) > 10
    assert {(where, found) for where, found in mentioned if found not in public} == set()


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        alc_backend.nothing  # noqa: B018


def test_importing_costs_nothing_and_no_name_loads_a_network():
    code = (
        "import sys, alc_backend\n"
        "assert not {'numpy', 'pydantic', 'sqlalchemy'} & set(sys.modules)\n"
        "assert set(alc_backend.__all__) <= set(dir(alc_backend))\n"
        "for name in alc_backend.__all__: getattr(alc_backend, name)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_page_runs():
    (example,) = re.findall(r"^```python\n(.*?)^```", API.read_text("utf-8"), re.M | re.S)
    values: dict[str, Any] = {}
    exec(example, values)
    assert values["written"].sum() == 32, "the answer is written to the whole superpixel"

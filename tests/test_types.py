"""The type hints of the public API: complete, shipped, and equal where they repeat."""

import inspect

import pytest

import keras_resnet
from keras_resnet import edge, models, runner, training
from tests.helpers.commands import ROOT


def callables(module):
    """Yields (name, function) of the functions and methods that a module offers."""
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.isclass(value):
            yield name, value
            continue
        for attribute, member in vars(value).items():
            function = getattr(member, "fget", None) or getattr(
                member, "__func__", member
            )
            written = inspect.isfunction(function) and (
                function.__module__.startswith("keras_resnet")
            )
            own = attribute == "__init__" or not attribute.startswith("_")
            if written and own:
                yield f"{name}.{attribute}", function


@pytest.mark.parametrize(
    "module", [keras_resnet, training, edge, runner], ids=lambda x: x.__name__
)
def test_every_public_callable_has_complete_hints(module):
    found = dict(callables(module))
    assert found
    for name, function in found.items():
        signature = inspect.signature(function)
        empty = inspect.Signature.empty
        assert signature.return_annotation is not empty, name
        for parameter in signature.parameters.values():
            if parameter.name not in ("self", "cls"):
                assert parameter.annotation is not empty, (name, parameter.name)


def test_checkers_see_the_arguments_of_the_entry_points():
    seen = inspect.signature(models.EntryPoint.__call__).parameters
    for name in models.list_models():
        real = inspect.signature(models._ENTRY_POINTS[name]).parameters
        assert list(seen)[1:] == list(real)
        for argument, parameter in real.items():
            assert seen[argument].annotation == parameter.annotation, argument
            assert seen[argument].kind == parameter.kind


def test_checkers_may_read_the_hints():
    assert (ROOT / "keras_resnet" / "py.typed").exists()

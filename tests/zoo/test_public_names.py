"""The names of the package: imported late, and seen by editors all the same."""

import ast

import keras_resnet
from keras_resnet import edge
from tests.helpers.commands import ROOT, run_code


def test_every_public_name_is_there():
    for name in keras_resnet.__all__:
        assert name in dir(keras_resnet)
        assert getattr(keras_resnet, name) is not None


def names_in_stub(folder):
    """Returns {name: module} of what an `__init__.pyi` imports."""
    text = (ROOT / folder / "__init__.pyi").read_text(encoding="utf-8")
    return {
        name.asname: statement.module
        for statement in ast.parse(text).body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    }


def test_editors_see_every_public_name():
    public = keras_resnet._PUBLIC.items()
    expected = {name: f"keras_resnet.{module}" for name, module in public}
    assert names_in_stub("keras_resnet") == expected
    assert names_in_stub("keras_resnet/edge") == edge._PUBLIC


def test_an_unknown_name_is_an_attribute_error_as_usual():
    assert not hasattr(keras_resnet, "ResNet51")


def test_the_package_itself_imports_neither_keras_nor_numpy():
    done = run_code(
        "import sys, keras_resnet, keras_resnet.runner\n"
        "print({'keras', 'numpy', 'PIL'} & set(sys.modules))"
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")

"""Writes edge/run_tflite.py from the modules of keras_resnet/runner.

    python edge/build_run_tflite.py
    python edge/build_run_tflite.py --check    # exit code 1 if the file is out of date

A device gets one plain file. Edit the modules, never the file: each module becomes a
section of it, without the imports of our own modules; all other imports come first.
"""

import ast
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODULES = ROOT / "keras_resnet" / "runner"
TARGET = ROOT / "edge" / "run_tflite.py"
OURS = "keras_resnet."
# A module may import those before it. The docstring of the last one is the file's.
ORDER = (
    *("errors", "preprocessing", "model_file", "runtime", "delegates", "geometry"),
    *("images", "output", "supervisor", "pipeline", "sources", "learning", "head"),
    *("classes_file", "learn", "image_model", "classifier", "boxes", "metrics"),
    *("detections", "detector", "segmenter", "showing", "benchmark", "evaluation"),
    *("annotations", "scene_evaluation", "modes", "command_line"),
)
NOTICE = """\
# Generated from keras_resnet/runner by `python edge/build_run_tflite.py`: edit the
# modules there, not this file. numpy, Pillow and the runtime are imported where they
# are used, so that --help and errors are quick.
"""
END = 'if __name__ == "__main__":\n    sys.exit(main())\n'


def build(folder=MODULES, order=ORDER):
    """Returns the text of the file, from modules in the order of their imports.

    If two modules define one name, or the order does not fit, `ValueError` is raised.
    """
    found = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    if found != set(order):
        raise ValueError(f"not in both ORDER and {folder}: {found ^ set(order)}")
    imports, owners, sections = {"import sys"}, {"sys": "an import"}, []
    for module in order:
        source = (folder / f"{module}.py").read_text(encoding="utf-8")
        tree = ast.parse(source, feature_version=(3, 7))
        docstring = ast.get_docstring(tree, clean=False)
        body_starts = 0
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module.startswith(OURS):
                imported = node.module.rpartition(".")[2]
                if order.index(imported) >= order.index(module):
                    raise ValueError(f"{module} imports {imported}, which comes later")
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                imports.add(ast.unparse(node))
            for name, owner in names_of(node, module):
                if owners.setdefault(name, owner) != owner:
                    raise ValueError(f"{name!r}: of {owners[name]} and of {owner}")
            if isinstance(node, (ast.Import, ast.ImportFrom, ast.Expr)):
                body_starts = node.end_lineno
        title = docstring.partition("\n")[0].rstrip(".")
        if module == order[-1]:
            title = "The command line"
        heading = f"# --- {title} ".ljust(88, "-")
        body = "\n".join(source.splitlines()[body_starts:]).strip()
        space = "\n\n\n" if body.startswith(("def ", "class ", "@")) else "\n\n"
        sections.append(heading + space + body)
    top = f'#!/usr/bin/env python3\n"""{docstring}"""\n\n{NOTICE}\n'
    top += "\n".join(sorted(imports)) + "\n\n"
    return top + "\n\n\n".join([*sections, END])


def names_of(node, module):
    """Yields (name, owner) of what a statement at the top of a module binds."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name, module
    elif isinstance(node, ast.Import):
        yield from ((alias.asname or alias.name, "an import") for alias in node.names)
    elif isinstance(node, ast.Assign):
        for target in ast.walk(node):
            if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
                yield target.id, module


def main():
    """Writes the file, or checks it."""
    text = build()
    if sys.argv[1:] == ["--check"]:
        sys.exit(TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

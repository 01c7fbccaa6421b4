"""The files of an export: all of them are written, or none."""

import contextlib
import json
import pathlib

from keras_resnet import files
from keras_resnet.edge.page import held_out, writer
from keras_resnet.edge.report import page as report_page
from keras_resnet.edge.report import summary


class OutputFiles(contextlib.ExitStack):
    """The files of one export, a context manager.

    They get their names where its block ends. If the block raises, none does.

    Attributes:
        paths: {kind: path} of the files, as `summary.Report` has it.
    """

    def __init__(self, output):
        """Writes nothing yet; `output` is the path of the .tflite."""
        super().__init__()
        self._output = output
        self.paths = {}

    def temporary(self, kind, suffix):
        """Returns the path to write a file to that will lie beside the .tflite.

        Raises:
            OSError: no file can be written there.
        """
        path = self._output.with_name(self._output.stem + suffix)
        self.paths[kind] = path
        return self.replacing(path)

    def replacing(self, path):
        """Returns the path to write a file to that will be at `path`."""
        return pathlib.Path(self.enter_context(files.replacing(path)))

    def write_page(self, file, dataset):
        """Writes the web page of a model.

        Args:
            file: path of the written .tflite.
            dataset: whose held-out pictures are the samples, or None.
        """
        samples = held_out.pictures(dataset)
        html = writer.html(file, name=self._output.stem, samples=samples)
        self.temporary("page", ".html").write_text(html, encoding="utf-8")

    def write_compiled(self, target, content):
        """Writes what a target's compiler makes of a file; returns its summary.

        Args:
            target: `Target` with a compiler.
            content: bytes of the .tflite.
        """
        text, compiled = target.compile(content)
        suffix = f"{target.compiled_suffix}.tflite"
        self.temporary("compiled", suffix).write_bytes(compiled)
        return text

    def write_report(self, report):
        """Writes the report, a dict, as JSON and as a page.

        Returns:
            `summary.Report`.
        """
        text = json.dumps(report, indent=2) + "\n"
        self.temporary("json", ".report.json").write_text(text, encoding="utf-8")
        html = report_page.html(report)
        self.temporary("html", ".report.html").write_text(html, encoding="utf-8")
        return summary.Report(json.loads(text), self.paths)  # with lists for its tuples

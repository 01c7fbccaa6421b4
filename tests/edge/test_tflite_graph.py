"""Any file is read as a graph, or refused in one line."""

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from keras_resnet.edge.convert import tflite_file
from keras_resnet.edge.inspect import graph as tflite_graph
from tests.helpers.graphs import Operator, Tensor, build, mean_colour


def test_a_graph_is_read_as_it_was_built():
    graph = tflite_graph.read(mean_colour())
    (operator,) = graph.operators
    assert (operator.name, operator.version, operator.custom) == ("MEAN", 1, "")
    assert operator.options["keepDims"] is False
    image, axes = operator.inputs
    assert (image.shape, image.dtype, image.size) == ((1, 8, 8, 3), "UINT8", 192)
    assert not image.constant and not image.dynamic
    assert image.scales.tolist() == [1 / 128] and image.zero_points.tolist() == [128]
    assert axes.constant and axes.values().tolist() == [1, 2] and axes.size == 8
    assert graph.inputs == [image] and graph.outputs == list(operator.outputs)
    assert graph.subgraphs == 1


def test_real_files_have_the_graph_that_the_interpreter_sees(files):
    for path in files.values():
        content = path.read_bytes()
        graph = tflite_graph.read(content)
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(
            model_content=content, experimental_op_resolver_type=kernels
        )
        operators = interpreter._get_ops_details()
        assert [o.name for o in graph.operators] == [o["op_name"] for o in operators]
        for ours, theirs in zip(graph.operators, operators, strict=True):
            assert [t.index for t in ours.outputs] == theirs["outputs"].tolist()
        for details in interpreter.get_tensor_details():
            tensor = graph.tensors[details["index"]]
            assert tensor.name == details["name"]
            assert tensor.dtype == np.dtype(details["dtype"]).name.upper()
            assert list(tensor.shape) == details["shape"].tolist()
            scales = details["quantization_parameters"]["scales"]
            assert tensor.scales.tolist() == scales.tolist()


def test_sizes_that_are_not_fixed_are_seen():
    tensors = [Tensor((1, 8), signature=(-1, 8)), Tensor((1, 8))]
    graph = tflite_graph.read(build(tensors, [Operator("RELU", (0,), (1,))]))
    assert [tensor.dynamic for tensor in graph.tensors] == [True, False]
    assert graph.tensors[0].shape == (-1, 8)
    assert (graph.tensors[0].elements, graph.tensors[0].size) == (0, 0)


def relu(inputs=(0,), outputs=(1,), number=2):
    return build([Tensor((1, 8))] * number, [Operator("RELU", inputs, outputs)])


def changed(change):
    model = tflite_file.parse(relu())
    change(model, model.subgraphs[0])
    return tflite_file.pack(model)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "expected b'TFL3'"),
        (b"\0" * 100, "expected b'TFL3'"),
        (b"\xff" * 4 + b"TFL3" + b"\xff" * 100, "damaged"),
        (relu()[:-40], "damaged"),
        (relu(inputs=(7,)), "no tensor 7"),
        (relu(inputs=(-2,)), "no tensor -2"),
        (relu(outputs=(-1,)), "no tensor -1"),
        (relu(inputs=(1,), number=3), "read before it is computed"),
        (relu(outputs=(0,)), "computed twice"),
        (relu(number=3), "never computed"),
        (changed(lambda m, g: setattr(g.tensors[0], "buffer", 9)), "no buffer 9"),
        (changed(lambda m, g: setattr(g.operators[0], "opcodeIndex", 3)), "code 3"),
        (changed(lambda m, g: setattr(m, "subgraphs", [])), "no graph"),
        (changed(lambda m, g: setattr(g.tensors[0], "shape", [1] * 9)), "9 dimensions"),
        (changed(lambda m, g: setattr(m, "version", 99)), "version 99 .* read 3"),
        (changed(lambda m, g: setattr(g.tensors[0], "shape", [-1, 8])), r"\[-1, 8\]"),
        (changed(lambda m, g: setattr(g.tensors[0], "shape", [2**30] * 2)), "shape"),
    ],
)
def test_what_is_no_whole_graph_is_refused_in_one_line(content, words):
    with pytest.raises(ValueError, match=words) as error:
        tflite_graph.read(content)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_names_of_the_future_are_no_error():
    def change(model, graph):
        model.operatorCodes[0].builtinCode = 9999
        graph.tensors[0].type = 99

    graph = tflite_graph.read(changed(change))
    assert graph.operators[0].name == "UNKNOWN_9999"
    assert graph.tensors[0].dtype == "UNKNOWN_99"


def test_a_small_file_that_claims_billions_of_parts_is_refused():
    """Thousands of operators that are one and the same table of thousands of inputs."""
    schema = tflite_file.schema
    builder = flatbuffers.Builder()

    def vector(items):
        builder.StartVector(4, len(items), 4)
        for item in items:
            builder.PrependUOffsetTRelative(item)
        return builder.EndVector()

    schema.TensorStart(builder)
    tensors = vector([schema.TensorEnd(builder)])
    inputs = builder.CreateNumpyVector(np.zeros(50_000, np.int32))
    schema.OperatorStart(builder)
    schema.OperatorAddInputs(builder, inputs)
    operators = vector([schema.OperatorEnd(builder)] * 50_000)
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    schema.SubGraphAddOperators(builder, operators)
    graphs = vector([schema.SubGraphEnd(builder)])
    schema.BufferStart(builder)
    buffers = vector([schema.BufferEnd(builder)])
    schema.OperatorCodeStart(builder)
    codes = vector([schema.OperatorCodeEnd(builder)])
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    schema.ModelAddBuffers(builder, buffers)
    schema.ModelAddOperatorCodes(builder, codes)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    with pytest.raises(ValueError, match="larger than the file"):
        tflite_graph.read(bytes(builder.Output()))

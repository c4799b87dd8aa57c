"""Writes the official ONNX node cases of the installed `onnx` package to a folder, in the layout of the ONNX backend tests.

  python dump_node_cases.py DIR

Each case becomes DIR/<case>/{model.onnx, meta.json, test_data_set_k/{input_i.pb, output_i.pb}}; meta.json holds the
case's own rtol and atol. The names inside the .pb files are the names of the graph's inputs and outputs.
"""
import json
import os
import sys
import warnings

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

warnings.filterwarnings("ignore")


def to_proto(x, name):
    if isinstance(x, list):
        return numpy_helper.from_list(x, name)
    if x is None:
        return numpy_helper.from_optional(None, name, onnx.OptionalProto.TENSOR)
    if isinstance(x, onnx.TensorProto):
        copy = onnx.TensorProto()
        copy.CopyFrom(x)
        copy.name = name
        return copy
    return numpy_helper.from_array(np.asarray(x), name)


def write_all(folder, prefix, values, infos):
    values = list(values.values()) if isinstance(values, dict) else values
    for i, x in enumerate(values):
        with open(os.path.join(folder, f"{prefix}_{i}.pb"), "wb") as f:
            f.write(to_proto(x, infos[i].name).SerializeToString())


def main():
    root = sys.argv[1]
    dumped = failed = 0
    for case in collect_testcases(None):
        folder = os.path.join(root, case.name)
        os.makedirs(folder, exist_ok=True)
        try:
            onnx.save(case.model, os.path.join(folder, "model.onnx"))
            with open(os.path.join(folder, "meta.json"), "w") as f:
                json.dump({"rtol": case.rtol, "atol": case.atol}, f)
            for k, (ins, outs) in enumerate(case.data_sets):
                data = os.path.join(folder, f"test_data_set_{k}")
                os.makedirs(data, exist_ok=True)
                write_all(data, "input", ins, case.model.graph.input)
                write_all(data, "output", outs, case.model.graph.output)
            dumped += 1
        except Exception as e:
            print("failed", case.name, e, file=sys.stderr)
            failed += 1
    print("dumped", dumped, "failed", failed)


if __name__ == "__main__":
    main()

"""Writes the test data of this model: lines of text as pictures, and what onnxruntime answers.

  pip install numpy pillow onnx==1.23.2 onnxruntime==1.32.0
  python make_data.py

Set 0 is one upright line; set 1 is a line upright and turned by 180 degrees, at another width. The outputs are the
probabilities of 0 and of 180 degrees.
"""
import os

import numpy as np
import onnxruntime
from onnx import numpy_helper
from PIL import Image, ImageDraw, ImageFont

HERE = os.path.dirname(os.path.abspath(__file__))


def picture(text, width, turned):
    image = Image.new("RGB", (width, 48), (245, 245, 240))
    ImageDraw.Draw(image).text((12, 8), text, font=ImageFont.load_default(size=26), fill=(20, 20, 60))
    if turned:
        image = image.rotate(180)
    return (np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5


def write(folder, name, file, value):
    os.makedirs(os.path.join(HERE, folder), exist_ok=True)
    with open(os.path.join(HERE, folder, file), "wb") as f:
        f.write(numpy_helper.from_array(value, name).SerializeToString())


def main():
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.path.join(HERE, "model.onnx"), options, ["CPUExecutionProvider"])
    name, result = session.get_inputs()[0].name, session.get_outputs()[0].name
    sets = [
        np.stack([picture("Tensor compiler", 192, False)]),
        np.stack([picture("Hello world", 160, False), picture("Hello world", 160, True)]),
    ]
    for k, pictures in enumerate(sets):
        (expected,) = session.run([result], {name: pictures})
        print(f"test_data_set_{k}: {pictures.shape} -> {expected.round(5).tolist()}")
        write(f"test_data_set_{k}", name, "input_0.pb", pictures)
        write(f"test_data_set_{k}", result, "output_0.pb", expected)


if __name__ == "__main__":
    main()

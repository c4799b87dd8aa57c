"""Times `tgc bench` and onnxruntime side by side on one thread, in turn, and prints the ratio of medians.

usage: python bench/compare_ort.py TGC_BINARY MODEL.onnx… [--rounds N] [--threads N]
needs: pip install onnxruntime==1.32.0 onnx==1.23.2 numpy
Inputs are random with a fixed seed; a model beside a test_data_set_0 folder uses that data.
Both sides run the same inputs; the largest difference of the outputs is printed too.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper


def feeds_of(path, session):
    folder = path.parent / "test_data_set_0"
    feeds = {}
    rng = np.random.default_rng(0)
    for i, port in enumerate(session.get_inputs()):
        stored = folder / f"input_{i}.pb"
        if stored.exists():
            tensor = onnx.TensorProto()
            tensor.ParseFromString(stored.read_bytes())
            feeds[port.name] = numpy_helper.to_array(tensor)
            continue
        shape = [d if isinstance(d, int) and d > 0 else 1 for d in port.shape]
        if port.type == "tensor(int64)":
            feeds[port.name] = rng.integers(0, 100, shape)
        else:
            value = rng.standard_normal(shape).astype(np.float32)
            feeds[port.name] = np.ones_like(value) if "mask" in port.name else value
    return feeds


def ort_times(session, feeds, seconds):
    session.run(None, feeds)
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        session.run(None, feeds)
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tgc")
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    print(f"{'model':<28}{'tgc ms':>10}{'ort ms':>10}{'tgc/ort':>9}{'max diff':>11}")
    ratios = []
    for path in args.models:
        if path.is_dir():
            path = path / "model.onnx"
        name = path.parent.name if path.name == "model.onnx" else path.stem
        options = ort.SessionOptions()
        options.intra_op_num_threads = args.threads
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feeds = feeds_of(path, session)
        with tempfile.TemporaryDirectory() as folder:
            inputs, engine, outputs = (f"{folder}/{n}" for n in ("in.npz", "model.tgc", "out.npz"))
            np.savez(inputs, **feeds)
            made = subprocess.run(
                [args.tgc, "compile", "-q", "--no-verify", path, "-o", engine], capture_output=True, text=True
            )
            if made.returncode:
                print(f"{name:<28}does not compile: {made.stderr.splitlines()[0] if made.stderr else made.returncode}")
                continue
            run = [args.tgc, "run", "-q", engine, "-i", inputs, "--threads", str(args.threads), "--save-outputs", outputs]
            subprocess.run(run, check=True, capture_output=True)
            got = np.load(outputs)
            want = session.run(None, feeds)
            names = [o.name for o in session.get_outputs()]
            difference = max(
                float(np.max(np.abs(got[n].astype(np.float64) - w.astype(np.float64)), initial=0.0))
                for n, w in zip(names, want)
            )
            ours, theirs = [], []
            for _ in range(args.rounds):
                bench = [args.tgc, "bench", "-q", "--json", engine, "-i", inputs, "--threads", str(args.threads)]
                bench += ["--duration", str(args.seconds), "--iterations", "5"]
                report = json.loads(subprocess.run(bench, check=True, capture_output=True, text=True).stdout)
                ours.append(report["median_ms"])
                theirs.append(float(np.median(ort_times(session, feeds, args.seconds))))
        ours, theirs = float(np.median(ours)), float(np.median(theirs))
        ratios.append(ours / theirs)
        print(f"{name:<28}{ours:>10.3f}{theirs:>10.3f}{ours / theirs:>9.2f}{difference:>11.1e}", flush=True)
    if ratios:
        print(f"{'geometric mean':<28}{'':>20}{float(np.exp(np.mean(np.log(ratios)))):>9.2f}")


if __name__ == "__main__":
    sys.exit(main())

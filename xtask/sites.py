"""Counts fused ops against what the models' configurations say (`expected_sites` of each meta.json).

  python xtask/sites.py TGC CORPUS
"""
import collections
import json
import os
import subprocess
import sys
import tempfile

OPS = {
    "attention": "attend",
    "layernorm": "layer_norm",
    "rmsnorm": "rms_norm",
    "gelu_erf": "gelu",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
}


def fused(tgc, model, engine):
    command = [tgc, "--json", "compile", model, "-o", engine, "--no-verify"]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout)["fused"] if done.returncode == 0 else {}


def main():
    tgc, corpus = sys.argv[1:]
    wanted, found = collections.Counter(), collections.Counter()
    n_models = n_whole = 0
    with tempfile.TemporaryDirectory() as folder:
        for case in sorted(os.listdir(corpus)):
            with open(os.path.join(corpus, case, "meta.json")) as f:
                sites = json.load(f).get("expected_sites", {})
            sites = {kind: n for kind, n in sites.items() if kind in OPS and isinstance(n, int)}
            if not sites:
                continue
            ops = fused(tgc, os.path.join(corpus, case, "model.onnx"), os.path.join(folder, "model.tgc"))
            missing = {kind: f"{ops.get(OPS[kind], 0)} of {n}" for kind, n in sites.items() if ops.get(OPS[kind], 0) < n}
            wanted.update(sites)
            found.update({kind: min(n, ops.get(OPS[kind], 0)) for kind, n in sites.items()})
            n_models += 1
            n_whole += not missing
            if missing:
                print(case, missing)
    print(f"{n_whole} of {n_models} models whole;", {kind: f"{found[kind]} of {n}" for kind, n in wanted.items()})


if __name__ == "__main__":
    main()

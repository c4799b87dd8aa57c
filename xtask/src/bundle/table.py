"""Runs, compares and times every case beside this file; one table row per case (standard library only)."""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TGC = os.path.join(HERE, "tgc")


def tgc(*args):
    """The JSON document that a command prints, or its complaint."""
    done = subprocess.run([TGC, "--json", *args], capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"why": (done.stderr or done.stdout).strip().splitlines()[:1]}


def gpu():
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True).stdout.strip() or "no GPU"
    except OSError:
        return "no nvidia-smi"


def row(case, device):
    engine = os.path.join(HERE, "cases", case, "model.tgc")
    tested = tgc("test", engine, "--device", device)
    results = tested.get("cases") or [tested]
    if not results[0].get("passed"):
        return False, f"| {case} | {results[0].get('why')} | | |"
    data = os.path.join(HERE, "cases", case, "test_data_set_0")
    timed = tgc("bench", engine, "--device", device, "--inputs", data)
    median = timed.get("median_ms")
    time = f"{median:.4f}" if median else timed.get("why")
    return True, f"| {case} | right | {100 * results[0]['worst']:.0f} % | {time} |"


def main():
    device = sys.argv[1]
    print(f"device {device}, {gpu()}\n")
    print("| case | answer | error, share of tolerance | median ms |\n|---|---|---|---|")
    cases = sorted(os.listdir(os.path.join(HERE, "cases")))
    rows = [row(case, device) for case in cases]
    print("\n".join(text for _, text in rows))
    right = sum(passed for passed, _ in rows)
    print(f"\n{right} of {len(rows)} right")
    return 0 if right == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Runs every benchmark and writes RESULTS.md, results.json and the plots: `make bench`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

import bench  # noqa: E402
import plot  # noqa: E402

# In the order of RESULTS.md; the quick ones first.
BENCHMARKS = (
    "token_buckets",
    "startup",
    "ssh_stage",
    "look",
    "ssh_cluster",
    "over_terraform",
    "time_to_ready",
    "time_to_ready_ray",
    "api_calls",
)
PACKAGES = (
    *("asyncssh", "boto3", "click", "dask", "distributed", "jupyterlab", "moto"),
    *("python-terraform", "ray"),
)


def main() -> None:
    """Runs the named benchmarks, else all. The others keep their earlier results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="only these")
    parser.add_argument("--smallest", action="store_true", help="the smallest sizes, one run")
    parser.add_argument("--output", type=Path, default=FOLDER, help="the folder for the results")
    asked = parser.parse_args()
    found = asked.output / "results.json"
    earlier = json.loads(found.read_text(encoding="utf-8")) if found.is_file() else {}
    results: dict[str, Any] = dict(earlier.get("results", {}))
    failed = []
    for name in asked.names or BENCHMARKS:
        result = run(name, smallest=asked.smallest)
        if result is None:
            failed.append(name)
        else:
            results[name] = {**result, "machine": machine()}
            write(asked.output, results)
    if failed:
        sys.exit(f"These failed: {', '.join(failed)}")


def run(name: str, *, smallest: bool) -> dict[str, Any] | None:
    """Runs one benchmark in its own process. Returns its result, or None if it failed."""
    print(f"\n== {name} ==", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        options = ["--json", str(path), *(["--smallest"] if smallest else [])]
        began = time.monotonic()
        subprocess.run([sys.executable, str(FOLDER / f"{name}.py"), *options], check=False)
        print(f"({time.monotonic() - began:.0f} s)", flush=True)
        if not path.is_file():
            return None
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result


def machine() -> dict[str, Any]:
    """The machine and the software of the measurement."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "when": time.strftime("%Y-%m-%d"),
        "cpus": os.cpu_count(),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "terraform": _terraform(),
        "versions": versions,
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _terraform() -> str:
    said = subprocess.run(
        ["terraform", "version", "-json"], capture_output=True, text=True, check=False
    )
    return str(json.loads(said.stdout or "{}").get("terraform_version", "none"))


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """results.json, RESULTS.md and the plots."""
    ordered = {name: results[name] for name in BENCHMARKS if name in results}
    (folder / "results.json").write_text(
        json.dumps({"results": ordered}, indent=1) + "\n", encoding="utf-8"
    )
    (folder / "plots").mkdir(exist_ok=True)
    lines = ["# Results", "", "Written by `make bench`; see results.json for every number.", ""]
    for name, result in ordered.items():
        lines += [f"## {result['question']}", "", _where(name, result), "", bench.as_text(result)]
        for each in result["plots"]:
            path = folder / "plots" / f"{each['file']}.svg"
            path.write_text(plot.svg(each), encoding="utf-8")
            lines += [f"![{each['title']}](plots/{each['file']}.svg)", ""]
    (folder / "RESULTS.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _where(name: str, result: Mapping[str, Any]) -> str:
    on = result["machine"]
    packages = ", ".join(f"{key} {value}" for key, value in on["versions"].items() if value)
    return (
        f"`python benchmarks/{name}.py`, {on['when']}, {result['seconds']:.0f} s on {on['cpus']} "
        f"CPUs ({on['cpu']}), {on['system']}, load {on['load']} at the end, Python "
        f"{on['python']}, Terraform {on['terraform']}, {packages}"
    )


if __name__ == "__main__":
    main()

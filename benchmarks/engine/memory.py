"""Peak memory: a process of its own for each arm.

On a CPU the peak of the resident set, which Linux can be told to forget: it is counted from after imports and data
on. On CUDA the peak of what tensors take.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.engine.arms import ARMS
from benchmarks.engine.betty import find_betty
from benchmarks.engine.plain import build_base_optimizer
from benchmarks.engine.problems import PROBLEMS, build_examples
from benchmarks.engine.setting import ArmUnavailableError, Setting

NUM_PERIODS = 2
_MIB = 2**20


@dataclass(frozen=True)
class Peak:
    """Peak memory of an arm, in MiB.

    Attributes:
        whole: of the process; on CUDA of its tensors.
        added: above what the process held once everything was imported and the data was there.
    """

    whole: float
    added: float


def measure_memory(setting: Setting, arms: Iterable[str]) -> dict[str, Peak]:
    """Return the peak of each arm with the most meta steps that it has: their number does not matter to it.

    On a CPU the processes take one thread each, two at a time.
    """

    def measure(arm: str) -> Peak | None:
        asked = json.dumps(asdict(replace(setting, unroll=min(ARMS[arm].unrolls))))
        command = [sys.executable, "-m", "benchmarks.engine.memory", arm, asked]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        report = json.loads(done.stdout.splitlines()[-1])
        return None if report is None else Peak(**report)

    names = list(arms)
    with ThreadPoolExecutor(1 if setting.device == "cuda" else 2) as pool:
        peaks = dict(zip(names, pool.map(measure, names), strict=True))
    return {arm: peak for arm, peak in peaks.items() if peak is not None}


def _forget_peak(device: str) -> float:
    """Start to count the peak anew; return what is held now, in bytes."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    forget = Path("/proc/self/clear_refs")
    if not forget.exists():
        return _read_peak(device)
    forget.write_text("5")
    return _read_status("VmRSS")


def _read_peak(device: str) -> float:
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    if Path("/proc/self/status").exists():
        return _read_status("VmHWM")
    # The BSDs and macOS: bytes on the latter.
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _read_status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return float(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status: no {name}")


def _report_peak(arm: str, setting: Setting) -> Peak | None:
    try:
        _import_arm(arm)
    except ArmUnavailableError:
        return None
    with torch.device("meta"):
        PROBLEMS[setting.problem].build_network()
    _step_tiny(setting)
    build_examples(setting.problem, setting.device, is_meta=False)
    if arm != "plain":
        build_examples(setting.problem, setting.device, is_meta=True)
    held = _forget_peak(setting.device)
    try:
        step = ARMS[arm].build(setting)
    except ArmUnavailableError:
        return None
    for _ in range(NUM_PERIODS * setting.unroll):
        step()
    setting.synchronize()
    peak = _read_peak(setting.device)
    return Peak(peak / _MIB, (peak - held) / _MIB)


def _step_tiny(setting: Setting) -> None:
    """Train a tiny network, so that what torch imports and starts late is there."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10)).to(setting.device)
    optimizer = build_base_optimizer(network, setting)
    labels = torch.randperm(10).to(setting.device)
    cross_entropy(network(torch.randn(10, 64, device=setting.device)), labels).backward()
    optimizer.step()


def _import_arm(arm: str) -> None:
    """Import what the arm needs."""
    if arm.startswith("betty-"):
        find_betty()
        import_module("betty.engine")
    elif arm != "plain":
        import_module("benchmarks.engine.ours")


if __name__ == "__main__":
    torch.set_num_threads(1)
    measured = _report_peak(sys.argv[1], Setting(**json.loads(sys.argv[2])))
    sys.stdout.write("\n" + json.dumps(measured and asdict(measured)) + "\n")

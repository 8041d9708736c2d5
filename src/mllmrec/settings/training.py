"""Settings of the training stages: `sft`, `merge`, `grpo` and `backbone tiny`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from mllmrec.settings.base import DatasetSettings, Fold, knob

LOSS = "loss"
"""How validation is read, and what chooses the step, for models that can't be scored exactly."""


class TrainingSettings(DatasetSettings):
    """What SFT and GRPO share."""

    use_cot: bool = knob(False, "Show reasoning traces as hints in a share of the training prompts.")
    cot_prob: float = knob(0.1, "Share of all training examples that carry a hint, with --use-cot.", ge=0, le=1)
    captions: Literal["auto", "on", "off"] = knob("auto", "Captions in prompts; auto: when the captions file is there.")
    chat_template: str = knob(
        "",
        "plain, or a file with a chat template (Jinja), in place of the model's own; a model without one is asked in "
        "the plain one.",
    )
    min_inter: int = knob(10, "Items of a window: the history and its target.", ge=2)
    num_neg: int = knob(9, "Negatives beside each target.", ge=1)
    windows: Literal["last", "all"] = knob("last", "Windows of a training line: its last one, or every one.")
    fold: Fold = knob("", "Train on part i of n of the users (by hash), written i/n: a scorer for assess.")
    limit: int | None = knob(None, "Train on this many examples, drawn by hash.", ge=1)
    limit_from: Literal["first", "last"] = knob(
        "first", "End of that draw which --limit takes; the last ones are those that the other end leaves out."
    )
    max_prompt_tokens: int = knob(
        4096, "Budget of a prompt; captions shorten first, then hints, then old history.", ge=64
    )
    lr: float = knob(1e-5, "Peak learning rate; it rises over --warmup-share and falls linearly.", gt=0)
    warmup_share: float = knob(0.03, "Share of the steps over which the learning rate rises.", ge=0, le=1)
    seed: int = knob(42, "Seed of negatives, orders, weights and dropout.")
    lora_targets: str = knob(
        "all",
        "What LoRA adapts: `all` linear layers of the blocks, `attention` (or what stands in its place), or the last "
        "words of layers' names with commas between them.",
    )
    eval_users: int = knob(512, "Validation examples scored during training (a fixed slice by hash).", ge=1)
    eval_steps: int = knob(0, "Steps between validations; 0: ten in a run.", ge=0)
    select_by: str = knob("NDCG@3", "What chooses the step whose weights are kept.")
    save_steps: int = knob(
        100, "Steps between checkpoints to go on from; every ten minutes there is one anyway.", ge=1, operational=True
    )
    logging_steps: int = knob(20, "Steps between log lines.", ge=1, operational=True)
    resume: bool = knob(True, "Go on from the last checkpoint of an interrupted run, or refuse one.", operational=True)
    device: Literal["auto", "cpu", "cuda", "mps"] = knob("auto", "Where to train.", operational=True)
    workers: int = knob(0, "Processes that prepare prompts ahead.", ge=0, operational=True)
    gradient_checkpointing: Literal["auto", "on", "off"] = knob(
        "auto", "Trade time for memory; auto: on a GPU.", operational=True
    )
    track: bool = knob(False, "Also write TensorBoard curves (extra `track`).", operational=True)

    @property
    def written_tokens(self) -> int:
        """The most tokens that a model writes, or learns to write, between a prompt and an answer or in its place."""
        return 0


class SftSettings(TrainingSettings):
    """Fine-tune a backbone to answer with the next item."""

    verb: ClassVar[str] = "sft"

    backbone: str = knob("Qwen3-4B", "Model folder under the root, any path, or hub id.")
    tag: str = knob("sft", "Name of the checkpoint.")
    epochs: int = knob(3, "Passes over the examples, each with fresh negatives.", ge=1)
    validate_: Literal["exact", "loss"] = knob(
        "exact",
        "What validation reads: exact scores of all candidates, or the mean loss of the right answers, for models that "
        "can't be scored exactly.",
    )
    select_by: Literal["NDCG@3", "HR@1", "HR@3", "loss"] = knob(
        "NDCG@3", "Metric on validation that chooses the step whose weights are kept; with --validate loss the loss."
    )
    objective: Literal["answer", "list", "both"] = knob(
        "answer",
        "What is learned: to write the target's answer, to give it the largest share among the candidates, or both.",
    )
    answer_weight: float = knob(0.1, "Weight of the answer's loss beside the list's, with --objective both.", gt=0)
    cot_as: Literal["hint", "answer"] = knob(
        "hint", "Where --use-cot puts a trace: into the prompt as a hint, or before the answer, as a thought to learn."
    )
    max_thought_tokens: int = knob(256, "Longest thought, with --cot-as answer; longer traces shorten.", ge=8)
    peft: Literal["lora", "none"] = knob("lora", "Train LoRA adapters, or all weights.")
    rank: int = knob(16, "Rank of the LoRA adapters.", ge=1)
    lora_dropout: float = knob(0.05, "Share of what enters the LoRA adapters that is left out at random.", ge=0, lt=1)
    batch: int = knob(2, "Examples of one process in one forward pass.", ge=1)
    accum: int = knob(8, "Forward passes in one step.", ge=1)

    @model_validator(mode="before")
    @classmethod
    def _validation_measures_what_selects(cls, values: Any) -> Any:
        """A recipe's `validate` is `validate_` here, since the library has a method of that name."""
        if not isinstance(values, dict):
            return values
        values = {"validate_" if name == "validate" else name: value for name, value in values.items()}
        if values.get("validate_") == LOSS:
            values.setdefault("select_by", LOSS)
        if (values.get("validate_") == LOSS) != (values.get("select_by") == LOSS):
            raise ValueError(
                f"select_by = {values['select_by']!r} isn't what validation measures: expected loss with validate "
                "loss, and NDCG@3, HR@1 or HR@3 with validate exact"
            )
        return values

    @property
    def written_tokens(self) -> int:
        return self.max_thought_tokens if self.use_cot and self.cot_as == "answer" else 0

    @model_validator(mode="after")
    def _thoughts_are_learned(self) -> Self:
        if self.cot_as == "answer" and self.objective == "list":
            raise ValueError(
                "cot_as = 'answer' with objective = 'list': lists alone teach no thoughts; expected objective both, "
                "whose answer loss is that of the thought too, or answer"
            )
        return self


class MergeSettings(DatasetSettings):
    """Merge LoRA adapters into their backbone, checked to give the same log-probabilities."""

    verb: ClassVar[str] = "merge"

    tag: str = knob("sft", "Checkpoint with the adapters.")
    merged_tag: str = knob("", "Name of the merged model; empty: the tag with -merged.")
    backbone: str = knob("", "The backbone, when it has moved since training or the adapters are from elsewhere.")
    tolerance: float = knob(0.05, "Largest difference of log-probabilities that is accepted, in nats.", gt=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = knob("auto", "Where to compare logits.", operational=True)


class GrpoSettings(TrainingSettings):
    """Align a merged SFT model by rewards: of answers it writes, of drawn candidates, or of whole lists."""

    verb: ClassVar[str] = "grpo"

    sft_tag: str = knob(..., "The merged (or full) SFT model to start from.")
    tag: str = knob("grpo", "Name of the checkpoint.")
    epochs: int = knob(1, "Passes over the examples, each with fresh negatives.", ge=1)
    rank: int = knob(16, "Rank of the new LoRA adapters.", ge=1)
    rollouts: Literal["generate", "candidates", "exact"] = knob(
        "generate",
        "Where answers come from: the model writes them, they are drawn among the candidates by their exact "
        "probabilities, or all candidates are weighed by them.",
    )
    batch: int = knob(
        4, "Answers of one process in one forward pass; with --rollouts exact prompts, at most that many.", ge=1
    )
    accum: int = knob(
        8, "Forward passes in one step, which holds batch x accum / num-generations prompts of a process.", ge=1
    )
    num_generations: int = knob(
        8,
        "Answers sampled for each prompt (G), or thoughts with --think; else with --rollouts exact it only sets the "
        "prompts of a step.",
        ge=2,
    )
    max_completion_length: int = knob(128, "Longest answer that the model may write, in tokens.", ge=8)
    temperature: float = knob(1.0, "Temperature of sampling, and of the candidates' probabilities.", gt=0)
    top_p: float = knob(1.0, "Nucleus of the model's sampling; below 1 the ratio is biased.", gt=0, le=1)
    select_by: Literal["NDCG@3", "HR@1", "HR@3", "reward"] = knob(
        "NDCG@3",
        "What chooses the step whose weights are kept: a metric on validation, or the reward expected there, which an "
        "inflated reward would mislead.",
    )
    think: bool = knob(
        False,
        "With --rollouts exact: sample --num-generations thoughts for each prompt, and learn from what answers earn "
        "behind them.",
    )
    max_thought_tokens: int = knob(256, "Longest thought, with --think; one that goes on is closed there.", ge=8)
    beta: float = knob(0.1, "Weight of the KL divergence to the SFT model.", ge=0)
    reward: Literal["strict", "reference"] = knob(
        "strict",
        "What an answer earns. strict: 1 for the target, 0 for another candidate, -1.5 for anything else. reference, "
        "for comparison: 1 for the target, 0.3 for any other well-formed answer, -1 for a malformed one.",
    )
    on_inflation: Literal["warn", "stop"] = knob(
        "warn", "What to do when the training reward rises and validation doesn't: warn, or end training too."
    )
    inflation_window: int = knob(6, "Validations over which both slopes are taken.", ge=4)
    replay: bool = knob(
        False,
        "Train nothing: report what sampling from the SFT model would earn for each G and temperature.",
        operational=True,
    )

    @property
    def written_tokens(self) -> int:
        if self.think:
            return self.max_thought_tokens
        return self.max_completion_length if self.rollouts == "generate" else 0

    @model_validator(mode="after")
    def _answers_are_exact_behind_thoughts(self) -> Self:
        if self.think and self.rollouts != "exact":
            raise ValueError(
                f"think with rollouts = {self.rollouts!r}: thoughts are judged by the exact shares of all candidates "
                "behind them; expected --rollouts exact"
            )
        return self


class BackboneSettings(DatasetSettings):
    """Make a small Qwen3 for a dataset, so that everything runs where no weights are."""

    verb: ClassVar[str] = "backbone"

    out: str = knob("tiny", "Folder under the root where the model goes.")
    layers: int = knob(4, "Transformer layers.", ge=1)
    width: int = knob(64, "Hidden width.", ge=16)
    heads: int = knob(4, "Attention heads of 32 dimensions each.", ge=1)
    vocab: int = knob(8192, "Tokens of the vocabulary, trained on the dataset's titles.", ge=300)
    copy_steps: int = knob(0, "Pre-training steps on random segments that repeat themselves (it learns to copy).", ge=0)
    sequence_steps: int = knob(0, "Pre-training steps on the train split's sequences as text.", ge=0)
    title_share: float = knob(0.3, "Share of those sequences' lines that hold the title beside the id.", ge=0, le=1)
    fold: Fold = knob("", "Read the sequences of part i of n of the users only, written i/n: for a scorer of assess.")
    batch: int = knob(64, "Sequences in a pre-training step.", ge=1)
    lr: float = knob(1e-3, "Learning rate of pre-training.", gt=0)
    seed: int = knob(42, "Seed of the weights and of pre-training.")

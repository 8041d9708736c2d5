"""From hidden states to log-probabilities: the vocabulary projection, and what a model makes of its logits behind it.

Most models take the product of hidden state and output embedding as it is. Some multiply it by a constant of their
configuration, some cap it softly (`cap * tanh(x / cap)`), some do both. Which one a model does is found by comparing
with its own logits, never assumed from a name: Granite divides by the constant that HyperCLOVA multiplies with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

PROJECTED_ROWS, CPU_PROJECTED_ROWS = 2048, 512
CAPS = ("final_logit_softcapping", "logits_soft_cap")
SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier")
"""Names in configurations of soft caps, and of constants that logits are multiplied with or divided by."""
EXACT, ROUNDED = 1e-3, 2e-2
"""Differences of logits that are due to rounding, relative: in float32, and in shorter number formats."""


@dataclass(frozen=True, kw_only=True)
class LogitMap:
    """`cap * tanh(scale * x / cap)`, or `scale * x` where there is no cap.

    >>> LogitMap(scale=0.5, cap=2.0)(torch.tensor([0.0, 4.0])).tolist() == [0.0, 2 * torch.tensor(1.0).tanh().item()]
    True
    """

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        scaled = logits if self.scale == 1.0 else logits * self.scale
        return scaled if self.cap is None else self.cap * torch.tanh(scaled / self.cap)


def find_map(config: Any, projected: torch.Tensor, logits: torch.Tensor) -> LogitMap | None:
    """What turns the `projected` hidden states of a model into its `logits`, of the same shape; None if unknown."""
    given, within = logits.float(), EXACT if logits.dtype == torch.float32 else ROUNDED
    for each in _possible(config):
        if torch.allclose(each(projected.float()), given, atol=within * float(given.abs().max()), rtol=within):
            return each
    return None


def log_probabilities(
    head: Any, hidden_E: torch.Tensor, target_E: torch.Tensor, logit_map: LogitMap, temperature: float = 1.0
) -> torch.Tensor:
    """log p(target | hidden) (E,) in float32 for hidden states (E, width), projecting a bounded number at a time."""
    at_once = CPU_PROJECTED_ROWS if hidden_E.device.type == "cpu" else PROJECTED_ROWS
    parts = []
    for start in range(0, len(target_E), at_once):
        logits_EV = logit_map(project(head, hidden_E[start : start + at_once]))
        if temperature != 1.0:
            logits_EV = logits_EV / temperature
        parts.append(-torch.nn.functional.cross_entropy(logits_EV, target_E[start : start + at_once], reduction="none"))
    return torch.cat(parts)


def _possible(config: Any) -> Iterator[LogitMap]:
    """The maps that a configuration allows for; a cap that it names is in use wherever small logits don't show it."""
    constants = [getattr(config, name, None) for name in SCALES]
    if base := getattr(config, "dim_model_base", None):
        constants.append(base / config.hidden_size)
    scales = [1.0]
    for constant in constants:
        if isinstance(constant, (int, float)) and constant:
            scales += [float(constant), 1.0 / constant]
    caps = [*(cap for name in CAPS if (cap := getattr(config, name, None))), None]
    for cap in caps:
        yield from (LogitMap(scale=scale, cap=cap) for scale in scales)


def project(head: Any, hidden_E: torch.Tensor) -> torch.Tensor:
    """Logits in float32; a head of another number format is multiplied in float32 too, not rounded afterwards.

    A trainer's autocast would round them again, so it is off here.
    """
    if type(head) is torch.nn.Linear:
        bias = None if head.bias is None else head.bias.float()
        with torch.autocast(hidden_E.device.type, enabled=False):
            return torch.nn.functional.linear(hidden_E.float(), head.weight.float(), bias)
    logits: torch.Tensor = head(hidden_E).float()
    return logits

"""What a local model wrote, from token ids to the text that `visible_answer` reads.

Marks of reasoning are special tokens in some tokenizers and plain text in others. They stay in the text, since without
them reasoning can't be told from the answer; all other special tokens are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mllmrec.data.visible_answer import is_mark


class MarkedDecoder:
    """Decodes answers of one tokenizer, marks of reasoning included."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        dropped = sorted((token for token in special if not is_mark(token)), key=len, reverse=True)
        self._dropped = re.compile("|".join(map(re.escape, dropped)) or r"(?!)")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, which hold the answer up to its end token."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return self._dropped.sub("", text)

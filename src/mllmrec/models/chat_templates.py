"""A tokenizer's chat template: what it writes around a user's turn, and what it puts after an answer.

A prompt has to be the same on every day and has to end where the answer begins. Templates guarantee neither: some read
the clock, some open a think block in every prompt, and many end an answer with another token than the tokenizer's end
of text. So the date is fixed, an open think block is closed, and the end of an answer is read from the template itself,
which is asked to write one.

A model that was trained on texts alone has no template. It is asked in the plain one: the user's turn, a line that
announces the answer, and the tokenizer's own end of text after it.

A chat template is a program that came with a model. Jinja's sandbox keeps it from files and network, but not from loops
without end or texts of gigabytes. It is therefore tried in a process of its own first, with limits on time and memory.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import re
import select
import signal
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from mllmrec.data.visible_answer import closing_mark, open_thought, visible_answer
from mllmrec.errors import BackendError, SettingsError
from mllmrec.models.private_names import COMPILE_TEMPLATE, read

PLAIN_NAME = "plain"
PLAIN = (
    "{{ bos_token or '' }}{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token + '\\n\\n' }}"
    "{% elif message.role == 'user' %}{{ '\\n\\nAnswer:\\n' }}{% else %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
"""The chat template of models without one. It writes no token but the tokenizer's own beginning and end of a text."""
MARKER = "@@User's TURN\n\"1\" & '2' <3>@@"
"""Stands for the user's text; letters, quotes, brackets and a line break show a template that would alter them."""
ANSWER = "@@ANSWER@@"
NEXT_TURN = "@@NEXT-TURN@@"
_CHANCE = re.compile(r"\|\s*random\b|\blipsum\s*\(")
_THOUGHT = re.compile(r"think|thought|reason|analysis", re.IGNORECASE)
_MODERATE = set[tuple[str, str, str]]()
"""Templates that this process has tried: beside a large model a trial takes tenths of a second."""

Content = str | list[dict[str, str]]

MAX_SECONDS, MAX_MEMORY, MAX_CHARACTERS = 10.0, 1 << 30, 1 << 20
DONE, TOO_LONG, NO_MEMORY = b"d", b"l", b"m"
REASONS = {TOO_LONG: f"writes more than {MAX_CHARACTERS:,} characters", NO_MEMORY: "needs more than 1 GB of memory"}


class ChatTemplate:
    """The chat template of one tokenizer on one day, `today` (ISO 8601).

    A user's turn is given as text, or as a list of one part where the template reads nothing else. Raises BackendError
    for a template that fails, that leaves a user's text out, repeats or alters it, that writes by chance, or that loops
    or writes without end.
    """

    def __init__(self, tokenizer: Any, *, thinking: bool, today: str) -> None:
        self._tokenizer, self._thinking = tokenizer, thinking
        self._today = datetime.fromisoformat(today)
        self.name = f"The chat template of {tokenizer.name_or_path}"
        if _CHANCE.search(str(tokenizer.chat_template)):
            raise BackendError(
                f"{self.name} writes by chance (random or lipsum), so that no prompt could be written twice. Expected "
                "one that writes the same for the same turn; take that out of it."
            )
        self._in_parts = False
        self._require_moderate()
        self.before, self.after = self._around_a_turn()

    def render(self, *contents: Content, asks: bool = True) -> str:
        """The turns of a user and a model in alternation, as text; `asks` for an answer, or not."""
        roles = ("user", "assistant")
        turns = [{"role": roles[number % 2], "content": self._form(text)} for number, text in enumerate(contents)]
        compiled = read(COMPILE_TEMPLATE)
        try:
            template = compiled(self._tokenizer.get_chat_template())
            rendered: str = template.render(
                **self._tokenizer.special_tokens_map,
                messages=turns,
                tools=None,
                documents=None,
                add_generation_prompt=asks,
                enable_thinking=self._thinking,
                strftime_now=self._strftime,
            )
        except MemoryError:
            raise
        except Exception as error:  # a template is a foreign program, which may fail in any way
            message = " ".join(str(error).split()) or type(error).__name__
            raise BackendError(
                f"{self.name} can't write a conversation of a user's turn and an answer: {message.rstrip('.')}. "
                "Expected that of an instruction-tuned model; choose another one, or mend chat_template.jinja in its "
                "folder."
            ) from error
        return rendered

    def written_before_an_answer(self) -> tuple[str, str]:
        """What belongs between the prompt that the template writes and an answer, and why, in words.

        Both are empty for most templates. Raises BackendError for a think block that can't be closed.
        """
        own, thought = self._own_opening(), open_thought(self.after)
        opening = own.removeprefix(self.after) if own is not None and own.startswith(self.after) else ""
        if _opens_a_thought(thought):
            if not opening.strip() and (closing := closing_mark(thought)) is None:
                raise self._unclosable(thought)
            opening = opening if opening.strip() else ("" if thought.endswith("\n") else "\n") + f"\n{closing}\n\n"
            return opening, f"{self.name} opens a think block in every prompt; it is closed at once, empty."
        if opening.strip(" "):
            return opening, f"{self.name} writes {opening!r} before an answer; prompts end with it too."
        pairs = zip(own or self.after, self.after, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        beyond = self.after[shared:]
        if _THOUGHT.search(beyond) and visible_answer(beyond + ANSWER).text != ANSWER:
            raise self._unclosable(beyond)
        return "", ""

    def end_of_answer(self, control: Collection[int]) -> int | None:
        """The first of the `control` tokens that the template puts after an answer; None when it puts none.

        Where it ends answers with the next turn, that is the token which begins it.
        """
        for turns in ((MARKER, ANSWER), (MARKER, ANSWER, NEXT_TURN)):
            behind = self.render(*turns, asks=False).rpartition(ANSWER)[2].partition(NEXT_TURN)[0]
            ids: Sequence[int] = self._tokenizer(behind, add_special_tokens=False)["input_ids"]
            if (end := next((token for token in ids if token in control), None)) is not None:
                return end
        return None

    def _require_moderate(self) -> None:
        """Refuse a template that loops or fills the memory, by the conversations that it is asked for below."""
        tried = (str(self._tokenizer.chat_template), str(self._thinking), str(self._tokenizer.special_tokens_map))
        if tried in _MODERATE:
            return
        if reason := excess(self._num_characters):
            raise BackendError(
                f"{self.name} {reason} for a conversation of a turn or two. Expected that of an instruction-tuned "
                "model, which writes a page at most; choose another model, or mend chat_template.jinja in its folder."
            )
        _MODERATE.add(tried)

    def _num_characters(self) -> int:
        """The most that the template writes for any of the conversations asked for when a model is loaded."""
        sizes = [0]
        for self._in_parts in (False, True):
            for turns in ((MARKER,), (MARKER, ANSWER), (MARKER, ANSWER, NEXT_TURN)):
                for asks in (True, False):
                    with suppress(BackendError):
                        sizes.append(len(self.render(*turns, asks=asks)))
        return max(sizes)

    def _around_a_turn(self) -> tuple[str, str]:
        counts: list[int] = []
        failures: list[BackendError] = []
        for self._in_parts in (False, True):
            try:
                rendered = self.render(MARKER)
            except BackendError as error:
                failures.append(error)
                continue
            counts.append(rendered.count(MARKER))
            if counts[-1] == 1:
                before, _, after = rendered.partition(MARKER)
                return before, after
        if not counts:
            raise failures[0]
        raise BackendError(
            f"{self.name} writes a user's text {max(counts)} times as it is. Expected it exactly once, unchanged, "
            "since a prompt is what stands before it, the text, and what stands after it. Choose another model, or "
            "mend chat_template.jinja in its folder."
        )

    def _own_opening(self) -> str | None:
        """What the template writes between a user's turn and an answer that it is given; None if it alters one."""
        rendered = self.render(MARKER, ANSWER, asks=False)
        between, separator, _ = rendered.rpartition(MARKER)[2].partition(ANSWER)
        return between if separator else None

    def _form(self, content: Content) -> Content:
        return [{"type": "text", "text": content}] if self._in_parts and isinstance(content, str) else content

    def _strftime(self, form: str) -> str:
        return self._today.strftime(form)

    def _unclosable(self, opening: str) -> BackendError:
        return BackendError(
            f"{self.name} opens a think block in every prompt, with {opening.strip()!r}, and this program doesn't know "
            "what closes it. Expected one that can be told not to think; choose another model, or mend "
            "chat_template.jinja in its folder."
        )


def read_template(choice: str) -> str:
    """The template that `--chat-template` names: `plain`, or a file of Jinja; empty where it names none.

    Raises SettingsError for a file that isn't there or isn't text.
    """
    if choice in ("", PLAIN_NAME):
        return PLAIN if choice else ""
    try:
        template = Path(choice).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is no text" if isinstance(error, UnicodeDecodeError) else f"can't be read ({error.strerror})"
        raise SettingsError(
            f"--chat-template {choice} {reason}. Expected {PLAIN_NAME!r} or a file with a chat template in Jinja, such "
            "as the chat_template.jinja of a model folder."
        ) from error
    if not template.strip():
        raise SettingsError(f"--chat-template {choice} is empty. Expected a chat template in Jinja.")
    return template


def template_hash(choice: str) -> dict[str, str]:
    """The hash of the template that `--chat-template` names, as an input of what is made with it; none without one."""
    return {"chat_template": hashlib.sha256(read_template(choice).encode()).hexdigest()} if choice else {}


def excess(work: Callable[[], int]) -> str:
    """What `work`, which returns a number of characters, takes too much of, in words; empty where it stays within.

    It runs in a fork of this process, and what it raises there is left to whoever runs it here. Where processes can't
    be forked (Windows) nothing is tried.

    >>> excess(lambda: 12), excess(lambda: 1 << 30)
    ('', 'writes more than 1,048,576 characters')
    """
    if not hasattr(os, "fork"):
        return ""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Newer Pythons warn of forks beside threads; this one only computes, and holds no lock that it waits for.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _carry_out(work, writing)
    os.close(writing)
    try:
        answer = os.read(reading, 1) if select.select([reading], [], [], MAX_SECONDS)[0] else None
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if answer is None:
        return f"takes more than {MAX_SECONDS:g} seconds"
    return REASONS[NO_MEMORY] if answer == b"" else REASONS.get(answer, "")


def _opens_a_thought(opening: str) -> bool:
    """Whether what follows `opening` would be reasoning; the final channel of the harmony format opens an answer."""
    return bool(opening) and visible_answer(opening + ANSWER).text != ANSWER


def _carry_out(work: Callable[[], int], writing: int) -> None:
    """Work in the child, and end it; nothing of the parent's is cleaned up or written."""
    answer = DONE
    try:
        gc.disable()
        _limit_memory()
        answer = TOO_LONG if work() > MAX_CHARACTERS else DONE
    except MemoryError:
        answer = NO_MEMORY
    except BaseException:  # raised again where the work is done for good
        answer = DONE
    finally:
        os.write(writing, answer)
        os._exit(0)


def _limit_memory() -> None:
    """Let this process have so much more than it has, where the system tells how much that is."""
    import resource

    sizes = Path("/proc/self/statm")
    if sizes.exists():
        limit = int(sizes.read_text().split()[0]) * resource.getpagesize() + MAX_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))

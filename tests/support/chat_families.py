"""Small chat templates with the control tokens and the traps of the families that are met, and a tokenizer for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TURNS = "{%- for m in messages %}"


@dataclass(frozen=True, kw_only=True)
class Family:
    """A template, the special tokens of its tokenizer, and what is right for the turn `Hi`.

    `end` is the token after an answer, and `prompt` the whole text up to where an answer begins.
    """

    template: str
    special: tuple[str, ...]
    prompt: str
    end: str
    eos: str = "<eos>"
    remark: str = ""


CHATML = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
THINKS = "opens a think block in every prompt; it is closed at once, empty."

FAMILIES = {
    # Thinking is switched off with an empty block.
    "qwen3": Family(
        template=TURNS + "{{- '<|im_start|>' + m.role + '\n' }}{%- if m.role == 'assistant' and loop.last %}"
        "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{{- m.content + '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
        "{%- endif %}{%- endif %}",
        special=CHATML,
        prompt="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        end="<|im_end|>",
    ),
    # Opens a think block unless it is told not to, takes blanks off both ends of a turn, and insists on a user's turn.
    "qwen3.5": Family(
        template="{%- set asked = messages | selectattr('role', 'equalto', 'user') | list %}"
        "{%- if not asked %}{{- raise_exception('No user query found in messages.') }}{%- endif %}"
        + TURNS
        + "{%- set content = m.content | trim if m.content is string else '' %}{{- '<|im_start|>' + m.role + '\n' }}"
        "{%- if m.role == 'assistant' and loop.last %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
        "{{- content + '<|im_end|>\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
        "{%- else %}{{- '<think>\n' }}{%- endif %}{%- endif %}",
        special=CHATML,
        prompt="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        end="<|im_end|>",
    ),
    # Always thinks; what it would write before an answer closes the block.
    "qwen3-thinking": Family(
        template=TURNS + "{{- '<|im_start|>' + m.role + '\n' }}{%- if m.role == 'assistant' %}"
        "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{{- m.content + '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}",
        special=CHATML,
        prompt="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        end="<|im_end|>",
        remark=THINKS,
    ),
    # Always thinks, and leaves thoughts out of earlier answers.
    "deepseek-r1": Family(
        template="{{- bos_token }}" + TURNS + "{%- if m.role == 'user' %}{{- '<｜User｜>' + m.content }}{%- else %}"
        "{{- '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\n' }}{%- endif %}",
        special=("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<think>", "</think>"),
        prompt="<bos><｜User｜>Hi<｜Assistant｜><think>\n\n</think>\n\n",
        end="<｜end▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        remark=THINKS,
    ),
    # The date stands in the system turn.
    "llama3": Family(
        template="{{- bos_token }}{%- if strftime_now is defined %}{%- set date = strftime_now('%d %b %Y') %}"
        "{%- else %}{%- set date = '26 Jul 2024' %}{%- endif %}{{- '<|start_header_id|>system<|end_header_id|>\n\n"
        "Today Date: ' + date + '\n\n<|eot_id|>' }}"
        + TURNS
        + "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
        "{%- endif %}",
        special=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        prompt="<bos><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        end="<|eot_id|>",
    ),
    # Its turns end with another token than its texts, and an answer's turn is called otherwise.
    "gemma3": Family(
        template="{{ bos_token }}" + TURNS + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) }}"
        "{{ '\n' }}{%- if m.content is string %}{{ m.content | trim }}{%- endif %}{{ '<end_of_turn>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{%- endif %}",
        special=("<start_of_turn>", "<end_of_turn>"),
        prompt="<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        end="<end_of_turn>",
    ),
    # A conversation that asks for nothing more ends with the end of text, too.
    "phi3": Family(
        template=TURNS + "{{- '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- else %}{{- eos_token }}{%- endif %}",
        special=("<|user|>", "<|assistant|>", "<|end|>"),
        prompt="<|user|>\nHi<|end|>\n<|assistant|>\n",
        end="<|end|>",
        eos="<|endoftext|>",
    ),
    "phi4": Family(
        template=TURNS + "{{- '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant<|im_sep|>' }}{%- endif %}",
        special=("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        prompt="<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>",
        end="<|im_end|>",
        eos="<|endoftext|>",
    ),
    # A blank before an answer belongs to the answer's first token, so that prompts don't end with it.
    "mistral": Family(
        template="{{- bos_token }}" + TURNS + "{%- if m.role == 'user' %}{{- '[INST] ' + m.content + '[/INST]' }}"
        "{%- else %}{{- ' ' + m.content + eos_token }}{%- endif %}{%- endfor %}",
        special=("[INST]", "[/INST]"),
        prompt="<bos>[INST] Hi[/INST]",
        end="</s>",
        eos="</s>",
    ),
    # An answer stands in a channel of its own and its last message has an end of its own; the date is in the prompt.
    "gpt-oss": Family(
        template="{{- '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '<|end|>' }}"
        + TURNS
        + "{%- if m.role == 'user' %}{{- '<|start|>user<|message|>' + m.content + '<|end|>' }}{%- else %}"
        "{{- '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
        "{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}",
        special=("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"),
        prompt="<|start|>system<|message|>Current date: 2024-07-26<|end|><|start|>user<|message|>Hi<|end|>"
        "<|start|>assistant<|channel|>final<|message|>",
        end="<|return|>",
        eos="<|return|>",
        remark="writes '<|channel|>final<|message|>' before an answer",
    ),
    # Date in words; the switch for thinking changes the system turn as well.
    "smollm3": Family(
        template="{{- '<|im_start|>system\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning Mode: ' }}"
        "{{- '/think' if enable_thinking else '/no_think' }}{{- '\n<|im_end|>\n' }}"
        + TURNS
        + "{{- '<|im_start|>' + m.role + '\n' }}{%- if m.role == 'assistant' and not enable_thinking %}"
        "{{- '<think>\n\n</think>\n' }}{%- endif %}{{- m.content + '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- if not enable_thinking %}"
        "{{- '<think>\n\n</think>\n' }}{%- endif %}{%- endif %}",
        special=CHATML,
        prompt="<|im_start|>system\nToday Date: 26 July 2024\nReasoning Mode: /no_think\n<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n",
        end="<|im_end|>",
    ),
    # Nothing ends an answer but the next turn.
    "glm4": Family(
        template="[gMASK]<sop>" + TURNS + "{%- if m.role == 'user' %}{{- '<|user|>\n' + m.content + '/nothink' }}"
        "{%- else %}{{- '<|assistant|>\n<think></think>\n' + m.content }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|assistant|>\n<think></think>' }}{%- endif %}",
        special=("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<think>", "</think>"),
        prompt="[gMASK]<sop><|user|>\nHi/nothink<|assistant|>\n<think></think>\n",
        end="<|user|>",
        eos="<|endoftext|>",
        remark="before an answer",
    ),
    # Turns are lists of parts, and text in place of them is left out.
    "parts": Family(
        template=TURNS + "{{- m.role + ':' }}{%- for part in m.content %}{%- if part.type == 'text' %}{{- part.text }}"
        "{%- endif %}{%- endfor %}{{- '<end_of_utterance>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- 'assistant:' }}{%- endif %}",
        special=("<end_of_utterance>",),
        prompt="user:Hi<end_of_utterance>\nassistant:",
        end="<end_of_utterance>",
    ),
    # A template that ends answers with no token at all.
    "plain": Family(
        template=TURNS + "{{- '### ' + m.role + ': ' + m.content + '\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '### assistant: ' }}{%- endif %}",
        special=(),
        prompt="### user: Hi\n### assistant: ",
        end="<eos>",
    ),
}


def byte_tokenizer(template: str, *, special: tuple[str, ...] = (), eos: str = "<eos>", adds_bos: bool = False) -> Any:
    """A tokenizer of single bytes with a template; with `adds_bos` it begins what it tokenises with <bos>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: number for number, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<pad>", "<bos>", eos, *(token for token in special if token != eos)])
    if adds_bos:
        bos = ("<bos>", core.token_to_id("<bos>"))
        core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[bos])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token=eos,
        pad_token="<pad>",
        additional_special_tokens=[token for token in special if token != eos],
        chat_template=template,
        name_or_path="a-model",
    )


def family_tokenizer(name: str, **options: Any) -> Any:
    family = FAMILIES[name]
    return byte_tokenizer(family.template, special=family.special, eos=family.eos, **options)

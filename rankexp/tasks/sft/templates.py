"""Chat templates: the tokenizer's own, one in a file, or one that is built in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rankexp.data.readers import read_bytes
from rankexp.data.table import TaskError, brief
from rankexp.safety.printable import printable
from rankexp.tasks.sft.messages import Message
from rankexp.tasks.sft.rules import RowError

_CHATML = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{% endif %}
{{- '# Tools\\n\\nYou may call one or more functions. Their signatures are within <tools></tools>:\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{% endfor %}
{{- '\\n</tools>\\n\\nFor each call, return a JSON object with name and arguments within <tool_call></tool_call>:\\n' }}
{{- '<tool_call>\\n{"name": NAME, "arguments": ARGUMENTS}\\n</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'system' and tools %}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '\\n' if message.content or not loop.first }}
{{- '<tool_call>\\n{"name": ' + (call.function.name | tojson) }}
{{- ', "arguments": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""
_ALPACA = """\
{%- for message in messages %}
{%- if message.role == 'system' %}{{- message.content + '\\n\\n' }}
{%- elif message.role == 'user' %}{{- '### Instruction:\\n' + message.content + '\\n\\n' }}
{%- elif message.role == 'assistant' and not message.tool_calls %}
{{- '### Response:\\n' + message.content + eos_token + '\\n\\n' }}
{%- else %}{{- raise_exception('template alpaca has no tools') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '### Response:\\n' }}{% endif %}
"""
BUILT_IN: Mapping[str, str] = {"chatml": _CHATML, "alpaca": _ALPACA}
"""Templates by their names; `chatml` shows tools in the manner of Hermes and Qwen."""
_TOKENS = {"chatml": ("<|im_start|>", "<|im_end|>"), "alpaca": ()}
"""Tokens that a built-in template needs."""

_CLOCK = (
    "{%- macro strftime_now(format) -%}"
    "{{ format | replace('%-d', '26') | replace('%d', '26') | replace('%b', 'Jul') | replace('%B', 'July')"
    " | replace('%m', '07') | replace('%Y', '2024') | replace('%y', '24') | replace('%A', 'Friday')"
    " | replace('%a', 'Fri') | replace('%H', '12') | replace('%M', '00') | replace('%S', '00') }}"
    "{%- endmacro %}{{ '' }}"
)
"""Stands in for the clock of a template, so that data is the same on every day; Llama 3 has this day, too."""
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Chat:
    """A chat template with the tokenizer that it is for.

    Attributes:
        tokenizer: One of transformers.
        template: The template; None for the tokenizer's own.
        variables: What is given to it besides, such as ``enable_thinking``.
    """

    tokenizer: Any
    template: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    def render(self, messages: Sequence[Message], tools: Sequence[Message] | None, *, ask: bool = False) -> str:
        """Write turns as text.

        Args:
            messages: The turns.
            tools: Descriptions of tools.
            ask: Whether to add the beginning of the assistant's next turn.

        Raises:
            RowError: The template refuses them.
            TaskError: It is no template.
        """
        import jinja2

        template = self._template(bool(tools))
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tools=list(tools) if tools else None, tokenize=False, add_generation_prompt=ask,
                chat_template=template, **self.variables,
            )  # fmt: skip
        except jinja2.TemplateSyntaxError as error:
            raise TaskError(f"the chat template cannot be read: {_said(error)}.") from error
        except Exception as error:  # whatever a template does with values that it does not expect
            raise RowError("template_refuses", _said(error)) from error
        return text

    def _template(self, with_tools: bool) -> str:
        template = self.template or _own(self.tokenizer, with_tools)
        return _CLOCK + template if "strftime_now" in template else template

    @cached_property
    def specials(self) -> re.Pattern[str]:
        """A pattern of one special token of the tokenizer."""
        return special_pattern(self.tokenizer)

    @property
    def is_built_in(self) -> bool:
        """Whether it is one of rankexp's own, which leave the begin token to the tokenizer."""
        return self.template in BUILT_IN.values()

    @property
    def has_clock(self) -> bool:
        """Whether the template shows the day, which is then always the same."""
        own = self.template or self.tokenizer.chat_template
        return any("strftime_now" in text for text in (own.values() if isinstance(own, dict) else [own]))


def find_chat(tokenizer: Any, named: str | None, variables: Mapping[str, Any]) -> Chat | None:
    """Find the chat template: the one that is named, else the tokenizer's own, else none.

    Args:
        tokenizer: One of transformers.
        named: One of :data:`BUILT_IN`, one of the tokenizer's own where it has several, or a file.
        variables: As in :class:`Chat`.

    Raises:
        TaskError: There is no such template, or the tokenizer lacks its tokens.
    """
    for name in (
        "messages",
        "tools",
        "tokenize",
        "add_generation_prompt",
        "chat_template",
        "conversation",
        "documents",
    ):
        if name in variables:
            raise TaskError(f"option 'task.chat_template_kwargs' has {name!r}, which rankexp sets itself.")
    own = getattr(tokenizer, "chat_template", None)
    if named is None:
        return Chat(tokenizer, None, dict(variables)) if own else None
    if isinstance(own, dict) and named in own:
        return Chat(tokenizer, own[named], dict(variables))
    if named in BUILT_IN:
        _check_tokens(tokenizer, named)
        return Chat(tokenizer, BUILT_IN[named], dict(variables))
    return Chat(tokenizer, _from_file(named, own), dict(variables))


def special_pattern(tokenizer: Any) -> re.Pattern[str]:
    """Return a pattern of one special token of a tokenizer as text, the longest that fits.

    Single letters and signs are left out: a model may pad with ``!``, which is text elsewhere.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    found = {str(token) for token in added if token.special} | set(map(str, tokenizer.all_special_tokens))
    tokens = sorted((token for token in found if len(token.strip()) > 1), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")


def no_template() -> TaskError:
    """Say that there is none though one is needed."""
    return TaskError(
        "the tokenizer has no chat template, which conversations need; option 'task.chat_template' names a file or"
        f" one of {', '.join(BUILT_IN)}."
    )


def _own(tokenizer: Any, with_tools: bool) -> str:
    own = tokenizer.chat_template
    if isinstance(own, str):
        return own
    names = (["tool_use"] if with_tools else []) + ["default"]
    found = next((own[name] for name in names if name in own), None)
    if found is None:
        listed = ", ".join(map(brief, sorted(own)))
        raise TaskError(f"option 'task.chat_template' is needed: the tokenizer has the templates {listed}.")
    return str(found)


def _check_tokens(tokenizer: Any, named: str) -> None:
    known = tokenizer.get_vocab()
    for token in _TOKENS[named]:
        if token not in known:
            others = ", ".join(name for name in BUILT_IN if not _TOKENS[name])
            raise TaskError(
                f"option 'task.chat_template' is {named!r}, which needs the token {token!r} that the tokenizer lacks;"
                f" {others} needs none."
            )
    if tokenizer.eos_token is None:
        raise TaskError(f"option 'task.chat_template' is {named!r}, but the tokenizer has no end token.")


def _from_file(named: str, own: object) -> str:
    path = Path(named).expanduser() if named.startswith("~/") else Path(named)
    if not path.exists():
        others = [*BUILT_IN, *(own if isinstance(own, dict) else ())]
        raise TaskError(
            f"option 'task.chat_template' is {named!r}, which is no file and none of {', '.join(map(brief, others))}."
        )
    data = read_bytes(path, f"option 'task.chat_template' is {named!r}")
    try:
        text = data[: _LARGEST + 1].decode("utf-8-sig")
    except UnicodeDecodeError:
        text = ""
    if not text.strip() or len(data) > _LARGEST:
        raise TaskError(f"option 'task.chat_template' is {named!r}, a file that holds no template of at most 1 MiB.")
    return text


def _said(error: BaseException) -> str:
    said = re.split(r"\n", str(error).strip(), maxsplit=1)[0]
    return printable(said)[:120].rstrip(".:! ") or type(error).__name__

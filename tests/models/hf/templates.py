"""Chat templates in the formats of the families, written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SKELETON = """\
{{- start -}}
{%- for message in messages -%}
{{- opening[message.role] -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == "image" -%}{{- picture -}}
{%- elif part.type == "video" -%}{{- film -}}
{%- else -%}{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- closing[message.role] -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- answer -}}{%- endif -%}
"""


@dataclass(frozen=True, slots=True)
class Template:
    """A chat format.

    Attributes:
        opening: Text before a message, by role.
        closing: Text after a message, by role.
        answer: Text that asks for an answer.
        image: A picture in a message.
        video: A video in a message.
        start: Text before all messages.
        system: System message of conversations without one.
    """

    opening: Mapping[str, str]
    closing: Mapping[str, str]
    answer: str
    image: str
    video: str = ""
    start: str = ""
    system: str = ""

    def jinja(self) -> str:
        """Return the template as `chat_template.jinja` has it."""
        values = {
            "start": self.start,
            "opening": dict(self.opening),
            "closing": dict(self.closing),
            "picture": self.image,
            "film": self.video,
            "answer": self.answer,
        }
        lines = [f"{{%- set {name} = {value!r} -%}}" for name, value in values.items()]
        if self.system:
            default = {"role": "system", "content": self.system}
            lines.append('{%- if messages[0].role != "system" -%}')
            lines.append(f"{{%- set messages = [{default!r}] + messages -%}}")
            lines.append("{%- endif -%}")
        return "\n".join(lines) + "\n" + SKELETON


def turns(
    opening: str, closing: str, *, user: str = "user", answer: str = "assistant"
) -> tuple[dict[str, str], dict[str, str]]:
    """Return what stands around messages, where only the name of the role differs.

    Args:
        opening: Text before a message, with the role's name as `{}`.
        closing: Text after a message.
        user: Name of the user.
        answer: Name of who answers.
    """
    names = {"system": "system", "user": user, "assistant": answer}
    before = {role: opening.format(name) for role, name in names.items()}
    return before, dict.fromkeys(names, closing)


def chatml(image: str, *, video: str = "", system: str = "") -> Template:
    """Return ChatML, the format of Qwen and of models on top of it."""
    opening, closing = turns("<|im_start|>{}\n", "<|im_end|>\n")
    return Template(opening, closing, opening["assistant"], image, video, system=system)

"""Text from outside (model output, prompts, headers, names) made harmless for where it is shown.

Such text is data: it must not steer a terminal, reverse the reading direction, end a script
element, or break an XML document. Nothing is dropped silently on a page or a terminal: what cannot
be shown as itself is shown as a visible stand-in, so that the reader sees that it was there.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

# Bidirectional controls (Trojan Source, CVE-2021-42574), line/paragraph separators, zero-width
# space, byte-order mark, tags. ZWJ and ZWNJ stay: emoji and several scripts need them.
_INVISIBLE: Final = re.compile(
    "[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
_CONTROLS: Final = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)} | {
    0x7F: 0x2421
}
_C1: Final = re.compile("[\u0080-\u009f]")
# https://www.w3.org/TR/xml/#charsets: everything outside `Char`.
_NOT_XML: Final = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def visible(text: object) -> str:
    """``text`` with control, direction and invisible characters as visible stand-ins.

    New lines and tabs stay; ``\\r\\n`` becomes ``\\n``.
    """
    plain = str(text).replace("\r\n", "\n").translate(_CONTROLS)
    plain = _C1.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", plain)
    return _INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", plain)


def one_line(text: object, limit: int = 200) -> str:
    """:func:`visible` text on one line, shortened to ``limit`` characters."""
    plain = " ".join(visible(text).split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def shortened(text: str, limit: int) -> str:
    """The head and the tail of a long text, with what was left out stated between them."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    left_out = len(text) - head - tail
    return f"{text[:head]}\n… {left_out:,} characters left out …\n{text[-tail:]}"


def xml_text(text: object) -> str:
    """:func:`visible` text that is legal in an XML 1.0 document."""
    return _NOT_XML.sub("\ufffd", visible(text))


def figure_text(text: object) -> str:
    """One line for plotly, which reads ``<b>`` and ``<a href>`` in every label."""
    plain = one_line(text, 40)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def script_json(value: Any) -> str:
    """``value`` as JSON that cannot end the script element it stands in.

    Raises:
        ValueError: ``value`` holds NaN or an infinity; null is what "unknown" is written as.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text

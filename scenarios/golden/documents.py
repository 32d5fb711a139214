"""Documents made of records of one subject: what questions are asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenarios.golden.fields import Value, pick
from scenarios.golden.subjects import Subject

Record = dict[str, Value]


@dataclass(frozen=True)
class Document:
    """A text and the records that it tells, in the order of the text."""

    subject: Subject
    text: str
    records: tuple[Record, ...]

    def key(self, index: int) -> str:
        """The text that names a record."""
        return self.records[index][self.subject.key].text


def document(rng: np.random.Generator, subject: Subject, chars: int) -> Document:
    """A document of about ``chars`` characters about ``subject``; no key occurs twice."""
    records: list[Record] = []
    lines = [f"{subject.heading}."]
    seen: set[str] = set()
    while not records or sum(map(len, lines)) + len(lines) < chars:
        record = {field.name: field.draw(rng) for field in subject.fields}
        key = record[subject.key].text
        if key in seen:
            continue
        seen.add(key)
        records.append(record)
        texts = {name: value.text for name, value in record.items()}
        line = pick(rng, subject.sentences).format(**texts)
        if rng.random() < 0.3:
            line += " " + pick(rng, subject.asides)
        lines.append(line[0].upper() + line[1:])
    return Document(subject, "\n".join(lines), tuple(records))


def spread(rng: np.random.Generator, size: int, count: int) -> list[int]:
    """``count`` different indices below ``size``, in random order; all of them where it is less."""
    order = sorted(range(size), key=lambda _: float(rng.random()))
    return order[:count]

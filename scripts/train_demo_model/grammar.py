"""Reads the corpus grammar (see corpus/README.md) and expands its sentences."""

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Fact:
    """One fact in one or more wordings, with the questions it answers."""

    wordings: list[str]
    questions: list[str] = field(default_factory=list)


@dataclass
class Topic:
    """What can be said about one subject."""

    key: str
    names: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    openings: list[str] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    closings: list[str] = field(default_factory=list)


def read_topics(folder: Path) -> list[Topic]:
    """Topics of all files of the folder, in the order of file names and lines."""
    topics: list[Topic] = []
    for path in sorted(folder.glob("*.txt")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            line = line.strip()
            if line and not line.startswith("#"):
                try:
                    add_line(topics, line)
                except (ValueError, IndexError) as error:
                    raise SystemExit(f"{path}:{number}: {error}: {line}") from None
    for topic in topics:
        if not (topic.names and topic.references and topic.openings and topic.closings):
            raise SystemExit(f"topic {topic.key}: name, refs, open and close are all needed")
    return topics


def add_line(topics: list[Topic], line: str) -> None:
    mark, _, rest = line.partition(" ")
    if line.count("{") != line.count("}"):
        raise ValueError("braces do not match")
    if mark == "==":
        topics.append(Topic(rest))
        return
    topic = topics[-1]
    if mark == "name:":
        topic.names = [part.strip() for part in rest.split("|")]
    elif mark == "refs:":
        topic.references = [part.strip() for part in rest.split("|")]
    elif mark == "open:":
        topic.openings.append(rest)
    elif mark == "close:":
        topic.closings.append(rest)
    elif mark == "-":
        topic.facts.append(Fact([rest]))
    elif mark == "/":
        topic.facts[-1].wordings.append(rest)
    elif mark == "?":
        topic.facts[-1].questions.append(rest)
    else:
        raise ValueError("unknown kind of line")


INNERMOST_CHOICE = re.compile(r"\{([^{}]*)\}")


def expand(sentence: str, rng) -> str:
    """The sentence with each `{a|b}` replaced by one of its parts."""
    while "{" in sentence:
        sentence = INNERMOST_CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), sentence)
    sentence = re.sub(r" +([,.?!])", r"\1", sentence)
    return re.sub(r"  +", " ", sentence).strip()


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


class Referrer:
    """Replaces `@` by a pronoun or a name, so that no name comes twice in a row."""

    def __init__(self, topic: Topic, rng):
        self.pronoun, *self.others = topic.references
        self.last = None
        self.clear = True
        self.rng = rng

    def fill(self, sentence: str) -> str:
        """The sentence with its reference. After a sentence that began with something else, mostly a name."""
        was_clear = self.clear
        self.clear = sentence.startswith(("@", *map(upper_first, [self.pronoun, *self.others]), "Its ", "Their ", "His "))
        if "@" not in sentence:
            return sentence
        others = [name for name in self.others if name != self.last]
        if others and (self.last == self.pronoun or self.rng.random() < (0.3 if was_clear else 0.75)):
            reference = self.rng.choice(others)
        else:
            reference = self.pronoun
        self.last = reference
        if sentence.startswith("@"):
            return upper_first(reference) + sentence[1:]
        return sentence.replace("@", reference)

"""Documents of the demo model's corpus: completions, plain paragraphs and chats, all from one seed."""

import random
from dataclasses import dataclass
from pathlib import Path

from grammar import Fact, Referrer, Topic, expand, read_topics, upper_first
from planets import comparison_paragraph, comparison_question

CORPUS_FOLDER = Path(__file__).parent / "corpus"

# The prompt of the quickstart and its close relatives deserve more practice than the others.
TOPIC_WEIGHT = {"solar system": 5.0, "sun": 2.0, "earth": 1.5, "moon": 1.5, "mars": 1.5, "jupiter": 1.5, "saturn": 1.5}

# Words that begin an opening with a capital only because they begin it.
COMMON_FIRST_WORDS = {
    "The", "Our", "A", "All", "Asteroids", "Auroras", "Comets", "Constellations", "Day", "Distances", "Dwarf", "Exoplanets",
    "Gravity", "Light", "Meteors", "Planets", "Seasons", "Shooting", "Stars", "Telescopes", "Tides",
}

INSTRUCTIONS = ["Complete the paragraph:"] * 8 + ["Continue the paragraph:", "Finish the paragraph:"]

TOPIC_QUESTIONS = [
    "Tell me about {name}.", "Tell me something about {name}.", "Write a short paragraph about {name}.", "Describe {name}.",
    "What do you know about {name}?", "Can you tell me about {name}?", "Please explain {name} to a beginner.",
    "I would like to learn about {name}.", "Give me some facts about {name}.",
]

SMALL_TALK = [
    (["Hello!", "Hi!", "Hello, who are you?", "Good evening!", "Hi there!"],
     ["Hello! I am a very small language model. I know a little about the planets, the moons, and the night sky.",
      "Hello! I am a tiny model that was trained on texts about the solar system. What would you like to know about the sky?"]),
    (["Who are you?", "What are you?", "What can you do?", "What do you know?"],
     ["I am a very small language model. I was trained on short texts about the solar system, so I can write a few sentences about the planets, the moons, and the stars.",
      "I am a tiny model that was trained on texts about the solar system. Ask me about a planet, a moon, or a spacecraft."]),
    (["Thank you!", "Thanks!", "Thank you very much!"],
     ["You are welcome! Enjoy the night sky.", "You are welcome! I hope that you have a clear sky tonight."]),
]


@dataclass(frozen=True)
class Mix:
    """Upper bounds of one uniform draw for each kind: of documents (the rest are chats) and of chats (the rest ask for a topic)."""

    completion: float
    paragraph: float
    small_talk: float
    comparison: float
    two_turns: float
    fact: float


BROAD = Mix(completion=0.48, paragraph=0.62, small_talk=0.03, comparison=0.15, two_turns=0.25, fact=0.60)
MOSTLY_QUESTIONS = Mix(completion=0.20, paragraph=0.26, small_talk=0.02, comparison=0.10, two_turns=0.17, fact=0.90)


class Corpus:
    """An endless, reproducible stream of documents. A document is text with the control tokens spelled out."""

    def __init__(self, seed: int, mix: Mix = BROAD):
        self.mix = mix
        self.rng = random.Random(seed)
        self.topics = read_topics(CORPUS_FOLDER)
        self.weights = [TOPIC_WEIGHT.get(topic.key, 1.0) for topic in self.topics]

    def document(self) -> str:
        draw = self.rng.random()
        if draw < self.mix.completion:
            body = self.completion()
        elif draw < self.mix.paragraph:
            body = self.any_paragraph()
        else:
            body = self.chat()
        return f"<s>{body}</s>"

    def topic(self) -> Topic:
        return self.rng.choices(self.topics, self.weights)[0]

    def any_paragraph(self) -> str:
        if self.rng.random() < 0.06:
            return comparison_paragraph(self.rng)
        return self.paragraph(self.topic(), self.rng.randint(58, 84), fact_first=self.rng.random() < 0.15)

    def opening(self, topic: Topic, fact_first: bool) -> tuple[str, Fact | None]:
        """One of the topic's openings, or, for variety, a fact that can name the topic."""
        facts = [(wording, fact) for fact in topic.facts for wording in fact.wordings
                 if wording.startswith("@ ") and " also " not in wording]
        if not (fact_first and facts):
            return expand(self.rng.choice(topic.openings), self.rng), None
        wording, fact = self.rng.choice(facts)
        return upper_first(expand(wording, self.rng).replace("@", full_name(topic), 1)), fact

    def paragraph(self, topic: Topic, words: int, fact_first: bool = False) -> str:
        """An opening, facts in the order of the topic, perhaps a closing: about `words` words."""
        rng, refer = self.rng, Referrer(topic, self.rng)
        opening, said = self.opening(topic, fact_first)
        closing = expand(rng.choice(topic.closings), rng) if rng.random() < 0.65 else ""
        count = len(opening.split()) + len(closing.split())
        chosen: dict[int, str] = {}
        for index in rng.sample(range(len(topic.facts)), len(topic.facts)):
            sentence = expand(rng.choice(topic.facts[index].wordings), rng)
            if topic.facts[index] is said or is_repetition(opening, sentence):
                continue
            chosen[index] = sentence
            count += len(sentence.split())
            if count >= words:
                break
        sentences = [refer.fill(chosen[index]) for index in sorted(chosen)]
        closing = "" if is_repetition(opening, closing) else refer.fill(closing)
        return " ".join(part for part in [opening, *sentences, closing] if part)

    def completion(self) -> str:
        text = self.any_paragraph()
        first = text.split(" ", 1)[0].rstrip(",")
        if first in COMMON_FIRST_WORDS and self.rng.random() < 0.75:
            text = text[0].lower() + text[1:]
        return f"{self.rng.choice(INSTRUCTIONS)} {text}"

    def chat(self) -> str:
        draw = self.rng.random()
        if draw < self.mix.small_talk:
            questions, answers = self.rng.choice(SMALL_TALK)
            turns = [(self.rng.choice(questions), self.rng.choice(answers))]
        elif draw < self.mix.comparison:
            turns = [comparison_question(self.rng)]
        elif draw < self.mix.two_turns:
            topic = self.topic()
            turns = [self.topic_turn(topic), self.fact_turn(topic)]
        elif draw < self.mix.fact:
            turns = [self.fact_turn(self.topic())]
        else:
            turns = [self.topic_turn(self.topic())]
        return "</s>".join(f"[INST] {question} [/INST] {answer}" for question, answer in turns)

    def topic_turn(self, topic: Topic) -> tuple[str, str]:
        name = self.rng.choice(topic.names)
        text = self.paragraph(topic, self.rng.randint(40, 70))
        if self.rng.random() < 0.12:
            opening = " ".join(text.split()[: self.rng.randint(3, 6)])
            return f"Complete the paragraph: {opening}", text
        if self.rng.random() < 0.3:
            first = topic.references[0]
            verb = {"they": "are", "he": "is", "it": "is"}[first]
            question = f"{'Who' if first == 'he' else 'What'} {plural_aware(verb, name)} {name}?"
            return question, text
        return self.rng.choice(TOPIC_QUESTIONS).format(name=name), text

    def fact_turn(self, topic: Topic) -> tuple[str, str]:
        """A question about one fact: the fact first, then one or two others."""
        rng, refer = self.rng, Referrer(topic, self.rng)
        with_question = [index for index, fact in enumerate(topic.facts) if fact.questions]
        index = rng.choice(with_question)
        others = sorted(rng.sample([i for i in range(len(topic.facts)) if i != index], rng.randint(0, 2)))
        sentences = [expand(rng.choice(topic.facts[i].wordings), rng) for i in [index, *others]]
        # The answer has to name what it is about, since the question did and the pronoun would come from nowhere.
        first = sentences[0].replace("@", plain_reference(topic), 1)
        rest = [refer.fill(sentence) for sentence in sentences[1:]]
        return rng.choice(topic.facts[index].questions), " ".join([upper_first(first), *rest])


def plain_reference(topic: Topic) -> str:
    return topic.references[1] if len(topic.references) > 1 else topic.names[0]


def full_name(topic: Topic) -> str:
    """The topic's first name that agrees with its pronoun."""
    return next((name for name in topic.names if topic.references[0] != "they" or name.split()[0] not in {"a", "an"}), topic.names[0])


def plural_aware(verb: str, name: str) -> str:
    """Names such as `an asteroid` stand beside plural ones; the article tells them apart."""
    return "is" if name.split()[0] in {"a", "an"} else verb


def is_repetition(opening: str, sentence: str) -> bool:
    """Whether the sentence says mostly what the opening said already."""
    words = {word.strip(".,:").lower() for word in sentence.split()}
    long_words = {word for word in words if len(word) >= 4}
    in_opening = {word.strip(".,:").lower() for word in opening.split()}
    return bool(long_words) and len(long_words & in_opening) >= 0.45 * len(long_words)


def documents(seed: int, count: int, mix: Mix = BROAD) -> list[str]:
    corpus = Corpus(seed, mix)
    return [corpus.document() for _ in range(count)]


if __name__ == "__main__":
    import sys

    print("\n\n".join(documents(int(sys.argv[1]), int(sys.argv[2]))))

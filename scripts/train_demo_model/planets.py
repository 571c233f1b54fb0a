"""Sentences that compare two planets, made from one table of true figures."""

from dataclasses import dataclass

ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]


@dataclass(frozen=True)
class Planet:
    name: str
    kind: str
    diameter_km: int
    distance: str
    distance_mkm: float
    year: str
    day: str
    moons: str


# Rounded figures; distances in millions of kilometers serve only to compare.
PLANETS = [
    Planet("Mercury", "rocky planet", 4_900, "58 million", 57.9, "88 days", "176 days", "no moons"),
    Planet("Venus", "rocky planet", 12_100, "108 million", 108.2, "225 days", "117 days", "no moons"),
    Planet("Earth", "rocky planet", 12_700, "150 million", 149.6, "365 days", "24 hours", "one moon"),
    Planet("Mars", "rocky planet", 6_800, "228 million", 227.9, "687 days", "24 hours and 40 minutes", "two moons"),
    Planet("Jupiter", "gas giant", 140_000, "778 million", 778.5, "almost twelve years", "ten hours", "more than ninety known moons"),
    Planet("Saturn", "gas giant", 120_000, "1.4 billion", 1432.0, "about twenty-nine years", "eleven hours", "more than two hundred known moons"),
    Planet("Uranus", "ice giant", 51_000, "2.9 billion", 2867.0, "about eighty-four years", "seventeen hours", "more than twenty-five known moons"),
    Planet("Neptune", "ice giant", 49_000, "4.5 billion", 4515.0, "about 165 years", "sixteen hours", "more than a dozen known moons"),
]


def article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def size_sentence(a: Planet, b: Planet, rng) -> str:
    large, small = (a, b) if a.diameter_km > b.diameter_km else (b, a)
    return rng.choice([
        f"{large.name} is larger than {small.name}, with a diameter of about {large.diameter_km:,} kilometers compared with about {small.diameter_km:,} kilometers.",
        f"The diameter of {large.name} is about {large.diameter_km:,} kilometers, while {small.name} is smaller, with about {small.diameter_km:,} kilometers.",
    ])


def distance_sentence(a: Planet, b: Planet, rng) -> str:
    near, far = (a, b) if a.distance_mkm < b.distance_mkm else (b, a)
    return rng.choice([
        f"{near.name} is closer to the Sun than {far.name}: its distance is about {near.distance} kilometers, and that of {far.name} is about {far.distance} kilometers.",
        f"{far.name} is farther from the Sun, at about {far.distance} kilometers, while {near.name} moves at a distance of about {near.distance} kilometers.",
    ])


def year_sentence(a: Planet, b: Planet, rng) -> str:
    near, far = (a, b) if a.distance_mkm < b.distance_mkm else (b, a)
    return rng.choice([
        f"A year on {near.name} lasts {near.year}, but a year on {far.name} lasts {far.year}.",
        f"{far.name} needs {far.year} for one trip around the Sun, while {near.name} needs {near.year}.",
    ])


def moon_sentence(a: Planet, b: Planet, rng) -> str:
    return rng.choice([
        f"{a.name} has {a.moons}, and {b.name} has {b.moons}." if a.moons != b.moons else f"Both {a.name} and {b.name} have {a.moons}.",
        f"While {a.name} has {a.moons}, {b.name} has {b.moons}." if a.moons != b.moons else f"Neither {a.name} nor {b.name} has a moon.",
    ])


def kind_sentence(a: Planet, b: Planet, rng) -> str:
    if a.kind == b.kind:
        return rng.choice([
            f"{a.name} and {b.name} are both {a.kind}s.",
            f"Both {a.name} and {b.name} belong to the {a.kind}s.",
        ])
    return rng.choice([
        f"{a.name} is {article(a.kind)}, while {b.name} is {article(b.kind)}.",
        f"{a.name} and {b.name} are very different, because {a.name} is {article(a.kind)} and {b.name} is {article(b.kind)}.",
    ])


def comparison_paragraph(rng) -> str:
    """A paragraph about two planets."""
    a, b = rng.sample(PLANETS, 2)
    first = rng.choice([
        kind_sentence(a, b, rng),
        f"{a.name} and {b.name} are two of the eight planets of our solar system.",
    ])
    middle = [make(a, b, rng) for make in (size_sentence, distance_sentence, year_sentence, moon_sentence)]
    middle.pop(rng.randrange(len(middle)))
    return " ".join([first, *middle])


def comparison_question(rng) -> tuple[str, str]:
    """A question about the figures of one or two planets, with its answer."""
    a, b = rng.sample(PLANETS, 2)
    large, small = (a, b) if a.diameter_km > b.diameter_km else (b, a)
    near, far = (a, b) if a.distance_mkm < b.distance_mkm else (b, a)
    index = PLANETS.index(a)
    make = rng.randrange(9)
    if make == 0:
        word = rng.choice(["larger", "bigger"])
        return f"Which planet is {word}, {a.name} or {b.name}?", size_sentence(large, small, rng)
    if make == 1:
        return f"Which planet is closer to the Sun, {a.name} or {b.name}?", distance_sentence(near, far, rng)
    if make == 2:
        return f"Compare {a.name} and {b.name}.", comparison_of(a, b, rng)
    if make == 3:
        return (f"Which is the {ORDINALS[index]} planet from the Sun?",
                f"The {ORDINALS[index]} planet from the Sun is {a.name}, {article(a.kind)} at a distance of about {a.distance} kilometers.")
    if make == 4 and index < 7:
        after = PLANETS[index + 1]
        return f"Which planet comes after {a.name}?", f"After {a.name} comes {after.name}, the {ORDINALS[index + 1]} planet from the Sun."
    if make == 5:
        return f"How long is a day on {a.name}?", f"One day on {a.name}, from noon to noon, lasts about {a.day}."
    if make == 6:
        return f"How many moons does {a.name} have?", f"{a.name} has {a.moons}."
    if make == 7:
        names = [planet.name for planet in PLANETS]
        return (rng.choice(["Name the planets of our solar system.", "Which planets are there?", "How many planets are there in our solar system?"]),
                f"There are eight planets in our solar system. From the Sun outward, they are {', '.join(names[:-1])}, and {names[-1]}.")
    return f"Is {a.name} farther from the Sun than {b.name}?", ("Yes. " if far is a else "No. ") + distance_sentence(a, b, rng)


def comparison_of(a: Planet, b: Planet, rng) -> str:
    return " ".join([kind_sentence(a, b, rng), size_sentence(a, b, rng), distance_sentence(a, b, rng)])

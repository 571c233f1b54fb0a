"""TGI's own Python client."""

import asyncio
import importlib.metadata
import json
import sys

from text_generation import AsyncClient, Client
from text_generation.errors import GenerationError, OverloadedError, ValidationError

from cases import BUSY_URL, KEY, LONG, PROMPT, QUESTION, SCHEMA, URL, Occupied, cancels, case, raised, run

AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}
client = Client(URL, headers=AUTHORIZATION)


@case("generate")
def generate() -> None:
    answer = client.generate(PROMPT, max_new_tokens=12, decoder_input_details=True)
    assert answer.generated_text and answer.details.generated_tokens == 12 and answer.details.finish_reason == "length"
    assert len(answer.details.tokens) == 12 and answer.details.prefill[0].logprob is None


@case("generate streamed")
def stream() -> None:
    whole = client.generate(PROMPT, max_new_tokens=12)
    events = list(client.generate_stream(PROMPT, max_new_tokens=12))
    assert events[-1].generated_text == whole.generated_text and events[-1].details.generated_tokens == 12
    assert [event.token.id for event in events] == [token.id for token in whole.details.tokens]


@case("options: best_of, stop, return_full_text, top_n_tokens, seed")
def options() -> None:
    answer = client.generate(PROMPT, max_new_tokens=8, best_of=2, do_sample=True, temperature=0.9)
    assert len(answer.details.best_of_sequences) == 1
    answer = client.generate(PROMPT, max_new_tokens=8, do_sample=True, temperature=0.9, seed=3)
    assert answer.details.seed == 3
    answer = client.generate(PROMPT, max_new_tokens=60, stop_sequences=["."], return_full_text=True)
    assert answer.generated_text.startswith(PROMPT) and answer.details.finish_reason == "stop_sequence"
    answer = client.generate(PROMPT, max_new_tokens=3, top_n_tokens=2)
    assert all(len(tokens) >= 2 for tokens in answer.details.top_tokens)


@case("structured output")
def structured() -> None:
    answer = client.generate(PROMPT, max_new_tokens=100, grammar={"type": "json", "value": SCHEMA})
    assert set(json.loads(answer.generated_text)) == {"planet", "moons"}


# It cannot read a streamed chat: its types want `role` and `tool_calls` in every chunk, which neither OpenAI nor TGI sends.
@case("chat, with n and logprobs")
def chat() -> None:
    answer = client.chat(messages=QUESTION, max_tokens=8, temperature=0.5, seed=1, n=2, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in answer.choices] == [0, 1] and answer.choices[0].message.content


@case("validation error")
def validation() -> None:
    with raised(ValidationError):
        client.generate("word " * 3000, max_new_tokens=1)


@case("wrong key")
def no_key() -> None:
    # It has no class of its own for it.
    with raised(Exception):
        Client(URL, headers={"Authorization": "Bearer wrong"}).generate(PROMPT, max_new_tokens=1)


@case("overloaded")
def overloaded() -> None:
    with Occupied(), raised(OverloadedError, GenerationError):
        Client(BUSY_URL).generate(PROMPT, max_new_tokens=1)


@case("cancel")
def cancel() -> None:
    async def leave() -> None:
        asynchronous = AsyncClient(URL, headers=AUTHORIZATION)
        streams = [asynchronous.generate_stream(PROMPT, max_new_tokens=LONG, seed=each, temperature=2.0, do_sample=True) for each in range(64)]
        await asyncio.gather(*(each.__anext__() for each in streams))
        for each in streams:
            await each.aclose()

    with cancels():
        asyncio.run(leave())


if __name__ == "__main__":
    sys.exit(run("text-generation", importlib.metadata.version("text-generation")))

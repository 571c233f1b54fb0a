"""LiteLLM."""

import importlib.metadata
import json
import sys

import litellm

from cases import BUSY_URL, KEY, LONG, MANY, PROMPT, QUESTION, SCHEMA, URL, Occupied, cancels, case, raised, run

litellm.suppress_debug_info = True
SERVER = {"api_base": f"{URL}/v1", "api_key": KEY, "max_retries": 0}
CHAT = {**SERVER, "model": "openai/demo", "messages": QUESTION}
TEXT = {**SERVER, "model": "text-completion-openai/demo", "prompt": PROMPT}


@case("completion")
def completion() -> None:
    answer = litellm.text_completion(**TEXT, max_tokens=12, temperature=0)
    assert answer.choices[0].text and answer.usage.completion_tokens == 12


@case("completion streamed")
def completion_streamed() -> None:
    whole = litellm.text_completion(**TEXT, max_tokens=12, temperature=0).choices[0].text
    chunks = list(litellm.text_completion(**TEXT, max_tokens=12, temperature=0, stream=True))
    assert "".join(chunk.choices[0].text or "" for chunk in chunks) == whole


@case("chat")
def chat() -> None:
    answer = litellm.completion(**CHAT, max_tokens=12, temperature=0)
    assert answer.choices[0].message.content and answer.choices[0].finish_reason == "length"


@case("chat streamed")
def chat_streamed() -> None:
    whole = litellm.completion(**CHAT, max_tokens=12, temperature=0).choices[0].message.content
    chunks = list(litellm.completion(**CHAT, max_tokens=12, temperature=0, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[-1].usage.completion_tokens == 12


@case("n, stop, logprobs")
def options() -> None:
    answer = litellm.completion(**CHAT, max_tokens=40, n=2, stop=["."], logprobs=True, top_logprobs=2, seed=1)
    assert len(answer.choices) == 2 and all("." not in choice.message.content for choice in answer.choices)
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


@case("structured output")
def structured() -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "planet", "schema": SCHEMA, "strict": True}}
    answer = litellm.completion(**CHAT, max_tokens=100, response_format=format_)
    assert set(json.loads(answer.choices[0].message.content)) == {"planet", "moons"}


@case("400, 401, 404")
def errors() -> None:
    with raised(litellm.BadRequestError):
        litellm.completion(**CHAT, max_tokens=-1)
    with raised(litellm.ContextWindowExceededError):
        litellm.completion(**CHAT | {"messages": [{"role": "user", "content": "word " * 3000}]}, max_tokens=1)
    with raised(litellm.AuthenticationError):
        litellm.completion(**CHAT | {"api_key": "wrong"}, max_tokens=1)
    with raised(litellm.NotFoundError):
        litellm.completion(**CHAT | {"model": "openai/another"}, max_tokens=1)


@case("503, and a retry")
def overloaded() -> None:
    busy = CHAT | {"api_base": f"{BUSY_URL}/v1", "max_tokens": 1}
    with Occupied(), raised(litellm.ServiceUnavailableError):
        litellm.completion(**busy)
    # OpenAI's client inside of it waits as it is told.
    with Occupied() as occupied:
        occupied.stop()
        litellm.completion(**busy | {"max_retries": 3})


@case("cancel")
def cancel() -> None:
    with cancels():
        stream = litellm.completion(**CHAT, max_tokens=LONG, n=MANY, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.completion_stream.close()


if __name__ == "__main__":
    sys.exit(run("litellm", importlib.metadata.version("litellm")))

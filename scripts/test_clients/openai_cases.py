"""OpenAI's Python package, with responses validated strictly."""

import json
import sys
import time

import openai

from cases import BUSY_URL, KEY, LONG, MANY, MODEL, PROMPT, QUESTION, SCHEMA, URL, Occupied, cancels, case, raised, run

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, _strict_response_validation=True)
# The package's types have no null for `finish_reason` in a completion's chunk, nor for the first of an echoed prompt's log-probabilities.
# OpenAI sends both.
lenient = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY)


@case("models")
def models() -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


@case("completion")
def completion() -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, temperature=0)
    assert answer.choices[0].text and answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12 and answer.usage.total_tokens == 12 + answer.usage.prompt_tokens


@case("completion streamed")
def completion_streamed() -> None:
    whole = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, temperature=0).choices[0].text
    chunks = list(
        lenient.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=12, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole
    assert chunks[-1].usage.completion_tokens == 12 and chunks[-2].choices[0].finish_reason == "length"


@case("prompts as token ids, n")
def prompts() -> None:
    answer = client.completions.create(model=MODEL, prompt=[[1, 20, 30], [1, 40]], max_tokens=3, n=2, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


@case("chat")
def chat() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_completion_tokens=12, temperature=0)
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content


@case("chat streamed")
def chat_streamed() -> None:
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 12, "temperature": 0, "seed": 1}
    whole = client.chat.completions.create(**body).choices[0]
    chunks = list(client.chat.completions.create(**body, stream=True))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == whole.message.content
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason
    # This way of streaming raises where the answer is cut.
    with client.chat.completions.stream(**body | {"stop": [" "]}) as stream:
        assert stream.get_final_completion().choices[0].finish_reason == "stop"


@case("chat n")
def chat_n() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=8, n=3, temperature=1, seed=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


@case("stop")
def stop() -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=60, temperature=0, stop=["."])
    assert answer.choices[0].finish_reason == "stop" and "." not in answer.choices[0].text


@case("logprobs")
def logprobs() -> None:
    lists = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=4, temperature=0, logprobs=2).choices[0].logprobs
    assert len(lists.tokens) == len(lists.top_logprobs) == 4
    lists = lenient.completions.create(model=MODEL, prompt=PROMPT, max_tokens=4, temperature=0, logprobs=2, echo=True).choices[0].logprobs
    assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs) == len(lists.text_offset)
    assert lists.token_logprobs[0] is None and all(value <= 0 for value in lists.token_logprobs[1:])
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=4, logprobs=True, top_logprobs=3)
    assert all(len(token.top_logprobs) == 3 for token in answer.choices[0].logprobs.content)


@case("structured output")
def structured() -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "planet", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, response_format=format_, max_tokens=100)
    assert set(json.loads(answer.choices[0].message.content)) == {"planet", "moons"}
    for more in ({"structured_outputs": {"choice": ["Mars", "Venus"]}}, {"guided_choice": ["Mars", "Venus"]}):
        answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=10, extra_body=more)
        assert answer.choices[0].text in ("Mars", "Venus")


@case("400")
def bad_request() -> None:
    with raised(openai.BadRequestError, param="max_tokens", code="invalid_value"):
        client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=-1)
    with raised(openai.BadRequestError, code="context_length_exceeded"):
        client.completions.create(model=MODEL, prompt=[5] * 5000)


@case("401")
def no_key() -> None:
    with raised(openai.AuthenticationError, code="invalid_api_key"):
        client.with_options(api_key="wrong").models.list()


@case("404")
def not_found() -> None:
    with raised(openai.NotFoundError, code="model_not_found"):
        client.completions.create(model="another", prompt=PROMPT)


@case("503, Retry-After honoured")
def retry_after() -> None:
    seen = []

    def note(response) -> None:
        seen.append((response.status_code, time.monotonic(), response.headers.get("retry-after")))
        occupied.stop()

    http = openai.DefaultHttpxClient(event_hooks={"response": [note]})
    busy = openai.OpenAI(base_url=f"{BUSY_URL}/v1", api_key="-", max_retries=0, http_client=http)
    with Occupied() as occupied, raised(openai.InternalServerError, status_code=503, code="queue_full"):
        busy.completions.create(model=MODEL, prompt=PROMPT, max_tokens=1)
    seen.clear()
    with Occupied() as occupied:
        busy.with_options(max_retries=3).completions.create(model=MODEL, prompt=PROMPT, max_tokens=1)
    first, last = seen[0], seen[-1]
    assert first[0] == 503 and last[0] == 200, seen
    assert seen[1][1] - first[1] >= int(first[2]), seen


@case("cancel")
def cancel() -> None:
    with cancels():
        stream = lenient.completions.create(model=MODEL, prompt=PROMPT, max_tokens=LONG, n=MANY, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    with cancels(), raised(openai.APITimeoutError):
        client.with_options(timeout=0.5, max_retries=0).completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=LONG, n=MANY, extra_body={"ignore_eos": True}
        )


@case("what is asked and not known is named")
def ignored() -> None:
    raw = client.completions.with_raw_response.create(model=MODEL, prompt=PROMPT, max_tokens=1, extra_body={"no_such_field": 1})
    assert raw.headers["x-ignored-fields"] == "no_such_field" and raw.headers["x-request-id"]


if __name__ == "__main__":
    sys.exit(run("openai (Python)", openai.__version__))

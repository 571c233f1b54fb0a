"""huggingface_hub's InferenceClient: OpenAI's chat, and TGI's text generation."""

import json
import sys

import huggingface_hub
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError

from cases import BUSY_URL, KEY, LONG, MANY, MODEL, PROMPT, QUESTION, SCHEMA, URL, Occupied, cancels, case, raised, run

client = InferenceClient(base_url=URL, api_key=KEY)
generate = InferenceClient(model=URL, token=KEY)


def status(error: Exception) -> int:
    return error.response.status_code


@case("chat")
def chat() -> None:
    answer = client.chat_completion(QUESTION, max_tokens=12, temperature=0)
    assert answer.choices[0].message.content and answer.usage.completion_tokens == 12


@case("chat streamed")
def chat_streamed() -> None:
    whole = client.chat_completion(QUESTION, max_tokens=12, temperature=0).choices[0].message.content
    chunks = list(client.chat_completion(QUESTION, max_tokens=12, temperature=0, stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == whole
    assert chunks[-1].usage.completion_tokens == 12


@case("chat by the names of OpenAI's client")
def chat_alias() -> None:
    assert client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=3).choices[0].message.content


@case("chat n, stop, logprobs")
def chat_options() -> None:
    answer = client.chat_completion(QUESTION, max_tokens=40, n=2, stop=["."], logprobs=True, top_logprobs=2, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert "." not in choice.message.content and all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)


@case("structured output")
def structured() -> None:
    for format_ in (
        {"type": "json_schema", "json_schema": {"name": "planet", "schema": SCHEMA}},
        {"type": "json", "value": SCHEMA},
    ):
        answer = client.chat_completion(QUESTION, response_format=format_, max_tokens=100)
        assert set(json.loads(answer.choices[0].message.content)) == {"planet", "moons"}


def completed(**options: object) -> str:
    # At `/`, which this client asks, TGI gives the prompt back too unless it is told not to.
    return generate.text_generation(PROMPT, return_full_text=False, **options)


@case("text generation")
def text_generation() -> None:
    text = completed(max_new_tokens=12)
    details = completed(max_new_tokens=12, details=True, decoder_input_details=True)
    assert text == details.generated_text and details.details.generated_tokens == 12 and details.details.finish_reason == "length"
    assert details.details.prefill and all(token.logprob <= 0 for token in details.details.tokens)


@case("text generation streamed")
def text_generation_streamed() -> None:
    text = completed(max_new_tokens=12)
    assert "".join(completed(max_new_tokens=12, stream=True)) == text
    events = list(completed(max_new_tokens=12, stream=True, details=True))
    assert events[-1].generated_text == text and events[-1].details.finish_reason == "length"


@case("text generation: stop, grammar")
def text_generation_options() -> None:
    text = completed(max_new_tokens=60, stop=["."])
    assert text.endswith(".") and text.count(".") == 1, text
    answer = completed(max_new_tokens=100, grammar={"type": "json", "value": SCHEMA})
    assert set(json.loads(answer)) == {"planet", "moons"}


@case("400, 401, 404")
def errors() -> None:
    for wanted, call in (
        (400, lambda: client.chat_completion(QUESTION, max_tokens=-1)),
        (401, lambda: InferenceClient(base_url=URL, api_key="wrong").chat_completion(QUESTION, max_tokens=1)),
        (404, lambda: client.chat_completion(QUESTION, model="another", max_tokens=1)),
    ):
        with raised(HfHubHTTPError) as seen:
            call()
        assert status(seen.error) == wanted


@case("503")
def overloaded() -> None:
    # It does not retry, and takes a 503 for a model that is not there yet.
    with Occupied(), raised(InferenceTimeoutError, HfHubHTTPError):
        InferenceClient(base_url=BUSY_URL, api_key="-").chat_completion(QUESTION, max_tokens=1)


@case("cancel")
def cancel() -> None:
    with cancels():
        stream = client.chat_completion(QUESTION, max_tokens=LONG, n=MANY, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()


if __name__ == "__main__":
    sys.exit(run("huggingface_hub", huggingface_hub.__version__))

"""langchain-openai."""

import importlib.metadata
import sys

import openai
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI, OpenAI

from cases import BUSY_URL, KEY, LONG, MANY, MODEL, PROMPT, SCHEMA, URL, Occupied, cancels, case, raised, run

SERVER = {"base_url": f"{URL}/v1", "api_key": KEY, "model": MODEL, "max_retries": 0}
ASK = "Which planet is the largest?"


def chat_model(**options: object) -> ChatOpenAI:
    return ChatOpenAI(**SERVER | {"temperature": 0, "max_tokens": 12} | options)


@case("completion, streamed or not")
def completion() -> None:
    model = OpenAI(**SERVER, temperature=0, max_tokens=12)
    assert "".join(model.stream(PROMPT)) == model.invoke(PROMPT) != ""


@case("chat, streamed or not")
def chat() -> None:
    answer = chat_model().invoke(ASK)
    assert answer.content and answer.usage_metadata["output_tokens"] == 12
    chunks = list(chat_model(stream_usage=True).stream(ASK))
    assert "".join(chunk.content for chunk in chunks) == answer.content
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) == 12


@case("batch")
def batch() -> None:
    answers = chat_model().batch([ASK] * 8)
    assert len({answer.content for answer in answers}) == 1


@case("n, stop, logprobs")
def options() -> None:
    result = chat_model(n=2, temperature=1, seed=1).generate([[HumanMessage(ASK)]])
    assert len(result.generations[0]) == 2
    assert "." not in chat_model(max_tokens=60).invoke(ASK, stop=["."]).content
    answer = chat_model(logprobs=True, top_logprobs=2).invoke(ASK)
    assert len(answer.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2


@case("structured output")
def structured() -> None:
    schema = SCHEMA | {"title": "planet"}
    answer = chat_model(max_tokens=100).with_structured_output(schema, method="json_schema", strict=True).invoke(ASK)
    assert set(answer) == {"planet", "moons"}


@case("400, 401, 404, 503")
def errors() -> None:
    with raised(openai.BadRequestError):
        chat_model(max_tokens=-1).invoke(ASK)
    with raised(openai.AuthenticationError):
        chat_model(api_key="wrong").invoke(ASK)
    with raised(openai.NotFoundError):
        chat_model(model="another").invoke(ASK)
    with Occupied(), raised(openai.InternalServerError, status_code=503):
        chat_model(base_url=f"{BUSY_URL}/v1").invoke(ASK)


@case("cancel")
def cancel() -> None:
    with cancels():
        stream = chat_model(max_tokens=LONG, n=MANY, extra_body={"ignore_eos": True}).stream(ASK)
        next(stream)
        stream.close()


if __name__ == "__main__":
    sys.exit(run("langchain-openai", importlib.metadata.version("langchain-openai")))

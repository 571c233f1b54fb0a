"""instructor: answers as objects."""

import importlib.metadata
import sys
from typing import Annotated

import instructor
import openai
from instructor.core import InstructorRetryException
from pydantic import BaseModel, ConfigDict, Field

from cases import BUSY_URL, KEY, MODEL, QUESTION, URL, Occupied, case, raised, run


class Planet(BaseModel):
    model_config = ConfigDict(extra="forbid")

    planet: Annotated[str, Field(max_length=12)]
    moons: Annotated[int, Field(ge=0, le=99)]


def client(mode: instructor.Mode, url: str = URL, key: str = KEY) -> instructor.Instructor:
    return instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0), mode=mode)


def ask(mode: instructor.Mode, **options: object) -> Planet:
    server = {name: options.pop(name) for name in ("url", "key") if name in options}
    body = {"model": MODEL, "messages": QUESTION, "response_model": Planet, "max_tokens": 200, "max_retries": 0} | options
    return client(mode, **server).chat.completions.create(**body)


@case("an object by json_schema")
def schema() -> None:
    assert isinstance(ask(instructor.Mode.JSON_SCHEMA), Planet)


@case("an object as it comes")
def partial() -> None:
    parts = list(
        client(instructor.Mode.JSON_SCHEMA).chat.completions.create_partial(
            model=MODEL, messages=QUESTION, response_model=Planet, max_tokens=200
        )
    )
    assert parts[-1].moons is not None


@case("tools are refused by name")
def tools() -> None:
    with raised(InstructorRetryException, openai.BadRequestError) as seen:
        ask(instructor.Mode.TOOLS)
    assert "tools" in str(seen.error)


@case("400, 401, 404, 503")
def errors() -> None:
    busy = {"url": BUSY_URL, "key": "-"}
    for wanted, options in ((400, {"temperature": -1}), (401, {"key": "wrong"}), (404, {"model": "another"})):
        with raised(InstructorRetryException, openai.APIStatusError) as seen:
            ask(instructor.Mode.JSON_SCHEMA, **options)
        assert str(wanted) in str(seen.error)
    with Occupied(), raised(InstructorRetryException, openai.APIStatusError) as seen:
        ask(instructor.Mode.JSON_SCHEMA, **busy)
    assert "503" in str(seen.error)


if __name__ == "__main__":
    sys.exit(run("instructor", importlib.metadata.version("instructor")))

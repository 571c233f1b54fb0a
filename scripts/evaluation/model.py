"""lm-evaluation-harness's client of completions, which keeps what it received."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from lm_eval.models.openai_completions import LocalCompletionsAPI

# The body of the request that an asyncio task has under way.
SENT: ContextVar[dict] = ContextVar("sent")


@dataclass
class LogLikelihood:
    """What the harness received for one context and continuation."""

    ids: list[int]
    context: int
    # One for each id, the first null, and one for the token that was generated after them.
    token_logprobs: list[float | None]
    total: float
    is_greedy: bool


@dataclass
class Generation:
    """A text that the harness received."""

    ids: list[int]
    stop: list[str]
    max_tokens: int
    text: str


@dataclass
class Received:
    log_likelihoods: list[LogLikelihood] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)


class RecordingCompletions(LocalCompletionsAPI):
    def __init__(self, *, with_bos: bool, **settings) -> None:
        super().__init__(tokenizer_backend="remote", **settings)
        self.received = Received()
        self.bos: list[int] = [self.tokenizer.bos_token_id] if with_bos else []

    def tok_encode(self, string, left_truncate_len=None, **settings):
        if isinstance(string, str):
            ids = self.bos + self.tokenizer.encode(string)
            return ids[-left_truncate_len:] if left_truncate_len else ids
        return [self.tok_encode(each, left_truncate_len) for each in string]

    def parse_logprobs(self, outputs, tokens=None, ctxlens=None, **settings):
        results = LocalCompletionsAPI.parse_logprobs(outputs, tokens=tokens, ctxlens=ctxlens, **settings)
        choices = sorted(outputs["choices"], key=lambda choice: choice["index"])
        for ids, context, choice, (total, is_greedy) in zip(tokens, ctxlens, choices, results, strict=True):
            values = choice["logprobs"]["token_logprobs"]
            self.received.log_likelihoods.append(LogLikelihood(list(ids), context, values, total, is_greedy))
        return results

    def _create_payload(self, messages, **settings):
        payload = super()._create_payload(messages, **settings)
        SENT.set(payload)
        return payload

    async def amodel_call(self, session, sem, messages, *, generate=True, **settings):
        answers = await super().amodel_call(session, sem, messages, generate=generate, **settings)
        if generate:
            sent = SENT.get()
            for ids, text in zip(messages, answers, strict=True):
                self.received.generations.append(Generation(list(ids), sent["stop"], sent["max_tokens"], text))
        return answers

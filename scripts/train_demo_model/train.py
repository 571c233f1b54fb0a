"""Trains the demo model: corpus, tokenizer, rows, optimizer, files."""

import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from corpus import BROAD, MOSTLY_QUESTIONS, Mix, documents
from model import VOCAB_SIZE, new_model, read_directory, write_directory
from tokenizer import PAD_ID, SPECIAL_TOKENS, train_tokenizer

ROW_TOKENS = 256
ROWS_PER_STEP = 5
FINAL_FRACTION = 0.02
WARMUP_STEPS = 100
TOKENIZER_DOCUMENTS = 12_000
HELD_OUT_DOCUMENTS = 400
PACKING_WINDOW = 1_000


def without_control_tokens(document: str) -> str:
    for token in SPECIAL_TOKENS:
        document = document.replace(token, " ")
    return document.strip()


def pack(encoded: list[list[int]]) -> list[list[int]]:
    """Puts whole documents into rows of ROW_TOKENS: longest first, each into the first row of its window with room."""
    rows: list[list[int]] = []
    for start in range(0, len(encoded), PACKING_WINDOW):
        window: list[list[int]] = []
        for ids in sorted(encoded[start : start + PACKING_WINDOW], key=len, reverse=True):
            ids = ids[:ROW_TOKENS]
            row = next((row for row in window if len(row) + len(ids) <= ROW_TOKENS), None)
            if row is None:
                window.append(list(ids))
            else:
                row.extend(ids)
        rows.extend(window)
    return rows


def to_tensors(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Input ids and labels of equal shape; padding has no label."""
    ids = torch.tensor([row + [PAD_ID] * (ROW_TOKENS - len(row)) for row in rows])
    return ids, ids.masked_fill(ids == PAD_ID, -100)


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine, as a fraction of the peak."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return FINAL_FRACTION + (1 - FINAL_FRACTION) * 0.5 * (1 + math.cos(math.pi * progress))


def held_out_loss(model, rows: list[list[int]]) -> float:
    """Mean loss in nats per token over documents of another seed, which share sentences with the training documents."""
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), ROWS_PER_STEP):
            ids, labels = to_tensors(rows[start : start + ROWS_PER_STEP])
            tokens = int((labels[:, 1:] != -100).sum())
            total += float(model(input_ids=ids, labels=labels, use_cache=False).loss) * tokens
            count += tokens
    return total / count


@dataclass(frozen=True)
class Phase:
    """One run of the optimizer over documents of one mix, each document seen once."""

    mix: Mix
    seed_offset: int
    steps: int
    peak_learning_rate: float
    documents_per_row: int


# First everything; then, from the bf16 weights that the first phase wrote, practice in answering with the right fact.
PHASES = [
    Phase(BROAD, seed_offset=0, steps=2300, peak_learning_rate=1.5e-3, documents_per_row=3),
    Phase(MOSTLY_QUESTIONS, seed_offset=100, steps=750, peak_learning_rate=1e-3, documents_per_row=6),
]


def train(output: Path, seed: int, threads: int, first_phase: int, steps_scale: float) -> None:
    """Runs the phases from `first_phase` on; a later phase starts from what the one before left in `output`."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    for number, phase in enumerate(PHASES[first_phase - 1 :], first_phase):
        if number == 1:
            texts = [without_control_tokens(text) for text in documents(seed, TOKENIZER_DOCUMENTS)]
            tokenizer, model = train_tokenizer(texts, VOCAB_SIZE), new_model()
            if tokenizer.get_vocab_size() != VOCAB_SIZE:
                raise SystemExit(f"the corpus gave {tokenizer.get_vocab_size()} tokens instead of {VOCAB_SIZE}: "
                                 "make it larger or VOCAB_SIZE smaller")
        else:
            tokenizer, model = read_directory(output)
        print(f"phase {number} of {len(PHASES)}", flush=True)
        run_phase(phase, model, tokenizer, seed, max(1, round(phase.steps * steps_scale)))
        write_directory(output, model, tokenizer)
        print(f"wrote {output}: model.safetensors has {(output / 'model.safetensors').stat().st_size:,} bytes", flush=True)


def run_phase(phase: Phase, model, tokenizer, seed: int, steps: int) -> None:
    def encode(texts: list[str]) -> list[list[int]]:
        return [item.ids for item in tokenizer.encode_batch(texts, add_special_tokens=False)]

    seed += phase.seed_offset
    wanted_rows = steps * ROWS_PER_STEP
    rows = pack(encode(documents(seed, phase.documents_per_row * wanted_rows, phase.mix)))
    random.Random(seed).shuffle(rows)
    if len(rows) < wanted_rows:
        raise SystemExit(f"{len(rows)} rows are too few for {steps} steps of {ROWS_PER_STEP}: raise documents_per_row")
    rows = rows[:wanted_rows]
    held_out = pack(encode(documents(seed + 1, HELD_OUT_DOCUMENTS, phase.mix)))
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters, {sum(map(len, rows)):,} tokens "
          f"in {len(rows):,} rows, {steps:,} steps", flush=True)

    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=phase.peak_learning_rate, betas=(0.9, 0.97), fused=True,
    )
    started = time.monotonic()
    seen, smooth = 0, None
    model.train()
    for step in range(steps):
        batch = rows[step * ROWS_PER_STEP : (step + 1) * ROWS_PER_STEP]
        ids, labels = to_tensors(batch)
        for group in optimizer.param_groups:
            group["lr"] = phase.peak_learning_rate * learning_rate_factor(step, steps)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen += sum(map(len, batch))
        smooth = loss.item() if smooth is None else 0.97 * smooth + 0.03 * loss.item()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            elapsed = time.monotonic() - started
            print(f"step {step + 1}/{steps}  loss {smooth:.3f}  {seen / elapsed:,.0f} tokens/s  "
                  f"{elapsed:.0f} s, {elapsed / (step + 1) * (steps - step - 1):.0f} s to go", flush=True)
    model.eval()
    print(f"trained on {seen:,} tokens in {time.monotonic() - started:.0f} s; training loss {smooth:.4f}, "
          f"held-out loss {held_out_loss(model, held_out):.4f} nats per token", flush=True)

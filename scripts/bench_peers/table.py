"""The tables of peers.md: what every column measured, this project's ratios to peers of the same width, and its shares of
the machine's limits."""

from columns import OURS, WIDTHS


def lines_of(rows):
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return ["| " + " | ".join(cells) + " |" for cells in rows]


def rates_of(plan):
    """The heading of each rate, and where a result has it."""
    rates = {
        f"context of {length}": lambda result, length=length: result["context_tokens_per_second"][length]
        for length in plan["context"]
    }
    rates |= {
        f"generation, batch {batch}": lambda result, batch=str(batch): result["generation_tokens_per_second"][batch]
        for batch in plan["batches"]
    }
    return rates


def figures(results, rates):
    shown = lambda value: f"{value:.1f}" if value < 100 else f"{value:.0f}"
    rows = [["tokens/s", *rates, "peak resident, MB", "start-up, ms"]]
    for column, result in results.items():
        cells = [shown(rate(result)) for rate in rates.values()]
        cells += [f"{result['peak_resident_bytes'] / 1e6:.0f}", f"{result['start_up_seconds'] * 1e3:.0f}"]
        rows.append([column.name, *cells])
    return lines_of(rows)


def ratios(results, rates):
    """More is better for us; of memory, less."""
    rows = [["ratio", *rates, "peak resident"]]
    figure_of = [*rates.values(), lambda result: result["peak_resident_bytes"]]
    for width, title in WIDTHS.items():
        ours = next((result for column, result in results.items() if (column.engine, column.width) == (OURS, width)), None)
        peers = {column.name: result for column, result in results.items() if column.engine != OURS and column.width == width}
        if ours is None or not peers:
            continue
        of = {name: [figure(ours) / figure(peer) for figure in figure_of] for name, peer in peers.items()}
        rows += [[f"trtllm {width} / {name}", *(f"{ratio:.2f}" for ratio in row)] for name, row in of.items()]
        least = [f"**{min(column):.2f}**" for column in list(zip(*of.values()))[:-1]]
        rows.append([f"**trtllm {width} / the best of {title}**", *least, f"**{max(row[-1] for row in of.values()):.2f}**"])
    return lines_of(rows) if len(rows) > 1 else []


def shares(results):
    """Each by the best that any run saw of a limit: of reads, whatever the weights; of products, with these weights."""
    ours = {column: result for column, result in results.items() if column.engine == OURS}
    reads = max(result["read_bytes_per_second"] for result in ours.values())
    rows = [["share of", "read bandwidth", "matrix peak", "outside the model"]]
    percent = lambda share: f"{share * 100:.1f} %"
    peaks = []
    for column, result in ours.items():
        peak = result["matrix_flops_per_second"]
        peaks.append(f"{peak / 1e9:.0f} ({column.width})")
        for what, work in result["work"].items():
            generates = "outside_model" in work
            read = percent(work["bytes_per_second"] / reads) if generates else ""
            outside = percent(work["outside_model"]) if generates else ""
            rows.append([f"{column.name}, {what}", read, percent(work["flops_per_second"] / peak), outside])
    limits = f"This machine: {reads / 1e9:.1f} GB/s of reads; Gflop/s of matrix products: {', '.join(peaks)}."
    return [limits, "", *lines_of(rows)]


def notes(results):
    reference = next((result for column, result in results.items() if column.name == f"{OURS} bf16"), None)
    for column, result in results.items():
        line = f"- {column.name}: {result['versions']}"
        if reference and result is not reference:
            pairs = list(zip(result["first_ids"], reference["first_ids"]))
            line += f"; {sum(a == b for a, b in pairs)} of {len(pairs)} first tokens as trtllm's in bf16"
        yield line


def table(results, plan):
    rates = rates_of(plan)
    parts = (
        figures(results, rates),
        [f"{plan['threads']} threads each, best of {plan['turns']}."],
        ratios(results, rates),
        shares(results),
        list(notes(results)),
    )
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"

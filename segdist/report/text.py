"""What the report says: numbers as text, sentences about a net, and the rows of its tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from segdist.report.runs import EXPECTED, Run, Step, as_table
from segdist.run.folder import size_of
from segdist.run.result import as_number
from segdist.run.speedup import SpeedUp, goal_note

NONE = "–"
"""What stands where a number is missing."""


def difference(left: Any, right: Any) -> float | None:
    """``left`` − ``right``; None where one is no number."""
    a, b = as_number(left), as_number(right)
    return None if a is None or b is None else a - b


def ratio(numerator: Any, denominator: Any) -> float | None:
    """``numerator`` / ``denominator``; None where one is no number, or zero."""
    top, bottom = as_number(numerator), as_number(denominator)
    return top / bottom if top and bottom else None


def percent(value: Any) -> str:
    """``61.2 %``."""
    number = as_number(value)
    return NONE if number is None else f"{number:.1f}\N{NO-BREAK SPACE}%"


def digits(value: Any) -> str:
    """Three digits that count, and no more: 1843, 52.3, 5.12, 0.041."""
    number = as_number(value)
    if number is None:
        return NONE
    decimals = 2 - math.floor(math.log10(abs(number))) if number else 0
    return f"{number:.{min(max(decimals, 0), 3)}f}"


def times(value: Any) -> str:
    """``1.9×``; two decimals below one, where 0.97 must not look like 1."""
    number = as_number(value)
    return NONE if number is None else f"{number:.1f}×" if number >= 1 else f"{number:.2f}×"


def points(value: Any) -> str:
    """A change with its sign: ``−0.3``; one that rounds to nothing has none."""
    number = as_number(value)
    if number is None:
        return NONE
    return f"{number:+.1f}".replace("-", "−") if round(number, 1) else "0.0"


def drop(value: Any) -> str:
    """A loss of mIoU in points: the sign says which way it went."""
    number = as_number(value)
    return NONE if number is None else f"{points(-number)} points"


def seconds(value: Any) -> str:
    """A duration in seconds as a person says it: ``28 s``, ``1 min 15 s``."""
    number = as_number(value)
    if number is None:
        return NONE
    minutes, rest = divmod(round(number), 60)
    return f"{minutes} min {rest} s" if minutes else f"{number:.0f} s"


def moment(value: Any) -> str:
    """``2026-01-31T12:00:00Z`` as a person writes it; another form as it is."""
    text = str(value or "")
    is_utc = len(text) == 20 and text[10] == "T" and text.endswith("Z")
    return f"{text[:10]} {text[11:16]} UTC" if is_utc else text


def size(value: Any) -> str:
    """An input size as a person writes it: ``256×512``."""
    return str(value).replace("x", "×")


def _flat(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def clean(value: Any) -> str:
    """Text from a log without its control characters (colours, bells)."""
    return "".join(c for c in str(value) if c.isprintable() or c == "\n")


def sentence(run: Run) -> str:
    """The net's result in one sentence."""
    fp32, int8 = run.evaluation("fp32"), run.evaluation("int8")
    where = f" at {size(run.size)}" if len(run.sizes) > 1 else ""
    before = fp32.at(run.size) if fp32 else {}
    after = int8.at(run.size) if int8 else {}
    if int8 and fp32:
        parts = [f"int8 {percent(after.get('miou_pct'))} mIoU (fp32 {percent(before.get('miou_pct'))}){where}"]
        parts.append(faster(run.speed_up(int8, run.size)))
        if smaller := ratio(fp32.metrics.get("size_mb"), int8.metrics.get("size_mb")):
            parts.append(f"{times(max(smaller, 1 / smaller))} {'smaller' if smaller >= 1 else 'larger'}")
        text = ", ".join(parts)
    elif int8:
        text = f"int8 {percent(after.get('miou_pct'))} mIoU{where}; fp32 was not evaluated"
    elif fp32:
        latency = digits(before.get("latency_ms_p50"))
        text = f"fp32 {percent(before.get('miou_pct'))} mIoU{where}, {latency} ms an image"
        text += "; int8 was not evaluated"
    elif (train := run.first("train")) and as_number(train.metrics.get("miou_pct")) is not None:
        text = f"{percent(train.metrics['miou_pct'])} mIoU at the end of the training; not evaluated"
    else:
        text = "no result"
    quantize = run.first("quantize")
    met = quantize.metrics.get("goal_met") if quantize else None
    if quantize and isinstance(met, bool):
        text += f"; goal {goal(quantize)} {'met' if met else 'MISSED'} in tuning"
        kept = after.get("goal_met")
        text += f", {'met' if kept else 'MISSED'} in the evaluation" if isinstance(kept, bool) else ""
    return text


def faster(found: SpeedUp) -> str:
    """A speed-up in words: ``1.5× faster than traced fp32 (1.9× than eager)``, or that it is slower, or why none."""
    if found.factor is None:
        return f"no speed-up claimed ({found.reason})"
    if found.slower:
        against = f"{digits(found.own)} against {digits(found.base)} ms"
        said = f"{found.factor:.2f}×: slower than {found.base_kind} ({against})"
    else:
        said = f"{times(found.factor)} faster than {found.base_kind}"
    beside = "" if found.base_kind == "eager fp32" else f" ({times(found.over_eager)} over eager)"
    return said + beside


def goal(quantize: Step) -> str:
    """The accuracy goal of a quantization, as it was asked for."""
    options = as_table(quantize.config.get("quantization"))
    allowed = as_number(options.get("accuracy_drop"))
    if allowed is None:
        return f"of {percent(quantize.metrics.get('goal_miou_pct'))} mIoU"
    unit = "\N{NO-BREAK SPACE}% relative" if options.get("relative") else " points"
    return f"{allowed * 100:g}{unit}"


def _variant(step: Step, traced: bool = False) -> str:
    eager = step.precision in ("fp32", "bf16")
    kind = f"{step.precision} {'traced' if traced else 'eager'}" if eager else step.precision
    plain = step.folder.name == step.precision or size_of(step.folder.name) is not None
    return kind if plain else f"{kind} · {step.folder.name}"


def _measurements(run: Run, size: str) -> list[dict[str, Any]]:
    """The rows of one net at one size: one an evaluation, one for the traced fp32 or bf16 model (latency only)."""
    fp32 = run.evaluation("fp32", size)
    eager = fp32.at(size) if fp32 else {}
    rows: list[dict[str, Any]] = []
    for step in run.evaluations:
        values = step.at(size)
        if not values:
            continue
        machine, measured, found = as_table(step.result.machine), step.measured(size), run.speed_up(step, size)
        own = [{**step.metrics, **values, "variant": _variant(step)}]
        own[0]["change"] = None if step is fp32 else difference(values.get("miou_pct"), eager.get("miou_pct"))
        if measured.traced is not None:
            traced = {key.removeprefix("traced_"): values[key] for key in values if key.startswith("traced_")}
            own.append({**traced, "variant": _variant(step, traced=True)})
        for row in own:
            row |= {
                "precision": step.precision,
                "isa": machine.get("isa", NONE),
                "threads": machine.get("threads_per_rank", NONE),
                "latency_input": values.get("latency_input", size),
                "speedup": ratio(found.base, row.get("latency_ms_p50")),
                "over_eager": ratio(found.eager, row.get("latency_ms_p50")),
                "latency_ms_p99": row.get("latency_ms_p99") if measured.has_p99 else None,
            }
        rows += own
    return rows


def speed_notes(runs: Sequence[Run]) -> list[str]:
    """Said below the table: what is slower than fp32 or has no speed-up, and why; the goal of each int8 model."""
    notes = []
    for run in runs:
        for place in run.sizes:
            for step in (step for step in run.evaluations if step.at(place)):
                found, said = run.speed_up(step, place), [goal_note(step.measured(place))]
                if found.own and (found.factor is None or found.slower):
                    said.insert(0, faster(found))
                if any(said):
                    kept = "; ".join(filter(None, said))
                    notes.append(f"{run.label} {_variant(step).removesuffix(' eager')}, {size(place)}: {kept}")
    return notes


def groups(runs: Sequence[Run]) -> Iterator[tuple[Run, str | None, list[dict[str, Any]], list[str]]]:
    """(net, input size, its rows, the precisions without one): the blocks of the tables."""
    for run in runs:
        if not run.sizes:
            yield run, None, [], list(EXPECTED)
        for size in run.sizes:
            rows = _measurements(run, size)
            found = {row["precision"] for row in rows}
            yield run, size, rows, [precision for precision in EXPECTED if precision not in found]


def commands(*parts: tuple[Run, Step | None]) -> list[str]:
    """The commands that made what a figure shows, each once, from the steps it is drawn from."""
    return list(dict.fromkeys(step.command for _, step in parts if step is not None))


def grouped(runs: Sequence[Run], pick: Callable[[Step], Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(key, value, where) of what each step states, equal statements taken together."""
    found: dict[tuple[str, str], list[tuple[Run, Step]]] = {}
    for run in runs:
        for step in run.steps:
            for key, value in as_table(pick(step)).items():
                found.setdefault((str(key), _flat(value)), []).append((run, step))
    everywhere = sum(len(run.steps) for run in runs)
    order = list(dict.fromkeys(key for key, _ in found))
    rows = []
    for (key, value), places in sorted(found.items(), key=lambda item: order.index(item[0][0])):
        by_net = {run.net: ", ".join(s.title for r, s in places if r is run) for run, _ in places}
        if len(places) == everywhere:
            where = "every step"
        elif len(set(by_net.values())) == 1 and len(by_net) == len(runs):
            where = next(iter(by_net.values()))
        else:
            where = "; ".join(f"{runs[net].label}: {titles}" for net, titles in by_net.items())
        rows.append((key.replace("_", " "), value, where))
    return rows


def latency_notes(runs: Sequence[Run]) -> list[str]:
    """How the latencies were measured, in the words of the configs; one sentence where all agree."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for step in run.evaluations:
            options = as_table(step.config.get("evaluation"))
            timed, warmup = options.get("latency_runs"), options.get("latency_warmup")
            count = f"{timed or 'An unrecorded number of'} timed runs"
            count += f" after {warmup} to warm up" if timed else ""
            machine = as_table(step.result.machine)
            threads = machine.get("threads_per_rank", "unrecorded")
            isa = machine.get("isa", "unrecorded instruction set")
            how = f"{count}, {threads} thread{'' if threads == 1 else 's'}, {isa}"
            found.setdefault(how, []).append(f"{run.label} {step.title.removeprefix('evaluate ')}")
    return [how if len(found) == 1 else f"{', '.join(who)}: {how}" for how, who in found.items()]

"""Which option earns its default? Pendulum with one option at a time beside plain SAC; table for docs/learning.md.

Every run is kept as one JSON file, so that an interrupted ablation goes on where it was. Three seeds can show that an option
harms or costs much, and hardly that it helps: an option earns the default only if it is ahead in every seed.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.proofs import learn
from benchmarks.proofs.learn import ROOT, Run, Task

BEGIN, END = "<!-- measured: written by benchmarks.proofs.ablation -->", "<!-- end of the ablation -->"
PLAIN = Task("Pendulum-v1", 5_000, 3, -200, 1_000, 10, {"learning_rate": 1e-3})
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer_norm": {"layer_norm": True},
    "normalize_observations": {"normalize_observations": True},
    "scale_returns": {"scale_returns": True},
    "crossq": {"crossq": True},
    "quantiles (TQC)": {"quantiles": 25},
    "quantiles, cvar .25": {"quantiles": 25, "cvar": 0.25},
    "droq_dropout": {"droq_dropout": 0.01},
    "prioritized_replay": {"prioritized_replay": True},
    "n_step 3": {"n_step": 3},
    "max_gradient_norm 1": {"max_gradient_norm": 1.0},
    "train_batch_size 512": {"train_batch_size": 512},
    "mixed_precision": {"mixed_precision": True},
}


def speed(run: Run) -> float:
    """Mean over all evaluations: the higher, the sooner it was learned."""
    return statistics.fmean(run.means)


def table(found: dict[str, list[Run]]) -> str:
    """Markdown, a row a variant; each is held against plain SAC over the seeds that both have played."""
    lines = ["| option | last evaluation, by seed | mean of all evaluations, by seed | ahead of plain |", "|---|---|---|---|"]
    for name, own in found.items():
        plain = found["plain"][: len(own)]
        if not own:
            continue
        last, mean = (", ".join(f"{value:,.0f}" for value in values) for values in ([r.means[-1] for r in own], [speed(r) for r in own]))
        ahead = sum(speed(one) > speed(other) for one, other in zip(own, plain, strict=True))
        lines.append(f"| {name} | {last} | {mean} | {'' if name == 'plain' else f'{ahead} of {len(own)}'} |")
    return "\n".join(lines)


def main() -> int:
    """Play what was not played yet, seed by seed, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proofs.ablation", description=__doc__)
    parser.add_argument("--runs", type=Path, default=ROOT / "build" / "ablation", help="where runs are kept")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where learning.md is")
    parser.add_argument("--seeds", type=int, default=PLAIN.seeds)
    parser.add_argument("--finished", action="store_true", help="play nothing: the table of what was finished")
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    found: dict[str, list[Run]] = {name: [] for name in VARIANTS}
    for seed in range(arguments.seeds):
        for name, options in VARIANTS.items():
            task, key = replace(PLAIN, settings=PLAIN.settings | options), name.replace(" ", "-")
            if not arguments.finished or (arguments.runs / f"{key}-quartet-{seed}.json").exists():
                found[name].append(learn.play(task, key, "quartet", seed, arguments.runs))
    written = table(found)
    print(written)
    page = arguments.docs / "learning.md"
    before, mark, rest = page.read_text().partition(BEGIN)
    if mark:
        page.write_text(f"{before}{BEGIN}\n{written}\n{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

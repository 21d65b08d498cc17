"""One markdown table for each question and one plot, from the result files alone; docs/speed.md's block between its markers.

    python benchmarks/table.py [--print]

Nothing is measured here. The page must hold the lines <!-- benchmarks --> and <!-- /benchmarks --> once each.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from gpu import measured_on_gpu, predict_hours, prediction_sentence
from measuring import RESULTS, SHAPES, as_text, read_results

from clinical_r1.files import replace_block, write_text
from clinical_r1.labels import REWARD_COLOURS
from clinical_r1.plots import save_figure, set_style
from clinical_r1.settings import PROFILES
from clinical_r1.speed.cost import ModelShape, predicted_speed_up, shared_cost, stock_cost
from clinical_r1.tables import markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "speed.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
PLOT = "shared_prefix"
WAY_LABELS = {
    "stock": "stock TRL",
    "liger": "TRL + Liger",
    "unsloth": "Unsloth",
    "prefix_grouper": "Prefix Grouper",
    "ours": "ours",
}


def files_of(question: str, folder: Path) -> list[dict]:
    """The result files of one question, one a machine."""
    return [read_results(path) for path in sorted(Path(folder).glob(f"{question}.*.json"))]


def machine_text(machine: dict) -> str:
    """ "AMD EPYC, 2 of 2 cores, torch 2.13.0"."""
    if "threads" in machine:
        return (
            f"{machine['name']}, {machine['threads']} of {machine['cores']} cores, torch {machine['torch']}"
        )
    return (
        f"{machine['name']} ({machine['memory GiB']} GiB), CUDA {machine['cuda']}, torch {machine['torch']}"
    )


# ------------------------------------------------------------------------------------------------------- the tables


def shared_prefix_tables(values: dict) -> str:
    """Loss and backward over the grid: a table for full fine-tuning and one for LoRA, whichever is there."""
    blocks = []
    keys = ("shape", "layers", "vocabulary", "lora", "dtype")
    for model in dict.fromkeys(tuple(point["settings"][key] for key in keys) for point in values["points"]):
        points = [p for p in values["points"] if tuple(p["settings"][key] for key in keys) == model]
        named = dict(zip(keys, model, strict=True))
        kind = "LoRA" if named["lora"] else "full fine-tuning"
        head = (
            f"**Loss + backward**, Qwen2-{named['shape']} layer shapes × {named['layers']}, vocabulary "
            f"{named['vocabulary']:,}, {kind}, {named['dtype']} ({machine_text(values['hardware'])}). Times faster than stock "
            "TRL, median (lowest–highest); memory: activations kept for the backward pass, as a share of stock's. Prefix "
            "Grouper is our transcription of the published method, not its package."
        )
        header = "P R G|stock, s|ours|predicted|measured / predicted|Prefix Grouper|memory, ours|memory, Prefix Grouper"
        lines = [_shared_prefix_line(point) for point in sorted(points, key=_size)]
        blocks.append(f"{head}\n\n{markdown(header.split('|'), lines)}")
    return "\n\n".join(blocks)


def _size(point):
    return tuple(point["settings"][key] for key in "PRG")


def _shared_prefix_line(point):
    size = " ".join(str(value) for value in _size(point))
    if "skipped" in point:
        return [size, point["skipped"], *["–"] * 6]
    stock = float(np.median(point["seconds"]["stock"]))
    ratios, memory = point["speed_up"], point["memory_ratio"]
    ours = as_text(ratios["ours"]) + (" (stock's own method)" if point["fell_back"] else "")
    return [
        size,
        f"{stock:.2f}" if stock >= 0.1 else f"{stock:.3f}",
        ours,
        f"{point['predicted']:.2f}",
        "–" if point["fell_back"] else f"{point['measured_over_predicted']:.2f}",
        as_text(ratios["prefix_grouper"]),
        f"{memory['ours']:.2f}",
        f"{memory['prefix_grouper']:.2f}",
    ]


def against_package_table(values: dict) -> str:
    """Ours beside the package prefix_grouper: all layers, and attention alone."""
    lines = []
    for point in sorted(
        values["points"], key=lambda p: (p["settings"]["part"] != "model", str(p["settings"]))
    ):
        size = point["settings"]
        alone = size["part"] == "attention"
        what = "attention alone" if alone else f"{size['shape']} × {size['layers']}, V {size['vocabulary']:,}"
        memory = point.get("memory_ratio")
        lines.append(
            [
                what,
                " ".join(str(size[key]) for key in "PRG"),
                "–"
                if alone
                else as_text(point["speed_up"]["ours"]) + (" (stock's own)" if point["fell_back"] else ""),
                "–" if alone else f"{point['predicted']:.2f}",
                "–" if alone else as_text(point["speed_up"]["package"]),
                as_text(point["over_package"]),
                f"{memory['ours']:.2f}, {memory['package']:.2f}" if memory else "–",
            ]
        )
    head = (
        f"**Beside the package** prefix_grouper 0.0.1.post1: loss + backward, LoRA, float32, fewer layers than the models have, "
        f"their whole vocabulary where it says so ({machine_text(values['hardware'])}). CPU seconds in turn in one process, on a "
        "machine with other work."
    )
    header = "|P R G|ours / stock|predicted|package / stock|ours / package|memory, ours and package".split(
        "|"
    )
    return f"{head}\n\n{markdown(header, lines)}"


def head_table(values: dict) -> str:
    """The last layer in chunks."""
    lines = []
    for point in values["points"]:
        size, peak = point["settings"], point["peak_bytes"]
        kind = "frozen (LoRA)" if size["frozen"] else "trained"
        lines.append(
            [
                f"V {size['vocabulary']:,}, h {size['hidden']}, {kind}",
                f"{float(np.median(point['seconds']['whole'])):.2f}",
                as_text(point["speed_up"]),
                f"{peak['whole'] / 2**20:,.0f}",
                f"{peak['chunks'] / 2**20:,.0f}",
            ]
        )
    tokens = values["points"][0]["settings"]["tokens"]
    head = (
        f"**The last layer in chunks**, {tokens:,} tokens, forward + backward, float32 ({machine_text(values['hardware'])}). CPU "
        "seconds in turn; memory: growth of a fresh process's largest resident size."
    )
    header = ["", "whole, s", "times faster in chunks", "whole, MiB", "chunks, MiB"]
    return f"{head}\n\n{markdown(header, lines)}"


def rl_step_table(values: dict) -> str:
    """Whole steps and their parts."""
    blocks = []
    for point in values["points"]:
        size = point["settings"]
        head = (
            f"**A whole RL step** of `{size['profile']}`: {size['rl_prompts']} prompts × {size['num_generations']} completions, "
            f"LoRA ({machine_text(values['hardware'])}); {point['repeats']} steps each in turn, CPU time. With stock draws "
            "the completions are those of stock TRL."
        )
        parts, ratios = point["parts"], point["speed_up"]
        lines = []
        for part in ("step", *parts["stock"]):
            times = [
                f"{float(np.median(point['seconds'][way])) if part == 'step' else parts[way][part]:.3f}"
                for way in ("stock", "stock_draws", "ours")
            ]
            lines.append([part, *times, as_text(ratios[part]) if part in ratios else "–"])
        header = ["", "stock TRL, s", "ours with stock draws, s", "ours, s", "times faster"]
        blocks.append(f"{head}\n\n{markdown(header, lines)}")
    return "\n\n".join(blocks)


def _model_and_prompts(size: dict) -> str:
    """What a row of the rollouts has that is not the grid's."""
    text = ""
    if size.get("shape", "0.5B") != "0.5B":
        text = f", {size['shape']} × {size['layers']}, V {size['vocabulary']:,}"
    return text + (f", {size['distinct']} prompts of P/2 to P" if size.get("padded") else "")


def rollouts_table(values: dict) -> str:
    """Generation with and without shared prefill."""
    lines = []
    for point in sorted(values["points"], key=lambda p: (p["settings"]["P"], p["settings"]["G"])):
        size, rates = point["settings"], point["tokens_per_second"]
        lines.append(
            [
                f"{size['P']} {size['new']} {size['G']}" + _model_and_prompts(size),
                f"{rates['plain']:,.0f}",
                f"{rates['shared']:,.0f}",
                as_text(point["speed_up"]["shared"]),
            ]
        )
    head = f"**Rollouts** by Transformers, shared prefill ({machine_text(values['hardware'])})."
    header = ["P, new tokens, G", "plain, tokens/s", "shared, tokens/s", "times faster"]
    return f"{head}\n\n{markdown(header, lines)}"


def evaluation_table(values: dict) -> str:
    """CPU time of an answer, before and now."""
    lines = []
    for point in values["points"]:
        size = point["settings"]
        times = [
            f"{1000 * float(np.median(point['seconds'][way])) / size['batch']:.2f}"
            for way in ("before", "now")
        ]
        lines.append([size["adapter"], size["protocol"], *times, as_text(point["speed_up"]["now"])])
    head = (
        "**Evaluation**: CPU time of an answer to `cpu`'s questions; before, with Transformers' `generate` and the adapter "
        f"beside its base ({machine_text(values['hardware'])})."
    )
    header = ["adapter", "", "before, ms", "now, ms", "times less"]
    return f"{head}\n\n{markdown(header, lines)}"


def rewards_table(values: dict) -> str:
    """Completions scored a second."""
    point = values["points"][-1]
    rates = point["completions per second"]
    lines = [[name, f"{rate:,}", f"{rate / rates['official rule']:.2f}"] for name, rate in rates.items()]
    head = (
        f"**Rewards**, one core, completions of {point['words per completion']:,} words "
        f"({machine_text(values['hardware'])})."
    )
    return f"{head}\n\n{markdown(['', 'completions/s', 'over the official rule'], lines)}"


def gpu_table(values: dict) -> str:
    """Every way on a GPU."""
    lines = []
    for point in values["points"]:
        size = point["settings"]
        name = "{shape} P {P} R {R} G {G}".format(**size) + (
            ", checkpointing" if size["checkpointing"] else ""
        )
        for way, own in point["ways"].items():
            memory = f"{own['peak_bytes'] / 2**30:.1f}" if own["peak_bytes"] else "–"
            lines.append(
                [
                    name,
                    WAY_LABELS[way],
                    f"{own['seconds']['median']:.3f}",
                    as_text(own["speed_up"]) if "speed_up" in own else "–",
                    memory,
                    f"{own['tokens_per_second']:,.0f}",
                    f"{own['mfu']:.0%}" if own["mfu"] else "–",
                ]
            )
        for way, reason in point["failed"].items():
            lines.append([name, WAY_LABELS[way], reason, *["–"] * 4])
    head = f"**On a GPU**: loss + backward, bfloat16, LoRA ({machine_text(values['hardware'])})."
    header = ["", "", "seconds", "times faster than stock", "peak GiB", "tokens/s", "share of the peak"]
    return f"{head}\n\n{markdown(header, lines)}"


TABLES = {
    "shared_prefix": shared_prefix_tables,
    "against_package": against_package_table,
    "head": head_table,
    "rl_step": rl_step_table,
    "rollouts": rollouts_table,
    "evaluation": evaluation_table,
    "rewards": rewards_table,
    "gpu": gpu_table,
}


def block(folder: Path = RESULTS) -> str:
    """The page's block: every question that has a result, the plot, and the predicted duration of `paper`."""
    parts = []
    for question, table in TABLES.items():
        found = files_of(question, folder)
        parts += [table(values) for values in found if values["points"]]
        if question == "shared_prefix" and found:
            parts.append(f"![Speed-up and cost, predicted and measured](../benchmarks/results/{PLOT}.png)")
    if not parts:
        return "No benchmark has been run yet."
    if not files_of("gpu", folder):
        parts.append("No GPU could be had where these were measured.")
    parts.append(prediction_sentence(predict_hours(PROFILES["paper"], measured_on_gpu(folder))))
    return "\n\n".join(parts)


# ---------------------------------------------------------------------------------------------------------- the plot


def grid_frame(values: dict, lora: bool):
    """A row a measured point: P, R, G, predicted and measured speed-up, seconds and cost of both sides."""
    import pandas as pd

    rows = []
    for point in values["points"]:
        size = point["settings"]
        if "skipped" in point or size["lora"] != lora:
            continue
        shape = cost_shape(size)
        sizes = [(size["P"], [size["R"]] * size["G"])]
        stock = stock_cost(shape, size["G"], size["P"], size["R"])
        rows.append(
            {key: size[key] for key in "PRG"}
            | {
                "predicted": point["predicted"],
                **{name: point["speed_up"]["ours"][name] for name in ("median", "low", "high")},
                "fell_back": point["fell_back"],
                "stock_cost": stock,
                "ours_cost": stock if point["fell_back"] else shared_cost(shape, sizes),
                "stock_seconds": float(np.median(point["seconds"]["stock"])),
                "ours_seconds": float(np.median(point["seconds"]["ours"])),
            }
        )
    return pd.DataFrame(rows)


def cost_shape(settings: dict) -> ModelShape:
    """The cost model's view of a benchmark's model, without building it (full fine-tuning: an adapter adds 1 or 2 %)."""
    size = SHAPES[settings["shape"]]
    hidden, head = size["hidden_size"], size["hidden_size"] // size["num_attention_heads"]
    weights = 2 * hidden**2 + 2 * hidden * head * size["num_key_value_heads"]
    weights += 3 * hidden * size["intermediate_size"]
    layers = settings["layers"]
    return ModelShape(weights * layers, layers, hidden, hidden, settings["vocabulary"])


def draw(values: dict, lora: bool = False):
    """Left: speed-up over P, predicted lines and measured points. Right: seconds over predicted cost. Returns the figure."""
    frame = grid_frame(values, lora)
    if frame.empty:
        raise ValueError("no point was measured; run benchmarks/shared_prefix.py first.")
    shape = next(cost_shape(point["settings"]) for point in values["points"] if "skipped" not in point)
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0), layout="constrained")
    groups, completions = sorted(frame["G"].unique()), sorted(frame["R"].unique())
    colours = dict(zip(groups, REWARD_COLOURS, strict=False))
    looks = dict(zip(completions, (("--", "o"), ("-", "D"), (":", "s"), ("-.", "^")), strict=False))
    prompts = np.geomspace(frame["P"].min() / 1.3, frame["P"].max() * 1.3, 40)
    for (completion, group), rows in frame.groupby(["R", "G"]):
        style, marker = looks[completion]
        look = {"color": colours[group], "label": f"G = {group}, R = {completion}"}
        curve = [predicted_speed_up(shape, p, completion, group) for p in prompts]
        left.plot(prompts, curve, ls=style, color=colours[group], lw=1.2)
        spread = [rows["median"] - rows["low"], rows["high"] - rows["median"]]
        left.errorbar(
            rows["P"], rows["median"], yerr=spread, ls="none", marker=marker, ms=4.5, capsize=2, **look
        )
    left.set_xscale("log", base=2)
    left.set_xticks(sorted(frame["P"].unique()), [f"{p:,}" for p in sorted(frame["P"].unique())])
    left.axhline(1, color="#888888", lw=0.8)
    left.set(
        title="Lines predicted, points measured",
        xlabel="P, tokens of the prompt",
        ylabel="Times faster than stock TRL",
        ylim=(0, None),
    )
    _draw_cost(right, frame)
    handles, labels = left.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(groups))
    return fig


def _draw_cost(ax, frame):
    """Seconds of both sides over the operations the cost model counts; the line is one rate for all."""
    for side, marker, colour in (("stock", "o", "#6E6E6E"), ("ours", "D", "#D55E00")):
        ax.plot(
            3 * frame[f"{side}_cost"] / 1e12,
            frame[f"{side}_seconds"],
            ls="none",
            marker=marker,
            ms=4.5,
            color=colour,
            label={"stock": "stock TRL", "ours": "ours"}[side],
        )
    costs = np.concatenate([frame["stock_cost"], frame["ours_cost"]]) * 3 / 1e12
    seconds = np.concatenate([frame["stock_seconds"], frame["ours_seconds"]])
    rate = float(np.exp(np.mean(np.log(costs / seconds))))
    ends = np.array([costs.min() / 1.3, costs.max() * 1.3])
    ax.plot(ends, ends / rate, color="#222222", lw=1.0, label=f"{rate:.2g} · 10¹² a second")
    ax.set(
        xscale="log",
        yscale="log",
        title="Time against predicted cost; the line is one rate",
        xlabel="Predicted cost, 10¹² operations",
        ylabel="Seconds, loss + backward",
    )
    ax.legend(loc="upper left")


def write_plot(folder: Path = RESULTS) -> Path | None:
    """results/shared_prefix.png from the first machine's file (most points); None without one."""
    found = [
        values
        for values in files_of("shared_prefix", folder)
        if any("skipped" not in p for p in values["points"])
    ]
    if not found:
        return None
    values = max(found, key=lambda v: len(v["points"]))
    set_style()
    full = [p for p in values["points"] if not p["settings"]["lora"] and "skipped" not in p]
    fig = draw(values, lora=not full)
    paths = save_figure(fig, PLOT, folder)
    plt.close(fig)
    (Path(folder) / f"{PLOT}.pdf").unlink()  # the page shows the PNG; the figure is made again in a second
    return paths[0]


# ------------------------------------------------------------------------------------------------------------- the page


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--print", action="store_true", help="print the block and write nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    content = block(arguments.results)
    if arguments.print:
        print(content)
        return 0
    text = replace_block(arguments.page.read_text(encoding="utf-8"), BEGIN, END, content)
    write_plot(arguments.results)
    write_text(arguments.page, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

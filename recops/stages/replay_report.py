"""What a replay came to: the policies side by side, each fault and the loop's answer, and the metric by day as a plot.

In: the days of each policy. Out: JSON values, rows of tables, SVG. Knows neither projects nor stores.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recops.evaluation.bootstrap import paired_bootstrap
from recops.stages.replay_policy import METRICS, SAMPLES, intervals

if TYPE_CHECKING:
    from recops.stages.replay import Plan
    from recops.stages.replay_policy import Played

COLUMNS = ["policy", "NDCG@10", "HR@10", "NDCG@10 above the first", "last day", "trained", "served", "refused", "CPU s"]


def summary(plan: "Plan", played: "Mapping[str, tuple[Played, list[dict[str, Any]]]]") -> dict[str, Any]:
    """`policies` by name (metrics over all days with intervals, difference to the first policy on the same users, what
    the loop did, CPU seconds of training and of watching), their `days`, and `faults` with the loop's answers."""
    by_user = {policy: _by_user(one, [day["day"] for day in days]) for policy, (one, days) in played.items()}
    first = next(iter(by_user))
    policies = {}
    for policy, (_, days) in played.items():
        nights = [day["night"] for day in days if "night" in day]
        judged = [night["judged"] for night in nights if "judged" in night]
        pairs = by_user[policy].join(by_user[first], on="user_id", suffix="_first")
        policies[policy] = {
            "metrics": intervals(by_user[policy].select(METRICS).to_numpy(), plan.seed),
            "above_first": {
                name: _paired(pairs[name].to_numpy(), pairs[f"{name}_first"].to_numpy(), plan.seed) for name in METRICS
            },
            "trained": len(judged),
            "promoted": sum(one["verdict"] == "promote" for one in judged),
            "refused": sum(one["verdict"] != "promote" for one in judged),
            "train_cpu_s": round(sum(one["cpu_s"] for one in judged), 1),
            "watch_cpu_s": round(sum(night["due"]["cpu_s"] for night in nights), 1),
            "days": days,
        }
    planted = sorted(plan.faults, key=lambda fault: fault.day)
    ends = [*(fault.day for fault in planted[1:]), plan.last]
    answers = [
        answer(fault, policy, [day for day in days if day["day"] <= end])
        for fault, end in zip(planted, ends, strict=False)
        for policy, (_, days) in played.items()
    ]
    return {"days": [plan.first, plan.last], "users": plan.users, "seed": plan.seed, "policies": policies} | {
        "faults": answers
    }


def _by_user(played: "Played", days: Sequence[int]) -> pl.DataFrame:
    """Of each user who was asked, the mean over the days on which it was."""
    return pl.concat([played.values(day) for day in days]).group_by("user_id").mean().sort("user_id")


def _paired(a: np.ndarray, b: np.ndarray, seed: int) -> list[float | None]:
    found = paired_bootstrap(a, b, SAMPLES, seed)
    return [None if np.isnan(value) else value for value in found]


def answer(fault: Any, policy: str, days: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the loop said to a planted fault in the night after it, and how what was then served did against the last
    good release on each of the `days` after. What had drifted or warned the night before as well says nothing of the
    fault. `fell`: days on which what was served is proven below; `silent`: so, and nothing was said."""
    nights = {day["day"]: day["night"] for day in days if "night" in day}
    night = nights[fault.day]
    told, drift, judged = night["told"], night["due"]["drift"], night.get("judged")
    said = []
    if told["refused"]:
        said.append(f"POST /events refused {told['refused']} of {told['events']} events ({told['reason']})")
    if told["repeated"]:
        said.append(f"POST /events counted {told['repeated']} of {told['events']} events as repeated")
    before = nights.get(fault.day - 1, {})
    usual = before.get("due", {}).get("drift", {}).get("features", [])
    new = [feature for feature in drift["features"] if feature not in usual]
    if new or drift["verdict"] not in ("none", "drift"):
        said.append(f"drift check: {drift['verdict']} ({', '.join(new) or drift['reason']})")
    if judged:
        usual = before.get("judged", {}).get("warned", {})
        warned = [f"{rule} {value}" for rule, value in judged["warned"].items() if rule not in usual]
        said += [f"validation warned ({', '.join(warned)})"] if warned else []
    if judged and judged["verdict"] != "promote":
        why = [f"{rule} {value}" for rule, value in judged["stopped"].items()] or judged["reasons"]
        said.append(f"{judged['stage']}: {judged['verdict']} ({'; '.join(why)})")
    outcome = "not trained, kept" if judged is None else "promoted" if judged["verdict"] == "promote" else "kept"
    later = [day for day in days if day["day"] > fault.day and "last_good" in day["morning"]]
    differences = {day["day"]: day["morning"]["last_good"]["difference"]["ndcg@10"] for day in later}
    fell = [day for day, (_, _, high) in differences.items() if high < 0]
    return {
        **{"fault": fault.kind, "day": fault.day, "policy": policy, "said": said, "outcome": outcome},
        **{"against_last_good": {str(day): list(d) for day, d in differences.items()}},
        **{"fell": fell, "silent": bool(fell) and not said},
    }


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The table of policies, for `COLUMNS`."""
    table = []
    for policy, one in found["policies"].items():
        ndcg, hits = (_interval(one["metrics"][name]) for name in METRICS)
        last = _interval(one["days"][-1]["morning"]["metrics"]["ndcg@10"])
        above = _interval(one["above_first"]["ndcg@10"], "+.4f")
        counts = [str(one[key]) for key in ("trained", "promoted", "refused")]
        cpu = f"{one['train_cpu_s'] + one['watch_cpu_s']:.0f}"
        table.append([policy, ndcg, hits, above, last, *counts, cpu])
    return table


def fault_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """fault, day, policy, what the loop said, what came of it, the next day's NDCG@10 against the last good release."""
    return [
        [
            *(one["fault"], str(one["day"]), one["policy"], "; ".join(one["said"]) or "nothing", one["outcome"]),
            next((_interval(d, "+.4f") for d in one["against_last_good"].values()), "the same release"),
        ]
        for one in found["faults"]
    ]


def _interval(values: Sequence[float | None], form: str = ".4f") -> str:
    if values[0] is None:
        return "-"
    return f"{values[0]:{form}} [{', '.join(f'{value:{form}}' for value in values[1:])}]"


def write_plot(path: Path, found: Mapping[str, Any]) -> None:
    """NDCG@10 by day of each policy with its 95 % interval; nights after which another release was served are dots."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from recops.evaluation.charts import ACCENT, OTHERS, STYLE

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.0), layout="constrained")
        axes = figure.subplots()
        for colour, (policy, one) in zip((OTHERS[0], ACCENT, *OTHERS[1:]), found["policies"].items(), strict=False):
            days = [day for day in one["days"] if day["morning"]["metrics"]["ndcg@10"][0] is not None]
            x = [day["day"] for day in days]
            value, low, high = (list(v) for v in zip(*(d["morning"]["metrics"]["ndcg@10"] for d in days), strict=True))
            axes.plot(x, value, color=colour, label=policy, linewidth=1.6)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            releases = [day["morning"]["release"] for day in days]
            new = [n for n in range(len(days)) if n == 0 or releases[n] != releases[n - 1]]
            axes.plot([x[n] for n in new], [value[n] for n in new], "o", color=colour, markersize=4)
        for fault in {(one["fault"], one["day"]) for one in found["faults"]}:
            axes.axvline(fault[1], color="#be123c", linestyle=":", linewidth=1)
            axes.annotate(fault[0], (fault[1], axes.get_ylim()[1]), color="#be123c", fontsize=8, ha="left", va="top")
        axes.set_title("NDCG@10 of the morning's lists by day (dots: a new release)")
        axes.set_xlabel("day of the log")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        path.write_text(text.getvalue(), encoding="utf-8")

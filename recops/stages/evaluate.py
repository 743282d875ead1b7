"""Stage evaluate: the model beside its baselines on the test part, and which of them is best on validation.

Selection looks at validation only. The test figures are for the reader and the gate.
"""

import json
import math
from typing import Any

from recops.bundle import canonical_json, write_atomically
from recops.evaluation.report import write_plots, write_report
from recops.release.export import cut_links, torch_scorer
from recops.stages.project import Project
from recops.stages.task import best, read_part, read_train
from recops.stages.train import fitted_models, load_model


def evaluate(project: Project) -> dict[str, Any]:
    """Writes reports/metrics.json, its test values alone for `dvc metrics` (summary.json), reports/plots/*.csv and
    reports/index.html; returns the metrics.

    `chosen` is the model with the best validation metric, the configured model where several are equal.
    """
    params = project.params
    settings, interactions = params.evaluate, read_train(project)
    names = fitted_models(project)
    valid, test = read_part(project, "valid", interactions), read_part(project, "test", interactions, with_items=True)
    figures: dict[str, Any] = {}
    curves = {}
    for name in names:
        model = load_model(project.model / name, interactions, params.train.seed)
        # As they will be served: neighbours beyond `export.max_links` speak for nothing.
        scorer = torch_scorer(cut_links(model.parts(), params.export.max_links))
        curves[name] = json.loads((project.model / name / "fit.json").read_text(encoding="utf-8"))
        # What an ensemble learnt from validation must not be judged there again: its own figure is cross-fitted.
        is_ensemble = hasattr(model, "blend")
        found = curves[name]["best_metric"] if is_ensemble else valid.mean(scorer, settings.metric)
        figures[name] = {"valid": {settings.metric: math.nan if found is None else found}, **test.evaluate(scorer)}
    by_name = {name: figures[name]["valid"][settings.metric] for name in names}
    chosen = best(by_name, valid.lower_is_better, preferred=params.train.model)
    split = json.loads((project.split / "split.json").read_text(encoding="utf-8"))
    metrics = {
        "chosen": chosen,
        "metric": settings.metric,
        "lower_is_better": valid.lower_is_better,
        "split": params.split.name,
        "models": figures,
    }
    write_atomically(project.reports / "metrics.json", canonical_json(metrics))
    summary = {name: {m: entry["value"] for m, entry in f["metrics"].items()} for name, f in figures.items()}
    write_atomically(project.reports / "summary.json", canonical_json(summary))
    write_plots(project.reports / "plots", metrics, curves)
    write_report(
        project.reports,
        metrics,
        curves,
        json.loads((project.reports / "validation.json").read_text(encoding="utf-8")),
        {"source": params.source.name, "train": params.train.model_dump(), "split": split},
        json.loads((project.tables / "counts.json").read_text(encoding="utf-8")),
    )
    return metrics

"""Decides whether tables are fit to train on: Great Expectations over aggregates of every row.

In: Parquet tables, the suites of `expectations/` and the last accepted profile. Out: a Verdict, validation.json and
Data Docs. The only file that knows Great Expectations. Knows neither how tables were made nor what the caller does
with a verdict. Each rule of a suite is an expectation on one figure, and its `meta` says
  metric    SQL of the figure (see profile.py); absent for `num_rows`, `unreadable`, `unknown_columns`, `type.<column>`
  column    of the table, that the rule is about (optional)
  action    stop or warn; `first`: the action while nothing has been accepted yet, where it differs
  why       one sentence; `examples`: SQL predicate, or query, of rows to show; `skip`: what a null figure means
`meta` of a suite may hold `tables` (SQL of intermediate results) and `profile` (SQL of figures only to be remembered).
Metrics know the settings $now, $live, $order, $kinds, $split, and the remembered figures as $accepted.<name>.
"""

import json
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recops.data.data_docs import make_readable
from recops.data.profile import COLUMNS, PARTS, Profiler, check_sql, filled, plain, profiler
from recops.errors import CallError

ACTIONS = ("stop", "warn")


@dataclass(frozen=True)
class RuleResult:
    """One rule on one table. `observed` is the figure, None where it could not be had; `note` then says why."""

    table: str
    rule: str
    column: str | None
    action: str
    observed: Any
    expected: str
    why: str
    note: str = ""
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Verdict:
    """Every rule stands in exactly one of the lists. `profile`: figures by table, to be judged against next time."""

    stopped: list[RuleResult] = field(default_factory=list)
    warned: list[RuleResult] = field(default_factory=list)
    skipped: list[RuleResult] = field(default_factory=list)
    passed: list[RuleResult] = field(default_factory=list)
    profile: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.stopped

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


@dataclass(frozen=True)
class Suite:
    """One file of `expectations/`, its expectations as plain JSON."""

    path: Path
    tables: dict[str, str]
    profile: dict[str, str]
    rules: list[dict[str, Any]]

    def metrics(self) -> dict[str, str]:
        rules = {rule["kwargs"]["column"]: rule["meta"]["metric"] for rule in self.rules if "metric" in rule["meta"]}
        return {**self.profile, **rules}


def read_suite(path: Path) -> Suite:
    """Raises CallError naming file and rule when a rule lacks its action, its reason or a column."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CallError(f"{path}: no such file; every table needs its expectations") from None
    except ValueError as error:
        raise CallError(f"{path}: not readable as JSON: {error}") from None
    rules = content.get("expectations", [])
    names = [rule.get("kwargs", {}).get("column") for rule in rules]
    for position, (name, rule) in enumerate(zip(names, rules, strict=True), start=1):
        meta = rule.get("meta", {})
        actions = (meta.get("action"), meta.get("first", "warn"))
        if not name or not meta.get("why") or any(action not in ACTIONS for action in actions):
            raise CallError(
                f"{path}: rule {name or position}: needs kwargs.column, meta.why, and meta.action stop or warn"
            )
        if names.count(name) > 1:
            raise CallError(f"{path}: rule {name}: stands there more than once")
    meta = content.get("meta", {})
    return Suite(path, meta.get("tables", {}), meta.get("profile", {}), rules)


def validate(
    tables: Mapping[str, Path],
    suites: Path,
    accepted: Mapping[str, Any] | None,
    out: Path,
    *,
    now: datetime | None,
    live: bool,
    kinds: list[str],
    order: str = "time",
    docs: bool = True,
) -> Verdict:
    """Judges `tables` (name to Parquet) by `suites`/<name>.json and writes `out`/validation.json and `out`/data_docs.

    `accepted`: the profile of the last accepted verdict, None on the first import, which softens rules that have
    `first`. `now` is UTC when it has no zone; freshness is judged against it only when `live`. `kinds`: the kinds of
    event there may be. `order`: as in `source.order`. `docs` false leaves the Data Docs out.
    Raises CallError for missing files and broken suites.
    """
    if now is not None:
        now = (now if now.tzinfo else now.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None)
    settings = {"now": now and now.isoformat(), "live": live, "order": order, "kinds": list(kinds), "split": None}
    with profiler(tables, out) as profile:
        return _judged(profile, list(tables), suites, accepted, settings, out, docs)


def validate_split(
    folder: Path, suites: Path, out: Path, *, split: str = "leave_last_out", docs: bool = True
) -> Verdict:
    """Judges train, valid and test `.parquet` in `folder` by `suites`/split.json: no part may know another's future.

    `split`: the splitter's name, since a cut in time is only demanded of splits that make one. Writes the same files
    as `validate`, so `out` must be another folder than that of the tables. Raises CallError for missing files.
    """
    settings: dict[str, Any] = {"now": None, "live": False, "order": None, "kinds": [], "split": split}
    with profiler({part: folder / f"{part}.parquet" for part in PARTS}, out) as profile:
        profile.union("split", PARTS)
        return _judged(profile, ["split"], suites, None, settings, out, docs)


def verdict_table(verdict: Verdict) -> list[tuple[str, str, str, str, str, str]]:
    """Failed rules, those that stop first: (action, table, rule, found, expected, an example or the reason why)."""
    rows = []
    for rule in [*verdict.stopped, *verdict.warned]:
        shown = "; ".join(json.dumps(example, ensure_ascii=False) for example in rule.examples[:2])
        rows.append((rule.action, rule.table, rule.rule, str(rule.observed), rule.expected, shown or rule.why))
    return rows


def _judged(
    profile: Profiler,
    names: list[str],
    suites: Path,
    accepted: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    out: Path,
    docs: bool,
) -> Verdict:
    verdict = Verdict()
    figures: dict[str, dict[str, Any]] = {}
    judged: dict[str, list[dict[str, Any]]] = {}
    found: dict[tuple[str, str], RuleResult] = {}
    for name in names:
        suite = read_suite(suites / f"{name}.json")
        remembered = (accepted or {}).get(name, {})
        values, unbound = _figures(profile, name, suite, settings, remembered)
        verdict.profile[name] = {key: values[key] for key in ["num_rows", *suite.profile] if key in values}
        judged[name] = []
        for rule in suite.rules:
            result = _result(name, rule, values, is_first=not accepted)
            if result.observed is None:
                note = rule["meta"].get("skip", "nothing to judge")
                if result.rule in unbound:
                    note = f"a column it needs is missing or of another type ({unbound[result.rule]})"
                verdict.skipped.append(RuleResult(**{**asdict(result), "note": note}))
            else:
                judged[name].append(rule)
                found[name, result.rule] = result
        figures[name] = {rule["kwargs"]["column"]: values[rule["kwargs"]["column"]] for rule in judged[name]}
    successes = _run_great_expectations(figures, judged, suites, out / "data_docs" if docs else None)
    for (name, rule_name), success in successes.items():
        result = found[name, rule_name]
        if success:
            verdict.passed.append(result)
            continue
        sql = next(rule["meta"].get("examples") for rule in judged[name] if rule["kwargs"]["column"] == rule_name)
        if sql:
            shown = profile.examples(name, filled(sql, settings, (accepted or {}).get(name, {})))
            result = RuleResult(**{**asdict(result), "examples": shown})
        (verdict.stopped if result.action == "stop" else verdict.warned).append(result)
    if docs:
        outcomes = {"stop": verdict.stopped, "warn": verdict.warned, "skip": verdict.skipped, "pass": verdict.passed}
        make_readable(out / "data_docs", outcomes)
    text = json.dumps(verdict.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (out / "validation.json").write_text(text, encoding="utf-8")
    return verdict


def _figures(
    profile: Profiler, name: str, suite: Suite, settings: Mapping[str, Any], accepted: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Every figure of one table, and the reasons of those that cannot be had."""

    def fill(statements: Mapping[str, str]) -> dict[str, str]:
        try:
            return {key: filled(sql, settings, accepted) for key, sql in statements.items()}
        except KeyError as error:
            raise CallError(f"{suite.path}: unknown setting ${error.args[0]}") from None

    types = profile.types[name]
    unknown = sorted(set(types) - set(COLUMNS[name]))
    values: dict[str, Any] = {f"type.{column}": types.get(column, "absent") for column in COLUMNS[name]}
    values["num_rows"] = profile.num_rows[name]
    values["unreadable"] = profile.unreadable.get(name, "no")
    values["unknown_columns"] = ", ".join(unknown) or "none"
    profile.create(fill(suite.tables))
    measured, unbound = profile.measure(name, fill(suite.metrics()))
    # What does not fit the table must fit the schema: else the suite itself is wrong.
    if unbound and (wrong := check_sql(name, tuple(suite.tables.items()), tuple(suite.metrics().items()))):
        raise CallError(f"{suite.path}: {wrong}")
    return {**values, **measured}, unbound


def _result(table: str, rule: Mapping[str, Any], values: Mapping[str, Any], *, is_first: bool) -> RuleResult:
    meta, kwargs = rule["meta"], rule["kwargs"]
    return RuleResult(
        table=table,
        rule=kwargs["column"],
        column=meta.get("column"),
        action=meta.get("first", meta["action"]) if is_first else meta["action"],
        observed=plain(values.get(kwargs["column"])),
        expected=_expected(kwargs),
        why=meta["why"],
    )


def _expected(kwargs: Mapping[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None or high is not None:
        return f"at least {low}" if high is None else f"at most {high}"
    if "value_set" in kwargs:
        return " or ".join(map(str, kwargs["value_set"]))
    return json.dumps({key: value for key, value in kwargs.items() if key != "column"})


def _run_great_expectations(
    figures: Mapping[str, Mapping[str, Any]],
    rules: Mapping[str, list[dict[str, Any]]],
    suites: Path,
    docs: Path | None,
) -> dict[tuple[str, str], bool]:
    """Success by table and rule; Data Docs go to `docs` if given. Imports Great Expectations only now: it is slow."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        import pandas as pd
        from great_expectations.core.run_identifier import RunIdentifier
        from great_expectations.data_context.types.base import ProgressBarsConfig

        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        for site in list(context.list_data_docs_sites()):
            context.delete_data_docs_site(site)
        if docs:
            store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
            index = {"class_name": "DefaultSiteIndexBuilder"}
            context.add_data_docs_site(
                "recops", {"class_name": "SiteBuilder", "store_backend": store, "site_index_builder": index}
            )
        run_id = RunIdentifier(run_name="validation")
        source = context.data_sources.add_pandas("aggregates")
        success: dict[tuple[str, str], bool] = {}
        for table, expectations in rules.items():
            try:
                noted = [{**rule, "notes": rule["meta"]["why"]} for rule in expectations]
                suite = context.suites.add(gx.ExpectationSuite(name=table, expectations=noted))
            except Exception as error:  # whatever Great Expectations says about a rule is the user's to read
                raise CallError(f"{suites / f'{table}.json'}: {error}") from None
            batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all rows")
            definition = gx.ValidationDefinition(name=table, data=batch, suite=suite)
            run = context.validation_definitions.add(definition).run(
                batch_parameters={"dataframe": pd.DataFrame([figures[table]])}, run_id=run_id
            )
            for result in run.results:
                assert result.expectation_config is not None
                rule = result.expectation_config.kwargs["column"]
                if "exception_info" in result and _raised(result.exception_info):
                    raise CallError(f"{suites / f'{table}.json'}: rule {rule}: {_raised(result.exception_info)}")
                success[table, rule] = bool(result.success)
        assert len(success) == sum(map(len, rules.values())), "every rule has a result"
        if docs:
            context.build_data_docs()
        return success


def _raised(info: Mapping[str, Any]) -> str:
    """The message of an exception inside an expectation; empty when there was none."""
    for entry in [info, *(value for value in info.values() if isinstance(value, Mapping))]:
        if entry.get("raised_exception"):
            return str(entry.get("exception_message"))
    return ""

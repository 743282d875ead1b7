"""The flow retrain: decides whether the model is trained anew, and then does it.

What may ask: drift, age, new events, a fall of the online metric, a person (`asked_by`), and a training that was cut
off. Started by the event of `monitor`, by a person and by `reconcile`, which makes up for lost events. However many
times it is started for one and the same reason, one training follows: what was acted on is remembered.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from flows import runs
from flows.train_and_release import train_and_release
from recops.errors import RecopsError
from recops.stages import retrain as retrain_stage
from recops.stages.project import open_project


@flow(name="retrain", persist_result=False)
def retrain(root: str = ".", asked_by: str | None = None, why: str = "no reason given") -> dict[str, Any]:
    """Decision and, where it was to retrain, what train_and_release came to."""
    project = open_project(Path(root))
    now = datetime.now(UTC)
    if asked_by:
        retrain_stage.ask(project, asked_by, why, now)
    with runs.held(project), retrain_stage.one_at_a_time(project):
        decision = retrain_stage.decide(project, now)
        said = "yes" if decision.is_wanted else "held back" if decision.is_held else "no"
        get_run_logger().info("retrain: %s (%s)", said, decision.reason)
        create_table_artifact([{"retrain": said, **asdict(decision)}], key="retrain", description=decision.reason)
        if not decision.is_wanted:
            return {"retrained": False, "reason": decision.reason}
        retrain_stage.remember(project, now, decision)
        try:
            gate = train_and_release(root)
        except RecopsError as error:
            retrain_stage.end(project, datetime.now(UTC), f"failed: {error}")
            raise
        # After a kill, or where the server is away, nothing is said: whoever decides next begins the training again.
        retrain_stage.end(project, datetime.now(UTC), f"{gate['verdict']}: {'; '.join(gate['reasons'])}")
    return {"retrained": True, "reason": decision.reason, "decision": gate}

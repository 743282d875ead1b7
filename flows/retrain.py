"""The flow retrain: decides whether the model is trained anew (drift event, age, cooldown) and then does it.

Started by the event of `monitor` and by a schedule: a lost event costs no more than one period. However many times it
is started for one and the same drift, one retraining follows: the release that drifted is remembered.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger

from flows.train_and_release import train_and_release
from recops.stages import retrain as retrain_stage
from recops.stages.project import open_project


@flow(name="retrain", persist_result=False)
def retrain(root: str = ".") -> dict[str, Any]:
    """Decision and, where it was to retrain, what train_and_release came to."""
    project = open_project(Path(root))
    now = datetime.now(UTC)
    with retrain_stage.one_at_a_time(project):
        wanted, reason = retrain_stage.decide(project, now)
        get_run_logger().info("retrain: %s (%s)", "yes" if wanted else "no", reason)
        if not wanted:
            return {"retrained": False, "reason": reason}
        retrain_stage.remember(project, now, reason)
        return {"retrained": True, "reason": reason, "decision": train_and_release(root)}

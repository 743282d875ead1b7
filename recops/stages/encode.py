"""Stage encode: item content to vectors. Passes through while `encode.encoders` is empty."""

from recops.bundle import canonical_json, write_atomically
from recops.plugins import load
from recops.stages.project import Project


def encode(project: Project) -> dict:
    """Writes data/encoded/encoders.json. Raises CallError for an encoder that does not exist."""
    encoders = project.params.encode.encoders
    for name in encoders:
        load("encoders", name)
    project.encoded.mkdir(parents=True, exist_ok=True)
    facts = {"encoders": encoders}
    write_atomically(project.encoded / "encoders.json", canonical_json(facts))
    return facts

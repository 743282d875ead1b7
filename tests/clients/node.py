"""Runs the TypeScript client in node, which needs no build: the client is plain ES modules with types beside them."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from clients.generate import TYPESCRIPT

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: the TypeScript client is not run")
TSC = shutil.which("tsc", path=f"{TYPESCRIPT}/node_modules/.bin") or shutil.which("tsc")
needs_tsc = pytest.mark.skipif(
    TSC is None, reason="tsc is not installed: the TypeScript client's types are not checked"
)
HEAD = """
const { Client, ServiceError } = await import({client});
const given = {given};
const tried = async (call) => {
  try {
    return await call();
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const { status, error: name, field, requestId, retryAfterMs } = error;
    return { failed: { status, error: name, field, requestId, retryAfterMs, message: error.message } };
  }
};
"""


def run(script: str, **given: Any) -> Any:
    """What the script prints as JSON. It has Client, `given`, and `tried`, which makes an object of a ServiceError."""
    client = json.dumps((TYPESCRIPT / "recops.js").as_uri())
    text = HEAD.replace("{client}", client).replace("{given}", json.dumps(given)) + script
    assert NODE is not None
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)

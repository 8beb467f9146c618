"""What is asked of a lesson: the package, the machines, and the process that learns."""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from agent.app import plan
from agent.app.lesson import Lesson, Machine
from agent.config.manifest import PackSpec
from agent.config.schema import Settings
from agent.core.errors import PermanentError, TransientError
from agent.runtime.suspects import Suspects

OFF: Final = 0.8
"""Where the alarm of what was learned ends; it begins at 1."""

_WITHIN_S: Final = 900.0


def spec_of(settings: Settings, name: str, release: int, provenance: Mapping[str, str]) -> PackSpec:
    """The package of a detector for the machines of the model *name*."""
    section = settings.models[name]
    tags = {tag.name: tag for stream in plan.streams(settings).values() for tag in stream}
    inputs = next(iter(section.instances.values())).inputs
    short = [i.partition("/")[2].replace("/", ".") for i in inputs]
    names = short if len(set(short)) == len(short) else [i.replace("/", ".") for i in inputs]
    channels = [
        {"name": n, "unit": tags[i].unit if i in tags else ""}
        for n, i in zip(names, inputs, strict=True)
    ]
    return PackSpec.model_validate(
        {
            "name": name,
            "version": str(release),
            "release": release,
            "channels": channels,
            "window": section.window,
            "decision": {"output": "score", "above": 1.0, "off": OFF},
            "target": {"gateways": [settings.gateway.id]},
            "provenance": dict(provenance),
        }
    )


def machines(
    settings: Settings, name: str, suspects: Mapping[str, Sequence[Any]]
) -> Iterator[Machine]:
    """The machines of a model, and from when on their rows do not count."""
    for one in plan.instances(settings, name):
        known = Suspects(suspects.get(one.instance, ()))
        yield Machine(one.inputs, one.state, known.since_ns)


async def taught(lesson: Lesson) -> dict[str, Any]:
    """What the process of a lesson answers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "agent.app.lesson"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        async with asyncio.timeout(_WITHIN_S):
            out, _ = await process.communicate(lesson.as_json().encode())
        answer: dict[str, Any] = orjson.loads(out)
    except (TimeoutError, orjson.JSONDecodeError) as e:
        raise TransientError(
            f"the process that learns gave no answer ({type(e).__name__})",
            fix="Look into the log, and begin again with `edge-agent models learn`.",
            code="E696",
        ) from e
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if "error" in answer:
        raise PermanentError(**answer["error"])
    return answer

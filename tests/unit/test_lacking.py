"""What a device is remembered to lack, in a recording and out of it."""

from agent.config.load import loads
from agent.plugins import installed
from agent.sources.modbus_lacking import Holes
from tests.tools import ManualClock

CONFIG = """\
version: 1
gateway: {id: g}
devices:
  d: {type: modbus, connect: "tcp://127.0.0.1:5020", unit: 1, addressing: zero_based, poll: 1s,
      tags: {a: {reg: 0, as: uint16}, b: {reg: 1, as: uint16}}}
"""


def holes():
    return Holes("d", loads(CONFIG, "c.yaml", installed()).devices["d"], None, ManualClock())


def test_only_news_makes_plans_anew():
    """Each pair of scan classes recalls when it first begins; the plans of the others, and where
    their scans begin, stay if it says nothing new.
    """
    lacking = {"lacks": {"holding": {"refused": [[1, 1, 2]], "holes": []}},
               "doubt_at": None, "try_at": 5.0, "tried": 1}  # fmt: skip
    known = holes()
    nothing, version = known.memory(), known.version
    known.recall(nothing)
    assert known.version == version
    known.recall(nothing | lacking)
    assert known.version == version + 1
    known.recall(known.memory())
    assert known.version == version + 1

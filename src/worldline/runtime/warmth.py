"""What a worker makes for the first time and keeps: when nothing is added, it is warm.

Counts, not clocks. What belongs to one visitor (prompt, picture, time tables of a session) is not
here; what the hundredth visitor finds ready and the first must not wait for is.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from worldline.runtime.graphs import GraphedPasses
from worldline.runtime.shared import Engine


class Built(NamedTuple):
    """How many of each were made so far.

    `rings` of keys and values that outlive their sessions; `graphs` recorded; `attention` choices
    measured; `stationary` latents of the picture's encode, one per size; `buffers` allocated;
    `compiled` functions, of which `from_disk` needed no compiler.
    """

    rings: int
    graphs: int
    attention: int
    stationary: int
    buffers: int
    compiled: int
    from_disk: int


def built(engine: Engine) -> Built:
    """Count what the sessions of `engine` have made so far; compiled code is the process's."""
    passes = engine.passes
    graphed = passes.built if isinstance(passes, GraphedPasses) else 0
    compiled, from_disk = _compiled()
    return Built(
        rings=engine.rings.made if graphed else 0,
        graphs=graphed,
        attention=0 if engine.chooser is None else len(engine.chooser.choices),
        stationary=len(engine.stationary),
        buffers=sum(engine.buffers.computed.values()),
        compiled=compiled,
        from_disk=from_disk,
    )


def _compiled() -> tuple[int, int]:
    utils = sys.modules.get("torch._dynamo.utils")  # not imported where nothing is compiled
    if utils is None:
        return 0, 0
    counters = utils.counters
    return counters["stats"]["unique_graphs"], counters["inductor"]["fxgraph_cache_hit"]

"""What runs a cell's graph over time. `plan` picks an engine and says why."""

from carousel.engines.plan import Choice, EngineInfo, choose, engines, load, runnable

__all__ = ["Choice", "EngineInfo", "choose", "engines", "load", "runnable"]

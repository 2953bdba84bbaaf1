"""Plan a batch of millions of requests out of core: shards on disk, one pass to forecast, passes to find the prices."""

from eccos_core.workflows.large_plan.engine import ShardEngine, open_engine
from eccos_core.workflows.large_plan.plan import SHARD_ROWS, LargePlan, PlanSummary

__all__ = ["SHARD_ROWS", "LargePlan", "PlanSummary", "ShardEngine", "open_engine"]

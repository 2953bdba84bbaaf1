"""Let eccos decide among the deployments of a `litellm.Router`. Runs offline, on three scripted models.

python examples/litellm_router.py
"""

from __future__ import annotations

import asyncio

import litellm
import yaml
from langchain_served import served_pool

from eccos_core import Router
from eccos_integrations.litellm import EccosRoutingStrategy


async def main() -> None:
    with served_pool() as configuration, Router.from_yaml(configuration) as eccos:
        model_list = yaml.safe_load(configuration.read_text())["model_list"]  # a LiteLLM file, as you have one
        router = litellm.Router(model_list=model_list)
        router.register_plugin(EccosRoutingStrategy(eccos, router))

        question = [{"role": "user", "content": "[[say Lima]] What is the capital of Peru?"}]
        for model in ("eccos", "eccos:best"):
            answer = await router.acompletion(model=model, messages=question)
            decision = answer._hidden_params["eccos"]
            print(f"{model}: {answer.choices[0].message.content}, by {decision['model']}. {decision['reason']}")
            eccos.record(decision["decision_id"], 1.0)  # label it, so that later decisions know

        await asyncio.sleep(0.5)  # LiteLLM reports in the background
        for status in eccos.status().workload.models:
            print(f"{status.model}: {status.calls} calls, {status.in_flight} in flight")


if __name__ == "__main__":
    asyncio.run(main())

"""The sections `labels` and `shadow`: labels that come without people."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from eccos_core.config.section_model import ConfigPath, Flag, NotNegative, SectionModel, Share, Text


class JudgeConfig(SectionModel):
    """A model of the pool that grades a share of the answers in the background."""

    model: Text = Field(description="The model of the pool that grades. It never grades its own answers.")
    share: Share = Field(default=0.05, description="The share of the answers that it grades, from 0 to 1.")
    budget_usd_per_day: NotNegative = Field(description="What grading may cost in a UTC day, in USD. 0 grades nothing.")
    pairs: Flag = Field(
        default=False,
        description="Also ask which is better, an answer or the shadow answer to the same question. A pair takes two "
        "more calls, the second with the answers swapped.",
    )
    calibrate: Flag = Field(
        default=True,
        description="Correct its grades by the labels of people, once 20 of its answers have both.",
    )


class LabelsConfig(SectionModel):
    """Labels that come without people. A label of a person always counts more."""

    judge: JudgeConfig | None = Field(default=None, description="A model that grades a share of the answers.")
    reward: ConfigPath | None = Field(
        default=None,
        description="The folder of a reward model, which `eccos fit-reward` writes. It grades every answer that no "
        "judge graded, at no cost.",
    )
    signals: dict[Text, Share] = Field(
        default_factory=dict,
        description="The quality that each signal stands for. Your application reports one with `router.signal`. "
        "`invalid_json` is noticed by itself where a request asks for JSON.",
    )


class ShadowConfig(SectionModel):
    """Other models that answer a share of the requests as well, in the background."""

    models: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(description="The models of the pool to ask.")
    share: Share = Field(default=0.02, description="The share of the requests, from 0 to 1.")
    budget_usd_per_day: NotNegative = Field(description="What these answers may cost in a UTC day, in USD.")

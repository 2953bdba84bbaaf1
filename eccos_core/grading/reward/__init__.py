"""A reward model: how good an answer is, learned from graded answers. It costs no call."""

from eccos_core.grading.reward.artifact import load_reward, save_reward
from eccos_core.grading.reward.fit import fit_reward
from eccos_core.grading.reward.grader import RewardGrader
from eccos_core.grading.reward.model import RewardModel
from eccos_core.grading.reward.report import ModelReward, RewardReport

__all__ = ["ModelReward", "RewardGrader", "RewardModel", "RewardReport", "fit_reward", "load_reward", "save_reward"]

"""Whether a plan and the rounds it is for go together: what no single key's limits can say. Pure.

Asked before any training: by `floe plan check`, at the start of an aggregator or a simulation, of a plan that an
operator gives.
"""

from __future__ import annotations

from collections.abc import Iterator

from floe.errors import ConfigError
from floe.plan import Plan
from floe.privacy import rounded_up
from floe.settings import Rounds

CLASSIFIERS = ("cnn", "linear", "mlp")  # of Floe's own models


def check_sound(plan: Plan, rounds: Rounds) -> None:
    """Raises `ConfigError` with the first of `faults`."""
    for fault in faults(plan, rounds):
        raise ConfigError(fault)


def faults(plan: Plan, rounds: Rounds) -> Iterator[str]:
    """What does not go together, each in a sentence that names the keys and the way out."""
    yield from _of_rounds(plan, rounds)
    yield from _of_rule(plan, rounds)
    yield from _of_personal(plan)
    yield from _of_threshold(plan)
    yield from _of_privacy(plan, rounds)


def described(plan: Plan, rounds: Rounds) -> Iterator[str]:
    """What is going to be done, in lines for a person. Of a plan without `faults`; that of devices asks
    dp-accounting.
    """
    size = f"batches of {plan.batch_size}" if plan.batch_size else "all rows at once"
    layers = f" {list(plan.hidden)}" if plan.hidden else ""
    yield f"train   {plan.model}{layers}: {plan.epochs} epoch(s), {size}, {plan.optimizer} at {plan.learning_rate:g}"
    share = f"{rounds.fraction:.0%} of the devices" if rounds.fraction < 1 else "every device"
    yield f"rounds  {rounds.count}, {share}; at least {max(least_updates(plan), rounds.quorum)} update(s) each"
    yield f"rule    {plan.rule}" + (f", {plan.byzantine} of them may lie" if plan.byzantine else "")
    if plan.rule in ("fedadam", "fedyogi", "fedadagrad") and plan.server_learning_rate >= 1:
        step = f"server_learning_rate = {plan.server_learning_rate:g}"
        yield f"beware  {plan.rule} with {step} rarely learns: begin with 0.01"
    if plan.personal:
        yield f"stays   on the devices: {', '.join(plan.personal)}"
    if plan.privacy != "none":
        budget = f"budget {plan.epsilon:g}" if plan.epsilon else "no budget"
        yield f"private each {plan.privacy}: {_cost(plan, rounds)}, {budget}, delta {plan.delta:g}"
    yield f"wire    up {plan.upload}, down {plan.download}"


def _cost(plan: Plan, rounds: Rounds) -> str:
    """What all rounds of a private plan cost; of examples it hangs on the rows of each device."""
    if plan.privacy == "device":
        from floe import accounting

        spent = rounded_up(accounting.predicted(plan, rounds.count))
        return f"noise {accounting.noise_of(plan):.4g}, epsilon {spent} after {rounds.count} rounds"
    return f"noise {plan.noise_multiplier:g}" if plan.noise_multiplier else f"noise for {plan.privacy_rounds} rounds"


def least_updates(plan: Plan) -> int:
    """How many updates the plan's rule needs; with fewer, a round cannot close.

    Krum: n >= 2 f + 3 (Blanchard et al. 2017, Proposition 4.2); Multi-Krum too, and n - f >= keep, or liars are among
    those that it keeps. Trimmed mean: n > 2 f (Yin et al. 2018, Definition 2).
    """
    least = {"krum": 2 * plan.byzantine + 3, "multi-krum": max(2 * plan.byzantine + 3, plan.keep + plan.byzantine)}
    return least.get(plan.rule, 2 * plan.byzantine + 1 if plan.rule == "trimmed-mean" else 1)


def _of_rule(plan: Plan, rounds: Rounds) -> Iterator[str]:
    if plan.report == "accuracy" and plan.rule != "fedavg":
        yield f'[plan] rule = "{plan.rule}" needs weights, and report = "accuracy" sends none: set report = "weights"'
    if rounds.mode == "asynchronous" and plan.rule != "fedavg":
        yield (
            f'[plan] rule = "{plan.rule}" needs the updates of a round together, and [rounds] mode = "asynchronous" '
            'merges each at once: set mode = "rounds", or rule = "fedavg"'
        )
    if plan.rule not in ("trimmed-mean", "krum", "multi-krum") and plan.byzantine:
        yield f'[plan] byzantine = {plan.byzantine} is for trimmed-mean, krum and multi-krum; rule is "{plan.rule}"'
    if plan.keep and plan.rule != "multi-krum":
        yield f'[plan] keep = {plan.keep} is for rule = "multi-krum" alone'
    needed, there = least_updates(plan), rounds.quorum or rounds.devices
    key = "quorum" if rounds.quorum else "devices"
    if there < needed:
        yield (
            f'[plan] rule = "{plan.rule}" with byzantine = {plan.byzantine} needs {needed} updates, and '
            f"[rounds] {key} = {there}: raise {key}, or lower byzantine" + (" or keep" if plan.keep else "")
        )
    if rounds.fraction < 1 and rounds.quorum == 0 and max(rounds.fraction * rounds.devices, 1) < needed:
        yield (
            f'[plan] rule = "{plan.rule}" with byzantine = {plan.byzantine} needs {needed} updates, and '
            f"[rounds] fraction = {rounds.fraction:g} of {rounds.devices} devices is fewer: raise fraction or devices"
        )


def _of_personal(plan: Plan) -> Iterator[str]:
    if plan.schema == "own" and not plan.personal:
        yield (
            '[plan] schema = "own": devices whose features differ can share a model only if the layers that hang '
            'on them stay at home: name them in personal, for example ["1.0.*"]'
        )
    if plan.schema == "own" and plan.scaling == "standard":
        yield '[plan] scaling = "standard" needs one schema; schema is "own": set scaling = "local" or "none"'
    if "*" in plan.personal:
        yield '[plan] personal = ["*"] leaves nothing to share: name the layers that stay at home'
    if plan.personal and plan.report == "accuracy":
        yield '[plan] personal names layers that stay on a device; report = "accuracy" sends none at all: drop one'


def _of_threshold(plan: Plan) -> Iterator[str]:
    if plan.threshold == "local":
        return
    if plan.model in CLASSIFIERS:
        yield f'[plan] threshold = "federated" is for models that reconstruct; model = "{plan.model}" classifies'
    if plan.report == "accuracy":
        yield '[plan] threshold = "federated" is agreed for a global model; report = "accuracy" makes none: drop one'
    if plan.privacy != "none":
        yield (
            f'[plan] privacy = "{plan.privacy}" with threshold = "federated": the histograms it is agreed from leave '
            'the devices without noise; set threshold = "local"'
        )


def _of_privacy(plan: Plan, rounds: Rounds) -> Iterator[str]:
    if plan.privacy == "none":
        if plan.noise_multiplier or plan.epsilon:
            yield '[plan] noise_multiplier and epsilon count with privacy = "example" or "device"; it is "none"'
        return
    if not plan.noise_multiplier and not (plan.epsilon and plan.privacy_rounds):
        yield (
            f'[plan] privacy = "{plan.privacy}" without noise: give noise_multiplier, or epsilon and privacy_rounds, '
            "the rounds that it shall last"
        )
    if plan.report == "accuracy":
        yield f'[plan] privacy = "{plan.privacy}" protects weights; report = "accuracy" sends none: drop one'
    if plan.scaling == "standard":
        yield (
            f'[plan] privacy = "{plan.privacy}" with scaling = "standard": the sums it is made from leave the devices '
            'without noise; set scaling = "local" or "none"'
        )
    if plan.privacy == "device" and plan.delta * max(rounds.devices, len(set(rounds.members))) >= 1:
        yield (
            f"[plan] delta = {plan.delta:g} is not below 1 / the number of devices: giving one device's update away "
            "would count as private; lower delta"
        )
    if plan.privacy == "device" and plan.rule != "fedavg":
        yield f'[plan] privacy = "device" is an aggregation of its own: set rule = "fedavg", not "{plan.rule}"'
    if plan.privacy == "device" and (rounds.mode == "asynchronous" or rounds.late == "merge"):
        yield (
            '[plan] privacy = "device" counts a device once in a round: set [rounds] mode = "rounds" and late = "drop"'
        )
    if plan.privacy == "example" and plan.clip_quantile:
        yield '[plan] clip_quantile is for privacy = "device"; an example\'s gradient is cut to max_grad_norm'


def _of_rounds(plan: Plan, rounds: Rounds) -> Iterator[str]:
    members = len(set(rounds.members))
    for key, needed in (("devices", rounds.devices), ("quorum", rounds.quorum)):
        if 0 < members < needed:
            yield (
                f"[rounds] {key} = {needed}, but only the {members} of members may take part, so no round would ever "
                f"open: lower {key}, or name more members (none: all may)"
            )
    if rounds.metric != "loss" and rounds.target > 1:
        yield f"[rounds] target = {rounds.target:g}: {rounds.metric} goes from 0 to 1"
    if rounds.mode == "asynchronous" and plan.report == "accuracy":
        yield (
            '[rounds] mode = "asynchronous" mixes weights, [plan] report = "accuracy" sends none: set mode = "rounds", '
            'or report = "weights"'
        )
    if rounds.mode == "asynchronous" and rounds.fraction < 1:
        yield (
            f'[rounds] fraction = {rounds.fraction:g} with mode = "asynchronous": there every device sends when it is '
            'ready, and none is selected; set fraction = 1, or mode = "rounds"'
        )

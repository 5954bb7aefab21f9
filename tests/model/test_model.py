"""Every interleaving of workers, crashes, answers, callbacks, polls, sweeps and people, with the shipped transitions."""

from __future__ import annotations

import pytest
from model.checker import SENTENCES, Broken, Checker
from model.settings import DEPTH, SETTINGS
from model.variants import Variant, variants
from model.world import Model, Setting


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_sentence_holds_in_every_state(setting: Setting) -> None:
    checker = Checker(Model(setting))
    states = checker.explore(DEPTH)
    print(f"\n{setting.name}: {states} states, {len(checker.model.jobs)} different jobs, depth {DEPTH}")
    assert states > 1000


@pytest.mark.parametrize("variant", variants(), ids=lambda variant: variant.name)
def test_a_broken_variant_is_caught(variant: Variant) -> None:
    with pytest.raises(Broken) as caught:
        Checker(variant.model, [variant.breaks]).explore(DEPTH)
    assert caught.value.steps


def test_every_sentence_is_broken_by_some_variant_or_is_a_shape() -> None:
    shapes = {
        "only what the provider rendered is a success",
        "a final record says why",
        "a job that is not complete has a holder or is due",
    }
    assert set(SENTENCES) - shapes <= {variant.breaks for variant in variants()}

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core import kernels_numba, kernels_numpy
from alc_backend.core.acquisition import (
    ACQUISITIONS,
    Measured,
    compare,
    expected_gain,
    measure,
)
from alc_backend.core.pool import pixelpick, representative_pixels
from alc_backend.core.statistics import ImageStatistics
from tests.core import reference
from tests.core.scenes import planted, planted_image, scenes


def close(value):
    return pytest.approx(value, rel=1e-5, abs=1e-7)


@given(scenes())
def test_agrees_with_the_formulas(scene):
    probabilities, labels, superpixels = scene
    image = ImageStatistics(*scene)
    pool = representative_pixels(image)
    scores = {name: measure(image, pool, name) for name in ACQUISITIONS}
    for index, number in enumerate(pool.ids):
        star = (int(pool.rows[index]), int(pool.cols[index]))
        expected = {
            "sim": reference.sim(probabilities, labels, superpixels, number, star),
            "abc": reference.mean_sim(probabilities, labels, superpixels, number),
            "lcil": reference.lcil(probabilities, labels, superpixels, number),
            "cil": reference.doubt(probabilities, labels, star),
            "softmin": reference.softmin(probabilities, labels, superpixels, number),
            "aiou": reference.aiou(probabilities, labels, superpixels, number),
            "entropy": reference.entropy(probabilities, superpixels, number),
            "bvsb": reference.bvsb(probabilities, superpixels, number),
            "size": np.count_nonzero(superpixels == number),
        }
        for name, value in expected.items():
            assert scores[name][index] == close(value), name


@given(scenes(), st.sampled_from([0.5, 0.9, 0.999, 1.0]), st.booleans())
def test_sim_sums_over_the_expansion(scene, epsilon, several_in_a_superpixel):
    probabilities, labels, superpixels = scene
    image = ImageStatistics(*scene)
    pool = (
        pixelpick(image, 9, seed=0, share=1.0)
        if several_in_a_superpixel
        else representative_pixels(image)
    )
    scores = measure(image, pool, epsilon=epsilon)
    for index, number in enumerate(pool.ids):
        star = (int(pool.rows[index]), int(pool.cols[index]))
        if not reference.on_the_edge(probabilities, superpixels, number, star, epsilon):
            expected = reference.sim(probabilities, labels, superpixels, number, star, epsilon)
            assert scores[index] == close(expected)


def test_at_epsilon_one_only_equal_predictions_count():
    image = planted_image()
    scores = measure(image, representative_pixels(image), epsilon=1.0)
    assert scores[1] == close(4 * 0.7)  # four equal pixels, whatever rounding says
    assert scores[0] < 4 * 0.2


def test_sim_prefers_the_superpixel_whose_labels_are_doubted():
    image = planted_image()
    scores = measure(image, representative_pixels(image))
    assert scores[1] == pytest.approx(4 * 0.7, rel=1e-6)
    assert scores[1] > scores[0]


def test_cil_looks_at_the_asked_pixel_alone():
    probabilities = planted()[0]
    probabilities[:, 0, 2] = [0.05, 0.95]
    image = planted_image(probabilities=probabilities)
    pool = representative_pixels(image)
    assert measure(image, pool, "cil")[1] == pytest.approx(0.7)
    assert measure(image, pool, "lcil")[1] == pytest.approx((0.95 + 3 * 0.7) / 4)


def test_a_component_found_in_two_pieces_is_not_to_blame_for_its_neighbour():
    # given: two components of class 1 (columns 0-1 and 3-4); predicted: one bar over all five
    labels = np.array([[1, 1, 0, 1, 1]], dtype=np.uint8)
    predicted = np.ones((1, 5), dtype=int)
    probabilities = np.where(np.arange(2)[:, None, None] == predicted, 0.9, 0.1).astype(np.float32)
    image = ImageStatistics(probabilities, labels, np.array([[1, 1, 2, 3, 3]], dtype=np.int32))
    scores = measure(image, representative_pixels(image), "aiou")
    # each piece: 2 shared of 2 + the one pixel between them; the piece between is not found at all
    assert scores == pytest.approx([1 - 2 / 3, 1.0, 1 - 2 / 3])


def test_random_is_decided_by_the_seed():
    image = planted_image()
    pool = representative_pixels(image)
    draws = [measure(image, pool, "random", seed=seed).tolist() for seed in (0, 0, 1, (0, 7))]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 3
    assert all(0 <= value < 1 for draw in draws for value in draw)


def found(scores, pseudo, dominant, class_pixels, sizes=None):
    count = len(scores)
    return Measured(
        np.array(scores, dtype=np.float64),
        np.array(pseudo, dtype=np.uint8),
        np.array(dominant, dtype=np.uint8),
        np.array([10] * count if sizes is None else sizes, dtype=np.int64),
        np.array(class_pixels, dtype=np.int64),
    )


def test_simiou_divides_by_the_pixels_of_the_pseudo_labels_class():
    dataset = found([6.0, 6.0, 5.0], [0, 1, 2], [1, 2, 0], [300, 2, 0])
    assert compare(dataset, "simiou") == pytest.approx([0.02, 3.0, 5.0])


def expected_order(dataset):
    """The order of ``default``, one superpixel at a time over all that are left."""
    sizes, pseudo, dominant = (part.tolist() for part in (
        dataset.sizes, dataset.pseudo, dataset.dominant))  # fmt: skip
    wrong = [max(score, 0.4 * size) for score, size in zip(dataset.scores, sizes, strict=True)]
    union = [max(pixels, 1) for pixels in dataset.class_pixels.tolist()]
    for number, amount in enumerate(wrong):
        if dominant[number] != pseudo[number]:
            union[dominant[number]] += amount
    held = sum(pixels > 0 for pixels in dataset.class_pixels.tolist())
    everything = sum(dataset.class_pixels.tolist())
    left, order = list(range(len(wrong))), []
    while left:

        def gain(number):
            worth = 1 / union[pseudo[number]]
            if dominant[number] != pseudo[number]:
                worth += 1 / union[dominant[number]]
            return wrong[number] * (worth + 8 * held / everything)

        best = max(left, key=lambda number: (gain(number), -number))
        union[pseudo[best]] = max(union[pseudo[best]] - wrong[best], 1)
        left.remove(best)
        order.append(best)
    return order


def order_of(scores):
    return np.argsort(-scores, kind="stable").tolist()


@pytest.mark.parametrize("seed", range(5))
def test_default_takes_the_greatest_expected_gain_again_and_again(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 2000, 120)
    dataset = found(
        sizes * rng.random(120), rng.integers(0, 5, 120), rng.integers(0, 5, 120),
        [90_000, 20_000, 3_000, 40_000, 0], sizes=sizes,
    )  # fmt: skip
    compared = compare(dataset, "default")
    assert order_of(compared) == expected_order(dataset)
    assert compared.min() > 0
    assert compared.max() == 1


@pytest.mark.parametrize("seed", range(5))
def test_superpixels_that_default_values_alike_keep_the_order_that_they_are_given_in(seed):
    rng = np.random.default_rng(seed)
    dataset = found(
        rng.choice([4.0, 8.0], 90), rng.integers(0, 6, 90), rng.integers(0, 6, 90), [2**20] * 6
    )
    assert order_of(compare(dataset, "default")) == expected_order(dataset)


def test_default_takes_the_first_of_superpixels_with_swapped_classes():
    dataset = found([5.0] * 4, [2, 1, 2, 1], [1, 2, 1, 2], [1000, 1000, 1000])
    assert order_of(compare(dataset, "default")) == [0, 1, 2, 3]


def test_default_orders_superpixels_of_255_classes():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 2000, 400)
    dataset = found(
        sizes * rng.random(400), rng.integers(0, 255, 400), rng.integers(0, 255, 400),
        rng.integers(0, 9000, 255), sizes=sizes,
    )  # fmt: skip
    assert order_of(compare(dataset, "default")) == expected_order(dataset)


def test_default_asks_first_about_rare_classes_and_what_the_network_sees_as_another():
    rare = found([50, 50], [0, 1], [0, 1], [100_000, 500], sizes=[100, 100])
    assert order_of(compare(rare, "default")) == [1, 0]
    another = found([50, 50], [0, 0], [0, 1], [1_000, 1_000], sizes=[100, 100])
    assert order_of(compare(another, "default")) == [1, 0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [1, 3, 255])
def test_the_compiled_order_of_default_is_the_plain_one(seed, classes):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, 3000)
    dataset = found(
        np.round(sizes * rng.random(3000)), rng.integers(0, classes, 3000),
        rng.integers(0, classes, 3000), rng.integers(0, 9000, classes), sizes=sizes,
    )  # fmt: skip
    compiled, plain = (expected_gain(dataset, k) for k in (kernels_numba, kernels_numpy))
    assert compiled.tolist() == plain.tolist()


def test_default_falls_back_to_size_where_the_network_does_not_doubt():
    dataset = found([0.0, 10, 20], [1, 1, 1], [1, 1, 1], [0, 900], sizes=[300, 100, 200])
    assert order_of(compare(dataset, "default")) == [0, 2, 1]


def test_classbal_prefers_dominant_classes_that_are_rare():
    pseudo, dominant = [1, 1, 2, 2], [0, 0, 1, 0]
    compared = compare(found([0.2, 0.6, 0.6, 1.0], pseudo, dominant, [0, 0, 0]), "classbal")
    common, rare = math.exp(-0.75), math.exp(-0.25)
    assert compared == pytest.approx([0, 0.5 * common, 0.5 * rare, common])
    alike = found([0.3] * 4, pseudo, dominant, [0, 0, 0])
    assert compare(alike, "classbal") == pytest.approx([common, common, rare, common])


def test_abc_prefers_rare_labels_the_more_uneven_the_classes_are():
    uneven = found([1.0] * 10, [0] * 9 + [1], [0] * 10, [0, 0, 0])
    divergence = 0.9 * math.log(2.7) + 0.1 * math.log(0.3)
    common = (1 / 9) ** divergence**3
    assert compare(uneven, "abc") == pytest.approx([common] * 9 + [1])
    even = found([1.0, 2.0, 3.0], [0, 1, 2], [0, 0, 0], [0, 0, 0])
    assert compare(even, "abc") == pytest.approx([1, 2, 3])


def test_other_acquisitions_need_no_comparing():
    dataset = found([3.0, 1.0], [0, 0], [0, 0], [0, 0])
    for name in set(ACQUISITIONS) - {"default", "simiou", "classbal", "abc"}:
        assert compare(dataset, name) is dataset.scores


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_nothing_to_ask(name):
    image = planted_image(superpixels=np.zeros((2, 4), dtype=np.int32))
    pool = representative_pixels(image)
    scores = measure(image, pool, name)
    assert scores.shape == (0,)
    assert compare(found([], [], [], [0, 0]), name).shape == (0,)


def test_wrong_choices_are_named():
    image = planted_image()
    pool = representative_pixels(image)
    with pytest.raises(ValueError, match="acquisition must be one of abc, aiou, bvsb"):
        measure(image, pool, "best")
    with pytest.raises(ValueError, match="epsilon"):
        measure(image, pool, epsilon=1.5)
    other = planted_image(superpixels=planted()[2][:, ::-1].copy())
    with pytest.raises(ValueError, match="pool does not belong to image"):
        measure(other, pool)
    for rows in ([-1, 0], [2, 0]):
        with pytest.raises(ValueError, match="pool does not belong to image"):
            measure(image, dataclasses.replace(pool, rows=np.array(rows)))
    fewer = planted_image(superpixels=np.zeros((2, 4), dtype=np.int32))
    with pytest.raises(ValueError, match="pool does not belong to image"):
        measure(fewer, pool)


def test_probabilities_rounded_above_one_do_not_make_scores_negative():
    probabilities = np.array([[[1.0005, 0.4]], [[0.0, 0.6]]], dtype=np.float32)
    image = ImageStatistics(probabilities, np.zeros((1, 2), np.uint8), np.array([[1, 2]]))
    pool = representative_pixels(image)
    for name in ACQUISITIONS:
        assert (measure(image, pool, name) >= 0).all(), name

"""Titles name a subset of the images, because the test split shrinks with it."""

from typing import Any

import pytest
from records import epoch, run

from klcli.procedures.searches import tried_values
from klcli.report.plots.chart import Chart
from klcli.report.plots.curves import bn_overlay, learning_rate_curve, overlay, training_curves
from klcli.report.plots.studies import lambda_search, sigma_curves
from klcli.report.tables.studies import suggestion_sentence
from klcli.report.words import split_words, subset_words
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.studies.lambda_search import choose

EPOCHS = [epoch(450, validation_accuracy=0.3)]


def charts(split: SplitConfig) -> list[Chart]:
    def made(number: int, **settings: Any) -> Any:
        return run(number, TrainConfig(split=split, **settings), study_id=1, validation_accuracy=0.3)

    plain, with_bn = made(1), made(2, batch_norm=True)
    small, of_range = made(3, initializer="normal", sigma=0.1), made(4, schedule="range")
    epochs = dict.fromkeys((1, 2, 3, 4), EPOCHS)
    return [
        training_curves([plain], {plain.id: EPOCHS}),
        training_curves([of_range], {of_range.id: EPOCHS}),
        training_curves([plain, plain], epochs),
        overlay([plain, with_bn], epochs, ("train", "validation")),
        learning_rate_curve(plain, EPOCHS),
        overlay([plain, with_bn], epochs),
        bn_overlay([plain], [with_bn], epochs),
        lambda_search([("coarse", [plain])], choose(tried_values([plain], "coarse"), 1000)),
        sigma_curves([small], epochs),
    ]


@pytest.mark.parametrize("index", range(9))
def test_the_title_of_a_picture_names_a_subset(index: int) -> None:
    parts = SplitConfig(train_batches=(1,), validation_batches=(2,))
    assert "10000 images of batch file 1" in charts(parts)[index].title
    assert "subset of 900 with 200 test images" in charts(SplitConfig(subset=900))[index].title
    assert "subset" not in charts(SplitConfig())[index].title


def test_words_of_subsets() -> None:
    whole, part = run(1), run(2, TrainConfig(split=SplitConfig(subset=450)))
    other = run(3, TrainConfig(split=SplitConfig(subset=900)))
    assert split_words(part.split) == "450 images train, 50 validate, 100 test (subset of 450)"
    assert subset_words([whole]) == subset_words([]) == ""
    assert subset_words([part]) == ", subset of 450 with 100 test images"
    assert subset_words([whole, part]) == ", run 2 on a subset of the images"
    assert subset_words([part, other]) == ", runs 2-3 on subsets of the images"
    batches = [run(number, TrainConfig(split=SplitConfig(train_batches=(number - 3,)))) for number in (4, 5)]
    assert subset_words(batches[:1]) == ", 5000 images of batch file 1"
    assert subset_words([whole, batches[0]]) == ", run 4 on a subset of the images"
    assert subset_words(batches) == ", runs 4-5 on subsets of the images"
    assert subset_words([run(6, TrainConfig(split=SplitConfig(validation_batches=(5,))))]) == ""  # all the others
    every = [run(2 * n, part.config) for n in range(1, 11)]
    names = "runs 2, 4, 6, 8, 10, 12, 14, 16 and 2 more"  # as in every list of runs
    assert subset_words([whole, *every]) == f", {names} on subsets of the images"


def test_the_suggestion_of_a_range_test_states_both_maxima() -> None:
    # The single 0.5 at eta 0.79 is a lucky evaluation; the medians of three rise to 0.4 at eta 0.56.
    etas = (0.01, 0.1, 0.3, 0.56, 0.79, 1.0)
    accuracies = (0.1, 0.2, 0.3, 0.4, 0.5, 0.1)
    tested = run(config=TrainConfig(schedule="range", eta_max=1.0, epochs=1))
    epochs = [
        epoch(step, learning_rate=eta, validation_accuracy=accuracy)
        for step, (eta, accuracy) in enumerate(zip(etas, accuracies, strict=True))
    ]
    sentence = suggestion_sentence(tested, epochs)
    medians = [sorted(accuracies[max(0, i - 1) : i + 2])[1] for i in range(1, 5)]
    assert etas[1 + medians.index(max(medians))] == 0.56
    assert "--eta-max 0.56 " in sentence and "where that median is highest" in sentence
    assert sentence.endswith("the highest single evaluation is 0.5000 at eta 0.79)")

"""The learning rate of one run."""

from klcli.report.plots.figure import GREY, dress, mark_cycles, new_figure, say_empty, to_bytes
from klcli.report.plots.training import TrainingCurves


def draw_learning_rate(curves: TrainingCurves, suffix: str = "png") -> bytes:
    """Draw eta over update steps with the ends of the cycles; return a picture file."""
    figure = new_figure(8, 3.6, f"Learning rate, {curves.title[0].lower()}{curves.title[1:]}", curves.caption)
    axes = figure.subplots()
    steps, etas = zip(*curves.learning_rate, strict=True)
    axes.plot(steps, etas, color=GREY)
    axes.set(xlabel="update step", ylabel="eta", xlim=(0, steps[-1] or 1), ylim=(0, None))
    mark_cycles(axes, curves.cycle, int(steps[-1]))
    dress(axes)
    if not curves.steps:
        say_empty(axes)
    return to_bytes(figure, suffix)

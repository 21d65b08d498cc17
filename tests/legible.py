"""Whether a figure can be read on a slide: its size, the size of its text, and that no text hides another."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Text

from clinical_r1 import plots


@pytest.fixture(autouse=True)
def fresh_figures():
    """Each test of a module that imports this begins with the package's style and leaves no figure open."""
    with matplotlib.rc_context():
        plots.set_style()
        yield
    plt.close("all")


def no_text_overlaps(figure):
    boxes = [Text.get_window_extent(text) for text in seen_texts(figure)]
    assert len(boxes) > 5
    return not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def seen_texts(figure):
    """The texts that are drawn: matplotlib keeps labels of ticks outside the view."""
    figure.canvas.draw()
    unseen = set()
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        unseen |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    texts = figure.findobj(matplotlib.text.Text)
    return [text for text in texts if text.get_visible() and text.get_text().strip() and text not in unseen]


def assert_legible(figure):
    """It stands on a slide at its own size (as saved, with all text), in 8 points or more, and no text hides another."""
    assert no_text_overlaps(figure)
    saved = figure.get_tightbbox(figure.canvas.get_renderer())
    assert saved.width <= plots.SLIDE[0] + 0.3 and saved.height <= plots.SLIDE[1] + 0.3, saved
    assert min(text.get_fontsize() for text in seen_texts(figure)) >= plots.SMALL

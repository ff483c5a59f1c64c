

# --- Charts: the numbers behind a drawing of matplotlib, in the form that E2B's clients know ---

def remember_boxes():
    # A drawing of boxes is many lines; only the call that makes it knows the numbers.
    from matplotlib.axes import Axes

    draw = Axes.bxp

    def bxp(self, stats, *values, **options):
        drawn = draw(self, stats, *values, **options)
        self._context_boxes = getattr(self, "_context_boxes", []) + [dict(box) for box in stats]
        return drawn

    Axes.bxp = bxp


def chart_of(figure):
    axes = [one for one in figure.axes if one.get_label() != "<colorbar>"]
    if not axes:
        return None
    charts = [_chart(one) for one in axes]
    if len(charts) == 1:
        return charts[0]
    title = figure._suptitle.get_text() if getattr(figure, "_suptitle", None) else None
    return {"type": "superchart", "title": title or None, "elements": charts}


def _chart(axes):
    from matplotlib.collections import PathCollection
    from matplotlib.patches import Wedge

    lines = [line for line in axes.lines if line.get_transform() == axes.transData]
    scatters = [one for one in axes.collections if isinstance(one, PathCollection)]
    bars = [one for one in axes.containers if hasattr(one, "patches") and len(one.patches)]
    wedges = [one for one in axes.patches if isinstance(one, Wedge)]
    boxes = getattr(axes, "_context_boxes", [])
    kinds = [kind for kind in (lines and not boxes, scatters, bars, wedges) if kind]
    head = {"title": axes.get_title() or None}
    if boxes and not (scatters or bars or wedges):
        return {"type": "box_and_whisker", **head, **_labels(axes), "elements": [_box(*one) for one in enumerate(boxes)]}
    if len(kinds) != 1:
        return {"type": "unknown", **head, "elements": []}
    if wedges:
        return {"type": "pie", **head, "elements": [_wedge(one) for one in wedges]}
    if bars:
        return _bars(axes, bars, head)
    kind, elements = ("line", [_line(axes, one) for one in lines]) if lines else (
        "scatter", [_scatter(axes, one) for one in scatters])
    return {"type": kind, **head, **_labels(axes), **_ticks(axes), "elements": elements}


def _labels(axes, is_turned=False):
    texts = [axes.get_xlabel() or None, axes.get_ylabel() or None]
    if is_turned:
        texts.reverse()
    units = []
    for text in texts:
        found = re.search(r"\s\((.*?)\)|\[(.*?)\]", text or "")
        units.append((found[1] or found[2]) if found else None)
    return {"x_label": texts[0], "y_label": texts[1], "x_unit": units[0], "y_unit": units[1]}


def _scale(axis, scale):
    from matplotlib.category import StrCategoryConverter

    converter = axis.get_converter() if hasattr(axis, "get_converter") else axis.converter
    if isinstance(converter, StrCategoryConverter):
        return "categorical"
    if "Date" in type(converter).__name__ or "Time" in type(converter).__name__:
        return "datetime"
    known = ("linear", "log", "symlog", "logit", "function", "functionlog", "asinh")
    return scale if scale in known else "unknown"


def _ticks(axes):
    found = {}
    for name, axis, scale in (("x", axes.xaxis, axes.get_xscale()), ("y", axes.yaxis, axes.get_yscale())):
        scale = _scale(axis, scale)
        found[f"{name}_ticks"] = [_number(tick, scale) for tick in axis.get_ticklocs()]
        found[f"{name}_tick_labels"] = [label.get_text() for label in axis.get_ticklabels()]
        found[f"{name}_scale"] = scale
    return found


def _number(value, scale):
    if scale == "datetime" and not hasattr(value, "isoformat"):
        try:
            from matplotlib.dates import num2date

            return num2date(float(value)).isoformat()
        except (TypeError, ValueError):
            return str(value)
    if isinstance(value, str):
        return value
    return _plain(value)


def _points(axes, xs, ys):
    scales = _scale(axes.xaxis, axes.get_xscale()), _scale(axes.yaxis, axes.get_yscale())
    return [[_number(x, scales[0]), _number(y, scales[1])] for x, y in zip(xs, ys)]


def _line(axes, line):
    return {"label": str(line.get_label()), "points": _points(axes, line.get_xdata(), line.get_ydata())}


def _scatter(axes, dots):
    places = dots.get_offsets()
    return {"label": str(dots.get_label()), "points": _points(axes, places[:, 0], places[:, 1])}


def _wedge(wedge):
    angle = abs(round(float(wedge.theta2 - wedge.theta1), 4))
    return {"label": str(wedge.get_label()), "angle": angle, "radius": float(wedge.r)}


def _bars(axes, containers, head):
    elements = []
    is_flat = all(getattr(one, "orientation", "vertical") == "horizontal" for one in containers)
    axis = axes.yaxis if is_flat else axes.xaxis
    ticks = list(zip(axis.get_ticklocs(), (label.get_text() for label in axis.get_ticklabels())))
    for container in containers:
        for bar in container.patches:
            start, size, value = (
                (bar.get_y(), bar.get_height(), bar.get_width()) if is_flat
                else (bar.get_x(), bar.get_width(), bar.get_height()))
            middle = start + size / 2
            near = min(ticks, key=lambda tick: abs(tick[0] - middle), default=(0, ""))
            is_named = near[1] and (abs(near[0] - middle) <= abs(size) * len(containers) / 2 + 1e-9)
            label = near[1] if is_named else str(round(float(middle), 6))
            elements.append({"label": label, "group": str(container.get_label()), "value": _plain(value)})
    return {"type": "bar", **head, **_labels(axes, is_flat), "elements": elements}


def _box(number, box):
    return {
        "label": str(box.get("label") or number + 1), "min": _plain(box.get("whislo")),
        "first_quartile": _plain(box.get("q1")), "median": _plain(box.get("med")),
        "third_quartile": _plain(box.get("q3")), "max": _plain(box.get("whishi")),
        "outliers": _plain(list(box.get("fliers", []))),
    }


main()

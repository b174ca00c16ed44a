"""Draws how many times Emily's speed the others reach the other way round: bars of their time over Emily's.

python plot.py TABLE.tsv PLOT.svg, where a line of the table has an engine, a figure and a ratio.
"""

import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "emily"
import matplotlib.pyplot as plt

source, target = sys.argv[1:]
with open(source) as file:
    rows = [line.rstrip("\n").split("\t") for line in file]
engines = sorted({engine for engine, _, _ in rows})
names = list(dict.fromkeys(name for _, name, _ in rows))
colours = dict(zip(engines, ["#4878a8", "#d08040", "#609860"]))

figure, axes = plt.subplots(figsize=(8, 0.28 * len(rows) + 1))
height = 0.8 / len(engines)
for engine in engines:
    ratios = {name: float(ratio) for own, name, ratio in rows if own == engine}
    places = [names.index(name) + height * (engines.index(engine) - (len(engines) - 1) / 2) for name in ratios]
    axes.barh(places, list(ratios.values()), height, label=engine, color=colours[engine])
axes.set_yticks(range(len(names)), names)
axes.invert_yaxis()
axes.set_xscale("log")
axes.axvline(1, color="black", linewidth=1)
axes.set_xlabel("its time over Emily's (to the right of 1 Emily is faster)")
axes.legend(loc="lower right")
figure.tight_layout()
figure.savefig(target, metadata={"Date": None})

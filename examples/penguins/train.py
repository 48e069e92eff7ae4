#!/usr/bin/env python3
"""Trains the model of this example: a network of four inputs, eight hidden units and three classes, by plain gradient
descent (Rumelhart, Hinton and Williams 1986), without any library. Seeded: the same bytes each time.

    python3 train.py penguins.csv > model.txt
"""
import csv
import math
import random
import sys

FEATURES = ["beak_length_mm", "beak_depth_mm", "flipper_length_mm", "body_mass_g"]
SPECIES = ["Adelie", "Chinstrap", "Gentoo"]
HIDDEN, EPOCHS, RATE = 8, 300, 0.05

rows = [row for row in csv.DictReader(open(sys.argv[1])) if all(row[name] for name in FEATURES)]
# Every fourth is left out, to see what the model is worth.
train = [row for index, row in enumerate(rows) if index % 4]
values = {name: [float(row[name]) for row in train] for name in FEATURES}
mean = [sum(values[name]) / len(train) for name in FEATURES]
spread = [math.sqrt(sum((x - m) ** 2 for x in values[name]) / len(train)) for name, m in zip(FEATURES, mean)]


def scaled(row):
    return [(float(row[name]) - m) / s for name, m, s in zip(FEATURES, mean, spread)]


chance = random.Random(1)
w1 = [[chance.gauss(0, 0.5) for _ in range(len(FEATURES) + 1)] for _ in range(HIDDEN)]
w2 = [[chance.gauss(0, 0.5) for _ in range(HIDDEN + 1)] for _ in SPECIES]


def forward(x):
    hidden = [math.tanh(sum(w * v for w, v in zip(unit, x + [1.0]))) for unit in w1]
    scores = [sum(w * v for w, v in zip(unit, hidden + [1.0])) for unit in w2]
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    return hidden, [power / sum(powers) for power in powers]


examples = [(scaled(row), SPECIES.index(row["species"])) for row in train]
for _ in range(EPOCHS):
    chance.shuffle(examples)
    for x, label in examples:
        hidden, shares = forward(x)
        error = [share - (index == label) for index, share in enumerate(shares)]
        back = [(1 - h * h) * sum(error[k] * w2[k][j] for k in range(len(SPECIES))) for j, h in enumerate(hidden)]
        for k, unit in enumerate(w2):
            for j, value in enumerate(hidden + [1.0]):
                unit[j] -= RATE * error[k] * value
        for j, unit in enumerate(w1):
            for i, value in enumerate(x + [1.0]):
                unit[i] -= RATE * back[j] * value

unseen = [row for index, row in enumerate(rows) if index % 4 == 0]
right = sum(SPECIES[max(range(3), key=lambda k: forward(scaled(row))[1][k])] == row["species"] for row in unseen)
print(f"{right} of {len(unseen)} that it has not seen are right", file=sys.stderr)
for name, table in [("mean", [mean]), ("spread", [spread]), ("hidden", w1), ("classes", w2)]:
    for line in table:
        print(name, *(f"{value:.6f}" for value in line))

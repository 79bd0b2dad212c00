"""Writes tests/fixtures/length-controlled/expected.json: length-controlled win rates of made-up comparisons by scikit-learn.

A venv with scikit-learn 1.9.1 (not in requirements.txt): python make_length_controlled.py
"""
import json
import warnings
from pathlib import Path

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression

warnings.filterwarnings("ignore")
STRENGTHS = np.logspace(-4, 4, 10)


def fit(x, y, w, strength, tol):
    """L1 logistic regression on soft labels: every row once as a 1 with weight w y, once as a 0 with weight w (1 - y)."""
    model = LogisticRegression(
        penalty="l1", C=strength, solver="liblinear", fit_intercept=False, tol=tol, max_iter=1_000_000, random_state=123
    )
    labels = np.concatenate([np.ones(len(y)), np.zeros(len(y))])
    weights = np.concatenate([w * y, w * (1 - y)])
    keep = weights > 0
    return model.fit(np.concatenate([x, x])[keep], labels[keep], sample_weight=weights[keep])


def loss(model, x, y, w):
    p = np.clip(model.predict_proba(x)[:, 1], 1e-15, 1 - 1e-15)
    return -np.mean(w * (y * np.log(p) + (1 - y) * np.log(1 - p)))


def rate(own, gamed, tol):
    lengths = np.array([row["lengthDifference"] for row in own], float)
    scaled = lengths / lengths.std(ddof=1)
    x = np.array(
        [[np.tanh(g["lengthDifference"]), g["difficulty"], 0.0] for g in gamed]
        + [[np.tanh(s), row["difficulty"], 1.0] for s, row in zip(scaled, own)]
    )
    y = np.array([g["preference"] for g in gamed] + [np.nan if r["preference"] is None else r["preference"] for r in own])
    w = np.array([0.1] * len(gamed) + [1.0] * len(own))
    keep = ~np.isnan(y)
    x, y, w = x[keep], y[keep], w[keep]
    folds = (len(y) - 1 - np.arange(len(y))) % 5
    losses = [
        np.mean([loss(fit(x[folds != f], y[folds != f], w[folds != f], c, tol), x[folds == f], y[folds == f], w[folds == f])
                 for f in range(5)])
        for c in STRENGTHS
    ]
    strength = STRENGTHS[int(np.argmin(losses))]
    model = fit(x, y, w, strength, tol)
    test = np.array([[0.0, row["difficulty"], 1.0] for row in own])
    return {
        "rate": model.predict_proba(test)[:, 1].mean(),
        "strength": strength,
        "coefficients": model.coef_[0].tolist(),
        "losses": [float(value) for value in losses],
    }


def sample(rng, n, coefficients, missing):
    difficulty = np.round(rng.normal(0, 1, n), 4)
    lengths = rng.integers(-3000, 3000, n)

    def preference(x):
        p = 1 / (1 + np.exp(-x - rng.normal(0, 1.5, len(x))))
        return np.round(p, 4)

    own = preference(coefficients[0] * np.tanh(lengths / lengths.std(ddof=1)) + coefficients[1] * difficulty + coefficients[2])
    gone = rng.random(n) < missing
    rows = [
        {"preference": None if g else float(p), "lengthDifference": int(d), "difficulty": float(h)}
        for p, d, h, g in zip(own, lengths, difficulty, gone)
    ]
    gamed = []
    for sign in (1, -1):
        scaled = np.round(sign * np.abs(rng.normal(0.8, 0.5, n)), 4)
        p = preference(-1.6 * np.tanh(scaled) + 0.8 * difficulty)
        gamed += [
            {"preference": float(a), "lengthDifference": float(b), "difficulty": float(h)}
            for a, b, h in zip(p, scaled, difficulty)
        ]
    return rows, gamed


def main():
    rng = np.random.default_rng(5)
    cases = []
    for n, coefficients, missing in [(40, (-1.2, 0.8, -0.9), 0.05), (25, (0.0, 0.0, 0.0), 0), (60, (1.0, 0.5, 2.0), 0), (8, (0.5, 0, 0), 0)]:
        own, gamed = sample(rng, n, coefficients, missing)
        if n == 8:
            gamed = []
        cases.append({"own": own, "gamed": gamed, **{k: v for k, v in rate(own, gamed, 1e-12).items()},
                      "rate_default_tolerance": rate(own, gamed, 1e-4)["rate"]})
    out = Path(__file__).parent.parent / "fixtures" / "length-controlled" / "expected.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"scikit-learn": sklearn.__version__, "numpy": np.__version__, "cases": cases}) + "\n")
    for case in cases:
        print(case["strength"], case["rate"], case["rate_default_tolerance"], case["coefficients"], case["losses"])


main()

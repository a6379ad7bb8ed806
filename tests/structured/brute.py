"""All paths of a short chain, one by one: what the chains' algorithms are checked against."""

import itertools

import numpy as np


def paths(unary, transition, start, end, mask):
    """Every path of one row as (tags of real steps, score), if above minus infinity; `unary` (T, K), all NumPy float64."""
    steps = np.flatnonzero(mask)
    found = []
    for tags in itertools.product(range(unary.shape[1]), repeat=len(steps)):
        score = sum(unary[t, k] for t, k in zip(steps, tags, strict=True))
        score += sum(transition[i, j] for i, j in itertools.pairwise(tags))
        if len(tags):
            score += start[tags[0]] + end[tags[-1]]
        if score > -np.inf:
            found.append((tags, score))
    return found


class Brute:
    """What every algorithm gives for one row."""

    def __init__(self, unary, transition, start, end, mask):
        self.T, self.K = unary.shape
        self.steps = np.flatnonzero(mask)
        self.unary, self.transition, self.start, self.end = unary, transition, start, end
        found = paths(unary, transition, start, end, mask)
        self.tags, self.scores = [p for p, _ in found], np.array([s for _, s in found])
        top = self.scores.max() if found else 0.0
        self.log_partition = top + np.log(np.exp(self.scores - top).sum()) if found else -np.inf
        self.probabilities = np.exp(self.scores - self.log_partition) if found else np.zeros(0)

    def marginals(self):
        result = np.zeros((self.T, self.K))
        for tags, p in zip(self.tags, self.probabilities, strict=True):
            for t, k in zip(self.steps, tags, strict=True):
                result[t, k] += p
        return result

    def pairs(self):
        result = np.zeros((self.T, self.K, self.K))
        for tags, p in zip(self.tags, self.probabilities, strict=True):
            for t, i, j in zip(self.steps[1:], tags[:-1], tags[1:], strict=True):
                result[t, i, j] += p
        return result

    def edges(self):
        first, last = np.zeros(self.K), np.zeros(self.K)
        for tags, p in zip(self.tags, self.probabilities, strict=True):
            if tags:
                first[tags[0]] += p
                last[tags[-1]] += p
        return first, last

    def entropy(self):
        p = self.probabilities
        return -(p * np.log(np.where(p > 0, p, 1.0))).sum()

    def expectation(self, unary, transition, start, end):
        total = 0.0
        for tags, p in zip(self.tags, self.probabilities, strict=True):
            value = sum(unary[t, k] for t, k in zip(self.steps, tags, strict=True))
            value += sum(transition[i, j] for i, j in itertools.pairwise(tags))
            if tags:
                value += start[tags[0]] + end[tags[-1]]
            total += p * value
        return total

    def full(self, tags):
        """A path of real steps as a row of T, -1 in masked ones."""
        row = np.full(self.T, -1)
        row[self.steps] = tags
        return row

"""The kernels compiled with numba, equal to the documented ``kernels_numpy`` to the last bit.

Classes are processed four or eight at a time, so that a pixel's running values are read and written
once for as many probabilities. Pixels are processed in blocks that stay in the CPU's cache, or in
runs of one superpixel. The additions to one sum keep their order, except in :func:`sums`, whose
terms add up exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float32, float64, int32, int64, intp, njit, types, uint8, void

from alc_backend.core.arrays import TOLERANCE, VOID

BLOCK = 2048
"""Pixels processed at a time."""

F, U = np.float64, np.uintp
"""Indices are unsigned: numba then need not check for negative ones, and the loops vectorise."""

_F32, _F64, _U8, _IDX = (
    types.Array(kind, 1, "C", readonly=True) for kind in (float32, float64, uint8, int32)
)
_I64 = types.Array(int64, 1, "C", readonly=True)
_F32_2D, _F64_2D, _I64_2D = (
    types.Array(kind, 2, "C", readonly=True) for kind in (float32, float64, int64)
)


def _compiled(
    *signature: Any, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that compiles for these types, without the GIL, and caches the code on disk."""
    options |= {"nogil": True, "error_model": "numpy"}

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            compiled: Callable[..., Any] = njit(*signature, cache=True, **options)(function)
        except (RuntimeError, OSError):  # there is no writable folder for the cache
            compiled = njit(*signature, **options)(function)
        return compiled

    return compile_


@njit(inline="always")
def _survey_class(flat, at, size, number, total, lowest, best, argbest, square):
    """Add one class, whose probabilities begin at ``at``, to the running values of a block."""
    for i in range(size):
        p = flat[at + i]
        total[i] += p
        lowest[i] = min(lowest[i], p)
        argbest[i], best[i] = number if p > best[i] else argbest[i], max(best[i], p)
    for i in range(size):
        square[i] += F(flat[at + i]) * F(flat[at + i])


@njit(inline="always")
def _count(index, classes, size, votes):
    """Add the pixels of a block to ``votes``, those of one superpixel and one class at a time."""
    start = U(0)
    while start < size:
        stop = start + U(1)
        while stop < size and index[stop] == index[start] and classes[stop] == classes[start]:
            stop += U(1)
        votes[U(index[start]), U(classes[start])] += np.int32(stop - start)
        start = stop


@_compiled(intp(_F32_2D, _U8, _IDX, uint8[::1], float32[::1], float64[::1], int32[:, ::1]))
def survey(probabilities, labels, index, predicted, self_confidence, squares, votes):
    """See ``kernels_numpy.survey``."""
    flat = probabilities.reshape(probabilities.size)
    classes, pixels = U(probabilities.shape[0]), U(probabilities.shape[1])
    best, lowest = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    total, argbest = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int32)
    one, void_ = np.float32(1), U(VOID)
    unsound = np.zeros(BLOCK, np.int32)
    start = U(0)
    while start < pixels:
        size = min(U(BLOCK), pixels - start)
        square, indices = squares[start : start + size], index[start : start + size]
        for i in range(size):
            best[i] = total[i] = lowest[i] = flat[start + i]
            argbest[i] = 0
        for i in range(size):
            square[i] = F(flat[start + i]) * F(flat[start + i])
        c = U(1)
        while c + U(4) <= classes:
            x0 = c * pixels + start
            x1, x2, x3 = x0 + pixels, x0 + U(2) * pixels, x0 + U(3) * pixels
            c0, c1, c2, c3 = np.int32(c), np.int32(c + 1), np.int32(c + 2), np.int32(c + 3)
            for i in range(size):
                p0, p1, p2, p3 = flat[x0 + i], flat[x1 + i], flat[x2 + i], flat[x3 + i]
                total[i] = (((total[i] + p0) + p1) + p2) + p3
                lowest[i] = min(lowest[i], min(min(p0, p1), min(p2, p3)))
                top, arg = best[i], argbest[i]
                arg, top = c0 if p0 > top else arg, max(top, p0)
                arg, top = c1 if p1 > top else arg, max(top, p1)
                arg, top = c2 if p2 > top else arg, max(top, p2)
                argbest[i], best[i] = c3 if p3 > top else arg, max(top, p3)
            for i in range(size):
                q0, q1, q2, q3 = F(flat[x0 + i]), F(flat[x1 + i]), F(flat[x2 + i]), F(flat[x3 + i])
                square[i] = (((square[i] + q0 * q0) + q1 * q1) + q2 * q2) + q3 * q3
            c += U(4)
        while c < classes:
            at = c * pixels + start
            _survey_class(flat, at, size, np.int32(c), total, lowest, best, argbest, square)
            c += U(1)
        for i in range(size):
            unsound[i] += not (abs(total[i] - one) <= TOLERANCE and lowest[i] >= 0)
        for i in range(size):
            predicted[start + i] = argbest[i]
        for i in range(size):
            given = U(labels[start + i])
            given = U(argbest[i]) if given == void_ else given
            self_confidence[start + i] = min(flat[given * pixels + start + i], one)
        _count(indices, argbest, size, votes)
        start += size
    return unsound.sum()


@_compiled(void(_F32_2D, _U8, float64[::1]))
def rivalry(probabilities, predicted, out):
    """See ``kernels_numpy.rivalry``."""
    classes, pixels = probabilities.shape
    best, second = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    nothing = np.float32(0)
    for start in range(0, pixels, BLOCK):
        size = min(BLOCK, pixels - start)
        winner = predicted[start : start + size]
        for i in range(size):
            best[i] = second[i] = nothing
        for c in range(classes):
            row, number = probabilities[c, start : start + size], np.uint8(c)
            for i in range(size):
                p = row[i]
                best[i] = p if winner[i] == number else best[i]
                second[i] = max(second[i], nothing if winner[i] == number else p)
        for i in range(size):
            out[start + i] = F(second[i]) / F(best[i])


@njit(inline="always")
def _run_end(index, start, limit):
    """The end (at most ``limit``) of the run of one superpixel that begins at pixel ``start``."""
    k = index[start]
    stop = start + U(1)
    while stop < limit and index[stop] == k:
        stop += U(1)
    return stop


@_compiled(void(_IDX, _F64, float64[::1]))
def totals(index, values, out):
    """See ``kernels_numpy.totals``."""
    out[:] = 0.0
    start, pixels = U(0), U(len(index))
    while start < pixels:
        stop = _run_end(index, start, pixels)
        total = out[U(index[start])]
        for x in range(start, stop):
            total += values[x]
        out[U(index[start])] = total
        start = stop


@_compiled(void(_F32_2D, _IDX, float64[:, ::1]))
def class_totals(probabilities, index, out):
    """See ``kernels_numpy.class_totals``."""
    out[:] = 0.0
    start, pixels, classes = U(0), U(len(index)), U(len(probabilities))
    while start < pixels:
        stop = _run_end(index, start, pixels)
        sums = out[U(index[start])]
        c = U(0)
        while c + U(4) <= classes:
            one, two, three, four = sums[c], sums[c + U(1)], sums[c + U(2)], sums[c + U(3)]
            for x in range(start, stop):
                one += probabilities[c, x]
                two += probabilities[c + U(1), x]
                three += probabilities[c + U(2), x]
                four += probabilities[c + U(3), x]
            sums[c], sums[c + U(1)], sums[c + U(2)], sums[c + U(3)] = one, two, three, four
            c += U(4)
        while c < classes:
            one = sums[c]
            for x in range(start, stop):
                one += probabilities[c, x]
            sums[c] = one
            c += U(1)
        start = stop


@njit(error_model="numpy")
def _exact(value, rounder):
    """See ``kernels_numpy.exact``."""
    return (value + rounder) - rounder  # not in ``sums``, which may put additions in another order


@njit(inline="always")
def _runs(index, block, size, begin):
    """The number of runs in a block; ``begin`` gets where each begins and where the last ends."""
    runs = start = U(0)
    while start < size:
        begin[runs] = start
        runs += U(1)
        start = _run_end(index, block + start, block + size) - block
    begin[runs] = size
    return runs


@_compiled(
    void(_F32_2D, _IDX, _U8, _U8, _F32, _F64, float64, float64[:, ::1], float64[:, ::1]),
    fastmath={"reassoc"},
)
def sums(probabilities, index, predicted, dominant, self_confidence, squares, rounder, pull, total):
    """See ``kernels_numpy.sums``."""
    flat = probabilities.reshape(probabilities.size)
    pixels, classes = U(len(index)), U(pull.shape[1])
    weight, agrees = np.empty(BLOCK, np.float64), np.empty(BLOCK, np.float64)
    begin = np.empty(BLOCK + 1, np.uintp)
    block = U(0)
    while block < pixels:
        size = min(U(BLOCK), pixels - block)
        for i in range(size):
            weight[i] = (1.0 - F(self_confidence[block + i])) / math.sqrt(squares[block + i])
        for i in range(size):
            agrees[i] = 1.0 if predicted[block + i] == dominant[U(index[block + i])] else 0.0
        runs = _runs(index, block, size, begin)
        c = U(0)
        while c + U(4) <= classes:
            x0 = c * pixels + block
            x1, x2, x3 = x0 + pixels, x0 + U(2) * pixels, x0 + U(3) * pixels
            c1, c2, c3 = c + U(1), c + U(2), c + U(3)
            for run in range(runs):
                k = U(index[block + begin[run]])
                if k == 0:
                    continue
                w0 = w1 = w2 = w3 = t0 = t1 = t2 = t3 = 0.0
                for i in range(begin[run], begin[run + U(1)]):
                    w, t = weight[i], agrees[i]
                    p0, p1 = F(flat[x0 + i]), F(flat[x1 + i])
                    p2, p3 = F(flat[x2 + i]), F(flat[x3 + i])
                    w0, t0 = w0 + _exact(p0 * w, rounder), t0 + _exact(p0 * t, rounder)
                    w1, t1 = w1 + _exact(p1 * w, rounder), t1 + _exact(p1 * t, rounder)
                    w2, t2 = w2 + _exact(p2 * w, rounder), t2 + _exact(p2 * t, rounder)
                    w3, t3 = w3 + _exact(p3 * w, rounder), t3 + _exact(p3 * t, rounder)
                pull[k, c], total[k, c] = pull[k, c] + w0, total[k, c] + t0
                pull[k, c1], total[k, c1] = pull[k, c1] + w1, total[k, c1] + t1
                pull[k, c2], total[k, c2] = pull[k, c2] + w2, total[k, c2] + t2
                pull[k, c3], total[k, c3] = pull[k, c3] + w3, total[k, c3] + t3
            c += U(4)
        while c < classes:
            x0 = c * pixels + block
            for run in range(runs):
                k = U(index[block + begin[run]])
                if k == 0:
                    continue
                w0 = t0 = 0.0
                for i in range(begin[run], begin[run + U(1)]):
                    p0 = F(flat[x0 + i])
                    w0 += _exact(p0 * weight[i], rounder)
                    t0 += _exact(p0 * agrees[i], rounder)
                pull[k, c] += w0
                total[k, c] += t0
            c += U(1)
        block += size


@njit(inline="always")
def _project(flat, pixels, start, stop, references, k, out, first):
    """Write f(x) · row k of ``references`` into ``out`` for the pixels from start to stop."""
    size, classes = stop - start, U(references.shape[1])
    for i in range(size):
        out[first + i] = 0.0
    c = U(0) if k > 0 else classes
    while c + U(8) <= classes:
        x0 = c * pixels + start
        x1, x2, x3, x4 = x0 + pixels, x0 + U(2) * pixels, x0 + U(3) * pixels, x0 + U(4) * pixels
        x5, x6, x7 = x0 + U(5) * pixels, x0 + U(6) * pixels, x0 + U(7) * pixels
        r0, r1, r2 = references[k, c], references[k, c + U(1)], references[k, c + U(2)]
        r3, r4, r5 = references[k, c + U(3)], references[k, c + U(4)], references[k, c + U(5)]
        r6, r7 = references[k, c + U(6)], references[k, c + U(7)]
        for i in range(size):
            p0, p1, p2, p3 = F(flat[x0 + i]), F(flat[x1 + i]), F(flat[x2 + i]), F(flat[x3 + i])
            p4, p5, p6, p7 = F(flat[x4 + i]), F(flat[x5 + i]), F(flat[x6 + i]), F(flat[x7 + i])
            product = (((out[first + i] + p0 * r0) + p1 * r1) + p2 * r2) + p3 * r3
            out[first + i] = (((product + p4 * r4) + p5 * r5) + p6 * r6) + p7 * r7
        c += U(8)
    while c + U(4) <= classes:
        x0 = c * pixels + start
        x1, x2, x3 = x0 + pixels, x0 + U(2) * pixels, x0 + U(3) * pixels
        r0, r1 = references[k, c], references[k, c + U(1)]
        r2, r3 = references[k, c + U(2)], references[k, c + U(3)]
        for i in range(size):
            p0, p1, p2, p3 = F(flat[x0 + i]), F(flat[x1 + i]), F(flat[x2 + i]), F(flat[x3 + i])
            out[first + i] = (((out[first + i] + p0 * r0) + p1 * r1) + p2 * r2) + p3 * r3
        c += U(4)
    while c < classes:
        x0, r0 = c * pixels + start, references[k, c]
        for i in range(size):
            out[first + i] += F(flat[x0 + i]) * r0
        c += U(1)


@_compiled(void(_F32_2D, _IDX, _F64_2D, float64[::1]))
def dots(probabilities, index, references, out):
    """See ``kernels_numpy.dots``."""
    flat = probabilities.reshape(probabilities.size)
    pixels, start = U(len(index)), U(0)
    while start < pixels:
        stop = _run_end(index, start, pixels)
        _project(flat, pixels, start, stop, references, U(index[start]), out, start)
        start = stop


@_compiled(void(_F32_2D, _IDX, _U8, _U8, _F64, _F64_2D, intp[::1]))
def representatives(probabilities, index, predicted, dominant, squares, means, out):
    """See ``kernels_numpy.representatives``."""
    flat = probabilities.reshape(probabilities.size)
    products, best = np.empty(BLOCK, np.float64), np.full(len(means), -1.0)
    mean_squares = np.zeros(len(means), np.float64)
    for row in range(len(means)):
        for c in range(means.shape[1]):
            mean_squares[row] += means[row, c] * means[row, c]
    pixels, start = U(len(index)), U(0)
    while start < pixels:
        k = U(index[start])
        stop = _run_end(index, start, min(pixels, start + U(BLOCK)))
        _project(flat, pixels, start, stop, means, k, products, U(0))
        square, winner, top = mean_squares[k], dominant[k], best[k]
        for i in range(stop - start if k > 0 else U(0)):
            cosine = min(products[i] / math.sqrt(square * squares[start + i]), 1.0)
            if predicted[start + i] == winner and cosine > top:
                top, out[k] = cosine, start + i
        best[k] = top
        start = stop


@njit(inline="always")
def _first_of_best(found, first):
    """See ``kernels_numpy._Best``."""
    best = 0
    for i in range(1, len(found)):
        if found[i] > found[best] or (found[i] == found[best] and first[i] < first[best]):
            best = i
    return best


@_compiled(void(_I64, _I64_2D, _F64, float64[::1], float64, int64[::1]))
def gains(queue, end, wrong, union, pixel, order):
    """See ``kernels_numpy.gains``."""
    classes, count, ends = len(union), len(wrong), end.reshape(-1)
    worth, found = 1 / union, np.empty(classes)
    following = np.zeros((classes, classes), int64)
    first = np.full((classes, classes), count)
    waiting = np.zeros((classes, classes))
    for y in range(classes):
        for d in range(classes):
            begin = ends[y * classes + d - 1] if y + d else 0
            following[y, d] = begin
            if begin < end[y, d]:
                first[y, d], waiting[y, d] = queue[begin], wrong[queue[begin]]
                following[y, d] += 1
    gain, candidate = np.zeros(classes), np.full(classes, count)
    column = np.zeros(classes, int64)
    for step in range(-classes, count):  # the first steps look at each row once
        y = step + classes
        if step >= 0:
            y = _first_of_best(gain, candidate)
            d, order[step] = column[y], candidate[y]
            union[y] = max(union[y] - waiting[y, d], 1.0)
            worth[y] = 1 / union[y]
            first[y, d], waiting[y, d] = count, 0.0
            if following[y, d] < end[y, d]:
                first[y, d] = queue[following[y, d]]
                waiting[y, d] = wrong[first[y, d]]
                following[y, d] += 1
        for c in range(classes):
            found[c] = waiting[y, c] * ((worth[y] if c == y else worth[c] + worth[y]) + pixel)
        best = _first_of_best(found, first[y])
        gain[y], column[y], candidate[y] = found[best], best, first[y, best]
        for r in range(classes if step >= 0 else 0):
            more = waiting[r, y] * ((worth[y] if r == y else worth[r] + worth[y]) + pixel)
            if more > gain[r] or (more == gain[r] and first[r, y] < candidate[r]):
                gain[r], column[r], candidate[r] = more, y, first[r, y]

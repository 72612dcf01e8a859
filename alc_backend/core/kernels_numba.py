"""The kernels compiled with numba, equal to the documented ``kernels_numpy`` to the last bit.

Classes are processed four or eight at a time, so that a pixel's running values are read and written
once for as many probabilities. Pixels are processed in blocks that stay in the CPU's cache, or in
runs of one superpixel. The additions to one sum keep their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float32, float64, int32, int64, intp, njit, types, uint8, void

from alc_backend.core.arrays import TOLERANCE, VOID

BLOCK = 1024
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


def _compiled(*signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that compiles for these types, without the GIL, and caches the code on disk."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            compiled: Callable[..., Any] = njit(*signature, cache=True, **options)(function)
        except (RuntimeError, OSError):  # there is no writable folder for the cache
            compiled = njit(*signature, **options)(function)
        return compiled

    return compile_


@njit(inline="always")
def _survey_class(row, number, label, total, lowest, given, best, argbest, square):
    """Add one class, its probabilities in ``row``, to the running values of a block of pixels."""
    for i in range(len(row)):
        p = row[i]
        total[i] += p
        lowest[i] = min(lowest[i], p)
        given[i] = p if label[i] == number else given[i]
        argbest[i], best[i] = number if p > best[i] else argbest[i], max(best[i], p)
    for i in range(len(row)):
        square[i] += F(row[i]) * F(row[i])


@_compiled(intp(_F32_2D, _U8, _IDX, uint8[::1], float32[::1], float64[::1], int32[:, ::1]))
def survey(probabilities, labels, index, predicted, self_confidence, squares, votes):
    """See ``kernels_numpy.survey``."""
    classes, pixels = probabilities.shape
    best, lowest = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    total, given = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    label, argbest = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32)
    one = np.float32(1)
    unsound = np.zeros(BLOCK, np.int32)
    for start in range(0, pixels, BLOCK):
        size = min(BLOCK, pixels - start)
        row = probabilities[0, start : start + size]
        square, indices = squares[start : start + size], index[start : start + size]
        for i in range(size):
            best[i] = total[i] = lowest[i] = given[i] = row[i]
            argbest[i], label[i] = 0, labels[start + i]
        for i in range(size):
            square[i] = F(row[i]) * F(row[i])
        c = 1
        while c + 4 <= classes:
            row0 = probabilities[c, start : start + size]
            row1 = probabilities[c + 1, start : start + size]
            row2 = probabilities[c + 2, start : start + size]
            row3 = probabilities[c + 3, start : start + size]
            c0, c1, c2, c3 = np.int32(c), np.int32(c + 1), np.int32(c + 2), np.int32(c + 3)
            for i in range(size):
                p0, p1, p2, p3 = row0[i], row1[i], row2[i], row3[i]
                total[i] = (((total[i] + p0) + p1) + p2) + p3
                lowest[i] = min(lowest[i], min(min(p0, p1), min(p2, p3)))
                y, known, top, arg = label[i], given[i], best[i], argbest[i]
                known = p0 if y == c0 else known
                known = p1 if y == c1 else known
                known = p2 if y == c2 else known
                given[i] = p3 if y == c3 else known
                arg, top = c0 if p0 > top else arg, max(top, p0)
                arg, top = c1 if p1 > top else arg, max(top, p1)
                arg, top = c2 if p2 > top else arg, max(top, p2)
                argbest[i], best[i] = c3 if p3 > top else arg, max(top, p3)
            for i in range(size):
                q0, q1, q2, q3 = F(row0[i]), F(row1[i]), F(row2[i]), F(row3[i])
                square[i] = (((square[i] + q0 * q0) + q1 * q1) + q2 * q2) + q3 * q3
            c += 4
        while c < classes:
            row = probabilities[c, start : start + size]
            _survey_class(row, np.int32(c), label, total, lowest, given, best, argbest, square)
            c += 1
        for i in range(size):
            unsound[i] += not (abs(total[i] - one) <= TOLERANCE and lowest[i] >= 0)
        for i in range(size):
            predicted[start + i] = argbest[i]
            self_confidence[start + i] = min(best[i] if label[i] == VOID else given[i], one)
        for i in range(size):
            votes[U(indices[i]), U(argbest[i])] += 1
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


@_compiled(void(_F32_2D, _IDX, _U8, _U8, _F32, _F64, float64[:, ::1], float64[:, ::1]))
def sums(probabilities, index, predicted, dominant, self_confidence, squares, pull, total):
    """See ``kernels_numpy.sums``."""
    flat = probabilities.reshape(probabilities.size)
    pixels, classes = U(len(index)), U(pull.shape[1])
    weight = np.empty(BLOCK, np.float64)
    start = block = limit = U(0)
    while start < pixels:
        if start == limit:
            block, limit = start, min(pixels, start + U(BLOCK))
            for i in range(limit - block):
                weight[i] = (1.0 - F(self_confidence[block + i])) / math.sqrt(squares[block + i])
        k = U(index[start])
        agrees = predicted[start] == dominant[k]
        stop = start + U(1)
        while stop < limit and index[stop] == k and (predicted[stop] == dominant[k]) == agrees:
            stop += U(1)
        first, size = start - block, stop - start
        c = U(0) if k > 0 else classes
        while c + U(8) <= classes:  # eight sums in flight hide the latency of an addition
            x0 = c * pixels + start
            x1, x2, x3, x4 = x0 + pixels, x0 + U(2) * pixels, x0 + U(3) * pixels, x0 + U(4) * pixels
            x5, x6, x7 = x0 + U(5) * pixels, x0 + U(6) * pixels, x0 + U(7) * pixels
            c1, c2, c3, c4 = c + U(1), c + U(2), c + U(3), c + U(4)
            c5, c6, c7 = c + U(5), c + U(6), c + U(7)
            w0, w1, w2, w3 = pull[k, c], pull[k, c1], pull[k, c2], pull[k, c3]
            w4, w5, w6, w7 = pull[k, c4], pull[k, c5], pull[k, c6], pull[k, c7]
            if agrees:
                t0, t1, t2, t3 = total[k, c], total[k, c1], total[k, c2], total[k, c3]
                t4, t5, t6, t7 = total[k, c4], total[k, c5], total[k, c6], total[k, c7]
                for i in range(size):
                    w = weight[first + i]
                    p0, p1, p2, p3 = (
                        F(flat[x0 + i]),
                        F(flat[x1 + i]),
                        F(flat[x2 + i]),
                        F(flat[x3 + i]),
                    )
                    p4, p5, p6, p7 = (
                        F(flat[x4 + i]),
                        F(flat[x5 + i]),
                        F(flat[x6 + i]),
                        F(flat[x7 + i]),
                    )
                    w0, w1, w2, w3 = w0 + p0 * w, w1 + p1 * w, w2 + p2 * w, w3 + p3 * w
                    w4, w5, w6, w7 = w4 + p4 * w, w5 + p5 * w, w6 + p6 * w, w7 + p7 * w
                    t0, t1, t2, t3, t4, t5 = t0 + p0, t1 + p1, t2 + p2, t3 + p3, t4 + p4, t5 + p5
                    t6, t7 = t6 + p6, t7 + p7
                total[k, c], total[k, c1], total[k, c2], total[k, c3] = t0, t1, t2, t3
                total[k, c4], total[k, c5], total[k, c6], total[k, c7] = t4, t5, t6, t7
            else:
                for i in range(size):
                    w = weight[first + i]
                    p0, p1, p2, p3 = (
                        F(flat[x0 + i]),
                        F(flat[x1 + i]),
                        F(flat[x2 + i]),
                        F(flat[x3 + i]),
                    )
                    p4, p5, p6, p7 = (
                        F(flat[x4 + i]),
                        F(flat[x5 + i]),
                        F(flat[x6 + i]),
                        F(flat[x7 + i]),
                    )
                    w0, w1, w2, w3 = w0 + p0 * w, w1 + p1 * w, w2 + p2 * w, w3 + p3 * w
                    w4, w5, w6, w7 = w4 + p4 * w, w5 + p5 * w, w6 + p6 * w, w7 + p7 * w
            pull[k, c], pull[k, c1], pull[k, c2], pull[k, c3] = w0, w1, w2, w3
            pull[k, c4], pull[k, c5], pull[k, c6], pull[k, c7] = w4, w5, w6, w7
            c += U(8)
        while c < classes:
            x0 = c * pixels + start
            w0, t0 = pull[k, c], total[k, c]
            share = 1.0 if agrees else 0.0
            for i in range(size):
                p0 = F(flat[x0 + i])
                w0 += p0 * weight[first + i]
                t0 += p0 * share
            pull[k, c], total[k, c] = w0, t0
            c += U(1)
        start = stop


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

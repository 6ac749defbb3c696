"""Three ideas: blocks of b that stay in the L2 cache for a group of rows, four rows that share each load of b, and
threads.

Inside, four steps of k at a time: sixteen multiply-adds for four loads of b and four loads and stores of c. Each is
added to the sum by itself: `contract` lets the compiler fuse a product and the addition after it, and nothing else, so
that a0 b0 + a1 b1, summed before it meets c, costs additions of its own and much of the gain. The limit that remains: c
goes through the L1 cache, for Numba does not keep a tile of it in registers; that is where the C++ rungs go on.
"""

from ulpgrad.kernels.numba_jit import jit, prange

ROWS, STEPS, WIDTH = 64, 256, 512


@jit(fastmath={"contract"})
def one_step(a, b, c, i, p, j0, j1):
    """Row i of c, one step of k."""
    row, line, scale = c[i, j0:j1], b[p, j0:j1], a[i, p]
    for j in range(j1 - j0):
        row[j] += scale * line[j]


@jit(fastmath={"contract"})
def one_row(a, b, c, i, p0, p1, j0, j1):
    """Row i of c, steps p0 to p1."""
    for p in range(p0, p1):
        one_step(a, b, c, i, p, j0, j1)


@jit(fastmath={"contract"})
def four_rows(a, b, c, i, p0, p1, j0, j1):
    """Rows i to i + 3 of c, four steps of k at a time."""
    c0, c1, c2, c3 = c[i, j0:j1], c[i + 1, j0:j1], c[i + 2, j0:j1], c[i + 3, j0:j1]
    whole = p0 + (p1 - p0) // 4 * 4
    for p in range(p0, whole, 4):
        b0, b1, b2, b3 = b[p, j0:j1], b[p + 1, j0:j1], b[p + 2, j0:j1], b[p + 3, j0:j1]
        a00, a01, a02, a03 = a[i, p], a[i, p + 1], a[i, p + 2], a[i, p + 3]
        a10, a11, a12, a13 = a[i + 1, p], a[i + 1, p + 1], a[i + 1, p + 2], a[i + 1, p + 3]
        a20, a21, a22, a23 = a[i + 2, p], a[i + 2, p + 1], a[i + 2, p + 2], a[i + 2, p + 3]
        a30, a31, a32, a33 = a[i + 3, p], a[i + 3, p + 1], a[i + 3, p + 2], a[i + 3, p + 3]
        for j in range(j1 - j0):
            v0, v1, v2, v3 = b0[j], b1[j], b2[j], b3[j]
            c0[j] = (((c0[j] + a00 * v0) + a01 * v1) + a02 * v2) + a03 * v3
            c1[j] = (((c1[j] + a10 * v0) + a11 * v1) + a12 * v2) + a13 * v3
            c2[j] = (((c2[j] + a20 * v0) + a21 * v1) + a22 * v2) + a23 * v3
            c3[j] = (((c3[j] + a30 * v0) + a31 * v1) + a32 * v2) + a33 * v3
    for row in range(i, i + 4):
        for p in range(whole, p1):
            one_step(a, b, c, row, p, j0, j1)


@jit(parallel=True)
def multiply(a, b, c):
    """c = a b; each task is a group of rows."""
    m, k, n = a.shape[0], a.shape[1], b.shape[1]
    c[:, :] = 0
    for task in prange((m + ROWS - 1) // ROWS):
        first, last = task * ROWS, min(m, task * ROWS + ROWS)
        for p0 in range(0, k, STEPS):
            p1 = min(k, p0 + STEPS)
            for j0 in range(0, n, WIDTH):
                j1 = min(n, j0 + WIDTH)
                whole = first + (last - first) // 4 * 4
                for i in range(first, whole, 4):
                    four_rows(a, b, c, i, p0, p1, j0, j1)
                for i in range(whole, last):
                    one_row(a, b, c, i, p0, p1, j0, j1)

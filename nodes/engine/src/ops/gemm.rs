//! Matrix products over slices: a checked face for the `gemm` crate.

use ::gemm::Parallelism;

/// A matrix of `rows × cols` numbers inside a slice.
#[derive(Clone, Copy)]
pub(super) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Rows that lie one after another, `row_stride` numbers apart.
    pub(super) fn rows(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride, col_stride: 1 }.checked()
    }

    /// A dense row-major matrix.
    pub(super) fn dense(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::rows(data, rows, cols, cols)
    }

    /// The same numbers, transposed. Nothing is copied.
    pub(super) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn checked(self) -> Self {
        let last = extent(self.rows, self.cols, self.row_stride, self.col_stride);
        assert!(last <= self.data.len(), "matrix of {last} numbers in a slice of {}", self.data.len());
        self
    }
}

fn extent(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + (cols - 1) * col_stride + 1 }
}

/// Whether a product may use the threads of the pool.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// The caller already runs on one thread of many.
    One,
    /// All threads of the current pool.
    All,
}

/// `dst = lhs · rhs`, or `dst += lhs · rhs`. `dst` is row-major with `dst_stride` numbers from row to row.
///
/// The order of summation depends on the shapes alone, so the result is the same for any number of threads.
pub(super) fn gemm(
    dst: &mut [f32],
    dst_stride: usize,
    lhs: Mat<'_>,
    rhs: Mat<'_>,
    accumulate: bool,
    threads: Threads,
) {
    assert!(extent(lhs.rows, rhs.cols, dst_stride, 1) <= dst.len(), "the product does not fit its place");
    // SAFETY: the assertion keeps every written place inside `dst`, which is borrowed alone.
    unsafe { gemm_at(dst.as_mut_ptr(), dst_stride, lhs, rhs, accumulate, threads) }
}

/// [`gemm`] into a part of an output that other tasks write at the same time.
///
/// # Safety
/// `dst` must point to memory that holds all rows of the product, and nothing else may touch those places during the call.
pub(super) unsafe fn gemm_at(
    dst: *mut f32,
    dst_stride: usize,
    lhs: Mat<'_>,
    rhs: Mat<'_>,
    accumulate: bool,
    threads: Threads,
) {
    let (m, n, k) = (lhs.rows, rhs.cols, lhs.cols);
    assert_eq!(k, rhs.rows, "inner sizes of a product differ");
    assert!(dst_stride >= n, "the rows of a product would overlap");
    if m == 0 || n == 0 {
        return;
    }
    let parallelism = match threads {
        Threads::All if m * n * k > 1 << 17 => Parallelism::Rayon(0),
        _ => Parallelism::None,
    };
    // SAFETY: `checked` keeps every read inside its slice; the caller vouches for `dst`.
    unsafe {
        ::gemm::gemm(
            m,
            n,
            k,
            dst,
            1,
            dst_stride as isize,
            accumulate,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The address of an output that several tasks write, each its own part.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut f32);

// SAFETY: an address alone does nothing; whoever writes through it vouches for that write.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(output: &mut [f32]) -> Self {
        Self(output.as_mut_ptr())
    }

    /// The address `offset` numbers further on.
    ///
    /// # Safety
    /// `offset` must lie inside the output, which must still be alive.
    pub(super) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

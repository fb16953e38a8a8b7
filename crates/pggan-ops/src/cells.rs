//! A matrix written by many tasks at once, each owning some rows of some columns.
#![expect(
    unsafe_code,
    reason = "column blocks of one matrix are disjoint, which slices cannot express"
)]

use std::marker::PhantomData;
use std::ops::Range;

use pulp::Arch;

use crate::pool;

/// A growing `[rows, columns]` matrix. Memory is first touched by the task that writes it.
pub(crate) struct Matrix {
    data: Vec<f32>,
    rows: usize,
    columns: usize,
}

/// One task's rows of one task's columns.
pub(crate) struct Cell<'a> {
    start: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    owner: PhantomData<&'a mut f32>,
}

/// Hands the matrix's address to the tasks.
#[derive(Clone, Copy)]
struct Address(*mut f32);

impl Address {
    /// # Safety
    /// The place must lie inside the allocation.
    unsafe fn offset(self, floats: usize) -> *mut f32 {
        // SAFETY: as the caller warrants.
        unsafe { self.0.add(floats) }
    }
}

// SAFETY: a cell is the only way to its floats, like the slice that it was cut from.
unsafe impl Send for Cell<'_> {}

// SAFETY: the tasks that share the address write disjoint cells (see `cell`).
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl<'a> Cell<'a> {
    /// `rows` stretches of `columns` floats in a buffer, `stride` floats apart.
    #[inline]
    pub(crate) fn over(data: &'a mut [f32], stride: usize, rows: usize, columns: usize) -> Self {
        assert!(rows > 0 && columns <= stride && data.len() >= (rows - 1) * stride + columns);
        Self { start: data.as_mut_ptr(), stride, rows, columns, owner: PhantomData }
    }

    /// The cell's part of its row `r`, counted from the cell's first row.
    #[inline]
    pub(crate) fn row(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.rows, "row of a cell out of range");
        // SAFETY: `r` is in range, the cell is initialised, and no other cell covers it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(r * self.stride), self.columns) }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the whole matrix.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Whether the cell spans the whole width of its matrix.
    pub(crate) fn is_whole(&self) -> bool {
        self.columns == self.stride
    }

    /// Some of the cell's columns.
    #[inline]
    pub(crate) fn columns(&mut self, range: Range<usize>) -> Cell<'_> {
        assert!(range.start <= range.end && range.end <= self.columns);
        // SAFETY: the columns are the cell's own, and inside its first row.
        let start = unsafe { self.start.add(range.start) };
        Cell { start, columns: range.len(), ..*self }
    }

    /// The same cell, for a while.
    pub(crate) fn reborrow(&mut self) -> Cell<'_> {
        Cell { owner: PhantomData, ..*self }
    }

    /// All of a cell that spans the whole width of its matrix.
    pub(crate) fn whole(&mut self) -> &mut [f32] {
        assert!(self.is_whole(), "a cell of whole rows");
        // SAFETY: without gaps between its rows the cell is one initialised stretch that nobody
        // else covers.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.rows * self.columns) }
    }
}

impl Matrix {
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        Self { data: Vec::with_capacity(rows * columns), rows, columns }
    }

    /// Appends rows: those from `bounds[0]` (as many as there are now) up to the last bound. For
    /// each pair of neighbouring bounds and each block of `width` columns, `body(row block, column
    /// range, cell)` runs once, on a cell of zeros.
    pub(crate) fn append(
        &mut self,
        bounds: &[usize],
        width: usize,
        body: impl Fn(usize, Range<usize>, Cell<'_>) + Sync,
    ) {
        let (Some(&first), Some(&last)) = (bounds.first(), bounds.last()) else { return };
        assert!(first * self.columns == self.data.len() && last <= self.rows);
        for_each(
            Address(self.data.as_mut_ptr()),
            self.columns,
            bounds,
            width,
            |block, range, cell| {
                let (rows, columns) = if cell.is_whole() {
                    (1, cell.rows * cell.columns)
                } else {
                    (cell.rows, cell.columns)
                };
                for r in 0..rows {
                    // SAFETY: inside the capacity by the assertion; this task alone owns the cell.
                    // Zeroing is nearly free: the lines must come into the cache to be written in
                    // any case.
                    unsafe { cell.start.add(r * cell.stride).write_bytes(0, columns) };
                }
                body(block, range, cell);
            },
        );
        // SAFETY: the cells cover every row in `first..last`, and each was initialised above.
        unsafe { self.data.set_len(last * self.columns) };
    }

    /// Like [`append`](Self::append), on rows that are there already, with their contents.
    pub(crate) fn update(
        &mut self,
        bounds: &[usize],
        width: usize,
        body: impl Fn(usize, Range<usize>, Cell<'_>) + Sync,
    ) {
        update(&mut self.data, self.columns, bounds, width, body);
    }

    /// The whole matrix, row after row; all rows must have been appended.
    pub(crate) fn into_vec(self) -> Vec<f32> {
        assert!(self.data.len() == self.rows * self.columns, "every row is appended");
        self.data
    }
}

/// [`Matrix::update`] on a matrix of `columns` that lies in a slice.
pub(crate) fn update(
    data: &mut [f32],
    columns: usize,
    bounds: &[usize],
    width: usize,
    body: impl Fn(usize, Range<usize>, Cell<'_>) + Sync,
) {
    assert!(bounds.last().is_none_or(|last| last * columns <= data.len()));
    for_each(Address(data.as_mut_ptr()), columns, bounds, width, body);
}

/// Floats that one task of a pass over memory takes: enough to be worth a task.
const RUN: usize = 1 << 12;

/// Rows of `columns` floats for one task of a pass over memory; depends on the shape alone, so that
/// sums made by tasks never depend on the threads.
pub(crate) fn rows_per_task(columns: usize) -> usize {
    (RUN / columns.max(1)).max(1)
}

/// A matrix made by many tasks: `body(first row, rows)` writes some rows, which start as zeros. Plain loops in it are
/// compiled for the widest vectors that processors have.
pub(crate) fn fill(
    rows: usize,
    columns: usize,
    body: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let step = rows_per_task(columns);
    let bounds: Vec<usize> = (0..rows).step_by(step).chain([rows]).collect();
    let mut matrix = Matrix::new(rows, columns);
    matrix.append(&bounds, columns.max(1), |task, _, mut cell| {
        Arch::new().dispatch(|| body(task * step, cell.whole()));
    });
    matrix.into_vec()
}

/// The cells of a matrix of `columns` that lies in a slice: row block, column range, cell. Cut as in
/// [`Matrix::append`].
pub(crate) fn cut<'a>(
    data: &'a mut [f32],
    columns: usize,
    bounds: &'a [usize],
    width: usize,
) -> impl Iterator<Item = (usize, Range<usize>, Cell<'a>)> {
    assert!(bounds.last().is_none_or(|last| last * columns <= data.len()));
    assert!(bounds.is_sorted(), "the cells must not overlap");
    let start = Address(data.as_mut_ptr());
    (0..count(columns, bounds, width)).map(move |task| cell(start, columns, bounds, width, task))
}

/// Runs `body` on each cell of the matrix at `start`.
fn for_each(
    start: Address,
    columns: usize,
    bounds: &[usize],
    width: usize,
    body: impl Fn(usize, Range<usize>, Cell<'_>) + Sync,
) {
    assert!(bounds.is_sorted(), "the cells must not overlap");
    pool::for_each(count(columns, bounds, width), |task| {
        let (block, range, cell) = cell(start, columns, bounds, width, task);
        body(block, range, cell);
    });
}

/// How many cells a matrix is cut into.
fn count(columns: usize, bounds: &[usize], width: usize) -> usize {
    bounds.len().saturating_sub(1) * columns.div_ceil(width)
}

/// One of the cells of the matrix at `start`, by `bounds` and blocks of `width` columns: row block,
/// column range, cell. Row blocks go slowest: of one operation after the other on the same rows, each thread then begins with
/// those that it wrote before. The callers check that the last bound lies inside the allocation.
fn cell<'a>(
    start: Address,
    columns: usize,
    bounds: &[usize],
    width: usize,
    task: usize,
) -> (usize, Range<usize>, Cell<'a>) {
    let across = columns.div_ceil(width);
    let (block, left) = (task / across, task % across * width);
    let range = left..(left + width).min(columns);
    let (top, rows) = (bounds[block], bounds[block + 1] - bounds[block]);
    let cell = Cell {
        // SAFETY: the callers checked that the last bound lies inside the allocation.
        start: unsafe { start.offset(top * columns + left) },
        stride: columns,
        rows,
        columns: range.len(),
        owner: PhantomData,
    };
    (block, range, cell)
}

/// Adds `part` to `sum`.
pub(crate) fn add(sum: &mut [f32], part: &[f32]) {
    pool::sweep(sum.chunks_mut(RUN).zip(part.chunks(RUN)), |(sum, part)| {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    });
}

/// Computes `sum` on about `parts` parts of `0..count`, whose lengths are multiples of `grain`, and
/// adds up the results in order. For sums with too few elements to keep all threads busy; the cut
/// is by the numbers alone, never by the threads.
pub(crate) fn sum_of_parts(
    count: usize,
    parts: usize,
    grain: usize,
    sum: impl Fn(Range<usize>) -> Vec<f32> + Sync,
) -> Vec<f32> {
    let step = count.div_ceil(parts.max(1)).next_multiple_of(grain).max(1);
    let part = |part: usize| sum(part * step..((part + 1) * step).min(count));
    add_up(pool::map(count.div_ceil(step).max(1), part))
}

/// The sum of equally long parts, in their order.
fn add_up(parts: Vec<Vec<f32>>) -> Vec<f32> {
    let sum = parts.into_iter().reduce(|mut sum, part| {
        add(&mut sum, &part);
        sum
    });
    sum.unwrap_or_default()
}

//! 3x3 convolution of few channels, product by product: neighbouring output pixels share a vector.
//!
//! In memory, channels last, the window of a row of pixels is one stretch, and so are the outputs
//! of neighbouring pixels. So a row of outputs is a product: `groups` rows, each a stretch of the
//! input, times weights in which every output of the group has its taps, and zeros elsewhere. With
//! 8 channels and vectors of 16 lanes a quarter of the work is done for the zeros; Winograd's way
//! would leave half of each vector empty, and its transforms cost more than the products that they
//! save.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::super::Resample;
use super::filters::Filters;
use super::finish::Finish;
use super::scratch::Scratch;
use super::simd::{self, Panel, Target, Walk, Widths};
use super::{Size, Spec};
use crate::cells::{self, Cell, Matrix};

/// Parts of the weight gradient's sum, for machines of many cores.
const PARTS: usize = 32;
/// Rows of places in a band: few enough for the cache, though each band reads a row or two more than
/// it is long.
const BAND: usize = 16;

/// What happens along either axis of the image, which is the same in both.
#[derive(Clone, Copy)]
struct Axis {
    /// Pixels from one window to the next, and outputs that they stand for.
    step: usize,
    phases: usize,
    /// For each phase: the pixels between the first one read for any phase and its window.
    leads: &'static [usize],
    /// For each phase and pixel of its window, the part of each of the three taps.
    taps: &'static [&'static [[f32; 3]]],
}

/// The first pixel read lies one before the place of its output.
const LEAD: usize = 1;

impl Axis {
    fn new(resample: Resample) -> Self {
        const A: [f32; 3] = [1.0, 0.0, 0.0];
        const B: [f32; 3] = [0.0, 1.0, 0.0];
        const C: [f32; 3] = [0.0, 0.0, 1.0];
        const AB: [f32; 3] = [1.0, 1.0, 0.0];
        const BC: [f32; 3] = [0.0, 1.0, 1.0];
        const HALVES: [[f32; 3]; 4] =
            [[0.5, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 0.5]];
        let (step, phases, leads, taps): (_, _, &[_], &[&[_]]) = match resample {
            Resample::Same => (1, 1, &[0], &[&[A, B, C]]),
            // Of two outputs at the place of a pixel, one sees the pixel before, one that behind.
            Resample::Up => (1, 2, &[0, 1], &[&[A, BC], &[AB, C]]),
            Resample::Down => (2, 1, &[0], &[&HALVES]),
        };
        Self { step, phases, leads, taps }
    }

    /// Pixels in the window of one output.
    fn window(self) -> usize {
        self.taps[0].len()
    }
}

/// Outputs side by side that share a product.
struct Bundle {
    /// The first of them, and the first pixel that they read, in their group.
    output: usize,
    pixel: usize,
    /// Pixels that they read.
    pixels: usize,
}

/// A convolution in this form.
struct Form {
    axis: Axis,
    ci: usize,
    co: usize,
    size: Size,
    out: Size,
    /// Outputs of a bundle, and floats of them in whole vectors.
    side_by_side: usize,
    width: usize,
    bundles: Vec<Bundle>,
    /// Of a row: outputs of a group, groups, and pixels from group to group.
    outputs: usize,
    groups: usize,
    step: usize,
}

impl Form {
    fn new(resample: Resample, size: Size, ci: usize, co: usize) -> Self {
        let axis = Axis::new(resample);
        let widths = Widths::of_this_processor();
        assert!(co <= widths.panel, "too many channels for this form");
        let out = size.after(resample);
        // All phases in one bundle, or each in its own.
        let places = widths.lanes / co / axis.phases;
        let (side_by_side, bundles) = if places == 0 {
            let bundle = |phase: usize| Bundle {
                output: phase,
                pixel: axis.leads[phase],
                pixels: axis.window(),
            };
            (1, (0..axis.phases).map(bundle).collect())
        } else {
            let last = axis.leads[axis.phases - 1] + axis.window();
            let pixels = (places - 1) * axis.step + last;
            (places * axis.phases, vec![Bundle { output: 0, pixel: 0, pixels }])
        };
        let outputs = side_by_side * bundles.len();
        Self {
            axis,
            ci,
            co,
            size,
            out,
            side_by_side,
            width: widths.padded(side_by_side * co),
            bundles,
            outputs,
            groups: out.w.div_ceil(outputs),
            step: outputs / axis.phases * axis.step,
        }
    }

    /// Rows of the product's right side: those of one bundle for one row of its window.
    fn depth(&self) -> usize {
        self.bundles[0].pixels * self.ci
    }

    /// Where the weights of a phase's row, a bundle and a row of its window lie.
    fn panel(&self, phase: usize, bundle: usize, row: usize) -> Range<usize> {
        let index = (phase * self.bundles.len() + bundle) * self.axis.window() + row;
        let len = self.depth() * self.width;
        index * len..(index + 1) * len
    }

    /// Those of all rows of the window.
    fn panels(&self, phase: usize, bundle: usize) -> Range<usize> {
        let last = self.axis.window() - 1;
        self.panel(phase, bundle, 0).start..self.panel(phase, bundle, last).end
    }

    fn panels_len(&self) -> usize {
        self.panels(self.axis.phases - 1, self.bundles.len() - 1).end
    }

    /// Whether bundles are whole vectors and groups whole rows: a product may then meet the outputs
    /// where they lie.
    fn fills_rows(&self) -> bool {
        self.side_by_side * self.co == self.width && self.out.w.is_multiple_of(self.outputs)
    }

    /// The floats of a bundle's outputs among the `len` of its group: the last one of a row may reach
    /// over the edge.
    fn of_group(&self, bundle: &Bundle, len: usize) -> Range<usize> {
        let first = bundle.output * self.co;
        first.min(len)..(first + self.side_by_side * self.co).min(len)
    }

    /// Calls `each(place among the panels, tap, factor)` for every tap that has a part in a weight,
    /// with the place of the first input channel and the first output channel.
    fn taps(&self, mut each: impl FnMut(usize, usize, f32)) {
        for (phase, down) in self.axis.taps.iter().enumerate() {
            for (row, vertical) in down.iter().enumerate() {
                for (b, bundle) in self.bundles.iter().enumerate() {
                    for side in 0..self.side_by_side {
                        let output = bundle.output + side;
                        let (place, phase_across) =
                            (output / self.axis.phases, output % self.axis.phases);
                        let first = place * self.axis.step + self.axis.leads[phase_across];
                        let panel = self.panel(phase, b, row).start + side * self.co;
                        for (i, across) in self.axis.taps[phase_across].iter().enumerate() {
                            let pixel = first - bundle.pixel + i;
                            let at = panel + pixel * self.ci * self.width;
                            for tap in 0..9 {
                                let factor = vertical[tap / 3] * across[tap % 3];
                                if factor != 0.0 {
                                    each(at, tap, factor);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// Cuts the output into bands of rows, none of which reaches from image to image, as image and
    /// rows of places.
    fn bands(&self) -> Vec<(usize, Range<usize>)> {
        let places = self.out.h / self.axis.phases;
        (0..self.size.n)
            .flat_map(|n| (0..places).step_by(BAND).map(move |y| (n, y..(y + BAND).min(places))))
            .collect()
    }

    /// Floats of a row of pixels with what the windows see beside the image.
    fn row_len(&self) -> usize {
        let bundle = &self.bundles[self.bundles.len() - 1];
        let seen = (self.groups - 1) * self.step + bundle.pixel + bundle.pixels;
        seen.max(LEAD + self.size.w) * self.ci
    }

    /// The rows of pixels that some rows of places read, with zeros where there is no image.
    #[inline(always)]
    fn rows(&self, x: &[f32], n: usize, places: &Range<usize>) -> Scratch {
        let Self { size, ci, .. } = *self;
        let (len, width) = (self.row_len(), size.w * ci);
        let first = places.start * self.axis.step;
        let count = (places.len() - 1) * self.axis.step
            + self.axis.leads[self.axis.phases - 1]
            + self.axis.window();
        let mut rows = Scratch::new(count * len);
        for (i, row) in rows.chunks_exact_mut(len).enumerate() {
            if (LEAD..size.h + LEAD).contains(&(first + i)) {
                let from = (n * size.h + first + i - LEAD) * width;
                row[..LEAD * ci].fill(0.0);
                row[LEAD * ci..][..width].copy_from_slice(&x[from..][..width]);
                row[LEAD * ci + width..].fill(0.0);
            } else {
                row.fill(0.0);
            }
        }
        rows
    }

    /// Where a bundle's window begins in [`Form::rows`], of a row of places (counted from the band's
    /// first) in one phase.
    fn window(&self, place: usize, phase: usize, bundle: &Bundle, row: usize) -> usize {
        let y = place * self.axis.step + self.axis.leads[phase] + row;
        y * self.row_len() + bundle.pixel * self.ci
    }
}

/// `[n, h, w, inputs]` to `[n, h', w', outputs]`.
pub(super) fn apply(
    filters: &Filters,
    resample: Resample,
    x: &[f32],
    size: Size,
    finish: Finish<'_>,
) -> Vec<f32> {
    let form = Form::new(resample, size, filters.panels.inputs, filters.panels.outputs);
    let mut panels = vec![0.0; form.panels_len()];
    let (taps, columns) = (filters.taps(0, 0), filters.panels.width(0));
    form.taps(|at, tap, factor| {
        for i in 0..form.ci {
            let from = &taps[(i * 9 + tap) * columns..][..form.co];
            let to = &mut panels[at + i * form.width..][..form.co];
            to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
        }
    });
    let bands = form.bands();
    let rows = form.out.w * form.axis.phases;
    let per_image = form.out.h * form.out.w;
    let bounds = bands.iter().map(|(n, places)| n * per_image + places.start * rows);
    let bounds: Vec<usize> = bounds.chain([form.out.pixels()]).collect();
    let mut y = Matrix::new(form.out.pixels(), form.co);
    y.append(&bounds, form.co, |band, columns, mut cell| {
        let (n, places) = bands[band].clone();
        let (form, panels, out) = (&form, &*panels, cell.reborrow());
        Arch::new().dispatch(Apply { form, panels, x, n, places, cell: out });
        finish.cell(bounds[band], columns, cell);
    });
    y.into_vec()
}

/// One band of the output.
struct Apply<'a> {
    form: &'a Form,
    panels: &'a [f32],
    x: &'a [f32],
    n: usize,
    places: Range<usize>,
    cell: Cell<'a>,
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { form, panels, x, n, places, mut cell } = self;
        let Form { axis, ci, co, width, groups, step, .. } = *form;
        let rows = form.rows(x, n, &places);
        let (row_out, group, depth) = (form.out.w * co, form.outputs * co, form.depth());
        let walk = Walk { step: 1, run: depth, jump: form.row_len() };
        let in_place = form.fills_rows();
        let mut sums = Scratch::new(if in_place { 0 } else { groups * width });
        for (place, out) in cell.whole().chunks_exact_mut(axis.phases * row_out).enumerate() {
            for (phase, out) in out.chunks_exact_mut(row_out).enumerate() {
                for (b, bundle) in form.bundles.iter().enumerate() {
                    let window = &rows[form.window(place, phase, bundle, 0)..];
                    let data = &panels[form.panels(phase, b)];
                    let (data_out, stride) = if in_place {
                        (&mut out[bundle.output * co..], group)
                    } else {
                        (&mut *sums, width)
                    };
                    simd::product(
                        simd,
                        groups,
                        |g| &window[g * step * ci..],
                        walk,
                        Panel { data, stride: width, width, depth: axis.window() * depth },
                        Target { data: data_out, stride, add: false },
                    );
                    if !in_place {
                        let outputs = out.chunks_mut(group);
                        for (out, sums) in outputs.zip(sums.chunks_exact(width)) {
                            let range = form.of_group(bundle, out.len());
                            let len = range.len();
                            out[range].copy_from_slice(&sums[..len]);
                        }
                    }
                }
            }
        }
    }
}

/// The gradient `[outputs][inputs][9]`, times `scale`: added to `into`, or else returned.
pub(super) fn weight_grad(
    spec: Spec,
    x: &[f32],
    dy: &[f32],
    size: Size,
    scale: f32,
    into: Option<&mut [f32]>,
) -> Option<Vec<f32>> {
    let form = Form::new(spec.resample, size, spec.ci, spec.co);
    let bands = form.bands();
    let sums = cells::sum_of_parts(bands.len(), PARTS, 1, |some| {
        let mut sums = vec![0.0; form.panels_len()];
        for (n, places) in &bands[some] {
            let (n, places) = (*n, places.clone());
            Arch::new().dispatch(WeightGrad { form: &form, x, dy, n, places, sums: &mut sums });
        }
        sums
    });
    let mut own = into.is_none().then(|| vec![0.0; spec.co * spec.ci * 9]);
    let dw = into.or(own.as_deref_mut()).expect("one of the two is there");
    form.taps(|at, tap, factor| {
        for i in 0..form.ci {
            for (o, sum) in sums[at + i * form.width..][..form.co].iter().enumerate() {
                dw[(o * form.ci + i) * 9 + tap] += scale * factor * sum;
            }
        }
    });
    own
}

/// One band's part of the products' sums.
struct WeightGrad<'a> {
    form: &'a Form,
    x: &'a [f32],
    dy: &'a [f32],
    n: usize,
    places: Range<usize>,
    sums: &'a mut [f32],
}

impl WithSimd for WeightGrad<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { form, x, dy, n, places, sums } = self;
        let Form { axis, ci, co, width, groups, step, .. } = *form;
        let rows = form.rows(x, n, &places);
        let (row_out, group, depth) = (form.out.w * co, form.outputs * co, form.depth());
        let walk = Walk::straight(step * ci);
        let in_place = form.fills_rows();
        let mut deltas = Scratch::new(if in_place { 0 } else { groups * width });
        deltas.fill(0.0);
        let first = (n * form.out.h + places.start * axis.phases) * row_out;
        let dy = &dy[first..][..places.len() * axis.phases * row_out];
        for (place, dy) in dy.chunks_exact(axis.phases * row_out).enumerate() {
            for (phase, dy) in dy.chunks_exact(row_out).enumerate() {
                for (b, bundle) in form.bundles.iter().enumerate() {
                    let (data, stride) = if in_place {
                        (&dy[bundle.output * co..], group)
                    } else {
                        for (deltas, dy) in deltas.chunks_exact_mut(width).zip(dy.chunks(group)) {
                            let range = form.of_group(bundle, dy.len());
                            let (values, rest) = deltas.split_at_mut(range.len());
                            values.copy_from_slice(&dy[range]);
                            rest.fill(0.0);
                        }
                        (&*deltas, width)
                    };
                    let panel = Panel { data, stride, width, depth: groups };
                    for row in 0..axis.window() {
                        let window = &rows[form.window(place, phase, bundle, row)..];
                        let data = &mut sums[form.panel(phase, b, row)];
                        let target = Target { data, stride: width, add: true };
                        simd::product(simd, depth, |r| &window[r..], walk, panel, target);
                    }
                }
            }
        }
    }
}

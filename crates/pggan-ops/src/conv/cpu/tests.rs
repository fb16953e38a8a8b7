//! Every direction against plain loops in `f64`, the adjoint identities, and independence of the
//! threads.

use super::*;
use crate::pool::keep_awake;

/// The definition, tap by tap: `visit(n, y, x, tap, [(input pixel, factor)])` per output pixel.
struct Naive {
    spec: Spec,
    n: usize,
    h: usize,
    w: usize,
}

impl Naive {
    fn out(&self) -> (usize, usize) {
        match self.spec.resample {
            Resample::Same => (self.h, self.w),
            Resample::Up => (2 * self.h, 2 * self.w),
            Resample::Down => (self.h / 2, self.w / 2),
        }
    }

    /// All (output pixel, input pixel, tap, factor) that belong together.
    fn links(&self) -> Vec<(usize, usize, usize, f64)> {
        let (n, h, w, k) = (self.n, self.h, self.w, self.spec.k);
        let (oh, ow) = self.out();
        // Of the convolution itself.
        let (ch, cw) = if self.spec.resample == Resample::Up { (2 * h, 2 * w) } else { (h, w) };
        let mut links = Vec::new();
        for i in 0..n {
            for y in 0..ch {
                for x in 0..cw {
                    for tap in 0..k * k {
                        let (sy, sx) = (y + tap / k, x + tap % k);
                        let pad = k / 2;
                        if sy < pad || sx < pad || sy - pad >= ch || sx - pad >= cw {
                            continue;
                        }
                        let (sy, sx) = (sy - pad, sx - pad);
                        let (from, to, factor) = match self.spec.resample {
                            Resample::Same => ((sy, sx), (y, x), 1.0),
                            Resample::Up => ((sy / 2, sx / 2), (y, x), 1.0),
                            Resample::Down => ((sy, sx), (y / 2, x / 2), 0.25),
                        };
                        links.push((
                            (i * oh + to.0) * ow + to.1,
                            (i * h + from.0) * w + from.1,
                            tap,
                            factor,
                        ));
                    }
                }
            }
        }
        links
    }

    fn forward(&self, x: &[f32], weight: &[f32], scale: f32) -> Vec<f64> {
        let Spec { ci, co, k, .. } = self.spec;
        let (oh, ow) = self.out();
        let mut y = vec![0.0; self.n * oh * ow * co];
        for (to, from, tap, factor) in self.links() {
            for o in 0..co {
                for i in 0..ci {
                    let weight = f64::from(weight[(o * ci + i) * k * k + tap]) * f64::from(scale);
                    y[to * co + o] += factor * weight * f64::from(x[from * ci + i]);
                }
            }
        }
        y
    }

    fn input_grad(&self, dy: &[f32], weight: &[f32], scale: f32) -> Vec<f64> {
        let Spec { ci, co, k, .. } = self.spec;
        let mut dx = vec![0.0; self.n * self.h * self.w * ci];
        for (to, from, tap, factor) in self.links() {
            for o in 0..co {
                for i in 0..ci {
                    let weight = f64::from(weight[(o * ci + i) * k * k + tap]) * f64::from(scale);
                    dx[from * ci + i] += factor * weight * f64::from(dy[to * co + o]);
                }
            }
        }
        dx
    }

    fn weight_grad(&self, x: &[f32], dy: &[f32], scale: f32) -> Vec<f64> {
        let Spec { ci, co, k, .. } = self.spec;
        let mut dw = vec![0.0; co * ci * k * k];
        for (to, from, tap, factor) in self.links() {
            for o in 0..co {
                for i in 0..ci {
                    dw[(o * ci + i) * k * k + tap] += factor
                        * f64::from(scale)
                        * f64::from(dy[to * co + o])
                        * f64::from(x[from * ci + i]);
                }
            }
        }
        dw
    }
}

/// Reproducible values in [-1, 1).
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn error(found: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    let wrong =
        found.iter().zip(wanted).fold(0.0_f64, |m, (f, w)| m.max((f64::from(*f) - w).abs()));
    wrong / largest.max(1e-30)
}

struct Case {
    naive: Naive,
    x: Vec<f32>,
    dy: Vec<f32>,
    weight: Vec<f32>,
    scale: f32,
}

impl Case {
    fn new(n: usize, h: usize, w: usize, spec: Spec) -> Self {
        let naive = Naive { spec, n, h, w };
        let (oh, ow) = naive.out();
        Self {
            x: noise(n * h * w * spec.ci, 1),
            dy: noise(n * oh * ow * spec.co, 2),
            weight: noise(spec.co * spec.ci * spec.k * spec.k, 3),
            scale: 0.7,
            naive,
        }
    }

    fn size(&self) -> Size {
        Size { n: self.naive.n, h: self.naive.h, w: self.naive.w }
    }

    fn input_gradient(&self) -> Vec<f32> {
        self.input_gradient_then(Finish::Nothing)
    }

    fn input_gradient_then(&self, finish: Finish<'_>) -> Vec<f32> {
        self.apply(&self.dy, Direction::Back, self.size().after(self.naive.spec.resample), finish)
    }

    fn forward(&self) -> Vec<f32> {
        self.forward_then(Finish::Nothing)
    }

    fn forward_then(&self, finish: Finish<'_>) -> Vec<f32> {
        self.apply(&self.x, Direction::Forward, self.size(), finish)
    }

    /// As [`super::super::Kernel`] does it, but for few pixels that meet weights as they are stored.
    fn apply(&self, x: &[f32], direction: Direction, size: Size, finish: Finish<'_>) -> Vec<f32> {
        let spec = self.naive.spec;
        if direction == Direction::Back && reads_stored(spec, direction, size.pixels()) {
            return self.apply_stored(x, direction, size, finish);
        }
        let packed = Packed::new(&self.weight, self.scale, spec, direction, size);
        assert!(packed.serves(size));
        packed.apply(x, size, finish)
    }

    fn apply_stored(
        &self,
        x: &[f32],
        direction: Direction,
        size: Size,
        finish: Finish<'_>,
    ) -> Vec<f32> {
        let way = (self.naive.spec, direction);
        apply_stored(&self.weight, x, size.pixels(), way, self.scale, finish)
    }
}

const RESAMPLES: [Resample; 3] = [Resample::Same, Resample::Up, Resample::Down];

fn shapes() -> Vec<(usize, usize, usize, Spec)> {
    let mut shapes = Vec::new();
    for resample in RESAMPLES {
        for (n, h, w, ci, co) in [
            (4, 1, 1, 1, 2),
            (1, 2, 2, 3, 5),
            (3, 4, 4, 7, 3),
            (2, 5, 7, 3, 16),
            (1, 9, 11, 17, 70),
            (2, 8, 8, 64, 33),
            (1, 4, 4, 513, 40),
            (1, 6, 10, 40, 513),
            (5, 12, 16, 20, 20),
            (1, 1, 30, 8, 9),
        ] {
            let even = resample != Resample::Down || (h % 2 == 0 && w % 2 == 0);
            let (h, w) = if even { (h, w) } else { (h + h % 2, w + w % 2) };
            shapes.push((n, h, w, Spec { ci, co, k: 3, resample }));
        }
    }
    for (n, h, w, ci, co) in [
        (1, 1, 1, 1, 1),
        (4, 1, 1, 1030, 65),
        (2, 5, 3, 3, 100),
        (1, 20, 17, 100, 3),
        (3, 32, 24, 3, 8),
        (2, 40, 40, 3, 16),
        (2, 17, 20, 5, 4),
        (2, 24, 40, 8, 3),
        (7, 3, 3, 64, 64),
    ] {
        shapes.push((n, h, w, Spec { ci, co, k: 1, resample: Resample::Same }));
    }
    shapes
}

#[test]
fn every_way_agrees_with_the_definition() {
    for (n, h, w, spec) in shapes() {
        let case = Case::new(n, h, w, spec);
        let (size, scale) = (case.size(), case.scale);
        let y = case.naive.forward(&case.x, &case.weight, scale);
        let dx = case.naive.input_grad(&case.dy, &case.weight, scale);
        let dw = case.naive.weight_grad(&case.x, &case.dy, scale);
        let check = |what: &str, found: &[f32], wanted: &[f64], limit: f64| {
            let error = error(found, wanted);
            assert!(error < limit, "{what} {n}x{h}x{w} {spec:?}: {error:.2e}");
        };
        let limit = if spec.k == 1 { 1e-5 } else { 1e-4 };
        check("forward", &case.forward(), &y, limit);
        check("input_grad", &case.input_gradient(), &dx, limit);
        let mut found = weight_grad(&case.x, &case.dy, size, spec, scale);
        check("weight_grad", &found, &dw, limit);
        add_weight_grad(&case.x, &case.dy, size, spec, scale, &mut found);
        let twice: Vec<f64> = dw.iter().map(|v| 2.0 * v).collect();
        check("add_weight_grad", &found, &twice, limit);
        if reads_stored(spec, Direction::Forward, size.pixels()) {
            let found = case.apply_stored(&case.x, Direction::Forward, size, Finish::Nothing);
            check("stored forward", &found, &y, limit);
        }
        if spec.k == 3 {
            let filters = Filters::pack(&case.weight, spec.co, spec.ci, 9, scale);
            let (resample, nothing) = (spec.resample, Finish::Nothing);
            if spec.co <= 16 {
                let found = direct::apply(&filters, resample, &case.x, size, nothing);
                check("direct forward", &found, &y, 1e-5);
                let found = direct::weight_grad(spec, &case.x, &case.dy, size, scale, None);
                check("direct weight_grad", &found.unwrap(), &dw, 1e-5);
            }
            for (tile, limit) in [(winograd::Tile::Small, 1e-5), (winograd::Tile::Large, 1e-4)] {
                let found = winograd::apply(&filters, tile, resample, &case.x, size, nothing);
                check(&format!("{tile:?} forward"), &found, &y, limit);
                let mapped = winograd::Mapped::new(&filters, tile, resample);
                let found = mapped.apply(&case.x, size, nothing);
                check(&format!("{tile:?} forward, mapped before"), &found, &y, limit);
                let found = winograd::weight_grad(tile, spec, &case.x, &case.dy, size, scale, None);
                check(&format!("{tile:?} weight_grad"), &found.unwrap(), &dw, limit);
            }
        }
    }
}

/// What follows a convolution gives the same bits in the cache as in a pass of its own.
#[test]
fn finishing_is_the_same_in_the_cache() {
    let activated = |x: &[f32], bias: &[f32]| -> Vec<f32> {
        x.iter().zip(bias.iter().cycle()).map(|(x, b)| (x + b).max((x + b) * 0.2)).collect()
    };
    let sloped = |x: &[f32], y: &[f32]| -> Vec<f32> {
        x.iter().zip(y).map(|(x, y)| if *y > 0.0 { *x } else { x * 0.2 }).collect()
    };
    for (n, h, w, spec) in shapes() {
        let case = Case::new(n, h, w, spec);
        let (forward, gradient) = (case.forward(), case.input_gradient());
        let (bias, y) = (noise(spec.co, 4), noise(forward.len(), 5));
        let finish = Finish::Activate { bias: &bias, slope: 0.2 };
        assert!(case.forward_then(finish) == activated(&forward, &bias), "{n}x{h}x{w} {spec:?}");
        if reads_stored(spec, Direction::Forward, case.size().pixels()) {
            let stored =
                |finish| case.apply_stored(&case.x, Direction::Forward, case.size(), finish);
            assert!(stored(finish) == activated(&stored(Finish::Nothing), &bias), "{spec:?}");
        }
        let finish = Finish::Slopes { y: &y, slope: 0.2 };
        assert!(case.forward_then(finish) == sloped(&forward, &y), "{n}x{h}x{w} {spec:?}");
        let x = noise(gradient.len(), 6);
        let finish = Finish::Slopes { y: &x, slope: 0.2 };
        let found = case.input_gradient_then(finish);
        assert!(found == sloped(&gradient, &x), "{n}x{h}x{w} {spec:?}");
    }
    // A layer without inputs still has its bias.
    let case = Case::new(2, 4, 4, Spec { ci: 0, co: 3, k: 3, resample: Resample::Up });
    let bias = [1.0, -1.0, 0.0];
    let found = case.forward_then(Finish::Activate { bias: &bias, slope: 0.2 });
    assert!(found.chunks(3).all(|pixel| pixel == [1.0, -0.2, 0.0]) && found.len() == 2 * 64 * 3);
}

/// All three directions come from one trilinear form of input, weights and output gradient.
#[test]
fn the_directions_are_adjoint() {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    for resample in RESAMPLES {
        for seed in 0..20 {
            let pick = |k: u64, range: std::ops::Range<usize>| {
                let value = noise(8, 100 * seed + k)[7] * 0.5 + 0.5;
                range.start + (value * range.len() as f32) as usize
            };
            let (n, ci, co) = (pick(0, 1..4), pick(1, 1..90), pick(2, 1..90));
            let (mut h, mut w) = (pick(3, 1..20), pick(4, 1..20));
            if resample == Resample::Down {
                (h, w) = (2 * h, 2 * w);
            }
            let case = Case::new(n, h, w, Spec { ci, co, k: 3, resample });
            let y = case.forward();
            let dx = case.input_gradient();
            let dw = weight_grad(&case.x, &case.dy, case.size(), case.naive.spec, case.scale);
            let (a, b, c) = (dot(&y, &case.dy), dot(&case.x, &dx), dot(&case.weight, &dw));
            let size = (dot(&y, &y) * dot(&case.dy, &case.dy)).sqrt();
            assert!((a - b).abs() < 1e-5 * size, "{resample:?} {n}x{h}x{w} {ci}->{co}: {a} {b}");
            assert!((a - c).abs() < 1e-5 * size, "{resample:?} {n}x{h}x{w} {ci}->{co}: {a} {c}");
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let run = |threads: usize, awake: bool| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let _awake = awake.then(keep_awake);
            let mut results = Vec::new();
            for (resample, n, h, w, ci, co) in [
                (Resample::Same, 2, 32, 32, 20, 30),
                (Resample::Same, 3, 40, 24, 3, 5),
                (Resample::Up, 3, 20, 24, 16, 8),
                (Resample::Down, 1, 64, 24, 8, 16),
                (Resample::Same, 2, 8, 8, 130, 150),
                (Resample::Up, 2, 16, 16, 130, 150),
                (Resample::Down, 2, 32, 32, 40, 140),
            ] {
                let case = Case::new(n, h, w, Spec { ci, co, k: 3, resample });
                results.push(case.forward());
                results.push(case.input_gradient());
                results.push(weight_grad(
                    &case.x,
                    &case.dy,
                    case.size(),
                    case.naive.spec,
                    case.scale,
                ));
            }
            results
        })
    };
    let one = run(1, false);
    for threads in [2, 3, 7] {
        for awake in [false, true, true] {
            assert!(run(threads, awake) == one, "{threads} threads give other bits");
        }
    }
}

#[test]
fn nothing_gives_nothing() {
    for resample in RESAMPLES {
        for (n, h, w, ci, co) in [
            (0, 8, 8, 16, 8),
            (2, 0, 8, 16, 8),
            (2, 8, 0, 16, 8),
            (2, 4, 4, 0, 8),
            (2, 4, 4, 16, 0),
        ] {
            let case = Case::new(n, h, w, Spec { ci, co, k: 3, resample });
            let y = case.forward();
            assert!(y.len() == case.dy.len() && y.iter().all(|v| *v == 0.0));
            let dx = case.input_gradient();
            assert!(dx.len() == case.x.len() && dx.iter().all(|v| *v == 0.0));
            let dw = weight_grad(&case.x, &case.dy, case.size(), case.naive.spec, 1.0);
            assert!(dw.len() == case.weight.len() && dw.iter().all(|v| *v == 0.0));
        }
    }
}

#![allow(dead_code, unused_variables, missing_docs)]
use super::Resample;
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec { pub ci: usize, pub co: usize, pub k: usize, pub resample: Resample }
#[derive(Debug)]
pub(crate) struct Packed { w: Vec<f32>, spec: Spec }
fn idx(spec: &Spec, o: usize, i: usize, ky: usize, kx: usize) -> usize { ((o * spec.ci + i) * spec.k + ky) * spec.k + kx }
impl Packed {
    pub(crate) fn new(w: &[f32], scale: f32, spec: Spec) -> Self { Self { w: w.iter().map(|w| w * scale).collect(), spec } }
    pub(crate) fn forward(&self, x: &[f32], n: usize, h: usize, w: usize) -> Vec<f32> { self.run(x, n, h, w, false) }
    pub(crate) fn input_grad(&self, dy: &[f32], n: usize, h: usize, w: usize) -> Vec<f32> { self.run(dy, n, h, w, true) }
    fn run(&self, x: &[f32], n: usize, h: usize, w: usize, grad: bool) -> Vec<f32> {
        use candle_core::{Tensor, Device};
        let s = self.spec;
        let wt = Tensor::from_slice(&self.w, (s.co, s.ci, s.k, s.k), &Device::Cpu).unwrap();
        let (ho, wo) = match s.resample { Resample::Same => (h, w), Resample::Up => (2*h, 2*w), Resample::Down => (h/2, w/2) };
        let y = if grad {
            super::generic::input_grad(&Tensor::from_slice(x, (n, ho, wo, s.co), &Device::Cpu).unwrap(), &wt, s.resample)
        } else { super::generic::forward(&Tensor::from_slice(x, (n, h, w, s.ci), &Device::Cpu).unwrap(), &wt, s.resample) };
        y.unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }
}
pub(crate) fn weight_grad(x: &[f32], dy: &[f32], n: usize, h: usize, w: usize, spec: Spec, scale: f32) -> Vec<f32> {
    use candle_core::{Tensor, Device};
    let s = spec;
    let (ho, wo) = match s.resample { Resample::Same => (h, w), Resample::Up => (2*h, 2*w), Resample::Down => (h/2, w/2) };
    let x = Tensor::from_slice(x, (n, h, w, s.ci), &Device::Cpu).unwrap();
    let dy = Tensor::from_slice(dy, (n, ho, wo, s.co), &Device::Cpu).unwrap();
    let dw = (super::generic::weight_grad(&x, &dy, s.k, s.resample).unwrap() * f64::from(scale)).unwrap();
    dw.flatten_all().unwrap().to_vec1().unwrap()
}

//! Single operations, and pixels on their way in and out.

use candle_core::{DType, Device, Tensor};
use pggan_ops::activation::{self, SLOPE};
use pggan_ops::conv::{Kernel, Resample};
use pggan_ops::pixel_norm::pixel_norm;
use pggan_ops::stddev::{self, Groups};
use pggan_ops::{reals, resample};

use super::file::File;
use super::{Checks, TYPES, tolerance};
use crate::{Result, samples};

impl Checks<'_> {
    pub(super) fn operations(&mut self, file: &File) -> Result<()> {
        for ((dtype, name), tolerance) in TYPES.into_iter().zip(tolerance::OPERATION) {
            let mut compare = |what: &str, ours: &Tensor, expected: &str| {
                let expected = file.images(expected, DType::F64)?;
                self.compare(format!("{what} in {name}"), ours, &expected, tolerance)
            };
            let x = file.images("pixelnorm/x", dtype)?;
            compare("pixelnorm", &pixel_norm(&x, 1e-8)?, "pixelnorm/y/f64")?;
            for key in file.tensors.keys() {
                let Some(n) = key.strip_prefix("mbstd/").and_then(|k| k.strip_suffix("/x")) else {
                    continue;
                };
                let groups = Groups { size: 4, parts: 1 };
                let x = file.images(key, dtype)?;
                let y = stddev::forward(&x, groups)?;
                compare(&format!("mbstd/{n}"), &y, &format!("mbstd/{n}/y/f64"))?;
                let dy = file.images(&format!("mbstd/{n}/cot"), dtype)?;
                let dx = stddev::backward(&x, &dy, groups)?;
                compare(&format!("mbstd/{n}/vjp"), &dx, &format!("mbstd/{n}/vjp/f64"))?;
            }
            for (op, resample, expected) in [
                ("upconv", Resample::Up, "upconv/y/f64"),
                ("convdown", Resample::Down, "convdown/y_fused/f64"),
                ("convdown", Resample::Same, "convdown/y_unfused/f64"),
            ] {
                let x = file.images(&format!("{op}/x"), dtype)?;
                let kernel =
                    Kernel::new(&file.get(&format!("{op}/w"))?.to_dtype(dtype)?, 1.0, resample)?;
                let bias = file.get(&format!("{op}/b"))?.to_dtype(dtype)?;
                let y = match resample {
                    Resample::Up => activation::add_bias(kernel.forward(&x)?, &bias)?,
                    Resample::Down => activation::bias_lrelu(kernel.forward(&x)?, &bias, SLOPE)?,
                    Resample::Same => resample::mean2x2(&activation::bias_lrelu(
                        kernel.forward(&x)?,
                        &bias,
                        SLOPE,
                    )?)?,
                };
                compare(expected.trim_end_matches("/f64"), &y, expected)?;
            }
        }
        self.pixels(file)
    }

    /// Stored pixels to what the discriminator sees, and a generator's images to stored pixels.
    fn pixels(&mut self, file: &File) -> Result<()> {
        let pixels = file.get("reals/u8")?;
        let (n, c, r, _) = pixels.dims4()?;
        let mirror = file.get("reals/mirror_u")?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let mut bytes = pixels.flatten_all()?.to_vec1::<u8>()?;
        for (image, u) in bytes.chunks_exact_mut(c * r * r).zip(mirror) {
            if u >= 0.5 {
                image.chunks_exact_mut(r).for_each(<[u8]>::reverse);
            }
        }
        for key in file.tensors.keys() {
            let alpha = key.strip_prefix("reals/y_alpha").and_then(|k| k.strip_suffix("/f64"));
            let Some(Ok(alpha)) = alpha.map(str::parse) else { continue };
            let ours = reals::normalize(&bytes, c, r, alpha);
            let ours = Tensor::from_vec(ours, (n, r, r, c), &Device::Cpu)?;
            let expected = file.images(key, DType::F64)?;
            self.compare(format!("reals/alpha{alpha}"), &ours, &expected, tolerance::OPERATION[1])?;
        }
        let images = file.get("to_u8/x")?.to_dtype(DType::F32)?;
        let ours = samples::to_bytes(&images)?;
        let expected = file.get("to_u8/y_rint_clip")?.flatten_all()?.to_vec1::<u8>()?;
        let off = ours.iter().zip(&expected).filter(|(a, b)| a != b).count();
        let off = off + ours.len().abs_diff(expected.len());
        self.row("to_u8, pixels that differ".to_owned(), off as f64, 0.0);
        Ok(())
    }
}

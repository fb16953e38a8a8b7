//! Growing is continuous: at alpha 0 a network computes what the smaller one did.

use candle_core::{Result, Tensor};
use pggan_model::Growth;
use pggan_ops::resample::{mean2x2, up2};

use crate::{networks, noise, tiny};

fn worst(a: &Tensor, b: &Tensor) -> Result<f64> {
    (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar()
}

#[test]
fn alpha_0_is_the_smaller_network_and_alpha_1_the_larger() -> Result<()> {
    let config = tiny(16);
    let (g, d) = networks(&config);
    let z = noise("z", &[4, config.latent_size()])?;
    for level in 3..=4 {
        let small = g.forward_only(&z, None, Growth::full(level - 1))?;
        let start = g.forward_only(&z, None, Growth { level, alpha: 0.0 })?;
        assert!(worst(&up2(&small)?, &start)? < 1e-12);
        let end = g.forward_only(&z, None, Growth { level, alpha: 1.0 - 1e-13 })?;
        assert!(worst(&g.forward_only(&z, None, Growth::full(level))?, &end)? < 1e-10);

        let r = 1 << level;
        let images = noise("images", &[4, r, r, 3])?;
        let (small, _) = d.forward(&mean2x2(&images)?, Growth::full(level - 1), 1)?;
        let (start, _) = d.forward(&images, Growth { level, alpha: 0.0 }, 1)?;
        assert!(worst(&small, &start)? < 1e-12);
        let (end, _) = d.forward(&images, Growth { level, alpha: 1.0 - 1e-13 }, 1)?;
        assert!(worst(&d.forward(&images, Growth::full(level), 1)?.0, &end)? < 1e-10);
    }
    Ok(())
}

#[test]
fn parts_of_a_batch_do_not_see_each_other() -> Result<()> {
    let config = tiny(8);
    let (_, d) = networks(&config);
    let (a, b) = (noise("a", &[4, 8, 8, 3])?, noise("b", &[4, 8, 8, 3])?);
    let growth = Growth { level: 3, alpha: 0.5 };
    let (together, _) = d.forward(&Tensor::cat(&[&a, &b], 0)?, growth, 2)?;
    let apart = Tensor::cat(&[d.forward(&a, growth, 1)?.0, d.forward(&b, growth, 1)?.0], 0)?;
    assert!(worst(&together, &apart)? < 1e-12);
    Ok(())
}

#[test]
fn lod_counts_as_the_official_code() {
    assert_eq!(Growth::full(2).lod(10), 8.0);
    assert_eq!(Growth { level: 3, alpha: 0.25 }.lod(10), 7.75);
    assert_eq!(Growth::full(10).lod(10), 0.0);
}

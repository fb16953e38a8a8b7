//! The steps that bend: those that are not piecewise linear, so that their tangent depends on where it is taken.

use candle_core::Tensor;
use pggan_ops::layer_norm;
use pggan_ops::stddev::{self, Groups};

use super::similarity::Similarity;
use crate::error::Result;
use crate::layers::NORM_EPSILON;
use crate::params::{Grads, Params};

/// A step that bends. Besides what any step has, its forward and backward pass and its tangent, it has a curvature: what the
/// gradient penalty's last pass needs of it.
#[derive(Clone, Copy)]
pub(super) enum Bend<'a> {
    /// Minibatch stddev (paper §3).
    Stddev(Groups),
    /// Layer norm, without the gain and bias that the next step has.
    LayerNorm,
    /// Minibatch discrimination, on so many minibatches.
    Similarity(&'a Similarity, usize),
}

impl Bend<'_> {
    pub(super) fn forward(self, params: &Params, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Stddev(groups) => stddev::forward(x, groups),
            Self::LayerNorm => layer_norm::forward(x, NORM_EPSILON),
            Self::Similarity(layer, parts) => layer.forward(params, x, parts),
        }
    }

    /// The gradient with respect to `x`, from that of the output; those of its own parameters are added to `grads`.
    pub(super) fn backward(
        self,
        params: &Params,
        x: &Tensor,
        dy: &Tensor,
        grads: Option<&mut Grads>,
    ) -> Result<Tensor> {
        match self {
            Self::Stddev(groups) => stddev::backward(x, dy, groups),
            Self::LayerNorm => layer_norm::backward(x, dy, NORM_EPSILON),
            Self::Similarity(layer, parts) => layer.backward(params, x, dy, parts, grads),
        }
    }

    /// How the output moves as `x` moves along `dx`.
    pub(super) fn tangent(self, params: &Params, x: &Tensor, dx: &Tensor) -> Result<Tensor> {
        match self {
            Self::Stddev(groups) => stddev::tangent(x, dx, groups),
            Self::LayerNorm => layer_norm::backward(x, dx, NORM_EPSILON), // its Jacobian is symmetric
            Self::Similarity(layer, parts) => layer.tangent(params, x, dx, parts),
        }
    }

    /// The gradient of `Σ dy · tangent(x, dx)` with respect to `x`; those with respect to its own parameters are added to
    /// `grads`.
    pub(super) fn curvature(
        self,
        params: &Params,
        x: &Tensor,
        (dx, dy): (&Tensor, &Tensor),
        grads: &mut Grads,
    ) -> Result<Tensor> {
        match self {
            Self::Stddev(groups) => stddev::curvature(x, dx, dy, groups),
            Self::LayerNorm => layer_norm::curvature(x, dx, dy, NORM_EPSILON),
            Self::Similarity(layer, parts) => layer.curvature(params, x, (dx, dy), parts, grads),
        }
    }
}

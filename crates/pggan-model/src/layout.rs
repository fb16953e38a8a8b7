//! The layers of both networks by their places: the walk that importers and exporters take.

use std::f64::consts::SQRT_2;

/// A layer of the generator, with its level where there is one at several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GLayer {
    Dense,
    Conv0(u32),
    Conv1(u32),
    ToRgb(u32),
}

/// A layer of the discriminator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DLayer {
    FromRgb(u32),
    Conv0(u32),
    Conv1(u32),
    Conv,
    Dense0,
    Dense1,
}

impl GLayer {
    /// All layers of a network that grows to 2^`max_level`.
    pub(crate) fn all(max_level: u32) -> impl Iterator<Item = Self> {
        std::iter::once(Self::Dense).chain((2..=max_level).flat_map(|level| {
            let conv0 = (level > 2).then_some(Self::Conv0(level));
            conv0.into_iter().chain([Self::Conv1(level), Self::ToRgb(level)])
        }))
    }

    /// The name under which [`crate::Params`] has it, without `.weight` or `.bias`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Dense => "level02.dense".to_owned(),
            Self::Conv0(level) => format!("level{level:02}.conv0"),
            Self::Conv1(level) => format!("level{level:02}.conv1"),
            Self::ToRgb(level) => format!("level{level:02}.to_rgb"),
        }
    }

    /// The gain of its equalized learning rate: the weight is multiplied by `gain / sqrt(fan_in)` when it runs.
    pub(crate) fn gain(self) -> f64 {
        match self {
            Self::Dense => SQRT_2 / 4.0,
            Self::Conv0(_) | Self::Conv1(_) => SQRT_2,
            Self::ToRgb(_) => 1.0,
        }
    }
}

impl DLayer {
    /// All layers of a network that grows to 2^`max_level`.
    pub(crate) fn all(max_level: u32) -> impl Iterator<Item = Self> {
        let levels = (3..=max_level)
            .flat_map(|level| [Self::FromRgb(level), Self::Conv0(level), Self::Conv1(level)]);
        [Self::FromRgb(2), Self::Conv, Self::Dense0, Self::Dense1].into_iter().chain(levels)
    }

    /// As [`GLayer::name`].
    pub(crate) fn name(self) -> String {
        match self {
            Self::FromRgb(level) => format!("level{level:02}.from_rgb"),
            Self::Conv0(level) => format!("level{level:02}.conv0"),
            Self::Conv1(level) => format!("level{level:02}.conv1"),
            Self::Conv => "level02.conv".to_owned(),
            Self::Dense0 => "level02.dense0".to_owned(),
            Self::Dense1 => "level02.dense1".to_owned(),
        }
    }

    /// As [`GLayer::gain`].
    pub(crate) fn gain(self) -> f64 {
        if self == Self::Dense1 { 1.0 } else { SQRT_2 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use candle_core::{DType, Device};

    use super::*;
    use crate::{Discriminator, Generator, ModelConfig, Params};

    /// Every parameter of the plain networks has its place, and every place its parameters.
    #[test]
    fn places_are_the_parameters() {
        let config =
            ModelConfig { resolution: 16, fmap_base: 32, fmap_max: 4, ..ModelConfig::default() };
        let nothing = &mut |_: &str, _: &mut [f32]| ();
        let g = Generator::new(&config, DType::F32, &Device::Cpu, nothing).unwrap();
        let d = Discriminator::new(&config, DType::F32, &Device::Cpu, nothing).unwrap();
        let layers = |params: &Params| -> BTreeSet<String> {
            params.iter().map(|p| p.name.rsplit_once('.').unwrap().0.to_owned()).collect()
        };
        assert_eq!(layers(g.params()), GLayer::all(4).map(GLayer::name).collect());
        assert_eq!(layers(d.params()), DLayer::all(4).map(DLayer::name).collect());
    }
}

//! Names of metrics: what is measured, on how many images, with which network. This table is the only one.
//!
//! A name is a family, then how many images if not the usual number (`k` for thousands), then how many neighbours, then
//! a network or a way of resizing: `swd16k`, `msssim10k`, `pr50k3`, `fid50k-clean`, `fd10k-mobilenetv2`.

use std::fmt;

use crate::network::{Extractor, Kind, Resize};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Sliced Wasserstein distance.
    Swd,
    /// Multi-scale structural similarity of pairs.
    MsSsim,
    /// Fréchet distance of features.
    Frechet,
    /// Kernel distance of features.
    Kernel,
    /// Inception score.
    InceptionScore,
    /// Precision and recall.
    PrecisionRecall,
    /// Density and coverage.
    DensityCoverage,
    /// Perceptual path length.
    PathLength,
}

/// Metrics that differ in nothing but numbers and networks.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// How its names begin.
    pub name: &'static str,
    /// What is measured.
    pub measure: Measure,
    /// Images that are usual, and the most that are taken where a name has no number.
    pub images: usize,
    /// Images that one of the number in the name stands for: 2 where it counts pairs.
    images_each: usize,
    /// What `k` in the number stands for.
    kilo: usize,
    /// Neighbours that are usual; 0 where there are none.
    neighbours: usize,
    networks: Networks,
    /// One line for people.
    pub about: &'static str,
}

/// Which networks a family's names may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Networks {
    None,
    /// The 2015 Inception network and no other: the name is defined by it.
    Inception,
    /// Any; the 2015 Inception network where none is named.
    Any,
    /// Any other; one must be named.
    Named,
}

const BASE: Family = Family {
    name: "",
    measure: Measure::Swd,
    images: 50_000,
    images_each: 1,
    kilo: 1000,
    neighbours: 0,
    networks: Networks::None,
    about: "",
};

/// Every family, in the order of the help.
pub const FAMILIES: &[Family] = &[
    Family {
        name: "swd",
        images: 16_384,
        kilo: 1024,
        about: "sliced Wasserstein distance x1000 by pyramid level (k is 1024), 0 is best",
        ..BASE
    },
    Family {
        name: "msssim",
        measure: Measure::MsSsim,
        images: 20_000,
        images_each: 2,
        about: "multi-scale structural similarity of pairs (the number counts pairs), lower is more varied",
        ..BASE
    },
    Family {
        name: "fid",
        measure: Measure::Frechet,
        networks: Networks::Inception,
        about: "Fréchet Inception distance, 0 is best",
        ..BASE
    },
    Family {
        name: "kid",
        measure: Measure::Kernel,
        networks: Networks::Inception,
        about: "kernel Inception distance, 0 is best",
        ..BASE
    },
    Family {
        name: "is",
        measure: Measure::InceptionScore,
        networks: Networks::Inception,
        about: "inception score in 10 splits, higher is better",
        ..BASE
    },
    Family {
        name: "pr",
        measure: Measure::PrecisionRecall,
        neighbours: 3,
        networks: Networks::Any,
        about: "precision and recall, 1 is best",
        ..BASE
    },
    Family {
        name: "dc",
        measure: Measure::DensityCoverage,
        neighbours: 5,
        networks: Networks::Any,
        about: "density and coverage, 1 is best",
        ..BASE
    },
    Family {
        name: "ppl",
        measure: Measure::PathLength,
        networks: Networks::Any,
        about: "path length in features, for each unit of the latent path, lower is smoother",
        ..BASE
    },
    Family {
        name: "fd",
        measure: Measure::Frechet,
        images: 10_000,
        networks: Networks::Named,
        about: "Fréchet distance in another network's features: not an FID",
        ..BASE
    },
    Family {
        name: "kd",
        measure: Measure::Kernel,
        images: 10_000,
        networks: Networks::Named,
        about: "kernel distance in another network's features: not a KID",
        ..BASE
    },
];

/// A metric that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// As it was asked for.
    pub name: String,
    /// What is measured.
    pub measure: Measure,
    /// Images of each set, where the name says so.
    pub images: Option<usize>,
    /// Images that are usual.
    pub usual: usize,
    /// Neighbours that make a ball; 0 where there are none.
    pub neighbours: usize,
    /// What makes the features, if any are needed.
    pub extractor: Option<Extractor>,
}

impl Metric {
    /// Whether it is a Fréchet distance of another network's features: of no use without its floor.
    pub fn is_fd(&self) -> bool {
        let kind = self.extractor.map(|extractor| extractor.network);
        self.measure == Measure::Frechet && kind != Some(Kind::Inception2015)
    }

    /// Whether it compares with real images.
    pub fn compares(&self) -> bool {
        !matches!(self.measure, Measure::MsSsim | Measure::InceptionScore | Measure::PathLength)
    }
}

/// A name that is no metric's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no metric: {why}")]
pub struct UnknownMetric {
    /// The name.
    pub name: String,
    why: String,
}

/// The metrics of a list, as `swd16k,msssim10k`.
pub fn parse(list: &str) -> Result<Vec<Metric>, UnknownMetric> {
    list.split(',').map(|name| name.trim().parse()).collect()
}

impl std::str::FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(name: &str) -> Result<Self, UnknownMetric> {
        let unknown = |why: String| UnknownMetric { name: name.to_owned(), why };
        let (head, suffixes) = name.split_once('-').map_or((name, None), |(h, s)| (h, Some(s)));
        let (word, numbers) =
            head.split_at(head.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(head.len()));
        let Some(family) = FAMILIES.iter().find(|family| family.name == word) else {
            let names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
            return Err(unknown(format!("they are called {}", names.join(", "))));
        };
        let (images, neighbours) = family.numbers(numbers).map_err(unknown)?;
        let extractor = family.extractor(suffixes).map_err(unknown)?;
        Ok(Self {
            name: name.to_owned(),
            measure: family.measure,
            images,
            usual: family.images,
            neighbours,
            extractor,
        })
    }
}

impl Family {
    /// Images and neighbours from the part of a name that follows the family.
    fn numbers(&self, text: &str) -> Result<(Option<usize>, usize), String> {
        let form = || {
            let k = if self.neighbours > 0 { "3" } else { "" };
            format!("after {} comes a number of images, as {}10k{k}", self.name, self.name)
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (count, rest) = text.split_at(digits);
        if count.is_empty() {
            return if rest.is_empty() { Ok((None, self.neighbours)) } else { Err(form()) };
        }
        let (kilo, rest) = rest.strip_prefix('k').map_or((1, rest), |rest| (self.kilo, rest));
        let count = count.parse::<usize>().ok();
        let images = count.and_then(|count| count.checked_mul(kilo * self.images_each));
        let Some(images) = images.filter(|images| (1..=100_000_000).contains(images)) else {
            return Err(form());
        };
        let neighbours = match rest.parse() {
            Ok(k @ 1..=1000) if self.neighbours > 0 => k,
            _ if rest.is_empty() => self.neighbours,
            _ => return Err(form()),
        };
        Ok((Some(images), neighbours))
    }

    /// What the part of a name after the first hyphen asks for.
    fn extractor(&self, suffix: Option<&str>) -> Result<Option<Extractor>, String> {
        let suffix = suffix.unwrap_or("");
        let inception = Extractor { network: Kind::Inception2015, resize: Resize::Tf };
        let others = || {
            let names = Kind::ALL.map(|kind| format!("{}-{}", self.name, kind.name()));
            names[1..].join(", ")
        };
        match (self.networks, suffix) {
            (Networks::None, "") => Ok(None),
            (Networks::None, _) => Err(format!("{} takes no network", self.name)),
            (Networks::Named, "") => Err(format!("it needs a network: {}", others())),
            (_, "") => Ok(Some(inception)),
            (Networks::Inception | Networks::Any, "clean") => {
                Ok(Some(Extractor { resize: Resize::Clean, ..inception }))
            }
            (Networks::Inception, _) => Err(format!(
                "{} is of the 2015 Inception network; after a hyphen only `clean` may follow",
                self.name
            )),
            (Networks::Any | Networks::Named, name) => {
                let mut others_only = Kind::ALL[1..].iter();
                match others_only.find(|kind| kind.name() == name) {
                    Some(&network) => {
                        Ok(Some(Extractor { network, resize: network.usual_resize() }))
                    }
                    None => Err(format!("there is no network {name:?}: {}", others())),
                }
            }
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str) -> Metric {
        name.parse().unwrap()
    }

    #[test]
    fn numbers_are_as_in_the_papers() {
        for (name, images) in [
            ("swd16k", Some(16_384)),
            ("swd2k", Some(2048)),
            ("swd500", Some(500)),
            ("msssim10k", Some(20_000)),
            ("fid50k", Some(50_000)),
            ("is", None),
            ("fd10k-mobilenetv2", Some(10_000)),
        ] {
            assert_eq!(metric(name).images, images, "{name}");
        }
        assert_eq!((metric("pr50k3").neighbours, metric("pr50k").neighbours), (3, 3));
        assert_eq!((metric("pr10k7").images, metric("pr10k7").neighbours), (Some(10_000), 7));
        assert_eq!((metric("dc").neighbours, metric("fid").neighbours), (5, 0));
    }

    #[test]
    fn only_the_2015_network_makes_an_fid() {
        let of = |name: &str| metric(name).extractor.map(|e| (e.network, e.resize));
        assert_eq!(of("swd"), None);
        assert_eq!(of("fid"), Some((Kind::Inception2015, Resize::Tf)));
        assert_eq!(of("kid50k-clean"), Some((Kind::Inception2015, Resize::Clean)));
        assert_eq!(of("fd-mobilenetv2"), Some((Kind::MobileNetV2, Resize::Clean)));
        assert_eq!(of("pr-mobilenetv2").unwrap().0, Kind::MobileNetV2);
        for (bad, why) in [
            ("fid-mobilenetv2", "2015 Inception"),
            ("fd10k", "fd-mobilenetv2"),
            ("fd-resnet", "resnet"),
            ("swd-clean", "no network"),
            ("swdk", "swd, msssim"),
            ("fid50k3", "fid10k"),
            ("pr50k0", "pr10k3"),
            ("swd0", "swd10k"),
            ("swd99999999999999999999", "swd10k"),
            ("ssim", "swd, msssim"),
            ("", "swd, msssim"),
        ] {
            let error = bad.parse::<Metric>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(parse("swd2k, fid").unwrap().len(), 2);
        assert!(parse("swd,,fid").is_err());
    }
}

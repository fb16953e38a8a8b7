//! Which device computes.

use candle_core::Device;

use crate::{Error, Result};

/// Opens `auto`, `cpu`, `cuda`, `cuda:N` or `metal`. `auto` takes the fastest that this build and machine have.
///
/// # Errors
/// [`Error::Device`], with what to do about it.
pub fn open(name: &str) -> Result<Device> {
    let fail = |reason: String| Err(Error::Device { asked: name.to_owned(), reason });
    let built_without = |feature: &str| {
        format!(
            "this build has no {feature}; `cargo xtask train --device {name}` builds one that has, or pass --device cpu"
        )
    };
    let opened = |device: candle_core::Result<Device>| match device {
        Ok(device) => Ok(device),
        Err(e) => fail(format!("{e}; check the driver, or pass --device cpu")),
    };
    match name {
        "auto" => {
            if candle_core::utils::cuda_is_available()
                && let Ok(device) = Device::new_cuda(0)
            {
                return Ok(device);
            }
            if candle_core::utils::metal_is_available()
                && let Ok(device) = Device::new_metal(0)
            {
                return Ok(device);
            }
            Ok(Device::Cpu)
        }
        "cpu" => Ok(Device::Cpu),
        "metal" if !candle_core::utils::metal_is_available() => fail(built_without("Metal")),
        "metal" => opened(Device::new_metal(0)),
        _ => match name.strip_prefix("cuda").map(|n| n.strip_prefix(':').unwrap_or("0").parse()) {
            Some(Ok(_)) if !candle_core::utils::cuda_is_available() => fail(built_without("CUDA")),
            Some(Ok(ordinal)) => opened(Device::new_cuda(ordinal)),
            _ => fail("auto, cpu, cuda, cuda:N or metal is needed".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_explained() {
        assert!(open("cpu").unwrap().is_cpu());
        assert!(open("tpu").unwrap_err().to_string().contains("--device tpu: auto, cpu, cuda"));
        assert!(open("cuda:x").is_err());
        if !candle_core::utils::cuda_is_available() {
            assert!(open("cuda:1").unwrap_err().to_string().contains("this build has no CUDA"));
        }
    }
}

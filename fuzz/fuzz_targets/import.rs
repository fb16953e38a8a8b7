//! Files of weights, whoever wrote them: pickles, `torch.save` in both forms, safetensors, our own snapshots.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pggan_model::{import, weights};

fuzz_target!(|bytes: &[u8]| {
    let _ = import::read(bytes);
    let _ = weights::File::from_bytes(Path::new("fuzz"), bytes);
});

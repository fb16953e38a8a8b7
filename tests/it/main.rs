//! Tests of the workspace as a whole: its shape, and its binaries from end to end.
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]
#![expect(clippy::disallowed_methods, reason = "what tests write need not outlive a crash")]

mod architecture;
mod bad_input;
mod bench;
mod common;
mod datasets;
mod export;
mod hub;
mod hub_data;
mod import;
mod labels;
mod metrics;
mod pipeline;
mod presets;
mod sandbox;
mod stub;

//! Tests of the workspace as a whole: its shape, and its binaries from end to end.
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod architecture;
mod datasets;
mod sandbox;

//! The crate from outside: the binary's commands, stores on disk, the loader.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of tests fail as tests do; clippy knows only #[test] itself"
)]

mod bad_input;
mod codec;
mod export;
mod faces;
mod hostile;
mod labels;
mod loader;
mod parts;
mod prepare;
mod resume;
mod sources;
mod support;

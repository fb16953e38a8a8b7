//! Training against numbers from elsewhere, and against itself.
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]
#![expect(clippy::disallowed_methods, reason = "what tests write need not outlive a crash")]

mod curves;
mod golden;
mod losses;

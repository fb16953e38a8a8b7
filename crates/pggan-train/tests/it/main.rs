//! The two steps against numbers that were confirmed with the official TensorFlow code.
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod golden;

//! The operating system's randomness through aws-lc-rs.

use aws_lc_rs::rand::SecureRandom as _;

use crate::domain::Random;

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        if aws_lc_rs::rand::SystemRandom::new().fill(bytes).is_err() {
            // A secret that could be guessed is worse than no process.
            tracing::error!("the operating system gives no random bytes");
            std::process::abort();
        }
    }
}

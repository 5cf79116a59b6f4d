//! From a configuration file to everything that a running proxy is made of. Binds no address and
//! connects to nothing, so `check` takes exactly the same steps as `serve`.

use std::path::Path;

use crate::app::config::settings::{Environment, Settings};
use crate::app::policies;
use crate::domain::Mistake;

/// What `gatepost check` found.
#[derive(Debug, Default)]
pub struct Checked {
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<Mistake>,
}

/// Takes every step of `serve` up to the first listener.
pub fn check(config: &Path, environment: &Environment<'_>) -> Checked {
    let mistakes = match Settings::load(config, environment) {
        Ok(settings) => policies::read(&settings.policies).err().unwrap_or_default(),
        Err(mistakes) => mistakes,
    };
    Checked {
        mistakes,
        warnings: Vec::new(),
    }
}

//! `gatepost.yaml` in two steps: as written (`file`), then as meant (`settings`). Every mistake of
//! both steps is reported at once, with its place.

mod broker;
pub mod file;
pub mod settings;

mod doors;
mod engine;
mod journal;
mod providers;
mod read;
mod resolve;
mod sinks;
mod tickets;
mod yaml;

#[cfg(test)]
mod tests;

pub use settings::Settings;

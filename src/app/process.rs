//! What the operating system knows about this process, for the metrics. What it does not tell is left
//! out: these numbers exist on Linux.

use std::fs;
use std::path::Path;

use crate::admin::page::{Kind, Page};

/// Units of the times in `/proc/self/stat`; `USER_HZ` is 100 on every architecture that Rust builds for.
const TICKS_PER_SECOND: f64 = 100.0;

/// The names are those that Prometheus' own client libraries use.
pub(super) fn measure(page: &mut Page) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold blanks.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace().collect())
        .unwrap_or_default();
    // proc(5) counts from 1, and the first field here is its third.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        let help = "Processor time of this process, in user and system mode.";
        page.family("process_cpu_seconds_total", Kind::Counter, help)
            .seconds(&[], seconds(user.saturating_add(system)));
    }
    if let (Some(started), Some(booted)) = (field(22), boot_time()) {
        let help = "When this process started, in seconds since 1970.";
        page.family("process_start_time_seconds", Kind::Gauge, help)
            .seconds(&[], booted + seconds(started));
    }
    if let Some(pages) = field(24) {
        let bytes = pages.saturating_mul(rustix::param::page_size() as u64);
        page.family("process_resident_memory_bytes", Kind::Gauge, "Memory in use.")
            .sample(&[], bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the look itself.
        let open = u64::try_from(open.count()).unwrap_or(u64::MAX).saturating_sub(1);
        page.family("process_open_fds", Kind::Gauge, "Open file descriptors.")
            .sample(&[], open);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(most) = limit.current {
        page.family(
            "process_max_fds",
            Kind::Gauge,
            "File descriptors that may be open.",
        )
        .sample(&[], most);
    }
}

/// Free space on the file system of the audit journal, as far as this user may use it.
pub(super) fn free_bytes(directory: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(directory).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "processor time is far below 2^53 ticks"
)]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}

/// Seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_be_read_about() {
        let mut page = Page::default();
        measure(&mut page);
        let text = page.into_text();
        for name in [
            "process_cpu_seconds_total",
            "process_start_time_seconds",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
        ] {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            assert!(value.is_some_and(|value| value >= 0.0), "{name}: {text}");
        }
        assert!(free_bytes(Path::new("/")).is_some_and(|bytes| bytes > 0));
    }
}

//! A page of metrics in Prometheus' text format (version 0.0.4).

use std::fmt::{Display, Write as _};

use crate::domain::measure::{BOUNDS_MICROS, Reading};

/// How a metric behaves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by size, in seconds.
    Histogram,
}

/// The page, family by family.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// Names and values. They are few, and the values come from the configuration or from fixed words,
/// never from clients: every distinct value is a time series for ever.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Page {
    /// Begins a family; its samples follow. `help` is one line.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing into a String cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {word}\n");
        Family {
            text: &mut self.text,
            name,
        }
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

/// The samples of one metric.
#[derive(Debug)]
pub struct Family<'p> {
    text: &'p mut String,
    name: &'static str,
}

impl Family<'_> {
    pub fn sample(&mut self, labels: Labels<'_>, value: u64) -> &mut Self {
        self.line("", labels, None, value)
    }

    /// In a base unit that has fractions: seconds.
    pub fn seconds(&mut self, labels: Labels<'_>, value: f64) -> &mut Self {
        self.line("", labels, None, value)
    }

    /// All series of one histogram.
    pub fn histogram(&mut self, labels: Labels<'_>, reading: &Reading) -> &mut Self {
        for (bound, count) in BOUNDS_MICROS.iter().zip(reading.at_most) {
            let bound = std::time::Duration::from_micros(*bound).as_secs_f64();
            self.line("_bucket", labels, Some(&bound), count);
        }
        self.line("_bucket", labels, Some(&"+Inf"), reading.count);
        self.line("_sum", labels, None, reading.sum.as_secs_f64());
        self.line("_count", labels, None, reading.count)
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        bound: Option<&dyn Display>,
        value: impl Display,
    ) -> &mut Self {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let mut before = '{';
        for (label, text) in labels {
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(text));
            before = ',';
        }
        if let Some(bound) = bound {
            let _ = write!(self.text, "{before}le=\"{bound}\"");
            before = ',';
        }
        let after = if before == ',' { "}" } else { "" };
        let _ = writeln!(self.text, "{after} {value}");
        self
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::measure::Histogram;

    #[test]
    fn families_read_as_prometheus_expects() {
        let mut page = Page::default();
        page.family("gatepost_sessions", Kind::Gauge, "Open sessions.")
            .sample(&[("engine", "postgres"), ("target", "a\"b\\c\nd")], 3);
        page.family("gatepost_up", Kind::Counter, "Is it up.")
            .sample(&[], 1);
        let expected = "\
# HELP gatepost_sessions Open sessions.
# TYPE gatepost_sessions gauge
gatepost_sessions{engine=\"postgres\",target=\"a\\\"b\\\\c\\nd\"} 3
# HELP gatepost_up Is it up.
# TYPE gatepost_up counter
gatepost_up 1
";
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn a_histogram_s_buckets_grow_to_its_count() {
        let histogram = Histogram::default();
        for micros in [90, 250, 3_000_000, 90_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut page = Page::default();
        page.family("wait_seconds", Kind::Histogram, "Waits.")
            .histogram(&[("target", "t")], &histogram.read());
        let text = page.into_text();
        let lines: Vec<_> = text.lines().skip(2).collect();
        let of = |start: &str| {
            let found = lines.iter().find_map(|line| line.strip_prefix(start));
            found.unwrap_or_else(|| panic!("no {start} in {text}")).to_owned()
        };
        assert_eq!(of("wait_seconds_bucket{target=\"t\",le=\"0.0001\"} "), "1");
        assert_eq!(of("wait_seconds_bucket{target=\"t\",le=\"0.00025\"} "), "2");
        assert_eq!(of("wait_seconds_bucket{target=\"t\",le=\"1\"} "), "2");
        assert_eq!(of("wait_seconds_bucket{target=\"t\",le=\"60\"} "), "3");
        assert_eq!(of("wait_seconds_bucket{target=\"t\",le=\"+Inf\"} "), "4");
        assert_eq!(of("wait_seconds_sum{target=\"t\"} "), "93.00034");
        assert_eq!(of("wait_seconds_count{target=\"t\"} "), "4");
        assert_eq!(lines.len(), BOUNDS_MICROS.len() + 3);
    }
}

//! A page of metrics in Prometheus' text format.

use std::fmt::Write as _;

/// How a metric behaves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// The page, family by family.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Begins a family; its samples follow. `help` is one line.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
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
    /// Labels are few and their values come from the configuration or from fixed words, never from
    /// clients: every distinct value is a time series for ever.
    pub fn sample(&mut self, labels: &[(&'static str, &str)], value: u64) -> &mut Self {
        self.text.push_str(self.name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(text));
        }
        let after = if labels.is_empty() { "" } else { "}" };
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
    use super::*;

    #[test]
    fn families_read_as_prometheus_expects() {
        let mut page = Page::default();
        page.family("gatepost_sessions", Kind::Gauge, "Open sessions.")
            .sample(&[("engine", "postgres"), ("target", "a\"b")], 3);
        page.family("gatepost_up", Kind::Counter, "Is it up.")
            .sample(&[], 1);
        let expected = "\
# HELP gatepost_sessions Open sessions.
# TYPE gatepost_sessions gauge
gatepost_sessions{engine=\"postgres\",target=\"a\\\"b\"} 3
# HELP gatepost_up Is it up.
# TYPE gatepost_up counter
gatepost_up 1
";
        assert_eq!(page.into_text(), expected);
    }
}

//! The page of metrics, read as strictly as its format is written down (Prometheus' exposition
//! formats, text format 0.0.4).

use std::collections::{BTreeMap, BTreeSet};

use super::provider::try_http;
use super::world::World;

pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) kind: String,
    /// Full name, labels, value.
    pub(crate) samples: Vec<(String, Labels, f64)>,
}

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) text: String,
    pub(crate) families: BTreeMap<String, Family>,
}

impl Page {
    pub(crate) fn of(world: &World) -> Self {
        let url = format!("http://{}/metrics", world.config.metrics);
        let (status, text) = try_http("GET", &url, "").unwrap();
        assert_eq!(status, 200, "{text}");
        Self::read(&text)
    }

    /// Fails the test at the first line that a scraper would not like.
    pub(crate) fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let help = line.strip_prefix("# HELP ");
            let (name, said) = help
                .and_then(|rest| rest.split_once(' '))
                .unwrap_or_else(|| panic!("no HELP: {line}"));
            assert!(!said.is_empty() && is_name(name), "{line}");
            let kind = lines.next().unwrap_or_default();
            let kind = kind.strip_prefix(&format!("# TYPE {name} "));
            let kind = kind.unwrap_or_else(|| panic!("no TYPE behind {line}")).to_owned();
            assert!(
                ["counter", "gauge", "histogram"].contains(&kind.as_str()),
                "{name} {kind}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            let mut samples = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let (sample, labels, value) = sample(line);
                let suffix = sample
                    .strip_prefix(name)
                    .unwrap_or_else(|| panic!("{line} under {name}"));
                let suffixes: &[&str] = match kind.as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "{line} in a {kind}");
                samples.push((sample, labels, value));
            }
            let mut seen = BTreeSet::new();
            for (sample, labels, _) in &samples {
                assert!(seen.insert((sample, labels)), "{sample} {labels:?} stands twice");
            }
            let family = Family { kind, samples };
            if family.kind == "histogram" {
                check_histogram(name, &family);
            }
            assert!(
                families.insert(name.to_owned(), family).is_none(),
                "{name} stands twice"
            );
        }
        Self {
            text: text.to_owned(),
            families,
        }
    }

    /// The sample with exactly these labels; histograms by their full names.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut samples = self.families.values().flat_map(|family| &family.samples);
        let found = samples.find(|(sample, labels, _)| sample == name && *labels == wanted);
        found.map(|(_, _, value)| *value)
    }
}

fn is_name(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|it| it.is_ascii_alphabetic() || it == b'_');
    first && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text => {
            let plain = text
                .bytes()
                .all(|it| it.is_ascii_digit() || b".e-+".contains(&it));
            assert!(plain, "not a number: {text}");
            text.parse().unwrap()
        }
    }
}

/// Name, labels, value of one line.
fn sample(line: &str) -> (String, Labels, f64) {
    let at = line
        .find(['{', ' '])
        .unwrap_or_else(|| panic!("no sample: {line}"));
    let (name, mut rest) = line.split_at(at);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, behind) = rest
                .split_once("=\"")
                .unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label) && !label.starts_with("__"), "{line}");
            let (value, behind) = quoted(behind, line);
            assert!(
                labels.insert(label.to_owned(), value).is_none(),
                "{label} twice: {line}"
            );
            if let Some(behind) = behind.strip_prefix('}') {
                rest = behind;
                break;
            }
            rest = behind
                .strip_prefix(',')
                .unwrap_or_else(|| panic!("no comma: {line}"));
        }
    }
    let value = rest
        .strip_prefix(' ')
        .unwrap_or_else(|| panic!("no blank: {line}"));
    (name.to_owned(), labels, number(value))
}

/// A label's value, and what follows its closing quote.
fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                other => panic!("unknown escape {other:?}: {line}"),
            },
            c => value.push(c),
        }
    }
    panic!("no end of the value: {line}")
}

/// In each series: buckets in order, never falling, the last without a bound and equal to the count.
fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        if sample.ends_with("_bucket") {
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap_or_else(|| panic!("{name}: no le"));
            series.entry(labels).or_default().push((number(&bound), *value));
        }
    }
    for (labels, buckets) in &series {
        let rising = buckets
            .windows(2)
            .all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
        assert!(rising, "{name} {labels:?}: {buckets:?}");
        let of = |suffix: &str| {
            let full = format!("{name}{suffix}");
            let found = family
                .samples
                .iter()
                .find(|(sample, its, _)| *sample == full && its == labels);
            found.unwrap_or_else(|| panic!("{full} {labels:?} is missing")).2
        };
        let (bound, count) = buckets.last().unwrap();
        assert!(bound.is_infinite() && *count == of("_count"), "{name} {labels:?}");
        assert!(of("_sum") >= 0.0 && (*count > 0.0 || of("_sum") == 0.0));
    }
}

//! How long an answer of a provider counts as fresh: its Cache-Control (RFC 9111), within bounds of ours.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{AGE, CACHE_CONTROL};

/// A provider that forbids caching, or says a second, is still asked no more than this often.
const FRESH_MIN: Duration = Duration::from_secs(60);
/// A withdrawn key must not be believed for longer, whatever the provider says.
const FRESH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// When nothing is said: shorter than the notice that providers give before they rotate.
const FRESH_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// `Expires` and what is meant for shared caches are not read. A `max-age` that cannot be read counts
/// as none at all left (RFC 9111 §4.2.1), and of several the shortest counts.
pub(super) fn fresh_for(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(CACHE_CONTROL).iter();
    let texts: Vec<_> = values.map(|it| it.to_str().unwrap_or("no-cache")).collect();
    let mut shortest: Option<Duration> = None;
    for directive in texts.iter().flat_map(|text| text.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let said = match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => Duration::ZERO,
            "max-age" => seconds(value.trim().trim_matches('"')).unwrap_or_default(),
            _ => continue,
        };
        shortest = Some(shortest.map_or(said, |shortest| shortest.min(said)));
    }
    let Some(said) = shortest else {
        return FRESH_DEFAULT;
    };
    // Time that the answer spent in somebody's cache on its way is gone already.
    let age = headers.get(AGE).and_then(|it| it.to_str().ok());
    let age = age.and_then(|it| seconds(it.trim())).unwrap_or_default();
    said.saturating_sub(age).clamp(FRESH_MIN, FRESH_MAX)
}

/// Digits only, as the grammar has it; too many of them are a very long time.
fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(lines: &[(&'static str, &'static str)]) -> u64 {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        fresh_for(&headers).as_secs()
    }

    #[test]
    fn cache_control_is_honoured_within_bounds() {
        for (value, expected) in [
            ("max-age=600", 600),
            ("public, max-age=86399, must-revalidate, no-transform", 86_399),
            ("Max-Age=\"900\"", 900),
            ("max-age=1", 60),
            ("max-age=31536000", 86_400),
            ("max-age=99999999999999999999999", 86_400),
            ("no-store", 60),
            ("no-cache, max-age=3600", 60),
            ("no-cache=\"set-cookie\", max-age=3600", 60),
            ("max-age=600, max-age=300", 300),
            ("max-age=-1", 60),
            ("max-age=1e9", 60),
            ("max-age", 60),
            ("s-maxage=5, private", 3600),
            ("", 3600),
        ] {
            assert_eq!(fresh(&[("cache-control", value)]), expected, "{value}");
        }
    }

    #[test]
    fn other_lines_and_the_age_count_too() {
        assert_eq!(fresh(&[]), 3600);
        assert_eq!(fresh(&[("cache-control", "max-age=600"), ("age", "200")]), 400);
        assert_eq!(fresh(&[("cache-control", "max-age=600"), ("age", "9999")]), 60);
        let two = [("cache-control", "max-age=600"), ("cache-control", "no-store")];
        assert_eq!(fresh(&two), 60);
    }
}

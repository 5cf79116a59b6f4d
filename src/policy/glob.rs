//! Values in which `*` stands for any characters, also none. Everything else is literal; there is
//! no escape, because no identity value that we know of contains an asterisk.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(String);

impl Glob {
    pub(super) const fn new(pattern: String) -> Self {
        Self(pattern)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Greedy with one step back to the last `*`: at most pattern × text steps, no recursion.
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else {
            return self.0 == text;
        };
        let Some(mut left) = text.strip_prefix(head) else {
            return false;
        };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*').filter(|part| !part.is_empty()) {
            let Some((_, after)) = left.split_once(part) else {
                return false;
            };
            left = after;
        }
        left.ends_with(tail)
    }

    /// Does this pattern match everything that `other` matches? Taking the other's `*` literally
    /// is enough: only our own `*` can match it, and that also matches whatever it stands for.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }

    /// Could one text match both? Compares the literal ends, so it may say yes too often, never
    /// no too often.
    pub(super) fn may_overlap(&self, other: &Self) -> bool {
        let (head, tail) = self.ends();
        let (other_head, other_tail) = other.ends();
        match (self.0.contains('*'), other.0.contains('*')) {
            (_, false) => self.matches(&other.0),
            (false, true) => other.matches(&self.0),
            (true, true) => {
                (head.starts_with(other_head) || other_head.starts_with(head))
                    && (tail.ends_with(other_tail) || other_tail.ends_with(tail))
            }
        }
    }

    fn ends(&self) -> (&str, &str) {
        let head = self.0.split_once('*').map_or("", |(head, _)| head);
        let tail = self.0.rsplit_once('*').map_or("", |(_, tail)| tail);
        (head, tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn glob(pattern: &str) -> Glob {
        Glob::new(pattern.to_owned())
    }

    #[test]
    fn matching() {
        let rows = [
            ("abc", "abc", true),
            ("abc", "ABC", false),
            ("*", "", true),
            ("former-*", "former-ada", true),
            ("former-*", "a-former-ada", false),
            ("*.read", "orders.read", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1c", false),
            ("ab*ba", "aba", false),
            ("a**b", "ab", true),
            ("*ä*", "Bär", true),
            ("a.c", "abc", false),
        ];
        for (pattern, text, expected) in rows {
            assert_eq!(glob(pattern).matches(text), expected, "{pattern} ~ {text}");
        }
    }

    #[test]
    fn covering_and_overlapping() {
        assert!(glob("a*").covers(&glob("ab*")));
        assert!(!glob("ab*").covers(&glob("a*")));
        assert!(!glob("a*b").covers(&glob("a*")));
        assert!(glob("a*").may_overlap(&glob("*b")));
        assert!(!glob("a*").may_overlap(&glob("b*")));
        assert!(!glob("a*").may_overlap(&glob("b")));
    }

    /// The definition, slow and plain.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|cut| naive(rest, &text[cut..])),
            Some((c, rest)) => text.first() == Some(c) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{0,7}", text in "[ab]{0,7}") {
            let (p, t): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(glob(&pattern).matches(&text), naive(&p, &t));
        }

        #[test]
        fn covers_is_sound(a in "[ab*]{0,5}", b in "[ab*]{0,5}", text in "[ab]{0,6}") {
            let (a, b) = (glob(&a), glob(&b));
            if a.covers(&b) && b.matches(&text) {
                prop_assert!(a.matches(&text));
            }
            if a.matches(&text) && b.matches(&text) {
                prop_assert!(a.may_overlap(&b));
            }
        }
    }
}

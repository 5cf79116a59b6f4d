//! Every way we know to spell an attempt, and whether the fence sees it. What it does not see is run
//! against real servers in `tests/e2e/escapes.rs`.

use crate::sql::read;

const SPELLINGS: &str = include_str!("../../../tests/vectors/escapes.txt");

/// Those that begin with this word.
fn spelt(wanted: &str) -> Vec<String> {
    let lines = SPELLINGS.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter(|(tag, _)| *tag == wanted)
        .map(|(_, text)| unescaped(text))
        .collect()
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let next = if c == '\\' { chars.next() } else { None };
        out.push(match next {
            None => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('f') => '\u{c}',
            Some(other) => other,
        });
    }
    out
}

#[test]
fn attempts_are_seen_in_every_spelling() {
    let seen = spelt("seen");
    for text in &seen {
        for lenient in [false, true] {
            assert!(read(text.as_bytes(), lenient).escape.is_some(), "{text}");
        }
    }
    assert!(seen.len() + spelt("unseen").len() > 80);
}

#[test]
fn what_is_none_passes_and_so_does_what_cannot_be_seen() {
    for text in [spelt("allowed"), spelt("unseen")].concat() {
        assert_eq!(read(text.as_bytes(), false).escape, None, "{text}");
    }
}

/// However much stands before it.
#[test]
fn length_hides_nothing() {
    let values = "1, ".repeat(20_000);
    for text in [
        format!("select {values} set_config('role', 'x', false)"),
        format!("{} set role x", "select 1;".repeat(20_000)),
        format!("/*{values}*/ set role x"),
        format!("set {} role x", "/* */".repeat(20_000)),
    ] {
        assert!(read(text.as_bytes(), false).escape.is_some());
    }
}

/// The second byte of a character that looks like a backslash.
#[test]
fn characters_of_two_bytes_hide_nothing() {
    let text = b"select E'\x83\\', set_config('role', 'x', false) --'";
    assert!(read(text, false).escape.is_some());
}

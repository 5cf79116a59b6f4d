//! Every way we know to spell an attempt in Transact-SQL, and whether the fence sees it. What it does not
//! see, a real server has to hold.

use crate::sql::tsql::read;

const SPELLINGS: &str = include_str!("../../../../tests/vectors/tsql_escapes.txt");

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
            Some('u') => {
                let hex: String = chars.by_ref().take(4).collect();
                char::from_u32(u32::from_str_radix(&hex, 16).unwrap()).unwrap()
            }
            Some(other) => other,
        });
    }
    out
}

#[test]
fn attempts_are_seen_in_every_spelling() {
    let seen = spelt("seen");
    for text in &seen {
        assert!(read(text).escape.is_some(), "{text}");
    }
    assert!(seen.len() + spelt("unseen").len() > 80);
}

#[test]
fn what_is_none_passes_and_so_does_what_cannot_be_seen() {
    for text in [spelt("allowed"), spelt("unseen")].concat() {
        assert_eq!(read(&text).escape, None, "{text}");
    }
}

/// What cannot be seen is at least never taken for harmless.
#[test]
fn what_cannot_be_seen_is_no_plain_read() {
    for text in [spelt("seen"), spelt("unseen")].concat() {
        assert!(!read(&text).plain_read, "{text}");
    }
}

/// However much stands before it.
#[test]
fn length_hides_nothing() {
    let values = "1, ".repeat(100_000);
    for text in [
        format!("select {values} 1 alter login x disable"),
        format!("{} alter login x disable", "select 1;".repeat(50_000)),
        format!("/*{values}*/ alter login x disable"),
        format!("alter {} login x disable", "/* */".repeat(50_000)),
        format!("exec ('select {values} 1 alter login x disable')"),
    ] {
        let reading = read(&text);
        assert!(reading.escape.is_some());
        assert!(!reading.plain_read);
    }
}

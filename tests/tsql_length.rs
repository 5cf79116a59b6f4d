//! Reading Transact-SQL takes time by length, and the record's parser stays within its stack, whatever the
//! text. Here and not beside the code, because `sql` has no clock.

use std::time::Duration;

use gatepost::sql::tsql::{read, relations};
use tokio::time::Instant;

/// Four times the text may take no more than some eight times as long.
#[test]
fn reading_takes_time_by_length() {
    let shapes: [fn(usize) -> String; 8] = [
        |n| "(".repeat(n),
        |n| "/*".repeat(n),
        |n| "exec ".repeat(n),
        |n| "exec ('".repeat(n),
        |n| "[]]".repeat(n),
        |n| "a.".repeat(n),
        |n| "exec p @a=1,".repeat(n / 4),
        |n| "begin tran ".repeat(n),
    ];
    for shape in shapes {
        let took = |n: usize| {
            let text = shape(n);
            let begun = Instant::now();
            let _reading = read(&text);
            begun.elapsed()
        };
        took(1_000);
        let (short, long) = (took(12_000), took(48_000));
        assert!(
            long < short * 12 + Duration::from_millis(60),
            "{} {short:?} {long:?}",
            shape(2)
        );
    }
}

/// Nesting that makes the parser try twice at every level must not make it try for ever.
#[test]
fn nesting_costs_little() {
    let shapes = [
        ("select * from ", "(", "t", ")"),
        ("select ", "(", "1", ")"),
        ("select ", "(select ", "1", ")"),
        ("select ", "case when ", "1 = 1", " then 1 end"),
        ("select 1 where a in ", "(select b from t where a in ", "(1)", ")"),
        ("select * from ", "(select * from ", "t", ") x"),
        ("select * from ", "(t join ", "t", " on 1 = 1)"),
        ("select ", "not ", "1", ""),
        ("select ", "- ", "1", ""),
        ("select ", "f(", "1", ")"),
        ("select ", "cast(", "1", " as int)"),
    ];
    for (head, open, middle, close) in shapes {
        for depth in 0..12 {
            let text = format!("{head}{}{middle}{}", open.repeat(depth), close.repeat(depth));
            let begun = Instant::now();
            let _relations = relations(&text);
            assert!(begun.elapsed() < Duration::from_secs(2), "{depth} {text:.60}");
        }
    }
}

/// A chain that is as deep as it is long.
#[test]
fn chains_are_short_enough_to_be_walked() {
    let links = [
        "1 + ",
        "1 and ",
        "1 or ",
        "not ",
        "- ",
        "~ ",
        "1 union all select ",
        "1 except select ",
        "a.",
        "a::b::",
        "1 is null and ",
        "1 in (1) or ",
        "case 1 when 1 then ",
        "'a' collate b + ",
        "1, ",
        "a at time zone 'x' + ",
        "a like ",
        "1 between 2 and ",
        "{fn ",
        "f(1) ",
        "a at time zone ",
        "exists select ",
        "distinct ",
        "top 1 ",
    ];
    for link in links {
        for times in [1, 60, 99, 199, 20_000] {
            let text = format!("select {}1", link.repeat(times));
            let begun = Instant::now();
            let _relations = relations(&text);
            assert!(begun.elapsed() < Duration::from_secs(4), "{times} {text:.60}");
        }
    }
}

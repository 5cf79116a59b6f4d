//! Reading long and deep Transact-SQL comes to an end, and the record's parser stays within its stack,
//! whatever the text. Time by the square of these lengths would take the runner's patience.

use gatepost::sql::tsql::{read, relations};

#[test]
fn long_texts_come_to_an_end() {
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
        let text = shape(400_000);
        assert!(!read(&text).plain_read, "{:.20}", text);
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
            let _relations = relations(&text);
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
            let _relations = relations(&text);
        }
    }
}

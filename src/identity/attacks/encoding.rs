//! Bytes that are not a token, or not quite.

use serde_json::json;

use crate::domain::Reason::*;
use crate::domain::RefusalCode;
use crate::domain::{Reason, Refuse as _};
use crate::identity::ProviderKind;
use crate::identity::attacks::{Row, Stage, parts};
use crate::identity::tests::Bench;
use crate::identity::tests::signers::b64;

#[tokio::test]
async fn a_token_is_spelled_in_one_way() {
    let stage = Stage::set().await;
    stage.refuses(rows(&stage)).await;
}

#[expect(clippy::too_many_lines, reason = "a table, one row an attack")]
pub(super) fn rows(stage: &Stage) -> Vec<Row> {
    let token = stage.ec.token(&stage.issuer.claims());
    let [header, claims, signature] = parts(&token);
    let text = format!("{header}.{claims}.{signature}");
    let bytes = |text: &str| text.as_bytes().to_vec();
    let malformed = |name, token: Vec<u8>| (name, token, TokenMalformed);
    let header_text = r#"{"alg":"ES256","kid":"ec"}"#;
    let signed = |claims: &[u8]| {
        let signed = format!("{}.{}", b64(header_text), b64(claims));
        let signature = stage.ec.signature("ES256", signed.as_bytes());
        format!("{signed}.{}", b64(signature)).into_bytes()
    };
    let good = stage.good().into_bytes();
    let mut flawed = good.clone();
    let place = flawed.windows(8).position(|it| it == b"worker-1").unwrap();
    flawed[place] = 0xff;
    // The last letter of 64 bytes carries four bits that mean nothing.
    let mut spare = token.clone();
    let last = spare.last_mut().unwrap();
    *last = next_letter(*last);
    vec![
        ("nothing", vec![], NoToken),
        malformed("a password", bytes("hunter2")),
        malformed("not text", vec![0xff; 100]),
        malformed("a NUL", vec![0]),
        malformed("dots", bytes("..")),
        malformed("many dots", bytes(&".".repeat(10_000))),
        malformed("two parts", bytes(&format!("{header}.{claims}"))),
        malformed("one part", bytes(&header)),
        malformed("four parts", bytes(&format!("{text}.AAAA"))),
        malformed(
            "five parts, encrypted",
            bytes(&format!("{header}.AAAA.AAAA.AAAA.AAAA")),
        ),
        malformed("a dot behind it", bytes(&format!("{text}."))),
        malformed("a dot before it", bytes(&format!(".{text}"))),
        malformed("twice", bytes(&format!("{text}{text}"))),
        malformed("twice with a comma", bytes(&format!("{text},{text}"))),
        malformed("a blank before it", bytes(&format!(" {text}"))),
        malformed("a blank behind it", bytes(&format!("{text} "))),
        malformed("a line end", bytes(&format!("{text}\n"))),
        malformed(
            "a line end inside",
            bytes(&format!("{header}.\r\n{claims}.{signature}")),
        ),
        malformed("a NUL behind it", bytes(&format!("{text}\0"))),
        malformed("in quotes", bytes(&format!("\"{text}\""))),
        malformed("with its scheme", bytes(&format!("Bearer {text}"))),
        malformed("a byte order mark", [b"\xef\xbb\xbf", token.as_slice()].concat()),
        malformed("padding", bytes(&format!("{text}=="))),
        malformed(
            "padding of the claims",
            bytes(&format!("{header}.{claims}=.{signature}")),
        ),
        malformed(
            "the other alphabet",
            bytes(&format!("{header}.{claims}.{}+/", &signature[2..])),
        ),
        malformed("percent signs", bytes(&text.replacen('.', "%2E", 1))),
        malformed("spare bits", spare),
        ("a letter too many", bytes(&format!("{text}A")), TokenSignature),
        malformed(
            "as json",
            bytes(&json!({"payload": claims, "protected": header, "signature": signature}).to_string()),
        ),
        malformed("17 KiB", stage.changed("pad", json!("x".repeat(17 * 1024)))),
        malformed("a megabyte", vec![b'a'; 1024 * 1024]),
        malformed("claims are a list", signed(b"[1]")),
        malformed("claims are a text", signed(b"\"worker-1\"")),
        malformed("claims are nothing", signed(b"")),
        malformed("claims are null", signed(b"null")),
        malformed("claims are a token", signed(text.as_bytes())),
        malformed(
            "claims with more behind them",
            signed(&[&good[..], b"{}"].concat()),
        ),
        malformed(
            "claims with a byte order mark",
            signed(&[b"\xef\xbb\xbf", &good[..]].concat()),
        ),
        malformed(
            "claims with a NUL behind them",
            signed(&[&good[..], b"\0"].concat()),
        ),
        malformed("claims that are not utf-8", signed(&flawed)),
        malformed(
            "claims in utf-16",
            signed(
                &stage
                    .good()
                    .encode_utf16()
                    .flat_map(u16::to_le_bytes)
                    .collect::<Vec<_>>(),
            ),
        ),
        malformed("claims with half a pair", stage.with_text(r#""x":"\ud800","#)),
        malformed(
            "claims with a comma too many",
            signed(stage.good().replace('}', ",}").as_bytes()),
        ),
        malformed("only brackets", signed("[".repeat(10_000).as_bytes())),
    ]
}

fn next_letter(letter: u8) -> u8 {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = ALPHABET.iter().position(|it| *it == letter).unwrap();
    ALPHABET[place ^ 1]
}

#[tokio::test]
async fn a_good_token_cut_at_any_byte_is_none() {
    let stage = Stage::set().await;
    for signer in [&stage.ec, &stage.rsa] {
        let token = signer.token(&stage.issuer.claims());
        let bench = Bench::of(&stage.issuer, ProviderKind::Okta);
        assert!(bench.show(&token).await.is_ok());
        let asked = stage.issuer.asked_for_keys();
        bench.clock.pass(30);
        for length in 0..token.len() {
            for cut in [&token[..length], &token[token.len() - length..]] {
                let (code, reason) = bench.show(cut).await.unwrap_err().refusal();
                let expected = if length == 0 {
                    (RefusalCode::TokenMissing, Reason::NoToken)
                } else if reason == TokenSignature {
                    (RefusalCode::TokenRejected, TokenSignature)
                } else {
                    (RefusalCode::TokenRejected, TokenMalformed)
                };
                assert_eq!((code, reason), expected, "{length}");
            }
        }
        assert_eq!(stage.issuer.asked_for_keys(), asked);
    }
}

//! Signatures that are none, or that are another spelling of a true one.

use serde_json::json;

use crate::domain::Reason::*;
use crate::identity::attacks::{Row, Stage, parts};
use crate::identity::tests::signers::{Signer, b64};

#[tokio::test]
async fn a_signature_is_true_in_one_spelling() {
    let stage = Stage::set().await;
    stage.refuses(rows(&stage)).await;
}

pub(super) fn rows(stage: &Stage) -> Vec<Row> {
    let mut rows = ec(stage);
    rows.extend(rsa(stage));
    rows.extend(ed25519(stage));
    rows.extend(moved(stage));
    rows.into_iter()
        .map(|(name, token)| (name, token, TokenSignature))
        .collect()
}

type Signed = (&'static str, Vec<u8>);

/// A good token of this signer with its signature changed.
fn resigned(stage: &Stage, signer: &Signer, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let header = json!({"alg": signer.algorithms()[0], "kid": signer.id}).to_string();
    let signed = format!("{}.{}", b64(header), b64(stage.good()));
    let signature = signer.signature(signer.algorithms()[0], signed.as_bytes());
    format!("{signed}.{}", b64(change(signature))).into_bytes()
}

/// ASN.1 DER, as TLS writes it.
fn der(raw: &[u8]) -> Vec<u8> {
    let (r, s) = raw.split_at(raw.len() / 2);
    let integer = |number: &[u8]| {
        let digits: Vec<u8> = number.iter().copied().skip_while(|it| *it == 0).collect();
        let sign = digits.first().is_none_or(|it| *it >= 0x80);
        let digits = [vec![0; usize::from(sign)], digits].concat();
        [vec![2, u8::try_from(digits.len()).unwrap()], digits].concat()
    };
    let both = [integer(r), integer(s)].concat();
    [vec![0x30, u8::try_from(both.len()).unwrap()], both].concat()
}

/// The order of P-256 (FIPS 186-4, D.1.2.3).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Order minus s, for numbers of 32 bytes.
fn minus(number: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    let digits = ORDER.iter().zip(number).rev().map(|(order, digit)| {
        let mut left = i16::from(*order) - i16::from(*digit) - borrow;
        borrow = i16::from(left < 0);
        left += 256 * borrow;
        u8::try_from(left).unwrap()
    });
    let mut digits: Vec<u8> = digits.collect();
    digits.reverse();
    digits
}

fn ec(stage: &Stage) -> Vec<Signed> {
    let es = |change: fn(Vec<u8>) -> Vec<u8>| resigned(stage, &stage.ec, change);
    vec![
        // CVE-2022-21449 and its neighbours.
        ("r and s zero", es(|_| vec![0; 64])),
        ("r zero", es(|it| [vec![0; 32], it[32..].to_vec()].concat())),
        ("s zero", es(|it| [it[..32].to_vec(), vec![0; 32]].concat())),
        ("r and s the order", es(|_| [ORDER, ORDER].concat())),
        (
            "r and s one",
            es(|_| [minus(&minus(&one())), one().to_vec()].concat()),
        ),
        ("r and s all ones", es(|_| vec![0xff; 64])),
        ("as der", es(|it| der(&it))),
        ("zeros as der", es(|_| der(&[0; 64]))),
        ("s plus the order's width", es(|it| [it, vec![0; 32]].concat())),
        ("a zero before r", es(|it| [vec![0], it].concat())),
        ("a zero behind s", es(|it| [it, vec![0]].concat())),
        ("a byte short", es(|it| it[..63].to_vec())),
        ("only r", es(|it| it[..32].to_vec())),
        ("r and s exchanged", es(|it| [&it[32..], &it[..32]].concat())),
        (
            "one bit",
            es(|mut it| {
                it[40] ^= 1;
                it
            }),
        ),
        ("p-521 zeros", resigned(stage, &stage.p521, |_| vec![0; 132])),
        (
            "p-521 a byte short",
            resigned(stage, &stage.p521, |it| it[1..].to_vec()),
        ),
        (
            "p-521 as der",
            resigned(stage, &stage.p521, |it| {
                [vec![0x30, 0x81], der(&it[..64])].concat()
            }),
        ),
    ]
}

fn one() -> [u8; 32] {
    let mut one = [0; 32];
    one[31] = 1;
    one
}

fn rsa(stage: &Stage) -> Vec<Signed> {
    let rs = |change: fn(Vec<u8>) -> Vec<u8>| resigned(stage, &stage.rsa, change);
    let said = |signed_as: &str, said: &str| {
        let header = json!({"alg": said, "kid": "rsa"}).to_string();
        stage.rsa.sign_as(signed_as, &header, &stage.good())
    };
    vec![
        ("rsa with a zero before it", rs(|it| [vec![0], it].concat())),
        ("rsa with a zero behind it", rs(|it| [it, vec![0]].concat())),
        ("rsa a byte short", rs(|it| it[1..].to_vec())),
        ("rsa zero", rs(|_| vec![0; 256])),
        ("rsa one", rs(|_| [vec![0; 255], vec![1]].concat())),
        ("rsa all ones", rs(|_| vec![0xff; 256])),
        ("rsa empty", rs(|_| vec![])),
        ("pss said to be pkcs 1", said("PS256", "RS256")),
        ("pkcs 1 said to be pss", said("RS256", "PS256")),
        ("sha-256 said to be sha-512", said("RS256", "RS512")),
        ("pss of sha-384 said to be of sha-256", said("PS384", "PS256")),
        ("rsa said to be hmac", said("RS256", "HS256")),
    ]
}

/// Adds the group's order to S: without a check of the range that would be a second spelling (RFC 8032 §5.1.7).
fn plus_order(mut signature: Vec<u8>) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (digit, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*digit) + u16::from(order) + carry;
        *digit = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    signature
}

fn ed25519(stage: &Stage) -> Vec<Signed> {
    let ed = |change: fn(Vec<u8>) -> Vec<u8>| resigned(stage, &stage.ed, change);
    vec![
        ("ed25519 with S beyond the order", ed(plus_order)),
        ("ed25519 zeros", ed(|_| vec![0; 64])),
        (
            "ed25519 with R of order 1 and S zero",
            ed(|_| [vec![1], vec![0; 63]].concat()),
        ),
        (
            "ed25519 with R of order 1",
            ed(|it| [vec![1], vec![0; 31], it[32..].to_vec()].concat()),
        ),
        (
            "ed25519 with S zero",
            ed(|it| [it[..32].to_vec(), vec![0; 32]].concat()),
        ),
        ("ed25519 a byte short", ed(|it| it[..63].to_vec())),
        ("ed25519 a byte long", ed(|it| [it, vec![0]].concat())),
        (
            "ed25519 with its high bits set",
            ed(|mut it| {
                it[63] |= 0xe0;
                it
            }),
        ),
    ]
}

/// True signatures of something else.
fn moved(stage: &Stage) -> Vec<Signed> {
    let [header, claims, signature] = parts(&stage.ec.token(&stage.issuer.claims()));
    let admin = b64(stage.with("sub", json!("admin")).to_string());
    let other = b64(json!({"alg": "ES256", "kid": "ec"}).to_string());
    let signature_of = |signer: &Signer| parts(&signer.token(&stage.issuer.claims()))[2].clone();
    let joined =
        |header: &str, claims: &str, signature: &str| format!("{header}.{claims}.{signature}").into_bytes();
    let of_claims_alone = b64(stage.ec.signature("ES256", claims.as_bytes()));
    let decoded = b64(stage.ec.signature("ES256", stage.good().as_bytes()));
    vec![
        ("other claims", joined(&header, &admin, &signature)),
        ("another header", joined(&other, &claims, &signature)),
        (
            "somebody else's signature",
            joined(&header, &claims, &signature_of(&stage.mallory)),
        ),
        (
            "signature of the claims alone",
            joined(&header, &claims, &of_claims_alone),
        ),
        (
            "signature of what is not encoded",
            joined(&header, &claims, &decoded),
        ),
        ("the claims as signature", joined(&header, &claims, &claims)),
    ]
}

/// Whoever has a true signature can make a second one (s and the order minus s): the token is as good,
/// says the same, and ends at the same time. That a spelling is unique matters to nobody who reads claims.
#[tokio::test]
async fn the_twin_of_an_ec_signature_says_nothing_else() {
    let stage = Stage::set().await;
    let twin = resigned(&stage, &stage.ec, |it| {
        [it[..32].to_vec(), minus(&it[32..])].concat()
    });
    let bench = crate::identity::tests::Bench::of(&stage.issuer, crate::identity::ProviderKind::Okta);
    assert_eq!(bench.show(&twin).await.unwrap().subject, "worker-1");
}

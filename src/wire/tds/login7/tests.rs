//! Logins that go there and back, and every way in which one can be wrong.

use proptest::prelude::*;

use super::*;

fn put(login: &Login7) -> Vec<u8> {
    let mut out = vec![];
    login.put(&mut out).unwrap();
    out
}

fn full() -> Login7 {
    Login7 {
        version: TdsVersion::V7_3B,
        packet_bytes: 8000,
        program_version: 0x1122_3344,
        process: 4711,
        connection: 5,
        flags_one: 0xe0,
        flags_two: 0x03,
        type_flags: flags::TYPE_READ_ONLY_INTENT,
        flags_three: flags::THREE_UNKNOWN_COLLATION,
        time_zone: -120,
        lcid: 0x0409,
        host: "workstation".to_owned(),
        user: "auto".to_owned(),
        password: Secret::new("pässwörd🔑".to_owned()),
        application: "reports".to_owned(),
        server: "db.example,1433".to_owned(),
        library: "ODBC".to_owned(),
        language: "us_english".to_owned(),
        database: "orders".to_owned(),
        client_id: [1, 2, 3, 4, 5, 6],
        features: vec![
            Feature {
                id: feature::id::UTF8_SUPPORT,
                data: vec![],
            },
            Feature {
                id: feature::id::USER_AGENT,
                data: b"1\0".to_vec(),
            },
        ],
        ..Login7::default()
    }
}

/// Where the `index`-th line of the table stands; the ninth is followed by the client's address.
fn line(index: usize) -> usize {
    36 + index * 4 + if index > 8 { 6 } else { 0 }
}

#[test]
fn logins_go_there_and_back() {
    let odd = Login7 {
        sspi: vec![7; 70_000],
        attach_file: String::new(),
        features: vec![],
        ..full()
    };
    let change = Login7 {
        change_password: Secret::new("new".to_owned()),
        attach_file: "c:\\data.mdf".to_owned(),
        sspi: vec![1, 2],
        ..full()
    };
    for login in [Login7::default(), full(), change] {
        assert_eq!(Login7::decode(&put(&login)), Ok(login));
    }
    // Behind 64 KiB the table reaches nothing; what is empty may point anywhere, but not past the field.
    assert_eq!(odd.put(&mut vec![]), Err(TooLong { what: "file name" }));
}

#[test]
fn the_hidden_password_is_hidden_as_drivers_do() {
    let login = Login7 {
        password: Secret::new("a".to_owned()),
        ..Login7::default()
    };
    let bytes = put(&login);
    // 'a' is 0x61: 0x16 xor 0xa5; and 0x00 xor 0xa5.
    assert_eq!(&bytes[HEAD_BYTES..], [0xb3, 0xa5]);
}

#[test]
fn what_is_not_done_is_told() {
    let with = |change: fn(&mut Login7)| {
        let mut login = full();
        change(&mut login);
        Login7::decode(&put(&login)).unwrap().objection()
    };
    let windows = Some(Objection::WindowsAuthentication);
    let password = Some(Objection::ChangePassword);
    assert_eq!(with(|_| ()), None);
    assert_eq!(with(|login| login.flags_two |= 0x80), windows);
    assert_eq!(with(|login| login.sspi = vec![1]), windows);
    assert_eq!(with(|login| login.flags_three |= 0x01), password);
    assert_eq!(
        with(|login| login.change_password = Secret::new("x".to_owned())),
        password
    );
    assert_eq!(
        with(|login| login.attach_file = "x.mdf".to_owned()),
        Some(Objection::AttachFile)
    );
    assert_eq!(
        with(|login| login.flags_three |= 0x04),
        Some(Objection::UserInstance)
    );
}

#[test]
fn flags_are_read() {
    let login = Login7::decode(&put(&full())).unwrap();
    assert!(login.is_odbc() && login.is_read_only_intent());
    let login = Login7::decode(&put(&Login7::default())).unwrap();
    assert!(!login.is_odbc() && !login.is_read_only_intent());
}

#[test]
fn old_versions_are_told_before_the_rest_is_read() {
    let mut old = put(&full());
    old[4..8].copy_from_slice(&TdsVersion::V7_2.0.to_le_bytes());
    old.truncate(50);
    assert_eq!(version(&old), Ok(TdsVersion::V7_2));
    assert!(version(&old[..7]).is_err());
}

#[test]
fn every_cut_is_refused() {
    let whole = put(&full());
    for cut in 0..whole.len() {
        assert!(Login7::decode(&whole[..cut]).is_err(), "{cut}");
        // Also when the length agrees.
        let mut shorter = whole[..cut].to_vec();
        if let Some(word) = shorter.first_chunk_mut() {
            *word = u32::try_from(cut).unwrap().to_le_bytes();
        }
        assert!(Login7::decode(&shorter).is_err(), "{cut} with its length");
    }
    let longer = [&whole[..], b"x"].concat();
    assert!(matches!(
        Login7::decode(&longer),
        Err(PeerMisbehaved::TrailingBytes { .. })
    ));
}

#[test]
fn no_line_of_the_table_leads_outside() {
    let sizes = [11_u16, 4, 10, 7, 15, 4, 4, 10, 6];
    for (index, size) in sizes.into_iter().enumerate() {
        for (offset, count) in [(u16::MAX, size), (0, size), (93, size), (94, u16::MAX)] {
            let mut bytes = put(&full());
            let at = line(index);
            bytes[at..at + 2].copy_from_slice(&offset.to_le_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&count.to_le_bytes());
            assert!(Login7::decode(&bytes).is_err(), "{index} {offset} {count}");
        }
        // An empty one may point anywhere (the list of features cannot be empty).
        let mut bytes = put(&full());
        let at = line(index);
        bytes[at..at + 4].copy_from_slice(&[0xff, 0xff, 0, 0]);
        assert_eq!(Login7::decode(&bytes).is_ok(), index != 5, "{index}");
    }
}

#[test]
fn the_second_pointer_leads_nowhere_else() {
    let bytes = put(&full());
    let at = usize::from(u16::from_le_bytes([bytes[line(5)], bytes[line(5) + 1]]));
    for wrong in [0, 93, u32::try_from(bytes.len()).unwrap(), u32::MAX] {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&wrong.to_le_bytes());
        assert!(Login7::decode(&bytes).is_err(), "{wrong}");
    }
}

#[test]
fn half_characters_are_refused_where_they_decide() {
    let with = |index: usize| {
        let mut bytes = put(&full());
        let at = usize::from(u16::from_le_bytes([bytes[line(index)], bytes[line(index) + 1]]));
        bytes[at..at + 2].copy_from_slice(&[0x3d, 0xd8]);
        Login7::decode(&bytes)
    };
    assert_eq!(with(0).unwrap().host, "\u{fffd}orkstation");
    assert_eq!(with(1), Err(PeerMisbehaved::NotUtf16 { what: "user name" }));
    assert_eq!(
        with(8),
        Err(PeerMisbehaved::NotUtf16 {
            what: "database name"
        })
    );
}

#[test]
fn long_is_as_long_as_it_may_be() {
    let of = |token: usize, name: usize| {
        let login = Login7 {
            password: Secret::new("x".repeat(token)),
            application: "n".repeat(name),
            ..full()
        };
        Login7::decode(&put(&login))
    };
    assert!(of(TOKEN_BYTES_MAX, NAME_CHARS_MAX).is_ok());
    assert!(matches!(
        of(TOKEN_BYTES_MAX + 1, 1),
        Err(PeerMisbehaved::TooLarge { what: "password", .. })
    ));
    assert!(matches!(
        of(1, NAME_CHARS_MAX + 1),
        Err(PeerMisbehaved::TooLarge {
            what: "application name",
            ..
        })
    ));
}

#[test]
fn debug_tells_no_secret() {
    let login = Login7 {
        password: Secret::new("hunter2".to_owned()),
        change_password: Secret::new("hunter2".to_owned()),
        features: vec![Feature {
            id: feature::id::FEDAUTH,
            data: b"hunter2".to_vec(),
        }],
        ..full()
    };
    let debug = format!("{login:?}");
    assert!(!debug.contains("hunter2") && !debug.contains("104"), "{debug}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(payload: Vec<u8>) {
        let _ = Login7::decode(&payload);
        let mut bytes = put(&full());
        let end = bytes.len().min(36 + payload.len());
        bytes[36..end].copy_from_slice(&payload[..end - 36]);
        let _ = Login7::decode(&bytes);
    }

    #[test]
    fn texts_go_there_and_back(user in ".{0,40}", password in ".{0,200}", database in ".{0,40}") {
        let login = Login7 { user, password: Secret::new(password), database, ..full() };
        prop_assert_eq!(Login7::decode(&put(&login)), Ok(login));
    }
}

#[test]
fn a_changed_bit_never_panics() {
    let mut bytes = put(&full());
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _ = Login7::decode(&bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

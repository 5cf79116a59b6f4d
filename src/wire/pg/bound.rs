//! The parameters of a Bind, as they lie in its body.

use crate::wire::cursor::Cursor;

/// Format code of a parameter in binary (Bind).
const FORMAT_BINARY: u16 = 1;
const FORMAT_BYTES: usize = 2;

/// One parameter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    pub is_binary: bool,
    pub content: Content<'a>,
}

/// Its value. No `Debug`: it is people's data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    Null,
    Whole(&'a [u8]),
    /// It is so long, and not here to its end.
    Cut {
        bytes: usize,
    },
}

/// Walks the parameters as far as they are here.
#[derive(Clone)]
pub struct Parameters<'a> {
    formats: &'a [u8],
    values: Cursor<'a>,
    count: usize,
    next: usize,
}

/// What stands behind the two names in a Bind's body; none if they are not here.
pub fn behind_names(body: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor::new("Bind", body);
    cursor.cstr().ok()?;
    cursor.cstr().ok()?;
    Some(cursor.rest())
}

impl<'a> Parameters<'a> {
    /// `rest` begins behind the names. None if not even the number of parameters is here.
    pub fn read(rest: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new("Bind", rest);
        let formats = usize::from(cursor.u16().ok()?);
        let formats = cursor.bytes(formats.saturating_mul(FORMAT_BYTES)).ok()?;
        let count = usize::from(cursor.u16().ok()?);
        Some(Self {
            formats,
            values: cursor,
            count,
            next: 0,
        })
    }

    /// How many are still to come, here or not.
    pub const fn left(&self) -> usize {
        self.count.saturating_sub(self.next)
    }

    /// None given: all as text. One: all as it says.
    fn is_binary(&self, at: usize) -> bool {
        let at = if self.formats.len() == FORMAT_BYTES { 0 } else { at };
        let format = self.formats.chunks_exact(FORMAT_BYTES).nth(at);
        let format = format.and_then(|format| format.try_into().ok());
        format.map(u16::from_be_bytes) == Some(FORMAT_BINARY)
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Parameter<'a>;

    fn next(&mut self) -> Option<Parameter<'a>> {
        if self.left() == 0 {
            return None;
        }
        // A negative length is NULL.
        let content = match usize::try_from(self.values.i32().ok()?) {
            Err(_) => Content::Null,
            Ok(bytes) => match self.values.bytes(bytes) {
                Ok(value) => Content::Whole(value),
                Err(_) => {
                    self.values.rest();
                    Content::Cut { bytes }
                }
            },
        };
        let is_binary = self.is_binary(self.next);
        self.next += 1;
        Some(Parameter { is_binary, content })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = b"portal\0name\0".to_vec();
        let number = |count: usize| u16::try_from(count).unwrap().to_be_bytes();
        body.extend(number(formats.len()));
        body.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
        body.extend(number(values.len()));
        for value in values {
            let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
            body.extend(length.to_be_bytes());
            body.extend(value.unwrap_or_default());
        }
        body.extend([0, 0]);
        body
    }

    fn shown(rest: &[u8]) -> (Vec<String>, usize) {
        let mut parameters = Parameters::read(rest).unwrap();
        let one = |it: Parameter<'_>| {
            let content = match it.content {
                Content::Null => "null".to_owned(),
                Content::Whole(value) => String::from_utf8_lossy(value).into_owned(),
                Content::Cut { bytes } => format!("{bytes} bytes"),
            };
            format!("{}{content}", if it.is_binary { "b:" } else { "" })
        };
        let all = parameters.by_ref().map(one).collect();
        (all, parameters.left())
    }

    #[test]
    fn formats_stand_for_all_or_each() {
        let values = [Some(&b"one"[..]), None, Some(b"")];
        for (formats, expected) in [
            (&[][..], ["one", "null", ""]),
            (&[1], ["b:one", "b:null", "b:"]),
            (&[0, 1, 1], ["one", "b:null", "b:"]),
        ] {
            let body = body(formats, &values);
            let (all, left) = shown(behind_names(&body).unwrap());
            assert_eq!(all, expected);
            assert_eq!(left, 0);
        }
    }

    #[test]
    fn what_is_not_here_is_counted() {
        let body = body(&[], &[Some(b"one"), Some(b"a longer one"), Some(b"x")]);
        let rest = behind_names(&body).unwrap();
        assert_eq!(
            shown(&rest[..15]),
            (vec!["one".to_owned(), "12 bytes".to_owned()], 1)
        );
        assert_eq!(shown(&rest[..9]), (vec!["3 bytes".to_owned()], 2));
        assert_eq!(shown(&rest[..5]), (vec![], 3));
        assert!(Parameters::read(&rest[..3]).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(rest) = behind_names(&bytes) && let Some(parameters) = Parameters::read(rest) {
                prop_assert!(parameters.count() <= bytes.len());
            }
        }
    }
}

//! Follows the tokens of a server's replies without keeping them ("Token data stream", 2.2.7). The bytes go
//! from server to client untouched; this looks on.
//!
//! Rows, which are nearly all of the bytes, are passed over by their lengths: no copy, no allocation, and the
//! rest of a long value in one step however long it is. Only what must be seen whole and was cut by the end of
//! a packet is kept until the rest comes.

use crate::wire::misbehaved::PeerMisbehaved;
use crate::wire::tds::column;
use crate::wire::tds::data_type::{self, Body, Width};
use crate::wire::tds::event::{Done, DoneKind, DoneStatus, EnvChange, Event, Lost, Message};
use crate::wire::tds::incoming::{Incoming, Stop};
use crate::wire::tds::tag;

/// The largest item that is kept while the rest of it is awaited. An ERROR has at most 64 KiB, and so has the
/// longest text in the description of a column (the name of an assembly, 128 KiB as UTF-16 at the very most).
const ITEM_BYTES_MAX: usize = 1 << 18;
/// How much room for such items a quiet connection keeps.
const ITEM_BYTES_KEPT: usize = 1 << 12;
/// COMPUTE clauses in one statement. SQL Server dropped them in 2012.
const COMPUTES_MAX: usize = 256;

/// The list in FEATUREEXTACK ends with this.
const FEATURES_END: u8 = 0xFF;

/// Whose values are read.
#[derive(Clone, Copy, Debug)]
enum Values {
    Row,
    /// A row with a bitmap of its NULLs.
    Compact,
    /// The row of the COMPUTE clause with this index.
    Computed(usize),
    /// The one value of an output parameter.
    Output(Width),
}

/// Whose columns are described.
#[derive(Clone, Copy, Debug)]
enum Described {
    Columns,
    Computed,
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Token,
    /// A description, of which `left` are to come.
    Description {
        of: Described,
        left: u16,
    },
    /// The length of the value of this column.
    Value {
        of: Values,
        column: usize,
    },
    /// Bytes of a value; then comes the value of `column`.
    Bytes {
        of: Values,
        column: usize,
        left: usize,
    },
    /// The length of a chunk of a value, behind which comes the value of `column`.
    ChunkLength {
        of: Values,
        column: usize,
    },
    Chunk {
        of: Values,
        column: usize,
        left: usize,
    },
    /// Bytes of a token that nobody wants to know.
    Skip {
        left: usize,
    },
    /// The list of acknowledged features.
    Feature,
    /// The bytes of an acknowledged feature.
    FeatureBytes {
        left: usize,
    },
    Lost,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a DONE that says that nothing follows.
    Complete,
    /// Between two tokens, but not behind a final DONE.
    Open,
    /// In the middle of a token.
    Torn,
    /// It could not be read to its end.
    Lost,
}

/// The reader of one connection's replies. One message after another: tell it where each [ends](Reader::end).
#[derive(Debug, Default)]
pub struct Reader {
    at: At,
    columns: Vec<Width>,
    /// Were the columns of the result set at hand described?
    columns_known: bool,
    computed: Vec<(u16, Vec<Width>)>,
    /// The bitmap of a row that has one.
    nulls: Vec<u8>,
    /// The beginning of an item whose rest has not come.
    kept: Vec<u8>,
    /// How long that item must be at least.
    wanted: usize,
    /// Payload bytes of this message before the item at hand.
    taken: u64,
    /// Was the last token a DONE that says that nothing follows?
    is_final: bool,
}

impl Reader {
    /// Is everything read up to here made of whole tokens?
    pub fn is_between_tokens(&self) -> bool {
        matches!(self.at, At::Token) && self.kept.is_empty()
    }

    /// Was the last token a DONE without the MORE bit, so that the reply is complete if its packet ends the
    /// message?
    pub const fn is_final(&self) -> bool {
        self.is_final
    }

    /// How many bytes were read of a DONE whose rest has not come.
    pub fn unfinished_done(&self) -> usize {
        match (self.at, self.kept.first()) {
            (At::Token, Some(&(tag::DONE | tag::DONEPROC | tag::DONEINPROC))) => self.kept.len(),
            _ => 0,
        }
    }

    pub const fn is_lost(&self) -> bool {
        matches!(self.at, At::Lost)
    }

    /// How many payload bytes of this message were read.
    pub fn position(&self) -> u64 {
        self.taken
            .saturating_add(u64::try_from(self.kept.len()).unwrap_or(u64::MAX))
    }

    /// Notes that the message ended, and is ready for the next.
    pub fn end(&mut self) -> End {
        let end = if self.is_lost() {
            End::Lost
        } else if !self.is_between_tokens() {
            End::Torn
        } else if self.is_final {
            End::Complete
        } else {
            End::Open
        };
        self.at = At::Token;
        self.columns_known = false;
        self.computed.clear();
        self.kept.clear();
        self.taken = 0;
        self.is_final = false;
        end
    }

    /// Reads on. Once [lost](Event::Lost) it stays lost up to the end of the message.
    ///
    /// # Errors
    /// When a token that was understood does not hold what it must, or is larger than any can be.
    pub fn read(&mut self, payload: &[u8], events: &mut impl FnMut(Event<'_>)) -> Result<(), PeerMisbehaved> {
        let mut rest = self.finish_kept(payload, events)?;
        loop {
            match self.item(rest, events) {
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err(Stop::Short { at_least }) => {
                    self.want(at_least)?;
                    self.kept.extend_from_slice(rest);
                    return Ok(());
                }
                Err(stop) => self.stopped(stop, events)?,
            }
        }
    }

    /// Completes the item that was cut, with as little of `payload` as it needs.
    fn finish_kept<'p>(
        &mut self,
        mut payload: &'p [u8],
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<&'p [u8], PeerMisbehaved> {
        while !self.kept.is_empty() {
            let missing = self.wanted.saturating_sub(self.kept.len());
            let Some((more, rest)) = payload.split_at_checked(missing) else {
                self.kept.extend_from_slice(payload);
                return Ok(&[]);
            };
            self.kept.extend_from_slice(more);
            payload = rest;
            let mut kept = std::mem::take(&mut self.kept);
            let read = self.item(&kept, events);
            if let Ok(taken) = read {
                kept.drain(..taken.min(kept.len()));
                kept.shrink_to(ITEM_BYTES_KEPT.max(kept.len()));
                self.wanted = kept.len();
            }
            self.kept = kept;
            match read {
                Ok(_) => {}
                Err(Stop::Short { at_least }) => {
                    self.want(at_least.max(self.kept.len().saturating_add(1)))?;
                }
                Err(stop) => {
                    self.kept.clear();
                    self.stopped(stop, events)?;
                }
            }
        }
        Ok(payload)
    }

    fn want(&mut self, at_least: usize) -> Result<(), PeerMisbehaved> {
        if at_least > ITEM_BYTES_MAX {
            return Err(PeerMisbehaved::TooLarge {
                what: "token",
                length: at_least,
                limit: ITEM_BYTES_MAX,
            });
        }
        self.wanted = at_least;
        Ok(())
    }

    fn stopped(&mut self, stop: Stop, events: &mut impl FnMut(Event<'_>)) -> Result<(), PeerMisbehaved> {
        match stop {
            Stop::Broken(misbehaved) => return Err(misbehaved),
            Stop::UnknownType(id) => self.lose(Lost::DataType(id), events),
            // Callers deal with it.
            Stop::Short { .. } => {}
        }
        Ok(())
    }

    fn lose(&mut self, lost: Lost, events: &mut impl FnMut(Event<'_>)) {
        self.at = At::Lost;
        self.is_final = false;
        events(Event::Lost(lost));
    }

    /// Reads one item, or says how long it is at least. What takes no bytes is done without any.
    fn item(&mut self, input: &[u8], events: &mut impl FnMut(Event<'_>)) -> Result<usize, Stop> {
        let taken = match self.at {
            At::Token => self.token(input, events)?,
            At::Description { of, left } => self.description(input, of, left)?,
            At::Value { of, column } => self.values(input, of, column, events)?,
            At::Bytes { of, column, left } => {
                let taken = left.min(some(input)?);
                self.at = match left.saturating_sub(taken) {
                    0 => At::Value { of, column },
                    left => At::Bytes { of, column, left },
                };
                taken
            }
            At::ChunkLength { of, column } => {
                let mut incoming = Incoming::new(input);
                self.at = match data_type::count(&mut incoming)? {
                    0 => At::Value { of, column },
                    left => At::Chunk { of, column, left },
                };
                incoming.taken()
            }
            At::Chunk { of, column, left } => {
                let taken = left.min(some(input)?);
                self.at = match left.saturating_sub(taken) {
                    0 => At::ChunkLength { of, column },
                    left => At::Chunk { of, column, left },
                };
                taken
            }
            At::Skip { left } => {
                let taken = left.min(some(input)?);
                self.skip(left.saturating_sub(taken));
                taken
            }
            At::Feature => self.feature(input)?,
            At::FeatureBytes { left } => {
                let taken = left.min(some(input)?);
                self.at = match left.saturating_sub(taken) {
                    0 => At::Feature,
                    left => At::FeatureBytes { left },
                };
                taken
            }
            At::Lost => some(input)?,
        };
        self.taken = self
            .taken
            .saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
        Ok(taken)
    }

    fn token(&mut self, input: &[u8], events: &mut impl FnMut(Event<'_>)) -> Result<usize, Stop> {
        let mut incoming = Incoming::new(input);
        let token = incoming.u8()?;
        let at = self.taken;
        match token {
            tag::ROW | tag::NBCROW => {
                if !self.columns_known {
                    self.lose(Lost::ColumnsUntold, events);
                    return Ok(incoming.taken());
                }
                let of = if token == tag::ROW {
                    Values::Row
                } else {
                    let nulls = incoming.bytes(self.columns.len().div_ceil(8))?;
                    self.nulls.clear();
                    self.nulls.extend_from_slice(nulls);
                    Values::Compact
                };
                self.at = At::Value { of, column: 0 };
                events(Event::Row { at });
            }
            tag::DONE | tag::DONEPROC | tag::DONEINPROC => {
                let done = done(token, at, &mut incoming)?;
                self.is_final = !done.status.has_more();
                events(Event::Done(done));
                return Ok(incoming.taken());
            }
            tag::ENVCHANGE => events(Event::EnvChange(
                EnvChange::parse(counted(&mut incoming)?).map_err(Stop::Broken)?,
            )),
            tag::ERROR => events(Event::Error(
                Message::parse("ERROR", counted(&mut incoming)?).map_err(Stop::Broken)?,
            )),
            tag::INFO => events(Event::Info(
                Message::parse("INFO", counted(&mut incoming)?).map_err(Stop::Broken)?,
            )),
            tag::RETURNSTATUS => events(Event::ReturnStatus(incoming.i32()?)),
            tag::RETURNVALUE => self.output(&mut incoming, events)?,
            tag::COLMETADATA => self.columns(at, incoming.u16()?, events),
            tag::ALTMETADATA => self.compute(&mut incoming)?,
            tag::ALTROW => {
                let id = incoming.u16()?;
                match self.computed.iter().position(|(known, _)| *known == id) {
                    Some(index) => {
                        self.at = At::Value {
                            of: Values::Computed(index),
                            column: 0,
                        };
                        events(Event::Row { at });
                    }
                    None => self.lose(Lost::ColumnsUntold, events),
                }
            }
            _ => self.passed_over(token, &mut incoming, events)?,
        }
        self.is_final = false;
        Ok(incoming.taken())
    }

    /// Tokens of which only the end matters.
    fn passed_over(
        &mut self,
        token: u8,
        incoming: &mut Incoming<'_>,
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Stop> {
        match token {
            tag::ORDER | tag::COLINFO | tag::TABNAME | tag::LOGINACK | tag::SSPI => {
                let left = usize::from(incoming.u16()?);
                self.skip(left);
            }
            tag::FEDAUTHINFO | tag::SESSIONSTATE => {
                let left = data_type::count(incoming)?;
                self.skip(left);
            }
            tag::OFFSET => self.skip(4), // an identifier and an offset of two bytes each
            tag::FEATUREEXTACK => self.at = At::Feature,
            unknown => {
                self.lose(Lost::Token(unknown), events);
                return Ok(());
            }
        }
        events(Event::Other { token });
        Ok(())
    }

    fn skip(&mut self, left: usize) {
        self.at = match left {
            0 => At::Token,
            left => At::Skip { left },
        };
    }

    fn feature(&mut self, input: &[u8]) -> Result<usize, Stop> {
        let mut incoming = Incoming::new(input);
        self.at = match incoming.u8()? {
            FEATURES_END => At::Token,
            _ => match data_type::count(&mut incoming)? {
                0 => At::Feature,
                left => At::FeatureBytes { left },
            },
        };
        Ok(incoming.taken())
    }

    fn columns(&mut self, at: u64, count: u16, events: &mut impl FnMut(Event<'_>)) {
        self.columns.clear();
        self.computed.clear();
        if count == column::NO_METADATA {
            self.columns_known = false;
            events(Event::ColumnsUntold);
            return;
        }
        self.columns_known = true;
        self.describe(Described::Columns, count);
        events(Event::Columns { at, count });
    }

    fn compute(&mut self, incoming: &mut Incoming<'_>) -> Result<(), Stop> {
        let count = incoming.u16()?;
        let id = incoming.u16()?;
        for _ in 0..incoming.u8()? {
            incoming.u16()?; // a column of its BY
        }
        if self.computed.len() >= COMPUTES_MAX {
            return Err(Stop::Broken(PeerMisbehaved::TooMany {
                what: "ALTMETADATA",
                limit: COMPUTES_MAX,
            }));
        }
        self.computed.retain(|(known, _)| *known != id);
        self.computed.push((id, Vec::new()));
        self.describe(Described::Computed, count);
        Ok(())
    }

    fn describe(&mut self, of: Described, left: u16) {
        self.at = match left {
            0 => At::Token,
            left => At::Description { of, left },
        };
    }

    fn description(&mut self, input: &[u8], of: Described, left: u16) -> Result<usize, Stop> {
        let mut incoming = Incoming::new(input);
        match of {
            Described::Columns => {
                let column = column::column(&mut incoming)?;
                self.columns.push(column.width);
            }
            Described::Computed => {
                let column = column::computed(&mut incoming)?;
                if let Some((_, columns)) = self.computed.last_mut() {
                    columns.push(column.width);
                }
            }
        }
        self.describe(of, left.saturating_sub(1));
        Ok(incoming.taken())
    }

    fn output(
        &mut self,
        incoming: &mut Incoming<'_>,
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Stop> {
        let output = column::output(incoming)?;
        if let Some(data_type) = output.rest {
            self.at = At::Value {
                of: Values::Output(data_type.width),
                column: 0,
            };
        }
        events(Event::ReturnValue {
            ordinal: output.ordinal,
            name: output.name,
            status: output.status,
            value: output.value,
        });
        Ok(())
    }

    /// Passes over as many whole values as there are. This is where nearly all of the time goes.
    fn values(
        &mut self,
        input: &[u8],
        of: Values,
        mut column: usize,
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, Stop> {
        let alone;
        let columns = match of {
            Values::Row | Values::Compact => &self.columns[..],
            Values::Computed(index) => self.computed.get(index).map_or(&[][..], |(_, columns)| columns),
            Values::Output(width) => {
                alone = [width];
                &alone[..]
            }
        };
        let mut taken = 0_usize;
        self.at = loop {
            let Some(width) = columns.get(column) else {
                // Most often the next row follows; it need not go all the way round.
                if !matches!(of, Values::Row) || input.get(taken) != Some(&tag::ROW) {
                    break At::Token;
                }
                events(Event::Row {
                    at: self
                        .taken
                        .saturating_add(u64::try_from(taken).unwrap_or(u64::MAX)),
                });
                taken = taken.saturating_add(1);
                column = 0;
                continue;
            };
            if matches!(of, Values::Compact) && data_type::is_null(&self.nulls, column) {
                column = column.saturating_add(1);
                continue;
            }
            let rest = input.get(taken..).unwrap_or_default();
            let (head, body) = match width.head(rest) {
                Ok(found) => found,
                // Nothing was passed over: the beginning of this length must be kept.
                Err(stop) if taken == 0 => return Err(stop),
                Err(_) => break At::Value { of, column },
            };
            column = column.saturating_add(1);
            let behind = rest.get(head..).unwrap_or_default();
            let length = match body {
                Body::Null => 0,
                Body::Bytes(count) if count > behind.len() => {
                    taken = input.len();
                    let left = count.saturating_sub(behind.len());
                    break At::Bytes { of, column, left };
                }
                Body::Bytes(count) => count,
                Body::Chunks => match data_type::chunks(behind) {
                    Some(count) => count,
                    None => {
                        taken = taken.saturating_add(head);
                        break At::ChunkLength { of, column };
                    }
                },
            };
            taken = taken.saturating_add(head).saturating_add(length);
        };
        Ok(taken)
    }
}

/// How much of what is skipped is there; something must be.
fn some(input: &[u8]) -> Result<usize, Stop> {
    match input.len() {
        0 => Err(Stop::Short { at_least: 1 }),
        length => Ok(length),
    }
}

/// The body of a token with a length of two bytes.
fn counted<'a>(incoming: &mut Incoming<'a>) -> Result<&'a [u8], Stop> {
    let length = usize::from(incoming.u16()?);
    incoming.bytes(length)
}

fn done(token: u8, at: u64, incoming: &mut Incoming<'_>) -> Result<Done, Stop> {
    Ok(Done {
        kind: match token {
            tag::DONEPROC => DoneKind::Procedure,
            tag::DONEINPROC => DoneKind::InProcedure,
            _ => DoneKind::Batch,
        },
        status: DoneStatus(incoming.u16()?),
        command: incoming.u16()?,
        rows: incoming.u64()?,
        at,
    })
}

#[cfg(test)]
mod tests;

//! One direction of a relay: bytes that were read, judged message by message, and wait to be
//! written. Forwarded bytes stay in the buffer that they were read into; only what gatepost adds
//! is kept beside it, and both leave together in one vectored write.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BytesMut};

/// Room for one read. 16 KiB is a TLS record and a fraction of PostgreSQL's largest send; four of
/// them make bulk results cheap without holding much memory.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Unwritten bytes at which no more is read from the other side: a slow reader holds its peer back.
pub(super) const BACKLOG_BYTES_MAX: usize = 256 * 1024;

/// A buffer that grew beyond this is let go when it is empty, so that one bulk transfer does not
/// keep its memory for the rest of an idle session.
const BUFFER_KEPT_BYTES: usize = 128 * 1024;

/// Slices of one vectored write; a group with gatepost's additions has three.
const SLICES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    /// The next bytes of the buffer go on.
    Forward(usize),
    /// The next bytes of the buffer are dropped.
    Drop(usize),
    /// The next bytes of `added` go on.
    Added(usize),
}

/// See the module's text. Invariant: the buffer's first `judged` bytes are covered by the
/// `Forward` and `Drop` segments in order, and `added` by the `Added` ones.
#[derive(Debug, Default)]
pub(super) struct Lane {
    buffer: BytesMut,
    judged: usize,
    added: BytesMut,
    segments: VecDeque<Segment>,
}

impl Lane {
    /// What was read and is not judged yet.
    pub(super) fn unjudged(&self) -> &[u8] {
        self.buffer.get(self.judged..).unwrap_or_default()
    }

    /// Where to read into, with room for at least `at_least` more bytes.
    pub(super) fn space(&mut self, at_least: usize) -> &mut BytesMut {
        if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = BytesMut::new();
        }
        if self.buffer.capacity() - self.buffer.len() < at_least.max(READ_BYTES / 8) {
            self.buffer.reserve(at_least.max(READ_BYTES));
        }
        &mut self.buffer
    }

    /// Puts bytes behind what was read: what a handshake had read beyond its end.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next `length` unjudged bytes go on as they are.
    pub(super) fn forward(&mut self, length: usize) {
        self.judged += length;
        if let Some(Segment::Forward(last)) = self.segments.back_mut() {
            *last += length;
        } else if length > 0 {
            self.segments.push_back(Segment::Forward(length));
        }
    }

    /// The next `length` unjudged bytes go nowhere.
    pub(super) fn discard(&mut self, length: usize) {
        self.judged += length;
        if let Some(Segment::Drop(last)) = self.segments.back_mut() {
            *last += length;
        } else if length > 0 {
            self.segments.push_back(Segment::Drop(length));
        }
        self.settle();
    }

    /// Puts gatepost's own bytes behind all that was judged so far.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.added.extend_from_slice(bytes);
        if let Some(Segment::Added(last)) = self.segments.back_mut() {
            *last += bytes.len();
        } else if !bytes.is_empty() {
            self.segments.push_back(Segment::Added(bytes.len()));
        }
    }

    /// Is there something to write?
    pub(super) fn has_output(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Should the other side stop reading?
    pub(super) fn is_backed_up(&self) -> bool {
        self.judged + self.added.len() >= BACKLOG_BYTES_MAX
    }

    /// The next bytes to write, as slices for one vectored write. Returns how many are used.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let (mut buffer, mut added) = (self.buffer.as_ref(), self.added.as_ref());
        let mut used = 0;
        for segment in &self.segments {
            let Some(slot) = slices.get_mut(used) else { break };
            match *segment {
                Segment::Drop(length) => buffer = buffer.get(length..).unwrap_or_default(),
                Segment::Forward(length) => {
                    *slot = IoSlice::new(buffer.get(..length).unwrap_or_default());
                    buffer = buffer.get(length..).unwrap_or_default();
                    used += 1;
                }
                Segment::Added(length) => {
                    *slot = IoSlice::new(added.get(..length).unwrap_or_default());
                    added = added.get(length..).unwrap_or_default();
                    used += 1;
                }
            }
        }
        used
    }

    /// An array for [`Self::slices`] to fill.
    pub(super) fn no_slices<'a>() -> [IoSlice<'a>; SLICES] {
        std::array::from_fn(|_| IoSlice::new(&[]))
    }

    /// Notes that the first `count` bytes of the output were written.
    pub(super) fn written(&mut self, mut count: usize) {
        while count > 0 {
            self.settle();
            let Some(segment) = self.segments.front_mut() else {
                return;
            };
            match segment {
                Segment::Forward(length) => {
                    let taken = count.min(*length);
                    *length -= taken;
                    count -= taken;
                    self.judged -= taken;
                    self.buffer.advance(taken);
                }
                Segment::Added(length) => {
                    let taken = count.min(*length);
                    *length -= taken;
                    count -= taken;
                    self.added.advance(taken);
                }
                // `settle` has taken these away.
                Segment::Drop(_) => return,
            }
        }
        self.settle();
    }

    /// Drops all output: nobody is left to read it.
    pub(super) fn clear_output(&mut self) {
        self.settle();
        while let Some(Segment::Forward(length) | Segment::Added(length)) = self.segments.front().copied() {
            self.written(length);
        }
    }

    /// Takes finished and dropped segments from the front.
    fn settle(&mut self) {
        loop {
            match self.segments.front() {
                Some(Segment::Forward(0) | Segment::Added(0)) => {}
                Some(Segment::Drop(length)) => {
                    let length = *length;
                    self.judged -= length;
                    self.buffer.advance(length);
                }
                Some(Segment::Forward(_) | Segment::Added(_)) | None => return,
            }
            self.segments.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes everything, `step` bytes at a time.
    fn drain(lane: &mut Lane, step: usize) -> Vec<u8> {
        let mut output = Vec::new();
        while lane.has_output() {
            let mut slices = Lane::no_slices();
            let used = lane.slices(&mut slices);
            let all: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
            let count = step.min(all.len());
            output.extend_from_slice(&all[..count]);
            lane.written(count);
        }
        output
    }

    #[test]
    fn bytes_leave_in_the_order_they_were_judged() {
        let mut lane = Lane::default();
        lane.push(b"abcdefgh");
        lane.forward(2);
        lane.add(b"12");
        lane.discard(2);
        lane.add(b"3");
        lane.forward(2);
        assert_eq!(lane.unjudged(), b"gh");
        assert_eq!(drain(&mut lane, 3), b"ab123ef");
        assert_eq!(lane.unjudged(), b"gh");
    }

    proptest! {
        #[test]
        fn any_order_and_any_step(acts in proptest::collection::vec((0..3_u8, 0..5_usize), 0..40), step in 1..9_usize) {
            let input: Vec<u8> = (0..200).collect();
            let mut lane = Lane::default();
            lane.push(&input);
            let (mut at, mut expected) = (0, Vec::new());
            for (act, length) in acts {
                match act {
                    0 => { lane.forward(length); expected.extend_from_slice(&input[at..at + length]); at += length; }
                    1 => { lane.discard(length); at += length; }
                    _ => { let own = vec![255; length]; lane.add(&own); expected.extend(own); }
                }
            }
            prop_assert_eq!(drain(&mut lane, step), expected);
            prop_assert_eq!(lane.unjudged(), &input[at..]);
        }
    }
}

//! One connection: two lanes, two ends, and what is on its way between them.
//!
//! Nothing here waits. Items on a lane become visible when their time has come and the link is whole; a cut link, or
//! a host without power, holds them back.

use crate::world::rng::Rng;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// What travels on a lane.
#[derive(Debug)]
pub(super) enum Item {
    Data(Bytes),
    Fin,
    Reset,
}

/// One direction: from the end of the same index to the other.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Sent, not arrived, with arrival times that never go back.
    flight: VecDeque<(u64, Item)>,
    arrived: VecDeque<Bytes>,
    fin: bool,
    /// Bytes sent whose room at the receiver has not been given back.
    outstanding: usize,
    /// Room on its way back to the sender.
    credits: VecDeque<(u64, usize)>,
    last_due: u64,
    /// Fin or reset has been sent: nothing follows.
    closed: bool,
}

/// One side's view.
#[derive(Debug)]
pub(super) struct End {
    pub(super) host: Arc<str>,
    /// The process that holds it; `None` when it is gone.
    pub(super) process: Option<u64>,
    /// A reset has been received or caused here.
    pub(super) reset: bool,
    pub(super) reader_open: bool,
    pub(super) writer_open: bool,
    pub(super) readable: Arc<Notify>,
    pub(super) writable: Arc<Notify>,
}

impl End {
    pub(super) fn new(host: &Arc<str>, process: u64) -> Self {
        Self {
            host: Arc::clone(host),
            process: Some(process),
            reset: false,
            reader_open: true,
            writer_open: true,
            readable: Arc::default(),
            writable: Arc::default(),
        }
    }

    /// Gives the end up when both its halves are gone.
    pub(super) fn half_dropped(&mut self) {
        if !self.reader_open && !self.writer_open {
            self.process = None;
        }
    }

    pub(super) fn wake(&self) {
        self.readable.notify_one();
        self.writable.notify_one();
    }
}

/// Which directions of a connection's link are whole: from end 0 to end 1, and back.
pub(super) type Whole = [bool; 2];

/// What a read finds.
pub(super) enum Found {
    Bytes(Bytes),
    End,
    Reset,
    /// Nothing; look again at that time, if it is known.
    Nothing(Option<u64>),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) ends: [End; 2],
    lanes: [Lane; 2],
    window: usize,
    /// Lowest and highest delay of one item, in nanoseconds.
    delay: (u64, u64),
}

impl Pipe {
    pub(super) fn new(ends: [End; 2], window: usize, delay: (u64, u64)) -> Self {
        Self { ends, lanes: Default::default(), window, delay }
    }

    /// Nobody holds either end any more.
    pub(super) fn is_dead(&self) -> bool {
        self.ends.iter().all(|end| end.process.is_none())
    }

    fn arrival(&mut self, lane: usize, now: u64, bytes: usize, rng: &mut Rng) -> u64 {
        let due = now + rng.range(self.delay.0, self.delay.1) + bytes as u64;
        let last = self.lanes[lane].last_due.max(due);
        self.lanes[lane].last_due = last;
        last
    }

    fn send(&mut self, from: usize, now: u64, item: Item, rng: &mut Rng) {
        let bytes = if let Item::Data(bytes) = &item { bytes.len() } else { 0 };
        let due = self.arrival(from, now, bytes, rng);
        let lane = &mut self.lanes[from];
        lane.closed |= !matches!(item, Item::Data(_));
        lane.outstanding += bytes;
        lane.flight.push_back((due, item));
        self.ends[1 - from].wake();
    }

    /// Sends up to the window's rest of `bytes` and returns what is left, `Err` if the connection is broken.
    pub(super) fn write(
        &mut self,
        from: usize,
        now: u64,
        whole: Whole,
        mut bytes: Bytes,
        rng: &mut Rng,
    ) -> Result<Bytes, ()> {
        self.settle(now, whole, rng);
        if self.ends[from].reset || self.lanes[from].closed {
            return Err(());
        }
        let room = self.window.saturating_sub(self.lanes[from].outstanding);
        let now_sent = bytes.split_to(room.min(bytes.len()));
        if !now_sent.is_empty() {
            self.send(from, now, Item::Data(now_sent), rng);
        }
        Ok(bytes)
    }

    /// Sends the end of this direction, once.
    pub(super) fn finish(&mut self, from: usize, now: u64, rng: &mut Rng) {
        if !self.lanes[from].closed {
            self.send(from, now, Item::Fin, rng);
        }
    }

    /// Breaks the connection at this end; the other hears of it when the link lets it.
    pub(super) fn abort(&mut self, at: usize, now: u64, rng: &mut Rng) {
        self.ends[at].reset = true;
        self.ends[at].wake();
        // The reset overtakes some of what is on its way: the end of it, for a stream has no holes.
        let kept = rng.index(self.lanes[at].flight.len() + 1);
        self.lanes[at].flight.truncate(kept);
        self.send(at, now, Item::Reset, rng);
    }

    /// The process at this end was killed: its system closes the connection, with a reset if something was unread.
    pub(super) fn closed_by_system(&mut self, at: usize, now: u64, rng: &mut Rng) {
        let unread = !self.lanes[1 - at].arrived.is_empty();
        self.ends[at].process = None;
        if unread {
            self.send(at, now, Item::Reset, rng);
        } else {
            self.finish(at, now, rng);
        }
    }

    /// The host of this end has lost power: silence.
    pub(super) fn silenced(&mut self, at: usize) {
        self.ends[at].process = None;
    }

    /// Lets everything arrive whose time has come.
    pub(super) fn settle(&mut self, now: u64, whole: Whole, rng: &mut Rng) {
        for from in 0..2 {
            let to = 1 - from;
            while whole[from] && self.lanes[from].flight.front().is_some_and(|(due, _)| *due <= now)
            {
                let Some((_, item)) = self.lanes[from].flight.pop_front() else { break };
                self.arrive(from, to, now, item, rng);
            }
            // Room travels against the data.
            let lane = &mut self.lanes[from];
            while whole[to] && lane.credits.front().is_some_and(|(due, _)| *due <= now) {
                let Some((_, bytes)) = lane.credits.pop_front() else { break };
                lane.outstanding -= bytes;
            }
        }
    }

    fn arrive(&mut self, from: usize, to: usize, now: u64, item: Item, rng: &mut Rng) {
        let gone = self.ends[to].process.is_none();
        match item {
            Item::Reset => {
                self.ends[to].reset = true;
                self.ends[to].wake();
            }
            Item::Data(_) if gone || self.ends[to].reset => {
                if !self.ends[from].reset
                    && !self.lanes[to].flight.iter().any(|(_, item)| matches!(item, Item::Reset))
                {
                    self.send(to, now, Item::Reset, rng);
                }
            }
            Item::Data(bytes) => self.lanes[from].arrived.push_back(bytes),
            Item::Fin => self.lanes[from].fin = true,
        }
    }

    /// What the end `at` can read now, at most `max` bytes of it.
    pub(super) fn read(
        &mut self,
        at: usize,
        now: u64,
        whole: Whole,
        max: usize,
        rng: &mut Rng,
    ) -> Found {
        self.settle(now, whole, rng);
        let from = 1 - at;
        if self.ends[at].reset {
            return Found::Reset;
        }
        let partial = rng.percent(10);
        if let Some(front) = self.lanes[from].arrived.front_mut() {
            let mut count = max.min(front.len());
            if partial && count > 1 {
                count = 1 + rng.index(count);
            }
            let bytes = front.split_to(count);
            if front.is_empty() {
                self.lanes[from].arrived.pop_front();
            }
            let due = now + rng.range(self.delay.0, self.delay.1);
            let last = self.lanes[from].credits.back().map_or(0, |(due, _)| *due);
            self.lanes[from].credits.push_back((due.max(last), bytes.len()));
            self.ends[from].writable.notify_one();
            return Found::Bytes(bytes);
        }
        if self.lanes[from].fin {
            return Found::End;
        }
        let next = |lane: usize| self.lanes[lane].flight.front().map(|(due, _)| *due);
        // What was sent may be answered with a reset when it arrives.
        let dues = [next(from).filter(|_| whole[from]), next(at).filter(|_| whole[at])];
        Found::Nothing(dues.into_iter().flatten().min())
    }

    /// When the end `at` should look again whether there is room to write.
    pub(super) fn room_due(&self, at: usize, whole: Whole) -> Option<u64> {
        let credit = self.lanes[at].credits.front().map(|(due, _)| *due).filter(|_| whole[1 - at]);
        let reset =
            self.lanes[1 - at].flight.front().map(|(due, _)| *due).filter(|_| whole[1 - at]);
        let own = self.lanes[at].flight.front().map(|(due, _)| *due).filter(|_| whole[at]);
        [credit, reset, own].into_iter().flatten().min()
    }

    /// The link is whole again: what waited is sent anew.
    pub(super) fn healed(&mut self, now: u64, rng: &mut Rng) {
        for lane in &mut self.lanes {
            let mut due = now + rng.range(1_000_000, 200_000_000);
            for (at, _) in &mut lane.flight {
                due = due.max(*at);
                *at = due;
            }
            let mut due = now + rng.range(1_000_000, 200_000_000);
            for (at, _) in &mut lane.credits {
                due = due.max(*at);
                *at = due;
            }
            lane.last_due = lane.last_due.max(lane.flight.back().map_or(0, |(due, _)| *due));
        }
        self.ends.iter().for_each(End::wake);
    }
}

//! What owners, recoverers and replicas say to each other about ledgers, and what their nodes say about connections.
//!
//! Every request and reply travels between one container's owner (or recoverer) and one named replica. Ends are
//! exclusive: the first entry that is not there.

use bytes::Bytes;
use thalweg_types::id::{
    Address, ContainerId, EntryId, Epoch, Incarnation, LedgerId, NodeId, ReplicaId,
};

/// The lowest feature level that this program speaks.
pub const LEVEL_MIN: u16 = 1;
/// The highest feature level that this program speaks.
pub const LEVEL_MAX: u16 = 1;

/// An entry with what rides along.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryFrame {
    /// Which ledger.
    pub ledger: LedgerId,
    /// First entry of the run that this entry belongs to.
    pub base: EntryId,
    /// Which entry.
    pub entry: EntryId,
    /// The writer's last committed entry when it sent this one.
    pub lac: Option<EntryId>,
    /// The container's `keep_from` as the register has it.
    pub keep_from: Address,
    /// Operation headers.
    pub headers: Bytes,
    /// Payload, chunk behind chunk.
    pub payload: Vec<Bytes>,
    /// May use the first reserve of a full disk.
    pub exempt: bool,
}

impl EntryFrame {
    /// Length of headers and payload in bytes.
    pub fn content_len(&self) -> usize {
        self.headers.len() + self.payload.iter().map(Bytes::len).sum::<usize>()
    }
}

/// To a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// The writer begins a run of entries here. The first message of a ledger; appends may follow at once.
    Open {
        /// Which ledger.
        ledger: LedgerId,
        /// First entry of the run.
        base: EntryId,
        /// The writer.
        incarnation: Incarnation,
        /// The writer's commit point.
        committed_end: EntryId,
    },
    /// The next entry of the run.
    Append(EntryFrame),
    /// Refuse appends from now on, and say what is there.
    Fence {
        /// Which ledger.
        ledger: LedgerId,
        /// The recoverer's epoch.
        by: Epoch,
    },
    /// Keep this copy, on the authority of epoch `by`.
    Repair {
        /// The recoverer's epoch.
        by: Epoch,
        /// The entry.
        entry: EntryFrame,
    },
    /// Give me this entry.
    Read {
        /// Which ledger.
        ledger: LedgerId,
        /// Which entry.
        entry: EntryId,
    },
    /// Give me the operation headers of a run of entries, without their payload: for a replay.
    Headers {
        /// Which ledger.
        ledger: LedgerId,
        /// The first entry.
        from: EntryId,
        /// No more entries than this.
        entries_max: u32,
        /// No more bytes of headers than this, but for a first entry that is larger.
        bytes_max: u32,
    },
    /// The register has this `keep_from`: everything below may go.
    Trim {
        /// The first address that must stay.
        keep_from: Address,
    },
    /// How far the writer has committed, when no entry carries it.
    Committed {
        /// Which ledger.
        ledger: LedgerId,
        /// The writer's commit point.
        end: EntryId,
    },
    /// What have you got? Sent after a reconnect.
    Hello {
        /// Which ledger.
        ledger: LedgerId,
    },
}

/// What a replay needs of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryHeaders {
    /// Operation headers, verified.
    pub headers: Bytes,
    /// Length of the payload in bytes.
    pub payload_len: usize,
}

/// What a replica has of a ledger's current run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunFacts {
    /// First entry of the run.
    pub base: EntryId,
    /// The first entry that is not durable.
    pub end: EntryId,
    /// The highest commit point seen.
    pub committed_end: EntryId,
    /// False while the replica cannot vouch for `end`: there may have been more.
    pub certain: bool,
}

/// Why a replica refuses. The replica works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nobody has opened that ledger here. Appends never create one.
    UnknownLedger,
    /// The replica cannot vouch for the ledger and takes no appends for it.
    Limbo,
    /// The disk is full.
    Full,
}

/// From a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The run exists, durably.
    Opened {
        /// Which ledger.
        ledger: LedgerId,
        /// First entry of the run.
        base: EntryId,
        /// The first entry that is not durable.
        end: EntryId,
    },
    /// Durable up to here.
    Ack {
        /// Which ledger.
        ledger: LedgerId,
        /// Of which run.
        base: EntryId,
        /// The first entry that is not durable.
        end: EntryId,
    },
    /// A newer epoch has been here, or another writer.
    Fenced {
        /// Which ledger.
        ledger: LedgerId,
        /// That epoch.
        by: Epoch,
    },
    /// Fenced, durably; no append will be acked any more.
    FenceDone {
        /// Which ledger.
        ledger: LedgerId,
        /// On whose request.
        by: Epoch,
        /// What is there.
        run: RunFacts,
    },
    /// The copy is durable.
    Repaired {
        /// Which ledger.
        ledger: LedgerId,
        /// Which entry.
        entry: EntryId,
    },
    /// The append would leave a hole.
    OutOfOrder {
        /// Which ledger.
        ledger: LedgerId,
        /// Of which run.
        base: EntryId,
        /// The entry that is expected.
        end: EntryId,
    },
    /// Refused for now.
    Refused {
        /// Which ledger.
        ledger: LedgerId,
        /// Why.
        why: Refusal,
    },
    /// HAVE: the entry, verified.
    Have(EntryFrame),
    /// HAVE: the headers of the entries from `from` on, without a hole; at least one. That the run ends says nothing
    /// about what lies behind.
    Headers {
        /// Which ledger.
        ledger: LedgerId,
        /// The first entry.
        from: EntryId,
        /// One behind the other.
        entries: Vec<EntryHeaders>,
    },
    /// NEVER HAD: fenced and certain, and nothing from `end` on was ever acked here.
    NeverHad {
        /// Which ledger.
        ledger: LedgerId,
        /// Which entry was asked for.
        entry: EntryId,
        /// The end of what is there.
        end: EntryId,
    },
    /// UNKNOWN: damaged, in limbo, out of reach. Says nothing about whether the entry exists.
    Unknown {
        /// Which ledger.
        ledger: LedgerId,
        /// Which entry was asked for.
        entry: EntryId,
    },
    /// The answer to a hello.
    Greeting {
        /// Which ledger.
        ledger: LedgerId,
        /// What is there; `None`: nobody has opened it here.
        run: Option<RunFacts>,
        /// Who fenced it.
        fenced_by: Option<Epoch>,
    },
}

/// Which of the connections between two nodes carries a channel. On the wire: never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Entries of owners.
    Data,
    /// Fences and recoveries: never behind a queue of entries.
    Urgent,
    /// Copies for repair: never in front of anything.
    Repair,
}

/// The first message of a connection, from the node that asks. Fields that a later level adds stand behind these, and
/// whoever does not know them skips them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The lowest feature level that it speaks.
    pub level_min: u16,
    /// The highest.
    pub level_max: u16,
    /// Its cluster.
    pub cluster: u128,
    /// Who it is.
    pub from: NodeId,
    /// Random per start of its process.
    pub incarnation: Incarnation,
    /// Whom it wants.
    pub to: NodeId,
    /// What for.
    pub lane: Lane,
}

/// The answer of a node that agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The feature level of this connection: the highest that both speak.
    pub level: u16,
    /// Its cluster.
    pub cluster: u128,
    /// Who it is.
    pub node: NodeId,
    /// Random per start of its process.
    pub incarnation: Incarnation,
}

/// Why a node does not agree; it closes the connection. On the wire: never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// No feature level is spoken by both.
    Level,
    /// It belongs to another cluster.
    Cluster,
    /// It is another node.
    Node,
    /// It has too many connections.
    Busy,
}

/// Begins a channel to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The number that the asker gives it; MUST NOT be in use on this connection.
    pub channel: u32,
    /// Whose ledgers.
    pub container: ContainerId,
    /// Which storage on which node.
    pub replica: ReplicaId,
}

/// Why a channel ends. On the wire: never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetachReason {
    /// That storage is not mounted on this node.
    NotMounted,
    /// The storage has stopped.
    Stopped,
    /// There are too many channels.
    TooMany,
}

/// All that crosses a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Begins a connection.
    Connect(Connect),
    /// Agrees to it.
    Accept(Accept),
    /// Refuses it.
    Refuse {
        /// The lowest feature level that the node speaks.
        level_min: u16,
        /// The highest.
        level_max: u16,
        /// Why.
        why: RefuseReason,
    },
    /// Begins a channel.
    Attach(Attach),
    /// The channel is there.
    Attached {
        /// Which.
        channel: u32,
        /// How many times the storage has been mounted.
        mount_seq: u64,
    },
    /// Ends a channel, by the asker.
    Detach {
        /// Which.
        channel: u32,
    },
    /// There is no such channel, or no more.
    Detached {
        /// Which.
        channel: u32,
        /// Why.
        why: DetachReason,
    },
    /// Is anybody there?
    Ping {
        /// Comes back with the answer.
        number: u64,
    },
    /// Yes.
    Pong {
        /// As it was asked.
        number: u64,
    },
    /// To a replica.
    Request {
        /// On which channel.
        channel: u32,
        /// What.
        request: Request,
    },
    /// From a replica.
    Reply {
        /// On which channel.
        channel: u32,
        /// What.
        reply: Reply,
    },
}
